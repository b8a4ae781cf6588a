"""How sure a score or a difference is: intervals, and corrections for many tests."""

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from scipy import optimize, special

from roadseg.training.metrics import iou_of_sums, miou_of_sums

MIN_SEEDS, MIN_BLOCKS = 3, 6  # of an interval; the second is the effective number of blocks
POWER = 0.8  # to find an effect of the minimum detectable size


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % interval, and what that rests on. NaN is unknown.

    Attributes
    ----------
    estimate, low, high : the last two are NaN where there are too few seeds or blocks, see
        `interval`
    seeds : how many
    blocks : effective number of blocks of test images
    p : two-sided p-value of zero, of this test alone: a family of them goes through `holm`
    se : standard error of the estimate
    image_share : the weight of the images' quantile of t against that of the seeds, 0..1
    """

    estimate: float
    low: float
    high: float
    seeds: int
    blocks: float
    p: float = np.nan
    se: float = np.nan
    image_share: float = np.nan

    def t(self, alpha: float) -> float:
        """Return the critical value of the two-sided test at a level `alpha`.

        Source
        ------
        Cochran & Cox 1957, Experimental Designs: a mean of the quantiles of both
        parts of the variance, weighted by these.
        """
        parts = (self.image_share, self.blocks - 1), (1 - self.image_share, self.seeds - 1)
        return sum(
            share * float(special.stdtrit(df, 1 - alpha / 2)) for share, df in parts if share > 0
        )


def sd_interval(scores: np.ndarray, level: float = 0.95) -> tuple[float, float, float]:
    """Return the standard deviation of scores (S,) with its interval: sd, low, high.

    The interval is that of chi-square, for scores that are normal; NaN for a single score.
    """
    df = len(scores) - 1
    if df < 1:
        return np.nan, np.nan, np.nan
    sd = float(np.std(scores, ddof=1))
    low, high = sd * np.sqrt(df / special.chdtri(df, [(1 - level) / 2, (1 + level) / 2]))
    return sd, float(low), float(high)


def bootstrap_weights(blocks: np.ndarray, rounds: int, rng: np.random.Generator) -> np.ndarray:
    """Draw blocks of images with replacement; return how often each image was drawn (rounds, N)."""
    block_index = np.unique(blocks, return_inverse=True)[1]
    n = block_index.max() + 1
    return rng.multinomial(n, np.full(n, 1 / n), size=rounds)[:, block_index]


def interval(
    sums: np.ndarray,
    blocks: np.ndarray,
    baseline: np.ndarray | None = None,
    *,
    rounds: int = 1000,
) -> Interval:
    """Return the mIoU over seeds, or its paired difference, with a 95 % interval.

    Two things would differ in a repetition: the seed and the test images. They are crossed, each
    network being scored on every image, so the variance of the mean has three parts:

    - images: a bootstrap that draws blocks of images, the same for every seed and both arms,
      times B / (B - 1) for B blocks, by which a bootstrap falls short
    - seeds: the variance of the seeds' scores, or of their differences, over S
    - both: what seeds do to single images is in each of the two, and is subtracted once. It is
      what averaging over seeds takes from the bootstrap variance of one seed, over S - 1

    The sum is images + max(seeds - both, 0). The quantile of t is Cochran and Cox's, with S - 1
    degrees of freedom for the seeds and B_e - 1 for the images: B_e = 1 / sum of w^2, where w is a
    block's share of a class's pixels; of mIoU it is the mean over classes.

    There is no interval and no p-value with fewer than MIN_SEEDS seeds or MIN_BLOCKS effective
    blocks: t would be many times what it is with one more of them. Nor is there one where a
    difference is not 0 and nothing varies. Arms with equal counts differ by 0, with p = 1.

    Parameters
    ----------
    sums : int (S, N, 3, K), `metrics.class_sums` of each seed and test image
    blocks : int (N,), images that are drawn together
    baseline : like `sums`, the same seeds of another arm; the result is `sums` minus `baseline`
    rounds : bootstrap samples

    Returns
    -------
    Interval in mIoU (0..1)

    Source
    ------
    Owen 2007, The pigeonhole bootstrap, Ann. Appl. Stat. 1(2), for crossed effects. Davison &
    Hinkley 1997, section 3.2, for drawing groups. Kish 1965 for the effective number. How often
    the intervals cover a known truth is measured in `docs/statistics.md`.
    """
    return _intervals(False, sums, blocks, baseline, rounds)[0]


def class_intervals(
    sums: np.ndarray,
    blocks: np.ndarray,
    baseline: np.ndarray | None = None,
    *,
    rounds: int = 1000,
) -> list[Interval]:
    """Return `interval` for the IoU of each class: K of them, NaN for one not in the truth.

    Bootstrap samples without a class tell nothing of its IoU and are left out.
    """
    return _intervals(True, sums, blocks, baseline, rounds)


def effective_blocks(pixels: np.ndarray, blocks: np.ndarray) -> np.ndarray:
    """Return the effective number of blocks of each class: float (K,), NaN for one not there.

    Parameters
    ----------
    pixels : int (N, K), of each class in each test image
    blocks : int (N,)
    """
    block_index = np.unique(blocks, return_inverse=True)[1]
    block_pixels = np.zeros((block_index.max() + 1, pixels.shape[-1]))
    np.add.at(block_pixels, block_index, pixels)
    with np.errstate(invalid="ignore"):
        return 1 / ((block_pixels / block_pixels.sum(0)) ** 2).sum(0)


def _intervals(
    per_class: bool,
    sums: np.ndarray,
    blocks: np.ndarray,
    baseline: np.ndarray | None,
    rounds: int,
) -> list[Interval]:
    """Return the intervals of M measures: the IoU of each class (M = K), or mIoU alone (M = 1)."""
    seeds, k = len(sums), sums.shape[-1]
    block_index = np.unique(blocks, return_inverse=True)[1]
    n = block_index.max() + 1
    in_block = (block_index == np.arange(n)[:, None]).astype(np.float64)  # (B, N)
    weights = _resamples(n, rounds)

    def scores_of(sums: np.ndarray) -> np.ndarray:
        return iou_of_sums(sums) if per_class else miou_of_sums(sums)[..., None]

    def resample(sums: np.ndarray) -> np.ndarray:
        block_sums = in_block @ sums.reshape(seeds, -1, 3 * k)  # (S, B, 3 K)
        samples = np.tensordot(weights, block_sums, axes=(1, 1))
        return scores_of(samples.reshape(rounds, seeds, 3, k))

    scores, samples = scores_of(sums.sum(1)), resample(sums)  # (S, M), (rounds, S, M)
    if baseline is not None:
        scores, samples = scores - scores_of(baseline.sum(1)), samples - resample(baseline)
    effective = effective_blocks(sums[0, :, 1], blocks)
    if not per_class:
        effective = np.array([np.nanmean(effective)])
    return _crossed(scores, samples, n, effective)


@lru_cache(4)
def _resamples(blocks: int, rounds: int) -> np.ndarray:
    """Return how often each of B blocks is in each bootstrap sample, float (rounds, B)."""
    weights = bootstrap_weights(np.arange(blocks), rounds, np.random.default_rng(0))
    weights = weights.astype(np.float64)
    weights.flags.writeable = False  # all intervals share it
    return weights


def _crossed(
    scores: np.ndarray, samples: np.ndarray, blocks: int, effective: np.ndarray
) -> list[Interval]:
    """Return the interval of the mean over seeds of each of M measures; `interval` says how.

    Parameters
    ----------
    scores : float (S, M), per seed
    samples : float (R, S, M), the same of R bootstrap samples of the images
    blocks : of images
    effective : float (M,), effective number of blocks
    """
    seeds, scale = len(scores), blocks / max(blocks - 1, 1)
    image_variance = scale * _variance(samples.mean(1))
    seed_variance = _variance(scores) / seeds
    interaction = np.maximum(scale * _variance(samples).mean(0) - image_variance, 0)
    variance = image_variance + np.maximum(seed_variance - interaction / max(seeds - 1, 1), 0)

    intervals = []
    for j, estimate in enumerate(scores.mean(0).tolist()):
        b = float(effective[j])
        varies = variance[j] > 1e-24  # less is rounding
        if estimate == 0 and not varies:
            intervals.append(Interval(0.0, 0.0, 0.0, seeds, b, p=1.0, se=0.0))
        elif not (has_enough(seeds, b) and varies):
            intervals.append(Interval(estimate, np.nan, np.nan, seeds, b))
        else:
            se = float(np.sqrt(variance[j]))
            share = float(image_variance[j] / (image_variance[j] + seed_variance[j]))
            draft = Interval(estimate, np.nan, np.nan, seeds, b, np.nan, se, share)
            half = draft.t(0.05) * se
            intervals.append(
                replace(draft, low=estimate - half, high=estimate + half, p=_p_value(draft))
            )
    return intervals


def has_enough(seeds: int, blocks: float) -> bool:
    """Return whether there are seeds and effective blocks (rounded) enough for an interval."""
    return seeds >= MIN_SEEDS and round(blocks, 2) >= MIN_BLOCKS


def _p_value(comparison: Interval) -> float:
    """Return the level at which zero is just in the interval."""
    ratio = abs(comparison.estimate) / comparison.se

    def excess(log_alpha: float) -> float:
        return comparison.t(np.exp(log_alpha)) - ratio

    # below 1e-16 the quantile of t is infinite
    return float(np.exp(optimize.brentq(excess, -600.0, 0.0, xtol=1e-12))) if ratio else 1.0


def _variance(samples: np.ndarray) -> np.ndarray:
    """Return the variance (...) of samples (R, ...) without NaN, 0 where there are less than 2."""
    known = np.isfinite(samples)
    n = known.sum(0)
    mean = np.where(known, samples, 0).sum(0) / np.maximum(n, 1)
    return (np.where(known, samples - mean, 0) ** 2).sum(0) / np.maximum(n - 1, 1)


def holm(p: np.ndarray) -> np.ndarray:
    """Adjust the p-values of a family of tests, so that all of them hold together.

    The chance that any true zero of the family is called a difference is at most the level that
    the adjusted p-values are held against, however the tests depend on one another.

    Parameters
    ----------
    p : float (m,); NaN is a test that could not be made: it stays NaN and is not counted

    Returns
    -------
    float (m,), in the order given

    Source
    ------
    Holm 1979, A simple sequentially rejective multiple test procedure, Scand. J. Stat. 6(2).
    """
    p = np.asarray(p, np.float64)
    adjusted = np.full(p.shape, np.nan)
    order = np.argsort(p)[: np.isfinite(p).sum()]  # NaN are sorted last
    steps = np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1))
    adjusted[order] = np.minimum(steps, 1)
    return adjusted


def detectable(comparison: Interval, tests: int, power: float = POWER) -> float:
    """Return the smallest true difference that this comparison would find with some power.

    Parameters
    ----------
    comparison : its standard error and degrees of freedom count, its estimate does not
    tests : size of its family: the level is 0.05 / tests, two-sided, the first step of `holm`
    power : the chance to find it

    Returns
    -------
    mIoU (0..1), NaN where there is no p-value, or the standard error is 0

    Source
    ------
    Bloom 1995, Minimum detectable effects, Evaluation Review 19(5). With few seeds the power is
    lower than nominal: see docs/statistics.md.
    """
    if np.isnan(comparison.p) or comparison.se == 0:
        return np.nan
    return (comparison.t(0.05 / tests) + comparison.t(2 * (1 - power))) * comparison.se
