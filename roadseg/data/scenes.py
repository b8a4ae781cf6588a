"""Road scenes as arrays, memory-mapped; the label sets and their colours."""

import json
import mmap
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from roadseg.errors import InputError

UNLABELLED = 255
SPLITS = ("train", "val", "test")
RERUN_HINT = "Nothing that came of it is kept. Run again: what is amiss is prepared anew."

# The 19 training classes of Cityscapes with its official colours.
CITYSCAPES = {
    "road": (128, 64, 128),
    "sidewalk": (244, 35, 232),
    "building": (70, 70, 70),
    "wall": (102, 102, 156),
    "fence": (190, 153, 153),
    "pole": (153, 153, 153),
    "traffic light": (250, 170, 30),
    "traffic sign": (220, 220, 0),
    "vegetation": (107, 142, 35),
    "terrain": (152, 251, 152),
    "sky": (70, 130, 180),
    "person": (220, 20, 60),
    "rider": (255, 0, 0),
    "car": (0, 0, 142),
    "truck": (0, 0, 70),
    "bus": (0, 60, 100),
    "train": (0, 80, 100),
    "motorcycle": (0, 0, 230),
    "bicycle": (119, 11, 32),
}

# The 11 CamVid classes of the SegNet split in label order, with the colours usual for them.
CAMVID = {
    "sky": (128, 128, 128),
    "building": (128, 0, 0),
    "pole": (192, 192, 128),
    "road": (128, 64, 128),
    "pavement": (60, 40, 222),
    "tree": (128, 128, 0),
    "sign symbol": (192, 128, 128),
    "fence": (64, 64, 128),
    "car": (64, 0, 128),
    "pedestrian": (64, 64, 0),
    "bicyclist": (0, 128, 192),
}


@dataclass(frozen=True)
class Scenes:
    """One split of a data set.

    Attributes
    ----------
    images : uint8 (N, 3, H, W), RGB
    labels : uint8 (N, H, W), classes 0..K-1, 255 where not labelled
    names : N image names
    sequences : N names of the video that each image belongs to
    classes : K class names
    colours : K RGB triples of 0..255
    digest : hex digest of the split
    """

    images: np.ndarray
    labels: np.ndarray
    names: tuple[str, ...]
    sequences: tuple[str, ...]
    classes: tuple[str, ...]
    colours: tuple[tuple[int, int, int], ...]
    digest: str

    def __len__(self) -> int:
        return len(self.names)

    @classmethod
    def load(cls, folder: Path, split: str) -> "Scenes":
        """Open a prepared split without reading it into memory.

        Raises
        ------
        InputError : the folder holds no prepared data set, or a file of it cannot be read
        """
        folder, about = Path(folder), read_about(folder)
        return cls(
            images=_mapped(folder / f"{split}_images.npy"),
            labels=_mapped(folder / f"{split}_labels.npy"),
            names=tuple(about["splits"][split]["names"]),
            sequences=tuple(about["splits"][split]["sequences"]),
            classes=tuple(about["classes"]),
            colours=tuple(map(tuple, about["colours"])),
            digest=about["splits"][split]["digest"],
        )


def _mapped(file: Path) -> np.ndarray:
    try:
        return np.load(file, mmap_mode="r")
    except (OSError, ValueError) as problem:  # gone, or shorter than its head says
        why = getattr(problem, "strerror", None) or problem
        raise InputError(f"{file}: cannot be read ({why}). {RERUN_HINT}") from None


def read_about(folder: Path) -> dict:
    """Return what `prepare` wrote about a data set: classes, colours, digest, size and splits.

    Raises
    ------
    InputError : the folder holds no prepared data set
    """
    file = Path(folder) / "scenes.json"
    if not file.is_file():
        raise InputError(f"{folder}: no prepared data here. Run 'make report' first.")
    return json.loads(file.read_text())


def data_digest(folder: Path) -> str:
    """Return the hex digest of a whole prepared data set."""
    return read_about(folder)["digest"]


def test_is_val(folder: Path) -> bool:
    """Return whether a prepared data set had no test images, and its test holds those of val."""
    splits = read_about(folder)["splits"]
    return splits["test"]["names"] == splits["val"]["names"]


def read(array: np.ndarray, chosen: np.ndarray | slice) -> np.ndarray:
    """Return some rows of a split's images or labels, copied into memory.

    Rows of a mapped file are read by their place in it. Read through the mapping they would count
    as the process's memory, make other threads wait, and end the process where the file was cut.

    Raises
    ------
    InputError : the file has vanished, or ends before the row
    """
    if not isinstance(array.base, mmap.mmap):
        return np.array(array[chosen])
    numbers = np.arange(len(array))[chosen]
    rows = np.empty((len(numbers), *array.shape[1:]), array.dtype)
    try:
        with open(array.filename, "rb", buffering=0) as file:
            for number, row in zip(numbers.tolist(), rows, strict=True):
                file.seek(array.offset + number * row.nbytes)
                if file.readinto(row.reshape(-1)) != row.nbytes:
                    raise InputError(
                        f"{array.filename}: was cut short while it was used. {RERUN_HINT}"
                    )
    except OSError as problem:
        raise InputError(
            f"{array.filename}: cannot be read any more ({problem.strerror}). {RERUN_HINT}"
        ) from None
    return rows


def stamp(*splits: Scenes) -> dict[str, tuple]:
    """Return what tells whether splits' files were changed: file -> inode, size, time."""
    states = {}
    for array in (array for split in splits for array in (split.images, split.labels)):
        if isinstance(array, np.memmap):
            try:
                status = os.stat(array.filename)
                states[str(array.filename)] = (status.st_ino, status.st_size, status.st_mtime_ns)
            except OSError:
                states[str(array.filename)] = ()
    return states


def check_unchanged(before: dict[str, tuple], *splits: Scenes) -> None:
    """Raise InputError, with the file, if splits are not what their `stamp` was."""
    for file, state in stamp(*splits).items():
        if state != before[file]:
            what = "was changed" if state else "has vanished"
            raise InputError(f"{file}: {what} while it was used. {RERUN_HINT}")


def blocks(sequences: Sequence[str], length: int) -> np.ndarray:
    """Number the runs of up to `length` consecutive images of one sequence: int (N,).

    Neighbouring video frames are nearly one image, so a bootstrap must keep them together.

    >>> blocks(["a", "a", "a", "b"], 2).tolist()
    [0, 0, 1, 2]
    """
    numbers, filled = [], length
    for last, sequence in zip([None, *sequences], sequences, strict=False):
        if sequence != last or filled == length:
            numbers.append(numbers[-1] + 1 if numbers else 0)
            filled = 0
        else:
            numbers.append(numbers[-1])
        filled += 1
    return np.array(numbers)
