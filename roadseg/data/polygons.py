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

from roadseg.config.schema import did_you_mean
from roadseg.data.findings import Finding, found
from roadseg.data.layout import Coding
from roadseg.data.scenes import UNLABELLED

Note = Callable[..., None]  # takes the kind of a finding, and the details of its words

SHAPES = ("polygon", "rectangle", "circle", "mask")
NO_AREA = ("point", "points", "line", "linestrip")


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


def _class_of(label: str, coding: Coding) -> int | None:
    """Return the class of a label, 255 if it is ignored, or None if nothing is said of it."""
    return coding.labels.get(label, UNLABELLED if coding.ignores_others else None)


def _note_unknown(labels: Counter, coding: Coding, note: Note) -> None:
    otherwise = "list it under a class, or under unlabelled: if it is to be ignored"
    for label, count in labels.items():
        note(
            "label", label=label, shapes=f" ({count} shapes)" * (count > 1),
            allowed=", ".join(map(repr, coding.labels)),
            remedy=did_you_mean(label, coding.labels) or otherwise,
        )  # fmt: skip


def _read_json(file: Path, note: Note, key: str, tool: str) -> dict | None:
    """Return the content of a JSON file with a list under a key; None if it is no such file."""
    code, cause, remedy = "json-key", "", f"export it from {tool}"
    try:
        content = json.loads(file.read_bytes().decode("utf-8-sig"))
    except UnicodeDecodeError:
        code = "json-encoding"
    except OSError as problem:
        code, cause = "json-unreadable", problem.strerror
    except (ValueError, RecursionError) as problem:
        is_decoding = isinstance(problem, json.JSONDecodeError)
        code, cause = "no-json", str(problem) if is_decoding else "nested too deeply"
    else:
        content = content if isinstance(content, dict) else {}
        if isinstance(content.get(key), list):
            return content
        for other, values in (("annotations", "coco"), ("shapes", "labelme")):
            if other in content:
                remedy = f"say values: {values}"
    note(code, key=key, tool=tool, cause=cause, remedy=remedy)
    return None


def _size(height, width) -> tuple[int, int] | None:
    good = all(type(side) is int and side > 0 for side in (height, width))
    return (height, width) if good and height * width <= Image.MAX_IMAGE_PIXELS else None


def _points(values, size: tuple[int, int]) -> list[tuple[float, float]] | str:
    """Return points [[x, y], ...], or what is wrong with them."""
    try:
        points = np.array([(float(x), float(y)) for x, y in values])
    except (TypeError, ValueError, OverflowError):
        points = np.array([])
    if not points.size or not np.isfinite(points).all():
        return "has points that are not pairs of numbers"
    sides = np.array(size[::-1])
    if (abs(points - sides / 2) > 1.5 * sides).any():
        return "has points far outside of the image"  # which may be of another size
    if (points.max(0) < 0).any() or (points.min(0) > sides).any():
        return "lies outside of the image"
    return list(map(tuple, points.tolist()))


# labelme -----------------------------------------------------------------------------------------


def read_labelme(
    file: Path, coding: Coding, size: tuple[int, int] | None, note: Note
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
    content = _read_json(file, note, "shapes", "labelme")
    if content is None:
        return None, 0
    height, width = content.get("imageHeight"), content.get("imageWidth")
    stored = _size(height, width)
    if stored is None and (height, width) != (None, None):
        note("labelme-size", height=height, width=width)
        return None, 0
    if stored and size and stored != size:  # of another image, so its points say nothing
        return np.full(stored, coding.rest, np.uint8), 0
    size = stored or size
    if size is None:
        return None, 0
    unknown, faults = Counter(), []

    def masks() -> Iterator[tuple[int, np.ndarray]]:
        for number, shape in enumerate(content["shapes"], 1):
            shape = shape if isinstance(shape, dict) else {}
            label = shape.get("label")
            index = _class_of(label, coding) if isinstance(label, str) else None
            if index is None:
                unknown[str(label)] += 1
            elif index != UNLABELLED or shape.get("shape_type") not in NO_AREA:
                mask = _labelme_mask(shape, size)
                if isinstance(mask, str):
                    faults.append({"number": number, "label": label, "fault": mask})
                else:
                    yield index, mask

    drawn = paint(size, coding.rest, masks())
    for fault in faults:
        note("labelme-shape", **fault)
    _note_unknown(unknown, coding, note)
    return (None, 0) if unknown or faults else drawn


def _labelme_mask(shape: dict, size: tuple[int, int]) -> np.ndarray | str:
    """Return what a shape covers, bool (H, W), or what is wrong with it."""
    kind = shape.get("shape_type") or "polygon"
    if kind in NO_AREA:
        return f"is a {kind}, which has no area"
    if kind not in SHAPES:
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

    def note(code: str, **details) -> None:
        findings.append(found(code, name, **details))

    content = _read_json(file, note, "annotations", "COCO")
    if content is None:
        return {}, findings
    tables = {}
    for key, needed in (("images", "file_name"), ("categories", "name")):
        rows = content.get(key) if isinstance(content.get(key), list) else []
        good = [row for row in rows if isinstance(row, dict) and _is_id(row.get("id"))]
        tables[key] = {row["id"]: row for row in good if needed in row}
        if len(tables[key]) < max(len(rows), 1):
            note("coco-table", key=key, good=len(tables[key]), count=len(rows), needed=needed)
            return {}, findings
    images = tables["images"]
    for image, count in Counter(str(row["file_name"]) for row in images.values()).items():
        if count > 1:
            note("coco-twins", count=count, name=image)
    sizes = {key: _size(row.get("height"), row.get("width")) for key, row in images.items()}
    if sizeless := [key for key, size in sizes.items() if size is None]:
        note("coco-sizes", count=len(sizeless), name=sizeless[0])
        return {}, findings
    names = {key: str(row["name"]) for key, row in tables["categories"].items()}
    shapes: dict = {key: [] for key in images}
    unknown, faults = Counter(), {}
    for number, row in enumerate(content["annotations"]):
        row = row if isinstance(row, dict) else {}
        image, category = row.get("image_id"), row.get("category_id")
        segmentation, fault = row.get("segmentation"), ""
        if not _is_id(image) or image not in shapes:
            fault = "belongs to an image_id that is not among images"
        elif not _is_id(category) or category not in names:
            fault = "has a category_id that is not among categories"
        elif (index := _class_of(names[category], coding)) is None:
            unknown[names[category]] += 1
        elif index != coding.rest or segmentation:  # else an ignored box
            fault = _coco_fault(segmentation, sizes[image])
            if not fault:
                shapes[image].append((index, segmentation))
        if fault:
            faults.setdefault(fault, []).append(row.get("id", number))
    for fault, numbers in faults.items():
        more = f" and {len(numbers) - 3} more" if len(numbers) > 3 else ""
        note("coco-annotation", numbers=", ".join(map(str, numbers[:3])) + more, fault=fault)
    _note_unknown(unknown, coding, note)
    annotations = {
        str(row["file_name"]): Annotation(sizes[key], tuple(shapes[key]))
        for key, row in images.items()
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
