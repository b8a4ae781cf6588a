"""How often intervals hold a known truth, and families of tests their level, in simulations.

A network's chance to get a pixel right is logistic in effects that are crossed: arm, seed, image,
and their products. Images come in blocks of two video frames that share half of each image effect.
"""

import itertools
from pathlib import Path

import numpy as np
import page
from scipy import optimize, stats

from roadseg.analysis.intervals import Interval, detectable, holm, interval
from roadseg.training.metrics import class_sums, miou

BLOCKS, FRAMES = 24, 2
BLOCK = np.repeat(np.arange(BLOCKS), FRAMES)
BASE, AREA = np.array([2.5, 1.5, 0.5]), np.array([8000.0, 4000.0, 1000.0])  # three classes
SEED, IMAGE, IMAGE_ARM, ALL = 0.05, 0.5, 0.1, 0.15  # standard deviations of effects
INTERACTION = 0.1  # seed x arm: about as much noise, over three seeds, as the images make
# What seeds did to the seven arms of a ladder on CamVid, in points of mIoU, relative to the mean.
MEASURED = np.array([4.3, 2.1, 0.7, 0.5, 0.8, 1.0, 0.9]) / 1.47
TRIALS, ROUNDS = 2000, 100  # fewer rounds than in use cost a little coverage: the safe side
CASES = {  # name -> the settings of a ladder of two arms
    "equal noise, a true difference": {"effects": (0.7, 0.8)},
    "noisy arms": {"effects": (0, 0), "spread": MEASURED[:2]},
    "quiet arms": {"effects": (0, 0), "spread": MEASURED[2:4]},
    "test-time trick": {"effects": (0, 0), "interaction": 0, "spread": 0},
    "one scene with 15 % of the pixels": {"effects": (0, 0), "long": 0.15},
}


def ladder(
    rng: np.random.Generator,
    seeds: int = 3,
    effects: tuple[float, ...] = (0.0,) * 7,
    interaction: float = INTERACTION,
    seed: float = SEED,
    spread: float | np.ndarray = 1.0,
    long: float = 0.0,
) -> np.ndarray:
    """Return counts int64 (A, S, N, 3, 3) of A arms, S seeds and N images.

    Parameters
    ----------
    effects : of each arm, on the logit of a right pixel
    interaction, seed : standard deviations of effects of a seed on one arm, and on all
    spread : scales what seeds do to an arm, one number or (A,)
    long : share of the pixels in the first block; 0 is as it comes
    """
    a = len(effects)
    spread = np.broadcast_to(spread, a)[:, None, None, None]

    def of_images(*shape):
        block = np.repeat(rng.standard_normal((*shape, BLOCKS, 3)), FRAMES, axis=-2)
        return block + rng.standard_normal((*shape, BLOCKS * FRAMES, 3))

    logit = (
        BASE
        + np.reshape(effects, (a, 1, 1, 1))
        + seed * rng.standard_normal((1, seeds, 1, 1))
        + spread * interaction * rng.standard_normal((a, seeds, 1, 1))
        + IMAGE * of_images(1, 1)
        + IMAGE_ARM * of_images(a, 1)
        + spread * ALL * of_images(a, seeds)
    )
    area = AREA * np.exp(0.5 * np.repeat(rng.standard_normal((BLOCKS, 3)), FRAMES, axis=0))
    if long:
        area[BLOCK == 0] *= long / (1 - long) * area[BLOCK > 0].sum() / area[BLOCK == 0].sum()
    right = area / (1 + np.exp(-logit))
    counts = np.repeat(((area - right) / 2)[..., None], 3, axis=-1)  # half to each other class
    counts[..., range(3), range(3)] = right
    return np.round(counts).astype(np.int64)


def population(
    effect: float, interaction: float = INTERACTION, seed: float = SEED, spread: float = 1.0
) -> float:
    """Return the mIoU of endless images, mean over endless seeds, by quadrature."""
    node, weight = np.polynomial.hermite_e.hermegauss(40)
    weight = weight / weight.sum()
    of_seed = np.hypot(spread * interaction, seed) * node
    of_image = np.sqrt(2 * (IMAGE**2 + IMAGE_ARM**2 + (spread * ALL) ** 2)) * node
    logit = BASE + effect + of_seed[:, None, None] + of_image[:, None]  # (seed, image, class)
    right = np.einsum("i,sik->sk", weight, 1 / (1 + np.exp(-logit)))
    counts = np.repeat(((1 - right) / 2 * AREA)[..., None], 3, axis=-1)
    counts[..., range(3), range(3)] = right * AREA
    return float(weight @ miou(counts))


def compare(arms: np.ndarray, rung: int = 1) -> Interval:
    """Compare a rung of a ladder with the one before it."""
    return interval(class_sums(arms[rung]), BLOCK, class_sums(arms[rung - 1]), rounds=ROUNDS)


def trials(rng: np.random.Generator, count: int = TRIALS, **settings) -> list[Interval]:
    """Return the comparisons of two arms in many simulated studies."""
    return [compare(ladder(rng, **settings)) for _ in range(count)]


