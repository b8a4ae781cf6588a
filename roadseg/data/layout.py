"""What all kinds of data set share: items, what label values mean, and matching names to files."""

import glob
import os
import re
import unicodedata
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np

from roadseg.data.findings import BadData, Finding, found
from roadseg.data.scenes import UNLABELLED
from roadseg.errors import InputError

IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".jfif", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
NOT_ALLOWED = 254  # in a coding's table: no label image may hold this value
PICTURES = ("ids", "colours")  # one picture of labels for each image
POLYGONS = ("labelme", "coco")

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Item:
    """An image and its label file; `sequence` is its video, or its own name if it has none.

    Where there is a mask for each class, `masks` has those that exist, with their class, in the
    order in which they are laid over each other; `labels` is the first of them.
    """

    name: str
    sequence: str
    image: Path | None = None
    labels: Path | None = None
    masks: tuple[tuple[int, Path], ...] = ()

    @property
    def label_files(self) -> tuple[Path, ...]:
        """All files that its labels come from."""
        return tuple(file for _, file in self.masks) or (self.labels,)

    @property
    def files(self) -> tuple[Path, ...]:
        """The image and all files that its labels come from."""
        return tuple(file for file in (self.image, *self.label_files) if file)


@dataclass(frozen=True)
class Coding:
    """What the values in label files mean.

    Attributes
    ----------
    kind : 'ids' (one number per pixel), 'colours' (RGB), 'masks' (an image for each class), or
        'labelme' and 'coco' (outlines)
    table : uint8, the class by id (65536 entries) or by 0xRRGGBB (2^24 entries); 255 where the
        value means not labelled, 254 where it is not allowed; of masks, 1 where they are
    allowed : the allowed values in words
    remedy : what to do about another value
    colours : the class by (red, green, blue), where known, to tell a palette image whose palette
        says something else than its ids
    threshold : the grey level from which a pixel is white; 0 where values are no grey levels. These
        are read whatever the number of bits and the format
    labels : of outlines, the class by label, 255 for what is ignored
    ignores_others : labels that are not among these are ignored
    rest : the class where no mask or outline is
    """

    kind: str
    table: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint8))
    allowed: str = ""
    remedy: str = ""
    colours: dict[Colour, str] = field(default_factory=dict)
    threshold: int = 0
    labels: dict[str, int] = field(default_factory=dict)
    ignores_others: bool = False
    rest: int = UNLABELLED

    @property
    def white_is_255(self) -> bool:
        """Whether white of an image of one bit has the value that it has in 8 bits, and not 1."""
        return bool(self.threshold or self.table[255] < NOT_ALLOWED <= self.table[1])


@dataclass(frozen=True)
class Source:
    """A data set before its pixels are read.

    Attributes
    ----------
    root : the folder that findings name files relative to
    palette : colour of each class, in label order
    splits : the items of 'train', 'val' and, if there are any, 'test', in order
    coding : what label values mean; None where scenes are drawn
    draw : where scenes are drawn, item -> image uint8 (H, W, 3), labels uint8 (H, W)
    findings : what the listing showed to be wrong
    notes : what it showed that is not wrong but worth knowing
    user_defined : the class list is the user's own, so a class that never occurs is a mistake
    annotations : what COCO files say of each item, by its name
    """

    root: Path
    palette: dict[str, Colour]
    splits: dict[str, list[Item]]
    coding: Coding | None = None
    draw: Callable | None = None
    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()
    user_defined: bool = False
    annotations: dict = field(default_factory=dict)

    @property
    def items(self) -> list[Item]:
        """Those of all splits."""
        return [item for items in self.splits.values() for item in items]

    @property
    def values(self) -> list | None:
        """The id, or RGB triple, that means each class in label images; None where none does."""
        if self.coding is None or self.coding.kind not in ("ids", "colours"):
            return None
        known = [np.flatnonzero(self.coding.table == k) for k in range(len(self.palette))]
        if not all(map(len, known)):
            return None
        # white of masks that have a threshold is 255, whatever else counts as it
        chosen = [int(v[-1 if self.coding.threshold and v[0] else 0]) for v in known]
        if self.coding.kind == "ids":
            return chosen
        return [[v >> 16, v >> 8 & 255, v & 255] for v in chosen]


