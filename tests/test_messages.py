"""What people read after the most common mistakes is tests/messages.txt, message by message.

`PYTHONPATH=tests:tests/config:tests/data:tests/predict:. python tests/test_messages.py` writes the file again.
"""

import contextlib
import io
import json
import re
import shutil
import sys
import tempfile
from pathlib import Path
from unittest import mock

import broken
import pytest
import test_layouts as layouts
import torch
from conftest import make_camvid, snapshot
from PIL import Image
from strongest import about, stripes
from tiny import LISTED, LONG, MANY, appended, spoilt, write

from roadseg.__main__ import main
from roadseg.config import paths
from roadseg.config.recipe import Recipe
from roadseg.data.dataset_yaml import DESCRIPTION
from roadseg.predict.weights import About, Weights, pack
from roadseg.training.loop import make_network

GOLDEN = Path(__file__).with_name("messages.txt")
STUDY, MORE = (spoilt(files, ("  ladder:\n    asks", "  helps:\n    asks")) for files in (LONG, MANY))


def settings(old: str, new: str, files=STUDY, more=None):
    """A study with one text replaced in its files."""

    def prepare(folder: Path) -> list[str]:
        write(folder, {**spoilt(files, (old, new)), **(more or {})})
        return ["check", "params.yaml"]

    return prepare


def several(folder: Path) -> list[str]:
    write(folder, spoilt(STUDY, ("seeds: [0", "sedes: [0"), ("size: [64, 96]", "size: 64"), ("flip: 0.5", "flip: yes")))
    return ["check", "params.yaml"]


def other_splits(splits: str):
    """A study that asks for other splits of CamVid."""

    def prepare(folder: Path) -> list[str]:
        make_camvid(folder / "camvid")
        text = re.sub("(?s)  source: synthetic.*?seeds", f"  source: camvid\n  path: camvid\n  size: [36, 48]\n"
                      f"  block: 1\n  splits: {splits}\nseeds", STUDY["params.yaml"])  # fmt: skip
        write(folder, {**STUDY, "params.yaml": text})
        return ["check", "params.yaml"]

    return prepare


def images(spoil, build=broken.good):
    """A folder of the user's own with something wrong in it."""

    def prepare(folder: Path) -> list[str]:
        build(folder / "mine")
        spoil(folder / "mine")
        return ["check", "mine"]

    return prepare


def description(old: str, new: str):
    return images(broken.described(old, new))


def example(build, spoil):
    """A folder in another layout, see data/README.md, with something wrong in it."""

    def built(folder: Path) -> None:
        build(folder)
        layouts.described(folder, layouts.EXAMPLES[layouts.BUILDERS.index(build)])

    return images(spoil, built)


def command(*words: str):
    """A command beside a sound study and a sound folder."""

    def prepare(folder: Path) -> list[str]:
        write(folder, {**STUDY, "remarks.md": "", "params.yaml": STUDY["params.yaml"].replace("study: tiny", "study: synthetic")})
        broken.good(folder / "mine")
        (folder / "studies/own").mkdir(parents=True)
        return list(words)

    return prepare


def many_bad_labels(folder: Path) -> None:
    for name in broken.NAMES:
        broken.put(folder, name, broken.get(folder, name) + broken.NAMES.index(name))


def without_all(name: str):
    return lambda folder: shutil.rmtree(folder / name)


ODD_TRICK = appended(STUDY, tricks="idle: {set: {}}\n")
def predicting(*arguments: str, spoil=lambda folder: None):
    """A command about weights, where there are some called road, and a folder with a picture."""

    def prepare(folder: Path) -> list[str]:
        (folder / "models/road").mkdir(parents=True)
        pack(weights_of(about()), folder / "models/road/weights.pt")
        (folder / "street").mkdir()
        Image.fromarray(stripes(24, 32)).save(folder / "street/a.png")
        spoil(folder)
        return list(arguments)

    return prepare


def weights_of(described: About) -> Weights:
    torch.manual_seed(0)
    return Weights(described, make_network(Recipe.of(described.recipe), 3), "")


