"""Looks at every file of a data set once, and finds all that is wrong with any of them."""

import contextlib
import hashlib
import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote

import numpy as np
from PIL import Image
from tqdm import tqdm

from roadseg.data import survey
from roadseg.data.layout import NOT_ALLOWED, BadData, Coding, Finding, Item, Source, natural_key
from roadseg.data.polygons import draw_coco, paint, read_labelme
from roadseg.data.scenes import UNLABELLED

ORIENTATION = 0x0112  # the EXIF tag
SAMPLES_PER_PIXEL = 277  # the TIFF tag
# Those of layout.IMAGE_ENDINGS. Of the others that Pillow knows some run programs (EPS), and many
# are hardly ever read, with faults that nobody looks for.
FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "PPM")
# How files begin that are taken for pictures: what they are, and what to do.
NO_PICTURES = (
    (b"version https://git-lfs", "is a Git LFS pointer, not the picture", "run: git lfs pull"),
    (b"GIF8", "is a GIF", "save it as PNG"),
    (b"{", "is JSON, not a picture", "say values: labelme or coco, or export label images as PNG"),
)
# What is tried to keep a class that images are too small for: shares of their sides, and the share
# of its images that are to keep it.
LARGER, KEPT = (1.25, 1.5, 2, 2.5, 3, 4, 6, 8), 0.9
SMOOTHED = 10  # with more values that are not allowed a label image was smoothed or is a photo
PLAIN_IMAGE = "8-bit RGB, grey or palette"
BLACK, WHITE = (0, 0, 0), (255, 255, 255)
GOOD_LABELS = "a PNG with one id or colour per pixel"


@dataclass
class CheckedItem:
    """What came of looking at one item; arrays are None where they could not be had.

    Attributes
    ----------
    image : uint8 (3, H, W); labels : uint8 (H, W), 255 where not labelled; both of the size asked
    size : height and width of the files
    pixels : int64 (256,), label pixels by class at the files' size
    resized_pixels : the same at other sizes, see `_resized_pixels`
    image_digest : digest of the image's pixels, equal for equal images
    thumbnail : the two, small, where they were read from files
    overlap : how many pixels are in masks or outlines of several classes
    """

    item: Item
    findings: list[Finding] = field(default_factory=list)
    image: np.ndarray | None = None
    labels: np.ndarray | None = None
    size: tuple[int, int] | None = None
    pixels: np.ndarray | None = None
    resized_pixels: dict[tuple[int, int], np.ndarray] = field(default_factory=dict)
    image_digest: bytes = b""
    thumbnail: tuple[np.ndarray, np.ndarray] | None = None
    overlap: int = 0
    mode: str = "RGB"


def check_item(
    source: Source,
    item: Item,
    size: tuple[int, int] | None = None,
    keep: bool = True,
    sizes: Sequence[tuple[int, int]] = (),
) -> CheckedItem:
    """Read one item and check it.

    Parameters
    ----------
    size : (height, width) to bring image (box filter) and labels (nearest) to; None keeps the
        files' own
    keep : False leaves image and labels out of what is returned
    sizes : further sizes to count label pixels at

    Returns
    -------
    What was read, and a finding for everything that is wrong with the two files
    """
    checked = CheckedItem(item)
    if source.draw:
        image, labels = source.draw(item)
        labels_image = Image.fromarray(labels)
        picture = Image.fromarray(image)
    else:
        picture = _read_image(source, item, checked)
        labels = _read_labels(source, item, picture.size[::-1] if picture else None, checked)
        if picture and labels is not None and labels.shape != picture.size[::-1]:
            turned = labels.shape == picture.size
            if not (turned and picture.info["turned"]):  # labels fit the image as it is shown
                _adder(source, item.labels, checked)(
                    f"is {_size_text(labels.shape)}, its image {_size_text(picture.size[::-1])}",
                    "the same height and width as its image",
                    "turn one of the two" if turned else
                    "check that the two belong together; resize labels with nearest only",
                )  # fmt: skip
            labels = None
        labels_image = None if labels is None else Image.fromarray(labels)
    if picture is not None:
        checked.image_digest = hashlib.blake2b(picture.tobytes(), digest_size=16).digest()
        checked.size = picture.size[::-1]
    if labels_image is not None:
        checked.pixels = np.bincount(labels.ravel(), minlength=256)
    if checked.findings or picture is None or labels_image is None:
        return checked
    checked.resized_pixels = _resized_pixels(labels_image, sizes)
    if not source.draw:
        checked.thumbnail = survey.thumbnail(np.asarray(picture), labels, height=180)
    if not keep:
        return checked
    if size and size != checked.size:
        picture = picture.resize(size[::-1], Image.Resampling.BOX)
        labels_image = labels_image.resize(size[::-1], Image.Resampling.NEAREST)
    checked.image = np.asarray(picture).transpose(2, 0, 1)
    checked.labels = np.asarray(labels_image)
    return checked


