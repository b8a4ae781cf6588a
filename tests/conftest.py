"""What several test files share: a small prepared data set, and real CamVid files if present."""

import os
from pathlib import Path

import pytest

from roadseg import sources
from roadseg.data import Scenes
from roadseg.study import ROOT

SMALL = {
    "source": "synthetic",
    "path": "roadseg/synthetic.py",
    "size": [48, 96],
    "seed": 3,
    "counts": {"train": 6, "val": 2, "test": 4},
}


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