CASES = {
    "params.yaml": {
        "a key is misspelt": settings("seeds: [0", "sedes: [0"),
        "a hyperparameter is misspelt": settings("steps: 10", "stesp: 10"),
        "seeds: 3": settings("seeds: [0, 1]", "seeds: 3"),
        "steps: 1e3": settings("steps: 10", "steps: 1e3"),
        "lr: 0,001": settings("lr: 0.001", "lr: 0,001"),
        "cycles without the cosine schedule": settings("lr: 0.001", "cycles: 3"),
        "seed instead of seeds": settings("lr: 0.001", "seed: 1"),
        "a data source that is not known": settings("source: synthetic", "source: sintetic"),
        "a text with a colon": settings("title: A tiny study", "title: A tiny: study"),
        "a date": settings("title: A tiny study", "title: 2024-01-01"),
        "a number that YAML readers disagree on": settings("steps: 10", "steps: 010"),
        "a tab": settings("  lr: 0.001", "\tlr: 0.001"),
        "a bracket that is not closed": settings("seeds: [0, 1]", "seeds: [0, 1"),
        "a key that stands twice": settings("lr: 0.001", "steps: 11"),
        "an empty file": lambda folder: [write(folder, {**STUDY, "params.yaml": ""}), "check", "params.yaml"][1:],
        "several mistakes": several,
        "folder is not where the file is": settings("folder: .", "folder: studies/tiny"),
        "the data are not there": settings("source: synthetic\n  path: roadseg/data/synthetic.py",
                                           "source: camvid\n  path: data/raw/camvid"),
        "fractions that leave nothing for train": other_splits("{val: 0.5, test: 0.5}"),
        "a percentage": other_splits("{val: 20%, test: 0.2}"),
        "a list of images in another folder": other_splits("{val: val.txt, test: 0.2}"),
        "a list with a name that no image has": other_splits("{val: [seqX], test: 0.2}"),
    },
    "questions in params.yaml": {
        "a trick that is not known": settings("  - flip", "  - flop"),
        "start is an arm that is not known": settings("start: fcn-8s", "start: fcn8s"),
        "two kinds in one question": settings("    networks: {", "    ladder: [flip]\n    networks: {"),
        "leave one out of one trick": settings("leave_one_out: [flip, adamw, poly]", "leave_one_out: [flip]", MORE),
        "a trick that changes nothing": settings("optimizer: adamw", "optimizer: adam"),
        "two tricks that set one hyperparameter": settings("{schedule: poly}", "{optimizer: adam}", MORE),
        "one name for two recipes": settings("    start: with-flip\n    alone: [adamw]",
                                             "    start: baseline\n    ladder: [flip]"),
        "a network that is not known": settings("[small, unet]", "[small, unte]", LISTED),
        "a name with a dot": settings("fcn-8s: ", "fcn.8s: "),
    },
    "tricks.yaml, networks.yaml, remarks.md": {
        "flip: 1.5": settings("flip: 0.5", "flip: 1.5"),
        "flip: on": settings("flip: 0.5", "flip: on"),
        "a trick that sets nothing": settings("idle", "idle", ODD_TRICK),
        "a network that nothing provides": settings('"dabnet"', '"dabent"', LISTED),
        "an encoder that is not known": settings("smp:unet:resnet18", "smp:unet:resnet19", LISTED),
        "a paragraph in place of points": settings("tiny", "tiny", more={"remarks.md": "Nothing was tuned.\n"}),
    },
    "dataset.yaml": {
        "it is not there": images(lambda folder: (folder / DESCRIPTION).unlink()),
        "splits without test": description("test: [west]", ""),
        "the folder of the images is not there": description("images: images", "images: pictures"),
        "labels is the folder of the images": description("labels: labels", "labels: images"),
        "a pattern without quotes": description("images: images", "images: */images"),
        "a pattern with one * too many": description("labels: labels", 'labels: "*/labels"'),
        "a class that is a number": description("[road, building, sky]", "[road, 7, sky]"),
        "one id for two classes": description("[road, building, sky]", "{road: 0, building: 1, sky: 1}"),
        "colours, and no values: colours": description(
            "[road, building, sky]", "{road: [128, 64, 128], building: [70, 70, 70], sky: [1, 1, 2]}"),
        "a colour without quotes": images(broken.colour_without_quotes),
        "a colour of an unknown class": description("labels: labels", "labels: labels\ncolours: {raod: [1, 2, 3]}"),
        "a threshold and three classes": description("labels: labels", "labels: labels\nthreshold: 128"),
        "an expression without a group": description('"(.+)_"', "'.+_'"),
        "an expression that fits no name": description('"(.+)_"', '"(.+)-"'),
        "a folder that is not there": description("val: [east]", "val: validation"),
        "an unknown name": description("val: [east]", "val: [east_010.png]"),
    },
    "images and label files": {
        "values that no class has": images(broken.out_of_range),
        "such values in many files": images(many_bad_labels),
        "labels that were smoothed": images(broken.smoothed),
        "colours in place of ids": images(broken.colours_for_ids),
        "labels saved as JPEG": images(broken.jpeg_labels),
        "a class that never occurs": description("[road, building, sky]", "[road, building, sky, tram]"),
        "masks of 0 and 255 for the ids 0 and 1": images(broken.mask_of_0_and_255),
        "labels of another size": images(broken.other_size),
        "an image that is cut short": images(broken.truncated),
        "an image stored turned": images(broken.turned),
        "an image of 16 bits": images(broken.sixteen_bit_image),
        "a clone without Git LFS": images(broken.pointer_for_labels),
        "a label image is missing": images(broken.without("labels/north_02.png")),
        "a label image with another ending": images(broken.renamed("labels/north_02.png", "north_02.bmp")),
        "an image is missing": images(broken.without("images/north_02.png")),
        "label images are named otherwise": images(broken.all_labels_named_otherwise),
        "no images": images(broken.no_images),
        "an image in two splits under two names": images(broken.same_image_in_two_splits),
        "a mask with soft edges": example(layouts.masks, layouts.grey("masks/d/1_car.png", 70)),
        "no mask fits the pattern": example(layouts.masks, broken.described("*_car.png", "*_cars.png")),
        "a label that is in no class (labelme)": example(layouts.labelme, layouts.other_shape(label="cra")),
        "a box without an outline (COCO)": example(layouts.coco, layouts.other_annotation(segmentation=[], category_id=7)),
        "a line that is no pair": example(layouts.pairs, lambda f: (f / "pairs.csv").write_text("photos/1.jpg")),
    },
    "commands": {
        "check of a folder that is not there": command("check", "nowhere"),
        "check of a folder with a study": command("check", "."),
        "a study that is not known": command("plan", "synthetik"),
        "a question that is not known": command("train", "synthetic", "lader"),
        "a data set that cannot be fetched": command("fetch", "camvit"),
        "a name that cannot be a folder's": command("start", "my set", "mine"),
        "a study that exists": command("start", "own", "mine"),
        "no time": command("start", "new", "mine", "--minutes", "0"),
    },
    "predicting": {
        "weights that there are not": predicting("predict", "street", "--weights", "raod"),
        "a file that holds no weights": predicting(
            "predict", "street", "--weights", "a.pt", spoil=lambda folder: (folder / "a.pt").write_text("?")
        ),
        "an opacity that is none": predicting("predict", "street", "--weights", "road", "--overlay", "50"),
        "no picture": predicting("predict", "models", "--weights", "road"),
        "no file": predicting("predict", "stret/a.png", "--weights", "road"),
        "an output in the place of an input": predicting(
            "predict", "labels", "--weights", "road", "--out", ".",
            spoil=lambda folder: (folder / "street").rename(folder / "labels"),
        ),
        "values that labels do not have": predicting(
            "predict", "street", "--weights", "road", "--values", "original",
            spoil=lambda folder: pack(weights_of(about(values=None)), folder / "models/road/weights.pt"),
        ),
        "a kind of file that cannot be written": predicting("export", "road", "--to", "road.tflite"),
    },
}  # fmt: skip