def _resized_pixels(
    labels: Image.Image, sizes: Sequence[tuple[int, int]]
) -> dict[tuple[int, int], np.ndarray]:
    """Count label pixels by class at some sizes, (height, width) -> int64 (256,).

    Made larger in both directions, an image keeps each of its pixels: then its own count is given.
    """
    counts = {}
    for size in sizes:
        shrinks = size[1] < labels.width or size[0] < labels.height
        resized = labels.resize(size[::-1], Image.Resampling.NEAREST) if shrinks else labels
        counts[size] = np.array(resized.histogram())
    return counts


def _file_name(source: Source, file: Path) -> str:
    return file.relative_to(source.root).as_posix()


def _size_text(shape: tuple[int, int]) -> str:
    return f"{shape[0]} x {shape[1]}"


def _decode(source: Source, file: Path, checked: CheckedItem) -> Image.Image | None:
    """Decode a file, or note why that cannot be."""
    name = _file_name(source, file)
    if not os.path.isfile(file):
        return None  # the listing has said so
    requirement = f"a whole image file of at most {Image.MAX_IMAGE_PIXELS // 10**6} million pixels"
    try:
        image = Image.open(file, formats=FORMATS)
        if image.width * image.height > Image.MAX_IMAGE_PIXELS:
            raise Image.DecompressionBombError
        # Pillow reads some files of 16 bits by their high bytes; only their raw mode tells.
        has_16_bits = ";16" in str(image.tile) and not image.mode.startswith("I")
        scale = 17 if "L;4" in str(image.tile) else 85 if "L;2" in str(image.tile) else 1
        # Pillow drops those channels of a TIFF that it has no mode for
        channels = getattr(image, "tag_v2", {}).get(SAMPLES_PER_PIXEL, 0)
        image.load()
        if image.mode == "P" and not image.palette:
            raise OSError("its palette is missing")
        if "transparency" in image.info:
            image.convert("RGBA")  # fails where it contradicts the palette
        # Not their number: some claim any, and counting them takes hours in a TIFF of a million.
        has_frames = getattr(image, "is_animated", False)
        orientation = image.getexif().get(ORIENTATION, 1)
    except Exception as problem:  # Pillow's decoders raise anything from OSError to SyntaxError
        what, remedy = _explain_unreadable(file, problem)
        checked.findings.append(Finding(name, what, requirement, remedy))
        return None
    if has_16_bits:
        of_labels = file != checked.item.image
        remedy = (
            "export the labels as 8-bit PNG" if of_labels else f"mogrify -depth 8 {quote(name)}"
        )
        checked.findings.append(
            Finding(
                name, "has 16 bits per channel", GOOD_LABELS if of_labels else PLAIN_IMAGE, remedy
            )
        )
        return None
    image.info["channels"] = channels
    image.info["scale"] = scale  # by which Pillow spreads the values of 2 or 4 bits over 0 to 255
    if has_frames:
        checked.findings.append(
            Finding(name, "holds several pictures", "one picture per file", "save the one meant")
        )
    image.info["turned"] = orientation in range(2, 9)
    if image.info["turned"]:  # other values mean nothing
        checked.findings.append(
            Finding(
                name,
                f"is stored turned (EXIF orientation {orientation})",
                "pixels stored upright, as the labels are",
                f"mogrify -auto-orient {quote(name)}, and see that its labels fit",
            )
        )
    return image


