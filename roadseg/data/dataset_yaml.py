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
from roadseg.data.layout import PICTURES, POLYGONS, Colour, is_file_pattern, normalised_name
from roadseg.data.scenes import CAMVID, CITYSCAPES
from roadseg.errors import InputError, nearest

DESCRIPTION = "dataset.yaml"
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
    try:
        return value in (None, "folder") or re.compile(value).groups == 1
    except (TypeError, re.error, OverflowError, RecursionError):
        return False


PATH = (
    "a folder below that of dataset.yaml, or a pattern of such paths, in which each * is part of a "
    "name"
)
Inside = Annotated[Any, validated(is_inside)]


class Settings(Section):
    """The keys of `dataset.yaml`."""

    images: Inside = Field(None, description=PATH)
    labels: Inside = Field(None, description=PATH)
    pairs: Inside = Field(None, description="a file with an image and its label file on each line")
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
    colours: dict = Field({}, description="'class: colour' lines")
    sequence: Annotated[Any, validated(_is_sequence)] = Field(
        None,
        description="folder, a whole number, or a regular expression with one group, such as "
        "'(.+)_' for video frames named DRIVE_0001.png",
    )
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
    splits: dict


def read_description(root: Path) -> Description:
    """Read and check the `dataset.yaml` of a folder.

    Raises
    ------
    InputError : there is no such file, or what is wrong in it, each problem with its line, in up to
        three rounds: no YAML; unknown, missing and wrong settings; what contradicts something else
    """
    file = root / DESCRIPTION
    if not file.is_file():
        raise InputError(
            f"{file}: no such file. It describes your data; the smallest is:\n{MINIMAL_DESCRIPTION}"
        )
    content, problems = read_lines(file, str(file))
    problems.raise_any()
    missing = [(key,) for key in ("images", "labels") if not {key, "pairs"} & content.keys()]
    check_section(Settings, content, problems, required=missing)
    problems.raise_any()
    settings = Settings.model_construct(**content)
    kind = settings.values
    _check_places(root, settings, problems)
    if "values" not in content and _look_like_colours(settings.classes):
        problems.add(
            "has three numbers for each class; add values: colours, or values: ids if these are "
            "ids.", "classes",
        )  # fmt: skip
        problems.raise_any()
    codes = _codes(settings, problems)
    unlabelled = _unlabelled(settings, codes, problems)
    _check_owners(codes, unlabelled, problems)
    if settings.threshold:
        _check_threshold(kind, codes, unlabelled, problems)
    rest = next((i for i, values in enumerate(codes.values()) if REST in values), None)
    codes = {name: [v for v in values if v != REST] for name, values in codes.items()}
    if kind == "masks" and not any(codes.values()) and not problems:
        problems.add(f"no class has masks; give {VALUE_FORMS[kind]}.", "classes")
    colours = _colours(settings.colours, codes, problems)
    check_fractions(content["splits"], problems, "splits")
    problems.raise_any()
    ending = settings.label_ending or {"labelme": ".json", "coco": ""}.get(kind, ".png")
    return Description(
        settings.images or ".", settings.labels or ".", settings.pairs, settings.image_ending,
        "" if kind == "coco" else f"*{ending}", kind, codes, rest, unlabelled, settings.threshold,
        colours, _palette(colours, codes, kind, rest), settings.sequence, content["splits"],
    )  # fmt: skip


def _check_places(root: Path, settings: Settings, problems: Problems) -> None:
    """Note folders and files that are not there, and keys that do not go together."""
    kind, images, labels = settings.values, settings.images or "", settings.labels or ""
    for key, is_file in (("images", False), ("labels", kind == "coco"), ("pairs", True)):
        path = getattr(settings, key)
        if path is None or "*" in path:
            continue
        if not (os.path.isfile if is_file else os.path.isdir)(root / path):
            what = "file" if is_file else "folder"
            problems.add(f"no {what} {path}; correct the name, or make the {what}.", key)
    if settings.pairs is not None:
        if kind in ("masks", "coco"):
            problems.add(f"not with values: {kind}; take one of the two out.", "pairs")
        for key, path in (("images", images), ("labels", labels)):
            if "*" in path:
                problems.add(
                    "a pattern, though pairs: lists the files; give the folder that its lines "
                    "begin in, or take it out.", key,
                )  # fmt: skip
        for key in ("image_ending", "label_ending"):
            if getattr(settings, key) is not None:
                problems.add("not beside pairs:, which names whole files; take it out.", key)
        return
    if images == labels and kind in PICTURES and settings.image_ending is None:
        problems.add(
            "is the folder of the images, too; name that of the label images, let image_ending and "
            "label_ending tell them apart, or say values: labelme, if these are its JSON files.",
            "labels",
        )
    if is_file_pattern(labels) and kind == "masks":
        problems.add(
            "a pattern of files; give the folders of the masks, whose files are named under "
            "classes.", "labels",
        )  # fmt: skip
    elif is_file_pattern(labels) and settings.label_ending is not None:
        problems.add("not beside a pattern that has the ending; take it out.", "label_ending")
    elif "*" in labels:
        expected = images.count("*") + (not is_file_pattern(images))
        expected -= kind == "coco" or not is_file_pattern(labels)
        if labels.count("*") != expected:
            problems.add(
                f"{labels} has {labels.count('*')} * where {expected} are needed: one for each in "
                "images:, and in a pattern of files one for the names in a folder.", "labels",
            )  # fmt: skip