def truth(
    effects: tuple[float, float],
    interaction: float = INTERACTION,
    seed: float = SEED,
    spread: float | np.ndarray = 1.0,
    long: float = 0.0,
) -> float:
    """Return the true difference of two arms; `long` has no part in it."""
    low, high = (
        population(effect, interaction, seed, each)
        for effect, each in zip(effects, np.broadcast_to(spread, 2), strict=True)
    )
    return high - low


def coverage(intervals: list[Interval], value: float) -> float:
    """Return the share of intervals that hold a value."""
    return float(np.mean([each.low <= value <= each.high for each in intervals]))


def pooled(arms: np.ndarray, rung: int) -> tuple[float, float]:
    """Return half of the interval and the p-value of a rung by noise pooled over all arms.

    This is the method that `roadseg.analysis.intervals` does not use.
    """
    count, seeds = arms.shape[:2]
    df = (count - 1) * (seeds - 1)
    scores = np.stack([miou(arm.sum(1)) for arm in arms])
    rest = scores - scores.mean(1, keepdims=True) - scores.mean(0) + scores.mean()
    noise = 2 * (rest**2).sum() / df / seeds
    change = scores[rung] - scores[rung - 1]
    own = compare(arms, rung)
    share = min(own.image_share, 0.999)
    images = share / (1 - share) * change.var(ddof=1) / seeds
    se = np.sqrt(images + noise)
    p = 2 * stats.t.sf(abs(change.mean()) / se, df)
    return float(stats.t.ppf(0.975, df) * se), float(p)


def family_error(
    rng: np.random.Generator, seeds: int, spread: float | np.ndarray, count: int
) -> tuple[float, float]:
    """Return how often a ladder of seven equal arms has a verdict: own noise, pooled noise."""
    wrong = []
    for _ in range(count):
        arms = ladder(rng, seeds, spread=spread)
        rungs = range(1, len(arms))
        p = [compare(arms, rung).p for rung in rungs], [pooled(arms, rung)[1] for rung in rungs]
        wrong.append([(holm(each) < 0.05).any() for each in p])
    return tuple(np.mean(wrong, 0))


def power(rng: np.random.Generator, seeds: int, tests: int, count: int) -> float:
    """Return how often an effect of the minimum detectable size is found."""
    found = trials(rng, count // 4, seeds=seeds, effects=(0, 0))
    size = np.mean([detectable(each, tests) for each in found])
    effect = optimize.brentq(lambda x: population(x) - population(0) - size, 0, 6)
    found = trials(rng, count, seeds=seeds, effects=(0, effect))
    return float(np.mean([each.p < 0.05 / tests for each in found]))


def main() -> None:
    """Write the section of docs/statistics.md."""
    rng, rows = np.random.default_rng(0), []
    for (name, settings), seeds in itertools.product(CASES.items(), (3, 5)):
        share = coverage(trials(rng, seeds=seeds, **settings), truth(**settings))
        rows.append({"case": name, "seeds": str(seeds), "intervals cover": f"{100 * share:.1f} %"})
    errors = []
    for (name, spread), seeds in itertools.product(
        {"equal noise": 1.0, "noise as measured": MEASURED}.items(), (3, 5)
    ):
        own, pool = family_error(rng, seeds, spread, TRIALS)
        errors.append(
            {
                "seven equal arms": name, "seeds": str(seeds),
                "a wrong verdict": f"{100 * own:.1f} %",
                "with pooled noise": f"{100 * pool:.1f} %",
            }
        )  # fmt: skip
    noisy = [
        [pooled(arms, rung)[0] >= abs(compare(arms, rung).estimate) for rung in (1, 3)]
        for arms in (ladder(rng, 5, spread=MEASURED) for _ in range(TRIALS))
    ]
    shares = 100 * np.mean(noisy, 0)
    powers = [
        {
            "seeds": str(seeds), "comparisons": str(tests),
            "found": f"{100 * power(rng, seeds, tests, TRIALS // 2):.0f} %",
        }
        for seeds, tests in itertools.product((3, 5), (1, 8))
    ]  # fmt: skip
    text = "\n\n".join(
        [
            f"{page.conditions()} {TRIALS:,} trials for each row, {BLOCKS} blocks of {FRAMES} "
            f"frames, {ROUNDS} bootstrap samples. Noise as measured has the standard deviations "
            f"of a ladder on CamVid, from {MEASURED.min():.1f} to {MEASURED.max():.1f} times "
            "their mean.",
            page.table(rows),
            "Six comparisons of neighbours, corrected by Holm; all true differences are zero:",
            page.table(errors),
            f"With pooled noise and five seeds, the interval between the two noisiest of these "
            f"arms covers {shares[0]:.0f} %, between two quiet ones {shares[1]:.1f} %.",
            "How often an effect of the minimum detectable size is found, nominally 80 %:",
            page.table(powers),
        ]
    )
    page.section("coverage", text, Path(page.PAGE).with_name("statistics.md"))


if __name__ == "__main__":
    main()
