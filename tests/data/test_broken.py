"""Data sets with one thing wrong: each is refused with exactly this, and nothing is written.

What is said of the most common ones is in tests/messages.txt.
"""

import re
import unicodedata

import broken
import fuzz
import numpy as np
import pytest
from broken import (
    COLOURED,
    NAMES,
    after,
    coloured,
    described,
    get,
    in_folders,
    put,
    reimaged,
    relabelled,
    renamed,
    resaved,
    without,
    written,
)  # fmt: skip
from conftest import snapshot
from PIL import Image

from roadseg.__main__ import main
from roadseg.data.check import inspect_source
from roadseg.data.dataset_yaml import DESCRIPTION
from roadseg.data.datasets import open_folder
from roadseg.data.findings import BadData
from roadseg.data.prepare import prepare
from roadseg.errors import InputError

SPLITS, CLASSES = "{train: [north], val: [east], test: [west]}", "[road, building, sky]"


def one_pixel(value):
    """Return a change of labels in one pixel."""

    def change(labels):
        labels[0, 0] = value
        return labels

    return change


def sixteen_bits(folder):
    """Twelve bits in sixteen, as cameras write them: by its high bytes it is nearly black."""
    image = np.array(broken.picture(folder, "north_01")).astype(np.uint16) * 16
    broken.save_png(folder / "images/north_01.png", image, 16, 2)


def sixteen_bit_labels(folder):
    """Ids as 16-bit RGB grey: by their high bytes they are all zero."""
    ids = np.repeat(get(folder, "north_01")[..., None], 3, 2).astype(np.uint16)
    broken.save_png(folder / "labels/north_01.png", ids, 16, 2)


def pages(folder):
    image = broken.picture(folder, "north_01")
    (folder / "images/north_01.png").unlink()
    image.save(folder / "images/north_01.tif", save_all=True, append_images=[image, image])


def a_list(text: str):
    return lambda folder: (folder / "test.txt").write_text(text)


# Where the problem is, and its code -> ways to have it; the most common ones are in messages.txt.
IN_NORTH, IMAGE, IN_YAML = "labels/north_00.png", "images/west_00.png", "dataset.yaml, splits: val"
FAULTS = [
    # label values
    ("labels/east_01.png", "values", relabelled("east_01", lambda labels: labels.astype(np.uint16) * 1000)),
    (IN_NORTH, "values", relabelled("north_00", one_pixel((1, 2, 3)), first=coloured), relabelled("north_00", one_pixel(3)),
     relabelled("north_00", one_pixel(254))),
    ("labels/east_01.png", "palette", broken.palette_in_another_order),
    ("val", "nothing-labelled", after(*(relabelled(name, lambda labels: 0 * labels + 255) for name in NAMES[:4]))),
    # label files
    (IN_NORTH, "transparent-labels",
     relabelled("north_00", lambda labels: np.dstack([labels, np.full((40, 60), 128, np.uint8)]), first=coloured)),
    (IN_NORTH, "lossy-labels", resaved("north_00", format="WEBP", quality=80),
     resaved("north_00", "L", format="TIFF", compression="jpeg", quality=95)),
    (IN_NORTH, "gif", resaved("north_00", format="GIF")),
    (IN_NORTH, "label-format", resaved("north_00", "F", format="TIFF")),
    ("labels/north_01.png", "label-format", sixteen_bit_labels,
     relabelled("north_01", lambda labels: labels[..., 0].astype(np.uint16), first=coloured)),
    ("labels/west_00.png", "unreadable", lambda f: written("labels/west_00.png", (f / "labels/west_00.png").read_bytes()[:60])(f)),
    ("labels/east_03.png", "turned-labels", broken.turned_labels),
    # image files
    ("images/north_01.jpg", "image-format", reimaged(lambda image: image.convert("CMYK"), ".jpg")),
    ("images/north_01.tif", "image-format", reimaged(lambda image: image.convert("F"), ".tif")),
    ("images/north_01.png", "image-format", sixteen_bits),
    ("images/north_01.png", "transparent-image",
     reimaged(lambda image: Image.fromarray(np.dstack([np.asarray(image), np.full((40, 60), 7, np.uint8)])))),
    ("images/north_01.tif", "several-pictures", pages),
    (IMAGE, "unreadable", written(IMAGE, b"<html>404</html>")),
    (IMAGE, "empty-file", written(IMAGE, b"")),
    (IMAGE, "json", written(IMAGE, b'{"shapes": []}')),
    # more pixels than Pillow refuses; more than it likes, and fewer
    (IMAGE, "too-large", *(lambda f, s=size: Image.new("1", s).save(f / IMAGE) for size in ((20000, 10000), (10000, 10000)))),
    # pairs and splits
    ("images/north_02.png", "same-name", lambda f: broken.picture(f, "north_02").save(f / "images/north_02.bmp")),
    ("images/west_01.bmp", "duplicate", after(
        lambda f: broken.picture(f, "north_02").save(f / "images/west_01.bmp"), without("images/west_01.png"))),
    ("north_01", "two-splits", described("val: [east]", "val: [east, north_01]")),
    (IN_YAML, "unknown-name", described("val: [east]", 'val: [""]')),
    ("test.txt", "unknown-name", after(described("test: [west]", "test: test.txt"), a_list("/gone/images/west_00.png\nwset_01\n")),
     after(in_folders, a_list("west/100.png\n/x/west/77.png\n"))),
    ("test.txt", "ambiguous-name", after(in_folders, a_list("west\n00.png\n"))),
    (IN_YAML, "no-folder", described("val: [east]", "val: yes")),
    (IN_YAML, "no-list", described("val: [east]", "val: val.txt")),
    (IN_YAML, "no-sequence-left", described(SPLITS, "{train: [north, east], val: 0.2, test: 0.2}")),
]  # fmt: skip
ONE_BY_ONE = [(file, code, spoil) for file, code, *ways in FAULTS for spoil in ways]