def _explain_unreadable(file: Path, problem: Exception) -> tuple[str, str]:
    """Return why a file cannot be decoded, and what to do about it."""
    if isinstance(problem, PermissionError):
        return "may not be read", "give the right to read it"
    if isinstance(problem, Image.DecompressionBombError):
        return "has too many pixels", "cut it into tiles, or make it smaller"
    try:
        with open(file, "rb") as content:
            start = content.read(24)
    except OSError:
        start = b"?"
    if not start:
        return "is empty", "restore the file"
    for magic, what, remedy in NO_PICTURES:
        if start.startswith(magic):
            return what, remedy
    return f"cannot be decoded ({_brief_cause(problem)})", "restore the file"


def _brief_cause(problem: Exception) -> str:
    text = str(problem) or type(problem).__name__
    return "no known image format" if "cannot identify" in text else text.split("\n")[0][:80]


def _read_image(source: Source, item: Item, checked: CheckedItem) -> Image.Image | None:
    image = _decode(source, item.image, checked)
    if image is None:
        return None
    checked.mode = image.mode
    if image.mode == "RGB" and image.info["channels"] > 3:
        checked.mode = f"RGB with {image.info['channels']} channels"
    name = _file_name(source, item.image)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        if image.getextrema()[3][0] < 255:
            checked.findings.append(
                Finding(
                    name, "has transparent pixels", PLAIN_IMAGE, f"mogrify -alpha off {quote(name)}"
                )
            )
    elif image.mode not in ("RGB", "L", "P", "1"):
        what = {"CMYK": "is CMYK", "F": "holds floating-point numbers"}.get(
            image.mode, f"has 16 bits or more per channel (mode {image.mode})"
            if image.mode.startswith("I") else f"has mode {image.mode}"
        )  # fmt: skip
        how = "-colorspace sRGB" if image.mode == "CMYK" else "-depth 8"
        checked.findings.append(Finding(name, what, PLAIN_IMAGE, f"mogrify {how} {quote(name)}"))
        return None
    return image.convert("RGB")


def _read_labels(
    source: Source, item: Item, size: tuple[int, int] | None, checked: CheckedItem
) -> np.ndarray | None:
    """Return the classes uint8 (H, W) of an item, or note what is wrong with its label files.

    `size` is that of its image, if it could be read.
    """
    coding = source.coding
    add = _adder(source, item.labels, checked)
    labels = None
    if coding.kind == "coco":
        annotation = source.annotations.get(item.name)  # if not, the listing has said so
        if annotation:
            labels, checked.overlap = draw_coco(annotation, coding)
    elif coding.kind == "labelme":
        if os.path.isfile(item.labels):
            labels, checked.overlap = read_labelme(item.labels, coding, size, add)
    elif coding.kind == "masks":
        masks = [(n, _read_label_image(source, file, checked)) for n, file in item.masks]
        shapes = {mask.shape for _, mask in masks if mask is not None}
        if len(shapes) > 1:
            sizes = " and ".join(_size_text(shape) for shape in sorted(shapes))
            add(f"and the other masks of its image are {sizes}", "masks of one size",
                "export them again")  # fmt: skip
        elif shapes and not any(mask is None for _, mask in masks):
            masks = [(number, mask > 0) for number, mask in masks]
            labels, checked.overlap = paint(*shapes, coding.rest, masks)
    else:
        labels = _read_label_image(source, item.labels, checked)
    return labels


def _adder(source: Source, file: Path, checked: CheckedItem) -> Callable[[str, str, str], None]:
    """Return a function that notes what is wrong with a file, what is allowed, what to do."""

    def add(finding: str, allowed: str, remedy: str) -> None:
        checked.findings.append(Finding(_file_name(source, file), finding, allowed, remedy))

    return add


