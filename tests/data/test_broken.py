"""Data sets with one thing wrong: each is refused with exactly this, and nothing is written."""

import dataclasses
import unicodedata

import broken
import fuzz
import numpy as np
import pytest
from broken import COLOURED, NAMES, described, get, put, saved
from conftest import snapshot
from PIL import Image

from roadseg.__main__ import main
from roadseg.data.check import inspect_source
from roadseg.data.dataset_yaml import DESCRIPTION
from roadseg.data.datasets import open_folder
from roadseg.data.layout import BadData
from roadseg.data.prepare import prepare
from roadseg.errors import InputError

SPLITS = "{train: [north], val: [east], test: [west]}"
IDS = "0 to 2, and 255 for not labelled"
PLAIN = "8-bit RGB, grey or palette"
WHOLE = "a whole image file of at most 89 million pixels"
ONE = "a PNG with one id or colour per pixel"
KEEP_VALUES = (
    "correct its value under classes:, or leave it out and write the others as 'name: value' lines, so that "
    "they keep their values"
)
LIST_IT = "correct the file, or list the value under classes: or unlabelled: in dataset.yaml"
ONCE = "each image in one split"
BELONG = "check that the two belong together; resize labels with nearest only"
LISTED = "names of images, with or without ending, or of sequences"
SHARE = "list images or videos; or let sequence: be a number n, for sequences of n consecutive images"


def yaml(key: str, finding: str, allowed: str, remedy: str) -> tuple:
    return (f"dataset.yaml, {key}", finding, allowed, remedy)


