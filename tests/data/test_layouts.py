"""Each example of data/README.md is run on files of its layout, which hold labels that are known."""

import base64
import io
import json
import os
import re
import tracemalloc
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from broken import after, in_text, renamed, save, without, written
from broken import described as described_as
from conftest import snapshot
from PIL import Image
from ruamel.yaml import YAML

from roadseg.__main__ import main
from roadseg.config.paths import ROOT
from roadseg.data import check, polygons
from roadseg.data.dataset_yaml import DESCRIPTION
from roadseg.data.datasets import open_folder
from roadseg.data.findings import BadData
from roadseg.data.layout import make_coding
from roadseg.data.prepare import prepare
from roadseg.data.scenes import SPLITS, Scenes
from roadseg.errors import InputError

SIZE = (24, 32)
IGNORED = 255
NAMES = [f"{drive}_{frame}" for drive in ("east", "north", "west") for frame in range(4)]


def image(number: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(number).integers(0, 256, (*SIZE, 3), np.uint8))


def box(number: int, top: int = 8) -> tuple[slice, slice]:
    """A rectangle, at another place in each image."""
    return slice(top, top + 10), slice(2 + number, 12 + number)


def road_in(number: int) -> np.ndarray:
    """Classes other, road: a rectangle of road."""
    labels = np.zeros(SIZE, np.uint8)
    labels[box(number)] = 1
    return labels


def road_and_car_in(number: int) -> np.ndarray:
    """Classes other, road, car: a car covers part of the road."""
    labels = road_in(number)
    labels[box(number, 14)] = 2
    return labels


def corners(place: tuple[slice, slice]) -> tuple[int, int, int, int]:
    """Left, top, right and bottom, the last two inside."""
    rows, columns = place
    return columns.start, rows.start, columns.stop - 1, rows.stop - 1


# What each example is run on: a function writes the files into a folder and returns the labels of each image.


def write_pairs(folder, names, images="images/{}.png", labels="labels/{}.png", values=lambda labels: labels):
    """Write pairs with a rectangle of road; return the labels of each name."""
    for number, name in enumerate(names):
        save(image(number), folder / images.format(name))
        save(values(road_in(number)), folder / labels.format(name))
    return {str(name): road_in(number) for number, name in enumerate(names)}


def same_names(folder):
    return write_pairs(folder, NAMES)


def several_ids(folder):
    """road: [7, 8], other: rest, and 0 ignored: what is road is 7 above and 8 below."""
    truth = same_names(folder)
    for name, labels in truth.items():
        ids = np.where(labels, 7 + (np.arange(24)[:, None] > 12), 3)
        ids[0] = 0
        save(ids, folder / f"labels/{name}.png")
        truth[name] = np.where(ids == 0, IGNORED, np.where(labels, 0, 1))
    return truth


def colours(folder):
    palette = np.array([(70, 70, 70), (128, 64, 128), (107, 142, 35)], np.uint8)
    truth = write_pairs(folder, NAMES, values=lambda labels: palette[labels])
    return {name: 1 - labels for name, labels in truth.items()}  # road is named first


def soft_mask(folder):
    """127 and 128 are on either side of the threshold; some masks are JPEG by their content."""
    truth = write_pairs(folder, NAMES, values=lambda labels: np.where(labels, 128, 127))
    for name in NAMES[:3]:
        save(255 * truth[name], folder / f"labels/{name}.png", format="JPEG", quality=60)
    for name in NAMES[3:5]:
        save(Image.fromarray(truth[name] > 0), folder / f"labels/{name}.png")  # of one bit
    return truth


def folder_per_split(folder):
    truth = {}
    for number, name in enumerate(NAMES):
        split = ("train", "train", "val", "test")[number % 4]
        truth[f"{split}/{name}"] = road_in(number)
        save(image(number), folder / f"{split}/img/{name}.png")
        save(road_in(number), folder / f"{split}/mask/{name}.png")
    return truth


def in_the_middle(folder):
    truth = {}
    for number in range(8):
        category = ("um", "uu")[number % 2]
        truth[f"{category}_{number:06d}"] = road_in(number)
        save(image(number), folder / f"image_2/{category}_{number:06d}.png")
        save(road_in(number), folder / f"gt_image_2/{category}_road_{number:06d}.png")
        save(road_in(0), folder / f"gt_image_2/{category}_lane_{number:06d}.png")  # nobody asks for it
    return truth


def pairs(folder):
    truth, lines = {}, ["image,label"]
    for number in range(8):
        truth[f"photos/{number}"] = road_in(number)
        save(image(number), folder / f"photos/{number}.jpg")
        save(road_in(number), folder / f"drawn/{number + 5} th.png")
        lines.append(f"photos/{number}.jpg,drawn/{number + 5} th.png")
    (folder / "pairs.csv").write_text("\n".join(lines))
    return truth


