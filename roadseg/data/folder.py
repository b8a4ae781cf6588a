"""The user's own folder, as its `dataset.yaml` describes it: which file belongs to which image."""

import csv
import os
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path, PurePosixPath

from roadseg.data.dataset_yaml import (
    DESCRIPTION,
    PICTURES,
    POLYGONS,
    REST,
    Description,
    read_description,
)
from roadseg.data.layout import (
    BadData,
    Coding,
    Finding,
    Item,
    Source,
    check_names,
    check_orphans,
    check_pairs,
    colours_coding,
    composed,
    find_files,
    find_items,
    ids_coding,
    natural_key,
    normalised_name,
    pattern_base,
    polygons_coding,
    printable,
    read_list,
)
from roadseg.data.polygons import Annotation, read_coco
from roadseg.data.scenes import UNLABELLED
from roadseg.data.splits import match_path_end, path_ends, split
from roadseg.errors import InputError


def folder_source(*, path: Path, **_) -> Source:
    """Images and labels of the user's own, as `dataset.yaml` in their folder describes them.

    Raises
    ------
    InputError : there is no such file, what is wrong in it, or a file that it names
    BadData : no sequence for some images
    """
    about = read_description(path)
    items, findings, notes = _find(path, about)
    items = [replace(x, sequence=_sequence(about, x, i)) for i, x in enumerate(items)]
    unknown = [item for item in items if not item.sequence]
    if unknown:
        what = f"does not match {len(unknown)} of {len(items)} names, such as {unknown[0].name}"
        finding = Finding(f"{DESCRIPTION}, sequence", what, "a video for every image", "correct it")
        raise BadData(path, [finding])
    if not items:
        expected = f"*{about.image_ending}" if about.image_ending else "image"
        pictures = find_items(path, ".", ".", None, "")
        places = {item.image.parent.relative_to(path).as_posix() for item in pictures}
        listed = ", ".join(sorted(places - {about.labels})[:5])
        others = f" There are images in {listed}." if listed else ""
        raise InputError(
            f"{path / about.images}: holds no {expected}. Put the images there, or correct images: "
            f"or image_ending: in {DESCRIPTION}.{others}"
        )
    splits, more, split_notes = split(
        path, items, about.splits, about.sequence is not None,
        base=path / pattern_base(about.images),
    )  # fmt: skip
    findings += more
    used = {item.name for part in splits.values() for item in part}
    unpaired = check_pairs(path, [item for item in items if item.name in used], user_defined=True)
    if not about.pairs and not any(f.file.endswith("/") for f in unpaired):  # else all are orphans
        unpaired += _orphans(path, items, about)
    findings += [*unpaired, *_label_file_findings(path, items, about)]
    annotations, more, annotation_notes = _annotations(path, items, used, about)
    findings += more
    notes += [*split_notes, *annotation_notes]
    if about.values not in PICTURES and about.rest is None and about.unlabelled != REST:
        notes.append(
            "Pixels that no label covers are ignored. If they are background, add a class for "
            "them, such as 'other: rest'."
        )
    if len(used) < len(items):
        notes.append(f"{len(items) - len(used)} of {len(items)} images are in no split.")
    if len(about.palette) == 1:
        notes.append(
            "There is one class, so no network can be wrong. Name what is not of interest too, "
            "such as other."
        )
    return Source(
        path, about.palette, splits, _coding(about), None, tuple(findings), tuple(notes), True,
        about.aligned, annotations,
    )  # fmt: skip


def _find(root: Path, about: Description) -> tuple[list[Item], list[Finding], list[str]]:
    """Return the items that `images` and `labels`, or `pairs`, name; findings; notes."""
    if about.pairs:
        return _listed_pairs(root, about), [], []
    if about.values != "masks":
        files = about.images, about.labels, about.image_ending, about.label_file
        return find_items(root, *files), [], []
    items, findings, notes, absent = [], [], [], []
    paths = find_files(root / pattern_base(about.images))
    for number, name, pattern in _mask_patterns(about):
        masks = find_items(root, about.images, about.labels, about.image_ending, pattern, paths)
        items = items or masks
        there = [os.path.isfile(mask.labels) for mask in masks]
        pairs = zip(items, masks, there, strict=True)
        items = [
            replace(item, masks=(*item.masks, (number, mask.labels))) if has else item
            for item, mask, has in pairs
        ]
        absent += [(i, mask.labels) for i, mask in enumerate(masks) if not there[i]]
        if not any(there):
            expected = masks[0].labels.relative_to(root) if masks else pattern
            findings.append(
                Finding(
                    f"{DESCRIPTION}, {name}",
                    f"no image has a mask {pattern}; {expected} was looked for",
                    "masks of each class", "correct the pattern, or labels:, or take the class out",
                )
            )  # fmt: skip
        elif not all(there):
            notes.append(
                f"{there.count(False)} of {len(there)} images have no mask {pattern}: nothing is "
                f"{name.removeprefix('classes: ')} there."
            )
    below, used = root / pattern_base(about.labels), {f for x in items for _, f in x.masks}
    similar = {normalised_name(path): below / path for path in find_files(below)}
    for index, file in absent:
        alike = similar.get(normalised_name(file.relative_to(below).as_posix()))
        if items[index].masks and alike and alike not in used:  # else `check_pairs` says it
            what = f"is missing, though {ascii(alike.name)} is there"
            findings.append(
                Finding(file.relative_to(root).as_posix(), what, "masks named as the pattern says",
                        "rename the other: it has other letters or accents")
            )  # fmt: skip
    if not any(item.masks for item in items):  # which `check_pairs` says once
        findings = []
    # the mask that is looked at first, or missed
    items = [replace(x, labels=x.masks[0][1]) if x.masks else x for x in items]
    return items, findings, notes


