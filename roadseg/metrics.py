"""Scores: pixel counts, what is computed from them, and how sure they are."""

from dataclasses import dataclass

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from roadseg.data import UNLABELLED


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
    intersection = np.diagonal(counts, axis1=-2, axis2=-1)
    truth, predicted = counts.sum(-1), counts.sum(-2)
    union = truth + predicted - intersection
    return np.where(truth > 0, intersection / np.maximum(union, 1), np.nan)


def miou(counts: np.ndarray) -> np.ndarray:
    """Return mIoU (...,) of counts (..., K, K): the mean over classes that occur in the truth."""
    return np.nanmean(iou(counts), axis=-1)


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


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % interval, and how many seeds it rests on."""

    estimate: float
    low: float
    high: float
    seeds: int

    @property
    def excludes_zero(self) -> bool:
        """Whether zero lies outside the interval."""
        return self.low > 0 or self.high < 0


def bootstrap_weights(blocks: np.ndarray, rounds: int, rng: np.random.Generator) -> np.ndarray:
    """Draw blocks of images with replacement; return how often each image was drawn (rounds, N)."""
    members = np.unique(blocks, return_inverse=True)[1]
    n = members.max() + 1
    return rng.multinomial(n, np.full(n, 1 / n), size=rounds)[:, members]


def interval(
    counts: np.ndarray, blocks: np.ndarray, minus: np.ndarray | None = None, *, rounds: int = 1000
) -> Interval:
    """Return the mIoU over seeds, or its paired difference, with a 95 % interval.

    Two things would differ in a repetition: the seed and the test images. The variance of the
    mean over seeds is estimated from the seeds' own scores (s^2 / n), that of the images by a
    bootstrap that draws blocks of images, the same for every seed and both arms. They add, and
    the interval is Student's t with the degrees of freedom of Welch and Satterthwaite. With one
    seed the seed's part is unknown, and the interval covers the images alone; with one seed and
    one block it is endless.

    Parameters
    ----------
    counts : int (S, N, K, K), per seed and test image
    blocks : int (N,), images that are drawn together
    minus : like `counts`, the same seeds of another arm; the result is `counts` minus `minus`
    rounds : bootstrap samples

    Returns
    -------
    Interval in mIoU (0..1)

    Source
    ------
    Satterthwaite 1946 for the degrees of freedom; Davison & Hinkley 1997, section 3.2, for
    drawing groups.
    """
    if len(counts) == 1 and len(np.unique(blocks)) == 1:  # nothing varies: nothing is known
        estimate = miou(counts.sum(1))[0] - (0 if minus is None else miou(minus.sum(1))[0])
        return Interval(float(estimate), -np.inf, np.inf, 1)
    arms = [counts] if minus is None else [counts, minus]
    per_seed = [miou(arm.sum(1)) for arm in arms]
    scores = per_seed[0] if minus is None else per_seed[0] - per_seed[1]
    seeds = len(scores)

    weights = bootstrap_weights(blocks, rounds, np.random.default_rng(0))
    k = counts.shape[-1]
    resampled = []
    for arm in arms:
        flat = arm.reshape(*arm.shape[:2], k * k).astype(np.float64)
        drawn = np.einsum("rn,snc->rsc", weights, flat, optimize=True)
        resampled.append(miou(drawn.reshape(rounds, seeds, k, k)).mean(1))
    replicates = resampled[0] if minus is None else resampled[0] - resampled[1]

    images = replicates.var(ddof=1)
    images_df = max(len(np.unique(blocks)) - 1, 1)
    noise = scores.var(ddof=1) / seeds if seeds > 1 else 0.0
    total = images + noise
    bottom = images**2 / images_df + (noise**2 / (seeds - 1) if seeds > 1 else 0.0)
    df = total**2 / bottom if bottom > 0 else 1.0
    half = stats.t.ppf(0.975, df) * np.sqrt(total)
    mean = float(scores.mean())
    return Interval(mean, mean - half, mean + half, seeds)