def masks(folder):
    """Overlapping masks of 255 and of 1; the third image has no car."""
    truth = {}
    for number in range(8):
        name, labels = f"d/{number}", road_and_car_in(number) if number != 3 else road_in(number)
        road, car = np.zeros((2, *SIZE), np.uint8)
        road[box(number)], car[box(number, 14)] = 255, 1
        save(image(number), folder / f"images/{name}.png")
        save(road, folder / f"masks/{name}_road.png")
        if number != 3:
            save(car, folder / f"masks/{name}_car.png")
        truth[name] = labels
    return truth


def labelme(folder):
    """Car before road in the file; shapes of every kind; what is unclear covers all; one image is empty."""
    truth = {}
    for number in range(8):
        labels = road_and_car_in(number)
        left, top, right, bottom = corners(box(number))
        a, b, c, d = corners(box(number, 14))
        mask = io.BytesIO()
        Image.fromarray(np.ones((2, 3), bool)).save(mask, "PNG")
        labels[0:2, 20:23], labels[20:22, 30:] = 1, 2
        unclear = {"label": "unclear", "shape_type": "rectangle", "points": [[right, bottom], [right, bottom]]}
        labels[bottom, right] = IGNORED
        shapes = [
            unclear,
            {"label": "car", "shape_type": "rectangle", "points": [[c, d], [a, b]]},
            {"label": "parking", "points": [[left, top], [right, top], [right, bottom], [left, bottom]]},
            {"label": "road", "shape_type": "mask", "points": [[20, 0], [22, 1]],
             "mask": base64.b64encode(mask.getvalue()).decode()},
            # partly outside of the image
            {"label": "car", "shape_type": "polygon", "points": [[30, 20], [36, 20], [36, 21], [30, 21]]},
        ]  # fmt: skip
        if number == 5:
            shapes, labels = [], np.zeros(SIZE, np.uint8)
        content = {"version": "5.4.1", "shapes": shapes, "imageHeight": 24, "imageWidth": 32}
        save(image(number), folder / f"street_{number}.png")
        (folder / f"street_{number}.json").write_text(json.dumps(content), "utf-8-sig")
        truth[f"street_{number}"] = labels
    return truth


def coco(folder):
    """Outlines for roads, run-length codes for cars, and a category that is ignored, drawn over both."""
    truth = {}
    for split in ("train", "valid", "test"):
        images, annotations = [], []
        for number in range(3):
            name = f"{split}{number}"
            labels = np.full(SIZE, IGNORED, np.uint8)
            road, car = box(number), box(number, 14)
            labels[road], labels[car] = 0, 1
            left, top, right, bottom = corners(road)
            outline = [left, top, right + 1, top, right + 1, bottom + 1, left, bottom + 1]
            covered = np.zeros(SIZE, np.uint8)
            covered[car] = 1
            changes = np.flatnonzero(np.diff(covered.ravel(order="F").astype(int))) + 1
            counts = np.diff([0, *changes, covered.size]).tolist()  # down the columns, first what is not car
            dog = [left, top, left + 2, top, left + 2, top + 2, left, top + 2]
            labels[top : top + 2, left : left + 2] = IGNORED
            images.append({"id": number, "file_name": f"{name}.png", "height": 24, "width": 32})
            segmentations = [[outline], {"size": [24, 32], "counts": counts}, [dog]]
            annotations += [
                {"id": 10 * number + k, "image_id": number, "category_id": 7 - k, "segmentation": segmentations[k]}
                for k in (2, 1, 0)
            ]
            save(image(len(truth)), folder / f"{split}/images/{name}.png")
            truth[f"{split}/{name}"] = labels
        categories = [{"id": 7, "name": "road"}, {"id": 6, "name": "car"}, {"id": 5, "name": "dog"}]
        content = {"images": images, "annotations": annotations, "categories": categories}
        (folder / f"{split}/annotations.json").write_text(json.dumps(content))
    return truth


BUILDERS = (same_names, several_ids, colours, soft_mask, same_names, folder_per_split, in_the_middle, pairs, masks,
            labelme, coco)  # fmt: skip
OWN = (ROOT / "data/README.md").read_text().partition("## Your own images")[2]
EXAMPLES = re.findall(r"^```yaml\n(.*?)^```", OWN, re.M | re.S)
WHOLE = {"images": "images", "labels": "labels", "classes": ["other", "road"], "splits": {"val": 0.2, "test": 0.2}}


def described(folder: Path, example: str) -> None:
    """Write an example, and around one that is part of a description the rest of it."""
    content = YAML(typ="safe").load(example)
    if not {"classes", "splits"} <= content.keys():
        example = json.dumps(WHOLE | content)
    (folder / DESCRIPTION).write_text(example)


def labels_read(folder: Path) -> dict[str, np.ndarray]:
    source, labels = open_folder(folder), {}

    def keep(split, index, checked):
        labels[checked.item.name] = checked.labels

    check.inspect_source(source, keep=keep)
    return labels


def example(folder: Path, build, more: str = "") -> dict[str, np.ndarray]:
    """Write an example of data/README.md with its files; return the labels."""
    truth = build(folder)
    described(folder, EXAMPLES[BUILDERS.index(build)] + more)
    return truth


