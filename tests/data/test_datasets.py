import json
import os
import re
import shutil

import broken
import numpy as np
import pytest
from broken import save
from conftest import SMALL, make_camvid, snapshot
from PIL import Image

from roadseg.config.paths import ROOT
from roadseg.data import check, prepare, synthetic
from roadseg.data import datasets as sources
from roadseg.data.findings import BadData
from roadseg.data.layout import Item, Source
from roadseg.data.scenes import (
    CAMVID,
    CITYSCAPES,
    SPLITS,
    Scenes,
    blocks,
    data_digest,
)
from roadseg.data.scenes import test_is_val as has_no_test
from roadseg.errors import InputError

SETTINGS = {"source": "camvid", "path": "camvid", "size": [36, 48], "block": 2}


def prepared_from(settings, root, target) -> dict:
    return prepare.prepare(settings, sources.find_source(settings, root), target)


def noise(shape, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3), np.uint8)


def names(source) -> dict[str, list[str]]:
    return {split: [item.name for item in items] for split, items in source.splits.items()}


def test_synthetic_scenes_are_prepared_as_drawn(scenes):
    image, labels = synthetic.scene(3, 6, (48, 96))  # the first val image follows 6 of train
    np.testing.assert_array_equal(scenes["val"].images[0], image.transpose(2, 0, 1))
    np.testing.assert_array_equal(scenes["val"].labels[0], labels)
    assert [len(s) for s in scenes.values()] == [6, 2, 4]
    assert scenes["train"].classes == tuple(CITYSCAPES)
    assert isinstance(scenes["train"].images, np.memmap)


def test_preparing_again_gives_the_same_digest_and_another_seed_another(prepared, scenes, tmp_path):
    again = prepared_from(SMALL, ROOT, tmp_path / "again")
    other = prepared_from({**SMALL, "seed": 4}, ROOT, tmp_path / "other")
    assert again["digest"] == data_digest(prepared)
    assert again["digest"] != other["digest"]
    assert not set(digests(again).values()) & set(digests(other).values())
    # the same images in the same order, the first of val in train
    shifted = {**SMALL, "counts": {"train": 7, "val": 1, "test": 4}}
    first, second = ({split: names["names"] for split, names in made["splits"].items()}
                     for made in (again, prepared_from(shifted, ROOT, tmp_path / "shifted")))  # fmt: skip
    assert sum(first.values(), []) == sum(second.values(), []) and first != second
    assert data_digest(tmp_path / "shifted") != again["digest"]
    about = json.loads((prepared / "scenes.json").read_text())
    assert about["settings"] == SMALL
    assert digests(about) == {split: split_scenes.digest for split, split_scenes in scenes.items()}
    assert len({*digests(about).values(), data_digest(prepared)}) == 4


def digests(about: dict) -> dict[str, str]:
    return {split: content["digest"] for split, content in about["splits"].items()}


@pytest.fixture
def small_camvid(tmp_path):
    return make_camvid(tmp_path / "camvid")


def test_camvid_layout(small_camvid, tmp_path):
    about = prepared_from(SETTINGS, tmp_path, tmp_path / "out")
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
    for split in SPLITS:
        (small_camvid / f"{split}.txt").unlink()
    assert names(sources.open_folder(small_camvid))["train"][0] == "seqA_000"


def test_resizing_keeps_label_values(small_camvid, tmp_path):
    prepared_from({**SETTINGS, "size": [33, 40]}, tmp_path, tmp_path / "out")
    assert set(np.unique(Scenes.load(tmp_path / "out", "val").labels)) <= {*range(11), 255}


def _out_of_range(folder):
    save(np.full((36, 48), 31), folder / "testannot/seqA_000.png")


