"""What all kinds of data set share: items, findings, label codings, and matching names to files."""

import dataclasses
import glob
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
from tabulate import tabulate

from roadseg.data.scenes import UNLABELLED
from roadseg.errors import InputError, escaped

IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".jfif", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
NOT_ALLOWED = 254  # in a coding's table: no label image may hold this value
# What findings of one kind may differ in: shares, the values of a smoothed file, and other files.
DETAILS = re.compile(r" in [\d.]+ %|(?<=^values ).* and \d+ more|(?<=^colours ).* and \d+ more"
                     r"|(?<=is missing, though ).*(?= is there)| \(\d+ shapes\)")  # fmt: skip
MAX_ROWS = 20  # rows that a message's table has at most
MAX_FILES_PER_ROW = 5  # files that one of its rows names
MAX_CELL_LENGTH = 400  # characters that one of its cells shows

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong in a data set: where, what, what would be right, what to do."""

    file: str
    finding: str
    allowed: str
    remedy: str

    def __str__(self) -> str:
        return (
            f"{printable(self.file)}: {printable(self.finding)}. Allowed: "
            f"{printable(self.allowed)}. Remedy: {printable(self.remedy)}."
        )


class BadData(InputError):
    """Everything that is wrong with a data set, as one table of which the first rows are shown.

    Attributes
    ----------
    findings : all of them, in order
    """

    def __init__(self, where: Path | str, findings: Iterable[Finding]):
        self.findings = list(findings)
        count = len(self.findings)
        # Files with the same fault share a row of the table, whatever its extent in each.
        groups: dict[tuple, list[Finding]] = {}
        for row in self.findings:
            kind = DETAILS.sub("", row.finding)
            key = (kind, row.allowed, row.remedy.replace(row.file, ""))
            groups.setdefault(key, []).append(row)
        rows = []
        for group in groups.values():
            names = [printable(row.file) for row in group[:MAX_FILES_PER_ROW]]
            names += [f"and {len(group) - MAX_FILES_PER_ROW} more"] * (
                len(group) > MAX_FILES_PER_ROW
            )
            cells = dataclasses.astuple(group[0])[1:]
            if len({row.finding for row in group}) > 1:
                cells = (f"{cells[0]} (the first file; the others alike)", *cells[1:])
            rows.append(Finding("\n".join(names), *map(printable, cells)))
        shown = rows
        if len(rows) > MAX_ROWS:  # one of each kind first
            kinds = Counter()
            number_of_kind = [kinds.update([row.allowed]) or kinds[row.allowed] for row in rows]
            shown = [rows[i] for i in np.argsort(number_of_kind, kind="stable")[:MAX_ROWS]]
        table = tabulate(
            [dataclasses.astuple(row) for row in shown],
            headers=["file", "finding", "allowed", "remedy"], tablefmt="simple_grid",
            maxcolwidths=[34, 30, 24, 34], disable_numparse=True,
        )  # fmt: skip
        more = f"\n... and {len(rows) - MAX_ROWS} rows more." if len(rows) > MAX_ROWS else ""
        if more or any(len(group) > MAX_FILES_PER_ROW for group in groups.values()):
            more += "\nEvery file: python -m roadseg check FOLDER --all"
        total = f"{count} problem{'s' * (count != 1)}"
        where = printable(str(where))
        super().__init__(f"{where}: {total}; nothing was written.\n{table}{more}")


def printable(text: str) -> str:
    r"""Return text as one line that a terminal shows and does not obey, and not all of a long one.

    >>> printable("a\x1b[31m\nb")
    'a\\x1b[31m\\nb'
    """
    if len(text) > MAX_CELL_LENGTH:
        text = text[: MAX_CELL_LENGTH - 1] + "…"
    return escaped(text)


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
    def files(self) -> tuple[Path, ...]:
        """The image and all files that its labels come from."""
        label_files = [file for _, file in self.masks] or [self.labels]
        return tuple(file for file in (self.image, *label_files) if file)


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
    white_is_255 : so are those of images of one bit
    labels : of outlines, the class by label, 255 for what is ignored
    ignores_others : labels that are not among these are ignored
    rest : the class where no mask or outline is
    """

    kind: str
    table: np.ndarray
    allowed: str
    remedy: str
    colours: dict[Colour, str] = field(default_factory=dict)
    threshold: int = 0
    white_is_255: bool = False
    labels: dict[str, int] = field(default_factory=dict)
    ignores_others: bool = False
    rest: int = UNLABELLED


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
    aligned : the user says that labels belong to their images, whatever their edges say
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
    aligned: bool = False
    annotations: dict = field(default_factory=dict)


