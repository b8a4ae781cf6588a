"""The user's own folder, as its `dataset.yaml` describes it: which file belongs to which image."""

import csv
import os
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path, PurePosixPath

from roadseg.data.dataset_yaml import DESCRIPTION, REST, Description, read_description
from roadseg.data.findings import BadData, Finding, found, printable
from roadseg.data.layout import (
    PICTURES,
    Coding,
    Item,
    Source,
    check_names,
    check_orphans,
    check_pairs,
    composed,
    find_files,
    find_items,
    make_coding,
    natural_key,
    normalised_name,
    pattern_base,
    read_list,
)
from roadseg.data.polygons import Annotation, read_coco
from roadseg.data.scenes import UNLABELLED
from roadseg.data.splits import PathEnds, split_items
from roadseg.errors import InputError

BACKGROUND_NOTE = (
    "Pixels that no label covers are ignored. If they are background, add a class for them, such "
    "as 'other: rest'."
)
ONE_CLASS_NOTE = (
    "There is one class, so no network can be wrong. Name what is not of interest too, such as "
    "other."
)


def folder_source(*, path: Path, **_) -> Source:
    """Images and labels of the user's own, as `dataset.yaml` in their folder describes them.

    Raises
    ------
    InputError : there is no such file, what is wrong in it, or a file that it names
    BadData : no sequence for some images
    """
    about = read_description(path)
    items, findings, notes = _find(path, about)
    if not items:
        raise InputError(_no_images(path, about))
    items = [replace(item, sequence=_sequence(about, item, i)) for i, item in enumerate(items)]
    unknown = [item for item in items if not item.sequence]
    if unknown:
        count = f"{len(unknown)} of {len(items)}"
        where = f"{DESCRIPTION}, sequence"
        raise BadData(path, [found("no-sequence", where, count=count, name=unknown[0].name)])
    splits, split_findings, split_notes = split_items(
        path, items, about.splits, about.sequence is not None,
        base=path / pattern_base(about.images),
    )  # fmt: skip
    used = {item.name for part in splits.values() for item in part}
    unpaired = check_pairs(path, [item for item in items if item.name in used], user_defined=True)
    if not about.pairs and not any(f.code == "no-labels-at-all" for f in unpaired):
        unpaired += _orphans(path, items, about)
    coding, annotations = _coding(about), {}
    findings += [*split_findings, *unpaired]
    if about.values == "coco":
        annotations, coco_findings, coco_notes = _annotations(path, items, used, coding)
        findings += coco_findings
        split_notes += coco_notes
    else:
        findings += _label_file_findings(path, items, about)
    notes += split_notes
    if about.values not in PICTURES and about.rest is None and about.unlabelled != REST:
        notes.append(BACKGROUND_NOTE)
    if len(used) < len(items):
        notes.append(f"{len(items) - len(used)} of {len(items)} images are in no split.")
    if len(about.palette) == 1:
        notes.append(ONE_CLASS_NOTE)
    return Source(
        path, about.palette, splits, coding, findings=tuple(findings), notes=tuple(notes),
        user_defined=True, annotations=annotations,
    )  # fmt: skip


def _no_images(root: Path, about: Description) -> str:
    """Return the message that no image was found, with the folders that hold some."""
    expected = f"*{about.image_ending}" if about.image_ending else "image"
    places = {item.image.parent.relative_to(root).as_posix() for item in find_items(root, ".", ".")}
    listed = ", ".join(sorted(places - {about.labels})[:5])
    others = f" There are images in {listed}." if listed else ""
    return (
        f"{root / about.images}: holds no {expected}. Put the images there, or correct images: or "
        f"image_ending: in {DESCRIPTION}.{others}"
    )


def _sequence(about: Description, item: Item, index: int) -> str:
    if type(about.sequence) is int:
        return f"stretch {index // about.sequence + 1}"
    if about.sequence == "folder":
        return PurePosixPath(item.name).parent.as_posix()
    if about.sequence is None:
        return item.name
    match = re.search(about.sequence, item.name)
    return match[1] or "" if match else ""


# Which files belong together ---------------------------------------------------------------------


