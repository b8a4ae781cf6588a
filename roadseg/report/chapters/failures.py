"""What chapter 6 tells of where networks fail."""

import numpy as np
import pandas as pd
from IPython.display import HTML

from roadseg.analysis.tables import Results
from roadseg.config.study import Study
from roadseg.report import pictures
from roadseg.report.findings import best_on_val, median_image, networks_with_best
from roadseg.report.load import predictions, record, scored, scores
from roadseg.report.say import listed, percent, score

WORST = 0.1  # of the images are called the worst


def best(study: Study, results: Results) -> tuple[str, str]:
    """Return the title and the name of the arm that scored best on val."""
    arms, arm = networks_with_best(study, results), best_on_val(results)["arm"]
    return arms.loc[arms["arm"] == arm, "label"].iloc[0], arm


def sliders(study: Study, title: str, arm: str) -> pictures.Sliders:
    """Show an arm's best, median and worst test image, by the image's own mIoU."""
    values, scenes = scores(study, arm), scored(study)
    if not np.isfinite(values).any():
        return pictures.sliders(scenes, {}, predictions(study, arm), title)
    places = {"best": np.nanargmax(values), "median": median_image(values)}
    places["worst"] = np.nanargmin(values)
    chosen = {
        f"{place}: {score(values[index])}, {scenes.names[index]}": int(index)
        for place, index in places.items()
    }
    return pictures.sliders(scenes, chosen, predictions(study, arm), title)


def tail_title(study: Study, arm: str) -> str:
    """Return how far an arm's worst images fall behind the median one, as a sentence."""
    values = scores(study, arm)
    values = np.sort(values[np.isfinite(values)])
    if not len(values):
        return "No test image has a label."
    worst = values[: max(1, round(WORST * len(values)))]
    return (
        f"The median image has {score(values[median_image(values)])} mIoU, the worst {len(worst)} "
        f"of {len(values)} have {score(worst.mean())} on average."
    )


def legend(study: Study) -> HTML:
    """Return the colours of the classes as a line of text."""
    return pictures.legend(scored(study))


def confusion(study: Study, arm: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return an arm's counts over the test images, first seed: (K, K), row truth; the classes."""
    return record(study, arm).counts["test"].sum(0), scored(study).classes


def confusion_title(counts: np.ndarray, classes: tuple[str, ...]) -> str:
    """Return how many pixels are wrong and which confusion costs most, as a sentence."""
    wrong = counts - np.diag(np.diagonal(counts))
    if not wrong.sum():
        return "No pixel is wrong."
    truth, predicted = np.unravel_index(wrong.argmax(), wrong.shape)
    return (
        f"{percent(wrong.sum() / counts.sum())} of the test pixels are wrong; the most frequent "
        f"confusion is {classes[truth]} predicted as {classes[predicted]} "
        f"({percent(wrong.max() / wrong.sum())} of them)."
    )


def calibration_title(results: Results, arms: pd.DataFrame) -> str:
    """Return the range of calibration errors and which networks are over- or underconfident."""
    table = results.reliability
    gaps = (table["confidence"] - table["correct"]).groupby(table["arm"]).sum()
    low, high = arms["calibration_error"].min(), arms["calibration_error"].max()
    error = percent(low) if low == high else f"{percent(low)} to {percent(high)}"
    gaps = arms["arm"].map(gaps)
    parts = []
    for word, of_them in (("over", gaps > 0), ("under", gaps < 0)):
        who = listed(arms["label"][of_them], most=4)
        who = "all" if of_them.all() and len(arms) > 1 else who
        parts += [f"{who} {'is' if of_them.sum() == 1 else 'are'} {word}confident"] if who else []
    return f"Expected calibration error {error}; {', '.join(parts) or 'none is overconfident'}."


def boundary_title(arms: pd.DataFrame) -> str:
    """Return how far boundary IoU lies below mIoU, as a sentence."""
    gap = 100 * (arms["test_miou"] - arms["boundary_iou"]).dropna()
    if not len(gap):
        return "No test image has a boundary between two classes."
    size = f"{gap.min():.0f} to {gap.max():.0f}" if len(gap) > 1 else f"{gap.iloc[0]:.0f}"
    return f"Near boundaries, IoU is {size} points lower."
