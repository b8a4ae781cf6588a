"""Where scenes come from: reading each kind of data set, and preparing it once as arrays."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from roadseg import synthetic
from roadseg.data import CAMVID, CITYSCAPES, SPLITS, UNLABELLED
from roadseg.recipe import InputError, nearest

CAMVID_VOID = 11


@dataclass(frozen=True)
class Source:
    """A data set before it is prepared: what the splits hold, and how to read one image.

    `pairs[split]` lists (name, sequence) and `read(split, index)` returns an RGB image
    uint8 (H, W, 3) and labels uint8 (H, W) with 255 where not labelled.
    """

    palette: dict[str, tuple[int, int, int]]
    pairs: dict[str, list[tuple[str, str]]]
    read: Callable


def synthetic_source(*, size: list[int], seed: int, counts: dict[str, int], **_) -> Source:
    """Scenes drawn by `roadseg.synthetic`: image i of the set depends on (seed, i) alone."""
    first = dict(zip(SPLITS, np.cumsum([0, *(counts[split] for split in SPLITS)]), strict=False))
    pairs = {
        split: [(f"scene_{first[split] + i:05d}", f"{first[split] + i}") for i in range(n)]
        for split, n in counts.items()
    }

    def read(split, index):
        return synthetic.scene(seed, int(first[split]) + index, tuple(size))

    return Source(CITYSCAPES, pairs, read)


def camvid_source(*, size: list[int], path: Path, **_) -> Source:
    """CamVid in the SegNet layout: `<split>/NAME.png` and `<split>annot/NAME.png`.

    Lists `<split>.txt`, where present, give the order; of their paths only the file names count,
    since every copy of this data set carries lists whose folder does not exist.

    Raises
    ------
    InputError : a folder or a file is missing, or an image has no label image
    """
    path = Path(path)
    pairs = {}
    for split in SPLITS:
        images, annotations = path / split, path / f"{split}annot"
        for folder in (images, annotations):
            if not folder.is_dir():
                raise InputError(
                    f"{folder}: no such folder. CamVid in the SegNet layout has train, trainannot, "
                    "val, valannot, test and testannot; name its folder in params.yaml "
                    f"(data: path) or in the environment variable {folder_variable('camvid')}."
                )
        listing = path / f"{split}.txt"
        if listing.is_file():
            lines = [line.split() for line in listing.read_text().splitlines() if line.strip()]
            names = [Path(words[0]).name for words in lines]
        else:
            names = sorted(file.name for file in images.glob("*.png"))
        if not names:
            raise InputError(f"{images}: holds no PNG image; it needs the {split} images.")
        for name in names:
            for folder in (images, annotations):
                if not (folder / name).is_file():
                    raise InputError(
                        f"{folder / name}: missing, though its pair is listed; each image needs a "
                        f"label image of the same name in {annotations}."
                    )
        pairs[split] = [(Path(name).stem, name.split("_")[0]) for name in names]

    def read(split, index):
        name = pairs[split][index][0] + ".png"
        image = _open(path / split / name).convert("RGB")
        annotation = _open(path / f"{split}annot" / name)
        if annotation.size != image.size:
            raise InputError(
                f"{path / f'{split}annot' / name}: {annotation.size} pixels, its image has "
                f"{image.size}; both must be equal."
            )
        labels = np.array(annotation)
        if labels.ndim != 2 or labels.max() > CAMVID_VOID:
            raise InputError(
                f"{path / f'{split}annot' / name}: label value {labels.max()}, allowed are 0 to 10 "
                "and 11 for unlabelled, in an 8-bit image of one channel."
            )
        labels[labels == CAMVID_VOID] = UNLABELLED
        height, width = size
        return (
            np.array(image.resize((width, height), Image.Resampling.BOX)),
            np.array(Image.fromarray(labels).resize((width, height), Image.Resampling.NEAREST)),
        )

    return Source(CAMVID, pairs, read)


def _open(file: Path) -> Image.Image:
    try:
        image = Image.open(file)
        image.load()
    except Exception as problem:
        raise InputError(
            f"{file}: cannot be read as an image ({problem}); replace the file."
        ) from None
    return image


SOURCES = {"synthetic": synthetic_source, "camvid": camvid_source}


def folder_variable(source: str) -> str:
    """Return the environment variable that names a source's folder on this machine."""
    return f"ROADSEG_{source.upper()}"


