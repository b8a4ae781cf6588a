"""A study, its results and its images, as the report's notebooks take them."""

import numpy as np

from roadseg.analysis.tables import Results
from roadseg.config.study import Study, load_resolved
from roadseg.data.scenes import SPLITS, Scenes, test_is_val
from roadseg.errors import InputError
from roadseg.report.findings import PLACES, unfinished
from roadseg.report.say import listed, name
from roadseg.training import metrics
from roadseg.training.store import Record


def load(study_name: str, chapter: str = "") -> tuple[Study, Results]:
    """Return the finished part of a study and its results, for a chapter of the report.

    Raises
    ------
    InputError : there are no results, or the study leaves the chapter empty
    """
    study = load_resolved(study_name)
    results = Results.read(study)
    if gap := empty_chapters(study, results).get(chapter):
        raise InputError(f"{chapter}: {gap}")
    return results.finished(study), results


def splits(study: Study) -> dict[str, Scenes]:
    """Return a study's prepared images: train, val, and test if it has test images of its own."""
    shown = [split for split in SPLITS if split != "test" or not test_is_val(study.prepared)]
    return {split: Scenes.load(study.prepared, split) for split in shown}


def scored(study: Study) -> Scenes:
    """Return the images that scores called test are on: val, where there is no test."""
    return list(splits(study).values())[-1]


def record(study: Study, arm: str) -> Record:
    """Return the record of an arm's first seed."""
    return Record.read(study.run_folder(arm, study.seeds[0]))


def predictions(study: Study, arm: str) -> np.ndarray:
    """Return what an arm's first seed predicts for the test images: uint8 (N, H, W)."""
    with np.load(study.run_folder(arm, study.seeds[0]) / "predictions.npz") as stored:
        return stored["test"]


def scores(study: Study, arm: str) -> np.ndarray:
    """Return the mIoU of each test image by an arm's first seed; NaN where nothing is labelled."""
    return metrics.miou(record(study, arm).counts["test"])


def empty_chapters(study: Study, results: Results) -> dict[str, str]:
    """Return the report's chapters that a study leaves empty: name -> what it lacks, in words."""
    ended, finished = results.ended(study), results.finished(study)
    never, not_yet, now = _gaps(study), _gaps(ended), _gaps(finished)
    wait = f"The questions of this chapter are not finished yet: {listed(unfinished(results))}."
    failed = listed(f"**{name(arm)}**" for arm in ended.arms if arm not in finished.arms)
    too_few = f"Too few of the arms of this chapter were trained to the end: {failed} failed."
    return {
        chapter: text if chapter in never else wait if chapter in not_yet else too_few
        for chapter, text in now.items()
    }


def _gaps(study: Study) -> dict[str, str]:
    kinds = {question.kind for question in study.questions.values() if question.effects}
    conditions = {
        "2_baseline": (
            not study.baseline,
            "No arm has the baseline of arXiv 2206.12571; `baseline:0.25` under `networks` would "
            "be one.",
        ),
        "3_fcn": (
            not study.fcn,
            "No question compares the baseline with FCN; one whose `networks` include a baseline "
            "and an FCN, such as `baseline:0.25` and `fcn8s:resnet18`, would.",
        ),
        "4_tricks": (
            not kinds & {*PLACES, "length"},
            "No question tries a trick; one with `ladder`, `alone`, `leave_one_out` or `length` "
            "would.",
        ),
        "5_networks": (
            not study.network_question or len(study.network_question.arms) < 2,
            "No question compares networks; one with several `networks` would.",
        ),
    }
    return {chapter: text for chapter, (is_missing, text) in conditions.items() if is_missing}