def _find(root: Path, about: Description) -> tuple[list[Item], list[Finding], list[str]]:
    """Return the items that `images` and `labels`, or `pairs`, name; findings; notes."""
    if about.pairs:
        return _listed_pairs(root, about), [], []
    if about.values == "masks":
        return _masks(root, about)
    files = about.images, about.labels, about.image_ending, about.label_file
    return find_items(root, *files), [], []


def _masks(root: Path, about: Description) -> tuple[list[Item], list[Finding], list[str]]:
    """Return the items with their masks of all classes; findings; notes."""
    items, findings, notes, absent = [], [], [], []
    paths = find_files(root / pattern_base(about.images))
    for index, name, pattern in _mask_patterns(about):
        named = find_items(root, about.images, about.labels, about.image_ending, pattern, paths)
        items = items or named
        masks = [item.labels for item in named]
        exists = [os.path.isfile(mask) for mask in masks]
        for i, mask in enumerate(masks):
            if exists[i]:
                items[i] = replace(items[i], masks=(*items[i].masks, (index, mask)))
            else:
                absent.append((i, mask))
        where = f"classes: {name}" if name else "unlabelled"
        if not any(exists):
            expected = masks[0].relative_to(root) if masks else pattern
            where = f"{DESCRIPTION}, {where}"
            findings.append(found("no-mask-at-all", where, pattern=pattern, expected=expected))
        elif not all(exists):
            notes.append(
                f"{exists.count(False)} of {len(masks)} images have no mask {pattern}: nothing is "
                f"{name or where} there."
            )
    if not any(item.masks for item in items):  # which `check_pairs` says once
        return items, [], notes
    below, used = root / pattern_base(about.labels), {f for item in items for _, f in item.masks}
    similar = {normalised_name(path): below / path for path in find_files(below)}
    for i, mask in absent:
        alike = similar.get(normalised_name(mask.relative_to(below).as_posix()))
        if items[i].masks and alike and alike not in used:  # else `check_pairs` says it
            name = mask.relative_to(root).as_posix()
            findings.append(found("mask-name", name, other=ascii(alike.name)))
    # the mask that is looked at first, or missed
    items = [replace(item, labels=item.label_files[0]) for item in items]
    return items, findings, notes


def _mask_patterns(about: Description) -> list[tuple[int, str, str]]:
    """Return class, its name or '', and pattern of each kind of mask, in the order of laying."""
    ignored = [] if about.unlabelled == REST else about.unlabelled
    kinds = [(index, *kind) for index, kind in enumerate(about.codes.items())]
    kinds.append((UNLABELLED, "", ignored))
    return [(index, name, pattern) for index, name, patterns in kinds for pattern in patterns]


def _listed_pairs(root: Path, about: Description) -> list[Item]:
    """Return the items that a file of pairs lists, image and label file on a line; natural order.

    They are divided by a comma, a semicolon, a tab or spaces; a first line without dots is a head.

    Raises
    ------
    InputError : a line that is not two names in the folder, or an image named twice
    """
    file, items, lines = root / about.pairs, {}, read_list(root / about.pairs)
    find_image, find_labels = _finder(root / about.images), _finder(root / about.labels)
    delimiter = next((d for d in "\t;," if lines and d in lines[0]), None)
    for number, line in enumerate(lines, 1):
        try:
            row = next(csv.reader([line], delimiter=delimiter)) if delimiter else line.split()
        except csv.Error:  # longer than any name
            row = []
        names = [PurePosixPath(n.strip().replace("\\", "/")) for n in row if n.strip()]
        if number == 1 and "." not in line:
            continue
        if len(names) != 2 or any(n.is_absolute() or ".." in n.parts or not n.name for n in names):
            raise InputError(
                f"{file}: {printable(line)!r} is not a pair. Each line has an image and its label "
                f"file, with a comma between; they lie in {root / about.images} and "
                f"{root / about.labels}."
            )
        image = find_image(names[0])
        if image in items:
            raise InputError(f"{file}: {names[0]} is the image of two lines; take one of them out.")
        name = str(names[0].with_suffix(""))
        items[image] = Item(name, name, image, find_labels(names[1]))
    check_names(root, list(items.values()))
    return sorted(items.values(), key=lambda item: natural_key(item.name))


