"""The user's own folder: `dataset.yaml`, which describes it, and the splits it asks for."""

import colorsys
import hashlib
import os
import re
import reprlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from roadseg.config.yaml import read_yaml
from roadseg.data.layout import (
    BadData,
    Colour,
    Finding,
    Item,
    Source,
    check_orphans,
    check_pairs,
    colours_coding,
    composed,
    find_items,
    ids_coding,
    normalised_name,
    read_list,
)
from roadseg.data.scenes import CAMVID, CITYSCAPES, SPLITS
from roadseg.errors import InputError, nearest

DESCRIPTION = "dataset.yaml"
NO_TEST = "none"  # under splits: test:
MAX_PATH_LENGTH = 4096  # characters of a line that may still be a path
MAX_NAME_LENGTH = 60  # characters of a class: figures and tables have to hold it
NAME = (
    f"up to {MAX_NAME_LENGTH} characters that can be printed, the first a letter or digit, the "
    "last no space; no number, and no word for nothing, such as none or NA"
)
NULL_NAMES = {"na", "n/a", "null", "none", "true", "false"}  # to readers of CSV tables, no names
MINIMAL_DESCRIPTION = """\
  images: images             # folder of the images
  labels: labels             # folder of the label images, of the same names
  classes: [road, other]     # label value 0 is road, 1 is other
  splits: {val: 0.2, test: 0.2}
data/README.md explains every key."""
QUOTES = "write 20 % as 0.2; a name made of digits needs quotes"
KEYS = {
    "images": "a folder",
    "labels": "a folder",
    "image_ending": "text, such as _leftImg8bit.png",
    "label_ending": "text, such as _L.png",
    "values": "ids or colours",
    "classes": "a list of names, or 'name: value' lines",
    "unlabelled": "a list of label values, or rest",
    "colours": "'class: colour' lines",
    "sequence": "folder, a whole number, or a regular expression with one group",
    "aligned": "true or false",
    "splits": "'train:', 'val:' and 'test:' lines",
}


@dataclass(frozen=True)
class Description:
    """What `dataset.yaml` says, checked and with defaults filled in."""

    images: str
    labels: str
    image_ending: str | None
    label_ending: str
    values: str
    codes: dict[str, list]
    unlabelled: list | str
    colours: dict[str, Colour]
    palette: dict[str, Colour]
    sequence: str | int | None
    aligned: bool
    splits: dict


def folder_source(*, path: Path, **_) -> Source:
    """Images and label images of the user's own, as `dataset.yaml` in their folder describes them.

    Raises
    ------
    InputError : there is no such file, or it is no YAML
    BadData : everything that is wrong in it
    """
    file = path / DESCRIPTION
    if not file.is_file():
        raise InputError(
            f"{file}: no such file. It describes your data; a smallest:\n{MINIMAL_DESCRIPTION}"
        )
    about = describe(path, read_yaml(file))
    items = find_items(path, about.images, about.labels, about.image_ending, about.label_ending)
    items = [replace(x, sequence=_sequence(about, x, i)) for i, x in enumerate(items)]
    unknown = [item for item in items if not item.sequence]
    if unknown:
        what = f"does not match {len(unknown)} of {len(items)} names, such as {unknown[0].name}"
        finding = Finding(f"{DESCRIPTION}, sequence", what, "a video for every image", "correct it")
        raise BadData(path, [finding])
    if not items:
        expected = f"*{about.image_ending}" if about.image_ending else "image"
        raise InputError(
            f"{path / about.images}: holds no {expected}. Put the images there, or correct images: "
            f"or image_ending: in {DESCRIPTION}."
        )
    splits, findings, notes = split(path, items, about.splits, about.sequence is not None)
    used = {item.name for part in splits.values() for item in part}
    unpaired = check_pairs(path, [item for item in items if item.name in used], user_defined=True)
    if not any(finding.file.endswith("/") for finding in unpaired):  # else all would be orphans
        unpaired += check_orphans(path, items, about.labels, about.label_ending)
    findings += unpaired
    if len(used) < len(items):
        notes.append(f"{len(items) - len(used)} of {len(items)} images are in no split.")
    if len(about.palette) == 1:
        notes.append(
            "There is one class, so no network can be wrong. Name what is not of interest too, "
            "such as other."
        )
    remedy = f"correct the file, or list the value under classes: or unlabelled: in {DESCRIPTION}"
    if about.values == "ids":
        # Only colours that the user gave: a usual colour may stand for anything in another palette.
        colour_counts = Counter(about.colours.values())
        by_colour = {c: name for name, c in about.colours.items() if colour_counts[c] == 1}
        coding = ids_coding(list(about.codes.values()), about.unlabelled, remedy, by_colour)
    else:
        coding = colours_coding(list(about.codes.values()), about.unlabelled, remedy)
    return Source(
        path, about.palette, splits, coding, None, tuple(findings), tuple(notes), True,
        about.aligned,
    )  # fmt: skip