def _mask_patterns(about: Description) -> list[tuple[int, str, str]]:
    """Return class, name and pattern of each kind of mask, in the order in which they are laid."""
    patterns = [
        (number, f"classes: {name}", pattern)
        for number, (name, values) in enumerate(about.codes.items())
        for pattern in values
    ]
    if about.unlabelled != REST:
        patterns += [(UNLABELLED, "unlabelled", pattern) for pattern in about.unlabelled]
    return patterns


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
                f"file, below {about.images} and {about.labels} of the folder, and a comma between."
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


def _sequence(about: Description, item: Item, index: int) -> str:
    if type(about.sequence) is int:
        return f"stretch {index // about.sequence + 1}"
    if about.sequence == "folder":
        return PurePosixPath(item.name).parent.as_posix()
    if about.sequence is None:
        return item.name
    match = re.search(about.sequence, item.name)
    return match[1] or "" if match else ""


def _orphans(root: Path, items: list[Item], about: Description) -> list[Finding]:
    """Return findings for label files that no image asks for."""
    if about.values == "coco":
        return []
    expected = {item.labels for item in items} | {f for item in items for _, f in item.masks}
    files = [about.label_file]
    if about.values == "masks":
        files = [pattern for _, _, pattern in _mask_patterns(about)]
    findings = [f for file in files for f in check_orphans(root, expected, about.labels, file)]
    return list(dict.fromkeys(findings))


def _label_file_findings(root: Path, items: list[Item], about: Description) -> list[Finding]:
    """Return findings for label files that are their image, or belong to two images."""
    if about.values == "coco":
        return []
    findings, owners = [], {}
    remedy = f"correct {about.pairs or f'labels: or label_ending: in {DESCRIPTION}'}"
    for item in items:
        image, *label_files = (file.relative_to(root).as_posix() for file in item.files)
        for file in label_files:
            owner = owners.setdefault(file, item)
            what = ""
            if file == image:
                what = "is its own label file"
            elif owner.name != item.name:
                what = f"and {owner.image.relative_to(root)} have one label file, {file}"
            if what:
                findings.append(Finding(image, what, "a label file for each image", remedy))
    return findings


def _annotations(
    root: Path, items: list[Item], used: set[str], about: Description
) -> tuple[dict[str, Annotation], list[Finding], list[str]]:
    """Return what COCO files say of each item, findings, and notes.

    An image is known by its path below `images`, or by the end of it.
    """
    if about.values != "coco":
        return {}, [], []
    coding, findings, annotations, named = _coding(about), [], {}, set()
    for file in dict.fromkeys(item.labels for item in items if os.path.isfile(item.labels)):
        name = file.relative_to(root).as_posix()
        known, faults = read_coco(file, name, coding)
        findings += faults
        members = [item for item in items if item.labels == file]
        paths = {item.image.relative_to(root).as_posix(): item for item in members}
        by_end, folders = path_ends(paths.items())
        entries: dict[str, str] = {}
        for image, annotation in known.items():
            matches = match_path_end(image, by_end, folders)
            what = f"{len(matches)} images have" if matches else "no image has"
            if len(matches) == 1:
                other = entries.setdefault(matches[0].name, image)
                if other == image:
                    annotations[matches[0].name] = annotation
                    continue
                what = f"{matches[0].image.relative_to(root)} has the file_name {other} and"
            findings.append(
                Finding(name, f"{what} the file_name {image}", "one image for each file_name",
                        "add the image, or correct images:")
            )  # fmt: skip
        if known:
            named |= {item.name for item in members}
    findings += [
        Finding(
            item.image.relative_to(root).as_posix(),
            f"is not among the images of {item.labels.name}",
            "an entry for each image", "add it there, or take the image away",
        )
        for item in items if item.name in named & used and item.name not in annotations
    ]  # fmt: skip
    empty = sum(not annotations[name].shapes for name in used & annotations.keys())
    notes = [f"{empty} of {len(used)} images have no annotation."] if empty else []
    return annotations, findings, notes


def _coding(about: Description) -> Coding:
    """Return what the values in label files mean."""
    codes, rest = list(about.codes.values()), about.rest
    remedy = f"correct the file, or list the value under classes: or unlabelled: in {DESCRIPTION}"
    if about.values in POLYGONS:
        return polygons_coding(about.values, codes, about.unlabelled, rest)
    if about.values == "masks":
        remedy = "export black and white, 0 and 255, or say threshold: 128"
        coding = ids_coding([[0], [1, 255]], [], remedy, threshold=about.threshold)
        return replace(coding, kind="masks", rest=UNLABELLED if rest is None else rest)
    if about.values == "colours":
        return colours_coding(codes, about.unlabelled, remedy, rest)
    # Only colours that the user gave: a usual colour may stand for anything in another palette.
    colour_counts = Counter(about.colours.values())
    by_colour = {c: name for name, c in about.colours.items() if colour_counts[c] == 1}
    return ids_coding(codes, about.unlabelled, remedy, by_colour, rest, about.threshold)