def ids_coding(
    codes: list[list[int]],
    unlabelled: list[int] | str,
    remedy: str,
    colours: dict | None = None,
    rest: int | None = None,
    threshold: int | None = None,
) -> Coding:
    """Return the coding for label images that hold class numbers.

    Parameters
    ----------
    codes : for each class, the ids that mean it
    unlabelled : the ids that mean not labelled, or 'rest' for all others
    remedy : what to do about an id that is not allowed
    colours : class name by colour, if known
    rest : the class that all other ids mean, if there is one
    threshold : the grey level from which a pixel has the value 255, below it has 0
    """
    other, unlabelled = _others(unlabelled, rest)
    table = np.full(65536, other, np.uint8)
    table[unlabelled] = UNLABELLED
    for index, ids in enumerate(codes):
        table[ids] = index
    if threshold:
        table[threshold:256], table[:threshold], table[256:] = table[255], table[0], NOT_ALLOWED
        return Coding("ids", table, "grey levels from 0 to 255", "export masks of 8 bits",
                      threshold=threshold, white_is_255=True)  # fmt: skip
    allowed = _ranges(sorted(i for ids in codes for i in ids))
    if unlabelled:
        allowed += f", and {_ranges(sorted(unlabelled))} for not labelled"
    white_is_255 = bool(table[255] < NOT_ALLOWED <= table[1])
    return Coding("ids", table, allowed, remedy, colours or {}, white_is_255=white_is_255)


def _others(unlabelled: list | str, rest: int | None) -> tuple[int, list]:
    """Return what values mean that are not listed, and the list of those not labelled."""
    if unlabelled == "rest":
        return UNLABELLED, []
    return NOT_ALLOWED if rest is None else rest, unlabelled


def colours_coding(
    codes: list[list[Colour]],
    unlabelled: list[Colour] | str,
    remedy: str,
    rest: int | None = None,
) -> Coding:
    """Return the coding for label images that hold colours; arguments as for `ids_coding`."""
    other, unlabelled = _others(unlabelled, rest)
    table = np.full(1 << 24, other, np.uint8)
    for red, green, blue in unlabelled:
        table[red << 16 | green << 8 | blue] = UNLABELLED
    for index, colours in enumerate(codes):
        for red, green, blue in colours:
            table[red << 16 | green << 8 | blue] = index
    count = sum(map(len, codes)) + len(unlabelled)
    return Coding("colours", table, f"the {count} colours of the classes", remedy)


def polygons_coding(
    kind: str, codes: list[list[str]], unlabelled: list[str] | str, rest: int | None
) -> Coding:
    """Return the coding for files of outlines with labels; arguments as for `ids_coding`."""
    labels = {label: index for index, labels in enumerate(codes) for label in labels}
    if unlabelled != "rest":
        labels |= dict.fromkeys(unlabelled, UNLABELLED)
    return Coding(
        kind, np.zeros(0, np.uint8), "", "", labels=labels, ignores_others=unlabelled == "rest",
        rest=UNLABELLED if rest is None else rest,
    )  # fmt: skip


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
    return [(int(part), part) if part.isdecimal() else (-1, part)
            for part in re.split(r"(\d+)", name)]  # fmt: skip