# What dataset.yaml says --------------------------------------------------------------------------


def _short(value) -> str:
    """Return a value as YAML gave it, not all of a long one: aliases may make it endless."""
    try:
        return reprlib.repr(value)
    except ValueError:
        return "a number of thousands of digits"


def _key_text(key) -> str:
    return key if isinstance(key, str) else _short(key)


def describe(root: Path, settings: dict) -> Description:
    """Check the content of `dataset.yaml`.

    Raises
    ------
    BadData : everything that is wrong in it
    """
    findings = []

    def add_finding(key: str, finding: str, allowed: str | None = None, remedy: str = "correct it"):
        allowed = allowed or KEYS.get(key.split(":")[0], "")
        findings.append(Finding(f"{DESCRIPTION}, {key}", finding, allowed, remedy))

    for key in settings:
        if key not in KEYS:
            hint = nearest(_key_text(key), KEYS).split(" Known")[0].strip()
            add_finding(_key_text(key), "no such key", ", ".join(KEYS), hint or "take it out")
    for key in ("images", "labels", "classes", "splits"):
        if key not in settings:
            add_finding(key, "is missing", remedy="add it")
    for key in ("images", "labels"):
        value = settings.get(key, "")
        if not isinstance(value, str) or not value.isprintable():
            add_finding(key, f"is {_short(value)}")
        elif key in settings and not _inside(value):
            add_finding(key, f"{value} leaves the folder", "a folder below dataset.yaml's",
                        "move the files there, or link them")  # fmt: skip
        elif key in settings and not os.path.isdir(root / value):
            add_finding(key, f"no folder {value}", remedy="correct the name, or make the folder")
    folders = [settings[key] for key in ("images", "labels") if isinstance(settings.get(key), str)]
    if len(folders) > len(set(folders)) and "image_ending" not in settings:
        add_finding(
            "labels",
            "is the folder of the images",
            "a folder of its own, or other endings",
            "name the folder of the label images",
        )
    for key in ("image_ending", "label_ending"):
        value = settings.get(key, ".png")
        if not _is_ending(value):
            add_finding(key, f"is {_short(value)}")
    values = settings.get("values", "ids")
    if values not in ("ids", "colours"):
        add_finding("values", f"is {_short(values)}", remedy="say what the label images hold")
        values = None
    classes = settings.get("classes", {})
    if "values" not in settings and _look_like_colours(classes):
        add_finding(
            "classes",
            "lists three numbers for each class",
            "values: said to be ids or colours",
            "add values: colours, or values: ids if a class really has three",
        )
        classes = list(classes)
    codes = _codes(classes, values, add_finding) if "classes" in settings else {}
    unlabelled = settings.get("unlabelled", [255] if values == "ids" else [])
    if unlabelled != "rest":
        unlabelled = _values(unlabelled, values)
        if unlabelled is None:
            add_finding("unlabelled", f"is {_short(settings['unlabelled'])}",
                        _value_form(values) + ", or rest")  # fmt: skip
            unlabelled = []
    owner: dict = {}
    for name, class_values in [
        *codes.items(),
        ("unlabelled", unlabelled if unlabelled != "rest" else []),
    ]:
        for value in class_values:
            if owner.setdefault(value, name) != name:
                if "unlabelled" not in settings and name == "unlabelled":
                    unlabelled = [v for v in unlabelled if v != value]  # only the default's 255
                    continue
                add_finding(f"classes: {name}" if name != "unlabelled" else name,
                            f"{_format_value(value)} is also {owner[value]}", "each value once",
                            "take it out of one of the two")  # fmt: skip
    colours = _colours(settings.get("colours", {}), codes, add_finding)
    sequence = settings.get("sequence")
    if sequence is not None and not _is_sequence(sequence):
        add_finding("sequence", f"is {_short(sequence)}",
                    remedy="for video frames named DRIVE_0001.png: '(.+)_'")  # fmt: skip
    aligned = settings.get("aligned", False)
    if type(aligned) is not bool:
        add_finding("aligned", f"is {_short(aligned)}")
    splits = settings.get("splits", {})
    _check_splits(splits, add_finding)
    if findings:
        raise BadData(root, findings)
    return Description(
        settings["images"], settings["labels"], settings.get("image_ending"),
        settings.get("label_ending", ".png"), values, codes, unlabelled, colours,
        _palette(colours, codes, values), sequence, aligned, splits,
    )  # fmt: skip