CASES = {
    # label values
    broken.out_of_range: [
        ("labels/west_02.png", "values 31, 200 in 5.1 % of the pixels", IDS, LIST_IT)
    ],
    broken.sixteen_bit_labels: [
        ("labels/east_01.png", "values 1000, 2000 in 60 % of the pixels", IDS, LIST_IT)
    ],
    broken.unknown_colour: [
        ("labels/north_00.png", "colour [1, 2, 3] in 0.21 % of the pixels",
         "the 3 colours of the classes", LIST_IT)
    ],
    broken.smoothed: [
        ("labels/north_00.png",
         "colours [70, 80, 88], [76, 123, 175], [122, 71, 133] and 20 more in 8.5 % of the pixels",
         "the 3 colours of the classes",
         "export again without smoothing; resize with nearest only, never save as JPEG")
    ],
    broken.colours_for_ids: [
        ("labels/east_01.png", "is a colour image", "ids: one number per pixel",
         "say values: colours and the colour of each class, or export ids")
    ],
    broken.palette_in_another_order: [
        ("labels/east_01.png", "id 0 (road) is drawn in the colour of building",
         "ids in the order of the classes",
         "export again with the right order, or say values: colours")
    ],
    described("[road, building, sky]", "[road, building, sky, tram]"): [
        ("class tram", "never occurs in any label image", "classes that occur",
         KEEP_VALUES)
    ],
    broken.mask_of_0_and_255: [
        ("class road", "never occurs in any label image", "classes that occur",
         f"{KEEP_VALUES}; 40 % of the pixels count as not "
         "labelled: is it among these?")
    ],
    broken.nothing_labelled_in_val: [
        ("val", "no pixel of any label image is labelled", "some labelled pixels",
         "check the label images, or unlabelled:")
    ],
    # label files
    broken.transparent_labels: [
        ("labels/north_00.png", "has transparent pixels", ONE,
         "export the labels without transparency")
    ],
    broken.jpeg_labels: [
        ("labels/north_00.png", "is a JPEG, which changes label values", ONE,
         "export the labels as PNG")
    ],
    broken.lossy_webp_labels: [
        ("labels/north_00.png", "is a lossy WebP, which changes label values", ONE,
         "export the labels as PNG")
    ],
    broken.jpeg_in_tiff_labels: [
        ("labels/north_00.png", "is a TIFF compressed as JPEG, which changes label values", ONE,
         "export the labels as PNG")
    ],
    broken.pointer_for_labels: [
        ("labels/north_00.png", "is a Git LFS pointer, not the picture", WHOLE, "run: git lfs pull")
    ],
    broken.gif_labels: [("labels/north_00.png", "is a GIF", WHOLE, "save it as PNG")],
    broken.float_labels: [
        ("labels/north_00.png", "has mode F", ONE, "export the labels as 8-bit PNG")
    ],
    broken.truncated_labels: [
        ("labels/west_00.png", "cannot be decoded (image file is truncated)", WHOLE,
         "restore the file")
    ],
    broken.other_size: [
        ("labels/east_03.png", "is 39 x 60, its image 40 x 60",
         "the same height and width as its image", BELONG)
    ],
    broken.turned_labels: [
        ("labels/east_03.png", "is 60 x 40, its image 40 x 60",
         "the same height and width as its image", "turn one of the two")
    ],
    # image files
    broken.exif: [
        ("images/north_01.jpg", "is stored turned (EXIF orientation 6)",
         "pixels stored upright, as the labels are",
         "mogrify -auto-orient images/north_01.jpg, and see that its labels fit")
    ],
    broken.sixteen_bit_image: [
        ("images/north_01.png", "has 16 bits or more per channel (mode I;16)", PLAIN,
         "mogrify -depth 8 images/north_01.png")
    ],
    broken.transparent_image: [
        ("images/north_01.png", "has transparent pixels", PLAIN,
         "mogrify -alpha off images/north_01.png")
    ],
    saved("CMYK", ".jpg"): [
        ("images/north_01.jpg", "is CMYK", PLAIN, "mogrify -colorspace sRGB images/north_01.jpg")
    ],
    broken.sixteen_bit_rgb_image: [
        ("images/north_01.png", "has 16 bits per channel", PLAIN,
         "mogrify -depth 8 images/north_01.png")
    ],
    broken.sixteen_bit_rgb_labels: [
        ("labels/north_01.png", "has 16 bits per channel", ONE, "export the labels as 8-bit PNG")
    ],
    broken.sixteen_bit_grey_for_colours: [
        ("labels/north_01.png", "has mode I;16", ONE, "export the labels as 8-bit PNG")
    ],
    broken.large_but_not_a_bomb: [
        ("images/west_00.png", "has too many pixels", WHOLE,
         "cut it into tiles, or make it smaller")
    ],
    saved("F", ".tif"): [
        ("images/north_01.tif", "holds floating-point numbers", PLAIN,
         "mogrify -depth 8 images/north_01.tif")
    ],
    broken.several_pictures: [
        ("images/north_01.tif", "holds several pictures", "one picture per file", "save the one meant")
    ],
    broken.truncated: [
        ("images/west_00.png", "cannot be decoded (image file is truncated)", WHOLE,
         "restore the file")
    ],
    broken.empty_file: [("images/west_00.png", "is empty", WHOLE, "restore the file")],
    broken.text_file: [
        ("images/west_00.png", "cannot be decoded (no known image format)", WHOLE,
         "restore the file")
    ],
    broken.bomb: [
        ("images/west_00.png", "has too many pixels", WHOLE,
         "cut it into tiles, or make it smaller")
    ],
    # pairs and splits
    broken.label_missing: [
        ("labels/north_02.png", "is missing, though images/north_02.png is there",
         "an image and a label image of one name", "add the file, or take the other away")
    ],
    broken.label_with_another_ending: [
        ("labels/north_02.png", "is missing, though images/north_02.png is there",
         "an image and a label image of one name",
         "north_02.bmp is there: rename it or set label_ending, or take the other away")
    ],
    broken.image_missing: [
        ("labels/north_02.png", "is a label image without an image",
         "one image for each label image", "add the image, or take the file away")
    ],
    broken.one_label_and_another_image_missing: [
        ("labels/north_02.png", "is missing, though images/north_02.png is there",
         "an image and a label image of one name", "add the file, or take the other away"),
        ("labels/west_03.png", "is a label image without an image",
         "one image for each label image", "add the image, or take the file away"),
    ],
    broken.all_labels_named_otherwise: [
        ("labels/", "holds no label image for any of the 12 images; east_00.png was looked for, "
         "east_00_mask.png is there", "a label image for each image",
         "correct how dataset.yaml says they are named, or put them there")
    ],
    broken.two_of_one_name: [
        ("images/north_02.png", "has the name of images/north_02.bmp", "one image of each name",
         "rename or remove one of the two")
    ],
    broken.same_image_in_two_splits: [
        ("images/west_01.png", "is in test, the same image as images/north_02.png in train", ONCE,
         "take one of the two out")
    ],
    broken.same_pixels_in_another_format: [
        ("images/west_01.bmp", "is in test, the same image as images/north_02.png in train", ONCE,
         "take one of the two out")
    ],
    broken.labels_of_the_next_file: [
        ("labels/", "edges in the images fit the labels of the previous file better than their own, "
         "by 28 standard errors over 9 images", "labels of the same picture as the image",
         "look at some pairs; if all are off by one file, rename the label images, if they are "
         "right, say aligned: true")
    ],
    described("val: [east]", "val: [east, north_01]"): [
        ("north_01", "is in train and in val", ONCE,
         "take it out of one under splits: in dataset.yaml")
    ],
    described("val: [east]", "val: [east_010.png]"): [
        yaml("splits: val", "east_010.png is no image and no sequence", LISTED,
             "Did you mean 'east_01.png'?")
    ],
    broken.list_with_an_unknown_name: [
        ("test.txt", "wset_01 is no image and no sequence", LISTED, "Did you mean 'west_01'?")
    ],
    broken.list_with_another_folder: [
        ("test.txt", "/x/west/77.png is no image and no sequence", LISTED,
         "Did you mean 'west/103.png'?")
    ],
    broken.list_with_a_name_of_two: [
        ("test.txt", "00.png names 2 images", LISTED, "write the folder before it")
    ],
    described("val: [east]", 'val: [""]'): [
        yaml("splits: val", " is no image and no sequence", LISTED,
             "correct the name, or take it out")
    ],
    described("val: [east]", "val: validation"): [
        yaml("splits: val", "no image lies in a folder validation",
             "a folder below images:, a .txt file, a list, or a fraction", "correct the name")
    ],
    described("val: [east]", "val: val.txt"): [
        yaml("splits: val", "no file val.txt", "a text file with one image per line",
             "correct the name")
    ],
    described(SPLITS, "{train: [north, east], val: 0.2, test: 0.2}"): [
        yaml("splits: val", "has no image: whole sequences are shared out, and there are 1",
             "one image or more", SHARE)
    ],
    described("val: [east]", "val: yes"): [
        yaml("splits: val", "no image lies in a folder yes",
             "a folder below images:, a .txt file, a list, or a fraction", "correct the name")
    ],
    described('"(.+)_"', '"(.+)-"'): [
        yaml("sequence", "does not match 12 of 12 names, such as east_00", "a video for every image",
             "correct it")
    ],
}  # fmt: skip