def _read_label_image(source: Source, file: Path, checked: CheckedItem) -> np.ndarray | None:
    """Return what a label image's values mean, uint8 (H, W), or note what is wrong with it."""
    image, coding = _decode(source, file, checked), source.coding
    if image is None:
        return None
    add_finding = _adder(source, file, checked)
    lossy = "" if coding.threshold else _lossy_format(image, file)
    if lossy:
        remedy = "export the labels as PNG" + _threshold_hint(source, np.asarray(image))
        add_finding(f"is {lossy}, which changes label values", GOOD_LABELS, remedy)
        return None
    if image.mode in ("RGBA", "LA", "PA"):
        if image.getchannel("A").getextrema()[0] < 255:
            add_finding(
                "has transparent pixels", GOOD_LABELS, "export the labels without transparency"
            )
            return None
        image = image.convert("L" if image.mode == "LA" else "RGB")
    modes = ["1", "L", "P", "RGB"]
    modes += ["I", "I;16", "I;16B", "I;16L"] * (coding.kind != "colours")
    if image.mode not in modes:
        add_finding(f"has mode {image.mode}", GOOD_LABELS, "export the labels as 8-bit PNG")
        return None
    if coding.kind == "colours":
        rgb = np.asarray(image.convert("RGB")).astype(np.uint32)
        values = rgb[..., 0] << 16 | rgb[..., 1] << 8 | rgb[..., 2]
    elif image.mode == "RGB":
        rgb = np.asarray(image)
        if (rgb != rgb[..., :1]).any():
            add_finding(
                "is a colour image",
                "ids: one number per pixel",
                "say values: colours and the colour of each class, or export ids",
            )
            return None
        values = rgb[..., 0]
    else:
        scale = 1 if coding.threshold else image.info.get("scale", 1)
        if image.mode == "P" and (coding.threshold or _is_black_and_white_mask(image, coding)):
            image = image.convert("L")
        values = np.asarray(image).astype(np.int64) // scale
        if image.mode == "1" and coding.white_is_255:
            values *= 255  # white, as an image of 8 bits has it
        if image.mode == "P" and (problem := _palette_contradiction(image, values, source)):
            add_finding(problem, "ids in the order of the classes",
                        "export again with the right order, or say values: colours")  # fmt: skip
            return None
    if 0 < values.max() < coding.threshold and len(levels := np.unique(values)) <= 2:
        add_finding(f"holds only {' and '.join(map(str, levels))}, below the threshold",
                    f"{coding.threshold} or more for white",
                    "write 255 for white, or take threshold: out")  # fmt: skip
        return None
    inside = (values >= 0) & (values < len(coding.table))
    labels = coding.table[np.where(inside, values, 0)]
    not_allowed = ~inside | (labels == NOT_ALLOWED)
    if not_allowed.any():
        bad_values = np.unique(values[not_allowed])
        remedy = coding.remedy
        if len(bad_values) > SMOOTHED:
            remedy = "export again without smoothing; resize with nearest only, never save as JPEG"
            remedy += _threshold_hint(source, values)
        add_finding(
            _describe_values(values[not_allowed], not_allowed.size, coding), coding.allowed, remedy
        )
        return None
    return labels


def _threshold_hint(source: Source, values: np.ndarray) -> str:
    """Return what else may be done about masks whose edges are soft, or ''."""
    two = source.coding.kind == "ids" and source.user_defined and len(source.palette) == 2
    is_mask = (two or source.coding.kind == "masks") and 128 <= values.max() <= 255
    return "; or, if these are masks with soft edges, say threshold: 128" if is_mask else ""


def _lossy_format(image: Image.Image, file: Path) -> str:
    """Return in words the format of a label image that does not keep its values, or ''."""
    if image.format == "JPEG":
        return "a JPEG"
    if image.format == "TIFF" and "jpeg" in image.info.get("compression", ""):
        return "a TIFF compressed as JPEG"
    if image.format == "WEBP":
        with open(file, "rb") as content:
            return "" if b"VP8L" in content.read(1024) else "a lossy WebP"
    return ""


def _is_black_and_white_mask(image: Image.Image, coding: Coding) -> bool:
    """Return whether an image of the pixels of one class says black and white by its palette.

    Its ids may be in any order: some tools give white the id 0.
    """
    colours = [colour for _, colour in image.convert("RGB").getcolors()]
    has_all = len(colours) == len(image.getcolors())  # else the palette tells less than the ids
    return coding.kind == "masks" and has_all and {*colours} <= {BLACK, WHITE}


