"""Which images are train, val and test: by lists, folders, fractions and whole sequences."""

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from roadseg.config.splits import NO_TEST, REST
from roadseg.data.dataset_yaml import DESCRIPTION, is_inside
from roadseg.data.layout import Finding, Item, composed, read_list
from roadseg.data.scenes import SPLITS
from roadseg.errors import nearest

MAX_PATH_LENGTH = 4096  # characters of a line that may still be a path


def split(
    root: Path,
    items: list[Item],
    requested: dict,
    whole_sequences: bool,
    file: str = DESCRIPTION,
    base: Path | None = None,
) -> tuple[dict[str, list[Item]], list[Finding], list[str]]:
    """Put each item into the split that `requested` says.

    Lists, files and folders are served first. Fractions, of all images that are left, then take
    sequences in the order of a digest of their names (where `whole_sequences`, else single images):
    nothing random, and the same on every machine. They cut no sequence, and pass over one that
    would overshoot by more than half of it.

    Parameters
    ----------
    root : the folder that lists lie in
    file : where `requested` was said, for findings
    base : the folder that paths in lists begin at, if parts of these are not in the images' names

    Returns
    -------
    The splits; findings (names that do not exist, images in two splits, empty splits); notes
    """
    findings, notes = [], []
    requested = {"train": REST, **requested}
    if requested["test"] == NO_TEST:
        del requested["test"]
        notes.append(
            "There are no test images. The report scores networks on val, on which they are chosen "
            "too, so that scores flatter."
        )
    split_of: dict[str, str] = {}
    for part, value in requested.items():
        if isinstance(value, float | int) or value == REST:
            continue
        for item in _named_items(root, items, f"{file}, splits: {part}", value, findings, base):
            if split_of.setdefault(item.name, part) != part:
                findings.append(
                    Finding(
                        item.name,
                        f"is in {split_of[item.name]} and in {part}",
                        "each image in one split",
                        f"take it out of one under splits: in {file}",
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
    rest = next((part for part, value in requested.items() if value == REST), None)
    splits = {part: [] for part in SPLITS if part in requested}
    for item in items:
        part = split_of.get(item.name, rest)
        if part:
            splits[part].append(item)
    for part, chosen in splits.items():
        where = f"{file}, splits: {part}"
        if not chosen and where not in {finding.file for finding in findings}:
            shares_sequences = whole_sequences and any(
                isinstance(value, float) for value in requested.values()
            )
            sequence_hint = (
                f": whole sequences are shared out, and there are {len(groups)}" * shares_sequences
            )
            remedy = "give it images: a list, a folder, or a larger fraction"
            if shares_sequences:
                remedy = "list images or videos"
                if file == DESCRIPTION:  # no other has the key
                    remedy += (
                        "; or let sequence: be a number n, for sequences of n consecutive images"
                    )
            findings.append(
                Finding(where, f"has no image{sequence_hint}", "one image or more", remedy)
            )
    parts: dict[str, list[str]] = {}
    for part, chosen in splits.items():
        # train/east and val/east are one sequence, if the splits are folders of these names
        value = requested[part]
        folder = composed(f"{value}/") if whole_sequences and isinstance(value, str) else ""
        names = (composed(item.sequence).removeprefix(folder) for item in chosen)
        for sequence in dict.fromkeys(names):
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


def _named_items(
    root: Path, items: list[Item], where: str, value, findings: list, base: Path | None
) -> list[Item]:
    """Return the items that a list, a list's file or a folder names; unknown names are findings."""
    if isinstance(value, str) and value.endswith(".txt"):
        if not is_inside(value) or not os.path.isfile(root / value):
            findings.append(
                Finding(where, f"no file {value}",
                        "a text file with one image per line", "correct the name")
            )  # fmt: skip
            return []
        where, value = value, read_list(root / value)
    elif isinstance(value, str):
        folder = composed(value.rstrip("/") + "/")
        chosen_items = [item for item in items if composed(item.name).startswith(folder)]
        if not chosen_items:
            folders = sorted({item.name.partition("/")[0] for item in items if "/" in item.name})
            listed = f"; there are {', '.join(folders[:5])}" if folders else ""
            known_names = {composed(name) for x in items for name in (x.sequence, x.name)}
            findings.append(
                Finding(where, f"no image lies in a folder {value}",
                        "a folder below images:, a .txt file, a list, or a fraction",
                        f"write [{value}]" if composed(value) in known_names else
                        f"correct the name{listed}")
            )  # fmt: skip
        return chosen_items
    known: dict[str, list[Item]] = {}
    paths, whole_paths = [], []
    for item in items:
        file = item.name + item.image.name[len(PurePosixPath(item.name).name) :]
        whole = item.image.relative_to(base).as_posix() if base else file
        stem = whole.removesuffix(item.image.suffix)
        for name in {composed(name) for name in (item.name, file, whole, stem, item.sequence)}:
            known.setdefault(name, []).append(item)
        paths += [(item.name, item), (file, item)]
        whole_paths += [(composed(whole), item), (composed(stem), item)]
    items_by_path_end, folders = path_ends(paths)
    for path, item in whole_paths:  # with the parts that a pattern leaves out of names
        items_by_path_end.setdefault(path, {item: None})
        folders.update(path.split("/")[:-1])
    chosen_items = {}
    for entry in value:
        # the whole line, or the first word of a list of pairs, as CamVid has them
        for name in map(composed, (entry, *entry.split()[:1])):
            matches = known.get(name) or match_path_end(name, items_by_path_end, folders)
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


def path_ends(paths: Iterable[tuple[str, Item]]) -> tuple[dict[str, dict[Item, None]], set[str]]:
    """Return the items by each end of their paths, and the folders; for `match_path_end`."""
    items_by_path_end: dict[str, dict[Item, None]] = {}  # of each end, the items in order, once
    folders = set()
    for path, item in paths:
        parts = composed(path).split("/")
        folders.update(parts[:-1])
        for first in range(len(parts)):
            items_by_path_end.setdefault("/".join(parts[first:]), {})[item] = None
    return items_by_path_end, folders


def match_path_end(
    entry: str, items_by_path_end: dict[str, dict[Item, None]], folders: set[str]
) -> list[Item]:
    """Return the items that the end of a path names: it may be from somebody else's machine."""
    if len(entry) > MAX_PATH_LENGTH:
        return []
    parts = composed(entry).replace("\\", "/").strip("/").split("/")
    for first in range(len(parts)):
        if matches := items_by_path_end.get("/".join(parts[first:])):
            # west/77 is not north/77, if there is a folder west here too
            return [] if first and parts[first - 1] in folders else list(matches)
    return []