FRACTION = "a fraction between 0 and 1 (20 % is 0.2)"
CLASSES = "[road, building, sky]"
# What is wrong in dataset.yaml itself: each with line and key, and what the message has to say.
IN_YAML = {
    ("val: [east], ", ""): [(5, "splits: val", "missing", FRACTION)],
    ("test: [west]", ""): [(5, "splits: test", "missing", "none, if there are no test images")],
    ("val: [east]", "val: 20"): [(5, "splits: val", "20 is not allowed", FRACTION)],
    ("val: [east]", "val: 20%"): [(5, "splits: val", "'20%' is not allowed", FRACTION)],
    ("val: [east]", "val: true"): [(5, "splits: val", "True is not allowed", FRACTION)],
    ("val: [east]", "val: [7]"): [(5, "splits: val", "[7] is not allowed", "digits in quotes")],
    ("val: [east]", "val: [0016E5, 2011_09_26]"): [
        (5, "splits: val", "0016E5", "quotes"), (5, "splits: val", "2011_09_26", "quotes")
    ],
    ("val: [east]", "val: [east], valid: [east]"): [(5, "splits: valid", "Did you mean 'val'?")],
    (SPLITS, "{val: 0.5, test: 0.5}"): [(5, "splits", "add up to 1", "lower")],
    (SPLITS, "{train: 0.8, val: 0.4, test: 0.4}"): [(5, "splits", "add up to 1.6", "lower")],
    (SPLITS, "{val: rest, test: [west]}"): [(5, "splits", "more than one split gets the rest")],
    (SPLITS, "[north, east, west]"): [(5, "splits", "'train:', 'val:' and 'test:' lines")],
    ("labels: labels", "labels: labels\naligned: 1"): [(3, "aligned", "give true or false")],
    ("labels: labels", "lables: labels"): [(2, "lables", "Did you mean 'labels'?")],
    (f"classes: {CLASSES}\n", ""): [(1, "classes", "missing", "a list of names")],
    (CLASSES, "[]"): [(3, "classes", "0 given", "1 to 200")],
    (CLASSES, "[road, road, sky]"): [(3, "classes", "'road' is named twice")],
    (CLASSES, "[road, 7, sky]"): [(3, "classes", "7 is not a name", "quotes")],
    (CLASSES, "\n  road: 0\n  building: one\n  sky: -2"): [
        (5, "classes: building", "'one'", "0 to 65535"), (6, "classes: sky", "-2", "0 to 65535")
    ],
    (CLASSES, "{road: [128, 64, 128], building: [70, 70, 70], sky: [1, 1, 2]}"): [
        (3, "classes", "three numbers", "values: colours", "values: ids")
    ],
    (CLASSES, "\n  road: 0\n  building: 1\n  sky: [2, 1]"): [(6, "classes: sky", "1 is also building")],
    (CLASSES, "{road: 0, building: rest, sky: rest}"): [(3, "classes: sky", "rest is also building")],
    (CLASSES, "{road: 0, building: 1, sky: rest}\nunlabelled: rest"): [(4, "unlabelled", "rest is also sky")],
    ("labels: labels", "labels: images"): [(2, "labels", "the folder of the images")],
    ("images: images\nlabels: labels", 'images: "*/img"\nlabels: "*/img"'): [(2, "labels", "the folder of the images")],
    ("labels: labels", "labels: labels\nunlabelled: [2]"): [(3, "unlabelled", "2 is also sky")],
    ("labels: labels", "labels: labels\nunlabelled: void"): [(3, "unlabelled", "'void'", "0 to 65535", "rest")],
    ("labels: labels", "labels: labels\nvalues: palette"): [(3, "values", "'palette'", "ids or colours or masks")],
    ("labels: labels", "labels: labels\nvalues: colours"): [(4, "classes", "names alone", "[red, green, blue]")],
    (f"labels: labels\nclasses: {CLASSES}", "labels: labels\nvalues: masks\nclasses: {road: rest}"): [
        (4, "classes", "no class has masks")
    ],
    ("labels: labels", "labels: labels\nvalues: masks"): [(4, "classes", "names alone", "'*_road.png'")],
    ("labels: labels", "labels: labels\ncolours: {raod: [1, 2, 3], sky: blue}"): [
        (3, "colours: raod", "Did you mean 'road'?"), (3, "colours: sky", "'blue'", "'#rrggbb'")
    ],
    ("images: images", "images: pictures"): [(1, "images", "no folder pictures", "make the folder")],
    ("images: images", "images: ../images"): [(1, "images", "'../images'", "below that of dataset.yaml")],
    ("images: images", "images: images\nimage_ending: jpg"): [(2, "image_ending", "'jpg'", "_leftImg8bit.png")],
    ('"(.+)_"', '"(.+"'): [(4, "sequence", "one group")],
    ("labels: labels", "labels: labels\nthreshold: 128"): [(4, "classes", "{other: 0, road: 255}")],
    ("labels: labels", "labels: labels\nthreshold: 1.5"): [(3, "threshold", "1.5", "1 to 255")],
    ("labels: labels", 'labels: "*/labels"'): [(2, "labels", "1 * where 0 are needed")],
    ("images: images", 'images: "*/images"'): [],
    ("images: images\nlabels: labels", 'images: "*/img"\nlabels: "*/*/mask"'): [(2, "labels", "2 * where 1 are needed")],
    ("labels: labels", "labels: labels\npairs: pairs.csv"): [(3, "pairs", "no file pairs.csv")],
    ("images: images\nlabels: labels", "pairs: dataset.yaml\nimage_ending: .png\nlabel_ending: .png"): [
        (2, "image_ending", "not beside pairs:"), (3, "label_ending", "not beside pairs:")
    ],
    ("images: images\nlabels: labels", "values: coco"): [(1, "images", "missing"), (1, "labels", "missing")],
    ("labels: labels", "labels: labels\nvalues: coco"): [(2, "labels", "no file labels")],
    ("labels: labels", 'labels: "*.png"\nvalues: masks\nlabel_ending: .png'): [
        (2, "labels", "a pattern of files"), (5, "classes", "names alone")
    ],
}  # fmt: skip


