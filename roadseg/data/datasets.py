"""The kinds of data set: which image goes with which label image, in which split, and what the
label values mean. Reads listings and no pixels; `check.py` reads those.
"""

import os
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np

from roadseg.data import synthetic
from roadseg.data.dataset_yaml import DESCRIPTION, MINIMAL_DESCRIPTION
from roadseg.data.findings import Finding, found
from roadseg.data.folder import folder_source
from roadseg.data.layout import (
    Coding,
    Colour,
    Item,
    Source,
    check_names,
    check_orphans,
    check_pairs,
    find_items,
    make_coding,
    read_list,
)
from roadseg.data.scenes import CAMVID, CITYSCAPES, SPLITS
from roadseg.data.splits import split_items
from roadseg.errors import InputError, nearest

CAMVID_VOID = 11

# The 32 colours of the original CamVid labels by the 11 classes that the SegNet copy has of them;
# Void is not labelled.
CAMVID_GROUPS = {
    "sky": [(128, 128, 128)],
    "building": [
        (128, 0, 0),
        (192, 0, 128),  # archway
        (0, 128, 64),  # bridge
        (64, 0, 64),  # tunnel
        (64, 192, 0),  # wall
    ],
    "pole": [(192, 192, 128), (0, 0, 64)],  # column or pole, traffic cone
    "road": [(128, 64, 128), (128, 0, 192), (192, 0, 64)],  # road, markings driven on and not
    "pavement": [(0, 0, 192), (64, 192, 128), (128, 128, 192)],  # and parking block, road shoulder
    "tree": [(128, 128, 0), (192, 192, 0)],  # and other vegetation
    "sign symbol": [(192, 128, 128), (128, 128, 64), (0, 64, 64)],  # sign, text, traffic light
    "fence": [(64, 64, 128)],
    "car": [
        (64, 0, 128),
        (64, 128, 192),  # SUV or pickup
        (192, 128, 192),  # truck or bus
        (192, 64, 128),  # train
        (128, 64, 64),  # other moving thing
    ],
    "pedestrian": [
        (64, 64, 0),
        (192, 128, 64),  # child
        (64, 0, 192),  # cart, luggage, pram
        (64, 128, 64),  # animal
    ],
    "bicyclist": [(0, 128, 192), (192, 0, 192)],  # and motorcycle or scooter
}

KITTI_ROAD = {"road": (255, 0, 255), "not road": (255, 0, 0)}

# Cityscapes ids of the 19 classes in the order of `scenes.CITYSCAPES`; the other ids up to 33 (ego
# vehicle, static, parking, bridge, caravan, ...) are not trained on, and 255 is how some tools
# write the licence plates' id -1.
CITYSCAPES_IDS = [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]


def synthetic_source(*, size: list[int], seed: int, counts: dict[str, int], **_) -> Source:
    """Scenes drawn by `synthetic.scene`: image i of the set depends on (seed, i) alone."""
    splits, first = {}, 0
    for split in SPLITS:
        numbers = range(first, first + counts[split])
        splits[split] = [Item(f"scene_{i:05d}", f"{i}") for i in numbers]
        first += counts[split]

    def draw(item: Item) -> tuple[np.ndarray, np.ndarray]:
        return synthetic.scene(seed, int(item.sequence), tuple(size))

    return Source(Path(), CITYSCAPES, splits, draw=draw)