@pytest.mark.parametrize(
    ("spoil", "file", "code"),
    [
        (broken.without("valannot/seqA_001.png"), "valannot/seqA_001.png", "missing"),
        (broken.without("val/seqA_001.png"), "val/seqA_001.png", "missing"),
        (_out_of_range, "testannot/seqA_000.png", "values"),
        (broken.written("val.txt", b"/SegNet/val/seqC_007.png /SegNet/valannot/seqC_007.png\nval/seqA_000.png x\n"),
         "val/seqC_007.png", "listed-missing"),
        (broken.written("val.txt", b"val/seqA_000.png\nval/seqA_000.png\n"), "val.txt", "listed-twice"),
        (broken.written("val.txt", b""), "val", "empty-split"),
    ],
)  # fmt: skip
def test_a_broken_camvid_is_refused(small_camvid, tmp_path, spoil, file, code):
    spoil(small_camvid)
    with pytest.raises(BadData) as caught:
        prepared_from(SETTINGS, tmp_path, tmp_path / "out")
    assert [(finding.file, finding.code) for finding in caught.value.findings] == [(file, code)]
    assert not list(tmp_path.glob("out*"))


def test_images_that_no_list_names_are_noted(small_camvid):
    (small_camvid / "val.txt").write_text("val/seqA_000.png\n")
    source = sources.open_folder(small_camvid)
    assert names(source)["val"] == ["seqA_000"] and len(source.notes) == 1 and not source.findings


def test_an_old_set_survives_a_failed_preparation(small_camvid, tmp_path):
    prepared_from(SETTINGS, tmp_path, tmp_path / "out")
    before = snapshot(tmp_path / "out")
    _out_of_range(small_camvid)
    with pytest.raises(InputError):
        prepared_from(SETTINGS, tmp_path, tmp_path / "out")
    assert len(Scenes.load(tmp_path / "out", "test")) == 6
    assert snapshot(tmp_path / "out") == before


def test_a_second_preparation_does_nothing_unless_something_changed(small_camvid, tmp_path):
    out = tmp_path / "out"
    prepared_from(SETTINGS, tmp_path, out)
    first = snapshot(out)
    os.utime(small_camvid / "train/seqA_000.png")  # touched, not changed
    orphan = small_camvid / "trainannot/seqZ_000.png"  # not in the list: nothing to do with it
    shutil.copy(small_camvid / "trainannot/seqA_000.png", orphan)
    prepared_from(SETTINGS, tmp_path, out)
    assert snapshot(out) == first
    prepared_from({**SETTINGS, "size": [18, 24]}, tmp_path, out)
    assert Scenes.load(out, "train").labels.shape == (6, 18, 24)
    prepared_from(SETTINGS, tmp_path, out)
    digest = Scenes.load(out, "train").digest
    shutil.copy(small_camvid / "trainannot/seqA_001.png", small_camvid / "trainannot/seqA_000.png")
    prepared_from(SETTINGS, tmp_path, out)
    assert Scenes.load(out, "train").digest != digest
    # a prepared folder that somebody wrote into is made again
    labels = np.load(out / "val_labels.npy", mmap_mode="r+")
    labels[0, 0, 0] ^= 1
    labels.flush()
    del labels
    about = prepared_from(SETTINGS, tmp_path, out)
    assert prepared_from(SETTINGS, tmp_path, tmp_path / "fresh")["digest"] == about["digest"]
    assert prepare.contents_digest(out) == prepare.contents_digest(tmp_path / "fresh")


@pytest.mark.parametrize("folder", ["", "annot"])
@pytest.mark.parametrize("split", SPLITS)
def test_other_files_of_a_split_change_its_digest_alone(small_camvid, tmp_path, split, folder):
    """So that other test images train nothing anew."""
    before = prepared_from(SETTINGS, tmp_path, tmp_path / "out")
    files = small_camvid / (split + folder)
    shutil.copy(files / "seqA_001.png", files / "seqA_000.png")
    after = prepared_from(SETTINGS, tmp_path, tmp_path / "out")
    changed = {s for s in SPLITS if digests(before)[s] != digests(after)[s]}
    assert changed == {split} and before["digest"] != after["digest"]
    loaded = {s: Scenes.load(tmp_path / "out", s).digest for s in SPLITS}
    assert loaded == digests(after) and data_digest(tmp_path / "out") == after["digest"]


