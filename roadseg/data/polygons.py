"""Draws labels from the outlines that labelling tools store: labelme's JSON and COCO's."""

import base64
import io
import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from roadseg.data.layout import Coding, Finding
from roadseg.data.scenes import UNLABELLED
from roadseg.errors import nearest

Add = Callable[[str, str, str], None]  # what is wrong, what is allowed, what to do

SHAPES = "polygon, rectangle, circle and mask"
NO_AREA = ("point", "points", "line", "linestrip")
SIZE_KEYS = ("imageHeight", "imageWidth")


@dataclass(frozen=True)
class Annotation:
    """What a COCO file says of one image.

    Attributes
    ----------
    size : height and width
    shapes : class and segmentation of each object: lists of x and y, or a run-length code
    """

    size: tuple[int, int]
    shapes: tuple[tuple[int, list | dict], ...]


def paint(shape: tuple[int, int], rest: int, masks: Iterable) -> tuple[np.ndarray, int]:
    """Lay masks over each other, class by class, those that are ignored last.

    Parameters
    ----------
    shape : height and width
    rest : the value where no mask is
    masks : (class, bool (H, W)) in any order; one is held at a time, and one for each class

    Returns
    -------
    labels uint8 (H, W), and how many pixels masks of different classes share
    """
    labels, covered, overlap = np.full(shape, rest, np.uint8), np.zeros(shape, bool), 0
    by_class: dict[int, np.ndarray] = {}
    for index, mask in masks:
        by_class[index] = by_class.get(index, False) | mask
    for index, mask in sorted(by_class.items()):
        overlap += int((mask & covered).sum())
        covered |= mask
        labels[mask] = index
    return labels, overlap


def class_of(label: str, coding: Coding) -> int | None:
    """Return the class of a label, 255 if it is ignored, or None if nothing is said of it."""
    return coding.labels.get(label, UNLABELLED if coding.ignores_others else None)


def _unknown(labels: Counter, coding: Coding, add: Add) -> None:
    for label, count in labels.items():
        hint = nearest(label, coding.labels).split(" Known")[0].strip()
        add(
            f"label {label!r} is in no class" + f" ({count} shapes)" * (count > 1),
            ", ".join(map(repr, coding.labels)),
            hint or "list it under a class, or under unlabelled: if it is to be ignored",
        )


def _read_json(file: Path, add: Add, key: str, tool: str):
    """Return the content of a JSON file with a list under a key; None if it is no such file."""
    allowed = f"a JSON file of {tool}, with {key}"
    try:
        content = json.loads(file.read_bytes().decode("utf-8-sig"))
    except UnicodeDecodeError:
        add("is not UTF-8 text", allowed, "save it in that encoding")
    except OSError as problem:
        add(f"cannot be read ({problem.strerror})", allowed, "give the right to read it")
    except (ValueError, RecursionError) as problem:
        why = str(problem) if isinstance(problem, json.JSONDecodeError) else "nested too deeply"
        add(f"is not JSON ({why})", allowed, f"export it again from {tool}")
    else:
        if isinstance(content, dict) and isinstance(content.get(key), list):
            return content
        others = {"annotations": "coco", "shapes": "labelme"}
        other = next(
            (v for k, v in others.items() if isinstance(content, dict) and k in content), ""
        )
        add(f"has no {key}", allowed,
            f"say values: {other}" if other else f"export it from {tool}")  # fmt: skip
    return None


def _size(content: dict, height: str, width: str) -> tuple[int, int] | None:
    size = content.get(height), content.get(width)
    good = all(type(side) is int and side > 0 for side in size)
    return size if good and size[0] * size[1] <= Image.MAX_IMAGE_PIXELS else None


def _points(values, size: tuple[int, int]) -> list[tuple[float, float]] | str:
    """Return points [[x, y], ...], or what is wrong with them."""
    try:
        points = [(float(x), float(y)) for x, y in values]
    except (TypeError, ValueError, OverflowError):
        return "has points that are not pairs of numbers"
    height, width = size
    if not points or not all(math.isfinite(x) and math.isfinite(y) for x, y in points):
        return "has points that are not pairs of numbers"
    if any(
        abs(x - width / 2) > 1.5 * width or abs(y - height / 2) > 1.5 * height for x, y in points
    ):
        return "has points far outside of the image"  # which may be of another size
    xs, ys = zip(*points, strict=True)
    if max(xs) < 0 or max(ys) < 0 or min(xs) > width or min(ys) > height:
        return "lies outside of the image"
    return points


# labelme -----------------------------------------------------------------------------------------


