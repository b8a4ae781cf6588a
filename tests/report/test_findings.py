"""What the report finds in tables whose answer is known."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from roadseg.analysis import results as tables
from roadseg.analysis.tables import TABLES, Results
from roadseg.config.recipe import Recipe
from roadseg.config.study import load
from roadseg.report import findings, names
from roadseg.report.chapters import failures, front, tricks

TITLES = {"a-1": "Net A", "b-2": "Net B"}


def row(difference, low, high, *, seeds=3, blocks=9, trick="", tests=1, p=None):
    p = (0.5 if low <= 0 <= high else 0.01) if p is None else p
    return pd.Series({
        "question": "q", "trick": trick, "arm": "b-2", "against": "a-1", "difference": difference,
        "low": low, "high": high, "seeds": seeds, "effective_blocks": float(blocks), "p_corrected": p,
        "tests": tests, "verdict": tables.verdict(difference, p, trick=bool(trick)), "detectable": 0.03,
    })  # fmt: skip


def test_a_comparison_says_what_its_interval_says():
    better = findings.comparison(row(0.031, 0.012, 0.05), TITLES)
    assert better == "**Net B** scores 3.1 points more than **Net A** (95 % CI +1.2 to +5.0)."
    assert "3.1 points fewer than" in findings.comparison(row(-0.031, -0.05, -0.012), TITLES)
    unclear = findings.comparison(row(0.011, -0.01, 0.032), TITLES)
    assert unclear.startswith("We found no difference") and "+1.1 points" in unclear


def test_without_an_interval_it_says_what_is_lacking():
    text = findings.comparison(row(0.441, np.nan, np.nan, seeds=1, blocks=1), TITLES)
    assert "+44.1 points" in text and "1 seed, and an interval needs 3" in text
    assert "worth 1 independent block, and an interval needs 6" in text


def test_an_interval_that_excludes_zero_decides_nothing_among_many():
    text = findings.comparison(row(0.031, 0.002, 0.06, tests=8, p=0.21), TITLES)
    assert text.startswith("We found no difference") and "among 8 comparisons" in text and "0.21" in text


@pytest.mark.parametrize(
    ("seeds", "blocks", "basis"),
    [
        (5, 9.2, "5 seeds"),
        (2, 9.2, "2 seeds, and an interval needs 3"),
        (3, 4.26, "test images worth 4.3 independent blocks, and an interval needs 6"),
        (2, 1.0, "2 seeds, and an interval needs 3; test images worth 1 independent block, and an interval needs 6"),
    ],
)
def test_what_an_interval_rests_on(seeds, blocks, basis):
    arm = pd.Series({"seeds": seeds, "effective_blocks": blocks, "low": np.nan, "high": 0.3})
    assert findings.interval_basis(arm) == findings.with_interval(arm) == basis
    arm["low"] = 0.2
    assert findings.with_interval(arm) == "95 % CI 20.0 to 30.0"


STUDY = SimpleNamespace(tricks={}, networks={})


def test_tricks_in_short_name_every_trick_once():
    rows = pd.DataFrame([
        row(0.031, 0.01, 0.05, trick="flip"), row(0.05, 0.01, 0.09, trick="longer"),
        row(-0.02, -0.03, -0.01, trick="dice-loss"), row(0.001, -0.01, 0.02, trick="focal"),
    ])  # fmt: skip
    assert findings.tricks_in_short(STUDY, rows) == (
        "What helps: **longer** (+5.0) and **flip** (+3.1). What hurts: **dice loss** (−2.0). "
        "We found no effect of **focal** (+0.1)."
    )
    unknown = pd.DataFrame([row(0.031, np.nan, np.nan, trick="flip", seeds=1, p=np.nan)])
    assert findings.tricks_in_short(STUDY, unknown).startswith("Whether they help is not known (1 seed")
    assert findings.tricks_counted(rows) == "of 4 tricks 2 help and 1 hurts"
    assert findings.tricks_counted(rows.tail(1)) == "of 1 trick none is shown to help or to hurt"
    assert findings.tricks_counted(unknown) == "whether any of 1 trick helps is not known"
    both = pd.concat([rows, rows.assign(verdict="hurts")])
    assert findings.contradictions(both.assign(label=both["trick"])) == ["flip", "longer"]
    assert findings.contradictions(rows.assign(label=rows["trick"])) == []


def test_a_ladder_ends_at_a_rung_that_failed():
    rows = pd.DataFrame({"arm": ["a", "b", "d"], "against": ["start", "a", "c"]})
    assert list(findings.rungs_until_failure(rows, "start").arm) == ["a", "b"]
    assert not len(findings.rungs_until_failure(rows, "elsewhere"))


def test_the_largest_effect_on_a_class_is_named():
    effects = pd.DataFrame({
        "label": ["flip", "dice"], "class": ["road", "pole"], "difference": [0.01, -0.08],
        "p_corrected": [0.01, 0.02], "verdict": ["helps", "hurts"],
    })  # fmt: skip
    text = findings.class_summary(effects)
    assert text.startswith("2 of 2 effects") and "pole with dice (−8.0 points)" in text
    assert "no effect" in findings.class_summary(effects.assign(verdict="no effect found"))
    assert "not known" in findings.class_summary(effects.assign(p_corrected=np.nan))


def test_the_cheapest_network_that_none_is_shown_to_beat_suffices():
    networks = pd.DataFrame({"arm": ["large", "small", "middle"], "gmacs": [2.0, 0.1, 0.5]})
    better = {("middle", "small"), ("large", "small")}

    def difference(arm, against):
        return {"verdict": "better" if (arm, against) in better else "no difference found"}

    assert findings.sufficient(networks, difference)["arm"] == "middle"
    better.add(("large", "middle"))
    assert findings.sufficient(networks, difference)["arm"] == "large"


def curves(**last):
    """Return curves of arms that rise from 0.2 to 0.3 and then to these scores at the last step."""
    return pd.DataFrame([
        {"arm": arm, "run": f"{arm}-s0", "step": step, "val_miou": value}
        for arm, end in last.items()
        for step, value in ((30, 0.2), (50, 0.25), (70, 0.3), (100, end))
    ])  # fmt: skip


def test_arms_that_are_not_shown_to_have_converged():
    arms = pd.DataFrame({"arm": ["flat", "rising"]})
    runs = pd.DataFrame({"arm": ["flat", "rising"], "steps": 900, "batch_size": 4, "train_images": 120})
    results = SimpleNamespace(arms=arms, runs=runs, curves=curves(flat=0.309, rising=0.311))
    titles = {"F": "flat", "R": "rising"}
    assert findings.unconverged(results) == findings.rising(results) == {"rising"}
    assert findings.curve_title(results, titles) == (
        "Of 2 trainings 1 was still improving when training ended; 1 was flat at the end."
    )
    assert findings.curve_title(results, {"F": "flat"}) == "The training was flat at the end."
    assert findings.short_training(results) == ""
    results.runs = runs.assign(steps=80)
    assert findings.epochs(results, ["flat"]) == pytest.approx(80 * 4 / 120)
    assert "2.7 epochs" in findings.short_training(results)
    assert findings.unconverged(results) == findings.too_short(results) == {"flat", "rising"}
    assert findings.curve_title(results, titles).startswith("All trainings were too short to tell")
    results.runs, results.curves = runs, results.curves[results.curves["step"] != 50]
    assert findings.too_short(results) == {"flat", "rising"}  # three scores are too few


def test_seconds_of_training_are_medians_over_seeds():
    runs = pd.DataFrame({"arm": ["a"] * 3, "seconds": [1, 9, 2.0], "start_seconds": [0, 0, 1.0]})
    assert findings.train_seconds(SimpleNamespace(runs=runs)).to_dict() == {"a": 3}


def test_the_median_image_is_one_of_those_that_have_a_score():
    scores = np.array([0.5, np.nan, 0.1, 0.4, 0.3, 0.6])
    assert findings.median_image(scores) == 3


def test_devices_are_listed_once_without_their_threads():
    devices = pd.Series(["Chip, 2 threads", "Chip, 1 thread", "H200"])
    assert findings.devices(devices) == "Chip, H200"


# Names.


def test_the_tricks_of_an_arm_are_those_whose_hyperparameters_it_has():
    settings = {
        "flip": {"flip": 0.5}, "poly": {"schedule": "poly", "warmup_steps": 2}, "longer": {"steps": 9},
        "both": {"flip": 0.5, "steps": 9}, "rates": {"lr_search": [0.5, 1.0]},
    }  # fmt: skip
    made = Recipe(flip=0.5, steps=9, schedule="poly", warmup_steps=2, lr_search=(0.5, 1.0))
    study = SimpleNamespace(
        tricks={k: SimpleNamespace(name=k, hyperparameters=v, title="") for k, v in settings.items()},
        networks={"small": SimpleNamespace(name="small", network="baseline", title="Small Net")},
        arms={"plain": Recipe(), "all": made, "again": replace(made, lr=0.5), "flipped": Recipe(flip=0.5),
              "norm": Recipe(batch_norm=True), "other": Recipe(network="unet", steps=9)},
    )  # fmt: skip
    study.content = {"base": {"steps": 4}}
    assert names.trick_label(study, "longer") == "longer (2.25 × the steps)"
    assert names.trick_label(study, "flip") == "flip" and names.tricks_of(study, "plain") == []
    assert names.tricks_of(study, "all") == ["flip", "poly", "longer", "rates"]  # both: two others
    assert names.arm_titles(study) == {
        "plain": "Small Net", "all": "Small Net, 4 tricks", "again": "Small Net, 4 tricks, 9 steps",
        "flipped": "Small Net + flip", "norm": "Small Net + batch norm", "other": "unet + longer",
    }  # fmt: skip


def test_no_two_arms_of_a_study_share_a_title():
    study = load()
    titles = names.arm_titles(study)
    assert titles.keys() == study.arms.keys() and len({*titles.values()}) == len(titles)


# The head and the end.


def ended(study, failed=(), unfinished=()):
    """Return the results of a study of which arms failed, and questions are not finished."""
    outcomes = pd.DataFrame({"arm": list(study.arms)}).assign(why="the loss: *too* high.")
    outcomes["failed"] = outcomes["arm"].isin(failed).astype(int)
    rows = [{"question": name, "missing": 1, "runs": 6} for name in unfinished]
    unfinished = pd.DataFrame(rows, columns=["question", "missing", "runs"])
    classes = pd.DataFrame({"class": ["road", "sky"]})
    others = dict.fromkeys(TABLES, pd.DataFrame())
    return Results(**others | {"outcomes": outcomes, "unfinished": unfinished, "classes": classes})


def test_warnings_come_before_scores():
    study = load()
    arm = next(iter(study.arms))
    assert front.warnings(ended(study), tested=True) == ""
    assert front.warnings(ended(study), tested=False) == front.NO_TEST
    text = front.warnings(ended(study, [arm], ["ladder"]), tested=True)
    assert "ladder (1 of 6 runs missing)" in text and f"1 of {len(study.arms)} arms failed" in text
    assert r"the loss\: \*too\* high\." in text
    lone = replace(ended(study), classes=pd.DataFrame({"class": ["road", "road"]}))
    assert front.warnings(lone, tested=True) == front.ONE_CLASS


def test_a_ladder_s_title_names_what_adds_most_and_the_whole():
    rows = pd.DataFrame({"label": ["flip", "OHEM"], "difference": [0.01, -0.002]})
    assert tricks.ladder_title(rows).startswith("Flip adds most (+1.0 points)")
    assert "2 tricks" in tricks.ladder_title(rows) and "+0.8 points" in tricks.ladder_title(rows)
    assert "1 trick " in tricks.ladder_title(rows.head(1))


# Failures.


def test_confusions_by_hand():
    counts = np.array([[90, 10, 0], [30, 60, 0], [5, 5, 0]])
    assert failures.confusion_title(counts, ("road", "car", "bike")) == (
        "25 % of the test pixels are wrong; the most frequent confusion is car predicted as road (60 % of them)."
    )
    assert failures.confusion_title(np.diag([3, 4]), ("a", "b")) == "No pixel is wrong."


def test_calibration_by_hand():
    table = pd.DataFrame({"arm": ["x", "x", "y"], "pixels": [10, 90, 50], "correct": [5, 90, 40],
                          "confidence": [7.0, 89.0, 30.0]})  # fmt: skip
    arms = pd.DataFrame({"label": ["shy", "sure"], "arm": ["y", "x"], "calibration_error": [0.2, 0.03]})
    text = failures.calibration_title(SimpleNamespace(reliability=table), arms)
    assert text == "Expected calibration error 3.0 % to 20 %; sure is overconfident, shy is underconfident."
    text = failures.calibration_title(SimpleNamespace(reliability=table), arms.tail(1))
    assert text == "Expected calibration error 3.0 %; sure is overconfident."


def test_boundaries_by_hand():
    arms = pd.DataFrame({"test_miou": [0.5, 0.6, 0.8], "boundary_iou": [0.4, 0.3, np.nan]})
    assert "10 to 30 points" in failures.boundary_title(arms)
    assert failures.boundary_title(arms.tail(1)).startswith("No test image has a boundary")