def test_fewer_test_images_leave_the_other_digests(small_camvid, tmp_path):
    before = digests(prepared_from(SETTINGS, tmp_path, tmp_path / "out"))
    lines = (small_camvid / "test.txt").read_text().splitlines(keepends=True)
    (small_camvid / "test.txt").write_text("".join(lines[1:]))
    after = digests(prepared_from(SETTINGS, tmp_path, tmp_path / "out"))
    assert [before[split] == after[split] for split in SPLITS] == [True, True, False]
    # the same images in another order are another training, as its random streams number them
    lines = (small_camvid / "train.txt").read_text().splitlines(keepends=True)
    (small_camvid / "train.txt").write_text("".join(lines[::-1]))
    turned = digests(prepared_from(SETTINGS, tmp_path, tmp_path / "out"))
    assert [after[split] == turned[split] for split in SPLITS] == [False, True, True]


def test_without_test_images_those_of_val_have_their_digest(tmp_path):
    mine = broken.good(tmp_path / "mine")
    text = broken.GOOD.replace("train: [north], val: [east], test: [west]", "train: rest, val: [east], test: none")
    (mine / "dataset.yaml").write_text(text)
    source = sources.open_folder(mine)
    about = prepare.prepare({"size": [40, 60]}, source, tmp_path / "out")
    assert digests(about)["test"] == digests(about)["val"] != digests(about)["train"]
    assert has_no_test(tmp_path / "out") and not about["splits"].keys() - set(SPLITS)
    tested = Scenes.load(tmp_path / "out", "test")
    assert tested.names == Scenes.load(tmp_path / "out", "val").names


def test_a_preparation_that_was_killed_leaves_nothing_that_counts(small_camvid, tmp_path):
    def killed(*_, **__):
        raise KeyboardInterrupt

    source = sources.find_source(SETTINGS, tmp_path)
    (tmp_path / "out.partial").mkdir()  # of one killed harder, by SIGKILL
    with pytest.raises(KeyboardInterrupt), pytest.MonkeyPatch.context() as patch:
        patch.setattr(check, "check_item", killed)
        prepare.prepare(SETTINGS, source, tmp_path / "out")
    assert not list(tmp_path.glob("out*"))


def test_the_environment_variable_names_the_folder(small_camvid, tmp_path, monkeypatch):
    settings = {**SETTINGS, "path": "raw/camvid"}
    monkeypatch.setenv("ROADSEG_CAMVID", str(small_camvid))
    source = sources.find_source(settings, tmp_path)
    assert len(source.splits["test"]) == 6
    assert not (tmp_path / "raw").exists()  # looking changes nothing
    sources.link_source(settings, tmp_path, source)
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
    assert len(sources.find_source(settings, tmp_path).splits["train"]) == 6


def test_the_variable_never_replaces_real_data(small_camvid, tmp_path, monkeypatch):
    shutil.copytree(small_camvid, tmp_path / "other")
    monkeypatch.setenv("ROADSEG_CAMVID", str(tmp_path / "other"))
    with pytest.raises(InputError, match="exists already and is no link"):
        sources.find_source(SETTINGS, tmp_path)
    assert (small_camvid / "train").is_dir()


@pytest.mark.parametrize(
    ("kind", "folder"),
    [("camvid", "train"), ("kitti", "training/image_2"), ("kitti_road", "training/image_2"),
     ("cityscapes", "leftImg8bit/train")],
)  # fmt: skip
def test_missing_folders_are_named(tmp_path, kind, folder):
    (tmp_path / "raw").mkdir()
    settings = {"source": kind, "path": "raw", "size": [36, 48], "block": 1}
    with pytest.raises(InputError) as caught:
        sources.find_source(settings, tmp_path)
    assert str(caught.value).startswith(f"{tmp_path}/raw/{folder}: ")
    (tmp_path / "raw").rmdir()
    with pytest.raises(InputError) as caught:
        sources.find_source(settings, tmp_path)
    assert str(caught.value).startswith("raw: ") and f"ROADSEG_{kind.upper()}" in str(caught.value)


