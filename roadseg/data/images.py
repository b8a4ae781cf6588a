"""Reads one image and its labels, and says what is wrong with the files."""

import contextlib
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from roadseg.data import survey
from roadseg.data.findings import Finding, found
from roadseg.data.layout import NOT_ALLOWED, Item, Source
from roadseg.data.polygons import draw_coco, paint, read_labelme

ORIENTATION = 0x0112  # the EXIF tag
CHANNELS = 277  # the TIFF tag
# Those of layout.IMAGE_ENDINGS. Of the others that Pillow knows some run programs (EPS), and many
# are hardly ever read, with faults that nobody looks for.
FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "PPM")
# How files begin that are taken for pictures.
NO_PICTURES = {b"version https://git-lfs": "lfs-pointer", b"GIF8": "gif", b"{": "json"}
WITH_ALPHA = ("RGBA", "LA", "PA")
DEEP_GREY = ("I", "I;16", "I;16B", "I;16L")
PIXELS = {"CMYK": "CMYK colours", "F": "floating-point values"}  # Pillow's mode -> in words
SMOOTHED = 10  # with more values that are not allowed a label image was smoothed or is a photo
BLACK, WHITE = (0, 0, 0), (255, 255, 255)


@dataclass
class CheckedItem:
    """What came of looking at one item; arrays are None where they could not be had.

    Attributes
    ----------
    image : uint8 (3, H, W); labels : uint8 (H, W), 255 where not labelled; both of the size asked
    size : height and width of the files
    pixels : size, or None for the files' own -> int64 (256,), label pixels by class
    image_digest : digest of the image's pixels, equal for equal images
    thumbnail : the two, small, where they were read from files
    overlap : how many pixels are in masks or outlines of several classes
    """

    item: Item
    findings: list[Finding] = field(default_factory=list)
    image: np.ndarray | None = None
    labels: np.ndarray | None = None
    size: tuple[int, int] | None = None
    pixels: dict[tuple[int, int] | None, np.ndarray] = field(default_factory=dict)
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
        picture = Image.fromarray(image)
    else:
        picture, labels = _Reader(source, checked).read()
    if picture is not None:
        checked.image_digest = hashlib.blake2b(picture.tobytes(), digest_size=16).digest()
        checked.size = picture.size[::-1]
    if labels is not None:
        checked.pixels[None] = np.bincount(labels.ravel(), minlength=256)
    if checked.findings or picture is None or labels is None:
        return checked
    labels_picture = Image.fromarray(labels)
    checked.pixels |= {at: _pixels_at(labels_picture, at) for at in sizes}
    if not source.draw:
        checked.thumbnail = survey.thumbnail(np.asarray(picture), labels, height=180)
    if keep:
        if size and size != checked.size:
            picture = picture.resize(size[::-1], Image.Resampling.BOX)
            labels_picture = labels_picture.resize(size[::-1], Image.Resampling.NEAREST)
        checked.image = np.asarray(picture).transpose(2, 0, 1)
        checked.labels = np.asarray(labels_picture)
    return checked


def _pixels_at(labels: Image.Image, size: tuple[int, int]) -> np.ndarray:
    """Count label pixels by class at a size, (height, width): int64 (256,).

    Made larger in both directions, an image keeps each of its pixels: then its own count is given.
    """
    if size[1] < labels.width or size[0] < labels.height:
        labels = labels.resize(size[::-1], Image.Resampling.NEAREST)
    return np.array(labels.histogram())