def _inside(name: str) -> bool:
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts


def _is_ending(value) -> bool:
    return isinstance(value, str) and value.isprintable() and "." in value and "/" not in value


def _codes(classes, values: str | None, add_finding: Callable) -> dict[str, list]:
    """Return the label values of each class."""
    if isinstance(classes, list):
        if values == "colours":
            add_finding("classes", "gives no colours, though values: colours",
                        "'name: colour' lines", "write 'road: [128, 64, 128]'")  # fmt: skip
        names, class_values = classes, [[i] for i in range(len(classes))]
    elif isinstance(classes, dict):
        names, class_values = list(classes), list(classes.values())
    else:
        add_finding("classes", f"is {_short(classes)}")
        return {}
    codes, seen = {}, set()
    for name, value in zip(names, class_values, strict=True):
        if not isinstance(name, str):
            add_finding("classes", f"{_short(name)} is no name", "text", "put it into quotes")
            continue
        if not _is_name(name):
            add_finding("classes", f"{_short(name)} is no name", NAME, "write it otherwise")
            continue
        if normalised_name(name) in seen:
            add_finding(f"classes: {name}", "is named twice", "each class once", "rename one")
        seen.add(normalised_name(name))
        codes[name] = _values(value, values) if isinstance(classes, dict) else value
        if codes[name] is None or (values and not codes[name]):
            hint = "quote colours that begin with #: '#804080'" if value is None else "correct it"
            add_finding(f"classes: {name}", f"is {_short(value)}", _value_form(values), hint)
            codes[name] = []
    if not 1 <= len(codes) <= 200:
        add_finding("classes", f"{len(codes)} given", "1 to 200 classes",
                    "name what is not of interest too, such as other")  # fmt: skip
    return codes


def _is_name(name: str) -> bool:
    number = True
    try:
        float(name)
    except ValueError:
        number = False
    return (
        0 < len(name) <= MAX_NAME_LENGTH
        and name.isprintable()
        and name[0].isalnum()  # formulas in spreadsheets begin otherwise, legends leave _ out
        and name[-1] != " "
        and not number
        and name.casefold() not in NULL_NAMES
    )


def _look_like_colours(classes) -> bool:
    values = list(classes.values()) if isinstance(classes, dict) else []
    return len(values) > 1 and all(isinstance(v, list) and _colour(v) for v in values)


def _values(value, values: str | None) -> list | None:
    """Return the label values that `value` lists, or None if it is no such list."""
    if values is None:
        return []
    if values == "ids":
        value = value if isinstance(value, list) else [value]
        return value if all(type(v) is int and 0 <= v <= 65535 for v in value) else None
    if isinstance(value, str) or (isinstance(value, list) and value and type(value[0]) is int):
        value = [value]
    if not isinstance(value, list):
        return None
    colours = [_colour(v) for v in value]
    return None if None in colours else colours