def make_coding(
    kind: str,
    codes: list[list],
    unlabelled: list | str = (),
    remedy: str = "",
    *,
    rest: int | None = None,
    threshold: int | None = None,
    colours: dict[Colour, str] | None = None,
) -> Coding:
    """Return what values in label files mean.

    Parameters
    ----------
    kind : that of the coding
    codes : for each class, the ids, colours or labels that mean it
    unlabelled : those that mean not labelled, or 'rest' for all others
    remedy : what to do about a value that is not allowed
    rest : the class that all other values mean, if there is one
    threshold : the grey level from which a pixel has the id 255, below it has 0
    colours : class name by colour, if known
    """
    ignores_others = unlabelled == "rest"
    unlabelled = [] if ignores_others else list(unlabelled)
    owners = [(value, index) for index, values in enumerate(codes) for value in values]
    owners = [(value, UNLABELLED) for value in unlabelled] + owners
    if kind in POLYGONS:
        return Coding(
            kind, labels=dict(owners[len(unlabelled) :] + owners[: len(unlabelled)]),
            ignores_others=ignores_others, rest=UNLABELLED if rest is None else rest,
        )  # fmt: skip
    others = UNLABELLED if ignores_others else NOT_ALLOWED if rest is None else rest
    table = np.full(1 << 24 if kind == "colours" else 65536, others, np.uint8)
    for value, index in owners:
        if kind == "colours":
            red, green, blue = value
            value = red << 16 | green << 8 | blue
        table[value] = index
    if threshold:
        table[threshold:256], table[:threshold], table[256:] = table[255], table[0], NOT_ALLOWED
        allowed, remedy = "grey levels from 0 to 255", "export masks of 8 bits"
        return Coding("ids", table, allowed, remedy, threshold=threshold)
    if kind == "colours":
        return Coding(kind, table, f"the {len(owners)} colours of the classes", remedy)
    allowed = _ranges(sorted(value for values in codes for value in values))
    if unlabelled:
        allowed += f", and {_ranges(sorted(unlabelled))} for not labelled"
    return Coding(kind, table, allowed, remedy, colours or {})


def _ranges(values: list[int]) -> str:
    """Return '0 to 10, 12' for sorted whole numbers."""
    runs: list[list[int]] = []
    for value in values:
        if runs and value == runs[-1][-1] + 1:
            runs[-1].append(value)
        else:
            runs.append([value])
    return ", ".join(
        f"{run[0]} to {run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs
    )


# Finding files -----------------------------------------------------------------------------------


def find_files(folder: Path) -> list[str]:
    """Return the paths of all files below a folder, in natural order: 2 before 10.

    Links to folders are followed, once; hidden files and folders are left out.
    """
    paths, seen = [], set()
    for directory, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(directory)
        folders[:] = [name for name in folders if not name.startswith(".") and real not in seen]
        if real not in seen:
            below = Path(directory).relative_to(folder)
            paths += [(below / name).as_posix() for name in files if not name.startswith(".")]
        seen.add(real)
    return sorted(paths, key=natural_key)


def natural_key(name: str) -> list:
    """Return a sort key by which numbers in names count as numbers."""
    return [
        (int(part), part) if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)
    ]


def find_items(
    root: Path,
    images: str,
    labels: str,
    image_ending: str | None = None,
    label_file: str = "*.png",
    paths: list[str] | None = None,
) -> list[Item]:
    """Return an item for every image that `images` names, in natural order.

    `images` is a folder, whose folders are searched too, or a pattern: a path in which each * is
    any part of one name. A pattern that ends as image files do names files, another one folders.
    An item's name is the image's path below the folder, or those names of its path that have a *,
    without its ending. Its label file, whether it exists or not, is expected below the folder
    `labels` by the name `label_file`, in which * is the item's name; or in the folders, or at the
    path, that the pattern `labels` names with the same parts in place of each *. Where the files
    below `pattern_base(images)` are known, `paths` saves looking for them.
    """
    items, base, regex = [], pattern_base(images), _path_regex(images)
    starred = ["*" in part for part in _parts(images)]
    place = labels if is_file_pattern(labels) else "/".join([*_parts(labels), label_file])
    place = place.removesuffix("/")
    for path in find_files(root / base) if paths is None else paths:
        path = f"{base}/{path}" if base else path
        ending = image_ending or PurePosixPath(path).suffix
        match = regex.fullmatch(path)
        if not match or not path.endswith(ending):
            continue
        if not image_ending and ending.lower() not in IMAGE_ENDINGS:
            continue
        *parts, last = match.groups()
        if is_file_pattern(images):
            ending = images.rpartition("*")[2]
        else:
            last = last.removesuffix(ending)
        names = path.removesuffix(ending).split("/")
        name = "/".join(n for i, n in enumerate(names) if i >= len(starred) or starred[i])
        label_path = _filled(place, [*parts, last] if "*" in labels else [name])
        items.append(Item(name, name, root / path, root / label_path))
    check_names(root, items)
    return items


def _filled(pattern: str, values: list[str]) -> str:
    """Return a pattern with the first of some values in place of each *."""
    pieces = pattern.split("*")
    return "".join(map("".join, zip(pieces, [*values[: len(pieces) - 1], ""], strict=True)))


def is_file_pattern(path: str) -> bool:
    """Return whether a path is a pattern of files, and no folder or pattern of folders."""
    return "*" in path and PurePosixPath(path).suffix.lower() in (*IMAGE_ENDINGS, ".json")


