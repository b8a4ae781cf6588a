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
from roadseg.data.folder import folder_source
from roadseg.data.layout import (
    Coding,
    Finding,
    Item,
    Source,
    check_names,
    check_orphans,
    check_pairs,
    colours_coding,
    find_items,
    ids_coding,
    read_list,
)
from roadseg.data.scenes import CAMVID, CITYSCAPES, SPLITS
from roadseg.data.splits import split as split_items
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

# Cityscapes ids of the 19 classes in the order of `data.CITYSCAPES`; the other ids up to 33 (ego
# vehicle, static, parking, bridge, caravan, ...) are not trained on, and 255 is how some tools
# write the licence plates' id -1.
CITYSCAPES_IDS = [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]


def synthetic_source(*, size: list[int], seed: int, counts: dict[str, int], **_) -> Source:
    """Scenes drawn by `roadseg.synthetic`: image i of the set depends on (seed, i) alone."""
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
        _require_folders(path, ["701_StillsRaw_full"], "camvid", "The original CamVid")
        items = find_items(path, "701_StillsRaw_full", "LabeledApproved_full", ".png", "*_L.png")
        findings = _unpaired(path, items, "LabeledApproved_full", "*_L.png")
        splits = {split: [] for split in SPLITS}
        for item in items:
            item = replace(item, sequence=item.name.split("_")[0])
            splits[segnet_split(item.name)].append(item)
        coding = colours_coding(
            list(CAMVID_GROUPS.values()), [(0, 0, 0)],
            "restore the original file: a label image must never be smoothed or saved as JPEG",
        )  # fmt: skip
        return Source(path, CAMVID, splits, coding, findings=tuple(findings))
    required = [split + ending for split in SPLITS for ending in ("", "annot")]
    _require_folders(path, required, "camvid", "The SegNet copy of CamVid")
    splits, findings, notes = {}, [], []
    for split in SPLITS:
        listing = path / f"{split}.txt"
        if listing.is_file():
            names = [Path(line.split()[0]).stem for line in read_list(listing)]
            duplicates = [name for name, count in Counter(names).items() if count > 1]
            findings += [
                Finding(listing.name, f"lists {name} more than once", "each image once",
                        "take the other lines out")
                for name in duplicates
            ]  # fmt: skip
            names = list(dict.fromkeys(names))
            unlisted = len(find_items(path, split, split, ".png", "*.png")) - len(names)
            if unlisted > 0:
                notes.append(f"{unlisted} images in {split} are not in {listing.name}: left out.")
        else:
            names = [
                item.name for item in find_items(path, split, f"{split}annot", ".png", "*.png")
            ]
        splits[split] = [
            Item(name, name.split("_")[0], path / split / f"{name}.png",
                 path / f"{split}annot" / f"{name}.png")
            for name in names
        ]  # fmt: skip
        check_names(path, splits[split])
        findings += check_pairs(path, splits[split])
        if not listing.is_file():
            expected = {item.labels for item in splits[split]}
            findings += check_orphans(path, expected, f"{split}annot", "*.png")
    coding = ids_coding(
        [[i] for i in range(len(CAMVID))], [CAMVID_VOID],
        "restore the file, or set source: folder and describe your own ids",
    )  # fmt: skip
    return Source(path, CAMVID, splits, coding, None, tuple(findings), tuple(notes))


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
    items = find_items(path, images, labels, ".png", "*.png")
    findings = _unpaired(path, items, labels, "*.png")
    splits = {split: [] for split in SPLITS}
    for index, item in enumerate(items):
        number = index // 10
        splits[kitti_split(number)].append(replace(item, sequence=f"stretch {number + 1}"))
    return Source(path, CITYSCAPES, splits, _cityscapes_coding(), findings=tuple(findings))


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
    items = find_items(path, images, labels, None, "")
    findings = _unpaired(path, items, labels, "")
    splits, categories = {split: [] for split in SPLITS}, {}
    for item in items:
        categories.setdefault(item.name.partition("_")[0], []).append(item)
    for first, (category, members) in enumerate(sorted(categories.items())):
        for index, item in enumerate(members):
            number = 10 * index // len(members)
            item = replace(item, sequence=f"{category} {number + 1}")
            splits[kitti_split(10 * first + number)].append(item)
    coding = colours_coding(
        [[colour] for colour in KITTI_ROAD.values()], [(0, 0, 0)],
        "use the files um_road_*, umm_road_* and uu_road_* as they were downloaded",
    )  # fmt: skip
    return Source(path, KITTI_ROAD, splits, coding, findings=tuple(findings))


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
    required = [
        f"{kind}/{split}" for kind in ("leftImg8bit", "gtFine") for split in ("train", "val")
    ]
    _require_folders(path, required, "cityscapes", "Cityscapes")
    official_items, findings = {}, []
    for split in ("train", "val"):
        images, labels = f"leftImg8bit/{split}", f"gtFine/{split}"
        label_file = "*_gtFine_labelIds.png"
        official_items[split] = find_items(path, images, labels, "_leftImg8bit.png", label_file)
        findings += _unpaired(path, official_items[split], labels, label_file)
    cities = sorted({item.name.split("/")[0] for item in official_items["train"]})
    val_cities = cities[5::6] or cities[-1:]
    own_splits = {split: [] for split in SPLITS}
    for official, items in official_items.items():
        for item in items:
            city, name = item.name.split("/")[0], item.name.split("/")[-1]
            split = "test" if official == "val" else "val" if city in val_cities else "train"
            own_splits[split].append(replace(item, name=name, sequence=city))
    note = f"val is the training cities {', '.join(val_cities)}; test is Cityscapes' own val."
    return Source(
        path, CITYSCAPES, own_splits, _cityscapes_coding(), None, tuple(findings),
        () if splits else (note,),
    )  # fmt: skip