def test_the_real_camvid(camvid, tmp_path, monkeypatch):
    monkeypatch.delenv("ROADSEG_CAMVID", raising=False)
    source = sources.open_folder(camvid)
    assert [len(source.splits[s]) for s in SPLITS] == [367, 101, 233]
    checked = check.check_item(source, source.splits["test"][0])
    assert checked.image.shape == (3, 360, 480) and checked.labels.shape == (360, 480)
    assert set(np.unique(checked.labels)) <= {*range(11), 255} and not checked.findings
    assert {item.sequence for item in source.splits["val"]} == {"0016E5"}
    # the split of the original release is derived by a rule: it must be that of the lists
    for split, items in source.splits.items():
        assert {sources.segnet_split(item.name) for item in items} == {split}


def test_real_labels_that_are_off_by_one_file_are_found(camvid, tmp_path):
    names = sorted(path.name for path in (camvid / "train").glob("0006R0_*.png"))
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    for before, name in zip(names, names[1:], strict=False):
        (tmp_path / "images" / before).symlink_to(camvid / "train" / before)
        (tmp_path / "labels" / before).symlink_to(camvid / "trainannot" / name)
    (tmp_path / "dataset.yaml").write_text(
        f"images: images\nlabels: labels\nunlabelled: 11\nclasses: {list(CAMVID)}\n"
        "sequence: 20\nsplits: {val: 0.2, test: 0.2}\n"
    )
    assert any("off by one" in note for note in check.inspect_source(sources.open_folder(tmp_path)).notes)


@pytest.mark.parametrize("place", [(1, 1), (2, 3), (7, 7), (9, 0)])
def test_pixels_at_other_sizes_are_those_of_the_resized_labels(tmp_path, place):
    labels = np.zeros((10, 11), np.uint8)
    labels[place] = 1  # kept at some sizes, and lost at larger ones
    picture, sizes = Image.fromarray(labels), [(5, 5), (7, 7), (9, 13), (10, 11), (13, 11), (20, 31)]
    source = Source(tmp_path, {}, {}, draw=lambda item: (np.dstack([labels] * 3), labels))
    counts = check.check_item(source, Item("x", "x"), sizes=sizes).pixels
    assert list(counts) == [None, *sizes]
    for height, width in sizes:
        resized = np.asarray(picture.resize((width, height), Image.Resampling.NEAREST))
        expected = [(resized == 0).sum(), (resized == 1).sum()]
        if height >= 10 and width >= 11:  # made larger, so that no pixel goes
            expected = [109, 1]
            assert 1 in resized
        assert counts[height, width][:2].tolist() == expected


def test_the_original_camvid_has_32_colours_for_11_classes(tmp_path):
    colours = [colour for group in sources.CAMVID_GROUPS.values() for colour in group]
    assert len(set(colours)) == len(colours) == 31 and (0, 0, 0) not in colours
    for name in ("0016E5_07959", "0016E5_08160", "0001TP_008550", "0001TP_008520", "Seq05VD_f00000",
                 "0006R0_f00930"):  # fmt: skip
        save(noise((4, 8), sum(map(ord, name))), tmp_path / f"701_StillsRaw_full/{name}.png")
        save(np.array([*colours, (0, 0, 0)]).reshape(4, 8, 3), tmp_path / f"LabeledApproved_full/{name}_L.png")
    source = sources.open_folder(tmp_path)
    assert names(source) == {
        "train": ["0001TP_008520", "0006R0_f00930", "0016E5_08160"],
        "val": ["0016E5_07959"],
        "test": ["0001TP_008550", "Seq05VD_f00000"],
    }
    got = check.check_item(source, source.splits["val"][0]).labels.ravel()
    sizes = [len(group) for group in sources.CAMVID_GROUPS.values()]
    assert got.tolist() == [*np.repeat(np.arange(11), sizes), 255]
    assert list(sources.CAMVID_GROUPS) == list(CAMVID)
    # the colours that CamVid's authors gave: one of each group, and what it is now
    at = {tuple(c): CAMVID_NAMES[i] for c, i in zip([*colours], got[:-1].tolist(), strict=True)}
    assert at[128, 0, 192] == "road" and at[64, 192, 0] == "building"
    assert at[192, 0, 192] == "bicyclist" and at[0, 64, 64] == "sign symbol"
    assert at[64, 128, 192] == at[192, 128, 192] == "car" and at[0, 0, 64] == "pole"