class _Reader:
    """Reads the files of an item, and notes in `checked` what is wrong with them."""

    def __init__(self, source: Source, checked: CheckedItem):
        self.source, self.coding = source, source.coding
        self.item, self.checked = checked.item, checked

    def note(self, code: str, file: Path, **details) -> None:
        """Note that something of a kind is wrong with a file."""
        name = file.relative_to(self.source.root).as_posix()
        self.checked.findings.append(found(code, name, **details))

    def read(self) -> tuple[Image.Image | None, np.ndarray | None]:
        """Return the image, RGB, and the classes uint8 (H, W); None for what is no good."""
        picture = self.image()
        size = picture.size[::-1] if picture else None
        labels = self.labels(size)
        if picture and labels is not None and labels.shape != size:
            code = "turned-labels" if labels.shape == picture.size else "size"
            words = {"size": size_text(labels.shape), "image_size": size_text(size)}
            self.note(code, self.item.labels, **words)
            labels = None
        return picture, labels

    def decode(self, file: Path) -> Image.Image | None:
        """Decode a file, or note why that cannot be. Its `info` has by what its values are scaled.

        Pillow spreads values of 2 or 4 bits over 0 to 255, and reads some files of 16 bits by their
        high bytes. Only the raw mode tells.
        """
        if not os.path.isfile(file):
            return None  # the listing has said so
        try:
            picture = Image.open(file, formats=FORMATS)
            if picture.width * picture.height > Image.MAX_IMAGE_PIXELS:
                raise Image.DecompressionBombError
            raw_mode = str(picture.tile)
            picture.load()
            if picture.mode == "P" and not picture.palette:
                raise OSError("its palette is missing")
            if "transparency" in picture.info:
                picture.convert("RGBA")  # fails where it contradicts the palette
            # Not their number: some claim any, and counting a million in a TIFF takes hours.
            has_frames = getattr(picture, "is_animated", False)
            orientation = picture.getexif().get(ORIENTATION, 1)
        except Exception as problem:  # Pillow's decoders raise anything from OSError to SyntaxError
            self.note(_why_unreadable(file, problem), file, cause=_brief_cause(problem))
            return None
        if ";16" in raw_mode and not picture.mode.startswith("I"):
            kind = "image" if file == self.item.image else "label"
            self.note(f"{kind}-format", file, mode=_pixels_text(";16"))
        elif has_frames:
            self.note("several-pictures", file)
        elif orientation in range(2, 9):  # other values mean nothing
            self.note("turned", file, orientation=orientation)
        else:
            picture.info["scale"] = 17 if "L;4" in raw_mode else 85 if "L;2" in raw_mode else 1
            return picture
        return None

    def image(self) -> Image.Image | None:
        """Return the image as RGB."""
        picture = self.decode(self.item.image)
        if picture is None:
            return None
        self.checked.mode = picture.mode
        channels = getattr(picture, "tag_v2", {}).get(CHANNELS, 0)
        if picture.mode == "RGB" and channels > 3:  # Pillow drops those that it has no mode for
            self.checked.mode = f"RGB with {channels} channels"
        if picture.mode in WITH_ALPHA or "transparency" in picture.info:
            picture = picture.convert("RGBA")
            if picture.getextrema()[3][0] < 255:
                self.note("transparent-image", self.item.image)
        elif picture.mode not in ("RGB", "L", "P", "1"):
            self.note("image-format", self.item.image, mode=_pixels_text(picture.mode))
            return None
        return picture.convert("RGB")

    def labels(self, size: tuple[int, int] | None) -> np.ndarray | None:
        """Return the classes uint8 (H, W); `size` is that of the image, if it could be read."""
        item, labels = self.item, None
        if self.coding.kind == "coco":
            annotation = self.source.annotations.get(item.name)  # if not, the listing has said so
            if annotation:
                labels, self.checked.overlap = draw_coco(annotation, self.coding)
        elif self.coding.kind == "labelme":
            if os.path.isfile(item.labels):
                note = partial(self.note, file=item.labels)
                labels, self.checked.overlap = read_labelme(item.labels, self.coding, size, note)
        elif self.coding.kind == "masks":
            masks = [(index, self.label_image(file)) for index, file in item.masks]
            shapes = {mask.shape for _, mask in masks if mask is not None}
            if len(shapes) > 1:
                sizes = " and ".join(map(size_text, sorted(shapes)))
                self.note("mask-sizes", item.labels, sizes=sizes)
            elif shapes and not any(mask is None for _, mask in masks):
                masks = [(index, mask > 0) for index, mask in masks]
                labels, self.checked.overlap = paint(*shapes, self.coding.rest, masks)
        else:
            labels = self.label_image(item.labels)
        return labels

    def label_image(self, file: Path) -> np.ndarray | None:
        """Return what a label image's values mean, uint8 (H, W)."""
        picture = self.decode(file)
        values = None if picture is None else self.values(picture, file)
        if values is None:
            return None
        coding = self.coding
        levels = np.unique(values) if 0 < values.max() < coding.threshold else ()
        if 0 < len(levels) <= 2:
            words = " and ".join(map(str, levels))
            self.note("all-black", file, levels=words, threshold=coding.threshold)
            return None
        inside = (values >= 0) & (values < len(coding.table))
        labels = coding.table[np.where(inside, values, 0)]
        bad = values[~inside | (labels == NOT_ALLOWED)]
        if not bad.size:
            return labels
        words, number = _describe_values(bad, coding.kind)
        self.note(
            "smoothed" if number > SMOOTHED else "values", file, values=words,
            share=survey.percent(bad.size / values.size), allowed=coding.allowed,
            remedy=coding.remedy, hint=self.threshold_hint(values),
        )  # fmt: skip
        return None

    def values(self, picture: Image.Image, file: Path) -> np.ndarray | None:
        """Return the ids, or colours as 0xRRGGBB, of a label image: int (H, W)."""
        coding = self.coding
        lossy = "" if coding.threshold else _lossy_format(picture, file)
        if lossy:
            hint = self.threshold_hint(np.asarray(picture))
            self.note("lossy-labels", file, format=lossy, hint=hint)
            return None
        if picture.mode in WITH_ALPHA:
            if picture.getchannel("A").getextrema()[0] < 255:
                self.note("transparent-labels", file)
                return None
            picture = picture.convert("L" if picture.mode == "LA" else "RGB")
        deep = () if coding.kind == "colours" else DEEP_GREY
        if picture.mode not in ("1", "L", "P", "RGB", *deep):
            self.note("label-format", file, mode=_pixels_text(picture.mode))
            return None
        if coding.kind == "colours":
            rgb = np.asarray(picture.convert("RGB")).astype(np.uint32)
            return rgb[..., 0] << 16 | rgb[..., 1] << 8 | rgb[..., 2]
        if picture.mode == "RGB":
            rgb = np.asarray(picture)
            if (rgb != rgb[..., :1]).any():
                self.note("colour-labels", file)
                return None
            return rgb[..., 0]
        if picture.mode == "P" and (coding.threshold or self.is_black_and_white_mask(picture)):
            picture = picture.convert("L")
        scale = 1 if coding.threshold else picture.info.get("scale", 1)
        values = np.asarray(picture).astype(np.int64) // scale
        if picture.mode == "P" and (contradiction := self.palette_contradiction(picture, values)):
            self.note("palette", file, contradiction=contradiction)
            return None
        return 255 * values if picture.mode == "1" and coding.white_is_255 else values

    def threshold_hint(self, values: np.ndarray) -> str:
        """Return what else may be done about masks whose edges are soft, or ''."""
        has_two = self.source.user_defined and len(self.source.palette) == 2
        is_mask = self.coding.kind == "masks" or (self.coding.kind == "ids" and has_two)
        is_bright = 128 <= values.max() <= 255
        hint = "; or, if these are masks with soft edges, say threshold: 128"
        return hint if is_mask and is_bright else ""

    def is_black_and_white_mask(self, picture: Image.Image) -> bool:
        """Return whether an image of the pixels of one class says black and white by its palette.

        Its ids may be in any order: some tools give white the id 0.
        """
        if self.coding.kind != "masks":
            return False
        colours = [colour for _, colour in picture.convert("RGB").getcolors()]
        has_all = len(colours) == len(picture.getcolors())  # else the palette tells less than ids
        return has_all and {*colours} <= {BLACK, WHITE}

    def palette_contradiction(self, picture: Image.Image, values: np.ndarray) -> str:
        """Return where a palette says another class than the id does, or ''."""
        palette = np.array(picture.getpalette("RGB")).reshape(-1, 3)
        classes, used = list(self.source.palette), np.unique(values[values < len(palette)])
        class_of = self.coding.colours
        is_inverse = used.tolist() == [0, 1] and palette[:2].tolist() == [[*WHITE], [*BLACK]]
        if is_inverse and self.source.user_defined and WHITE not in class_of:
            return "id 0 is drawn white and id 1 black, the reverse of a mask"
        for value in used:
            index, drawn = self.coding.table[value], class_of.get(tuple(palette[value].tolist()))
            if drawn and index < len(classes) and drawn != classes[index]:
                return f"id {value} ({classes[index]}) is drawn in the colour of {drawn}"
        return ""


