"""A folder of the user's own becomes a study: check, start, prepare, in a clone."""

import json
import re
import shutil

import broken
import numpy as np
import pytest
from conftest import call, ran, snapshot
from PIL import Image

from roadseg.config.paths import ROOT
from roadseg.config.yaml import read_yaml
from roadseg.data.scenes import Scenes


@pytest.fixture
def mine(clone):
    for name in ("tricks.yaml", "networks.yaml"):  # a new study's own are of the real catalogue
        shutil.copy(ROOT / name, clone)
    return broken.good(clone / "data/raw/mine")


def test_start_makes_a_study_that_prepares_and_refuses_bad_data(clone, mine):
    checked = call(clone, "roadseg", "check", "data/raw/mine")
    assert checked.returncode == 0 and not checked.stderr
    broken.out_of_range(mine)
    before = snapshot(clone)
    refused = call(clone, "roadseg", "start", "own-set", "data/raw/mine")
    assert refused.returncode == 2 and "labels/west_02.png" in refused.stderr
    assert snapshot(clone) == before

    broken.put(mine, "west_02", broken.get_ids("west_02"))
    started = call(clone, "roadseg", "start", "own-set", "data/raw/mine")
    assert started.returncode == 0, started.stderr
    assert "2 runs of 60 steps" in started.stdout and "make report STUDY=own-set" in started.stdout
    made = clone / "studies/own-set"
    assert {file.name for file in made.iterdir()} == {
        "params.yaml", "tricks.yaml", "networks.yaml", "remarks.md", "dvc.yaml"
    }  # fmt: skip
    assert (made / "dvc.yaml").read_bytes() == (clone / "dvc.yaml").read_bytes()
    settings = read_yaml(made / "params.yaml")
    assert [settings[key] for key in ("study", "root", "folder")] == [
        "own-set", "../..", "studies/own-set"
    ]  # fmt: skip
    assert settings["data"] == {
        "source": "folder", "path": "data/raw/mine", "size": [64, 96], "block": 10
    }  # fmt: skip
    assert settings["base"]["pretrained"] == "imagenet" and settings["base"]["steps"] == 60
    planned = call(clone, "roadseg", "plan", "own-set")
    assert planned.returncode == 0 and "1 question asks for 2 runs" in planned.stdout
    # what else can be asked, with its comment signs taken away
    written = (made / "params.yaml").read_text()
    more = re.sub("^# ?", "", written[written.index("#   networks:") :], flags=re.M)
    (made / "params.yaml").write_text(written[: written.index("# More questions")] + more)
    planned = call(clone, "roadseg", "plan", "own-set")
    assert planned.returncode == 0 and "3 questions ask for 20 runs" in planned.stdout
    (made / "params.yaml").write_text(written)
    before = snapshot(clone)
    again = call(clone, "roadseg", "start", "own-set", "data/raw/mine")
    assert again.returncode == 2 and snapshot(clone) == before
    checked = call(clone, "roadseg", "check", "studies/own-set/params.yaml")
    assert checked.returncode == 0, checked.stderr

    result = call(clone, "dvc", "repro", "studies/own-set/dvc.yaml:prepare")
    assert result.returncode == 0, result.stdout + result.stderr
    prepared = clone / "data/prepared/own-set"
    scenes = Scenes.load(prepared, "test")
    about = json.loads((prepared / "scenes.json").read_text())
    assert about["settings"] == {
        "source": "folder", "path": "data/raw/mine", "size": [64, 96]
    }  # fmt: skip
    assert about["splits"]["test"]["digest"] == scenes.digest
    assert scenes.names == tuple(broken.NAMES[8:]) and scenes.classes == ("road", "building", "sky")
    assert ran(call(clone, "dvc", "repro", "studies/own-set/dvc.yaml:prepare")) == set()

    # a file goes bad: the pipeline stops before anything is trained, with the table
    good = np.array(Image.open(mine / "labels/north_00.png"))
    Image.fromarray(good[:-3]).save(mine / "labels/north_00.png")
    result = call(clone, "dvc", "repro", "studies/own-set/dvc.yaml")
    assert result.returncode != 0 and "labels/north_00.png" in result.stderr
    assert "prepare" in ran(result) and not any("train@" in stage for stage in ran(result))
    # mended: what was prepared comes back from the cache
    Image.fromarray(good).save(mine / "labels/north_00.png")
    result = call(clone, "dvc", "repro", "studies/own-set/dvc.yaml:prepare")
    assert "Stage 'studies/own-set/dvc.yaml:prepare' is cached - skipping run" in result.stdout
    assert Scenes.load(clone / "data/prepared/own-set", "test").digest == scenes.digest


def test_a_download_that_fails_leaves_nothing(clone):
    result = call(clone, "roadseg", "fetch", "kitti", "--url", "http://127.0.0.1:9/k.zip")
    message = result.stderr.splitlines()[-1]
    assert result.returncode == 2 and message.startswith("roadseg: http://127.0.0.1:9/k.zip cannot")
    assert "Connection refused" in message and f"lies in {clone}/data/raw/kitti." in message
    assert not (clone / "data/raw/kitti").exists()