@pytest.mark.parametrize(("change", "expected"), IN_YAML.items())
def test_each_mistake_in_dataset_yaml_is_named_with_its_line(mine, tmp_path, change, expected):
    described(*change)(mine)
    before = snapshot(tmp_path)
    with pytest.raises(InputError) as caught:
        open_folder(mine)
    assert snapshot(tmp_path) == before
    if not expected:  # nothing wrong in itself, but it finds no image
        assert "holds no" in str(caught.value)
        return
    lines = str(caught.value).splitlines()[len(expected) > 1 :]
    assert len(lines) == len(expected)
    for shown, (line, key, *words) in zip(lines, expected, strict=True):
        assert shown.startswith(f"{mine}/{DESCRIPTION}:{line}: {key}: ")
        assert all(word in shown for word in words)


def test_a_pattern_without_quotes_is_told(mine):
    described("images: images", "images: */images")(mine)
    with pytest.raises(InputError, match=r":1: not valid YAML .* begins with \* or & into quotes"):
        open_folder(mine)


def test_a_colour_that_yaml_takes_for_a_comment_is_told(mine):
    broken.colour_without_quotes(mine)
    with pytest.raises(InputError, match=r":6: classes: building: has no value; .*'#804080'"):
        open_folder(mine)


@pytest.fixture
def mine(tmp_path):
    return broken.good(tmp_path / "mine")