def assert_read(folder: Path, truth: dict[str, np.ndarray]) -> None:
    read = labels_read(folder)
    assert read.keys() == truth.keys()
    for name in truth:
        np.testing.assert_array_equal(read[name], truth[name], err_msg=name)


def test_every_example_has_files():
    assert len(EXAMPLES) == len(BUILDERS)


@pytest.mark.parametrize("number", range(len(BUILDERS)))
def test_examples_of_the_readme(tmp_path, number, capsys):
    folder = tmp_path / "mine"
    build = BUILDERS[number]
    truth = build(folder)
    described(folder, EXAMPLES[number])
    assert main(["check", str(folder)]) == 0, capsys.readouterr().err
    assert_read(folder, truth)
    prepare({"size": [24, 32]}, open_folder(folder), tmp_path / "out")
    written = {}
    for split in SPLITS:
        scenes = Scenes.load(tmp_path / "out", split)
        assert len(scenes) > 0
        written |= dict(zip(scenes.names, scenes.labels, strict=True))
        if build in (folder_per_split, coco):
            assert {name.split("/")[0] for name in scenes.names} == {"valid" if (split, build) == ("val", coco) else split}
    assert written.keys() == truth.keys()
    assert all((written[name] == truth[name]).all() for name in truth)
    before = snapshot(tmp_path)
    prepare({"size": [24, 32]}, open_folder(folder), tmp_path / "out")
    assert snapshot(tmp_path) == before  # nothing is done again


@pytest.mark.parametrize(
    ("images", "labels", "more", "image_file", "label_file", "name"),
    [
        ("images", "labels/*_mask.png", {}, "images/d/{}.png", "labels/d/{}_mask.png", "d/{}"),
        ("images/*_left.png", "labels", {}, "images/{}_left.png", "labels/{}.png", "{}"),
        ("*/*/frame_*.jpg", "labels/*/*-*.png", {}, "a/b/frame_{}.jpg", "labels/a/b-{}.png", "a/b/frame_{}"),
        ("*/img", "labels", {}, "a/img/{}.png", "labels/a/{}.png", "a/{}"),
        ("*/img/*.png", "*/mask", {"label_ending": "_m.png"}, "a/img/{}.png", "a/mask/{}_m.png", "a/{}"),
        ("*/image.png", "*/mask.png", {}, "{}/image.png", "{}/mask.png", "{}"),
        ("./images/", "./labels/", {}, "images/{}.png", "labels/{}.png", "{}"),
        ("scans[1]", "labels (new)", {}, "scans[1]/{}.png", "labels (new)/{}.png", "{}"),
    ],
)
def test_patterns(tmp_path, images, labels, more, image_file, label_file, name):
    truth = write_pairs(tmp_path, range(6), image_file, label_file)
    described(tmp_path, json.dumps(WHOLE | {"images": images, "labels": labels} | more))
    assert_read(tmp_path, {name.format(number): labels for number, labels in truth.items()})


@pytest.mark.parametrize("pattern", ["*_{}.png", "{}/*.png", "m-*-{}.png"])
def test_masks_in_a_folder_for_each_split(tmp_path, pattern):
    classes = {"other": "rest", "road": pattern.format("road"), "car": pattern.format("car")}
    for number in range(6):
        split, name = ("train", "val", "test")[number % 3], f"seq/{number}"
        labels = road_and_car_in(number)
        save(image(number), tmp_path / f"{split}/img/{name}.png")
        for index, kind in ((1, "road"), (2, "car")):
            file = tmp_path / f"{split}/mask" / pattern.format(kind).replace("*", name)
            save(255 * (labels == index), file)
    content = {"images": "*/img", "labels": "*/mask", "values": "masks", "classes": classes}
    described(tmp_path, json.dumps(content | {"splits": {"train": "train", "val": "val", "test": "test"}}))
    read = labels_read(tmp_path)
    for number in range(6):
        name = f"{('train', 'val', 'test')[number % 3]}/seq/{number}"
        np.testing.assert_array_equal(read[name], road_and_car_in(number))


@pytest.mark.parametrize("prefix", ["", "images/", "C:\\\\somewhere\\\\else\\\\", "/home/ann/export/"])
def test_one_coco_file_for_all_images(tmp_path, prefix):
    truth = coco(tmp_path / "split")
    merged = {"images": [], "annotations": [], "categories": []}
    for first, split in enumerate(("train", "valid", "test")):
        content = json.loads((tmp_path / f"split/{split}/annotations.json").read_text())
        for row in content["images"]:
            merged["images"].append(row | {"id": 100 * first + row["id"], "file_name": prefix + row["file_name"]})
        for row in content["annotations"]:
            place = {"id": 100 * first + row["id"], "image_id": 100 * first + row["image_id"]}
            merged["annotations"].append(row | place)
        merged["categories"] = content["categories"]
        for file in (tmp_path / f"split/{split}/images").iterdir():
            save(Image.open(file), tmp_path / "mine/images" / file.name)
    (tmp_path / "mine/a.json").write_text(json.dumps(merged))
    content = {"images": "images", "labels": "a.json", "values": "coco", "classes": ["road", "car"]}
    described(tmp_path / "mine", json.dumps(WHOLE | content | {"unlabelled": ["dog"]}))
    read = labels_read(tmp_path / "mine")
    assert len(read) == 9
    for name, labels in truth.items():
        np.testing.assert_array_equal(read[name.split("/")[1]], labels)