@pytest.fixture
def mine(tmp_path):
    return broken.good(tmp_path / "mine")


@pytest.mark.parametrize(("file", "code", "spoil"), ONE_BY_ONE, ids=range(len(ONE_BY_ONE)))
def test_a_broken_set_is_refused(mine, tmp_path, file, code, spoil):
    spoil(mine)
    before = snapshot(tmp_path)
    with pytest.raises(BadData) as caught:
        prepare({"size": [40, 60]}, open_folder(mine), tmp_path / "out")
    assert [(finding.file, finding.code) for finding in caught.value.findings] == [(file, code)]
    assert snapshot(tmp_path) == before


# What stands in dataset.yaml, and shall stand there instead -> lines and keys with a problem.
MISTAKES = {
    (SPLITS, "[north, east, west]"): ["5: splits"],
    (SPLITS, "{val: 0.5, test: 0.5}"): ["5: splits"],
    (SPLITS, "{train: 0.8, val: 0.4, test: 0.4}"): ["5: splits"],
    (SPLITS, "{val: rest, test: [west]}"): ["5: splits"],
    ("val: [east], ", ""): ["5: splits: val"],
    ("[east]", "20"): ["5: splits: val"],
    ("[east]", "20%"): ["5: splits: val"],
    ("[east]", "true"): ["5: splits: val"],
    ("[east]", "[7]"): ["5: splits: val"],
    ("[east]", "[0016E5, 2011_09_26]"): ["5: splits: val", "5: splits: val"],
    ("val: [east]", "val: [east], valid: [east]"): ["5: splits: valid"],
    ("val: [east]", "val: [east], val: [west]"): ["5: splits: val"],
    ("labels: labels", "lables: labels"): ["2: lables"],
    (f"classes: {CLASSES}\n", ""): ["1: classes"],
    (CLASSES, "[]"): ["3: classes"],
    (CLASSES, "[road, road, sky]"): ["3: classes"],
    (CLASSES, "\n  road: 0\n  building: one\n  sky: -2"): ["5: classes: building", "6: classes: sky"],
    (CLASSES, "\n  road: 0\n  building: 1\n  sky: [2, 1]"): ["6: classes: sky"],
    (CLASSES, "{road: 0, building: rest, sky: rest}"): ["3: classes: sky"],
    (CLASSES, "{road: 0, building: 1, sky: rest}\nunlabelled: rest"): ["4: unlabelled"],
    (CLASSES, f"{CLASSES}\nunlabelled: [2]"): ["4: unlabelled"],
    (CLASSES, f"{CLASSES}\nunlabelled: void"): ["4: unlabelled"],
    (CLASSES, f"{CLASSES}\nthreshold: 1.5"): ["4: threshold"],
    (CLASSES, f"{CLASSES}\nvalues: palette"): ["4: values"],
    (CLASSES, f"{CLASSES}\nvalues: colours"): ["3: classes"],
    (CLASSES, f"{CLASSES}\nvalues: masks"): ["3: classes"],
    (CLASSES, f"{CLASSES}\nvalues: coco"): ["2: labels"],
    (CLASSES, f"{CLASSES}\ncolours: {{raod: [1, 2, 3], sky: blue}}"): ["4: colours: raod", "4: colours: sky"],
    (CLASSES, f"{CLASSES}\npairs: pairs.csv"): ["4: pairs"],
    (CLASSES, "{road: rest}\nvalues: masks"): ["3: classes"],
    ("labels: labels", 'labels: "*.png"\nvalues: masks\nlabel_ending: .png'): ["2: labels", "5: classes"],
    ("images: images", "images: ../images"): ["1: images"],
    ("images: images", "images: images\nimage_ending: jpg"): ["2: image_ending"],
    ("images: images\nlabels: labels", 'images: "*/img"\nlabels: "*/img"'): ["2: labels"],
    ("images: images\nlabels: labels", 'images: "*/img"\nlabels: "*/*/mask"'): ["2: labels"],
    ("images: images\nlabels: labels", "values: coco"): ["1: images", "1: labels"],
    ("images: images\nlabels: labels", "pairs: dataset.yaml\nimage_ending: .png\nlabel_ending: .png"): [
        "2: image_ending", "3: label_ending"
    ],
    ('"(.+)_"', '"(.+"'): ["4: sequence"],
    ("[road, building", "[[road, building"): ["4"],
}  # fmt: skip