def test_the_good_set_is_good(mine):
    summary = inspect_source(open_folder(mine))
    assert {split: len(items) for split, items in summary.source.splits.items()} == {
        "train": 4, "val": 4, "test": 4
    }  # fmt: skip
    broken.coloured(mine)
    assert str(inspect_source(open_folder(mine))) == str(summary)


def test_there_are_enough_cases():
    assert len(CASES) >= 40


@pytest.mark.parametrize(("spoil", "expected"), CASES.items())
def test_a_broken_set_is_refused(mine, tmp_path, spoil, expected):
    spoil(mine)
    before = snapshot(tmp_path)
    with pytest.raises(BadData) as caught:
        prepare({"size": [40, 60]}, open_folder(mine), tmp_path / "out")
    assert [dataclasses.astuple(finding) for finding in caught.value.findings] == expected
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / DESCRIPTION).unlink(),
         "FOLDER: is neither CamVid, KITTI (semantics or Road) nor Cityscapes, and has no dataset.yaml. For your own "
         "images, write one; a smallest is:\n"
         "  images: images             # folder of the images\n"
         "  labels: labels             # folder of the label images, of the same names\n"
         "  classes: [road, other]     # label value 0 is road, 1 is other\n"
         "  splits: {val: 0.2, test: 0.2}\n"
         "data/README.md explains every key and has examples of other layouts: a folder for each split,\n"
         "a mask for each class, labelme, COCO."),
        (described("[road, building", "[[road, building"),
         "FOLDER/dataset.yaml:4: not valid YAML (did not find expected ',' or ']', while parsing a "
         "flow sequence from line 3 on). Look here and one line above: indent with spaces, not tabs, "
         "put a space after each colon, and close brackets and quotes."),
        (lambda f: (f / DESCRIPTION).write_bytes("classes: [Straße]".encode("latin-1")),
         "FOLDER/dataset.yaml: is no UTF-8 text; save it in that encoding."),
        (described("val: [east]", "val: [east], val: [west]"),
         "FOLDER/dataset.yaml:5: splits: val: duplicate key (line 5, 2 times); keep one of them."),
        (lambda f: (f / DESCRIPTION).write_text("# nothing yet\n"),
         "FOLDER/dataset.yaml: must hold 'key: value' lines, is empty."),
        (lambda f: (f / DESCRIPTION).rename(f / "dataset.yml"),
         "FOLDER/dataset.yml: rename it to dataset.yaml."),
        (broken.no_images,
         "FOLDER/images: holds no image. Put the images there, or correct images: or "
         "image_ending: in dataset.yaml."),
        (described("images: images", "images: images\nimage_ending: .jpg"),
         "FOLDER/images: holds no *.jpg. Put the images there, or correct images: or "
         "image_ending: in dataset.yaml. There are images in images."),
    ],
)  # fmt: skip
def test_what_cannot_be_listed_is_one_message(mine, spoil, message):
    spoil(mine)
    with pytest.raises(InputError) as caught:
        inspect_source(open_folder(mine))
    assert str(caught.value) == message.replace("FOLDER", str(mine))


