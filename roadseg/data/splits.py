"""Which images are train, val and test: by lists, folders, fractions and whole sequences."""

import hashlib
import os
from pathlib import Path, PurePosixPath

from roadseg.config.schema import did_you_mean
from roadseg.config.splits import NO_TEST, REST
from roadseg.data.dataset_yaml import DESCRIPTION, is_inside
from roadseg.data.findings import Finding, found
from roadseg.data.layout import Item, composed, read_list
from roadseg.data.scenes import SPLITS

MAX_PATH_LENGTH = 4096  # characters of a line that may still be a path
MAX_HINTS = 20  # findings with a search for what was meant, which takes a while in long lists
NO_TEST_NOTE = (
    "There are no test images. The report scores networks on val, on which they are chosen too, so "
    "that scores flatter."
)
SINGLE_IMAGES_NOTE = (
    "Single images were split by fraction. If they are frames of a video, neighbours are in "
    f"different splits and scores flatter: set sequence: in {DESCRIPTION}."
)


def split_items(
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
    requested, findings, notes = {"train": REST, **requested}, [], []
    if requested["test"] == NO_TEST:
        del requested["test"]
        notes.append(NO_TEST_NOTE)
    fractions = {part: value for part, value in requested.items() if isinstance(value, float)}
    split_of: dict[str, str] = {}
    faulty = set()
    for part, value in requested.items():
        if part in fractions or value == REST:
            continue
        number = len(findings)
        for item in _named_items(root, items, f"{file}, splits: {part}", value, findings, base):
            first = split_of.setdefault(item.name, part)
            if first != part:
                findings.append(
                    found("two-splits", item.name, first=first, second=part, file_of=file)
                )
        if len(findings) > number:
            faulty.add(part)
    left = [item for item in items if item.name not in split_of]
    groups: dict[str, list[Item]] = {}
    for item in left:
        groups.setdefault(item.sequence if whole_sequences else item.name, []).append(item)
    for part, chosen in _share_out(groups, fractions).items():
        split_of |= {item.name: part for item in chosen}
        share = len(chosen) / max(1, len(left))
        if abs(share - fractions[part]) > 0.05:
            reason = "whole sequences only" if whole_sequences else f"there are {len(left)}"
            notes.append(
                f"{part} has {share:.2f} of the images, asked {fractions[part]}: {reason}."
            )
    rest = next((part for part, value in requested.items() if value == REST), None)
    splits = {part: [] for part in SPLITS if part in requested}
    for item in items:
        if part := split_of.get(item.name, rest):
            splits[part].append(item)
    for part, chosen in splits.items():
        where = f"{file}, splits: {part}"
        if chosen or part in faulty:
            continue
        if whole_sequences and fractions:
            remedy = "list images or videos"
            if file == DESCRIPTION:  # no other has the key
                remedy += "; or let sequence: be a number n, for sequences of n consecutive images"
            findings.append(found("no-sequence-left", where, count=len(groups), remedy=remedy))
        else:
            findings.append(found("empty-split", where))
    notes += _divided_sequences(splits, requested if whole_sequences else {})
    if fractions and not whole_sequences:
        notes.append(SINGLE_IMAGES_NOTE)
    return splits, findings, notes


def _share_out(groups: dict[str, list[Item]], fractions: dict[str, float]) -> dict[str, list[Item]]:
    """Return the items of each split that asks for a fraction, as whole groups, one or more."""
    order = sorted(groups, key=lambda name: hashlib.sha256(name.encode()).digest())
    total, shares = sum(map(len, groups.values())), {}
    for part in ("test", "val", "train"):
        if part not in fractions:
            continue
        chosen, count = [], 0
        for name in order:
            if count + len(groups[name]) / 2 <= fractions[part] * total:
                chosen.append(name)
                count += len(groups[name])
        chosen = chosen or sorted(order, key=lambda name: len(groups[name]))[:1]
        order = [name for name in order if name not in set(chosen)]
        shares[part] = [item for name in chosen for item in groups[name]]
    return shares


def _divided_sequences(splits: dict[str, list[Item]], requested: dict) -> list[str]:
    """Return a note of the sequences that are in several splits, if some are.

    train/east and val/east are one sequence, if the splits are folders of these names.
    """
    parts: dict[str, dict[str, None]] = {}
    for part, chosen in splits.items():
        value = requested.get(part)
        folder = composed(f"{value}/") if isinstance(value, str) else ""
        for item in chosen:
            parts.setdefault(composed(item.sequence).removeprefix(folder), {})[part] = None
    divided = [f"{name} ({', '.join(where)})" for name, where in parts.items() if len(where) > 1]
    more = f" and {len(divided) - 5} others" if len(divided) > 5 else ""
    listed = ", ".join(divided[:5])
    return [f"Sequences in more than one split: {listed}{more}."] if divided else []


def _named_items(
    root: Path,
    items: list[Item],
    where: str,
    value: str | list[str],
    findings: list[Finding],
    base: Path | None,
) -> list[Item]:
    """Return the items that a list, a list's file or a folder names; unknown names are findings."""
    is_list = isinstance(value, list)
    if not is_list and not value.endswith(".txt"):
        return _items_in_folder(items, where, value, findings)
    if not is_list:
        if not is_inside(value) or not os.path.isfile(root / value):
            findings.append(found("no-list", where, value=value))
            return []
        where, value = value, read_list(root / value)
    known: dict[str, list[Item]] = {}
    ends = PathEnds()
    for item in items:
        file = item.name + item.image.name[len(PurePosixPath(item.name).name) :]
        whole = item.image.relative_to(base).as_posix() if base else file
        stem = whole.removesuffix(item.image.suffix)
        for name in {composed(name) for name in (item.name, file, whole, stem, item.sequence)}:
            known.setdefault(name, []).append(item)
        ends.add(item, item.name, file)
        ends.add_whole(item, whole, stem)  # with the parts that a pattern leaves out of names
    chosen: dict[str, Item] = {}
    for entry in value:
        # the whole line, or the first word of a list of pairs, as CamVid has them
        for name in map(composed, (entry, *entry.split()[:1])):
            matches = known.get(name) or ends.match(name)
            if matches:
                break
        if matches and (len(matches) == 1 or name in known):
            chosen |= {item.name: item for item in matches}
        elif matches:
            findings.append(found("ambiguous-name", where, name=entry, count=len(matches)))
        else:
            remedy = did_you_mean(entry, known) if len(findings) < MAX_HINTS else ""
            if not remedy and not is_list and not entry.isascii():
                remedy = "save the list as UTF-8, if it is in another encoding"
            remedy = remedy or "correct the name, or take it out"
            findings.append(found("unknown-name", where, name=entry, remedy=remedy))
    return list(chosen.values())


def _items_in_folder(
    items: list[Item], where: str, folder: str, findings: list[Finding]
) -> list[Item]:
    prefix = composed(folder.rstrip("/") + "/")
    chosen = [item for item in items if composed(item.name).startswith(prefix)]
    if not chosen:
        folders = sorted({item.name.partition("/")[0] for item in items if "/" in item.name})
        names = {composed(name) for item in items for name in (item.sequence, item.name)}
        remedy = f"correct the name; there are {', '.join(folders[:5])}"
        if composed(folder) in names:
            remedy = f"write [{folder}]"
        elif not folders:
            remedy = "correct the name"
        findings.append(found("no-folder", where, value=folder, remedy=remedy))
    return chosen


class PathEnds:
    """Items by the ends of their paths, which may be from somebody else's machine."""

    def __init__(self):
        self._items: dict[str, dict[Item, None]] = {}  # of each end, the items in order, once
        self._whole: dict[str, list[Item]] = {}
        self._folders: set[str] = set()

    def add(self, item: Item, *paths: str) -> None:
        """Let each end of some paths name an item."""
        for path in map(composed, paths):
            parts = path.split("/")
            self._folders.update(parts[:-1])
            for first in range(len(parts)):
                self._items.setdefault("/".join(parts[first:]), {})[item] = None

    def add_whole(self, item: Item, *paths: str) -> None:
        """Let some paths name an item, of which no shorter end is known."""
        for path in map(composed, paths):
            self._whole.setdefault(path, [item])
            self._folders.update(path.split("/")[:-1])

    def match(self, entry: str) -> list[Item]:
        """Return the items that the longest end of a path that is known names."""
        if len(entry) > MAX_PATH_LENGTH:
            return []
        parts = composed(entry).replace("\\", "/").strip("/").split("/")
        for first in range(len(parts)):
            end = "/".join(parts[first:])
            if matches := self._items.get(end) or self._whole.get(end):
                # west/77 is not north/77, if there is a folder west here too
                return [] if first and parts[first - 1] in self._folders else list(matches)
        return []
