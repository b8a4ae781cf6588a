import numpy as np
import pytest
import simulation
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from roadseg.analysis import intervals as of_sums
from roadseg.analysis.intervals import (
    Interval,
    bootstrap_weights,
    detectable,
    effective_blocks,
    holm,
    sd_interval,
)
from roadseg.training.metrics import class_sums, iou, miou


def interval(counts, blocks, baseline=None, **options):
    """The interval of counts (S, N, K, K)."""
    baseline = None if baseline is None else class_sums(baseline)
    return of_sums.interval(class_sums(counts), blocks, baseline, **options)


def class_intervals(counts, blocks, baseline=None):
    baseline = None if baseline is None else class_sums(baseline)
    return of_sums.class_intervals(class_sums(counts), blocks, baseline)


def test_bootstrap_draws_whole_blocks():
    weights = bootstrap_weights(np.array([7, 7, 3, 3, 3]), 200, np.random.default_rng(0))
    assert weights.shape == (200, 5)
    assert (weights[:, 0] == weights[:, 1]).all()
    assert (weights[:, 2] == weights[:, 4]).all()
    assert (weights[:, 0] + weights[:, 2] == 2).all()


def _simulated(rng, seeds, images, right):
    """Counts (S, N, 2, 2): per image 100 pixels of each class, a share of them right."""
    hits = rng.binomial(100, np.clip(right, 0.02, 0.98), (2, seeds, images)).transpose(1, 2, 0)
    counts = np.zeros((seeds, images, 2, 2), np.int64)
    counts[..., 0, 0], counts[..., 1, 1] = hits[..., 0], hits[..., 1]
    counts[..., 0, 1], counts[..., 1, 0] = 100 - hits[..., 0], 100 - hits[..., 1]
    return counts


def test_interval_of_equal_arms_is_zero_and_of_a_real_gain_excludes_it():
    rng = np.random.default_rng(0)
    a = _simulated(rng, 3, 40, 0.7)
    same = interval(a, np.arange(40), baseline=a)
    assert (same.estimate, same.low, same.high, same.p, same.se) == (0, 0, 0, 1, 0)
    gain = interval(_simulated(rng, 3, 40, 0.8), np.arange(40), baseline=a)
    assert gain.low > 0 and gain.p < 0.05
    assert gain.estimate == pytest.approx(miou(_truth(0.8)) - miou(_truth(0.7)), abs=0.02)


def _truth(right):
    return np.array([[right, 1 - right], [1 - right, right]])


@pytest.mark.parametrize(
    ("seeds", "blocks"),
    [(1, np.arange(30)), (2, np.arange(30)), (4, np.zeros(30)), (4, np.arange(30) % 5)],
)
def test_of_few_seeds_or_blocks_there_is_no_interval(seeds, blocks):
    rng = np.random.default_rng(2)
    a, b = _simulated(rng, seeds, 30, 0.5), _simulated(rng, seeds, 30, 0.9)
    result = interval(b, blocks, baseline=a)
    assert result.estimate > 0.2 and result.seeds == seeds
    assert result.blocks == pytest.approx(len(np.unique(blocks)))
    assert np.isnan([result.low, result.high, result.p, result.se]).all()
    assert interval(a, blocks, baseline=a).p == 1


def test_three_seeds_and_six_blocks_are_enough():
    rng = np.random.default_rng(2)
    result = interval(_simulated(rng, 3, 30, 0.7), np.arange(30) % 6)
    assert result.low < result.estimate < result.high and result.blocks == pytest.approx(6)


def test_scores_without_seeds_have_the_images_interval():
    """Three times the same counts, as of the location prior: Student's t over the blocks alone."""
    counts = np.repeat(_simulated(np.random.default_rng(2), 1, 30, 0.7), 3, axis=0)
    result = interval(counts, np.arange(30))
    assert result.image_share == pytest.approx(1)
    assert result.high - result.estimate == pytest.approx(stats.t.ppf(0.975, 29) * result.se)