def _value_form(values: str | None) -> str:
    if values == "colours":
        return "a colour as [red, green, blue] or '#rrggbb', or a list of them"
    return "a whole number from 0 to 65535, or a list of them"


def _colour(value) -> Colour | None:
    if isinstance(value, str) and re.fullmatch(r"#[0-9a-fA-F]{6}", value):
        return tuple(bytes.fromhex(value[1:]))
    if isinstance(value, list) and len(value) == 3:
        return tuple(value) if all(type(v) is int and 0 <= v <= 255 for v in value) else None
    return None


def _format_value(value: int | Colour) -> str:
    return f"colour {list(value)}" if isinstance(value, tuple) else f"id {value}"


def _colours(given, codes: dict[str, list], add_finding: Callable) -> dict[str, Colour]:
    """Return the colours that the report is to draw classes in."""
    if not isinstance(given, dict):
        add_finding("colours", f"is {_short(given)}")
        return {}
    for name, value in given.items():
        if name not in codes:
            add_finding(
                f"colours: {_key_text(name)}", "no such class", ", ".join(codes), "correct the name"
            )
        elif _colour(value) is None:
            allowed = _value_form("colours").split(", or")[0]
            add_finding(f"colours: {name}", f"is {_short(value)}", allowed)
    return {name: _colour(value) for name, value in given.items()}


def _palette(given: dict[str, Colour], codes: dict[str, list], values: str) -> dict[str, Colour]:
    """Return a colour for each class: the one given, its label's, a usual one, or a new one."""
    palette = {}
    for index, (name, class_values) in enumerate(codes.items()):
        usual_colour = CITYSCAPES.get(name.lower()) or CAMVID.get(name.lower())
        hue = colorsys.hsv_to_rgb(index / len(codes), 0.75, (0.9, 0.6)[index % 2])
        new_colour = tuple(round(255 * channel) for channel in hue)
        colour = class_values[0] if values == "colours" else usual_colour or new_colour
        palette[name] = given.get(name) or (new_colour if colour in palette.values() else colour)
    return palette


def _is_sequence(value) -> bool:
    if type(value) is int:
        return value >= 1
    if not isinstance(value, str):
        return False
    try:
        return value == "folder" or re.compile(value).groups == 1
    except (re.error, OverflowError, RecursionError):
        return False


def _check_splits(splits, add_finding: Callable) -> None:
    if not isinstance(splits, dict):
        add_finding("splits", f"is {_short(splits)}")
        return
    for name, part in splits.items():
        if name not in SPLITS:
            add_finding(
                f"splits: {_key_text(name)}", "no such split", ", ".join(SPLITS), "correct the name"
            )
        elif isinstance(part, bool) or not isinstance(part, int | float | str | list):
            add_finding(f"splits: {name}", f"is {_short(part)}",
                        "a fraction, a folder, a .txt file, a list of names, or rest")  # fmt: skip
        elif isinstance(part, str) and re.fullmatch(r"\d{1,3} *%", part):
            add_finding(
                f"splits: {name}",
                f"is {part!r}",
                "a fraction between 0 and 1",
                f"write {int(part.rstrip(' %')) / 100:g} for {part.rstrip(' %')} %",
            )
        elif isinstance(part, int | float) and not 0 < part < 1:
            add_finding(
                f"splits: {name}", f"is {_short(part)}", "a fraction between 0 and 1", QUOTES
            )
        for entry in part if isinstance(part, list) else []:
            if not isinstance(entry, str):
                add_finding(
                    f"splits: {name}",
                    f"a name was read as the number {_short(entry)}",
                    "names",
                    "put it into quotes, such as '0016E5'",
                )
    for name, hint in (("val", ""), ("test", f"; if there are none, write test: {NO_TEST}")):
        if name not in splits:
            add_finding(
                f"splits: {name}",
                "is missing",
                "a fraction, a folder, a .txt file, or a list",
                f"add it: choosing and reporting need images of their own{hint}",
            )
    parts = list(splits.values())
    total = sum(part for part in parts if isinstance(part, int | float) and 0 < part < 1)
    if total > 1 + 1e-9 or (total > 1 - 1e-9 and "train" not in splits):
        add_finding(
            "splits",
            f"the fractions add up to {total:g}",
            "up to 1, and less if train gets the rest",
            "lower them",
        )
    if parts.count("rest") + ("train" not in splits) > 1:
        add_finding(
            "splits",
            "more than one split gets the rest",
            "rest once (train, if not named)",
            "say what the others get",
        )


