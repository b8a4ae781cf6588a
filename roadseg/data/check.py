"""Looks at every file of a data set once: all that is wrong, and what the set holds."""

import contextlib
import os
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from PIL import Image
from tabulate import tabulate
from tqdm import tqdm

from roadseg.data import survey
from roadseg.data.findings import BadData, Finding, found
from roadseg.data.images import FORMATS, CheckedItem, check_item, size_text
from roadseg.data.layout import Item, Source, natural_key
from roadseg.data.scenes import UNLABELLED

# What is tried to keep a class that images are too small for: shares of their sides, and the share
# of its images that are to keep it.
LARGER, KEPT = (1.25, 1.5, 2, 2.5, 3, 4, 6, 8), 0.9
Size = tuple[int, int]


def _counts() -> np.ndarray:
    return np.zeros(256, np.int64)


def _counts_by_size() -> dict:
    return defaultdict(_counts)


@dataclass
class Summary:
    """What a data set holds.

    Attributes
    ----------
    size : (height, width) that everything is brought to, if that is known
    pixels : split -> size, or None for the files' own -> int64 (256,), label pixels by class
    images : split -> size, or None -> int64 (256,), images that hold each class
    sizes : how many images have each (height, width)
    modes : how many images have each Pillow mode
    """

    source: Source
    size: Size | None
    notes: list[str]
    pixels: dict[str, dict[Size | None, np.ndarray]] = field(default_factory=dict)
    images: dict[str, dict[Size | None, np.ndarray]] = field(default_factory=dict)
    sizes: Counter = field(default_factory=Counter)
    modes: Counter = field(default_factory=Counter)

    @property
    def shown_size(self) -> Size | None:
        """The size that shares of pixels are shown at."""
        return self.size if self.size in self.pixels["train"] else None

    def __str__(self) -> str:
        """Return the summary that a clean check prints."""
        splits, classes = self.source.splits, list(self.source.palette)
        pixels = [counts[self.shown_size] for counts in self.pixels.values()]
        labelled = [counts[: len(classes)].sum() for counts in pixels]
        at_size = f" at {size_text(self.size)}" if self.shown_size else ""
        rows = [
            ["images", *(len(items) for items in splits.values())],
            ["sequences", *(len({item.sequence for item in items}) for items in splits.values())],
            ["not labelled, %", *(
                f"{100 * (1 - known / max(1, counts.sum())):.2f}"
                for known, counts in zip(labelled, pixels, strict=True)
            )],
            [f"share of labelled pixels{at_size}, %"],
        ]  # fmt: skip
        for index, name in enumerate(classes):
            shares = [
                f"{100 * counts[index] / max(1, known):.3f}" if counts[index] else "-"
                for known, counts in zip(labelled, pixels, strict=True)
            ]
            rows.append([name, *shares])
        lines = [
            tabulate(
                rows, headers=["", *splits], tablefmt="plain", disable_numparse=True,
                colalign=["left", *["right"] * len(splits)],
            )
        ]  # fmt: skip
        sizes = [f"{size_text(size)} ({n})" for size, n in self.sizes.most_common(4)]
        more = f" and {len(self.sizes) - 4} other sizes" if len(self.sizes) > 4 else ""
        lines.append(f"height x width (images): {', '.join(sizes)}{more}")
        for split, items in splits.items():
            sequences = list(dict.fromkeys(item.sequence for item in items))
            if len(sequences) < len(items):
                more = f" and {len(sequences) - 8} more" if len(sequences) > 8 else ""
                lines.append(f"{split}: {', '.join(sequences[:8])}{more}")
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])