CAMVID_NAMES = list(CAMVID)


def make_kitti(folder, count=200):
    """Write `count` pairs whose sizes differ by some pixels, with all ids from 0 to 33."""
    for i in range(count):
        shape = (37 + i % 3, 120 + i % 5)
        save(noise(shape, i), folder / f"training/image_2/{i:06d}_10.png")
        labels = np.arange(shape[0] * shape[1]).reshape(shape) % 34
        save(labels, folder / f"training/semantic/{i:06d}_10.png")
    return folder


def test_kitti(tmp_path):
    make_kitti(tmp_path / "kitti")
    source = sources.open_folder(tmp_path / "kitti")
    got = names(source)
    assert {split: len(n) for split, n in got.items()} == {"train": 120, "val": 30, "test": 50}
    assert got["test"][:11] == [f"{i:06d}_10" for i in [*range(30, 40), 70]]
    assert got["val"][::10] == ["000010_10", "000090_10", "000170_10"]
    settings = {"source": "kitti", "path": "kitti", "size": [38, 122], "block": 10}
    prepared_from(settings, tmp_path, tmp_path / "out")
    scenes = Scenes.load(tmp_path / "out", "val")
    assert scenes.images.shape == (30, 3, 38, 122) and scenes.classes == tuple(CITYSCAPES)
    # name 000011: 39 x 121; its id at (row, column) is (row * 121 + column) % 34
    checked = check.check_item(source, source.splits["val"][1])
    ids = np.array([7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33])
    for row, column in [(0, 7), (0, 8), (0, 0), (1, 20), (38, 120), (0, 29), (0, 33)]:
        value = (row * 121 + column) % 34
        expected = ids.tolist().index(value) if value in ids else 255
        assert checked.labels[row, column] == expected
    save(np.full((37, 120), 34), tmp_path / "kitti/training/semantic/000000_10.png")
    with pytest.raises(BadData) as caught:
        check.inspect_source(source)
    (finding,) = caught.value.findings
    assert finding.code == "values" and finding.allowed.startswith("7, 8, 11 to 13, 17, 19 to 28, 31 to 33, and 0 to 6, 9, 10,")


def make_kitti_road(folder, **counts):
    """Write a folder in KITTI Road's layout: of each image, a quarter is road, a quarter not, the rest is void."""
    labels = np.zeros((8, 16, 3), np.uint8)
    labels[:4, :8], labels[4:, :8] = (255, 0, 0), (255, 0, 255)
    for category, count in counts.items():
        for i in range(count):
            save(noise((8, 16), 1000 * len(category) + 100 * ord(category[-1]) + i),
                 folder / f"training/image_2/{category}_{i:06d}.png")
            for kind in ("road", "lane")[: 1 + (category == "um")]:
                file = folder / f"training/gt_image_2/{category}_{kind}_{i:06d}.png"
                save(labels if kind == "road" else labels[::-1], file)
    return folder