def test_a_difference_where_nothing_varies_is_no_finding():
    a, b = (np.tile([[right, 10 - right], [0, 10]], (3, 8, 1, 1)) for right in (6, 9))
    result = interval(b, np.arange(8), baseline=a)
    assert result.estimate > 0.1 and np.isnan([result.low, result.p]).all()


def test_the_critical_value_by_hand():
    # from tables of t at 5 %, two-sided: 2.262 with 9 degrees of freedom, 4.303 with 2
    comparison = Interval(0.1, 0, 0.2, seeds=3, p=0.1, se=0.01, blocks=10, image_share=0.25)
    assert comparison.t(0.05) == pytest.approx(0.25 * 2.262 + 0.75 * 4.303, rel=1e-3)
    # at 40 %: 0.883 and 1.061
    both = comparison.t(0.05) + 0.25 * 0.883 + 0.75 * 1.061
    assert detectable(comparison, 1) == pytest.approx(0.01 * both, rel=1e-3)
    assert detectable(comparison, 8) > detectable(comparison, 1) > detectable(comparison, 1, power=0.5)
    assert np.isnan(detectable(Interval(0.1, np.nan, np.nan, 1, 10), 1))
    assert np.isnan(detectable(Interval(0.0, 0.0, 0.0, 3, 10, p=1.0, se=0.0), 1))  # of equal arms


def test_the_interval_by_hand():
    """Its parts by formulas of their own, from scores and bootstrap samples."""
    rng = np.random.default_rng(6)
    blocks = np.repeat(np.arange(10), 2)
    a, b = (_simulated(rng, 3, 20, 0.7 + rng.normal(0, 0.03, (3, 1))) for _ in range(2))
    result = interval(b, blocks, baseline=a)
    weights = bootstrap_weights(np.arange(10), 1000, np.random.default_rng(0))[:, blocks]
    samples = np.stack([
        [miou(np.tensordot(w, x[s], 1)) for w in weights for x in [arm]] for arm in (a, b) for s in range(3)
    ]).reshape(2, 3, 1000)  # fmt: skip
    samples = samples[1] - samples[0]  # (seeds, samples)
    scores = miou(b.sum(1)) - miou(a.sum(1))
    images = 10 / 9 * samples.mean(0).var(ddof=1)
    seeds = scores.var(ddof=1) / 3
    both = max(10 / 9 * samples.var(1, ddof=1).mean() - images, 0) / 2
    se = np.sqrt(images + max(seeds - both, 0))
    share = images / (images + seeds)
    critical = share * stats.t.ppf(0.975, 9) + (1 - share) * stats.t.ppf(0.975, 2)
    assert result.estimate == pytest.approx(scores.mean()) and result.se == pytest.approx(se)
    assert result.high - result.estimate == pytest.approx(critical * se)
    assert result.t(result.p) * se == pytest.approx(abs(scores.mean()))
    assert (result.low > 0 or result.high < 0) == (result.p < 0.05)


def test_effective_blocks_by_hand():
    pixels = np.zeros((4, 3), np.int64)
    pixels[:, 0] = [10, 10, 30, 30]  # blocks have 20 and 60 pixels: 1 / (1/16 + 9/16)
    pixels[:2, 1] = 5  # in one block alone
    effective = effective_blocks(pixels, np.array([5, 5, 7, 7]))
    np.testing.assert_allclose(effective, [1.6, 1, np.nan])


def test_what_seeds_do_to_images_is_counted_once():
    """Counts that differ by seed and image alone: the variance of the mean is that over both."""
    rng = np.random.default_rng(4)
    right = 0.7 + 0.1 * rng.standard_normal((400, 3, 40))
    intervals = [interval(_simulated(rng, 3, 40, r), np.arange(40), rounds=100) for r in right]
    estimates, errors = [f.estimate for f in intervals], [f.se for f in intervals]
    # max(noise - both, 0) is not negative, so the mean of the variances errs on the large side:
    # it would be twice the true one if `both` were not taken off.
    assert 1.0 < np.mean(np.square(errors)) / np.var(estimates) < 1.6


