import json
import shutil

import numpy as np
import pytest
from conftest import SMALL, make_camvid
from PIL import Image

from roadseg import sources, synthetic
from roadseg.data import CAMVID, CITYSCAPES, Scenes, blocks
from roadseg.recipe import InputError
from roadseg.study import ROOT

SETTINGS = {"source": "camvid", "path": "camvid", "size": [36, 48], "block": 2}


def test_synthetic_scenes_are_prepared_as_drawn(scenes):
    image, labels = synthetic.scene(3, 6, (48, 96))  # the first val image follows 6 of train
    np.testing.assert_array_equal(scenes["val"].images[0], image.transpose(2, 0, 1))
    np.testing.assert_array_equal(scenes["val"].labels[0], labels)
    assert [len(s) for s in scenes.values()] == [6, 2, 4]
    assert scenes["train"].classes == tuple(CITYSCAPES)
    assert isinstance(scenes["train"].images, np.memmap)


def test_preparing_again_gives_the_same_digest_and_another_seed_another(prepared, tmp_path):
    again = sources.prepare(SMALL, ROOT, tmp_path / "again")
    other = sources.prepare({**SMALL, "seed": 4}, ROOT, tmp_path / "other")
    assert again["digest"] == json.loads((prepared / "scenes.json").read_text())["digest"]
    assert again["digest"] != other["digest"]


@pytest.fixture
def small_camvid(tmp_path):
    return make_camvid(tmp_path / "camvid")


def test_camvid_layout(small_camvid, tmp_path):
    about = sources.prepare(SETTINGS, tmp_path, tmp_path / "out")
    scenes = Scenes.load(tmp_path / "out", "train")
    assert scenes.names[0] == "seqB_002"  # the list's order
    original = np.array(Image.open(small_camvid / "trainannot/seqB_002.png"))
    assert (scenes.labels[0] == np.where(original == 11, 255, original)).all()
    image = np.array(Image.open(small_camvid / "train/seqB_002.png"))
    np.testing.assert_array_equal(scenes.images[0], image.transpose(2, 0, 1))
    # three frames of each sequence in blocks of two: never across a sequence
    assert about["splits"]["train"]["sequences"] == ["seqB"] * 3 + ["seqA"] * 3
    assert blocks(scenes.sequences, 2).tolist() == [0, 0, 1, 2, 2, 3]
    assert blocks(scenes.sequences, 1).tolist() == [0, 1, 2, 3, 4, 5]
    assert scenes.classes == tuple(CAMVID)


def test_resizing_keeps_label_values(small_camvid, tmp_path):
    sources.prepare({**SETTINGS, "size": [33, 40]}, tmp_path, tmp_path / "out")
    assert set(np.unique(Scenes.load(tmp_path / "out", "val").labels)) <= {*range(11), 255}


def _remove(folder):
    (folder / "valannot/seqA_001.png").unlink()


def _empty(folder):
    for file in (folder / "test").iterdir():
        file.unlink()
    (folder / "test.txt").unlink()


def _out_of_range(folder):
    Image.fromarray(np.full((36, 48), 31, np.uint8)).save(folder / "testannot/seqA_000.png")


def _other_size(folder):
    Image.fromarray(np.zeros((30, 48), np.uint8)).save(folder / "trainannot/seqA_000.png")


def _truncated(folder):
    file = folder / "train/seqA_000.png"
    file.write_bytes(file.read_bytes()[:200])


def _unlabelled(folder):
    for file in (folder / "valannot").iterdir():
        Image.fromarray(np.full((36, 48), 11, np.uint8)).save(file)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: shutil.rmtree(f / "val"), "camvid/val: no such folder."),
        (_remove, "camvid/valannot/seqA_001.png: missing, though its pair is listed"),
        (_empty, "camvid/test: holds no PNG image"),
        (_out_of_range, "camvid/testannot/seqA_000.png: label value 31, allowed are 0 to 10"),
        (_other_size, "camvid/trainannot/seqA_000.png: (48, 30) pixels, its image has (48, 36)"),
        (_truncated, "camvid/train/seqA_000.png: cannot be read as an image"),
        (_unlabelled, "val: no pixel of any label image is labelled."),
        (shutil.rmtree, "camvid: no such folder. Put the camvid data there"),
    ],
)
def test_a_broken_set_is_named_and_nothing_is_written(small_camvid, tmp_path, spoil, message):
    spoil(small_camvid)
    with pytest.raises(InputError) as caught:
        sources.prepare(SETTINGS, tmp_path, tmp_path / "out")
    assert str(caught.value).removeprefix(f"{tmp_path}/").startswith(message)
    assert not list(tmp_path.glob("out*"))


def test_an_old_set_survives_a_failed_preparation(small_camvid, tmp_path):
    sources.prepare(SETTINGS, tmp_path, tmp_path / "out")
    _out_of_range(small_camvid)
    with pytest.raises(InputError):
        sources.prepare(SETTINGS, tmp_path, tmp_path / "out")
    assert len(Scenes.load(tmp_path / "out", "test")) == 6


def test_the_environment_variable_names_the_folder(small_camvid, tmp_path, monkeypatch):
    settings = {**SETTINGS, "path": "raw/camvid"}
    monkeypatch.setenv("ROADSEG_CAMVID", str(small_camvid))
    assert len(sources.find_source(settings, tmp_path).pairs["test"]) == 6
    assert (tmp_path / "raw/camvid").resolve() == small_camvid
    monkeypatch.setenv("ROADSEG_CAMVID", str(tmp_path / "nowhere"))
    with pytest.raises(
        InputError, match="ROADSEG_CAMVID: .*nowhere does not exist or is no folder"
    ):
        sources.find_source(settings, tmp_path)
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("ROADSEG_CAMVID", str(tmp_path / "empty"))
    with pytest.raises(InputError, match="empty/train: no such folder"):
        sources.find_source(settings, tmp_path)
    monkeypatch.delenv("ROADSEG_CAMVID")  # the link stays as it was
    assert len(sources.find_source(settings, tmp_path).pairs["train"]) == 6


def test_the_variable_never_replaces_real_data(small_camvid, tmp_path, monkeypatch):
    shutil.copytree(small_camvid, tmp_path / "other")
    monkeypatch.setenv("ROADSEG_CAMVID", str(tmp_path / "other"))
    with pytest.raises(InputError, match="exists already and is no link"):
        sources.find_source(SETTINGS, tmp_path)
    assert (small_camvid / "train").is_dir()


def test_the_real_camvid(camvid, tmp_path, monkeypatch):
    monkeypatch.delenv("ROADSEG_CAMVID", raising=False)
    source = sources.camvid_source(size=[360, 480], path=camvid)
    assert [len(source.pairs[s]) for s in ("train", "val", "test")] == [367, 101, 233]
    image, labels = source.read("test", 0)
    assert image.shape == (360, 480, 3) and labels.shape == (360, 480)
    assert set(np.unique(labels)) <= {*range(11), 255}
    assert {sequence for _, sequence in source.pairs["val"]} == {"0016E5"}


def test_unprepared_data_say_how_to_prepare(tmp_path):
    with pytest.raises(InputError, match="no prepared data here. Run 'make report' first."):
        Scenes.load(tmp_path, "train")