def read_labelme(
    file: Path, coding: Coding, size: tuple[int, int] | None, add: Add
) -> tuple[np.ndarray | None, int]:
    """Draw the shapes of a file of labelme as labelme itself does.

    Parameters
    ----------
    size : height and width of the image, for files that do not give theirs

    Returns
    -------
    labels uint8 (H, W), of the size that the file gives, and how many pixels shapes of different
    classes share; None for the labels if something is wrong
    """
    content = _read_json(file, add, "shapes", "labelme")
    if content is None:
        return None, 0
    stored, given = _size(content, *SIZE_KEYS), [content.get(key) for key in SIZE_KEYS]
    if stored is None and given != [None, None]:
        add(f"has imageHeight {given[0]!r} and imageWidth {given[1]!r}",
            "the image's height and width, as whole numbers",
            "correct them, or take both out")  # fmt: skip
        return None, 0
    stored = stored or size
    if stored is None:
        return None, 0
    if stored != (size or stored):  # of another image, so its points say nothing
        return np.full(stored, coding.rest, np.uint8), 0
    size = stored
    unknown, faults = Counter(), []

    def masks() -> Iterator[tuple[int, np.ndarray]]:
        for number, shape in enumerate(content["shapes"], 1):
            shape = shape if isinstance(shape, dict) else {}
            label = shape.get("label")
            index = class_of(label, coding) if isinstance(label, str) else None
            if index is None:
                unknown[str(label)] += 1
                continue
            if index == UNLABELLED and shape.get("shape_type") in NO_AREA:
                continue
            mask = _labelme_mask(shape, size)
            if isinstance(mask, str):
                faults.append(f"shape {number}, {label!r}, {mask}")
            else:
                yield index, mask

    drawn = paint(size, coding.rest, masks())
    for fault in faults:
        add(fault, f"{SHAPES} shapes in the image", "mend it in labelme, or take it out")
    _unknown(unknown, coding, add)
    return (None, 0) if unknown or faults else drawn


def _labelme_mask(shape: dict, size: tuple[int, int]) -> np.ndarray | str:
    """Return what a shape covers, bool (H, W), or what is wrong with it."""
    kind = shape.get("shape_type") or "polygon"
    if kind in NO_AREA:
        return f"is a {kind}, which has no area"
    if kind not in ("polygon", "rectangle", "circle", "mask"):
        return f"is of the type {kind}, which is not read here: draw it as a polygon"
    points = _points(shape.get("points"), size)
    if isinstance(points, str):
        return points
    needed = {"polygon": 3}.get(kind, 2)
    if len(points) < needed or (kind != "polygon" and len(points) > needed):
        return f"has {len(points)} points, a {kind} has {needed}{' or more' * (needed == 3)}"
    image = Image.new("L", size[::-1])
    draw = ImageDraw.Draw(image)
    if kind == "polygon":
        draw.polygon(points, fill=1, outline=1)
    elif kind == "circle":
        (x, y), (edge_x, edge_y) = points
        radius = math.hypot(edge_x - x, edge_y - y)
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=1, outline=1)
    elif kind == "rectangle":
        xs, ys = zip(*points, strict=True)
        draw.rectangle((min(xs), min(ys), max(xs), max(ys)), fill=1, outline=1)
    else:
        try:
            stored = Image.open(io.BytesIO(base64.b64decode(shape["mask"])), formats=["PNG"])
            if stored.width > size[1] or stored.height > size[0]:
                return "has a mask larger than the image"
            stored = Image.fromarray((np.asarray(stored.convert("L")) > 0).astype(np.uint8))
        except Exception:  # as in check.py: decoders raise anything
            return "has a mask that cannot be decoded"
        image.paste(stored, tuple(round(v) for v in points[0]))
    return np.asarray(image).astype(bool)


# COCO --------------------------------------------------------------------------------------------