def find_source(settings: dict, root: Path) -> Source:
    """Open the data set that a study's `data` block names; nothing is read but its listing.

    If the environment variable of the source is set, `path` becomes a link to the folder it names,
    once that has been found to hold such a data set. The pipeline therefore sees one path on every
    machine, and the digest of what it holds.

    Parameters
    ----------
    settings : the `data` block of a study's params.yaml
    root : what a relative `path` is relative to

    Raises
    ------
    InputError : no such source, no folder, files missing, or something else stands where the link
        belongs
    """
    kind = settings["source"]
    if kind not in SOURCES:
        raise InputError(f"data: source: {kind!r} is unknown.{nearest(kind, SOURCES)}")
    if kind == "synthetic":
        return SOURCES[kind](**settings)
    path = root / settings["path"]
    variable = folder_variable(kind)
    if variable not in os.environ:
        if not path.is_dir():
            raise InputError(
                f"{settings['path']}: no such folder. Put the {kind} data there, change data: path "
                f"in params.yaml, or let the environment variable {variable} name a folder."
            )
        return SOURCES[kind](**{**settings, "path": path})
    target = Path(os.environ[variable]).expanduser().resolve()
    if not target.is_dir():
        raise InputError(
            f"{variable}: {target} does not exist or is no folder; set it to the folder of the "
            f"{kind} data."
        )
    source = SOURCES[kind](**{**settings, "path": target})
    if path.resolve() != target:
        if path.exists() and not path.is_symlink():
            raise InputError(
                f"{variable}: {path} exists already and is no link; move it away, or unset the "
                "variable to use it."
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.symlink_to(target)
    return source


def prepare(settings: dict, root: Path, target: Path) -> dict:
    """Write a data set as memory-mappable arrays into `target`, whole or not at all.

    Parameters
    ----------
    settings : the `data` block of a study's params.yaml
    root : what a relative `path` is relative to
    target : folder to write; an old one is replaced when the new one is complete

    Returns
    -------
    The content of `scenes.json`: classes, colours, digest, and names and sequences of each split

    Raises
    ------
    InputError : anything wrong with the source's files
    """
    source = find_source(settings, root)
    height, width = settings["size"]
    work = target.with_name(target.name + ".partial")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    digest = hashlib.sha256()
    try:
        for split in SPLITS:
            n = len(source.pairs[split])
            images = _array(work / f"{split}_images.npy", (n, 3, height, width))
            labels = _array(work / f"{split}_labels.npy", (n, height, width))
            for index in range(n):
                image, annotation = source.read(split, index)
                images[index] = image.transpose(2, 0, 1)
                labels[index] = annotation
                digest.update(images[index].tobytes() + labels[index].tobytes())
            if (labels[:] == UNLABELLED).all():
                raise InputError(f"{split}: no pixel of any label image is labelled.")
        about = {
            "classes": list(source.palette),
            "colours": list(source.palette.values()),
            "size": [height, width],
            "digest": digest.hexdigest(),
            "splits": {
                split: {
                    "names": [name for name, _ in source.pairs[split]],
                    "sequences": [sequence for _, sequence in source.pairs[split]],
                }
                for split in SPLITS
            },
        }
        (work / "scenes.json").write_text(json.dumps(about))
    except BaseException:
        shutil.rmtree(work)
        raise
    shutil.rmtree(target, ignore_errors=True)
    work.rename(target)
    return about


def _array(file: Path, shape: tuple[int, ...]) -> np.ndarray:
    return np.lib.format.open_memmap(file, mode="w+", dtype=np.uint8, shape=shape)