@pytest.mark.parametrize(("change", "expected"), MISTAKES.items(), ids=range(len(MISTAKES)))
def test_each_mistake_in_dataset_yaml_is_named_with_its_line(mine, tmp_path, change, expected):
    described(*change)(mine)
    before = snapshot(tmp_path)
    with pytest.raises(InputError) as caught:
        open_folder(mine)
    assert snapshot(tmp_path) == before
    lines = str(caught.value).splitlines()[len(expected) > 1 :]
    for shown, place in zip(lines, expected, strict=True):
        assert shown.startswith(f"{mine}/{DESCRIPTION}:{place}: ")


@pytest.mark.parametrize(
    ("spoil", "where"),
    [
        (without(DESCRIPTION), ""),
        (written(DESCRIPTION, "classes: [Straße]".encode("latin-1")), "/dataset.yaml"),
        (written(DESCRIPTION, b"# nothing yet\n"), "/dataset.yaml"),
        (broken.colour_without_quotes, "/dataset.yaml:6: classes: building"),
        (renamed(DESCRIPTION, "dataset.yml"), "/dataset.yml"),
        (broken.no_images, "/images"),
        (described("images: images", "images: images\nimage_ending: .jpg"), "/images"),
        (described("images: images", 'images: "*/images"'), "/*/images"),
    ],
)  # fmt: skip
def test_what_cannot_be_listed_is_one_message(mine, spoil, where):
    spoil(mine)
    with pytest.raises(InputError) as caught:
        inspect_source(open_folder(mine))
    assert str(caught.value).startswith(f"{mine}{where}: ")


def test_several_problems_are_one_table(mine, capsys):
    broken.several(mine)
    without("labels/north_02.png", "images/west_03.png")(mine)
    assert main(["check", str(mine)]) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.startswith(f"roadseg: {mine}: 5 problems; nothing was written.\n")
    assert re.findall(r"^│ (\S+?) +│", shown.err, re.M) == [
        "file", "labels/north_02.png", "labels/west_03.png", "labels/east_03.png", "images/west_00.png", "labels/west_02.png"
    ]  # fmt: skip


def test_many_problems_are_a_row_for_each_kind_and_all_can_be_listed(mine, capsys):
    """Their extent may differ: each of these label images has another value that no class has."""
    for i in range(24):
        image, labels = broken.scene(100 + i)
        labels[0, 0] = 100 + i
        Image.fromarray(image).save(mine / f"images/north_{i + 10}.png")
        put(mine, f"north_{i + 10}", labels)
    broken.turned_labels(mine)
    without(*(f"labels/{name}.png" for name in NAMES[4:]))(mine)
    with pytest.raises(BadData) as caught:
        inspect_source(open_folder(mine))
    assert len(caught.value.findings) == 33
    text = str(caught.value)
    assert text.startswith(f"{mine}: 33 problems; nothing was written.") and text.count("├") == 3
    assert "turn one of the two" in text and "and 19 more" in text and "and 3 more" in text and text.endswith("--all")
    assert main(["check", str(mine), "--all"]) == 2
    lines = capsys.readouterr().out.splitlines()
    assert lines == [str(finding) for finding in caught.value.findings]
    assert any(line.startswith("labels/east_03.png: ") for line in lines)