def read_coco(file: Path, name: str, coding: Coding) -> tuple[dict[str, Annotation], list[Finding]]:
    """Read a COCO file of instances: what it says of each image, by the image's file name.

    Parameters
    ----------
    name : the file's, for messages
    """
    findings: list[Finding] = []

    def add(finding: str, allowed: str, remedy: str) -> None:
        findings.append(Finding(name, finding, allowed, remedy))

    content = _read_json(file, add, "annotations", "COCO")
    if content is None:
        return {}, findings
    tables = {}
    for key, needed in (("images", "file_name"), ("categories", "name")):
        rows = content.get(key) if isinstance(content.get(key), list) else []
        good = [row for row in rows if isinstance(row, dict) and _is_id(row.get("id"))]
        tables[key] = {row["id"]: row for row in good if needed in row}
        if len(tables[key]) < max(len(rows), 1):
            add(f"{key}: {len(tables[key])} of {len(rows)} have an id of their own and {needed}",
                "those of COCO's instances", "export it again")  # fmt: skip
            return {}, findings
    files = Counter(str(row["file_name"]) for row in tables["images"].values())
    for image in (image for image, count in files.items() if count > 1):
        add(f"images: {files[image]} have the file_name {image}", "one entry for each image",
            "merge them, with their annotations, or correct one")  # fmt: skip
    names = {key: str(row["name"]) for key, row in tables["categories"].items()}
    shapes: dict = {key: [] for key in tables["images"]}
    sizes = {key: _size(row, "height", "width") for key, row in tables["images"].items()}
    if sizeless := [key for key, size in sizes.items() if size is None]:
        add(f"images: {len(sizeless)} have no height and width, such as {sizeless[0]}",
            "both, as whole numbers", "export it again")  # fmt: skip
        return {}, findings
    unknown, faults = Counter(), {}
    for number, row in enumerate(content["annotations"]):
        row = row if isinstance(row, dict) else {}
        number, image, category = row.get("id", number), row.get("image_id"), row.get("category_id")
        fault = ""
        if not _is_id(image) or image not in shapes:
            fault = "belongs to an image_id that is not among images"
        elif not _is_id(category) or category not in names:
            fault = "has a category_id that is not among categories"
        elif (index := class_of(names[category], coding)) is None:
            unknown[names[category]] += 1
        elif index != coding.rest or row.get("segmentation"):  # else an ignored box
            fault = _coco_fault(row.get("segmentation"), sizes[image])
            if not fault:
                shapes[image].append((index, row["segmentation"]))
        if fault:
            faults.setdefault(fault, []).append(number)
    for fault, numbers in faults.items():
        more = f" and {len(numbers) - 3} more" if len(numbers) > 3 else ""
        add(f"annotation {', '.join(map(str, numbers[:3]))}{more} {fault}",
            "annotations with outlines or run-length codes, in their image",
            "mend or remove them, and export again")  # fmt: skip
    _unknown(unknown, coding, add)
    annotations = {
        str(row["file_name"]): Annotation(sizes[key], tuple(shapes[key]))
        for key, row in tables["images"].items()
    }
    return annotations, findings


def _is_id(value) -> bool:
    return type(value) in (int, str)


def _coco_fault(segmentation, size: tuple[int, int]) -> str:
    """Return what is wrong with a segmentation, or ''."""
    if isinstance(segmentation, dict):
        if segmentation.get("size") != list(size):
            return "has a run-length code of another size than its image"
        counts = _run_lengths(segmentation.get("counts"))
        good = all(type(n) is int and n >= 0 for n in counts) and sum(counts) == math.prod(size)
        return "" if good else "has a run-length code that does not fill its image"
    if not isinstance(segmentation, list) or not segmentation:
        return "has no segmentation, only a box"
    for outline in segmentation:
        if not isinstance(outline, list) or len(outline) < 6 or len(outline) % 2:
            return "has an outline of fewer than three points"
        points = _points(zip(outline[::2], outline[1::2], strict=True), size)
        if isinstance(points, str):
            return points
    return ""


def _run_lengths(counts: list | str | None) -> list[int]:
    """Return the lengths of runs, of pixels outside and inside in turn, as a list or as text.

    In text each character holds five bits of a number, the lowest first, and whether more follow;
    from the fourth number on they are differences from the number before the last. COCO's library
    reads what no code is too, as anything.
    """
    if not isinstance(counts, str):
        return counts if isinstance(counts, list) else []
    lengths, value, shift = [], 0, 0
    for bits in (ord(character) - 48 for character in counts):
        if not 0 <= bits < 64 or shift > 40:
            return []
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            value -= (1 << shift) if bits & 16 else 0
            lengths.append(value + (lengths[-2] if len(lengths) > 2 else 0))
            value = shift = 0
    return [] if shift else lengths


def draw_coco(annotation: Annotation, coding: Coding) -> tuple[np.ndarray, int]:
    """Draw the objects of an image, outlines with COCO's own library; returns labels, overlap."""
    from pycocotools import mask as coco  # only where there are such files

    height, width = annotation.size

    def masks() -> Iterator[tuple[int, np.ndarray]]:
        for index, segmentation in annotation.shapes:
            if isinstance(segmentation, dict):
                runs = _run_lengths(segmentation["counts"])
                mask = np.repeat(np.arange(len(runs)) % 2 > 0, runs).reshape(width, height).T
            else:
                mask = coco.decode(coco.merge(coco.frPyObjects(segmentation, height, width)))
            yield index, mask.astype(bool)

    return paint(annotation.size, coding.rest, masks())