# What is wrong, by layout: files of an example above with one thing changed.


def edited(file: str, change):
    """A case: a JSON file changed in place."""

    def spoil(folder: Path) -> None:
        content = json.loads((folder / file).read_text("utf-8-sig"))
        change(content)
        (folder / file).write_text(json.dumps(content))

    return spoil


LABELME, COCO = "street_2.json", "train/annotations.json"


def other_size(**changes):
    """A case: what the JSON file of an image says of it changed."""
    return edited(LABELME, lambda content: content.update(changes))


def other_shape(**changes):
    """A case: the second shape of an image, a car, changed."""
    return edited(LABELME, lambda content: content["shapes"][1].update(changes))


def other_annotation(**changes):
    """A case: the first annotation, number 2, of category dog, changed."""
    return edited(COCO, lambda content: content["annotations"][0].update(changes))


def other_image(**changes):
    """A case: the first image of a COCO file changed."""
    return edited(COCO, lambda content: content["images"][0].update(changes))


def grey(file: str, level: int, size=SIZE):
    return lambda folder: save(np.full(size, level), folder / file)


def turned(folder: Path) -> None:
    orientation = Image.Exif()
    orientation[0x0112] = 6
    image(2).save(folder / "street_2.png", format="JPEG", exif=orientation)


def deep_mask(folder: Path) -> None:
    Image.fromarray(np.full(SIZE, 300, np.uint16)).save(folder / "labels/west_0.png")


def in_splits(*splits: str) -> list[str]:
    """Names of the images of `folder_per_split`, in natural order in each split."""
    order = ("train", "train", "val", "test")
    return [f"{s}/img/{name}.png" for s in splits for i, name in enumerate(NAMES) if order[i % 4] == s]


