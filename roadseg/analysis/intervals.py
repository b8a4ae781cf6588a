"""How sure a score or a difference is: intervals, and corrections for many tests."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import special

from roadseg.training.metrics import class_sums, iou_of_sums, miou_of_sums


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % interval, and what that rests on. NaN is unknown.

    Attributes
    ----------
    estimate, low, high : the interval is endless (-inf, inf) where nothing is known of it
    seeds : how many
    p : two-sided p-value of zero, of this test alone: a family of them goes through `holm`
    se : standard error of the estimate
    df : degrees of freedom of `se`; NaN where `se` is 0
    """

    estimate: float
    low: float
    high: float
    seeds: int
    p: float = np.nan
    se: float = np.nan
    df: float = np.nan

    @property
    def excludes_zero(self) -> bool:
        """Whether zero lies outside the interval."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class SeedNoise:
    """How much one arm's score varies with the seed, after what seeds do to all arms alike.

    Attributes
    ----------
    variance : float for mIoU, float (K,) for IoU per class; NaN where unknown
    df : degrees of freedom it rests on; 0 where unknown
    """

    variance: float | np.ndarray
    df: int


def seed_noise(
    arms: Sequence[np.ndarray], measure: Callable[[np.ndarray], np.ndarray]
) -> SeedNoise:
    """Return the variance between seeds, pooled over the arms of a question.

    The arms are the treatments and the seeds the blocks of a randomised complete block design:
    a score less its arm's mean and its seed's mean, plus the mean of all, is noise. Three seeds
    give the difference of one pair of arms 2 degrees of freedom; nine arms together give it 16.

    Assumed is that the arms have alike variances and, between seeds, no more correlation for one
    pair than for another. That is plausible for one network trained in similar ways; it is not
    for networks of different size. With two arms nothing is assumed: twice the variance is the
    variance of their paired difference. `tests/analysis/test_intervals.py` has what it costs if
    the variances differ by a factor of two: two arms of the noisier kind are then covered in 91 %.

    Parameters
    ----------
    arms : A times int (S, N, K, K), per seed and test image; the same seeds and images. Arms that
        are one training count once
    measure : `miou` or `iou`

    Returns
    -------
    SeedNoise with (A - 1)(S - 1) degrees of freedom; unknown if that is 0

    Raises
    ------
    ValueError : the arms differ in seeds or classes, or there is none

    Source
    ------
    Montgomery, Design and Analysis of Experiments, "The Randomized Complete Block Design";
    Cochran & Cox, Experimental Designs, section 4.2.
    """
    scores = np.stack([measure(arm.sum(1)) for arm in arms])  # (A, S) or (A, S, K)
    df = (scores.shape[0] - 1) * (scores.shape[1] - 1)
    if df == 0:
        return SeedNoise(scores[0, 0] * np.nan, 0)
    residual = scores - scores.mean(1, keepdims=True) - scores.mean(0) + scores.mean((0, 1))
    return SeedNoise((residual**2).sum((0, 1)) / df, df)


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
    members = np.unique(blocks, return_inverse=True)[1]
    n = members.max() + 1
    return rng.multinomial(n, np.full(n, 1 / n), size=rounds)[:, members]


def interval(
    counts: np.ndarray,
    blocks: np.ndarray,
    minus: np.ndarray | None = None,
    *,
    noise: SeedNoise | None = None,
    rounds: int = 1000,
) -> Interval:
    """Return the mIoU over seeds, or its paired difference, with a 95 % interval.

    Two things would differ in a repetition: the seed and the test images. They are crossed, each
    network being scored on every image, so the variance of the mean has three parts:

    - images: a bootstrap that draws blocks of images, the same for every seed and both arms,
      times B / (B - 1) for B blocks, by which a bootstrap falls short
    - noise: the variance of the seeds' scores over S
    - both: what seeds do to single images is in each of the two, and is taken off once. It is
      what averaging over seeds takes from the bootstrap variance of one seed, over S - 1

    The sum is images + max(noise - both, 0), and the interval is Student's t with the degrees of
    freedom of Satterthwaite. `both` and `noise` count towards those even where they cancel.

    With one seed its part is unknown, and the interval covers the images alone; with one block
    it covers the seeds alone; with one of each, or where a difference is not 0 and nothing varies,
    it is endless. Arms with equal counts differ by 0, surely.

    Few seeds are the weak spot. Three of their own give 2 degrees of freedom, estimated in turn:
    the intervals cover 92 to 97 %, but far out the tests err, up to three or four times as often
    as a level of 0.05 / 8 promises. What goes through `holm` should have pooled `noise`.

    Parameters
    ----------
    counts : int (S, N, K, K), per seed and test image
    blocks : int (N,), images that are drawn together
    minus : like `counts`, the same seeds of another arm; the result is `counts` minus `minus`
    noise : `seed_noise` of arms that the two belong to, instead of the variance of their own
        seeds. One with 0 degrees of freedom is as none
    rounds : bootstrap samples

    Returns
    -------
    Interval in mIoU (0..1)

    Raises
    ------
    ValueError : `noise` without `minus`: it lacks what seeds do to all arms alike

    Source
    ------
    Owen 2007, The pigeonhole bootstrap, Ann. Appl. Stat. 1(2), for crossed effects, and why
    resampling both factors at once counts `both` too often: here each is resampled by itself.
    Davison & Hinkley 1997, section 3.2, for drawing groups. Satterthwaite 1946 for the degrees of
    freedom; that one part is subtracted is beyond what he treats. How often the intervals cover a
    known truth is measured in `tests/analysis/test_intervals.py`.
    """
    return _intervals(False, counts, blocks, minus, noise, rounds)[0]


def class_intervals(
    counts: np.ndarray,
    blocks: np.ndarray,
    minus: np.ndarray | None = None,
    *,
    noise: SeedNoise | None = None,
    rounds: int = 1000,
) -> list[Interval]:
    """Return `interval` for the IoU of each class: K of them, NaN for one not in the truth.

    A class varies over the blocks that show it: these are the B of its degrees of freedom, and
    its part of the images is unknown if there is only one. Bootstrap samples without the class
    tell nothing of its IoU and are left out.
    """
    return _intervals(True, counts, blocks, minus, noise, rounds)


def _intervals(
    per_class: bool,
    counts: np.ndarray,
    blocks: np.ndarray,
    minus: np.ndarray | None,
    noise: SeedNoise | None,
    rounds: int,
) -> list[Interval]:
    """Return the intervals of M measures: the IoU of each class (M = K), or mIoU alone (M = 1)."""
    if noise is not None and minus is None:
        raise ValueError("noise is for a difference: it lacks what seeds do to all arms alike")
    if minus is not None and np.array_equal(counts, minus):
        noise = None  # as far as can be seen the same networks: nothing differs with their seeds
    seeds, k = len(counts), counts.shape[-1]
    members = np.unique(blocks, return_inverse=True)[1]
    n = members.max() + 1
    in_block = (members == np.arange(n)[:, None]).astype(np.float64)  # (B, N)
    weights = _resamples(n, rounds)

    def measured(sums: np.ndarray) -> np.ndarray:
        return iou_of_sums(sums) if per_class else miou_of_sums(sums)[..., None]

    def sampled(sums: np.ndarray) -> np.ndarray:
        of_block = in_block @ sums.reshape(seeds, -1, 3 * k)  # (S, B, 3 K)
        samples = np.tensordot(weights, of_block, axes=(1, 1))
        return measured(samples.reshape(rounds, seeds, 3, k))

    own = class_sums(counts)
    scores, samples = measured(own.sum(1)), sampled(own)  # (S, M), (rounds, S, M)
    if minus is not None:
        other = class_sums(minus)
        scores, samples = scores - measured(other.sum(1)), samples - sampled(other)
    held = in_block @ counts[0].sum(-1) > 0  # (B, K)
    shown = held.sum(0) if per_class else held.any(1, keepdims=True).sum(0)  # (M,)
    return crossed(scores, samples, shown, noise)


@lru_cache(4)
def _resamples(blocks: int, rounds: int) -> np.ndarray:
    """Return how often each of B blocks is in each bootstrap sample, float (rounds, B)."""
    weights = bootstrap_weights(np.arange(blocks), rounds, np.random.default_rng(0))
    weights = weights.astype(np.float64)
    weights.flags.writeable = False  # all intervals share it
    return weights


def crossed(
    scores: np.ndarray, samples: np.ndarray, shown: np.ndarray, noise: SeedNoise | None = None
) -> list[Interval]:
    """Return the interval of the mean over seeds of each of M measures; `interval` says how.

    Parameters
    ----------
    scores : float (S, M), per seed
    samples : float (R, S, M), the same of R bootstrap samples of the images
    shown : int (M,), blocks of images that a measure rests on
    noise : of one arm, where `scores` are differences of two; None is that of `scores` themselves
    """
    seeds = len(scores)
    # A part that cannot be known is 0 and has 0 degrees of freedom.
    images_df = np.maximum(shown - 1, 0)
    scale = np.where(images_df > 0, shown / np.maximum(images_df, 1), 0.0)
    images = scale * _variance(samples.mean(1))
    both = np.zeros(len(shown))
    if seeds > 1:
        both = np.maximum(scale * _variance(samples).mean(0) - images, 0) / (seeds - 1)
    if noise is not None and noise.df > 0:
        seed_df, seed = noise.df, 2 * np.broadcast_to(noise.variance, both.shape) / seeds
    else:
        seed_df, seed = seeds - 1, _variance(scores) / seeds
    variance = images + np.maximum(seed - both, 0)

    found = []
    for j, estimate in enumerate(scores.mean(0).tolist()):
        parts = [(images[j], images_df[j]), (seed[j], seed_df)]
        parts = [(part, df) for part, df in parts if df > 0]
        if np.isnan(estimate):
            found.append(Interval(np.nan, np.nan, np.nan, seeds))
        elif parts and variance[j] < 1e-24 and estimate == 0:
            found.append(Interval(0.0, 0.0, 0.0, seeds, 1.0, 0.0))
        elif not parts or variance[j] < 1e-24:  # rounding: nothing varied, so nothing is known
            found.append(Interval(estimate, -np.inf, np.inf, seeds))
        else:
            least = min(df for _, df in parts)
            if both[j] > 0:
                parts.append((both[j], images_df[j] * (seeds - 1)))
            df = variance[j] ** 2 / sum(part**2 / df for part, df in parts)
            # What is subtracted can take this below the least of the parts' own degrees of
            # freedom, which is the least that any sum of them has.
            df = float(max(df, least))
            se = float(np.sqrt(variance[j]))
            half = float(special.stdtrit(df, 0.975)) * se
            p = float(2 * special.stdtr(df, -abs(estimate) / se))
            found.append(Interval(estimate, estimate - half, estimate + half, seeds, p, se, df))
    return found


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


def detectable(found: Interval, tests: int, power: float = 0.8) -> float:
    """Return the smallest true difference that this comparison would find with some power.

    Parameters
    ----------
    found : a comparison; its standard error and degrees of freedom count, its estimate does not
    tests : size of its family: the level is 0.05 / tests, two-sided, the first step of `holm`
    power : the chance to find it

    Returns
    -------
    mIoU (0..1), NaN where the standard error is unknown or 0

    Source
    ------
    Bloom 1995, Minimum detectable effects, Evaluation Review 19(5). It shifts a t in place of the
    noncentral one, so with few degrees of freedom the power is a little lower: 0.79 for 0.80 with
    16 of them and 8 tests, 0.74 with 4.
    """
    return float(
        (special.stdtrit(found.df, 1 - 0.025 / tests) + special.stdtrit(found.df, power)) * found.se
    )