def test_all_problems_come_in_one_table_and_status_2(mine, capsys):
    broken.several(mine)
    assert main(["check", str(mine)]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err == f"""\
roadseg: {mine}: 3 problems; nothing was written.
┌────────────────────┬────────────────────────────────┬──────────────────────────┬───────────────────────────────┐
│ file               │ finding                        │ allowed                  │ remedy                        │
├────────────────────┼────────────────────────────────┼──────────────────────────┼───────────────────────────────┤
│ labels/east_03.png │ is 39 x 60, its image 40 x 60  │ the same height and      │ check that the two belong     │
│                    │                                │ width as its image       │ together; resize labels with  │
│                    │                                │                          │ nearest only                  │
├────────────────────┼────────────────────────────────┼──────────────────────────┼───────────────────────────────┤
│ images/west_00.png │ cannot be decoded (image file  │ a whole image file of at │ restore the file              │
│                    │ is truncated)                  │ most 89 million pixels   │                               │
├────────────────────┼────────────────────────────────┼──────────────────────────┼───────────────────────────────┤
│ labels/west_02.png │ values 31, 200 in 5.1 % of the │ 0 to 2, and 255 for not  │ correct the file, or list the │
│                    │ pixels                         │ labelled                 │ value under classes: or       │
│                    │                                │                          │ unlabelled: in dataset.yaml   │
└────────────────────┴────────────────────────────────┴──────────────────────────┴───────────────────────────────┘
"""  # noqa: E501


def test_many_problems_are_counted_and_one_of_each_kind_is_shown(mine, capsys):
    for i in range(24):
        image, labels = broken.scene(100 + i)
        labels[0, 0] = 100 + i
        Image.fromarray(image).save(mine / f"images/north_{i + 10}.png")
        put(mine, f"north_{i + 10}", labels)
    broken.turned_labels(mine)
    with pytest.raises(BadData) as caught:
        inspect_source(open_folder(mine))
    assert len(caught.value.findings) == 25
    text = str(caught.value)
    assert text.startswith(f"{mine}: 25 problems; nothing was written.")
    assert "... and 5 rows more." in text and "turn one of the two" in text
    assert text.count("├") == 20
    assert main(["check", str(mine), "--all"]) == 2
    lines = capsys.readouterr().out.splitlines()
    assert lines == [str(finding) for finding in caught.value.findings]
    assert any(line.startswith("labels/east_03.png: is 60 x 40, its image 40 x 60. Allowed: ") for line in lines)


def test_equal_problems_of_many_files_are_one_row(mine):
    for name in NAMES:
        put(mine, name, np.full((40, 60), 11, np.uint8))
    with pytest.raises(BadData) as caught:
        inspect_source(open_folder(mine))
    text = str(caught.value)
    assert text.startswith(f"{mine}: 12 problems; nothing was written.")
    assert text.count("├") == 1 and "labels/north_00.png" in text and "and 7 more" in text


def test_a_kind_of_problem_that_is_rare_is_shown(mine):
    rng = np.random.default_rng(1)
    for i in range(30):
        picture = Image.fromarray(rng.integers(0, 256, (40, 60, 3), np.uint8))
        picture.convert("CMYK").save(mine / f"images/north_{i + 10}.jpg")
        put(mine, f"north_{i + 10}", get(mine, "north_00"))
    broken.turned_labels(mine)
    with pytest.raises(BadData) as caught:
        inspect_source(open_folder(mine))
    assert len(caught.value.findings) == 31 and "turn one of the two" in str(caught.value)


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


def test_the_user_has_the_last_word_on_alignment(mine):
    broken.labels_of_the_next_file(mine)
    described("labels: labels", "labels: labels\naligned: true")(mine)
    inspect_source(open_folder(mine))


def test_a_file_that_vanishes_after_the_listing_is_named(mine):
    source = open_folder(mine)
    (mine / "labels/north_02.png").unlink()
    with pytest.raises(BadData) as caught:
        prepare({"size": [40, 60]}, source, mine.parent / "out")
    (finding,) = caught.value.findings
    assert (finding.file, finding.finding) == ("labels/north_02.png", "has vanished")


def test_no_space_is_one_message_and_nothing_is_left(mine, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(InputError) as caught:
        prepare({"size": [400, 600]}, open_folder(mine), tmp_path / "out")
    assert str(caught.value) == (
        f"{tmp_path}/out: cannot be written (No space left on device). It takes 12 MB; make room, "
        "or allow writing there."
    )
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
    assert capsys.readouterr().out.splitlines() == [
        f"{mine}/dataset.yaml: no problem found.",
        "                           train       val      test",
        "images                         4         4         4",
        "sequences                      1         1         1",
        "not labelled, %             0.00      0.00     10.00",
        "share of labelled pixels, %",
        "  road                    40.000    40.000    33.333",
        "  building                     -    {:.3f}    {:.3f}".format(*shares[0]),
        "  sky                     60.000    {:.3f}    {:.3f}".format(*shares[1]),
        "height x width (images): 40 x 60 (12)",
        "train: north",
        "val: east",
        "test: west",
        "note: All test images are of one sequence, west: scores say little about others.",
        "note: building is not in train, so no network can learn it.",
    ]
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
    pixels = inspect_source(open_folder(mine)).pixels["train"]
    assert pixels[:2].tolist() == [4 * 16 * 60, 4 * 24 * 60]


def test_colours_may_be_merged_and_left_out(mine):
    broken.coloured(mine)
    text = COLOURED.replace("building: '#464646'", "other: ['#464646', [70, 130, 180]]")
    (mine / DESCRIPTION).write_text(text.replace("  sky: [70, 130, 180]\n", ""))
    pixels = inspect_source(open_folder(mine)).pixels["train"]
    assert pixels[:2].tolist() == [4 * 16 * 60, 4 * 24 * 60]
    text = COLOURED.replace("  building: '#464646'\n", "")
    (mine / DESCRIPTION).write_text("unlabelled: rest\n" + text)
    summary = inspect_source(open_folder(mine))
    assert summary.pixels["train"][255] > 0 and len(summary.source.palette) == 2


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
    assert not any(pixels[255] for pixels in summary.pixels.values())
    assert all(pixels[1] > 0 for pixels in summary.pixels.values())


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


def test_many_missing_label_images_are_one_row(mine):
    for name in NAMES[1:]:
        (mine / f"labels/{name}.png").unlink()
    with pytest.raises(BadData) as caught:
        inspect_source(open_folder(mine))
    assert len(caught.value.findings) == 11 and str(caught.value).count("├") == 1


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
    (finding, _) = open_folder(mine).findings
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
        pixels = inspect_source(open_folder(mine)).pixels["train"]
        assert pixels[:2].tolist() == [4 * 24 * 60, 4 * 16 * 60]