RUNS = {"size": [24, 32], "counts": [5]}
FAULTS = [
    (folder_per_split, [("train/mask/east_0.png", "missing")], without("train/mask/east_0.png")),
    (folder_per_split, [("val/mask/east_2.png", "orphan")], without("val/img/east_2.png")),
    (folder_per_split, [("dataset.yaml, splits: val", "no-folder")], described_as("val: val", "val: valid")),
    (folder_per_split, [*((file, "own-labels") for file in in_splits("test", "train", "val")),
                        *((file, "colour-labels") for file in in_splits("train", "val", "test"))],
     described_as('"*/mask"', '"*/img"\nimage_ending: .png')),
    (in_the_middle, [("gt_image_2/um_road_000000.png", "missing")], without("gt_image_2/um_road_000000.png")),
    (in_the_middle, [("gt_image_2/um_road_000000.png", "orphan")], without("image_2/um_000000.png")),
    (pairs, [("photos/1.jpg", "shared-labels")], in_text("pairs.csv", "drawn/6 th.png", "drawn/5 th.png")),
    (pairs, [("photos/1.jpg", "own-labels"), ("photos/1.jpg", "lossy-labels")],
     in_text("pairs.csv", "drawn/6 th.png", "photos/1.jpg")),
    (pairs, [("photos/1.jpg", "missing")], without("photos/1.jpg")),
    (soft_mask, [("labels/west_0.png", "values")], deep_mask),
    # masks
    (masks, [("masks/d/1_car.png", "values")], grey("masks/d/1_car.png", 70)),
    (masks, [("masks/d/1_road.png", "mask-sizes")], grey("masks/d/1_car.png", 1, (3, 3))),
    (masks, [("masks/d/1_road.png", "size")],
     after(grey("masks/d/1_car.png", 1, (3, 3)), grey("masks/d/1_road.png", 1, (3, 3)))),
    (masks, [("dataset.yaml, classes: car", "no-mask-at-all")], described_as("*_car.png", "*_cars.png")),
    (masks, [("masks/d/1_road.png", "missing")], without("masks/d/1_car.png", "masks/d/1_road.png")),
    (masks, [("masks/d/1_car.png", "mask-name")], renamed("masks/d/1_car.png", "1_Car.png")),
    (masks, [("masks/", "no-labels-at-all")], renamed("masks/d", "D")),
    (masks, [("images/d/", "no-labels-at-all")], described_as("labels: masks", "labels: images")),
    (masks, [("masks/d/1_road.png", "orphan"), ("masks/d/1_car.png", "orphan")], without("images/d/1.png")),
    # labelme
    (labelme, [(LABELME, "label")], other_shape(label="cra"), other_shape(label=None)),
    (labelme, [(LABELME, "labelme-size")], other_size(imageHeight=24.0), other_size(imageHeight="24", imageWidth=-1)),
    (labelme, [(LABELME, "labelme-shape")],
     other_shape(shape_type="line"), other_shape(shape_type="oriented_rectangle"), other_shape(shape_type="polygon"),
     other_shape(points=[[40, 1], [50, 9]]), other_shape(points=[[4, 1], [1e9, 9]]), other_shape(points="ab"),
     other_shape(points=[[4, 1], [float("nan"), 9]]), other_shape(shape_type="mask", mask="xx")),
    (labelme, [(LABELME, "turned-labels")], other_size(imageHeight=32, imageWidth=24)),
    (labelme, [("street_2.png", "turned")], turned, after(turned, other_size(imageHeight=32, imageWidth=24, shapes=[]))),
    (labelme, [(LABELME, "missing")], without(LABELME)),
    (labelme, [(LABELME, "orphan")], without("street_2.png")),
    (labelme, [(LABELME, "no-json")], written(LABELME, b"{"), written(LABELME, b"[" * 10**5)),
    (labelme, [(LABELME, "json-encoding")], written(LABELME, "{'a': 'ä'}".encode("cp1252"))),
    (labelme, [(LABELME, "json-key")], written(LABELME, b'{"annotations": []}'), written(LABELME, b"[]")),
    # COCO
    (coco, [(f"{split}/annotations.json", "label") for split in ("test", "train", "valid")],
     described_as("unlabelled: rest\n", "")),
    (coco, [(COCO, "coco-annotation")],
     other_annotation(category_id=99), other_annotation(image_id=99), other_annotation(segmentation=[[1, 2, 3, 4]]),
     other_annotation(segmentation=[[90, 2, 30, 4, 5, 6]]), other_annotation(category_id=7, segmentation=[]),
     *(other_annotation(segmentation=RUNS | changes) for changes in (
         {}, {"size": [2, 3], "counts": [6]}, {"counts": "zzz"}, {"counts": "\n"}))),
    (coco, [(COCO, "coco-annotation"), (COCO, "turned-labels")], other_image(height=32, width=24)),
    (coco, [(COCO, "coco-sizes")], other_image(height=None)),
    (coco, [(COCO, "coco-file-name"), ("train/images/train0.png", "coco-entry")], other_image(file_name="x.png")),
    (coco, [(COCO, "coco-file-name"), ("train/images/train1.png", "coco-entry")],
     edited(COCO, lambda content: content["images"][1].update(file_name="gone/train0.png"))),
    (coco, [(COCO, "coco-twins"), ("train/images/train1.png", "coco-entry")],
     edited(COCO, lambda content: content["images"][1].update(file_name="train0.png"))),
    (coco, [(COCO, "coco-table")], edited(COCO, lambda content: content.pop("categories"))),
    (coco, [(COCO, "json-key")], written(COCO, b'{"shapes": []}')),
]  # fmt: skip
ONE_BY_ONE = [(build, expected, spoil) for build, expected, *ways in FAULTS for spoil in ways]


@pytest.mark.parametrize(("build", "expected", "spoil"), ONE_BY_ONE, ids=range(len(ONE_BY_ONE)))
def test_faults_of_a_layout_are_named(tmp_path, build, expected, spoil):
    folder = tmp_path / "mine"
    example(folder, build)
    spoil(folder)
    before = snapshot(tmp_path)
    with pytest.raises(BadData) as caught:
        prepare({"size": [24, 32]}, open_folder(folder), tmp_path / "out")
    assert snapshot(tmp_path) == before
    assert [(finding.file, finding.code) for finding in caught.value.findings] == expected


@pytest.mark.parametrize("classes", ["[other, road]", "{other: 0, road: rest}", "{other: rest, road: 255}"])
def test_the_two_sides_of_a_threshold(tmp_path, classes):
    truth = soft_mask(tmp_path)
    described(tmp_path, "threshold: 128")
    content = json.loads((tmp_path / DESCRIPTION).read_text()) | {"classes": YAML(typ="safe").load(classes)}
    (tmp_path / DESCRIPTION).write_text(json.dumps(content))
    assert_read(tmp_path, truth)


@pytest.mark.parametrize("build", [same_names, masks])
def test_masks_of_0_and_1_beside_a_threshold_are_refused(tmp_path, build):
    if build is masks:  # those of cars
        example(tmp_path, masks, "threshold: 128\n")
    else:
        build(tmp_path)
        described(tmp_path, "threshold: 128")
    with pytest.raises(BadData) as caught:
        labels_read(tmp_path)
    assert len(caught.value.findings) == (7 if build is masks else len(NAMES))
    assert {finding.code for finding in caught.value.findings} == {"all-black"}


