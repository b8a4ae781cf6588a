"""What can be wrong with a data set: the words for each kind of fault, and a table of all."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

from PIL import Image
from tabulate import tabulate

from roadseg.errors import InputError, escaped

MAX_FILES = 5  # that one row of a message's table names; more findings of one kind share a row
MAX_CELL_LENGTH = 400  # characters that one of its cells shows

WHOLE = f"a whole image file of at most {Image.MAX_IMAGE_PIXELS // 10**6} million pixels"
PLAIN = "8-bit RGB, grey or palette"
ONE_VALUE = "a PNG with one id or colour per pixel"
PAIR = "an image and a label image of one name"
NAMES = "names of images, with or without ending, or of sequences"
ONE_SPLIT = "each image in one split"
OUTLINES = "annotations with outlines or run-length codes, in their image"
# Kind of fault -> what is wrong, what would be right, how to mend it.
KINDS = {
    # image files
    "unreadable": ("cannot be decoded ({cause})", WHOLE, "restore the file"),
    "no-permission": ("may not be read", WHOLE, "give the right to read it"),
    "empty-file": ("is empty", WHOLE, "restore the file"),
    "too-large": ("has too many pixels", WHOLE, "cut it into tiles, or make it smaller"),
    "lfs-pointer": ("is a Git LFS pointer, not the picture", WHOLE, "run: git lfs pull"),
    "gif": ("is a GIF", WHOLE, "save it as PNG"),
    "json": (
        "is JSON, not a picture", WHOLE,
        "say values: labelme or coco, or export label images as PNG",
    ),
    "several-pictures": ("holds several pictures", "one picture per file", "save the one meant"),
    "turned": (
        "is stored turned (EXIF orientation {orientation})",
        "pixels stored upright, as the labels are",
        "mogrify -auto-orient {quoted}, and see that its labels fit",
    ),
    "image-format": (
        "has {mode}", PLAIN, "mogrify -colorspace sRGB -depth 8 {quoted}",
    ),
    "transparent-image": ("has transparent pixels", PLAIN, "mogrify -alpha off {quoted}"),
    "vanished": ("has vanished since the check began", "a file that stays", "put it back"),
    # label files
    "label-format": (
        "has {mode}", ONE_VALUE, "export the labels as PNG of 8 bits",
    ),
    "transparent-labels": (
        "has transparent pixels", ONE_VALUE, "export the labels without transparency",
    ),
    "lossy-labels": (
        "is {format}, which changes label values", ONE_VALUE, "export the labels as PNG{hint}",
    ),
    "colour-labels": (
        "is a colour image", "ids: one number per pixel",
        "say values: colours and the colour of each class, or export ids",
    ),
    "palette": (
        "{contradiction}", "ids in the order of the classes",
        "export again with the right order, or say values: colours",
    ),
    "values": ("{values} in {share} of the pixels", "{allowed}", "{remedy}"),
    "smoothed": (
        "{values} in {share} of the pixels", "{allowed}",
        "export again without smoothing; resize with nearest only, never save as JPEG{hint}",
    ),
    "all-black": (
        "holds only {levels}, below the threshold", "{threshold} or more for white",
        "write 255 for white, or take threshold: out",
    ),
    "size": (
        "is {size}, its image {image_size}", "the same height and width as its image",
        "check that the two belong together; resize labels with nearest only",
    ),
    "turned-labels": (
        "is {size}, its image {image_size}", "the same height and width as its image",
        "turn one of the two",
    ),
    "mask-sizes": (
        "and the other masks of its image are {sizes}", "masks of one size", "export them again",
    ),
    # files that belong together
    "unprintable-name": (
        "has characters in its name that cannot be printed", "names that can be read",
        "rename it, and its label image",
    ),
    "same-name": (
        "has the name of {other}", "one image of each name", "rename or remove one of the two",
    ),
    "no-labels-at-all": (
        "holds no label image for any of the {count} images; {expected} was looked for, {present} "
        "is there",
        "a label image for each image", "correct how dataset.yaml says they are named, or put "
        "them there",
    ),
    "listed-missing": (
        "is listed, but missing", "an image and a label image for each line",
        "put both there, or take it out of the list",
    ),
    "listed-twice": (
        "lists {name} more than once", "each image once", "take the other lines out",
    ),
    "missing": (
        "is missing, though {other} is there", PAIR, "{hint}, or take the other away",
    ),
    "no-file": (
        "is no file, or leads to none, though {other} is there", PAIR,
        "put the file there, or take the other away",
    ),
    "orphan": (
        "is a label image without an image", "one image for each label image",
        "add the image, or take the file away",
    ),
    "own-labels": (
        "is its own label file", "a label file for each image", "correct {key}",
    ),
    "shared-labels": (
        "and {other} have one label file, {labels}", "a label file for each image", "correct {key}",
    ),
    "no-mask-at-all": (
        "no image has a mask {pattern}; {expected} was looked for", "masks of each class",
        "correct the pattern, or labels:, or take the class out",
    ),
    "mask-name": (
        "is missing, though {other} is there", "masks named as the pattern says",
        "rename the other: it has other letters or accents",
    ),
    "no-sequence": (
        "does not match {count} names, such as {name}", "a match for every name",
        "correct the expression",
    ),
    # splits
    "two-splits": (
        "is in {first} and in {second}", ONE_SPLIT, "take it out of one under splits: in {file_of}",
    ),
    "no-list": (
        "no file {value}", "a text file with one image per line", "correct the name",
    ),
    "no-folder": (
        "no image lies in a folder {value}",
        "a folder below images:, a .txt file, a list, or a fraction", "{remedy}",
    ),
    "unknown-name": ("{name} is no image and no sequence", NAMES, "{remedy}"),
    "ambiguous-name": ("{name} names {count} images", NAMES, "write the folder before it"),
    "empty-split": (
        "has no image", "one image or more", "give it images: a list, a folder, or a larger "
        "fraction",
    ),
    "no-sequence-left": (
        "has no image: whole sequences are shared out, and {count} were left", "one image or more",
        "{remedy}",
    ),
    # outlines
    "json-encoding": (
        "is not UTF-8 text", "a JSON file of {tool}, with {key}", "save it in that encoding",
    ),
    "json-unreadable": (
        "cannot be read ({cause})", "a JSON file of {tool}, with {key}",
        "give the right to read it",
    ),
    "no-json": (
        "is not JSON ({cause})", "a JSON file of {tool}, with {key}", "export it again from {tool}",
    ),
    "json-key": ("has no {key}", "a JSON file of {tool}, with {key}", "{remedy}"),
    "label": ("label {label!r} is in no class{shapes}", "{allowed}", "{remedy}"),
    "labelme-size": (
        "has imageHeight {height!r} and imageWidth {width!r}",
        "the image's height and width, as whole numbers", "correct them, or take both out",
    ),
    "labelme-shape": (
        "shape {number}, {label!r}, {fault}", "polygon, rectangle, circle and mask shapes in the "
        "image",
        "mend it in labelme, or take it out",
    ),
    "coco-table": (
        "{key}: {good} of {count} have an id of their own and {needed}",
        "those of COCO's instances", "export it again",
    ),
    "coco-sizes": (
        "images: {count} have no height and width, such as {name}", "both, as whole numbers",
        "export it again",
    ),
    "coco-twins": (
        "images: {count} have the file_name {name}", "one entry for each image",
        "merge them, with their annotations, or correct one",
    ),
    "coco-annotation": (
        "annotation {numbers} {fault}", OUTLINES, "mend or remove them, and export again",
    ),
    "coco-file-name": (
        "{what} the file_name {name}", "one image for each file_name",
        "add the image, or correct images:",
    ),
    "coco-entry": (
        "is not among the images of {labels}", "an entry for each image",
        "add it there, or take the image away",
    ),
    # the whole set
    "duplicate": (
        "is in {split}, the same image as {other} in {other_split}", ONE_SPLIT,
        "take one of the two out",
    ),
    "nothing-labelled": (
        "no pixel of any label image is labelled", "some labelled pixels",
        "check the label images, or unlabelled:",
    ),
    "absent-class": (
        "never occurs in any label image", "classes that occur",
        "correct its value under classes:, or leave it out and write the others as 'name: value' "
        "lines, so that they keep their values{hint}",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong in a data set.

    Attributes
    ----------
    code : its kind, a key of `KINDS`
    file : where it is
    finding, allowed, remedy : what it is, what would be right, what to do
    """

    code: str
    file: str
    finding: str
    allowed: str
    remedy: str

    def __str__(self) -> str:
        file, finding, allowed, remedy = map(printable, (self.file, *self.texts))
        end = "" if remedy.endswith("?") else "."
        return f"{file}: {finding}. Allowed: {allowed}. Remedy: {remedy}{end}"

    @property
    def texts(self) -> tuple[str, str, str]:
        """What was found, what would be right, what to do."""
        return self.finding, self.allowed, self.remedy