def message(prepare, folder: Path) -> str:
    """Return what a command says of a mistake; it must end with status 2 and write nothing."""
    arguments, shown = prepare(folder), io.StringIO()
    before = snapshot(folder)
    with mock.patch.object(paths, "ROOT", folder), contextlib.chdir(folder), contextlib.redirect_stderr(shown):
        assert main(arguments) == 2
    assert snapshot(folder) == before
    lines = shown.getvalue().replace(f"{folder}", "FOLDER").splitlines()
    return "\n".join([f"$ python -m roadseg {' '.join(map(json.dumps, arguments))}".replace('"', ""), *lines])


@pytest.mark.parametrize(("part", "title"), [(part, title) for part in CASES for title in CASES[part]])
def test_what_is_said_of_a_mistake(tmp_path, monkeypatch, part, title):
    monkeypatch.delenv("ROADSEG_CAMVID", raising=False)
    section = GOLDEN.read_text().partition(f"\n\n==== {part} ====\n\n")[2].partition("\n\n==== ")[0]
    written = dict(re.findall(r"^# (.*)\n((?:.+\n?)*)", section, re.M))
    assert message(CASES[part][title], tmp_path) == written[title].rstrip("\n")


def rewrite() -> None:
    """Write the golden file."""
    text = "What is said of common mistakes; written by tests/test_messages.py.\n"
    for part, cases in CASES.items():
        text += f"\n\n==== {part} ====\n"
        for title, prepare in cases.items():
            with tempfile.TemporaryDirectory() as folder:
                text += f"\n# {title}\n{message(prepare, Path(folder).resolve())}\n"
    GOLDEN.write_text(text)


if __name__ == "__main__":
    sys.exit(rewrite())
