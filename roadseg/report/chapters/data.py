"""What chapter 1 tells of a study's data."""

import numpy as np
import pandas as pd

from roadseg.analysis.intervals import MIN_BLOCKS
from roadseg.analysis.tables import Results
from roadseg.config.study import Study
from roadseg.data import survey
from roadseg.data.scenes import UNLABELLED, Scenes, blocks
from roadseg.report.say import capital, count, fill, listed, name, percent

ENOUGH = 8  # images, to say what is unusual among them
FLATTERED = 0.8  # of the distance of the other split, below which a split is near train


def even(scenes: Scenes, number: int) -> list[int]:
    """Return positions of images at even distances through a split."""
    return list(dict.fromkeys(np.linspace(0, len(scenes) - 1, number).astype(int).tolist()))


def facts(study: Study, splits: dict[str, Scenes]) -> dict:
    """Return the values of the chapter's first paragraph."""
    scenes = splits["train"]
    height, width = scenes.labels.shape[1:]
    labelled = sum(survey.shares(split)["pixels"].sum() for split in splits.values())
    blocks_text, scored = "", [*splits][-1]
    if study.data["block"] > 1:
        number = len(set(blocks(splits[scored].sequences, study.data["block"])))
        blocks_text = (
            f"Neighbouring video frames are nearly one image, so intervals draw whole blocks of "
            f"{study.data['block']}: the {scored} images form {count(number, 'block')}."
        )
        if number < MIN_BLOCKS:
            blocks_text += f" That is too few for an interval, which needs {MIN_BLOCKS}."
    return {
        "counts": listed(f"{len(split)} {which}" for which, split in splits.items()),
        "height": height, "width": width, "classes": len(scenes.classes),
        "source": study.data["source"], "blocks": blocks_text,
        "unlabelled": 1 - labelled / (sum(map(len, splits.values())) * height * width),
    }  # fmt: skip


def samples_title(scenes: Scenes) -> str:
    """Return how many classes an image of a split shows, as a sentence."""
    if len(scenes.classes) < 2:
        return "What the networks learn from."
    shown = [len(np.setdiff1d(labels, UNLABELLED)) for labels in scenes.labels]
    return (
        f"Half of the {len(scenes)} training images show {np.median(shown):.0f} or fewer of the "
        f"{len(scenes.classes)} classes."
    )


def shares(splits: dict[str, Scenes]) -> pd.DataFrame:
    """Return the share of the labelled pixels of each class (rows) in each split (columns)."""
    return pd.DataFrame({which: survey.shares(split)["share"] for which, split in splits.items()})


def class_title(table: pd.DataFrame) -> str:
    """Return which classes are frequent and which is rare, from the rows of `shares`."""
    train = table["train"].sort_values(ascending=False)
    present = train[train > 0]
    if len(present) < 2:
        return "There is one class."
    most = min(3, len(present) - 1)
    return capital(
        f"{listed(present.index[:most])} {'make' if most > 1 else 'makes'} up "
        f"{percent(present[:most].sum())} of the training pixels, {present.index[-1]} "
        f"{percent(present.iloc[-1])}."
    )


def trivial(table: pd.DataFrame, results: Results) -> dict:
    """Return what predictors that look at no image score."""
    scored, common = table.iloc[:, -1], table["train"].idxmax()
    absent = {which: [*table.index[table[which] == 0]] for which in table}
    text = "; ".join(f"{which}: {listed(map(name, a), most=5)}" for which, a in absent.items() if a)
    return {
        "common": common, "accuracy": scored[common],
        "miou": scored[common] / (scored > 0).sum(), "prior": results.prior["test_miou"].iloc[0],
        "absent": f"Absent from a split, and without an IoU there: {text}." if text else "",
    }  # fmt: skip


def split_text(splits: dict[str, Scenes]) -> str:
    """Return whether the splits that score are as new as each other (Markdown)."""
    distances = survey.split_distances(splits)
    median = distances.groupby("split")["distance"].median()
    copies = distances[(distances["split"] != "train") & (distances["distance"] < survey.COPY)]
    largest = survey.split_table(splits).set_index("split")["largest"]
    scored = [*splits][-1]
    sequences = [each for split in splits.values() for each in split.sequences]
    near, far = median.drop("train", errors="ignore").sort_values().index[[0, -1]]
    return fill(
        """
        {% if copies %}
        **{{ copies | count('image') }} of {{ where | listed }} all but copy a training image.**
        {% endif %}
        {% if near != far and median[near] < flattered * median[far] %}
        **Images of {{ near }} resemble those of train more than images of {{ far }} do**, so scores
        on {{ near }} are optimistic.
        {% endif %}
        {% if largest > 0.1 and videos %}
        One video holds {{ largest | percent }} of the {{ scored }} images.
        {% endif %}""",
        copies=len(copies), where=copies["split"].unique(), near=near, far=far, median=median,
        flattered=FLATTERED, largest=largest[scored], scored=scored,
        videos=len(set(sequences)) < len(sequences),
    )  # fmt: skip


def object_sizes(scenes: Scenes) -> pd.DataFrame:
    """Return the sizes of the connected pieces of each class, without specks."""
    return survey.sizes(survey.objects(scenes, survey.SPECK + 1))


def size_title(scenes: Scenes) -> str:
    """Return which class has the smallest pieces, as a sentence."""
    sizes = object_sizes(scenes)
    if not len(sizes):
        return "No piece is larger than a speck."
    smallest = sizes.loc[sizes["half"].idxmin()]
    return (
        f"Half of the {smallest['class']} pixels lie in pieces of at most "
        f"{count(smallest['half'], 'pixel')}."
    )


def suspects(splits: dict[str, Scenes]) -> pd.DataFrame:
    """Return all images, those first whose labels are most unusual for their split."""
    large = {which: split for which, split in splits.items() if len(split) >= ENOUGH} or splits
    rows = [survey.suspects(split).assign(split=which) for which, split in large.items()]
    return pd.concat(rows).sort_values("z", ascending=False, kind="stable", ignore_index=True)


def suspects_title(rows: pd.DataFrame, splits: dict[str, Scenes]) -> str:
    """Return how many images are unusual, as a sentence."""
    if max(map(len, splits.values())) < ENOUGH:
        return "There are too few images to say what is unusual among them."
    unusual = rows[rows["z"] >= survey.UNUSUAL]
    return (
        f"{len(unusual)} of {len(rows)} images have a robust z-score of {survey.UNUSUAL} or more."
    )


def alignment_text(splits: dict[str, Scenes]) -> str:
    """Return whether labels fit their own images better than the neighbours' (Markdown)."""
    texts = []
    for which, split in splits.items():
        fit = survey.align(split)
        text = "their own image" if fit.file == "own" else f"the {fit.file} image, a likely mix-up"
        if np.isnan(fit.share):
            text = "too few images to tell"
        texts.append(f"{which}: {text}")
    return f"Labels could belong to a neighbouring file. They fit best: {'; '.join(texts)}."