def camvid_source(*, path: Path, **_) -> Source:
    """CamVid: the SegNet copy (11 classes as ids), or the original (32 classes as colours).

    SegNet copy: `<split>/NAME.png` and `<split>annot/NAME.png`. Lists `<split>.txt`, where present,
    give the order; of their paths only the file names count, since every copy of this data set
    carries lists whose folder does not exist.

    Original: `701_StillsRaw_full/NAME.png` and `LabeledApproved_full/NAME_L.png`; its 32 classes
    are merged by `CAMVID_GROUPS`. It came without a split; what the SegNet lists say follows a
    rule, which is applied: test is all of Seq05VD and frames from 8550 on of 0001TP, val is frames
    7959 to 8159 of 0016E5, all else is train.

    Raises
    ------
    InputError : the folder has neither layout
    """
    if (path / "LabeledApproved_full").is_dir():
        images, labels, label_file = "701_StillsRaw_full", "LabeledApproved_full", "*_L.png"
        _require_folders(path, [images], "camvid", "The original CamVid")
        items = find_items(path, images, labels, ".png", label_file)
        coding = make_coding(
            "colours", list(CAMVID_GROUPS.values()), [(0, 0, 0)],
            "restore the original file: a label image must never be smoothed or saved as JPEG",
        )  # fmt: skip
        findings = _unpaired(path, items, labels, label_file)
        places = [(segnet_split(item.name), item.name.split("_")[0]) for item in items]
        return _public_source(path, CAMVID, items, places, coding, findings)
    required = [split + ending for split in SPLITS for ending in ("", "annot")]
    _require_folders(path, required, "camvid", "The SegNet copy of CamVid")
    splits, findings, notes = {}, [], []
    for split in SPLITS:
        items = find_items(path, split, f"{split}annot", ".png")
        listing = path / f"{split}.txt"
        if listing.is_file():
            names = [Path(line.split()[0]).stem for line in read_list(listing)]
            twice = [name for name, count in Counter(names).items() if count > 1]
            findings += [found("listed-twice", listing.name, name=name) for name in twice]
            names = list(dict.fromkeys(names))
            if (unlisted := len(items) - len(names)) > 0:
                notes.append(f"{unlisted} images in {split} are not in {listing.name}: left out.")
            items = [
                Item(name, name, path / split / f"{name}.png", path / f"{split}annot/{name}.png")
                for name in names
            ]
            check_names(path, items)
            findings += check_pairs(path, items)
        else:
            findings += _unpaired(path, items, f"{split}annot")
        splits[split] = [replace(item, sequence=item.name.split("_")[0]) for item in items]
    coding = make_coding(
        "ids", [[i] for i in range(len(CAMVID))], [CAMVID_VOID],
        "restore the file, or set source: folder and describe your own ids",
    )  # fmt: skip
    return Source(path, CAMVID, splits, coding, findings=tuple(findings), notes=tuple(notes))


def segnet_split(name: str) -> str:
    """Return the split that the SegNet lists put a CamVid image in, by its name."""
    sequence, frame = name.split("_")[0], int(re.sub(r"\D", "", name.split("_")[-1]) or 0)
    if sequence == "Seq05VD" or (sequence == "0001TP" and frame >= 8550):
        return "test"
    return "val" if sequence == "0016E5" and 7959 <= frame <= 8159 else "train"