def test_kitti_road(tmp_path):
    """The real counts, 95, 96 and 98, in thirty sequences: 2, 10, 18, 26 are val, every fourth is test."""
    folder = make_kitti_road(tmp_path / "road", um=95, umm=96, uu=98)
    assert sources.recognise(folder) == "kitti_road"
    summary = check.inspect_source(sources.open_folder(folder))
    splits = summary.source.splits
    assert {split: len(items) for split, items in splits.items()} == {"train": 185, "val": 37, "test": 67}
    assert {item.sequence for item in splits["val"]} == {"um 2", "um 10", "umm 8", "uu 6"}
    assert names(summary.source)["val"][8:10] == ["um_000018", "um_000086"]
    for split, pixels in summary.pixels.items():  # road, not road, void
        assert (pixels[None][[0, 1, 255]] == np.array([32, 32, 64]) * len(splits[split])).all()
    assert list(summary.source.palette) == ["road", "not road"]
    checked = check.check_item(summary.source, splits["train"][0])
    assert checked.labels[::4, ::8].tolist() == [[1, 255], [0, 255]]
    (folder / "training/gt_image_2/uu_road_000097.png").rename(folder / "training/gt_image_2/uu_road_1.png")
    found = [finding.file for finding in sources.open_folder(folder).findings]
    assert found == [f"training/gt_image_2/uu_road_{name}.png" for name in ("000097", "1")]
    (folder / "training/semantic").mkdir()
    with pytest.raises(InputError, match="both KITTI semantics and KITTI Road"):
        sources.open_folder(folder)


def test_cityscapes(tmp_path):
    cities = ["aachen", "bochum", "bremen", "cologne", "darmstadt", "dusseldorf", "erfurt", "frankfurt"]
    for number, city in enumerate(cities):
        for i in range(2):
            split, stem = "val" if city == "frankfurt" else "train", f"{city}_000000_{i:06d}"
            save(noise((8, 16), 2 * number + i), tmp_path / f"leftImg8bit/{split}/{city}/{stem}_leftImg8bit.png")
            target = f"gtFine/{split}/{city}/{stem}_gtFine"
            save(np.full((8, 16), 7), tmp_path / f"{target}_labelIds.png")
            save(np.zeros((8, 16, 3)), tmp_path / f"{target}_color.png")
            save(np.zeros((8, 16)), tmp_path / f"{target}_instanceIds.png")
    summary = check.inspect_source(sources.open_folder(tmp_path))
    splits = summary.source.splits
    assert [len(splits[s]) for s in SPLITS] == [12, 2, 2]
    assert {item.sequence for item in splits["val"]} == {"dusseldorf"}
    assert {item.sequence for item in splits["test"]} == {"frankfurt"}
    assert splits["test"][0].name == "frankfurt_000000_000000"
    assert "dusseldorf" in summary.notes[0] and "frankfurt" in summary.notes[1] and len(summary.notes) == 2
    assert all(pixels[None][0] > 0 and pixels[None][1:].sum() == 0 for pixels in summary.pixels.values())
    requested = {"train": ["aachen"], "val": ["bochum"], "test": ["bremen"]}
    source = sources.find_source({"source": "cityscapes", "path": ".", "splits": requested}, tmp_path)
    assert [len(source.splits[s]) for s in SPLITS] == [2, 2, 2]
    assert source.notes == ("10 of 16 images are in no split.",)


def test_fractions_are_whole_sequences_and_the_same_everywhere(tmp_path):
    mine = broken.good(tmp_path / "mine")
    text = broken.GOOD.replace("{train: [north], val: [east], test: [west]}",
                               "{val: 0.3, test: 0.3}")  # fmt: skip
    (mine / "dataset.yaml").write_text(text)
    splits = sources.open_folder(mine).splits
    assert [len(splits[s]) for s in SPLITS] == [4, 4, 4]
    for items in splits.values():
        assert len({item.sequence for item in items}) == 1
    assert names(sources.open_folder(mine)) == {s: [i.name for i in splits[s]] for s in SPLITS}
    (mine / "dataset.yaml").write_text(text.replace('sequence: "(.+)_"\n', ""))
    source = sources.open_folder(mine)
    assert [len(source.splits[s]) for s in SPLITS] == [4, 4, 4]
    assert source.notes == (
        "Single images were split by fraction. If they are frames of a video, neighbours are in "
        "different splits and scores flatter: set sequence: in dataset.yaml.",
    )
    (mine / "dataset.yaml").write_text(text.replace('"(.+)_"', "2"))
    source = sources.open_folder(mine)
    assert len({item.sequence for items in source.splits.values() for item in items}) == 6
    assert source.splits["train"][0].sequence.startswith("stretch ")


