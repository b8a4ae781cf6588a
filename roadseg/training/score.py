"""Scores of a trained network: its counts, its boundary IoU and its calibration.

The training loop does not import this: an edit here scores runs anew and trains none.
"""

import contextlib
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from roadseg.data.scenes import UNLABELLED, Scenes
from roadseg.models.segmenter import Segmenter
from roadseg.training.evaluate import evaluate

BINS = 15  # of confidence: as in the tables of Guo et al. 2017
BOUNDARY = 0.02  # of the image's diagonal: how wide the zone along a contour is


def score(
    network: Segmenter,
    val: Scenes,
    test: Scenes,
    device: torch.device,
    predictions: Path,
    **testing,
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Score a network on val and test, each image once.

    Parameters
    ----------
    predictions : an .npz file to write, 'test' uint8 (N, H, W)
    testing : `precision`, `scales` and `flip`, see `evaluate`

    Returns
    -------
    counts : 'val' and 'test', int64 (N, K, K) per image; 'boundary' of test, int64 (N, 3, K) per
        image, see `boundary_sums`
    reliability : of test, float64 (3, BINS), see `reliability`
    """
    with _array_in(predictions, "test", test.labels.shape) as append:
        counts, boundary, calibration = score_split(network, test, device, append, **testing)
    counts = {"val": evaluate(network, val, device, **testing), "test": counts}
    return counts | {"boundary": boundary}, calibration


def score_split(
    network: Segmenter,
    scenes: Scenes,
    device: torch.device,
    keep: Callable[[np.ndarray], object] = lambda _: None,
    **testing,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return counts, boundary counts and reliability of a split, as `score` does of test.

    Parameters
    ----------
    keep : receives the predictions uint8 (n, H, W) of some scenes after the other
    """
    calibration, boundary = np.zeros((3, BINS)), []

    def keep_scores(predicted: Tensor, confidence: Tensor, labels: Tensor) -> None:
        keep(predicted.to(torch.uint8).cpu().numpy())
        labelled = labels != UNLABELLED
        correct = (predicted == labels)[labelled].cpu().numpy()
        calibration[:] += reliability(confidence[labelled].cpu().numpy(), correct)
        boundary.append(boundary_sums(predicted, labels, len(scenes.classes)).cpu())

    counts = evaluate(network, scenes, device, **testing, keep=keep_scores)
    return counts, torch.cat(boundary).numpy(), calibration


@contextlib.contextmanager
def _array_in(
    file: Path, name: str, shape: tuple[int, ...]
) -> Iterator[Callable[[np.ndarray], object]]:
    """Give what appends rows to an array uint8 of a new .npz file, which need not fit in memory."""
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    with (
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open(f"{name}.npy", "w", force_zip64=True) as array,
    ):
        np.lib.format.write_array_header_1_0(array, header)
        yield lambda rows: array.write(rows.tobytes())


def reliability(confidence: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return how often a network is right when it is so sure, from which `calibration_error` is.

    Parameters
    ----------
    confidence : float (P,), the probability of the predicted class of each labelled pixel
    right : bool (P,), whether that is the true class

    Returns
    -------
    float64 (3, BINS) over equal bins of confidence, (0, 1/15] first: pixels, right ones, and the
    sum of their confidence. Adds over images

    Source
    ------
    Guo et al. 2017, section 2.
    """
    where = np.clip(np.ceil(confidence.astype(np.float64) * BINS).astype(int) - 1, 0, BINS - 1)
    return np.stack([np.bincount(where, w, BINS) for w in (None, right, confidence)])


def calibration_error(sums: np.ndarray) -> float:
    """Return the expected calibration error of `reliability`, in 0..1: Guo et al. 2017, eq. 3."""
    pixels, right, confidence = sums
    return float(np.abs(right - confidence).sum() / pixels.sum()) if pixels.sum() else np.nan


def boundary_sums(predictions: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Count pixels near contours per image: `iou_of_sums` of them is the boundary IoU.

    A pixel is near a contour if a pixel of another class is at most 2 % of the image's diagonal
    away, in rows and in columns. The zones of truth and prediction are compared as masks are.

    Parameters
    ----------
    predictions : integer (N, H, W), classes 0..K-1
    labels : integer (N, H, W), classes 0..K-1, 255 where not labelled: those are left out
    classes : K

    Returns
    -------
    int64 (N, 3, K): hits, pixels in the truth's zone, pixels in the prediction's, as `class_sums`

    Source
    ------
    Cheng et al. 2021, eq. 2, with its width. There the image's border is a contour too, and what is
    not labelled does not occur; here neither makes one.
    """
    labelled = labels != UNLABELLED
    zones = []
    for class_map in (labels, predictions):
        # among the labelled: no class of its own for what is not
        highest = class_map.float().masked_fill(~labelled, -1.0)
        lowest = class_map.float().masked_fill(~labelled, UNLABELLED)
        differs = _local_maximum(highest) > -_local_maximum(-lowest)
        zones.append(differs & labelled)
    hit = zones[0] & zones[1] & (labels == predictions)
    sums = [
        _per_class(class_map, zone, classes)
        for class_map, zone in ((labels, hit), (labels, zones[0]), (predictions, zones[1]))
    ]
    return torch.stack(sums, 1)


def _local_maximum(values: Tensor) -> Tensor:
    """Return the largest of the values near each pixel, float (N, H, W)."""
    height, width = values.shape[-2:]
    reach = max(1, round(BOUNDARY * (height**2 + width**2) ** 0.5))
    rows = F.max_pool2d(values[:, None], (2 * reach + 1, 1), 1, (reach, 0))
    return F.max_pool2d(rows, (1, 2 * reach + 1), 1, (0, reach))[:, 0]


def _per_class(class_map: Tensor, chosen: Tensor, classes: int) -> Tensor:
    """Return the number of chosen pixels of each image and class, int64 (N, K)."""
    n = len(class_map)
    image = torch.arange(n, device=class_map.device).view(n, 1, 1).expand_as(class_map)
    cell = (image * classes + class_map.long())[chosen]
    return torch.bincount(cell, minlength=n * classes).view(n, classes)