def _parts(path: str) -> list[str]:
    return [] if path in ("", ".") else list(PurePosixPath(path).parts)


def pattern_base(path: str) -> str:
    """Return the folder that all paths of a pattern lie in, or the path itself, if it is none."""
    parts = _parts(path)
    first = next((i for i, part in enumerate(parts) if "*" in part), len(parts))
    return "/".join(parts[:first])


def _path_regex(path: str, file: str = "*") -> re.Pattern:
    """Return the expression for the paths of files: a group for each *.

    Below a folder these are called `file`, in which * may be a path.
    """
    text = "/".join(_parts(path))
    regex = "([^/]+)".join(map(re.escape, text.split("*")))
    if not is_file_pattern(path):
        regex += "/" * bool(text) + "(.+)".join(map(re.escape, file.split("*")))
    return re.compile(regex, re.DOTALL)


# Checking listings -------------------------------------------------------------------------------


def check_names(root: Path, items: list[Item]) -> None:
    """Raise BadData where a name holds what terminals obey, hide or cannot show.

    Such are line ends, escapes, marks of zero width or of direction, and bytes that are no UTF-8.
    """
    bad = [item.image.relative_to(root) for item in items if not item.name.isprintable()]
    if bad:
        raise BadData(root, [found("unprintable-name", str(name)) for name in bad])


def check_pairs(root: Path, items: list[Item], user_defined: bool = False) -> list[Finding]:
    """Return findings for items without their image or label image, and for two of one name.

    If no label image of a `user_defined` set is where it should be, that is one finding.
    """
    findings, first = [], {}
    if user_defined and items and not any(os.path.isfile(item.labels) for item in items):
        expected = items[0].labels
        folder = next(f for f in expected.parents if f.is_dir())
        present = (find_files(folder) or ["nothing"])[0]
        return [
            found(
                "no-labels-at-all", f"{folder.relative_to(root)}/", count=len(items),
                expected=expected.name, present=present,
            )
        ]  # fmt: skip
    for item in items:
        image, twin = str(item.image.relative_to(root)), first.setdefault(item.name, item)
        if twin.image != item.image:
            findings.append(found("same-name", image, other=twin.image.relative_to(root)))
        # os.path says no where pathlib raises: of names that are too long, with labels' ending
        missing = [file for file in (item.image, item.labels) if not os.path.isfile(file)]
        if len(missing) == 2:
            findings.append(found("listed-missing", image))
        elif missing:
            other = item.labels if missing == [item.image] else item.image
            findings.append(_missing(root, missing[0], other))
    return findings


def _missing(root: Path, file: Path, other: Path) -> Finding:
    """Return the finding that a file is missing, with what may have been meant by it."""
    name, other_name = str(file.relative_to(root)), other.relative_to(root)
    if os.path.lexists(file):
        return found("no-file", name, other=other_name)
    hint, folder = "add the file", file.parent
    same_stem = sorted(f.name for f in folder.glob(glob.escape(file.stem) + ".*") if f != other)
    present = os.listdir(folder) if folder.is_dir() else []
    alike = sorted(n for n in present if normalised_name(n) == normalised_name(file.name))
    if alike:
        hint = f"{ascii(alike[0])} is there, in other letters or accents: rename one"
    elif same_stem:
        hint = f"{same_stem[0]} is there: rename it or set label_ending"
    return found("missing", name, other=other_name, hint=hint)


def check_orphans(
    root: Path, expected: Collection[Path], labels: str, label_file: str = "*.png"
) -> list[Finding]:
    """Return findings for label files, named as for `find_items`, that are not expected."""
    base, regex = pattern_base(labels), _path_regex(labels, label_file)
    paths = (f"{base}/{name}" if base else name for name in find_files(root / base))
    return [
        found("orphan", path)
        for path in paths
        if regex.fullmatch(path) and root / path not in expected
    ]


def normalised_name(name: str) -> str:
    """Return a name as systems see it that tell neither case nor ways to write an accent apart."""
    return composed(name).casefold()


def composed(name: str) -> str:
    """Return a name with each accented letter as one character: some systems write it as two."""
    return unicodedata.normalize("NFC", name)


def read_list(file: Path) -> list[str]:
    """Return the lines of a text file, without blank ones.

    UTF-8, UTF-16 with its mark, and what else there is as Windows-1252: whether that is right, the
    names of the files show.

    Raises
    ------
    InputError : the file cannot be read
    """
    try:
        content = file.read_bytes()
    except OSError as problem:
        raise InputError(f"{file}: cannot be read as a list of images ({problem}).") from None
    is_utf_16 = content[:2] in (b"\xff\xfe", b"\xfe\xff")
    try:
        text = content.decode("utf-16" if is_utf_16 else "utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("cp1252", "replace")
    return [line.strip() for line in text.splitlines() if line.strip()]