def test_splits_by_folder_list_and_rest(tmp_path):
    mine = broken.good(tmp_path / "mine")
    for kind in ("images", "labels"):
        for drive in ("east", "north", "west"):
            (mine / kind / drive).mkdir()
            for file in sorted((mine / kind).glob(f"{drive}_*.png")):
                file.rename(mine / kind / drive / file.name)
    (mine / "test.txt").write_text("/their/disk/west_03.png /their/disk/west_03_L.png\nwest_01\n")
    text = broken.GOOD.replace('"(.+)_"', "folder")
    (mine / "dataset.yaml").write_text(
        text.replace("{train: [north], val: [east], test: [west]}",
                     "{train: rest, val: east, test: test.txt}")
    )  # fmt: skip
    source = sources.open_folder(mine)
    assert names(source)["val"] == [f"east/east_{i:02d}" for i in range(4)]
    assert names(source)["test"] == ["west/west_01", "west/west_03"]
    assert [item.sequence for item in source.splits["train"]] == ["north"] * 4 + ["west"] * 2
    (mine / "dataset.yaml").write_text(text.replace("train: [north]", "train: [north_00.png]"))
    source = sources.open_folder(mine)
    assert names(source)["train"] == ["north/north_00"]
    assert source.notes == ("3 of 12 images are in no split.",)
    (mine / "labels/north/north_02.png").unlink()  # not asked for, so not missed
    check.inspect_source(sources.open_folder(mine))


def video(folder, lengths: dict[str, int], splits: str, sequence='"(.+)_"'):
    """An own folder without pixels: only its listing is read."""
    for kind in ("images", "labels"):
        (folder / kind).mkdir(parents=True)
        for name, length in lengths.items():
            for frame in range(length):
                (folder / f"{kind}/{name}_{frame}.png").touch()
    (folder / "dataset.yaml").write_text(
        f"images: images\nlabels: labels\nclasses: [a, b]\nsequence: {sequence}\nsplits: {splits}\n"
    )
    return sources.open_folder(folder)


def test_a_long_video_is_passed_over_by_small_fractions(tmp_path):
    lengths = {"long": 90, **{f"drive{i}": 1 for i in range(10)}}
    source = video(tmp_path / "a", lengths, "{val: 0.05, test: 0.05}")
    assert [len(source.splits[s]) for s in SPLITS] == [90, 5, 5] and not source.findings
    source = video(tmp_path / "b", {"one": 60, "two": 30, "three": 10}, "{val: 0.3, test: 0.3}")
    assert not source.findings and min(map(len, source.splits.values())) >= 10


def test_names_are_in_natural_order_and_stretches_are_neighbours(tmp_path):
    source = video(tmp_path / "a", {"drive": 12}, "{val: ['stretch 2'], test: ['stretch 3']}", "4")
    assert names(source)["val"] == ["drive_4", "drive_5", "drive_6", "drive_7"]
    assert names(source)["test"] == ["drive_8", "drive_9", "drive_10", "drive_11"]


def test_a_list_that_cuts_a_video_is_noted(tmp_path):
    source = video(tmp_path / "a", {"east": 4, "west": 2}, "{val: [east_0], test: [west]}")
    assert source.notes == ("Sequences in more than one split: east (train, val).",)


def test_lists_with_spaces_and_a_byte_order_mark(tmp_path):
    video(tmp_path / "a", {"the west": 3, "the north": 3}, "{val: [the north_1], test: x.txt}")
    (tmp_path / "a/x.txt").write_text("\ufeffthe west_0.png\n  the west_2\n\n", "utf-8")
    source = sources.open_folder(tmp_path / "a")
    assert names(source)["test"] == ["the west_0", "the west_2"] and not source.findings


def test_linked_folders_are_followed_once(tmp_path):
    source = video(tmp_path / "a", {"east": 2, "west": 2}, "{val: [far/one_0], test: [west]}")
    (tmp_path / "far").mkdir()
    for kind in ("images", "labels"):
        (tmp_path / "far" / kind).mkdir()
        (tmp_path / "far" / kind / "one_0.png").touch()
        (tmp_path / "a" / kind / "far").symlink_to(tmp_path / "far" / kind)
        (tmp_path / "a" / kind / "loop").symlink_to(tmp_path / "a" / kind)
    source = sources.open_folder(tmp_path / "a")
    assert names(source)["val"] == ["far/one_0"] and not source.findings