def _palette_contradiction(image: Image.Image, values: np.ndarray, source: Source) -> str:
    """Return where a palette says another class than the id does, or ''."""
    palette = np.array(image.getpalette("RGB")).reshape(-1, 3)
    classes, used = list(source.palette), np.unique(values[values < len(palette)])
    is_inverse = used.tolist() == [0, 1] and palette[:2].tolist() == [[*WHITE], [*BLACK]]
    if is_inverse and source.user_defined and WHITE not in source.coding.colours:
        return "id 0 is drawn white and id 1 black, the reverse of a mask"
    for value in used:
        label = source.coding.table[value]
        colour_class = source.coding.colours.get(tuple(palette[value].tolist()))
        if colour_class and label < len(classes) and colour_class != classes[label]:
            return f"id {value} ({classes[label]}) is drawn in the colour of {colour_class}"
    return ""


def _describe_values(bad_values: np.ndarray, pixels: int, coding: Coding) -> str:
    """Return which values are not allowed, in words: the three most frequent, in order."""
    values, counts = np.unique(bad_values, return_counts=True)
    order = np.sort(np.argsort(-counts, kind="stable")[:3])
    if coding.kind == "colours":
        listed = [f"[{v >> 16}, {v >> 8 & 255}, {v & 255}]" for v in values[order].tolist()]
    else:
        listed = [str(v) for v in values[order].tolist()]
    more = f" and {len(values) - 3} more" if len(values) > 3 else ""
    what = "colour" if coding.kind == "colours" else "value"
    share = survey.percent(len(bad_values) / pixels)
    return f"{what}{'s' * (len(values) > 1)} {', '.join(listed)}{more} in {share} of the pixels"


# The whole set -----------------------------------------------------------------------------------