def test_the_good_set_is_good(mine):
    summary = inspect_source(open_folder(mine))
    assert {split: len(items) for split, items in summary.source.splits.items()} == {
        "train": 4, "val": 4, "test": 4
    }  # fmt: skip
    broken.coloured(mine)
    assert str(inspect_source(open_folder(mine))) == str(summary)


def test_a_sequence_expression_that_takes_too_much_is_noted(mine):
    described('"(.+)_"', '"(.+)"')(mine)
    described("{train: [north], val: [east], test: [west]}", "{val: 0.3, test: 0.3}")(mine)
    for kind in ("images", "labels"):
        for file in list((mine / kind).iterdir()):
            file.rename(file.with_stem(file.stem + "_L"))
    described('"(.+)"', '"(.+)_"')(mine)
    (note,) = inspect_source(open_folder(mine)).notes
    assert note.startswith("No two images of a split are of one sequence. If there are videos")
    described('"(.+)_"', '"(.+?)_"')(mine)
    summary = inspect_source(open_folder(mine))
    assert len({i.sequence for i in summary.source.splits["train"]}) == 1


def test_label_files_that_are_off_by_one_are_noted(mine):
    assert not any("off by one" in note for note in inspect_source(open_folder(mine)).notes)
    broken.labels_of_the_next_file(mine)
    assert any("off by one" in note for note in inspect_source(open_folder(mine)).notes)


def test_a_file_that_vanishes_after_the_listing_is_named(mine):
    source = open_folder(mine)
    (mine / "labels/north_02.png").unlink()
    with pytest.raises(BadData) as caught:
        prepare({"size": [40, 60]}, source, mine.parent / "out")
    (finding,) = caught.value.findings
    assert (finding.file, finding.code) == ("labels/north_02.png", "vanished")