def find_items(
    root: Path,
    images: str,
    labels: str,
    image_ending: str | None,
    label_file: str,
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
    regex, names_files = _path_regex(images), is_file_pattern(images)
    starred = ["*" in part for part in _parts(images)]
    items, base = [], pattern_base(images)
    for path in find_files(root / base) if paths is None else paths:
        path = f"{base}/{path}" if base else path
        ending = image_ending or PurePosixPath(path).suffix
        match = regex.fullmatch(path)
        if not match or not path.endswith(ending):
            continue
        if not image_ending and ending.lower() not in IMAGE_ENDINGS:
            continue
        *parts, last = match.groups()
        if names_files:
            names = [part for part, star in zip(path.split("/"), starred, strict=True) if star]
            tail = _parts(images)[-1].rpartition("*")[2] if starred[-1] else ""
            names[-1] = names[-1].removesuffix(tail)
        else:
            last = last.removesuffix(ending)
            names = [part for part, star in zip(path.split("/"), starred, strict=False) if star]
            names.append(last)
        name = "/".join(names)
        label_path = _label_path(labels, label_file, name, parts, last)
        items.append(Item(name, name, root / path, root / label_path))
    check_names(root, items)
    return items


def is_file_pattern(path: str) -> bool:
    """Return whether a path is a pattern of files, and no folder or pattern of folders."""
    return "*" in path and PurePosixPath(path).suffix.lower() in (*IMAGE_ENDINGS, ".json")


def _parts(path: str) -> list[str]:
    return [] if path in ("", ".") else PurePosixPath(path).parts


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
    regex = "([^/]+)".join(re.escape(part) for part in text.split("*"))
    if not is_file_pattern(path):
        regex += "/" * bool(text) + "(.+)".join(re.escape(part) for part in file.split("*"))
    return re.compile(regex, re.DOTALL)


def _label_path(labels: str, label_file: str, name: str, parts: list[str], last: str) -> str:
    """Return where an item's label file is expected, from what stands for each * of its image."""
    file = label_file.replace("*", last if "*" in labels else name)
    if is_file_pattern(labels):
        parts, file = [*parts, last][: labels.count("*")], ""
    pieces = labels.split("*")
    filled = "".join(a + b for a, b in zip(pieces, [*parts, ""][-len(pieces) :], strict=True))
    return f"{filled}/{file}" if file else filled


def check_names(root: Path, items: list[Item]) -> None:
    """Raise BadData where a name holds what terminals obey, hide or cannot show.

    Such are line ends, escapes, marks of zero width or of direction, and bytes that are no UTF-8.
    """
    bad = [item.image.relative_to(root) for item in items if not item.name.isprintable()]
    if bad:
        finding = "has characters in its name that cannot be printed"
        allowed, remedy = "names that can be read", "rename it, and its label image"
        raise BadData(root, [Finding(str(name), finding, allowed, remedy) for name in bad])


def check_pairs(root: Path, items: list[Item], user_defined: bool = False) -> list[Finding]:
    """Return findings for items without their image or label image, and for two of one name.

    If no label image of a `user_defined` set is where it should be, that is one finding.
    """
    findings, first = [], {}
    if user_defined and items and not any(os.path.isfile(item.labels) for item in items):
        expected = items[0].labels
        folder = next(f for f in expected.parents if f.is_dir())
        first_file = (find_files(folder) or ["nothing"])[0]
        return [
            Finding(
                f"{folder.relative_to(root)}/",
                f"holds no label image for any of the {len(items)} images; {expected.name} was "
                f"looked for, {first_file} is there",
                "a label image for each image",
                "correct how dataset.yaml says they are named, or put them there",
            )
        ]
    for item in items:
        twin = first.setdefault(item.name, item)
        if twin.image != item.image:
            findings.append(
                Finding(
                    str(item.image.relative_to(root)),
                    f"has the name of {twin.image.relative_to(root)}",
                    "one image of each name",
                    "rename or remove one of the two",
                )
            )
        # os.path says no where pathlib raises: of names that are too long, with labels' ending
        exist = os.path.isfile(item.image), os.path.isfile(item.labels)
        if exist == (False, False):
            findings.append(
                Finding(
                    str(item.image.relative_to(root)), "is listed, but missing",
                    "an image and a label image for each line",
                    "put both there, or take it out of the list",
                )
            )  # fmt: skip
        elif not all(exist):
            findings.append(
                _missing_finding(root, *sorted((item.image, item.labels), key=os.path.isfile))
            )
    return findings


def check_orphans(
    root: Path, expected: Collection[Path], labels: str, label_file: str
) -> list[Finding]:
    """Return findings for label files, named as for `find_items`, that are not expected."""
    base, regex = pattern_base(labels), _path_regex(labels, label_file)
    paths = (f"{base}/{name}" if base else name for name in find_files(root / base))
    return [
        Finding(
            path,
            "is a label image without an image",
            "one image for each label image",
            "add the image, or take the file away",
        )
        for path in paths
        if regex.fullmatch(path) and root / path not in expected
    ]


def _missing_finding(root: Path, file: Path, other: Path) -> Finding:
    alike = file.parent.glob(glob.escape(file.stem) + ".*")
    same_stem = sorted(f.name for f in alike if f != other)
    hint = (
        f"{same_stem[0]} is there: rename it or set label_ending" if same_stem else "add the file"
    )
    what = "is missing"
    if os.path.lexists(file):
        what, hint = "is no file, or leads to none", "put the file there"
    elif alike := _similar_name(file):
        hint = f"{ascii(alike)} is there, in other letters or accents: rename one"
    return Finding(
        str(file.relative_to(root)),
        f"{what}, though {other.relative_to(root)} is there",
        "an image and a label image of one name",
        f"{hint}, or take the other away",
    )


def _similar_name(file: Path) -> str:
    """Return a name beside a file that differs from its own in case or ways to write accents."""
    if not file.parent.is_dir():
        return ""
    normalised = normalised_name(file.name)
    return next(
        (name for name in sorted(os.listdir(file.parent)) if normalised_name(name) == normalised),
        "",
    )


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
        text = content.decode(
            "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
        )
    except OSError as problem:
        raise InputError(f"{file}: cannot be read as a list of images ({problem}).") from None
    except UnicodeDecodeError:
        text = content.decode("cp1252", "replace")
    return [line.strip() for line in text.splitlines() if line.strip()]