@dataclass
class Summary:
    """What a data set holds.

    Attributes
    ----------
    pixels : split -> int64 (256,), label pixels by class, at the files' size
    size : (height, width) that everything is brought to, if that is known
    resized_pixels : split -> label pixels by class at that size
    images : split -> size, or None for the files' own -> int64 (256,), images that hold each class
    sizes : how many images have each (height, width)
    modes : how many images have each Pillow mode
    """

    source: Source
    pixels: dict[str, np.ndarray]
    sizes: Counter
    modes: Counter
    notes: list[str]
    size: tuple[int, int] | None = None
    resized_pixels: dict[str, np.ndarray] = field(default_factory=dict)
    images: dict[str, dict[tuple[int, int] | None, np.ndarray]] = field(default_factory=dict)

    def __str__(self) -> str:
        """Return the summary that a clean check prints."""
        splits = self.source.splits
        lines = [f"{'':<22}" + "".join(f"{split:>10}" for split in splits)]

        def row(name: str, values: list[str]) -> None:
            lines.append(f"{name[:21]:<22}" + "".join(f"{value:>10}" for value in values))

        row("images", [str(len(items)) for items in splits.values()])
        row("sequences", [str(len({i.sequence for i in items})) for items in splits.values()])
        pixels = self.resized_pixels or self.pixels
        labelled = {split: p[: len(self.source.palette)].sum() for split, p in pixels.items()}
        shares = [1 - labelled[s] / max(1, p.sum()) for s, p in pixels.items()]
        row("not labelled, %", [f"{100 * share:.2f}" for share in shares])
        at_size = f" at {_size_text(self.size)}" if self.resized_pixels else ""
        lines.append(f"share of labelled pixels{at_size}, %")
        for index, name in enumerate(self.source.palette):
            counts = [p[index] for p in pixels.values()]
            totals = labelled.values()
            row(f"  {name}", [f"{100 * c / max(1, t):.3f}" if c else "-"
                              for c, t in zip(counts, totals, strict=True)])  # fmt: skip
        sizes = [f"{_size_text(size)} ({n})" for size, n in self.sizes.most_common(4)]
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
    size: tuple[int, int] | None = None,
    keep: Callable[[str, int, CheckedItem], None] | None = None,
    sizes: Sequence[tuple[int, int]] = (),
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
    findings = list(source.findings)
    summary = Summary(source, {}, Counter(), Counter(), list(source.notes), size)
    if size and not source.draw:  # which draws at that size
        sizes = larger_sizes(size)
    images_by_digest: dict[bytes, tuple[str, Item]] = {}
    alignment, last_number = survey.Alignment(), -2
    names = [_label_key(item) for items in source.splits.values() for item in items]
    position = {name: number for number, name in enumerate(sorted(names, key=natural_key))}
    total, overlap = sum(map(len, source.splits.values())), 0
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # it is a finding here
    with tqdm(total=total, unit=" images", desc="reading", disable=None, leave=False) as bar:
        for split, items in source.splits.items():
            pixels = np.zeros(256, np.int64)
            images = {key: np.zeros(256, np.int64) for key in (None, *sizes)}
            resized_pixels = np.zeros(256, np.int64)
            checked_items = _check_items(source, items, size, keep is not None, sizes)
            for index, checked in enumerate(checked_items):
                bar.update()
                findings += checked.findings
                overlap += checked.overlap
                if checked.pixels is None and not checked.findings and not source.findings:
                    findings += _vanished_findings(source, checked.item)
                if checked.pixels is not None:
                    pixels += checked.pixels
                if checked.resized_pixels:
                    resized_pixels += checked.resized_pixels.get(size, 0)
                    for key, counts in ((None, checked.pixels), *checked.resized_pixels.items()):
                        images[key] += counts > 0
                if checked.size:
                    summary.sizes[checked.size] += 1
                    summary.modes[checked.mode] += 1
                    findings += _duplicate_findings(source, checked, split, images_by_digest)
                if checked.thumbnail:
                    number = position[_label_key(checked.item)]
                    if number != last_number + 1:
                        alignment.skip()
                    alignment.add(*checked.thumbnail)
                    last_number = number
                if keep and not findings:
                    keep(split, index, checked)
            summary.pixels[split], summary.images[split] = pixels, images
            if size in sizes:
                summary.resized_pixels[split] = resized_pixels
    summary.notes += _sequence_notes(source)
    if overlap:
        share = survey.percent(overlap / sum(pixels.sum() for pixels in summary.pixels.values()))
        summary.notes.append(
            f"{share} of the pixels are in several classes: each is of the one that is named last "
            "under classes."
        )
    for mode, count in summary.modes.items():
        if mode != "RGB":
            summary.notes.append(f"Images of mode {mode}, read as RGB: {count}.")
    for (height, width), count in summary.sizes.most_common() if size else ():
        stretch = (size[1] / size[0]) / (width / height)
        if not 0.9 < stretch < 1.1:
            summary.notes.append(
                f"{count} of {total} images, of {height} x {width}, become {size[0]} x {size[1]}: "
                f"things get {stretch:.2f} times as wide for their height."
            )
    findings += [
        Finding(split, "has no image", "one image or more", "complete the data set")
        for split, items in source.splits.items()
        if not items and not source.user_defined  # else the listing has said so
    ]
    fit = alignment.fit()
    if fit.file != "own" and not source.aligned:
        findings.append(_shifted_finding(source, fit))
    findings += _class_findings(source, summary, findings)
    if findings:
        raise BadData(source.root, findings)
    if size in sizes:
        summary.notes += lost_classes(summary, size)
    return summary


def header_size(source: Source) -> tuple[int, int]:
    """Return the most frequent height and width of a data set's images, by the files' heads.

    Raises
    ------
    BadData : none can be read
    """
    sizes: Counter = Counter()
    for item in (item for items in source.splits.values() for item in items):
        with contextlib.suppress(Exception):  # which `inspect_source` names
            if os.path.isfile(item.image):
                with Image.open(item.image, formats=FORMATS) as image:
                    sizes[image.size[::-1]] += 1
    if not sizes:
        inspect_source(source)
    return sizes.most_common(1)[0][0]


def larger_sizes(size: tuple[int, int]) -> list[tuple[int, int]]:
    """Return a size and larger ones of its shape, in whole fours: where may a class be kept?"""
    return [size, *(tuple(4 * round(f * side / 4) for side in size) for f in LARGER)]


def lost_classes(summary: Summary, size: tuple[int, int]) -> list[str]:
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
        keeps = next((f"{_size_text(s)} keeps it" for s in kept), "no size tried keeps it")
        left = ", ".join(f"{n[size]} of {n[None]} {split}" for split, n in counts.items())
        notes.append(
            f"{name} is too small for {_size_text(size)}: it is left in {left} images that have "
            f"it. {keeps}."
        )
    return notes