def inspect_source(
    source: Source,
    size: Size | None = None,
    keep: Callable[[str, int, CheckedItem], None] | None = None,
    sizes: Sequence[Size] = (),
) -> Summary:
    """Look at every item of a data set, in order, on all cores.

    Parameters
    ----------
    size : (height, width) to bring everything to; None keeps the files' own
    keep : called with split, index and what was read of each item, as long as nothing was wrong
    sizes : those to count the classes at, if `size` is not decided yet, see `lost_classes`

    Raises
    ------
    BadData : everything that is wrong with any file
    """
    summary, findings = Summary(source, size, list(source.notes)), list(source.findings)
    if size and not source.draw:  # which draws at that size
        sizes = larger_sizes(size)
    for split in source.splits:
        summary.pixels[split], summary.images[split] = _counts_by_size(), _counts_by_size()
    images_by_digest: dict[bytes, tuple[str, Item]] = {}
    alignment, overlap = survey.Alignment(), 0
    in_order = sorted(map(_label_key, source.items), key=natural_key)
    position = {key: number for number, key in enumerate(in_order)}
    for split, index, checked in _checked_items(source, size, keep is not None, sizes):
        findings += checked.findings
        if not checked.pixels and not checked.findings and not source.findings:
            findings += _vanished(source, checked.item)
        for key, counts in checked.pixels.items():
            summary.pixels[split][key] += counts
            summary.images[split][key] += counts > 0
        if checked.size:
            summary.sizes[checked.size] += 1
            summary.modes[checked.mode] += 1
            first = images_by_digest.setdefault(checked.image_digest, (split, checked.item))
            findings += _duplicate(source, split, checked.item, *first)
        if checked.thumbnail:
            alignment.add(position[_label_key(checked.item)], *checked.thumbnail)
        overlap += checked.overlap
        if keep and not findings:
            keep(split, index, checked)
    if not source.user_defined and not source.findings:  # else the listing has said so
        findings += [found("empty-split", part) for part, items in source.splits.items()
                     if not items]  # fmt: skip
    findings += _class_findings(summary, findings)
    if findings:
        raise BadData(source.root, findings)
    summary.notes += _notes(summary, alignment, overlap)
    if size in sizes:
        summary.notes += lost_classes(summary, size)
    return summary


def _checked_items(
    source: Source, size: Size | None, keep: bool, sizes: Sequence[Size]
) -> Iterator[tuple[str, int, CheckedItem]]:
    """Look at items on all cores, in order, a few at a time: memory does not grow with the set.

    Returns split, number in it, and what was read of each.
    """
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # it is a finding here
    cores, total = os.cpu_count() or 1, len(source.items)
    check = partial(check_item, source, size=size, keep=keep, sizes=sizes)
    with (
        ThreadPoolExecutor(cores) as pool,
        tqdm(total=total, unit=" images", desc="reading", disable=None, leave=False) as bar,
    ):
        for split, items in source.splits.items():
            for first in range(0, len(items), 4 * cores):
                part = items[first : first + 4 * cores]
                for index, checked in enumerate(pool.map(check, part), first):
                    bar.update()
                    yield split, index, checked


def _label_key(item: Item) -> str:
    return f"{item.labels}/{item.name}"  # one file may hold the labels of several images


def header_size(source: Source) -> Size:
    """Return the most frequent height and width of a data set's images, by the files' heads.

    Raises
    ------
    BadData : none can be read
    """
    sizes: Counter = Counter()
    for item in source.items:
        with contextlib.suppress(Exception):  # which `inspect_source` names
            if os.path.isfile(item.image):
                with Image.open(item.image, formats=FORMATS) as image:
                    sizes[image.size[::-1]] += 1
    if not sizes:
        inspect_source(source)
    return sizes.most_common(1)[0][0]


# Findings ----------------------------------------------------------------------------------------


def _vanished(source: Source, item: Item) -> list[Finding]:
    """Return findings for files that were there when the folder was listed, and are not now."""
    files = [file for file in item.files if not os.path.isfile(file)]
    return [found("vanished", file.relative_to(source.root).as_posix()) for file in files]


def _duplicate(
    source: Source, split: str, item: Item, other_split: str, other: Item
) -> list[Finding]:
    """Return the finding that one image is in two splits."""
    if split == other_split:
        return []
    name, other_name = (i.image.relative_to(source.root).as_posix() for i in (item, other))
    return [found("duplicate", name, split=split, other=other_name, other_split=other_split)]