def test_class_intervals():
    rng = np.random.default_rng(9)
    a, b = (_simulated(rng, 3, 12, right) for right in (0.7, 0.8))
    a, b = (np.pad(x, ((0, 0), (0, 0), (0, 2), (0, 2))) for x in (a, b))
    for x, right in ((a, 30), (b, 60)):  # class 2 is in one image, class 3 in none
        hits = right + rng.integers(0, 9, 3)
        x[:, 4, 2, 2], x[:, 4, 2, 0] = hits, 100 - hits
    by_class = class_intervals(b, np.arange(12), baseline=a)
    expected = (iou(b.sum(1)) - iou(a.sum(1))).mean(0)
    np.testing.assert_allclose([f.estimate for f in by_class], expected)
    assert by_class[0].low > 0 and by_class[1].low > 0
    # What one image shows of a class tells nothing of other images.
    assert by_class[2].blocks == 1 and np.isnan([by_class[2].low, by_class[2].p]).all()
    assert np.isnan([by_class[3].estimate, by_class[3].low, by_class[3].high, by_class[3].p]).all()


def test_samples_without_a_class_are_left_out_of_its_variance():
    rng = np.random.default_rng(11)
    counts = np.repeat(np.pad(_simulated(rng, 1, 12, 0.7), ((0, 0), (0, 0), (0, 1), (0, 1))), 3, axis=0)
    counts[:, :6, 2, 2] = rng.integers(60, 64, 6)  # in half of the images, and never missed
    counts[:, :6, 0, 2] = rng.integers(5, 30, 6)
    weights = bootstrap_weights(np.arange(12), 20_000, np.random.default_rng(0))
    samples = iou(np.tensordot(weights, counts[0], 1))[:, 2]
    assert np.isnan(samples).any()
    result = of_sums.class_intervals(class_sums(counts), np.arange(12), rounds=20_000)[2]
    assert result.se == pytest.approx(np.sqrt(12 / 11 * np.nanvar(samples, ddof=1)))


def test_a_class_missing_from_a_sample_is_left_out_of_it():
    rng = np.random.default_rng(10)
    a = np.pad(_simulated(rng, 3, 12, 0.7), ((0, 0), (0, 0), (0, 1), (0, 1)))
    a[:, 0, 2, 2] = [50, 70, 60]  # in one of 12 images: in some samples it is not drawn
    assert (bootstrap_weights(np.arange(12), 1000, rng)[:, 0] == 0).any()
    result = interval(a, np.arange(12))
    assert np.isfinite([result.low, result.high, result.p, result.se]).all()


def test_the_bootstrap_is_that_of_whole_counts():
    """Three sums of a class stand for its row and column: not a bit of a score differs."""
    rng = np.random.default_rng(3)
    counts, blocks = rng.integers(0, 999, (1, 14, 5, 5)), np.repeat(np.arange(7), 2)
    counts = np.repeat(counts, 3, axis=0)  # nothing of it is the seeds'
    counts[:, :, 4] = 0  # a class that is predicted and never true
    weights = bootstrap_weights(np.arange(7), 1000, np.random.default_rng(0))
    of_block = counts[0].reshape(7, 2, 5, 5).sum(1)
    samples = np.tensordot(weights, of_block, axes=(1, 0))
    for intervals, scores, score in (
        (class_intervals(counts, blocks), iou(samples), iou(counts[0].sum(0))),
        ([interval(counts, blocks)], miou(samples)[:, None], [miou(counts[0].sum(0))]),
    ):
        assert np.array_equal([each.estimate for each in intervals], score, equal_nan=True)
        expected = np.sqrt(7 / 6 * scores.var(0, ddof=1))
        np.testing.assert_allclose([each.se for each in intervals], expected, rtol=1e-12)