def _label_key(item: Item) -> str:
    return f"{item.labels}/{item.name}"  # one file may hold the labels of several images


def _check_items(
    source: Source,
    items: list[Item],
    size: tuple[int, int] | None,
    keep: bool,
    sizes: Sequence[tuple[int, int]],
) -> Iterator[CheckedItem]:
    """Look at items on all cores, in order, a few at a time: memory does not grow with the set."""
    cores = os.cpu_count() or 1
    with ThreadPoolExecutor(cores) as pool:
        for first in range(0, len(items), 4 * cores):
            part = items[first : first + 4 * cores]
            yield from pool.map(lambda item: check_item(source, item, size, keep, sizes), part)


def _sequence_notes(source: Source) -> list[str]:
    """Return what people should know about the videos that the images come from."""
    sequences = {split: {i.sequence for i in items} for split, items in source.splits.items()}
    has_names = any(
        item.sequence != item.name for items in source.splits.values() for item in items
    )
    has_groups = sum(map(len, sequences.values())) < sum(map(len, source.splits.values()))
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


def _vanished_findings(source: Source, item: Item) -> list[Finding]:
    """Return findings for files that were there when the folder was listed, and are not now."""
    return [
        Finding(_file_name(source, file), "has vanished", "a file that stays", "put it back")
        for file in item.files
        if not os.path.isfile(file)
    ]


def _duplicate_findings(
    source: Source, checked: CheckedItem, split: str, images_by_digest: dict
) -> list[Finding]:
    other_split, duplicate = images_by_digest.setdefault(
        checked.image_digest, (split, checked.item)
    )
    if other_split == split:
        return []
    name = _file_name(source, checked.item.image)
    return [
        Finding(
            name,
            f"is in {split}, the same image as {_file_name(source, duplicate.image)} in "
            f"{other_split}",
            "each image in one split",
            "take one of the two out",
        )
    ]


def _shifted_finding(source: Source, fit: survey.Fit) -> Finding:
    """Return the finding that label images fit the images before or after them better."""
    folder = next(items[0].labels.parent for items in source.splits.values() if items)
    return Finding(
        f"{_file_name(source, folder)}/",
        f"edges in the images fit the labels of the {fit.file} file better than their own, by "
        f"{max(fit.t_previous, fit.t_next):.0f} standard errors over {fit.images} images",
        "labels of the same picture as the image",
        "look at some pairs; if all are off by one file, rename the label images"
        + ", if they are right, say aligned: true" * source.user_defined,
    )


def _class_findings(source: Source, summary: Summary, findings: list) -> list[Finding]:
    """Return findings for splits without labels and for the user's classes that never occur."""
    missing, classes = [], list(source.palette)
    for split, pixels in summary.pixels.items():
        if source.splits[split] and not findings and not pixels[: len(classes)].any():
            missing.append(
                Finding(split, "no pixel of any label image is labelled", "some labelled pixels",
                        "check the label images, or unlabelled:")
            )  # fmt: skip
    if missing or findings:
        return missing  # what could not be read may hold the class
    occurrences = sum(summary.pixels.values())
    train = (summary.resized_pixels or summary.pixels)["train"]
    for index, name in enumerate(classes):
        if source.user_defined and not occurrences[index]:
            remedy = (
                "correct its value under classes:, or leave it out and write the others as "
                "'name: value' lines, so that they keep their values"
            )
            if occurrences[UNLABELLED]:
                unlabelled_share = survey.percent(occurrences[UNLABELLED] / occurrences.sum())
                remedy += (
                    f"; {unlabelled_share} of the pixels count as not labelled: is it among these?"
                )
            missing.append(
                Finding(f"class {name}", "never occurs in any label image", "classes that occur",
                        remedy)
            )  # fmt: skip
        elif occurrences[index] and not train[index]:
            at_size = f" at {_size_text(summary.size)}" if summary.pixels["train"][index] else ""
            summary.notes.append(f"{name} is not in train{at_size}, so no network can learn it.")
    return missing
