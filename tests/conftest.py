"""What several test files share: small data sets, real CamVid files if present, a clone."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings
from PIL import Image
from strongest import Strongest, about

from roadseg.config import paths
from roadseg.config.paths import ROOT
from roadseg.config.recipe import Recipe
from roadseg.data.datasets import find_source
from roadseg.data.prepare import prepare
from roadseg.data.scenes import Scenes
from roadseg.predict.predictor import Predictor
from roadseg.predict.weights import Weights
from roadseg.training.loop import make_network

# How long an example takes says more about what else runs than about the code.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")
# The workers of one test run share the cores: with a thread for each core, each waits for the others.
torch.set_num_threads(1)

SMALL = {
    "source": "synthetic",
    "path": "roadseg/data/synthetic.py",
    "size": [48, 96],
    "seed": 3,
    "block": 1,
    "counts": {"train": 6, "val": 2, "test": 4},
}


def make_camvid(folder: Path) -> Path:
    """Write a folder in CamVid's layout: two sequences, lists whose folder does not exist."""
    rng = np.random.default_rng(0)
    for split in ("train", "val", "test"):
        (folder / split).mkdir(parents=True)
        (folder / f"{split}annot").mkdir()
        names = [f"seq{s}_{frame:03d}.png" for s in "AB" for frame in range(3)]
        for name in names:
            Image.fromarray(rng.integers(0, 256, (36, 48, 3), np.uint8)).save(folder / split / name)
            labels = rng.integers(0, 12, (36, 48), np.uint8)
            Image.fromarray(labels).save(folder / f"{split}annot" / name)
        lines = [f"/Gone/{split}/{n} /Gone/{split}annot/{n}" for n in reversed(names)]
        (folder / f"{split}.txt").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="session")
def prepared(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "small"
    prepare(SMALL, find_source(SMALL, ROOT), folder)
    return folder


@pytest.fixture(scope="session")
def scenes(prepared) -> dict[str, Scenes]:
    return {split: Scenes.load(prepared, split) for split in ("train", "val", "test")}


@pytest.fixture
def camvid() -> Path:
    """The real CamVid files: $ROADSEG_CAMVID or data/raw/camvid."""
    for place in (os.environ.get("ROADSEG_CAMVID"), ROOT / "data/raw/camvid"):
        if place and Path(place, "train").is_dir():
            return Path(place)
    pytest.skip("no CamVid files at hand")


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    """A root of the test's own, with nothing in it: work/ and build/ are there then."""
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    return tmp_path


@pytest.fixture
def tell(record_property):
    """Tells docs/reliability.md what was tried: area, what, how often, outcome."""
    return lambda *row: record_property("tried", json.dumps(row))


def surroundings(**variables: str) -> dict[str, str]:
    """Return environment variables under which a clone's own code runs, and not this checkout's."""
    left = ("ROADSEG_CAMVID", "PYTHONPATH", "DVC_ROOT")
    kept = {k: v for k, v in os.environ.items() if k not in left}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {**kept, "PATH": path, **variables}


def call(clone: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess:
    """Run `python -m ...` in the clone."""
    return subprocess.run(
        [sys.executable, "-m", *arguments], cwd=clone, capture_output=True, text=True,
        env=surroundings(**variables),
    )  # fmt: skip


def snapshot(folder: Path) -> dict[Path, float]:
    """Return when each file below a folder was changed, and its folders."""
    skipped = (".git", ".dvc", "__pycache__")
    return {
        p: p.stat().st_mtime if p.is_file() else 0 for p in folder.rglob("*")
        if not any(part in skipped for part in p.parts)
    }  # fmt: skip


def ran(result: subprocess.CompletedProcess) -> set[str]:
    """The stages that DVC ran."""
    return set(re.findall(r"Running stage '(?:[^':]*:)?([^':]+)'", result.stdout))


def copy_tree(folder: Path, *, made: bool) -> Path:
    """Copy the working tree as git would, with what the pipeline made for git or without."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True,
        text=True, check=True,
    )  # fmt: skip
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file() and (made or not name.startswith(("results/", "reports/"))):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    return folder


@pytest.fixture(scope="module")
def clone(tmp_path_factory) -> Path:
    """A clone of the working tree, with a smoke-size embedded study."""
    folder = copy_tree(tmp_path_factory.mktemp("clone") / "roadseg", made=False)
    (folder / "dvc.lock").unlink(missing_ok=True)
    for file in (ROOT / "tests/smoke").iterdir():  # settings that take seconds
        shutil.copy(file, folder)
    return folder


def replace(file: Path, old: str, new: str) -> None:
    """Replace text that must stand in a file once."""
    text = file.read_text()
    assert text.count(old) == 1, (file, old, text.count(old))
    file.write_text(text.replace(old, new))


@pytest.fixture
def strongest() -> Predictor:
    """Predicts each pixel's strongest channel."""
    return Predictor(Weights(about(), Strongest(), "0123456789ab"), torch.device("cpu"))


@pytest.fixture(scope="session")
def tiny() -> Weights:
    """A small network with random weights."""
    torch.manual_seed(0)
    recipe = about().recipe
    return Weights(about(name="tiny/fcn/0"), make_network(Recipe.of(recipe), 3), "ba9876543210")