def test_no_space_is_one_message_and_nothing_is_left(mine, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(InputError) as caught:
        prepare({"size": [400, 600]}, open_folder(mine), tmp_path / "out")
    assert re.match(f"{tmp_path}/out: .*No space left.* 12 MB", str(caught.value))
    assert not list(tmp_path.glob("out*"))


def test_unusual_files_that_are_fine(mine):
    """Grey, palette and opaque RGBA images; ids as palette, RGB grey, 16-bit and two-level images."""
    picture = broken.picture(mine, "north_00")
    picture.convert("L").save(mine / "images/north_00.png")
    broken.picture(mine, "north_01").quantize(64).save(mine / "images/north_01.png")
    broken.picture(mine, "north_02").convert("RGBA").save(mine / "images/north_02.png")
    ids = {name: get(mine, name) for name in NAMES}
    palette = Image.fromarray(ids["north_00"], "P")
    palette.putpalette(broken.COLOURS.tobytes())
    palette.save(mine / "labels/north_00.png")
    put(mine, "north_01", np.repeat(ids["north_01"][..., None], 3, 2))
    put(mine, "north_02", ids["north_02"].astype(np.uint16))
    two = ids["north_03"] > 0
    Image.fromarray(two).save(mine / "labels/north_03.png")
    assert Image.open(mine / "labels/north_03.png").mode == "1"
    broken.save_png(mine / "labels/east_00.png", ids["east_00"], depth=4)  # as Pillow cannot
    assert np.asarray(Image.open(mine / "labels/east_00.png")).max() == 34
    (mine / "labels/._north_00.png").write_text("left by another system")
    got = {}
    summary = inspect_source(
        open_folder(mine), keep=lambda split, i, checked: got.update({(split, i): checked.labels})
    )
    expected = [ids["north_00"], ids["north_01"], ids["north_02"], two.astype(np.uint8)]
    np.testing.assert_array_equal(got["val", 0], ids["east_00"])
    for index, labels in enumerate(expected):
        np.testing.assert_array_equal(got["train", index], labels)
    assert set(summary.notes[1:]) == {
        f"Images of mode {mode}, read as RGB: 1." for mode in ("L", "P", "RGBA")
    }


def test_a_clean_check_prints_its_summary(mine, capsys):
    put(mine, "west_03", np.where(get(mine, "west_03") == 0, 255, 1).astype(np.uint8))
    for name in NAMES[4:8]:
        put(mine, name, np.where(get(mine, name) == 1, 2, get(mine, name)).astype(np.uint8))
    val, test = (np.stack([get(mine, n) for n in part]) for part in (NAMES[:4], NAMES[8:]))
    shares = [[100 * (val == i).mean(), 100 * (test == i).sum() / (0.9 * test.size)] for i in (1, 2)]
    before = snapshot(mine)
    assert main(["check", str(mine / DESCRIPTION)]) == 0
    first, header, *lines = capsys.readouterr().out.splitlines()
    assert first.startswith(f"{mine}/dataset.yaml: ") and header.split() == ["train", "val", "test"]
    assert [line.split() for line in lines[:7]] == [
        ["images", "4", "4", "4"],
        ["sequences", "1", "1", "1"],
        ["not", "labelled,", "%", "0.00", "0.00", "10.00"],
        ["share", "of", "labelled", "pixels,", "%"],
        ["road", "40.000", "40.000", "33.333"],
        ["building", "-", *(f"{share:.3f}" for share in shares[0])],
        ["sky", "60.000", *(f"{share:.3f}" for share in shares[1])],
    ]
    assert lines[7:11] == ["height x width (images): 40 x 60 (12)", "train: north", "val: east", "test: west"]
    assert [line[:5] for line in lines[11:]] == ["note:"] * 2
    assert "one sequence, west" in lines[11] and "building is not in train" in lines[12]
    assert snapshot(mine) == before


def test_check_says_what_it_cannot_find(tmp_path, capsys):
    assert main(["check", str(tmp_path / "nothing")]) == 2
    assert capsys.readouterr().err == f"roadseg: {tmp_path}/nothing: no such folder.\n"
    (tmp_path / "file").touch()
    assert main(["check", str(tmp_path / "file")]) == 2
    assert capsys.readouterr().err == f"roadseg: {tmp_path}/file: is a file, not a folder.\n"


def test_three_ids_for_each_class_are_ids_if_that_is_said(mine):
    described("classes: [road, building, sky]",
              "values: ids\nclasses: {ground: [0, 3, 4], above: [1, 2, 5]}")(mine)  # fmt: skip
    pixels = inspect_source(open_folder(mine)).pixels["train"][None]
    assert pixels[:2].tolist() == [4 * 16 * 60, 4 * 24 * 60]


def test_colours_may_be_merged_and_left_out(mine):
    broken.coloured(mine)
    text = COLOURED.replace("building: '#464646'", "other: ['#464646', [70, 130, 180]]")
    (mine / DESCRIPTION).write_text(text.replace("  sky: [70, 130, 180]\n", ""))
    pixels = inspect_source(open_folder(mine)).pixels["train"][None]
    assert pixels[:2].tolist() == [4 * 16 * 60, 4 * 24 * 60]
    text = COLOURED.replace("  building: '#464646'\n", "")
    (mine / DESCRIPTION).write_text("unlabelled: rest\n" + text)
    summary = inspect_source(open_folder(mine))
    assert summary.pixels["train"][None][255] > 0 and len(summary.source.palette) == 2


@pytest.mark.parametrize("name", fuzz.TARGETS)
def test_what_fuzzing_starts_from_is_read(tmp_path, name, capsys):
    """So that it begins beyond the first refusal."""
    target, seeds = fuzz.TARGETS[name]
    outcomes = set()
    for number, seed in enumerate(seeds()):
        (tmp_path / str(number)).mkdir()
        outcomes.add(target(seed, tmp_path / str(number)))
    assert outcomes == ({"read", "refused"} if name == "labels" else {"read"})
    (tmp_path / "empty").mkdir()
    assert target(b"", tmp_path / "empty") == ("read" if name == "remarks" else "refused")


def test_a_lossless_webp_and_a_jfif_are_read(mine):
    file, expected = mine / "labels/north_00.png", get(mine, "north_00")
    Image.open(file).save(file, format="WEBP", lossless=True)
    image = mine / "images/north_01.png"
    Image.open(image).save(image.with_suffix(".jfif"), format="JPEG")
    image.unlink()
    labels = {}
    inspect_source(open_folder(mine), keep=lambda split, i, checked: labels.update({(split, i): checked.labels}))
    np.testing.assert_array_equal(labels["train", 0], expected)


def test_of_four_channels_the_first_three_are_read_and_that_is_told(mine):
    file = mine / "images/north_00.png"
    bands = np.dstack([np.asarray(Image.open(file).convert("RGB")), np.full((40, 60), 9, np.uint8)])
    image = Image.frombytes("RGBX", (60, 40), bands.tobytes())
    file.unlink()
    image.save(file.with_suffix(".tif"))
    images = {}
    summary = inspect_source(
        open_folder(mine), keep=lambda split, i, checked: images.update({(split, i): checked.image})
    )
    assert "Images of mode RGB with 4 channels, read as RGB: 1." in summary.notes
    np.testing.assert_array_equal(images["train", 0], bands[..., :3].transpose(2, 0, 1))


def test_white_of_a_mask_of_one_bit_is_255_where_that_is_a_class(mine):
    for name in NAMES:
        road = (get(mine, name) > 0).astype(np.uint8)
        put(mine, name, 255 * road)
        if name != "north_00":
            Image.fromarray(road > 0).save(mine / f"labels/{name}.png")
    described("[road, building, sky]", "{other: 0, road: 255}\nunlabelled: rest")(mine)
    summary = inspect_source(open_folder(mine))
    assert not any(pixels[None][255] for pixels in summary.pixels.values())
    assert all(pixels[None][1] > 0 for pixels in summary.pixels.values())


def test_each_shape_that_is_stretched_is_told(mine):
    for name in NAMES[:3]:
        for folder in ("images", "labels"):
            file = mine / folder / f"{name}.png"
            Image.open(file).crop((0, 0, 30, 40)).save(file)
    summary = inspect_source(open_folder(mine), (40, 60))
    assert [note for note in summary.notes if "wide" in note] == [
        "3 of 12 images, of 40 x 30, become 40 x 60: things get 2.00 times as wide for their height."
    ]


def soft_masks(mine):
    """Discs with soft edges: each file has other values between 0 and 255."""
    for number, name in enumerate(NAMES):
        distance = np.hypot(*np.mgrid[-20:20, -30:30])
        soft = np.clip((15 + number / 3 - distance) * 60, 0, 255).astype(np.uint8)
        put(mine, name, soft)
    described("[road, building, sky]", "{other: 0, road: 255}")(mine)


def test_soft_masks_are_one_row_that_says_threshold(mine):
    soft_masks(mine)
    with pytest.raises(BadData) as caught:
        inspect_source(open_folder(mine))
    assert len({finding.finding for finding in caught.value.findings}) > 6
    text = str(caught.value)
    assert text.count("├") == 1 and "and 7 more" in text and "threshold: 128" in text


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("forms", ["NFC NFD", "NFD NFC"])
@pytest.mark.parametrize("entries", [["Köln_01.png", "Köln_02"], ["/a/Köln_01.png Köln_01_L.png", "Köln_02"], ["Köln"]])
def test_lists_in_other_encodings_and_normal_forms_find_their_files(mine, encoding, forms, entries):
    on_disk, in_list = forms.split()
    if encoding == "cp1252" and in_list == "NFD":
        return  # which has no such letters
    for name in NAMES[:4]:
        for kind in ("images", "labels"):
            file = mine / f"{kind}/{name}.png"
            file.rename(file.with_stem(unicodedata.normalize(on_disk, name.replace("east", "Köln"))))
    (mine / "val.txt").write_text(unicodedata.normalize(in_list, "\n".join(entries)), encoding)
    described("val: [east]", "val: val.txt")(mine)
    source = open_folder(mine)
    assert not source.findings
    chosen = [unicodedata.normalize("NFC", item.name) for item in source.splits["val"]]
    assert chosen == [f"Köln_0{i}" for i in ((1, 2) if len(entries) == 2 else range(4))]


def test_a_list_in_an_unknown_encoding_says_so(mine):
    (mine / "val.txt").write_bytes("Рязань_1".encode("koi8-r"))
    described("val: [east]", "val: val.txt")(mine)
    (finding,) = open_folder(mine).findings
    assert "UTF-8" in finding.remedy


@pytest.mark.parametrize("level", [1, 255])
def test_a_lossy_mask_may_be_read_with_a_threshold_if_its_white_is_bright(mine, level):
    for name in NAMES:
        mask = Image.fromarray(np.where(get(mine, name) == 0, level, 0).astype(np.uint8))
        mask.save(mine / f"labels/{name}.png", format="JPEG", quality=70)
    described("[road, building, sky]", "[other, road]")(mine)
    with pytest.raises(BadData) as caught:
        inspect_source(open_folder(mine))
    assert {"threshold: 128" in finding.remedy for finding in caught.value.findings} == {level == 255}
    if level == 255:
        described("[other, road]", "[other, road]\nthreshold: 128")(mine)
        pixels = inspect_source(open_folder(mine)).pixels["train"][None]
        assert pixels[:2].tolist() == [4 * 24 * 60, 4 * 16 * 60]