@pytest.mark.parametrize(
    ("entry", "names"),
    [
        ("d1/img/1.png", ["d1/1"]),
        ("d1/img/1", ["d1/1"]),
        ("/home/ann/set/d1/img/1.png", ["d1/1"]),
        ("d1/1.png", ["d1/1"]),
        ("d1/1", ["d1/1"]),
        ("d3/img/9.png", []),
        ("elsewhere/9.png", ["d2/9"]),
        ("d1/9", []),
        ("img/9.png", []),
    ],
)
def test_lists_name_images_of_a_pattern_by_their_paths(tmp_path, entry, names):
    for folder, numbers in (("d1", (1, 2)), ("d2", (1, 9))):
        write_pairs(tmp_path / folder, numbers, "img/{}.png", "mask/{}.png")
    splits = {"val": [entry], "test": ["d2/img/1.png"]}
    described(tmp_path, json.dumps(WHOLE | {"images": "*/img", "labels": "*/mask", "splits": splits}))
    source = open_folder(tmp_path)
    assert [item.name for item in source.splits["val"]] == names
    assert [item.name for item in source.splits["test"]] == ["d2/1"]
    assert [f.code for f in source.findings] == ["unknown-name"] * (not names)


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_the_end_of_a_path_is_one_image_whatever_its_accents(tmp_path, form):
    folder = unicodedata.normalize(form, "Köln")
    write_pairs(tmp_path, [f"{folder}/{number}" for number in range(3)])
    described(tmp_path, json.dumps(WHOLE | {"splits": {"val": ["1"], "test": ["x/2.png"]}}))
    source = open_folder(tmp_path)
    assert not source.findings
    assert [item.image.stem for split in ("val", "test") for item in source.splits[split]] == ["1", "2"]


@pytest.mark.parametrize("entry", ["east", "east_0"])
def test_a_sequence_or_image_where_a_folder_belongs_is_to_be_a_list(tmp_path, entry):
    same_names(tmp_path)
    described(tmp_path, json.dumps(WHOLE | {"sequence": "(.+)_", "splits": {"val": entry, "test": 0.2}}))
    (finding,) = open_folder(tmp_path).findings
    assert (finding.code, finding.remedy) == ("no-folder", f"write [{entry}]")


@pytest.mark.parametrize(
    ("sequence", "note"),
    [
        ("(.+)_", "Sequences in more than one split: east (train, val, test), north (train, val, test), west (train, "
                  "val, test)."),
        ("folder", None),
        (None, None),
    ],
)  # fmt: skip
def test_a_sequence_in_the_folders_of_several_splits_is_noted(tmp_path, sequence, note):
    example(tmp_path, folder_per_split, f"sequence: {json.dumps(sequence)}\n")
    notes = [n for n in open_folder(tmp_path).notes if "more than one split" in n]
    assert notes == [note] * bool(note)


def test_a_label_file_that_fits_two_images_is_named(tmp_path):
    for name in ("a/b_c", "a_b/c", "d/e", "f/g"):
        write_pairs(tmp_path, [name], labels=f"labels/{name.replace('/', '_')}.png")
    described(tmp_path, json.dumps(WHOLE | {"images": "images/*/*.png", "labels": "labels/*_*.png"}))
    (finding,) = open_folder(tmp_path).findings
    assert (finding.file, finding.code) == ("images/a_b/c.png", "shared-labels")


def test_masks_in_two_spellings_are_two_patterns(tmp_path, monkeypatch):
    """And images are looked for once for all of them."""
    truth = example(tmp_path, masks)
    renamed("masks/d/1_car.png", "1_Car.png")(tmp_path)
    described_as('car: "*_car.png"', 'car: ["*_car.png", "*_Car.png"]')(tmp_path)
    assert_read(tmp_path, truth)
    walked = []

    def counted(folder, walk=os.walk, **settings):
        walked.append(Path(folder).name)
        return walk(folder, **settings)

    monkeypatch.setattr("os.walk", counted)
    open_folder(tmp_path)
    assert walked.count("images") == 1


def palette_image(ids, palette) -> Image.Image:
    picture = Image.fromarray(ids.astype(np.uint8), "P")
    picture.putpalette(palette)
    return picture


BLACK_FIRST, WHITE_FIRST = [0, 0, 0, 255, 255, 255], [255, 255, 255, 0, 0, 0]


@pytest.mark.parametrize(
    "save_as",
    [
        lambda mask: Image.fromarray(255 * mask).quantize(2),
        lambda mask: Image.fromarray(255 * mask).convert("P", palette=Image.Palette.ADAPTIVE, colors=2),
        lambda mask: palette_image(1 - mask, WHITE_FIRST),
        lambda mask: palette_image(mask, BLACK_FIRST),
        lambda mask: palette_image(mask, [0, 0, 0] * 2),  # which tells nothing
        lambda mask: palette_image(mask, [0, 0, 0, 128, 0, 0]),
    ],
)
def test_masks_with_a_palette_are_black_and_white_by_its_colours(tmp_path, save_as):
    truth = masks(tmp_path)
    for file in tmp_path.glob("masks/d/*.png"):
        save_as((np.asarray(Image.open(file)) > 0).astype(np.uint8)).save(file)
    described(tmp_path, EXAMPLES[BUILDERS.index(masks)])
    assert_read(tmp_path, truth)