def test_an_incomplete_public_set_is_refused(tmp_path):
    make_kitti(tmp_path / "kitti", count=5)
    with pytest.raises(BadData) as caught:
        check.inspect_source(sources.open_folder(tmp_path / "kitti"))
    assert [(f.file, f.code) for f in caught.value.findings] == [("val", "empty-split"), ("test", "empty-split")]


def test_unprepared_data_say_how_to_prepare(tmp_path):
    with pytest.raises(InputError, match="no prepared data here. Run 'make report' first."):
        Scenes.load(tmp_path, "train")


def with_studs(folder, width=2, shift=0):
    """Twelve pairs of 120 x 160: a road, and on it studs of `width` pixels, which train alone lacks in three images."""
    mine = broken.good(folder)
    for number, name in enumerate(broken.NAMES):
        labels = np.zeros((120, 160), np.uint8)
        labels[60:] = 1
        if number not in (4, 5, 6):  # of train
            left = 1 + number * shift
            labels[61 : 61 + width, left : left + width] = 2
        Image.fromarray(labels).save(mine / f"labels/{name}.png")
        image = np.random.default_rng(number).integers(0, 256, (120, 160, 3), np.uint8)
        Image.fromarray(image).save(mine / f"images/{name}.png")
    broken.described("[road, building, sky]", "[sky, road, stud]")(mine)
    return mine


def test_classes_that_resizing_loses_are_named_with_a_size_that_keeps_them(tmp_path, capsys):
    """At a quarter of the size every fourth pixel remains, the third of four: a stud at 1, 2 is between."""
    mine = with_studs(tmp_path / "mine", width=1, shift=5)
    settings = {"source": "folder", "path": "mine", "size": [30, 40], "block": 1}
    prepared_from(settings, tmp_path, tmp_path / "out")
    shown = capsys.readouterr().out
    (note,) = [line for line in shown.splitlines() if "30 x 40: it is left in" in line]
    assert "stud" in note and "0 of 1 train, 0 of 4 val, 0 of 4 test images" in note
    size = tuple(map(int, re.search(r"(\d+) x (\d+) keeps it", note).groups()))
    resized = {name: Image.open(mine / f"labels/{name}.png").resize(size[::-1], Image.Resampling.NEAREST)
               for name in broken.NAMES}  # fmt: skip
    kept = {name: 2 in np.asarray(labels) for name, labels in resized.items()}
    assert sum(kept.values()) >= 0.9 * 9 and kept["north_03"]
    # the shares that are shown are those of the arrays, and what train has not is said
    assert re.search(r"stud +- +- +-$", shown, re.M) and "at 30 x 40" in shown
    assert not any((Scenes.load(tmp_path / "out", split).labels == 2).any() for split in SPLITS)
    # at the files' own size nothing is lost, and without a size nothing is told
    prepared_from({**settings, "size": [120, 160]}, tmp_path, tmp_path / "whole")
    check.inspect_source(sources.open_folder(mine))
    assert "too small" not in capsys.readouterr().out


def test_sizes_tried_are_counted_as_they_would_be_prepared(tmp_path):
    mine = with_studs(tmp_path / "mine")
    tried = [(30, 40), (60, 80), (96, 128)]
    summary = check.inspect_source(sources.open_folder(mine), sizes=tried)
    assert check.header_size(summary.source) == (120, 160)
    for split, items in summary.source.splits.items():
        for size in (None, *tried):
            kept = 0
            for item in items:
                labels = Image.open(item.labels)
                kept += 2 in np.asarray(labels.resize(size[::-1], Image.Resampling.NEAREST) if size else labels)
            assert summary.images[split][size][2] == kept
    assert len(check.lost_classes(summary, (30, 40))) == 0 == len(check.lost_classes(summary, (60, 80)))
