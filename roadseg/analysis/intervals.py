"""How sure a score or a difference is: intervals, and corrections for many tests."""

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from scipy import optimize, special

from roadseg.training.metrics import class_sums, iou_of_sums, miou_of_sums

POWER = 0.8  # to find an effect of the minimum detectable size


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % interval, and what that rests on. NaN is unknown.

    Attributes
    ----------
    estimate, low, high : the interval is (-inf, inf) where nothing is known of it
    seeds : how many
    p : two-sided p-value of zero, of this test alone: a family of them goes through `holm`. NaN
        with a single seed, or with fewer than two effective blocks
    se : standard error of the estimate
    blocks : effective number of blocks of test images
    image_share : the weight of the images' quantile of t against that of the seeds, 0..1
    """

    estimate: float
    low: float
    high: float
    seeds: int
    p: float = np.nan
    se: float = np.nan
    blocks: float = np.nan
    image_share: float = np.nan

    @property
    def excludes_zero(self) -> bool:
        """Whether zero lies outside the interval."""
        return self.low > 0 or self.high < 0

    def t(self, alpha: float) -> float:
        """Return the critical value of the two-sided test at a level `alpha`.

        Source
        ------
        Cochran & Cox 1957, Experimental Designs: a mean of the quantiles of both
        parts of the variance, weighted by these.
        """
        return sum(
            share * float(special.stdtrit(df, 1 - alpha / 2))
            for share, df in (
                (self.image_share, self.blocks - 1),
                (1 - self.image_share, self.seeds - 1),
            )
            if share > 0
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
    counts: np.ndarray,
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

    With one seed the interval covers the images alone, with fewer than two effective blocks the
    seeds alone; both without a p-value. With neither, or where a difference is not 0 and nothing
    varies, it is (-inf, inf). Arms with equal counts differ by 0, with p = 1.

    Parameters
    ----------
    counts : int (S, N, K, K), per seed and test image
    blocks : int (N,), images that are drawn together
    baseline : like `counts`, the same seeds of another arm; the result is `counts` minus `baseline`
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
    return _intervals(False, counts, blocks, baseline, rounds)[0]


def class_intervals(
    counts: np.ndarray,
    blocks: np.ndarray,
    baseline: np.ndarray | None = None,
    *,
    rounds: int = 1000,
) -> list[Interval]:
    """Return `interval` for the IoU of each class: K of them, NaN for one not in the truth.

    Bootstrap samples without a class tell nothing of its IoU and are left out.
    """
    return _intervals(True, counts, blocks, baseline, rounds)


def effective_blocks(counts: np.ndarray, blocks: np.ndarray) -> np.ndarray:
    """Return the effective number of blocks of each class: float (K,), NaN for one not there.

    Parameters
    ----------
    counts : int (N, K, K), per test image
    blocks : int (N,)
    """
    block_index = np.unique(blocks, return_inverse=True)[1]
    pixels = np.zeros((block_index.max() + 1, counts.shape[-1]))
    np.add.at(pixels, block_index, counts.sum(-1))
    with np.errstate(invalid="ignore"):
        return 1 / ((pixels / pixels.sum(0)) ** 2).sum(0)


def _intervals(
    per_class: bool,
    counts: np.ndarray,
    blocks: np.ndarray,
    baseline: np.ndarray | None,
    rounds: int,
) -> list[Interval]:
    """Return the intervals of M measures: the IoU of each class (M = K), or mIoU alone (M = 1)."""
    seeds, k = len(counts), counts.shape[-1]
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

    sums = class_sums(counts)
    scores, samples = scores_of(sums.sum(1)), resample(sums)  # (S, M), (rounds, S, M)
    if baseline is not None:
        sums = class_sums(baseline)
        scores, samples = scores - scores_of(sums.sum(1)), samples - resample(sums)
    effective = effective_blocks(counts[0], blocks)
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
    seeds = len(scores)
    known = effective >= 2  # else the images' part is not known, and is left out
    scale = np.where(known, blocks / max(blocks - 1, 1), 0.0)
    image_variance = scale * _variance(samples.mean(1))
    seed_variance, interaction = np.zeros(len(effective)), np.zeros(len(effective))
    if seeds > 1:
        seed_variance = _variance(scores) / seeds
        interaction = np.maximum(scale * _variance(samples).mean(0) - image_variance, 0) / (
            seeds - 1
        )
    variance = image_variance + np.maximum(seed_variance - interaction, 0)

    intervals = []
    for j, estimate in enumerate(scores.mean(0).tolist()):
        if np.isnan(estimate):
            intervals.append(Interval(np.nan, np.nan, np.nan, seeds))
        elif estimate == 0 and variance[j] < 1e-24 and (seeds > 1 or known[j]):
            intervals.append(Interval(0.0, 0.0, 0.0, seeds, 1.0, 0.0, float(effective[j])))
        elif variance[j] < 1e-24:  # rounding: nothing varied, so nothing is known
            intervals.append(Interval(estimate, -np.inf, np.inf, seeds))
        else:
            se = float(np.sqrt(variance[j]))
            share = float(image_variance[j] / (image_variance[j] + seed_variance[j]))
            draft = Interval(estimate, 0, 0, seeds, np.nan, se, float(effective[j]), share)
            half = draft.t(0.05) * se
            p = _p_value(draft) if seeds > 1 and known[j] else np.nan
            intervals.append(replace(draft, low=estimate - half, high=estimate + half, p=p))
    return intervals


def _p_value(comparison: Interval) -> float:
    """Return the level at which zero is just in the interval."""
    ratio = abs(comparison.estimate) / comparison.se

    def excess(log_alpha: float) -> float:
        return comparison.t(np.exp(log_alpha)) - ratio

    min_log_alpha = -600.0  # the quantiles of t end there
    if excess(min_log_alpha) < 0:
        return 0.0
    return float(np.exp(optimize.brentq(excess, min_log_alpha, 0.0, xtol=1e-12))) if ratio else 1.0


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