# Splitting ---------------------------------------------------------------------------------------


def _sequence(about: Description, item: Item, index: int) -> str:
    if type(about.sequence) is int:
        return f"stretch {index // about.sequence + 1}"
    if about.sequence == "folder":
        return PurePosixPath(item.name).parent.as_posix()
    if about.sequence is None:
        return item.name
    match = re.search(about.sequence, item.name)
    return match[1] or "" if match else ""


def split(
    root: Path, items: list[Item], requested: dict, whole_sequences: bool
) -> tuple[dict[str, list[Item]], list[Finding], list[str]]:
    """Put each item into the split that `requested` says.

    Lists, files and folders are served first. Fractions, of all images that are left, then take
    sequences in the order of a digest of their names (where `whole_sequences`, else single images):
    nothing random, and the same on every machine. They cut no sequence, and pass over one that
    would overshoot by more than half of it.

    Returns
    -------
    The splits; findings (names that do not exist, images in two splits, empty splits); notes
    """
    findings, notes = [], []
    requested = {"train": "rest", **requested}
    if requested["test"] == NO_TEST:
        del requested["test"]
        notes.append(
            "There are no test images. The report scores networks on val, on which they are chosen "
            "too, so that scores flatter."
        )
    split_of: dict[str, str] = {}
    for part, value in requested.items():
        if isinstance(value, float | int) or value == "rest":
            continue
        for item in _named_items(root, items, part, value, findings):
            if split_of.setdefault(item.name, part) != part:
                findings.append(
                    Finding(
                        item.name,
                        f"is in {split_of[item.name]} and in {part}",
                        "each image in one split",
                        f"take it out of one under splits: in {DESCRIPTION}",
                    )
                )
    remaining = [item for item in items if item.name not in split_of]
    groups: dict[str, list[Item]] = {}
    for item in remaining:
        groups.setdefault(item.sequence if whole_sequences else item.name, []).append(item)
    order = sorted(groups, key=lambda name: hashlib.sha256(name.encode()).digest())
    for part in ("test", "val", "train"):
        value, count = requested.get(part), 0
        if not isinstance(value, float | int):
            continue
        chosen_groups = []
        for name in order:
            if count + len(groups[name]) / 2 <= value * len(remaining):
                chosen_groups.append(name)
                count += len(groups[name])
        chosen_groups = chosen_groups or sorted(order, key=lambda name: len(groups[name]))[:1]
        order = [name for name in order if name not in set(chosen_groups)]
        split_of |= {item.name: part for name in chosen_groups for item in groups[name]}
        share = sum(len(groups[name]) for name in chosen_groups) / max(1, len(remaining))
        if abs(share - value) > 0.05:
            reason = "whole sequences only" if whole_sequences else f"there are {len(remaining)}"
            notes.append(f"{part} has {share:.2f} of the images, asked {value}: {reason}.")
    rest = next((part for part, value in requested.items() if value == "rest"), None)
    splits = {part: [] for part in SPLITS if part in requested}
    for item in items:
        part = split_of.get(item.name, rest)
        if part:
            splits[part].append(item)
    for part, chosen in splits.items():
        where = f"{DESCRIPTION}, splits: {part}"
        if not chosen and where not in {finding.file for finding in findings}:
            shares_sequences = whole_sequences and any(
                isinstance(value, float) for value in requested.values()
            )
            sequence_hint = (
                f": whole sequences are shared out, and there are {len(groups)}" * shares_sequences
            )
            remedy = "give it images: a list, a folder, or a larger fraction"
            if shares_sequences:
                remedy = (
                    "list images or videos; or let sequence: be a number n, for stretches of n "
                    "images"
                )
            findings.append(
                Finding(where, f"has no image{sequence_hint}", "one image or more", remedy)
            )
    parts: dict[str, list[str]] = {}
    for part, chosen in splits.items():
        for sequence in dict.fromkeys(item.sequence for item in chosen):
            parts.setdefault(sequence, []).append(part)
    divided = [
        f"{name} ({', '.join(sequence_splits)})"
        for name, sequence_splits in parts.items()
        if len(sequence_splits) > 1
    ]
    if divided:
        more = f" and {len(divided) - 5} others" if len(divided) > 5 else ""
        notes.append(f"Sequences in more than one split: {', '.join(divided[:5])}{more}.")
    if any(isinstance(value, float) for value in requested.values()) and not whole_sequences:
        notes.append(
            "Single images were split by fraction. If they are frames of a video, neighbours are "
            f"in different splits and scores flatter: set sequence: in {DESCRIPTION}."
        )
    return splits, findings, notes


