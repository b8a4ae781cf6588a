"""What the user says about a folder in `dataset.yaml`, checked."""

import colorsys
import os
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import Field

from roadseg.config.schema import Section, add_not_allowed, check_section, validated
from roadseg.config.splits import REST, Splits, check_fractions
from roadseg.config.yaml import Problems, read_lines
from roadseg.data.layout import Colour, is_file_pattern, normalised_name
from roadseg.data.scenes import CAMVID, CITYSCAPES
from roadseg.errors import InputError, nearest

DESCRIPTION = "dataset.yaml"
PICTURES = ("ids", "colours")  # one picture of labels for each image
POLYGONS = ("labelme", "coco")
MAX_NAME_LENGTH = 60  # characters of a class: figures and tables have to hold it
NAME = (
    f"up to {MAX_NAME_LENGTH} characters that can be printed, the first a letter or digit, the "
    "last not a space; not a number, and not a word for nothing, such as none or NA"
)
NULL_NAMES = {"na", "n/a", "null", "none", "true", "false"}  # to readers of CSV tables, no names
MINIMAL_DESCRIPTION = """\
  images: images             # folder of the images
  labels: labels             # folder of the label images, of the same names
  classes: [road, other]     # label value 0 is road, 1 is other
  splits: {val: 0.2, test: 0.2}
data/README.md explains every key and has examples of other layouts: a folder for each split,
a mask for each class, labelme, COCO."""
GREY = (110, 110, 110)
ONE_COLOUR = "a colour as [red, green, blue] or '#rrggbb'"
# What the values of classes are, by what label files hold.
VALUE_FORMS = {
    "ids": "a whole number from 0 to 65535, or a list of them",
    "colours": f"{ONE_COLOUR}, or a list of them",
    "masks": "the pattern of its masks' names, such as '*_road.png' or 'road/*.png'",
    "labelme": "a label as text, or a list of them",
    "coco": "the name of a category as text, or a list of them",
}


def is_inside(path) -> bool:
    """Return whether a value is text that can name something in the folder of `dataset.yaml`."""
    if not isinstance(path, str) or not path.isprintable() or "**" in path:
        return False
    return not PurePosixPath(path).is_absolute() and ".." not in PurePosixPath(path).parts


def _is_ending(value: str) -> bool:
    return value.isprintable() and "." in value and "/" not in value and "*" not in value


def _is_sequence(value) -> bool:
    if type(value) is int:
        return value >= 1
    if not isinstance(value, str):
        return False
    try:
        return value == "folder" or re.compile(value).groups == 1
    except (re.error, OverflowError, RecursionError):
        return False


PATH = (
    "a folder below that of dataset.yaml, or a pattern of such paths, in which each * is part of a "
    "name"
)


class _Dataset(Section):
    images: Annotated[Any, validated(is_inside)] = Field(None, description=PATH)
    labels: Annotated[Any, validated(is_inside)] = Field(None, description=PATH)
    pairs: Annotated[Any, validated(is_inside)] = Field(
        None, description="a file with an image and its label file on each line"
    )
    image_ending: Annotated[str, validated(_is_ending)] = Field(
        None, description="text, such as _leftImg8bit.png"
    )
    label_ending: Annotated[str, validated(_is_ending)] = Field(
        None, description="text, such as _L.png"
    )
    values: Literal[tuple(VALUE_FORMS)] = Field(
        "ids", description=" or ".join(VALUE_FORMS) + ", which says what label files hold"
    )
    classes: Annotated[Any, validated(lambda value: isinstance(value, list | dict))] = Field(
        description="a list of names, or 'name: value' lines"
    )
    unlabelled: Any = Field(None, description="the values that are ignored, or rest")
    threshold: int = Field(None, ge=1, le=255, description="a whole number from 1 to 255")
    colours: dict = Field(None, description="'class: colour' lines")
    sequence: Annotated[Any, validated(lambda value: value is None or _is_sequence(value))] = Field(
        None,
        description="folder, a whole number, or a regular expression with one group, such as "
        "'(.+)_' for video frames named DRIVE_0001.png",
    )
    aligned: bool = Field(False, description="true or false")
    splits: Splits = Field(description="'train:', 'val:' and 'test:' lines")


