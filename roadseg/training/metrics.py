"""Scores: pixel counts, and what is computed from them."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from roadseg.data.scenes import UNLABELLED


@dataclass(frozen=True)
class Confusion:
    """Pixel counts, int64 (K, K): row is the truth, column the prediction. Adds with `+`.

    >>> c = Confusion(np.array([[3, 1, 0], [0, 4, 0], [0, 0, 0]]))
    >>> c.iou.tolist()
    [0.75, 0.8, nan]
    >>> round(c.miou, 3)
    0.775
    """

    counts: np.ndarray

    def __add__(self, other: "Confusion") -> "Confusion":
        return Confusion(self.counts + other.counts)

    @property
    def iou(self) -> np.ndarray:
        """Intersection over union of each class, float (K,); NaN where it is not in the truth."""
        return iou(self.counts)

    @property
    def miou(self) -> float:
        """Mean of `iou` over the classes that occur in the truth."""
        return float(miou(self.counts))

    @property
    def course_miou(self) -> float:
        """Mean over all K classes of I / (U + 1e-10): the course's rule, absent classes as 0."""
        intersection = np.diagonal(self.counts)
        union = self.counts.sum(0) + self.counts.sum(1) - intersection
        return float((intersection / (union + 1e-10)).mean())

    @property
    def accuracy(self) -> float:
        """Share of labelled pixels that are right."""
        return float(np.trace(self.counts) / self.counts.sum())


def iou(counts: np.ndarray) -> np.ndarray:
    """Return IoU per class (..., K) of counts (..., K, K); NaN where a class is not in the truth.

    A class that is predicted but never true has IoU 0 for some libraries and no IoU for others.
    Here it has none, and its false pixels count against the classes they should have been.
    """
    return iou_of_sums(class_sums(counts))


def class_sums(counts: np.ndarray) -> np.ndarray:
    """Return all that the IoU of each class needs of counts (..., K, K), as (..., 3, K).

    These are its hits, its pixels in the truth and those predicted: they add over images as the
    counts do, exactly, and are 3 K numbers in place of K * K.
    """
    hits = np.diagonal(counts, axis1=-2, axis2=-1)
    return np.stack([hits, counts.sum(-1), counts.sum(-2)], axis=-2)


def iou_of_sums(sums: np.ndarray) -> np.ndarray:
    """Return `iou`, (..., K), of `class_sums`, (..., 3, K)."""
    hits, truth, predicted = np.moveaxis(sums, -2, 0)
    return np.where(truth > 0, hits / np.maximum(truth + predicted - hits, 1), np.nan)


def miou(counts: np.ndarray) -> np.ndarray:
    """Return mIoU (...,) of counts (..., K, K): the mean over classes that occur in the truth."""
    return miou_of_sums(class_sums(counts))


def miou_of_sums(sums: np.ndarray) -> np.ndarray:
    """Return `miou`, (...,), of `class_sums`, (..., 3, K)."""
    return np.nanmean(iou_of_sums(sums), axis=-1)


def count(predictions: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Count pixels per image.

    Parameters
    ----------
    predictions : integer (N, H, W), classes 0..K-1
    labels : integer (N, H, W), classes 0..K-1, 255 where not labelled: those are left out
    classes : K

    Returns
    -------
    int64 (N, K, K), row truth, column prediction
    """
    n = len(labels)
    labelled = labels != UNLABELLED
    image = torch.arange(n, device=labels.device).view(n, 1, 1).expand_as(labels)
    cell = (image * classes + labels.long()) * classes + predictions.long()
    return torch.bincount(cell[labelled], minlength=n * classes**2).view(n, classes, classes)


BINS = 15  # of confidence: as in the tables of Guo et al. 2017
BOUNDARY = 0.02  # of the image's diagonal: how wide the zone along a contour is


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