def _named_items(root: Path, items: list[Item], part: str, value, findings: list) -> list[Item]:
    """Return the items that a list, a list's file or a folder names; unknown names are findings."""
    where = f"{DESCRIPTION}, splits: {part}"
    if isinstance(value, str) and value.endswith(".txt"):
        where = value
        if not _inside(value) or not os.path.isfile(root / value):
            findings.append(
                Finding(f"{DESCRIPTION}, splits: {part}", f"no file {value}",
                        "a text file with one image per line", "correct the name")
            )  # fmt: skip
            return []
        value = read_list(root / value)
    elif isinstance(value, str):
        folder = composed(value.rstrip("/") + "/")
        chosen_items = [item for item in items if composed(item.name).startswith(folder)]
        if not chosen_items:
            findings.append(
                Finding(where, f"no image lies in a folder {value}",
                        "a folder below images:, a .txt file, a list, or a fraction",
                        "correct the name")
            )  # fmt: skip
        return chosen_items
    known: dict[str, list[Item]] = {}
    items_by_path_end: dict[str, list[Item]] = {}
    for item in items:
        file = item.name + item.image.name[len(PurePosixPath(item.name).name) :]
        for name in {item.name, file, item.sequence}:
            for form in {name, composed(name)}:
                known.setdefault(form, []).append(item)
        for name in {item.name, file, composed(item.name), composed(file)}:
            parts = name.split("/")
            for first in range(len(parts)):
                items_by_path_end.setdefault("/".join(parts[first:]), []).append(item)
    folders = {composed(folder) for item in items for folder in item.name.split("/")[:-1]}
    chosen_items = {}
    for entry in value:
        # the whole line, or the first word of a list of pairs, as CamVid has them
        first_word = entry.split()[:1]
        for name in (entry, composed(entry), *first_word, *map(composed, first_word)):
            matches = known.get(name) or _match_path_end(name, items_by_path_end, folders)
            if matches:
                break
        if not matches or (len(matches) > 1 and name not in known):
            what = f"names {len(matches)} images" if matches else "is no image and no sequence"
            hint = nearest(entry, known).split(" Known")[0].strip() if len(findings) < 20 else ""
            if not hint and not entry.isascii() and where.endswith(".txt"):
                hint = "save the list as UTF-8, if it is in another encoding"
            findings.append(
                Finding(where, f"{entry} {what}",
                        "names of images, with or without ending, or of sequences",
                        "write the folder before it" if matches else
                        hint or "correct the name, or take it out")
            )  # fmt: skip
            continue
        chosen_items |= {item.name: item for item in matches}
    return list(chosen_items.values())


def _match_path_end(
    entry: str, items_by_path_end: dict[str, list[Item]], folders: set[str]
) -> list[Item]:
    """Return the items that the end of a path names: it may be from somebody else's machine."""
    if len(entry) > MAX_PATH_LENGTH:
        return []
    parts = entry.replace("\\", "/").strip("/").split("/")
    for first in range(len(parts)):
        if matches := items_by_path_end.get("/".join(parts[first:])):
            # west/77 is not north/77, if there is a folder west here too
            return [] if first and composed(parts[first - 1]) in folders else matches
    return []