def test_ids_that_a_palette_draws_as_an_inverse_mask_are_refused(tmp_path):
    truth = same_names(tmp_path)
    for name, labels in truth.items():
        Image.fromarray(255 * labels).quantize(2).save(tmp_path / f"labels/{name}.png")
    described(tmp_path, json.dumps(WHOLE))
    with pytest.raises(BadData) as caught:
        labels_read(tmp_path)
    assert len(caught.value.findings) == len(NAMES)
    assert {f.code for f in caught.value.findings} == {"palette"}
    described(tmp_path, json.dumps(WHOLE | {"values": "colours", "classes": {"other": [0] * 3, "road": [255] * 3}}))
    assert_read(tmp_path, truth)
    described(tmp_path, json.dumps(WHOLE | {"classes": ["road", "other"], "colours": {"road": [255] * 3}}))
    read = labels_read(tmp_path)  # the user has confirmed that white is road
    assert all((read[name] == 1 - truth[name]).all() for name in truth)


@pytest.mark.parametrize("line", ["photos/2.jpg", "photos/2.jpg,a,b", "/etc/passwd,a.png", "../x.jpg,a.png",
                                  "photos/1.jpg,drawn/8 th.png", ".,1.json", "photos/9.jpg,."])  # fmt: skip
def test_lines_that_are_no_pair(tmp_path, line):
    example(tmp_path, pairs)
    with open(tmp_path / "pairs.csv", "a") as file:
        file.write(f"\n{line}\n")
    with pytest.raises(InputError, match=r"pairs\.csv: .*(is not a pair|two lines)"):
        open_folder(tmp_path)


@pytest.mark.parametrize("divider", [",", ";", "\t", " ", "   ", " ; "])
@pytest.mark.parametrize("head", ["", "image{}label\n"])
def test_pairs_are_divided_by_what_tools_write(tmp_path, divider, head):
    truth = write_pairs(tmp_path, range(6), "{}.png", "l{}.png")
    lines = [f"{number}.png{divider}l{number}.png" for number in range(6)]
    (tmp_path / "pairs.csv").write_text(head.format(divider) + "\n".join(lines))
    described(tmp_path, EXAMPLES[BUILDERS.index(pairs)])
    assert_read(tmp_path, truth)


def test_sequences_of_n_of_pairs_are_in_order_of_names(tmp_path):
    example(tmp_path, pairs, "sequence: 2\n")
    lines = (tmp_path / "pairs.csv").read_text().splitlines()
    (tmp_path / "pairs.csv").write_text("\n".join(lines[:1] + lines[:0:-2] + lines[-2:0:-2]))
    items = [item for part in open_folder(tmp_path).splits.values() for item in part]
    sequence = {item.image.stem: item.sequence for item in items}
    assert sequence == {str(number): f"stretch {number // 2 + 1}" for number in range(8)}


def test_two_images_of_one_name_in_pairs_are_named(tmp_path):
    example(tmp_path, pairs)
    save(image(9), tmp_path / "photos/1.png")
    save(road_in(9), tmp_path / "drawn/9.png")
    with open(tmp_path / "pairs.csv", "a") as file:
        file.write("\nphotos/1.png,drawn/9.png\n")
    (finding,) = open_folder(tmp_path).findings
    assert (finding.file, finding.code) == ("photos/1.png", "same-name")


@pytest.mark.parametrize("forms", ["NFC NFD", "NFD NFC"])
@pytest.mark.parametrize("kind", ["pairs", "coco"])
def test_files_are_found_by_names_with_other_accents(tmp_path, forms, kind):
    on_disk, listed = (unicodedata.normalize(form, "Köln") for form in forms.split())
    write_pairs(tmp_path, [f"{on_disk}/{number}" for number in range(6)])
    rows = [{"id": n, "file_name": f"{listed}/{n}.png", "height": 24, "width": 32} for n in range(6)]
    content = {"images": rows, "annotations": [], "categories": [{"id": 1, "name": "road"}]}
    (tmp_path / "all.json").write_text(json.dumps(content))
    lines = [f"images/{listed}/{number}.png,labels/{listed}/{number}.png" for number in range(6)]
    (tmp_path / "pairs.csv").write_text("\n".join(lines))
    about = {"splits": WHOLE["splits"], "pairs": "pairs.csv", "classes": ["other", "road"]}
    if kind == "coco":
        about |= {"images": "images", "labels": "all.json", "values": "coco", "classes": {"other": "rest", "road": "road"}}
        del about["pairs"]
    described(tmp_path, json.dumps(about))
    source = open_folder(tmp_path)
    assert not source.findings
    assert {item.image.parent.name for part in source.splits.values() for item in part} == {on_disk}


