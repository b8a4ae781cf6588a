"""What the README asks readers to paste works as it stands."""

import re
import shutil

import numpy as np
import pytest
from PIL import Image

from roadseg.config.paths import ROOT
from roadseg.config.study import load
from roadseg.data.check import inspect_source
from roadseg.data.dataset_yaml import DESCRIPTION
from roadseg.data.datasets import open_folder

BLOCKS = re.findall(r"^```yaml\n(.*?)^```", (ROOT / "README.md").read_text(), re.M | re.S)
BLOCKS = {block.split(":")[0].strip(): block for block in BLOCKS}
QUESTIONS, NETWORKS, IMAGES = (BLOCKS[first] for first in ("questions", "networks", "images"))


@pytest.mark.parametrize("pasted", [QUESTIONS, QUESTIONS + NETWORKS, "questions:\n" + NETWORKS])
def test_questions_can_be_pasted(tmp_path, pasted):
    for name in ("params.yaml", "tricks.yaml", "networks.yaml", "remarks.md"):
        shutil.copy(ROOT / name, tmp_path)
    text = (ROOT / "params.yaml").read_text()
    (tmp_path / "params.yaml").write_text(text[: text.index("questions:")] + pasted)
    study = load(tmp_path / "params.yaml")
    asked = re.findall(r"^  (\S+):", pasted, re.M)
    assert list(study.questions) == asked and all(study.questions[name].arms for name in asked)


def test_the_own_data_block_is_read(tmp_path):
    for drive in range(6):
        for frame in range(2):
            labels = np.roll(np.arange(24 * 32) // 192 % 4, 50 * drive).reshape(24, 32).astype(np.uint8)
            image = np.random.default_rng(2 * drive + frame).integers(0, 256, (24, 32, 3), np.uint8)
            for kind, picture in (("images", image), ("labels", labels)):
                (tmp_path / kind).mkdir(exist_ok=True)
                Image.fromarray(picture).save(tmp_path / f"{kind}/drive{drive}_{frame:04d}.png")
    (tmp_path / DESCRIPTION).write_text(IMAGES)
    splits = inspect_source(open_folder(tmp_path)).source.splits
    assert {name: len(items) for name, items in splits.items()} == {"train": 8, "val": 2, "test": 2}