def _finder(folder: Path) -> Callable[[PurePosixPath], Path]:
    """Return a function that says where a file of a folder is, however its name writes accents."""
    paths = {composed(path): path for path in find_files(folder)}

    def find(name: PurePosixPath) -> Path:
        exists = os.path.isfile(folder / name)
        return folder / (name if exists else paths.get(composed(str(name)), name))

    return find


def _orphans(root: Path, items: list[Item], about: Description) -> list[Finding]:
    """Return findings for label files that no image asks for."""
    if about.values == "coco":
        return []
    expected = {file for item in items for file in (item.labels, *item.label_files)}
    patterns = [about.label_file]
    if about.values == "masks":
        patterns = [pattern for _, _, pattern in _mask_patterns(about)]
    findings = [f for p in patterns for f in check_orphans(root, expected, about.labels, p)]
    return list(dict.fromkeys(findings))


def _label_file_findings(root: Path, items: list[Item], about: Description) -> list[Finding]:
    """Return findings for label files that are their image, or belong to two images."""
    findings, owners = [], {}
    key = about.pairs or f"labels: or label_ending: in {DESCRIPTION}"
    for item in items:
        image, *label_files = (file.relative_to(root).as_posix() for file in item.files)
        for file in label_files:
            owner = owners.setdefault(file, item)
            other = owner.image.relative_to(root)
            if file == image:
                findings.append(found("own-labels", image, key=key))
            elif owner.name != item.name:
                findings.append(found("shared-labels", image, other=other, labels=file, key=key))
    return findings


def _annotations(
    root: Path, items: list[Item], used: set[str], coding: Coding
) -> tuple[dict[str, Annotation], list[Finding], list[str]]:
    """Return what COCO files say of each item, findings, and notes.

    An image is known by its path below `images`, or by the end of it.
    """
    findings, annotations, named = [], {}, set()
    for file in dict.fromkeys(item.labels for item in items if os.path.isfile(item.labels)):
        name, ends = file.relative_to(root).as_posix(), PathEnds()
        by_file_name, faults = read_coco(file, name, coding)
        findings += faults
        members = [item for item in items if item.labels == file]
        for item in members:
            ends.add(item, item.image.relative_to(root).as_posix())
        if by_file_name:
            named |= {item.name for item in members}
        entries: dict[str, str] = {}
        for file_name, annotation in by_file_name.items():
            matches = ends.match(file_name)
            what = f"{len(matches)} images have" if matches else "no image has"
            if len(matches) == 1:
                other = entries.setdefault(matches[0].name, file_name)
                if other == file_name:
                    annotations[matches[0].name] = annotation
                    continue
                what = f"{matches[0].image.relative_to(root)} has the file_name {other} and"
            findings.append(found("coco-file-name", name, what=what, name=file_name))
    for item in items:
        if item.name in named & used and item.name not in annotations:
            image = item.image.relative_to(root).as_posix()
            findings.append(found("coco-entry", image, labels=item.labels.name))
    empty = sum(not annotations[name].shapes for name in used & annotations.keys())
    notes = [f"{empty} of {len(used)} images have no annotation."] if empty else []
    return annotations, findings, notes


def _coding(about: Description) -> Coding:
    """Return what the values in label files mean."""
    kind, codes = about.values, list(about.codes.values())
    remedy = f"correct the file, or list the value under classes: or unlabelled: in {DESCRIPTION}"
    if kind == "masks":
        remedy = "export black and white, 0 and 255, or say threshold: 128"
        coding = make_coding("ids", [[0], [1, 255]], remedy=remedy, threshold=about.threshold)
        return replace(coding, kind=kind, rest=UNLABELLED if about.rest is None else about.rest)
    # Only colours that the user gave: a usual colour may stand for anything in another palette.
    colour_counts = Counter(about.colours.values())
    return make_coding(
        kind, codes, about.unlabelled, remedy, rest=about.rest, threshold=about.threshold,
        colours={c: name for name, c in about.colours.items() if colour_counts[c] == 1},
    )  # fmt: skip