def size_text(shape: tuple[int, int]) -> str:
    """Return a height and width in words."""
    return f"{shape[0]} x {shape[1]}"


def _pixels_text(mode: str) -> str:
    """Return in words what pixels of a Pillow mode are."""
    is_deep = mode in DEEP_GREY or ";16" in mode
    return "more than 8 bits per channel" if is_deep else PIXELS.get(mode, f"pixels of mode {mode}")


def _why_unreadable(file: Path, problem: Exception) -> str:
    """Return the kind of finding for a file that cannot be decoded."""
    if isinstance(problem, PermissionError):
        return "no-permission"
    if isinstance(problem, Image.DecompressionBombError):
        return "too-large"
    start = b"?"
    with contextlib.suppress(OSError), open(file, "rb") as content:
        start = content.read(24)
    if not start:
        return "empty-file"
    return next((code for magic, code in NO_PICTURES.items() if start.startswith(magic)),
                "unreadable")  # fmt: skip


def _brief_cause(problem: Exception) -> str:
    text = str(problem) or type(problem).__name__
    return "no known image format" if "cannot identify" in text else text.split("\n")[0][:80]


def _lossy_format(picture: Image.Image, file: Path) -> str:
    """Return in words the format of a label image that does not keep its values, or ''."""
    if picture.format == "JPEG":
        return "a JPEG"
    if picture.format == "TIFF" and "jpeg" in picture.info.get("compression", ""):
        return "a TIFF compressed as JPEG"
    if picture.format == "WEBP":
        with open(file, "rb") as content:
            return "" if b"VP8L" in content.read(1024) else "a lossy WebP"
    return ""


def _describe_values(values: np.ndarray, kind: str) -> tuple[str, int]:
    """Return the most frequent three values in words, in order, and how many there are."""
    values, counts = np.unique(values, return_counts=True)
    number, what = len(values), "colour" if kind == "colours" else "value"
    listed = values[np.sort(np.argsort(-counts, kind="stable")[:3])].tolist()
    if kind == "colours":
        listed = [[v >> 16, v >> 8 & 255, v & 255] for v in listed]
    more = f" and {number - 3} more" if number > 3 else ""
    return f"{what}{'s' * (number > 1)} {', '.join(map(str, listed))}{more}", number