@dataclass(frozen=True)
class Description:
    """What `dataset.yaml` says, checked and with defaults filled in.

    Attributes
    ----------
    images, labels : folders or patterns, see `layout.find_items`
    label_file : how label files are named: * is the image's name; '' where `labels` names the file
    codes : class -> what means it: ids, colours, patterns of mask files, or labels of polygons
    rest : the number of the class that all else means, if there is one
    unlabelled : what is ignored, as in `codes`; or 'rest', for all else
    colours : those that the user gave; palette : one for each class
    """

    images: str
    labels: str
    pairs: str | None
    image_ending: str | None
    label_file: str
    values: str
    codes: dict[str, list]
    rest: int | None
    unlabelled: list | str
    threshold: int | None
    colours: dict[str, Colour]
    palette: dict[str, Colour]
    sequence: str | int | None
    aligned: bool
    splits: dict


def read_description(root: Path) -> Description:
    """Read and check the `dataset.yaml` of a folder.

    Raises
    ------
    InputError : there is no such file, or all that is wrong in it, each with its line
    """
    file = root / DESCRIPTION
    if not file.is_file():
        raise InputError(
            f"{file}: no such file. It describes your data; a smallest:\n{MINIMAL_DESCRIPTION}"
        )
    content, problems = read_lines(file, str(file))
    places = ("images", "labels")
    missing = [(key,) for key in places if key not in content and "pairs" not in content]
    check_section(_Dataset, content, problems, required=missing)
    good = {key: value for key, value in content.items() if not problems.has_problem_at(key)}
    images, labels = (good.get(key) or "." for key in places)
    kind = None if problems.has_problem_at("values") else good.get("values", "ids")
    if kind:
        _check_places(root, content, good, kind, problems)
    classes = good.get("classes", {})
    if "values" not in content and _look_like_colours(classes):
        problems.add(
            "three numbers for each class; add values: colours, or values: ids if a class really "
            "has three.", "classes", at=("classes",),
        )  # fmt: skip
        kind = None
    threshold = good.get("threshold")
    codes = _codes(classes, kind, threshold, problems) if "classes" in good else {}
    unlabelled = good.get("unlabelled", [255] if kind == "ids" and not threshold else [])
    if unlabelled != REST:
        form = VALUE_FORMS.get(kind, "")
        values = _values(unlabelled, kind)
        if values is None or REST in values:
            add_not_allowed(problems, unlabelled, f"{form}, or rest", "unlabelled")
            values = []
        unlabelled = values
    _check_owners(codes, unlabelled, "unlabelled" in content, problems)
    if "unlabelled" not in content:  # only the default's 255
        used = [value for values in codes.values() for value in values]
        unlabelled = [value for value in unlabelled if value not in used]
    if threshold and kind:
        _check_threshold(kind, codes, unlabelled, problems)
    rest = next((i for i, values in enumerate(codes.values()) if REST in values), None)
    codes = {name: [v for v in values if v != REST] for name, values in codes.items()}
    if kind == "masks" and not any(codes.values()) and not problems.has_problem_at("classes"):
        problems.add(f"no class has masks; give {VALUE_FORMS[kind]}.", "classes", at=("classes",))
    colours = _colours(good.get("colours") or {}, codes, problems)
    if "splits" in good:
        check_fractions(good["splits"], problems, "splits")
    problems.raise_any()
    default = {"labelme": ".json", "coco": ""}.get(kind, ".png")
    label_file = f"*{good.get('label_ending', default)}" if kind != "coco" else ""
    return Description(
        images, labels, good.get("pairs"), good.get("image_ending"), label_file, kind, codes, rest,
        unlabelled, threshold, colours, _palette(colours, codes, kind, rest), good.get("sequence"),
        good.get("aligned", False), good["splits"],
    )  # fmt: skip