def _class_findings(summary: Summary, findings: list[Finding]) -> list[Finding]:
    """Return findings for splits without labels and for the user's classes that never occur."""
    if findings:
        return []  # what could not be read may hold the class
    classes = list(summary.source.palette)
    pixels = {split: counts[None] for split, counts in summary.pixels.items()}
    empty = [split for split, counts in pixels.items() if not counts[: len(classes)].any()]
    if empty:
        return [found("nothing-labelled", split) for split in empty]
    everywhere, hint = sum(pixels.values()), ""
    if everywhere[UNLABELLED]:
        share = survey.percent(everywhere[UNLABELLED] / everywhere.sum())
        hint = f"; {share} of the pixels count as not labelled: is it among these?"
    absent = [name for index, name in enumerate(classes) if not everywhere[index]]
    return [
        found("absent-class", f"class {name}", hint=hint)
        for name in absent
        if summary.source.user_defined
    ]


# Notes -------------------------------------------------------------------------------------------


def _notes(summary: Summary, alignment: survey.Alignment, overlap: int) -> list[str]:
    """Return what is not wrong but worth knowing."""
    source, size, total = summary.source, summary.size, len(summary.source.items)
    notes, fit = _sequence_notes(source), alignment.fit()
    if fit.file != "own":
        notes.append(
            f"The edges in {survey.percent(fit.share)} of the images fit the labels of the "
            f"{fit.file} file better than their own. If label files are off by one, rename them."
        )
    if overlap:
        everything = sum(pixels[None].sum() for pixels in summary.pixels.values())
        notes.append(
            f"{survey.percent(overlap / everything)} of the pixels are in several classes: each is "
            "of the one that is named last under classes."
        )
    for mode, count in summary.modes.items():
        if mode != "RGB":
            notes.append(f"Images of mode {mode}, read as RGB: {count}.")
    for (height, width), count in summary.sizes.most_common() if size else ():
        stretch = (size[1] / size[0]) / (width / height)
        if not 0.9 < stretch < 1.1:
            notes.append(
                f"{count} of {total} images, of {height} x {width}, become {size_text(size)}: "
                f"things get {stretch:.2f} times as wide for their height."
            )
    train = summary.pixels["train"]
    for index, name in enumerate(source.palette):
        occurs = any(pixels[None][index] for pixels in summary.pixels.values())
        if occurs and not train[summary.shown_size][index]:
            at_size = f" at {size_text(size)}" if train[None][index] else ""
            notes.append(f"{name} is not in train{at_size}, so no network can learn it.")
    return notes


def _sequence_notes(source: Source) -> list[str]:
    """Return what people should know about the videos that the images come from."""
    sequences = {split: {i.sequence for i in items} for split, items in source.splits.items()}
    has_names = any(item.sequence != item.name for item in source.items)
    has_groups = sum(map(len, sequences.values())) < len(source.items)
    if source.user_defined and has_names and not has_groups:
        return [
            "No two images of a split are of one sequence. If there are videos, sequence: takes "
            "too much of the names; try (.+?)_ for what stands before the first _."
        ]
    test = sequences.get("test", ())
    if len(test) == 1 < len(source.splits["test"]):
        (name,) = test
        return [f"All test images are of one sequence, {name}: scores say little about others."]
    return []


def larger_sizes(size: Size) -> list[Size]:
    """Return a size and larger ones of its shape, in whole fours: where may a class be kept?"""
    return [size, *(tuple(4 * round(f * side / 4) for side in size) for f in LARGER)]


def lost_classes(summary: Summary, size: Size) -> list[str]:
    """Return a note for each class that fewer than half of a split's images keep at a size.

    Labels are resized by taking the nearest pixel: shares of pixels hold, on average, but lines
    and specks that are thinner than the step between these pixels fall between them.
    """
    notes = []
    larger = [s for s in summary.images["train"] if s and s[0] * s[1] > size[0] * size[1]]
    for index, name in enumerate(summary.source.palette):
        counts = {  # of the splits that lose it: size -> how many images hold the class
            split: {key: images[index] for key, images in by_size.items()}
            for split, by_size in summary.images.items()
            if by_size[size][index] < by_size[None][index] / 2
        }
        if not counts:
            continue
        kept = (s for s in sorted(larger) if all(n[s] >= KEPT * n[None] for n in counts.values()))
        keeps = next((f"{size_text(s)} keeps it" for s in kept), "no size tried keeps it")
        left = ", ".join(f"{n[size]} of {n[None]} {split}" for split, n in counts.items())
        notes.append(
            f"{name} is too small for {size_text(size)}: it is left in {left} images that have "
            f"it. {keeps}."
        )
    return notes
