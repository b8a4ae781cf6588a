"""What several test files share: a small prepared data set, and real CamVid files if present."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from roadseg import sources
from roadseg.data import Scenes
from roadseg.study import ROOT

SMALL = {
    "source": "synthetic",
    "path": "roadseg/synthetic.py",
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
    sources.prepare(SMALL, ROOT, folder)
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
