"""Pixel counts, and the IoU of each class that they come to."""

from dataclasses import dataclass

import numpy as np
import torch
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