def kitti_source(*, path: Path, **_) -> Source:
    """KITTI semantics: `training/image_2/NAME.png` and `training/semantic/NAME.png`.

    Label values are Cityscapes ids, of which 19 are classes. The images under `testing` have no
    public labels, and the split of the course study is not public, so ours is a rule, that of
    `kitti_split`: of 200 images 150 are there to train (120) and to choose with (30), 50 are test.

    Raises
    ------
    InputError : no such folders
    """
    images, labels = "training/image_2", "training/semantic"
    _require_folders(path, [images, labels], "kitti", "KITTI's data_semantics.zip")
    items = find_items(path, images, labels, ".png")
    numbers = [index // 10 for index in range(len(items))]
    places = [(kitti_split(number), f"stretch {number + 1}") for number in numbers]
    findings = _unpaired(path, items, labels)
    return _public_source(path, CITYSCAPES, items, places, _cityscapes_coding(), findings)


def kitti_split(number: int) -> str:
    """Return the split of the number-th sequence of images, neighbours that often are of one drive.

    Of every eight sequences the second is val, the fourth and the eighth are test.
    """
    return "test" if number % 4 == 3 else "val" if number % 8 == 1 else "train"


def kitti_road_source(*, path: Path, **_) -> Source:
    """KITTI Road: `training/image_2/um_000000.png`, `training/gt_image_2/um_road_000000.png`.

    Magenta is road, red is not, black is ignored (Fritsch, Kuehnl and Geiger, "A new performance
    measure and evaluation benchmark for road detection algorithms", ITSC 2013). Labels of the own
    lane (`um_lane_*`) are left alone. The labels under `testing` are not public, so the split is
    a rule: the images of each category (um, umm, uu) are ten sequences of equal length in order of
    names, and `kitti_split` deals out these thirty. Of 289 images 185 are train, 37 val
    and 67 test.

    Raises
    ------
    InputError : no such folders
    """
    folders = ["training/image_2", "training/gt_image_2"]
    _require_folders(path, folders, "kitti_road", "KITTI's data_road.zip")
    images, labels = f"{folders[0]}/u*_*.png", f"{folders[1]}/u*_road_*.png"
    items = sorted(find_items(path, images, labels), key=lambda item: item.name.partition("_")[0])
    counts = Counter(item.name.partition("_")[0] for item in items)
    places = []
    for first, (category, count) in enumerate(counts.items()):
        numbers = [10 * index // count for index in range(count)]
        places += [(kitti_split(10 * first + n), f"{category} {n + 1}") for n in numbers]
    coding = make_coding(
        "colours", [[colour] for colour in KITTI_ROAD.values()], [(0, 0, 0)],
        "use the files um_road_*, umm_road_* and uu_road_* as they were downloaded",
    )  # fmt: skip
    return _public_source(path, KITTI_ROAD, items, places, coding, _unpaired(path, items, labels))


def cityscapes_source(*, path: Path, splits: dict | None = None, **_) -> Source:
    """Cityscapes: `leftImg8bit/<split>/CITY/*_leftImg8bit.png`, `gtFine/.../*_gtFine_labelIds.png`.

    The labels of its own test set are not public. Here test is its val set, and val is every sixth
    of its training cities in alphabetical order (the last one if there are fewer than six), so that
    choosing does not touch the images that are reported. A city counts as a sequence. What a study
    asks for in `splits` is put in place of these later.

    Raises
    ------
    InputError : no such folders
    """
    required = [f"{kind}/{part}" for kind in ("leftImg8bit", "gtFine") for part in ("train", "val")]
    _require_folders(path, required, "cityscapes", "Cityscapes")
    items, findings, ending = [], [], "*_gtFine_labelIds.png"
    for official in ("train", "val"):
        images, labels = f"leftImg8bit/{official}", f"gtFine/{official}"
        items += (found_here := find_items(path, images, labels, "_leftImg8bit.png", ending))
        findings += _unpaired(path, found_here, labels, ending)
    cities = [item.image.parent.name for item in items]
    is_test = [item.image.parent.parent.name == "val" for item in items]
    train_cities = sorted({city for city, test in zip(cities, is_test, strict=True) if not test})
    val_cities = train_cities[5::6] or train_cities[-1:]
    places = [
        ("test" if test else "val" if city in val_cities else "train", city)
        for city, test in zip(cities, is_test, strict=True)
    ]
    items = [replace(item, name=item.name.split("/")[-1]) for item in items]
    source = _public_source(path, CITYSCAPES, items, places, _cityscapes_coding(), findings)
    note = f"val is the training cities {', '.join(val_cities)}; test is Cityscapes' own val."
    return source if splits else replace(source, notes=(note,))


def _public_source(
    path: Path,
    palette: dict[str, Colour],
    items: list[Item],
    places: list[tuple[str, str]],
    coding: Coding,
    findings: list[Finding],
) -> Source:
    """Return a source of items with the split and the sequence that each is put into."""
    splits = {split: [] for split in SPLITS}
    for item, (split, sequence) in zip(items, places, strict=True):
        splits[split].append(replace(item, sequence=sequence))
    return Source(path, palette, splits, coding, findings=tuple(findings))


def _unpaired(
    path: Path, items: list[Item], labels: str, label_file: str = "*.png"
) -> list[Finding]:
    expected = {item.labels for item in items}
    return check_pairs(path, items) + check_orphans(path, expected, labels, label_file)


def _cityscapes_coding() -> Coding:
    ignored = [value for value in [*range(34), 255] if value not in CITYSCAPES_IDS]
    return make_coding(
        "ids", [[i] for i in CITYSCAPES_IDS], ignored,
        "use the files with ids (labelIds, semantic), not colours, train ids or instances",
    )  # fmt: skip


def _require_folders(path: Path, names: list[str], kind: str, what: str) -> None:
    for name in names:
        if not (path / name).is_dir():
            raise InputError(
                f"{path / name}: no such folder. {what} has {', '.join(names)}; name the folder "
                f"above them in params.yaml (data: path) or in the environment variable "
                f"{folder_variable(kind)}."
            )


SOURCES = {
    "synthetic": synthetic_source,
    "camvid": camvid_source,
    "kitti": kitti_source,
    "kitti_road": kitti_road_source,
    "cityscapes": cityscapes_source,
    "folder": folder_source,
}


def recognise(folder: Path) -> str:
    """Return the kind of data set that lies in a folder, by what it holds.

    Raises
    ------
    InputError : it is no folder, or holds none of the known layouts
    """
    folder = Path(folder)
    if not folder.is_dir():
        what = "is a file, not a folder" if folder.is_file() else "no such folder"
        raise InputError(f"{folder}: {what}.")
    other = folder / DESCRIPTION.replace(".yaml", ".yml")
    if other.is_file():
        raise InputError(f"{other}: rename it to {DESCRIPTION}.")
    if (folder / "params.yaml").is_file():
        raise InputError(f"{folder}: is a study; check its params.yaml, which names its data.")
    markers = {
        "folder": [DESCRIPTION],
        "camvid": ["trainannot", "LabeledApproved_full"],
        "kitti": ["training/semantic"],
        "kitti_road": ["training/gt_image_2"],
        "cityscapes": ["leftImg8bit"],
    }
    kinds = [kind for kind, names in markers.items() if any((folder / n).exists() for n in names)]
    if kinds == ["kitti", "kitti_road"]:
        raise InputError(
            f"{folder}: holds both KITTI semantics and KITTI Road, whose images are in one folder. "
            "Unpack each into a folder of its own."
        )
    if kinds:
        return kinds[0]
    if (folder / "training/image_2").exists():
        raise InputError(
            f"{folder}/training: has image_2, and neither semantic (KITTI semantics) nor "
            "gt_image_2 (KITTI Road), where the labels are. Unpack the whole archive there."
        )
    raise InputError(
        f"{folder}: is neither CamVid, KITTI (semantics or Road) nor Cityscapes, and has no "
        f"{DESCRIPTION}. For your own images, write one; the smallest is:\n{MINIMAL_DESCRIPTION}"
    )


def open_folder(folder: Path) -> Source:
    """Return the data set that lies in a folder, of the kind that its layout shows.

    Raises
    ------
    InputError : no known layout, or files missing
    """
    return SOURCES[recognise(folder)](path=Path(folder))


def folder_variable(kind: str) -> str:
    """Return the environment variable that names a public set's folder on this machine, or ''."""
    return "" if kind == "folder" else f"ROADSEG_{kind.upper()}"


def find_source(settings: dict, root: Path) -> Source:
    """Open the data set that a study's `data` block names; nothing is read but its listing.

    Where the environment variable of a public data set is set, it names the folder instead of
    `path` (see `link_source`).

    Parameters
    ----------
    settings : the `data` block of a study's params.yaml
    root : what a relative `path` is relative to

    Raises
    ------
    InputError : no such source, no folder, files missing, or something else stands where the link
        to the variable's folder belongs
    """
    kind = settings["source"]
    if kind not in SOURCES:
        raise InputError(f"data: source: {kind!r} is unknown.{nearest(kind, SOURCES)}")
    if kind == "synthetic":
        return SOURCES[kind](**settings)
    path, variable = root / settings["path"], folder_variable(kind)
    if variable in os.environ:
        target = Path(os.environ[variable]).expanduser().resolve()
        if not target.is_dir():
            raise InputError(
                f"{variable}: {target} does not exist or is no folder; set it to the folder of the "
                f"{kind} data."
            )
        if path.resolve() != target and path.exists() and not path.is_symlink():
            raise InputError(
                f"{variable}: {path} exists already and is no link; move it away, or unset the "
                "variable to use it."
            )
        path = target
    elif not path.is_dir():
        what = "your images" if kind == "folder" else f"the {kind} data"
        ways = [f"put {what} there", "change data: path in params.yaml"]
        ways += [f"let the environment variable {variable} name a folder"] * bool(variable)
        ways = f"{', '.join(ways[:-1])}, or {ways[-1]}"
        raise InputError(f"{settings['path']}: no such folder; {ways}.")
    source = SOURCES[kind](**{**settings, "path": path})
    if "splits" not in settings:
        return source
    # others than the set's own; sequences stay whole, and lists lie below `root`
    items = source.items
    splits, findings, notes = split_items(
        root, items, settings["splits"], True, "params.yaml, data"
    )
    if unused := len(items) - sum(map(len, splits.values())):
        notes.append(f"{unused} of {len(items)} images are in no split.")
    findings, notes = (*source.findings, *findings), (*source.notes, *notes)
    return replace(source, splits=splits, findings=findings, notes=notes)


def link_source(settings: dict, root: Path, source: Source) -> None:
    """Make `path` a link to the source's folder, if an environment variable named that.

    The pipeline therefore sees one path on every machine, and the digest of what it holds.
    """
    path = root / settings["path"]
    if settings["source"] != "synthetic" and path.resolve() != source.root.resolve():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.symlink_to(source.root)
