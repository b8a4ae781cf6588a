"""Which network for which budget: the Pareto front of accuracy against cost.

Choices are made on val scores; what they are worth is told by test scores.
"""

import numpy as np

from roadseg.analysis import intervals
from roadseg.training import metrics


def pareto_optimal(costs: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Return which networks no other beats: none costs no more and scores higher, or the reverse.

    Parameters
    ----------
    costs : float (A,)
    scores : float (..., A)

    Returns
    -------
    bool (..., A)
    """
    scores = np.where(np.isnan(scores), -np.inf, scores)  # an unknown score beats nothing
    cost, other_cost = costs[:, None], costs[None, :]
    score, other_score = scores[..., :, None], scores[..., None, :]
    dominated = (other_cost <= cost) & (other_score >= score)
    dominated &= (other_cost < cost) | (other_score > score)
    return ~dominated.any(-1)


def pareto_staircase(costs: np.ndarray, scores: np.ndarray) -> list[tuple[float, int]]:
    """Return the front from cheap to dear: the budget from which on each is the choice, and which.

    Of networks that share cost and score the first is taken.
    """
    chosen, scores = [], np.where(np.isnan(scores), -np.inf, scores)
    for index in np.lexsort((-scores, costs)):
        if not chosen or scores[index] > scores[chosen[-1][1]]:
            chosen.append((float(costs[index]), int(index)))
    return chosen


def _resampled_miou(sums: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the mIoU (S, rounds) of sums (S, N, 3, K) when images weigh (rounds, N)."""
    seeds, images, _, classes = sums.shape
    flat = sums.reshape(seeds, images, 3 * classes).astype(np.float64)
    return metrics.miou_of_sums((weights @ flat).reshape(seeds, len(weights), 3, classes))


def resampled(
    tests: list[np.ndarray], blocks: np.ndarray, *, rounds: int = 1000, seed: int = 0
) -> np.ndarray:
    """Return the mIoU of each network as it might have come out with other seeds and test images.

    Blocks of test images are drawn with replacement, the same for all networks; so are each
    network's seeds, and their spread is widened by sqrt(S / (S - 1)), by which a bootstrap of S
    falls short. It is a picture of what might have been, no interval: with few seeds it is rough.

    Parameters
    ----------
    tests : for each of A networks, `metrics.class_sums` int (S, N, 3, K) of each seed and image
    blocks : int (N,), images that are drawn together

    Returns
    -------
    float (rounds, A), mIoU in 0..1
    """
    rng = np.random.default_rng(seed)
    weights = intervals.bootstrap_weights(blocks, rounds, rng)
    miou_samples = []
    for sums in tests:
        seeds, scores = len(sums), _resampled_miou(sums, weights)
        drawn = rng.integers(0, seeds, (seeds, rounds))
        mean = scores.mean(0)
        seed_deviation = np.take_along_axis(scores, drawn, 0).mean(0) - mean
        miou_samples.append(mean + seed_deviation * np.sqrt(seeds / max(seeds - 1, 1)))
    return np.stack(miou_samples, 1)