def test_what_is_not_wrong_but_worth_knowing(tmp_path):
    for build in (masks, coco):  # each says what all pixels are
        example(tmp_path / build.__name__, build)
    notes = check.inspect_source(open_folder(tmp_path / "masks")).notes
    assert "1 of 8 images have no mask *_car.png: nothing is car there." in notes
    # the car's first 4 of 10 rows lie on the road, in 7 of 8 images
    share = 7 * 40 / (8 * 24 * 32)
    assert any(note.startswith(f"{100 * share:.1f} % of the pixels are in several classes") for note in notes)
    assert not any("add a class for them" in note for note in notes)
    described_as("  other: rest\n", "")(tmp_path / "masks")
    assert any("add a class for them" in note for note in open_folder(tmp_path / "masks").notes)
    edited(COCO, lambda content: content.update(annotations=content["annotations"][3:]))(tmp_path / "coco")
    assert "1 of 9 images have no annotation." in open_folder(tmp_path / "coco").notes


def test_a_label_file_that_changes_is_prepared_again(tmp_path):
    example(tmp_path / "mine", coco)
    digests = []
    for classes in ("[road, car]", "{road: road, car: [car, dog]}", "[car, road]"):
        described_as(re.search("classes: (.*)", (tmp_path / "mine" / DESCRIPTION).read_text())[1], classes)(tmp_path / "mine")
        digests.append(prepare({"size": [24, 32]}, open_folder(tmp_path / "mine"), tmp_path / "out")["digest"])
    assert len(set(digests)) == 3


@pytest.mark.parametrize("size", [{}, {"imageHeight": None, "imageWidth": None}])
def test_a_labelme_file_without_a_size_has_that_of_its_image(tmp_path, size):
    truth = example(tmp_path, labelme)

    def change(content):
        del content["imageHeight"], content["imageWidth"]
        content.update(size)

    edited(LABELME, change)(tmp_path)
    np.testing.assert_array_equal(labels_read(tmp_path)["street_2"], truth["street_2"])


@pytest.mark.parametrize("unlabelled", ["rest", "[unclear, sign]"])
@pytest.mark.parametrize("kind", ["point", "points", "line", "linestrip"])
def test_ignored_shapes_without_area_are_skipped(tmp_path, unlabelled, kind):
    truth = example(tmp_path, labelme)["street_2"]
    described_as("[unclear]", unlabelled)(tmp_path)
    if unlabelled == "rest":
        described_as("  other: rest\n", "")(tmp_path)
        truth = np.array([IGNORED, 0, 1] + 253 * [IGNORED])[truth]
    sign = {"label": "sign", "shape_type": kind, "points": [[3, 4], [5, 6]]}
    edited(LABELME, lambda content: content["shapes"].append(sign))(tmp_path)
    np.testing.assert_array_equal(labels_read(tmp_path)["street_2"], truth)


def test_annotations_need_no_ids_and_boxes_of_ignored_categories_are_skipped(tmp_path):
    truth = example(tmp_path, coco)
    edited(COCO, lambda content: [row.pop("id") for row in content["annotations"]])(tmp_path)
    box = {"id": 99, "image_id": 0, "category_id": 5, "bbox": [1, 2, 3, 4]}
    more = [box, box | {"segmentation": []}]
    edited(COCO, lambda content: content["annotations"].extend(more))(tmp_path)
    assert_read(tmp_path, truth)
    described_as("unlabelled: rest", "unlabelled: [dog]")(tmp_path)
    assert not open_folder(tmp_path).findings
    described_as("classes: [road, car]", "classes: {road: road, car: car, other: rest}")(tmp_path)
    (finding,) = open_folder(tmp_path).findings  # its pixels would be other
    assert (finding.file, finding.code) == (COCO, "coco-annotation")


@pytest.mark.parametrize("kind", ["labelme", "outlines", "runs"])
def test_memory_does_not_grow_with_the_objects_of_an_image(tmp_path, kind):
    side, count = 500, 100
    coding = make_coding("labelme", [["a"]])
    segmentation = {"size": [side, side], "counts": [0, side * side]} if kind == "runs" else [[0, 0, 90, 0, 90, 90]]
    annotation = polygons.Annotation((side, side), ((0, segmentation),) * count)
    shape = {"label": "a", "points": [[0, 0], [90, 0], [90, 90]]}
    (tmp_path / "a.json").write_text(json.dumps({"shapes": [shape] * count}))
    tracemalloc.start()
    try:
        if kind == "labelme":
            labels, _ = polygons.read_labelme(tmp_path / "a.json", coding, (side, side), print)
        else:
            labels, _ = polygons.draw_coco(annotation, coding)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (labels == 0).any() and peak < 10 * side * side


def test_run_length_codes_are_those_of_cocos_library():
    from pycocotools import mask as library

    rng = np.random.default_rng(0)
    for share in (0, 0.02, 0.5, 0.98, 1):
        mask = np.asfortranarray(rng.random((37, 53)) < share).astype(np.uint8)
        mask[5:20, 8:50] |= rng.random() < 0.5
        code = library.encode(np.asfortranarray(mask))
        runs = polygons._run_lengths(code["counts"].decode())
        assert sum(runs) == mask.size
        annotation = polygons.Annotation((37, 53), ((0, {"size": [37, 53], "counts": code["counts"].decode()}),))
        labels, _ = polygons.draw_coco(annotation, make_coding("coco", [["a"]]))
        np.testing.assert_array_equal(labels == 0, mask)