def test_sd_interval():
    scores = np.array([0.50, 0.52, 0.54])
    sd, low, high = sd_interval(scores)
    assert sd == pytest.approx(0.02)
    # chi-square with 2 degrees of freedom has quantiles -2 ln(1 - q)
    assert low == pytest.approx(0.02 * (2 / (-2 * np.log(0.025))) ** 0.5)
    assert high == pytest.approx(0.02 * (2 / (-2 * np.log(0.975))) ** 0.5)
    narrow = sd_interval(scores, level=0.5)
    assert low < narrow[1] < sd < narrow[2] < high
    assert np.isnan(sd_interval(scores[:1])).all()
    drawn = np.random.default_rng(0).normal(0, 2, (2000, 5))
    covered = [low <= 2 <= high for _, low, high in map(sd_interval, drawn)]
    assert 0.93 <= np.mean(covered) <= 0.97


def test_holm_by_hand():
    # sorted 0.005 0.01 0.03 0.04 times 4 3 2 1: 0.02 0.03 0.06 0.04, and none less than before
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm([0.01, np.nan, 0.04]), [0.02, np.nan, 0.04])
    np.testing.assert_allclose(holm([0.6, 0.7]), [1, 1])
    assert holm([]).shape == (0,) and np.isnan(holm([np.nan])).all()


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.randoms(use_true_random=False))
def test_holm_properties(p, random):
    p = np.array(p)
    adjusted = holm(p)
    assert (adjusted >= p).all() and (adjusted <= np.minimum(len(p) * p, 1)).all()
    assert (np.diff(adjusted[np.argsort(p)]) >= 0).all()
    order = random.sample(range(len(p)), len(p))
    np.testing.assert_array_equal(holm(p[order]), adjusted[order])


# How good the intervals are, where the truth is known: fewer trials of what docs/statistics.md shows.
TRIALS = 800


def test_the_simulation_knows_its_truth():
    rng = np.random.default_rng(20)
    arms = [miou(simulation.ladder(rng, effects=(0.0, 0.3)).sum(2)).mean(1) for _ in range(4000)]
    expected = np.array([simulation.population(0.0), simulation.population(0.3)])
    np.testing.assert_allclose(np.mean(arms, 0), expected, atol=0.003)
    assert np.diff(np.mean(arms, 0)) == pytest.approx(np.diff(expected), abs=0.001)


@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize("case", simulation.CASES)
def test_intervals_cover(seeds, case):
    settings = simulation.CASES[case]
    intervals = simulation.trials(np.random.default_rng(22), TRIALS, seeds=seeds, **settings)
    assert 0.92 <= simulation.coverage(intervals, simulation.truth(**settings)) <= 0.99


@pytest.mark.parametrize("seeds", [3, 5])
def test_holm_holds_a_family_of_true_zeros_and_pooled_noise_does_not(seeds):
    rng, count = np.random.default_rng(25), TRIALS // 2
    error, with_pool = simulation.family_error(rng, seeds, simulation.MEASURED, count)
    margin = 2 * (0.06 * 0.94 / count) ** 0.5
    assert error <= 0.06 + margin < with_pool, (error, with_pool)


def test_noise_pooled_over_arms_covers_noisy_pairs_too_rarely():
    """Why each comparison has its own noise."""
    rng, covered = np.random.default_rng(27), []
    for _ in range(300):
        arms = simulation.ladder(rng, 5, spread=simulation.MEASURED)
        covered.append([
            abs(simulation.compare(arms, rung).estimate) <= simulation.pooled(arms, rung)[0] for rung in (1, 3)
        ])  # fmt: skip
    noisy, quiet = np.mean(covered, 0)
    assert noisy < 0.9 and quiet > 0.98


def test_an_effect_of_the_detectable_size_is_found():
    power = simulation.power(np.random.default_rng(26), 5, 8, TRIALS)
    assert 0.60 <= power <= 0.90  # nominally 0.80; few seeds cost some of it