def found(code: str, file: str, **details) -> Finding:
    """Return a finding of a kind, with these details in its words."""
    details |= {"quoted": quote(file)}
    return Finding(code, file, *(words.format(**details) for words in KINDS[code]))


class BadData(InputError):
    """Everything that is wrong with a data set, as one table.

    Findings in the same words share a row, and so do those of one kind, if there are many.

    Attributes
    ----------
    findings : all of them, in order
    """

    def __init__(self, where: Path | str, findings: Iterable[Finding]):
        self.findings = list(findings)
        counts, groups = Counter(finding.code for finding in self.findings), {}
        for finding in self.findings:
            is_frequent = counts[finding.code] > MAX_FILES
            groups.setdefault(finding.code if is_frequent else finding.texts, []).append(finding)
        rows = []
        for group in groups.values():
            files = list(dict.fromkeys(finding.file for finding in group))
            names = [printable(file) for file in files[:MAX_FILES]]
            names += [f"and {len(files) - MAX_FILES} more"] * (len(files) > MAX_FILES)
            what, *others = map(printable, group[0].texts)
            if len({finding.finding for finding in group}) > 1:
                what = f"{what} (the first of {len(group)}; the others alike)"
            rows.append(["\n".join(names), what, *others])
        table = tabulate(
            rows, headers=["file", "finding", "allowed", "remedy"], tablefmt="simple_grid",
            maxcolwidths=[34, 30, 24, 34], disable_numparse=True,
        )  # fmt: skip
        shares_rows = max(counts.values(), default=0) > MAX_FILES
        more = "\nEvery one: python -m roadseg check FOLDER --all" * shares_rows
        total = f"{len(self.findings)} problem{'s' * (len(self.findings) != 1)}"
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
