"""What chapter 3 tells of the baseline and FCN."""

import numpy as np
import pandas as pd

from roadseg.analysis.tables import Results
from roadseg.config.study import Study
from roadseg.report import pictures
from roadseg.report.chapters.data import even
from roadseg.report.findings import comparison, fcn_arms, verdict
from roadseg.report.load import predictions, scored
from roadseg.report.names import arm_titles
from roadseg.report.say import listed, points, score


def arms(study: Study, results: Results) -> pd.DataFrame:
    """Return the location prior and the arms of the FCN question, with their titles as `label`."""
    rows = results.of(study.fcn.name)
    rows = rows.assign(label=rows["arm"].map(arm_titles(study)))
    return pd.concat([results.prior.assign(label="location prior"), rows], ignore_index=True)


def title(study: Study, results: Results) -> str:
    """Return how the finest FCN differs from the baseline, as a sentence."""
    last = fcn_arms(study)[-1]
    row = results.difference(study.fcn.name, last, study.baseline)
    titles = arm_titles(study)
    change = f"{titles[last]} against {titles[study.baseline]}: {points(row['difference'])} points"
    return f"{change} ({verdict(row)})."


def sentences(study: Study, results: Results) -> dict[str, str]:
    """Return what comes of the encoder and what of the skip connections, in sentences."""
    titles, shown = arm_titles(study), fcn_arms(study)
    question = study.fcn.name
    total = results.difference(question, shown[-1], study.baseline)
    skips = "The encoder and the skip connections cannot be separated here: that takes an FCN-32s."
    if len(shown) > 1:
        row = results.difference(question, shown[-1], shown[0])
        skips = f"The skip connections alone: {comparison(row, titles)}"
    return {"against_baseline": comparison(total, titles), "skips": skips}


def encoders(study: Study) -> str:
    """Return the encoders of the chapter's FCNs, and where their weights start, in words."""
    recipes = [study.fcn.arms[arm] for arm in fcn_arms(study)]
    names = {
        f"`{r.network.partition(':')[2].removeprefix('tu-')}` "
        + (f"with weights from `{r.pretrained}`" if r.pretrained else "with random weights")
        for r in recipes
    }
    return listed(sorted(names))


def class_title(study: Study, results: Results) -> str:
    """Return which class gains most from the first network to the last, as a sentence."""
    first, last = ends(study)
    table = results.classes.pivot(index="class", columns="arm", values="iou")
    gain = (table[last] - table[first]).dropna()
    titles = arm_titles(study)
    return (
        f"From {titles[first]} to {titles[last]}, {gain.idxmax()} gains most "
        f"({points(gain.max())} points)."
    )


def streets(study: Study) -> pictures.Pictures:
    """Show test images and what the baseline and the finest FCN predict."""
    scenes, titles = scored(study), arm_titles(study)
    predicted = {titles[arm]: predictions(study, arm) for arm in ends(study)}
    alike = {}
    for who, labels in ({"the labels": scenes.labels} | predicted).items():
        counts = np.stack([(labels == k).sum(0) for k in range(len(scenes.classes))])
        alike[who] = counts.max(0).sum() / max(counts.sum(), 1)
    truth, first, last = map(score, alike.values())
    return pictures.predictions(scenes, even(scenes, 3), predicted).titled(
        f"The baseline gives a place the same class in {first} of the images, "
        f"{titles[ends(study)[1]]} in {last}, the labels in {truth}.", "Test images at even "
        "distances, predicted by the first seed of each network; the title is about all of them.",
    )  # fmt: skip


def ends(study: Study) -> tuple[str, str]:
    """Return the baseline and the FCN with most skip connections."""
    return study.baseline, fcn_arms(study)[-1]
