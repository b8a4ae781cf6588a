"""Writes a data set as memory-mapped arrays, checking every file on the way."""

import contextlib
import hashlib
import json
import os
import shutil
from importlib.metadata import version
from pathlib import Path

import numpy as np

from roadseg import code
from roadseg.data.check import inspect_source
from roadseg.data.images import CheckedItem
from roadseg.data.layout import Source
from roadseg.data.scenes import SPLITS
from roadseg.errors import InputError


def prepare(settings: dict, source: Source, target: Path) -> dict:
    """Write a data set as memory-mappable arrays into `target`, whole or not at all.

    If `target` was made by this code from these settings and the same files, and still holds what
    was written, nothing is done. Where a data set has no test images, those of val are written in
    their place too, see `scenes.test_is_val`.

    Parameters
    ----------
    settings : those of a study's data that decide the arrays, see `Study.arrays`
    source : the data set
    target : folder to write; an old one is replaced when the new one is complete

    Returns
    -------
    The content of `scenes.json`: classes, colours, digest, and names and sequences of each split

    Raises
    ------
    BadData : everything that is wrong with any file; nothing is written then, an old folder stays
    InputError : no space, or no permission to write
    """
    stamp, key = target.with_name(target.name + ".stamp"), _key(settings, source)
    previous_stamp = stamp.read_text() if stamp.is_file() else ""
    if not source.findings and previous_stamp == f"{key} {contents_digest(target)}":
        return json.loads((target / "scenes.json").read_text())
    height, width = settings["size"]
    work, old = (target.with_name(f"{target.name}.{end}") for end in ("partial", "old"))
    arrays, digest = {}, hashlib.sha256()
    digests = {split: hashlib.sha256() for split in source.splits}

    def keep(split: str, index: int, checked: CheckedItem) -> None:
        images, labels = arrays[split]
        images[index], labels[index] = checked.image, checked.labels
        content = images[index].tobytes() + labels[index].tobytes()
        digest.update(split.encode() + content)
        digests[split].update(content)

    try:
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        for split, items in source.splits.items():
            n = len(items)
            arrays[split] = (
                _array(work / f"{split}_images.npy", (n, 3, height, width)),
                _array(work / f"{split}_labels.npy", (n, height, width)),
            )
        summary = inspect_source(source, (height, width), keep)
        about = {
            "classes": list(source.palette),
            "colours": list(source.palette.values()),
            "values": source.values,
            "size": [height, width],
            "settings": settings,
            "digest": digest.hexdigest(),
            "splits": {
                split: {
                    "names": [item.name for item in items],
                    "sequences": [item.sequence for item in items],
                    "digest": digests[split].hexdigest(),
                }
                for split, items in source.splits.items()
            },
        }
        arrays.clear()
        if "test" not in about["splits"]:
            about["splits"]["test"] = about["splits"]["val"]
            for kind in ("images", "labels"):
                shutil.copyfile(work / f"val_{kind}.npy", work / f"test_{kind}.npy")
        (work / "scenes.json").write_text(json.dumps(about))
        stamp.unlink(missing_ok=True)
        shutil.rmtree(old, ignore_errors=True)
        if target.exists():
            target.rename(old)  # a kill here leaves the old set beside, and nothing half-written
        work.rename(target)
        shutil.rmtree(old, ignore_errors=True)
        stamp.write_text(f"{key} {contents_digest(target)}")
    except OSError as problem:
        megabytes = sum(map(len, source.splits.values())) * 4 * height * width / 1e6
        raise InputError(
            f"{target}: cannot be written ({problem.strerror or problem}). It takes "
            f"{megabytes:.0f} MB; make room, or allow writing there."
        ) from None
    finally:
        arrays.clear()
        shutil.rmtree(work, ignore_errors=True)
    print(summary)
    return about


def _array(file: Path, shape: tuple[int, ...]) -> np.ndarray:
    if hasattr(os, "posix_fallocate"):  # else a full disk would end in a bus error, later
        with open(file, "wb") as empty:
            os.posix_fallocate(empty.fileno(), 0, int(np.prod(shape)) + 4096)
    return np.lib.format.open_memmap(file, mode="w+", dtype=np.uint8, shape=shape)


def contents_digest(folder: Path) -> str:
    """Return the hex digest of a prepared folder's files; '' if one is missing."""
    digest = hashlib.sha256()
    names = [f"{split}_{kind}.npy" for split in SPLITS for kind in ("images", "labels")]
    for name in [*names, "scenes.json"]:
        if not (folder / name).is_file():
            return ""
        with open(folder / name, "rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _key(settings: dict, source: Source) -> str:
    """Return a digest of all that decides the arrays: settings, listing, files, and this code."""
    digest = hashlib.sha256(json.dumps([settings, source.palette, version("pillow")]).encode())
    digest.update(code.digest("roadseg.data.prepare", "roadseg.data.datasets").encode())
    if coding := source.coding:
        digest.update(coding.table.tobytes())
        digest.update(json.dumps([coding.labels, coding.ignores_others, coding.rest]).encode())
    contents: dict[Path, bytes] = {}  # one file may hold the labels of all images
    for split, items in source.splits.items():
        for item in items:
            numbers = [number for number, _ in item.masks]
            digest.update(f"{split}\0{item.name}\0{item.sequence}\0{numbers}\0".encode())
            for file in item.files:
                if file not in contents:
                    contents[file] = _file_digest(file)
                digest.update(contents[file])
    return digest.hexdigest()


def _file_digest(file: Path) -> bytes:
    if os.path.isfile(file):  # opening a pipe would wait for ever
        with contextlib.suppress(OSError), open(file, "rb") as content:
            return hashlib.file_digest(content, "sha256").digest()
    return b""