def _unpaired(path: Path, items: list[Item], labels: str, label_file: str) -> list[Finding]:
    expected = {item.labels for item in items}
    return check_pairs(path, items) + check_orphans(path, expected, labels, label_file)


def _cityscapes_coding() -> Coding:
    ignored = [value for value in [*range(34), 255] if value not in CITYSCAPES_IDS]
    return ids_coding(
        [[i] for i in CITYSCAPES_IDS], ignored,
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
        f"{DESCRIPTION}. For your own images, write one; a smallest is:\n{MINIMAL_DESCRIPTION}"
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
        variable_hint = f", or let the environment variable {variable} name a folder" * bool(
            variable
        )
        raise InputError(
            f"{settings['path']}: no such folder. Put {what} there, change data: path in "
            f"params.yaml{variable_hint}."
        )
    source = SOURCES[kind](**{**settings, "path": path})
    if "splits" in settings:
        source = _split_anew(source, settings["splits"], root)
    return source


def _split_anew(source: Source, requested: dict, root: Path) -> Source:
    """Return a public data set with other splits than its own; sequences stay whole.

    Lists lie below `root`.
    """
    items = [item for part in source.splits.values() for item in part]
    splits, findings, notes = split_items(root, items, requested, True, "params.yaml, data")
    unused = len(items) - sum(map(len, splits.values()))
    if unused:
        notes.append(f"{unused} of {len(items)} images are in no split.")
    return replace(
        source,
        splits=splits,
        findings=source.findings + tuple(findings),
        notes=(*source.notes, *notes),
    )


def link_source(settings: dict, root: Path, source: Source) -> None:
    """Make `path` a link to the source's folder, if an environment variable named that.

    The pipeline therefore sees one path on every machine, and the digest of what it holds.
    """
    path = root / settings["path"]
    if settings["source"] != "synthetic" and path.resolve() != source.root.resolve():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.symlink_to(source.root)
