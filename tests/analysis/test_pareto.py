"""The front of accuracy against cost: by hand, against brute force, and on simulated scores."""


import numpy as np
import pytest

from roadseg.analysis import pareto
from roadseg.training import metrics


def test_the_pareto_front_by_hand():
    costs, scores = np.array([1.0, 2.0, 3.0, 4.0, 2.0]), np.array([0.3, 0.5, 0.4, 0.6, 0.5])
    # the third is dearer and worse than the second; the fifth is as the second, so both stay
    assert list(pareto.pareto_optimal(costs, scores)) == [True, True, False, True, True]
    assert pareto.pareto_staircase(costs, scores) == [(1.0, 0), (2.0, 1), (4.0, 3)]


def test_a_front_is_what_nothing_dominates():
    rng = np.random.default_rng(0)
    for _ in range(50):
        costs, scores = rng.integers(1, 6, 7).astype(float), rng.integers(0, 6, 7) / 10
        expected = [
            not any(
                costs[j] <= costs[i] and scores[j] >= scores[i]
                and (costs[j] < costs[i] or scores[j] > scores[i])
                for j in range(7)
            )
            for i in range(7)
        ]  # fmt: skip
        assert list(pareto.pareto_optimal(costs, scores)) == expected
        stacked = pareto.pareto_optimal(costs, np.stack([scores, scores[::-1]]))
        assert list(stacked[0]) == expected
        for budget, index in pareto.pareto_staircase(costs, scores):
            assert scores[index] == scores[costs <= budget].max()


def test_resampled_scores_spread_as_repetitions_do():
    """Scores of many simulated studies spread as the resamples of one do, on average."""
    rng = np.random.default_rng(1)

    def study():
        seed_effects = rng.normal(0, 0.04, 4)  # of each seed
        hard = rng.normal(0, 0.1, 40)  # of each image, the same for all seeds
        right = np.clip(0.6 + seed_effects[:, None] + hard, 0.05, 0.95)
        hits = np.round(1000 * right)
        counts = np.zeros((4, 40, 2, 2))
        counts[..., 0, 0], counts[..., 0, 1] = hits, 1000 - hits
        counts[..., 1, 1], counts[..., 1, 0] = hits, 1000 - hits
        return counts

    studies = [study() for _ in range(150)]
    true = np.std([metrics.miou(counts.sum(1)).mean() for counts in studies])
    resampled_sd = np.mean([
        pareto.resampled([metrics.class_sums(counts)], np.arange(40), rounds=200).std() for counts in studies[:60]
    ])
    assert resampled_sd == pytest.approx(true, rel=0.15)
    first = studies[0]
    draws = pareto.resampled([metrics.class_sums(first)] * 2, np.arange(40), rounds=200)
    assert draws.shape == (200, 2)
    assert draws.mean() == pytest.approx(metrics.miou(first.sum(1)).mean(), abs=0.01)
    assert np.corrcoef(draws.T)[0, 1] > 0.2  # the same images for both