def _check_places(root: Path, content: dict, good: dict, kind: str, problems: Problems) -> None:
    """Note folders and files that are not there, and keys that do not go together."""
    for key in ("images", "labels", "pairs"):
        path = good.get(key)
        if path is None or "*" in path:
            continue
        is_file = key == "pairs" or (key == "labels" and kind == "coco")
        if not (os.path.isfile if is_file else os.path.isdir)(root / path):
            what = "file" if is_file else "folder"
            remedy = f"correct the name, or make the {what}"
            problems.add(f"no {what} {path}; {remedy}.", key, at=(key,))
    images, labels = good.get("images", ""), good.get("labels", "")
    if "pairs" in good:
        if kind in ("masks", "coco"):
            problems.add(f"not with values: {kind}; take one of the two out.", "pairs",
                         at=("pairs",))  # fmt: skip
        for key in ("images", "labels"):
            if "*" in good.get(key, ""):
                problems.add("a pattern, though pairs: lists the files; give the folder that its "
                             "lines begin in, or take it out.", key, at=(key,))  # fmt: skip
        for key in ("image_ending", "label_ending"):
            if key in good:
                problems.add("not beside pairs:, which names whole files; take it out.", key,
                             at=(key,))  # fmt: skip
        return
    if images == labels and kind in PICTURES and "image_ending" not in good:
        problems.add("the folder of the images; name that of the label images, let image_ending "
                     "and label_ending tell them apart, or say values: labelme, if these are its "
                     "JSON files.", "labels", at=("labels",))  # fmt: skip
    if is_file_pattern(labels) and kind == "masks":
        problems.add("a pattern of files; give the folders of the masks, whose files are named "
                     "under classes.", "labels", at=("labels",))  # fmt: skip
    elif is_file_pattern(labels) and "label_ending" in content:
        problems.add("not beside a pattern that has the ending; take it out.", "label_ending",
                     at=("label_ending",))  # fmt: skip
    elif "*" in labels and images:
        expected = images.count("*") + (not is_file_pattern(images))
        expected -= kind == "coco" or not is_file_pattern(labels)
        if labels.count("*") != expected:
            problems.add(
                f"{labels} has {labels.count('*')} * where {expected} are needed: one for each of "
                "images:, and in a pattern of files one for the names in a folder.",
                "labels", at=("labels",),
            )  # fmt: skip


def _codes(classes, kind: str | None, threshold, problems: Problems) -> dict[str, list]:
    """Return what means each class."""
    is_list = isinstance(classes, list)
    if is_list and kind in ("colours", "masks"):
        problems.add(f"names alone; with values: {kind} each class has {VALUE_FORMS[kind]}.",
                     "classes", at=("classes",))  # fmt: skip
        kind = None
    codes, seen = {}, set()
    for i, name in enumerate(classes):
        at = ("classes", i if is_list else name)
        if not isinstance(name, str):
            problems.add(f"{name!r} is not a name; put it into quotes.", "classes", at=at)
            continue
        if not _is_name(name):
            problems.add(f"{name!r} is not a name; give {NAME}.", "classes", at=at)
            continue
        if normalised_name(name) in seen:
            problems.add(f"{name!r} is named twice; rename one.", "classes", at=at)
        seen.add(normalised_name(name))
        if is_list:
            value = name if kind in POLYGONS else [0, 255][i] if threshold and i < 2 else i
        else:
            value = classes[name]
        codes[name] = _values(value, kind) or []
        if kind and not codes[name]:
            is_comment = value is None and kind == "colours"
            remedy = "Quote colours that begin with #: '#804080'." * is_comment
            form = f"{VALUE_FORMS[kind]}, or rest"
            add_not_allowed(problems, value, form, "classes", name, remedy=remedy)
    if not 1 <= len(classes) <= 200:
        problems.add(f"{len(classes)} given; give 1 to 200, among them what is not of interest, "
                     "such as other.", "classes", at=("classes",))  # fmt: skip
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


