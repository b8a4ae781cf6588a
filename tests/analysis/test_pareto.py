"""The front of accuracy against cost: by hand, against brute force, and on simulated scores."""

import itertools

import numpy as np
import pytest

from roadseg.analysis import intervals, pareto
from roadseg.training import metrics


def test_a_front_by_hand():
    costs, scores = np.array([1.0, 2.0, 3.0, 4.0, 2.0]), np.array([0.3, 0.5, 0.4, 0.6, 0.5])
    # the third is dearer and worse than the second; the fifth is as the second, so both stay
    assert list(pareto.front(costs, scores)) == [True, True, False, True, True]
    assert pareto.affordable(costs, scores) == [(1.0, 0), (2.0, 1), (4.0, 3)]


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
        assert list(pareto.front(costs, scores)) == expected
        stacked = pareto.front(costs, np.stack([scores, scores[::-1]]))
        assert list(stacked[0]) == expected
        for budget, index in pareto.affordable(costs, scores):
            assert scores[index] == scores[costs <= budget].max()


def test_the_volume_is_the_mean_over_budgets():
    """Against the mean over a fine grid of budgets, as many per factor of ten everywhere."""
    costs = np.array([10.0, 1.0, 100.0, 3.0])
    choice, worth = np.array([0.5, 0.2, 0.9, 0.1]), np.array([0.45, 0.25, 0.8, 0.9])
    budgets = np.exp(np.linspace(0, np.log(100), 20001))[:-1]
    mean = np.mean([worth[max(np.flatnonzero(costs <= b), key=lambda i: choice[i])] for b in budgets])
    assert pareto.volume(costs, choice, worth) == pytest.approx(mean, abs=1e-4)
    # half the orders of magnitude buy the first, half the second; the dearest gets no width
    assert pareto.volume(costs, choice, worth) == pytest.approx((0.25 + 0.45) / 2)
    both = pareto.volume(costs, choice, np.stack([worth, 2 * worth]))
    np.testing.assert_allclose(both, [0.35, 0.7])


def test_the_volume_is_the_usual_hypervolume_scaled():
    """Area of the union of the rectangles that each point dominates, by inclusion-exclusion."""
    costs, scores = np.array([1.0, 4.0, 2.0]), np.array([0.2, 0.6, 0.5])
    x, total = np.log(costs.max() / costs), 0.0
    for size in (1, 2, 3):
        for some in itertools.combinations(range(3), size):
            total += (-1) ** (size + 1) * min(x[i] for i in some) * min(scores[i] for i in some)
    assert pareto.volume(costs, scores, scores) == pytest.approx(total / np.log(4))


def test_one_network_has_no_volume():
    assert np.isnan(pareto.volume(np.array([2.0, 2.0]), np.array([0.1, 0.2]), np.array([0.1, 0.2])))


def test_resampled_scores_spread_as_repetitions_do():
    """Scores of many simulated studies spread as the resamples of one do, on average."""
    rng = np.random.default_rng(1)

    def study():
        luck = rng.normal(0, 0.04, 4)  # of each seed
        hard = rng.normal(0, 0.1, 40)  # of each image, the same for all seeds
        right = np.clip(0.6 + luck[:, None] + hard, 0.05, 0.95)
        hits = np.round(1000 * right)
        counts = np.zeros((4, 40, 2, 2))
        counts[..., 0, 0], counts[..., 0, 1] = hits, 1000 - hits
        counts[..., 1, 1], counts[..., 1, 0] = hits, 1000 - hits
        return counts

    studies = [study() for _ in range(150)]
    true = np.std([metrics.miou(counts.sum(1)).mean() for counts in studies])
    told = np.mean([
        pareto.resampled([counts], np.arange(40), rounds=200).std() for counts in studies[:60]
    ])
    assert told == pytest.approx(true, rel=0.15)
    first = studies[0]
    draws = pareto.resampled([first, first], np.arange(40), rounds=200)
    assert draws.shape == (200, 2)
    assert draws.mean() == pytest.approx(metrics.miou(first.sum(1)).mean(), abs=0.01)
    assert np.corrcoef(draws.T)[0, 1] > 0.2  # the same images for both


def test_one_seed_and_one_block_tell_nothing():
    counts = np.random.default_rng(0).integers(1, 50, (1, 5, 3, 3))
    costs, choice = np.array([1.0, 2.0]), np.array([0.1, 0.2])
    assert np.isnan(pareto.resampled([counts, counts], np.zeros(5, int), rounds=20)).all()
    found = pareto.volume_interval(costs, choice, [counts, counts], np.zeros(5, int))
    assert (found.low, found.high) == (-np.inf, np.inf)
    assert found.estimate == pytest.approx(metrics.miou(counts.sum((0, 1))))


def test_of_two_networks_the_volume_is_the_cheaper_one_s_score_with_its_interval():
    """The dearest gets no width, so the interval must be the one of `intervals.interval`."""
    rng = np.random.default_rng(3)
    tests = [rng.integers(1, 60, (3, 12, 2, 2)) for _ in range(2)]
    blocks = np.arange(12) // 2
    own = intervals.interval(tests[0], blocks)
    found = pareto.volume_interval(np.array([1.0, 5.0]), np.array([0.1, 0.2]), tests, blocks)
    assert found.estimate == pytest.approx(own.estimate)
    assert found.low == pytest.approx(own.low, abs=0.1 * (own.high - own.low))
    assert found.high == pytest.approx(own.high, abs=0.1 * (own.high - own.low))


@pytest.mark.parametrize(("seed_sd", "image_sd"), [(0.03, 0.0), (0.02, 0.1), (0.0, 0.1)])
def test_the_volume_s_interval_covers_a_known_truth(seed_sd, image_sd):
    """Three networks, three seeds, 40 images; the truth is what endless ones would give."""
    rng = np.random.default_rng(4)
    costs, choice = np.array([1.0, 3.0, 9.0]), np.array([0.1, 0.2, 0.3])
    levels, hits, trials = np.array([0.3, 0.4, 0.5]), 0, 300
    truth = pareto.volume(costs, choice, levels / (2 - levels))
    for _ in range(trials):
        hard, tests = rng.normal(0, image_sd, 40), []
        for level in levels:
            right = level + rng.normal(0, seed_sd, 3)[:, None] + hard + rng.normal(0, 0.02, (3, 40))
            done = np.round(1e4 * np.clip(right, 0.01, 0.99))
            row = [[done, 1e4 - done], [1e4 - done, done]]
            tests.append(np.moveaxis(np.array(row), (0, 1), (2, 3)))
        found = pareto.volume_interval(costs, choice, tests, np.arange(40), rounds=120)
        hits += found.low < truth < found.high
    assert 0.9 < hits / trials <= 0.99