def _codes(settings: Settings, problems: Problems) -> dict[str, list]:
    """Return what means each class."""
    classes, kind = settings.classes, settings.values
    is_list = isinstance(classes, list)
    if is_list and kind in ("colours", "masks"):
        form = VALUE_FORMS[kind]
        problems.add(f"names alone; with values: {kind} each class has {form}.", "classes")
    if not 1 <= len(classes) <= 200:
        problems.add(
            f"{len(classes)} given; give 1 to 200, among them what is not of interest, such as "
            "other.", "classes",
        )  # fmt: skip
    codes, names = {}, set()
    for i, name in enumerate(classes):
        at = ("classes", i if is_list else name)
        problem = _name_problem(name)
        if not problem and normalised_name(name) in names:
            problem = f"{name!r} is named twice; rename one."
        if problem:
            problems.add(problem, "classes", at=at)
            continue
        names.add(normalised_name(name))
        if not is_list:
            codes[name] = _values(classes[name], kind)
            if not codes[name]:
                is_comment = classes[name] is None and kind == "colours"
                remedy = "Quote colours that begin with #: '#804080'." * is_comment
                form = f"{VALUE_FORMS[kind]}, or rest"
                add_not_allowed(problems, classes[name], form, *at, remedy=remedy)
                codes[name] = []
        elif kind in POLYGONS:
            codes[name] = [name]
        else:
            codes[name] = [255 if i == 1 and settings.threshold else i]
    return codes


def _unlabelled(settings: Settings, codes: dict[str, list], problems: Problems) -> list | str:
    """Return the values that are ignored; by default of ids 255, unless a class has it."""
    kind, values = settings.values, settings.unlabelled
    if "unlabelled" not in settings.model_fields_set:
        used = {value for class_values in codes.values() for value in class_values}
        is_free = kind == "ids" and not settings.threshold and 255 not in used
        return [255] if is_free else []
    if values == REST:
        return REST
    listed = _values(values, kind)
    if listed is None or REST in listed:
        add_not_allowed(problems, values, f"{VALUE_FORMS[kind]}, or rest", "unlabelled")
        return []
    return listed


def _name_problem(name) -> str:
    """Return why a value cannot be the name of a class, or ''."""
    if not isinstance(name, str):
        return f"{name!r} is not a name; put it into quotes."
    is_number = True
    try:
        float(name)
    except ValueError:
        is_number = False
    is_name = (
        0 < len(name) <= MAX_NAME_LENGTH
        and name.isprintable()
        and name[0].isalnum()  # formulas in spreadsheets begin otherwise, legends leave _ out
        and name[-1] != " "
        and not is_number
        and name.casefold() not in NULL_NAMES
    )
    return "" if is_name else f"{name!r} is not a name; give {NAME}."


def _look_like_colours(classes) -> bool:
    values = list(classes.values()) if isinstance(classes, dict) else []
    return len(values) > 1 and all(isinstance(v, list) and _colour(v) for v in values)


def _values(value, kind: str) -> list | None:
    """Return the values that `value` lists, of the kind of VALUE_FORMS; None if it is no such list.

    Any of them may be 'rest'.
    """
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


def _check_owners(codes: dict[str, list], unlabelled: list | str, problems: Problems) -> None:
    """Note values that mean two things."""
    owners: dict = {}
    ignored = [REST] if unlabelled == REST else unlabelled
    for path, values in [*((("classes", name), codes[name]) for name in codes),
                         (("unlabelled",), ignored)]:  # fmt: skip
        for value in values:
            owner = owners.setdefault(value, path)
            if owner != path:
                shown = list(value) if isinstance(value, tuple) else value
                problems.add(f"{shown} means {owner[-1]}, too; take it out of one.", *path)


def _check_threshold(
    kind: str, codes: dict[str, list], unlabelled: list | str, problems: Problems
) -> None:
    """Note what does not go with a threshold."""
    if kind not in ("ids", "masks"):
        problems.add(f"not with values: {kind}; it is for grey masks.", "threshold")
    values = {value for class_values in codes.values() for value in class_values}
    values |= {unlabelled} if unlabelled == REST else set(unlabelled)
    if kind == "ids" and not (values <= {0, 255, REST} and len(values) == 2):
        problems.add(
            "with a threshold there are two values, 0 below it and 255 from it on; write, for "
            "instance, {other: 0, road: 255}, or [other, road].", "classes",
        )  # fmt: skip


def _colours(given: dict, codes: dict[str, list], problems: Problems) -> dict[str, Colour]:
    """Return the colours that the report is to draw classes in."""
    for name, value in given.items():
        if name not in codes:
            problems.add(f"no such class.{nearest(name, codes)}", "colours", name)
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