def _values(value, kind: str | None) -> list | None:
    """Return the values that `value` lists, of the kind of VALUE_FORMS; None if it is no such list.

    Any of them may be 'rest'.
    """
    if kind is None:
        return []
    if not isinstance(value, list) or (kind == "colours" and value and type(value[0]) is int):
        value = [value]
    readers = {
        "ids": lambda v: v if type(v) is int and 0 <= v <= 65535 else None,
        "colours": _colour,
        "masks": lambda v: v if is_inside(v) and v.count("*") == 1 else None,
    }
    read = readers.get(kind, lambda v: v if isinstance(v, str) and v else None)
    values = [REST if v == REST else read(v) for v in value]
    return None if None in values else values


def _colour(value) -> Colour | None:
    if isinstance(value, str) and re.fullmatch(r"#[0-9a-fA-F]{6}", value):
        return tuple(bytes.fromhex(value[1:]))
    if isinstance(value, list) and len(value) == 3:
        return tuple(value) if all(type(v) is int and 0 <= v <= 255 for v in value) else None
    return None


def _check_owners(codes: dict, unlabelled: list | str, is_given: bool, problems: Problems) -> None:
    """Note values that mean two things."""
    owner: dict = {}
    everything = dict(codes)
    if is_given:
        everything["unlabelled"] = [REST] if unlabelled == REST else unlabelled
    for name, values in everything.items():
        path = ("classes", name) if name in codes else ("unlabelled",)
        for value in values:
            if owner.setdefault(value, name) != name:
                shown = list(value) if isinstance(value, tuple) else value
                problems.add(f"{shown} is also {owner[value]}; take it out of one of the two.",
                             *path, at=path)  # fmt: skip


def _check_threshold(kind: str, codes: dict, unlabelled, problems: Problems) -> None:
    """Note what does not go with a threshold."""
    if kind not in ("ids", "masks"):
        problems.add(f"not with values: {kind}; it is for grey masks.", "threshold",
                     at=("threshold",))  # fmt: skip
    values = [v for values in codes.values() for v in values]
    values += unlabelled if isinstance(unlabelled, list) else [unlabelled]
    if kind == "ids" and not (set(values) <= {0, 255, REST} and len(set(values)) == 2):
        problems.add(
            "a mask has two values then: 0 below the threshold, 255 from it on; write, for "
            "instance, {other: 0, road: 255}, or [other, road].", "classes", at=("classes",),
        )  # fmt: skip


def _colours(given: dict, codes: dict[str, list], problems: Problems) -> dict[str, Colour]:
    """Return the colours that the report is to draw classes in."""
    for name, value in given.items():
        if name not in codes:
            problems.add(f"{name}: no such class.{nearest(name, codes)}", "colours",
                         at=("colours", name))  # fmt: skip
        elif _colour(value) is None:
            add_not_allowed(problems, value, ONE_COLOUR, "colours", name)
    return {name: _colour(value) for name, value in given.items()}


def _palette(
    given: dict[str, Colour], codes: dict[str, list], kind: str, rest: int | None
) -> dict[str, Colour]:
    """Return a colour for each class: the one given, its label's, a usual one, or a new one."""
    palette = {}
    for index, (name, values) in enumerate(codes.items()):
        usual_colour = CITYSCAPES.get(name.lower()) or CAMVID.get(name.lower())
        hue = colorsys.hsv_to_rgb(index / len(codes), 0.75, (0.9, 0.6)[index % 2])
        new_colour = tuple(round(255 * channel) for channel in hue)
        if index == rest:  # mostly background
            new_colour = GREY
        colour = values[0] if kind == "colours" and values else usual_colour or new_colour
        palette[name] = given.get(name) or (new_colour if colour in palette.values() else colour)
    return palette
