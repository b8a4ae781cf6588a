"""What the report says about networks, on tables whose answer is known."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from roadseg.analysis.tables import TABLES, Results
from roadseg.config.recipe import Recipe
from roadseg.config.study import load
from roadseg.errors import InputError
from roadseg.report import text


def pareto_rows(rows):
    """Return rows of `pareto` for one measure: (label, cost, val, test, on the front)."""
    return pd.DataFrame([
        {"question": "s", "measure": "gmacs", "arm": f"{label}-s", "label": label, "cost": cost,
         "val_miou": val, "test_miou": test, "low": test - 0.01, "high": test + 0.01,
         "pareto_optimal": on_front, "pareto_share": 0.755}
        for label, cost, val, test, on_front in rows
    ])  # fmt: skip


def compare(verdicts):
    """Return `Results.difference` for known verdicts: (arm, against) -> (difference, verdict)."""
    opposite = {"better": "worse", "worse": "better"}

    def difference(arm, against):
        key = (arm.removesuffix("-s"), against.removesuffix("-s"))
        if key in verdicts:
            change, verdict = verdicts[key]
        else:
            change, verdict = verdicts[key[::-1]]
            change, verdict = -change, opposite.get(verdict, verdict)
        p = 0.5 if verdict == "no difference found" else 0.01
        return pd.Series({"difference": change, "low": change - 0.01, "high": change + 0.01,
                          "verdict": verdict, "p_corrected": p})  # fmt: skip

    return difference


THREE = pareto_rows([
    ("small", 0.1, 0.2, 0.21, True), ("middle", 0.5, 0.3, 0.33, True), ("large", 2.0, 0.31, 0.32, True),
    ("odd", 1.0, 0.25, 0.26, False),
])  # fmt: skip
SEEN = {
    ("middle", "small"): (0.12, "better"), ("large", "small"): (0.11, "better"),
    ("large", "middle"): (-0.01, "no difference found"), ("odd", "small"): (0.05, "better"),
    ("odd", "middle"): (-0.07, "worse"), ("large", "odd"): (0.06, "better"),
}  # fmt: skip


def test_a_budget_buys_the_best_affordable_network_by_val():
    table = text.budget_table(THREE, compare(SEEN))
    assert list(table["network"]) == ["small", "middle", "large"]
    assert list(table["budget"]) == [
        "0.1 · 10⁹ to 0.5 · 10⁹", "0.5 · 10⁹ to 2 · 10⁹", "2 · 10⁹ and more"
    ]  # fmt: skip
    assert list(table["mIoU %"]) == ["21.0", "33.0", "32.0"]
    assert list(table["gain over the previous row"]) == [
        "the cheapest", "+12.0 (better)", "−1.0 (no difference found)"
    ]  # fmt: skip
    assert set(table["Pareto-optimal on test, % of bootstrap samples"]) == {"76"}


def test_size_stops_paying_at_the_cheapest_that_none_is_seen_to_beat():
    summary = text.size_summary(THREE, compare(SEEN))
    assert summary.startswith("**middle** (0.5 · 10⁹ multiply-adds, 33.0 % mIoU) is the cheapest")
    assert "The best of them by val score, **large**, costs 4.0 times as much" in summary
    assert "none of the 2 more expensive ones beats significantly" in summary
    assert "−1.0 points (−2.0 to +0.0, no difference found)" in summary
    paying = {**SEEN, ("large", "middle"): (0.05, "better")}
    summary = text.size_summary(THREE, compare(paying))
    assert summary.startswith("Accuracy rises with cost throughout")
    unknown = THREE.assign(low=np.nan, high=np.nan)
    assert "not known" in text.size_summary(unknown, compare(SEEN))


def test_searches_say_what_they_chose_and_where_they_end():
    table = pd.DataFrame(
        [("a", 0.1, 0.2, False), ("a", 0.4, 0.3, True), ("a", 1.6, 0.1, False),
         ("b", 0.1, 0.4, True), ("b", 0.4, 0.3, False), ("b", 1.6, np.nan, False)],
        columns=["arm", "lr", "val_miou", "chosen"],
    ).assign(steps=50, seconds=2.0)  # fmt: skip
    summary = text.search_summary(table, {"a": "A", "b": "B"})
    assert "best on val of 0.1, 0.4 and 1.6, each tried once" in summary and "50 steps" in summary
    assert "A 0.4; B 0.1" in summary and "took 12 s" in summary
    assert "For B the best rate is at an end of the range" in summary
    assert "In 1 of the 6 trials, whose time is not counted, the loss did not stay finite." in summary
    assert "without a search" in text.search_summary(table, {"c": "C"})


def test_differences_from_the_course_are_explained_where_they_are_large():
    table = pd.DataFrame([
        {"network": "N", "reported": 100.0, "excess": 0.02, "gmacs_like": 102.0, "excess_like": 0.02,
         "differs": "x"},
        {"network": "M", "reported": 100.0, "excess": -0.5, "gmacs_like": 99.0, "excess_like": -0.01,
         "differs": "is wider"},
    ])  # fmt: skip
    summary = text.course_summary(table)
    assert summary.startswith("Within 4.0 % of what it reports, of 2 networks: N (+2.0 %).")
    assert "- **M** (−50.0 %): its variant is wider. Of this variant we count 99.0" in summary
    assert "−1.0 % of the 100 reported" in summary and "**N**" not in summary


@pytest.mark.parametrize(("value", "written"), [(0.0123, "0.0123 · 10⁹"), (1234.0, "1,234 · 10⁹")])
def test_costs_are_written_short(value, written):
    assert text.UNITS["gmacs"][1](value) == written


def test_worst_images_by_hand():
    scores = np.array([0.5, np.nan, 0.1, 0.4, 0.3, 0.6])
    summary = text.worst_images(scores, ["a", "b", "c_1", "d", "e", "f"], share=0.4)
    assert summary == (
        "the median image has 40.0 % mIoU, the worst 2 of 5 20.0 % on average; the worst of all: c\\_1 and e."
    )
    assert text.worst_images(np.array([np.nan]), ["a"]) == "no test image has a label."


def test_the_confusion_summary_by_hand():
    counts = np.array([[90, 10, 0], [30, 60, 0], [5, 5, 0]])
    summary = text.confusion_summary(counts, ("road", "car", "bike"), limit=2)
    assert summary == (
        "25 % of the labelled pixels are wrong. Most frequent confusions: car predicted as road (60 % of all wrong "
        "pixels); road predicted as car (20 % of all wrong pixels). The classes with the lowest recall: "
        "bike (0 %), car (67 %) and road (90 %)."
    )
    assert text.confusion_summary(np.diag([3, 4]), ("a", "b")) == "No pixel is wrong."


def test_calibration_by_hand():
    table = pd.DataFrame({"arm": ["x", "x", "y"], "above": [0.4, 0.9, 0.4], "pixels": [10, 90, 50],
                          "correct": [5, 90, 40], "confidence": [7.0, 89.0, 30.0]})  # fmt: skip
    arms = pd.DataFrame({"label": ["shy", "sure"], "arm": ["y", "x"],
                         "calibration_error": [0.2, 0.03]})  # fmt: skip
    summary = text.calibration_summary(table, arms)
    assert summary == (
        "Expected calibration error: **sure** 3.0 % and **shy** 20 %. Overconfident on average: **sure**. "
        "Underconfident on average: **shy**."
    )


def test_the_boundary_summary_by_hand():
    arms = pd.DataFrame({"label": list("abcd"), "test_miou": [0.5, 0.6, 0.7, 0.8],
                         "boundary_iou": [0.4, 0.3, 0.6, np.nan]})  # fmt: skip
    summary = text.boundary_summary(arms)
    assert summary.startswith("Near class boundaries, IoU is 10.0 (**a**) to 30.0 (**b**) points lower")
    assert "rank correlation" not in summary  # of three
    assert text.boundary_summary(arms[3:]) == "No test image has a boundary between two classes."


def test_a_reference_for_classes_by_hand():
    classes = pd.DataFrame({"arm": "a-s", "class": ["road", "sky", "pole"], "iou": [0.9, 0.8, 0.1]})
    reported = {"road": 0.85, "sky": 0.9, "pole": 0.4, "car": 0.5}  # the last occurs nowhere here
    summary = text.reference_comparison(classes, {"a": "a-s"}, {"X": reported})
    assert "**a** lies −11.7 points from the 71.7 % that X reports as the mean of these 3 classes" in summary
    assert "behind most in pole (−30.0), sky (−10.0) and road (+5.0)" in summary
    assert "best against it in road (+5.0)" in summary
    for none in ({}, {"X": {"car": 0.5}}):
        assert "is not listed here" in text.reference_comparison(classes, {"a": "a-s"}, none)


@pytest.mark.parametrize(
    ("seeds", "blocks", "basis"),
    [
        (5, 9.2, "5 seeds"),
        (2, 9.2, "2 seeds, and an interval needs 3"),
        (1, 9.2, "1 seed, and an interval needs 3"),
        (3, 4.26, "test images worth 4.3 independent blocks, and an interval needs 6"),
        (2, 1.0, "2 seeds, and an interval needs 3; test images worth 1 independent block, and an interval needs 6"),
    ],
)
def test_an_interval_says_what_it_rests_on_or_lacks(seeds, blocks, basis):
    row = pd.Series({"seeds": seeds, "effective_blocks": blocks, "low": np.nan, "high": 0.3})
    assert text.interval_basis(row) == text.interval_text(row) == basis
    row["low"] = 0.2
    assert text.interval_text(row) == f"95 % CI 20.0 to 30.0, {basis}"


def test_a_search_is_held_against_the_recipe_s_own_rate():
    searched = Recipe(lr=0.1, lr_search=(0.5, 1.0), lr_search_steps=5)
    recipes = {"plain": Recipe(lr=0.1), "searched": searched, "lonely": searched.changed({"steps": 7})}
    study = SimpleNamespace(arms=recipes)

    def benefit(**searched):
        arms = pd.DataFrame([
            {"arm": "plain", "lr": 0.1, "val_miou": 0.4}, {"arm": "searched", **searched},
            {"arm": "lonely", "lr": 0.05, "val_miou": 0.1},
        ])  # fmt: skip
        return text.search_benefit(study, SimpleNamespace(arms=arms), {n: n.upper() for n in recipes})

    assert benefit(lr=0.05, val_miou=0.3) == (
        "For **SEARCHED** the search chose 0.05: against 0.1, the rate of its recipe (arm `plain`), val mIoU "
        "changed by −10.0 points, to 30.0 % (not a planned comparison)."
    )
    assert benefit(lr=0.1, val_miou=0.4) == ""  # the same training


def test_tricks_of_which_nothing_can_be_told_are_told_in_one_sentence():
    row = {"trick": "flip", "verdict": "no effect found", "p_corrected": np.nan, "seeds": 1, "blocks": 1,
           "effective_blocks": 1.0}
    unknown = {"alone": pd.DataFrame([row, {**row, "trick": "crop"}])}
    assert text._tricks_in_short(unknown).startswith("Which of 2 tricks help is not known (1 seed")
    seen = {"alone": pd.DataFrame([{**row, "verdict": "helps", "p_corrected": 0.01}, {**row, "trick": "crop"}])}
    assert text._tricks_in_short(seen) == (
        "Of 2 tricks, **flip** helps; not enough data for **crop**."
    )


def best_rows(*rows):
    """Return a stand-in for results whose arms are (arm, network, gmacs, val, test)."""
    arms = pd.DataFrame(rows, columns=["arm", "network", "gmacs", "val_miou", "test_miou"])
    arms = arms.assign(low=np.nan, high=np.nan, test_passes=1)
    networks = pd.DataFrame({"network": arms.network.unique(), "latency_ms": 2.0, "gmacs": 0.0})
    best = arms.loc[arms.groupby("network")["val_miou"].idxmax()].sort_values("gmacs", ignore_index=True)
    best = best.assign(latency_ms=2.0)
    results = SimpleNamespace(arms=arms, networks=networks, best_of_each_network=lambda: best)
    results.of, results.pareto_arms = lambda _: arms.head(2), lambda: Results.pareto_arms(results)
    return results


def plain_study(results, compared):
    recipes = {row.arm: Recipe(network=row.network) for row in results.arms.itertuples()}
    wide = SimpleNamespace(name="wide", arms=dict.fromkeys(compared), labels={a: a.upper() for a in compared})
    return SimpleNamespace(arms=recipes, tricks={}, networks={}, network_question=wide)


def test_of_networks_that_cost_about_the_same_the_best_is_recommended():
    results = best_rows(("a", "fcn8s:x", 1.0, 0.3, 0.3), ("b", "unet", 1.04, 0.4, 0.35),
                        ("c", "dabnet", 1.2, 0.35, 0.5), ("d", "lmffnet", 2.0, 0.41, 0.4))  # fmt: skip
    table = text.recommendation_table(plain_study(results, ["a", "b"]), results)
    assert list(table["arm"]) == ["b", "d"]  # a costs as much as b, c scores less than b on val
    chain = best_rows(("a", "fcn8s:x", 1.0, 0.3, 0.3), ("b", "unet", 1.04, 0.4, 0.35),
                      ("c", "dabnet", 1.08, 0.45, 0.5))  # fmt: skip
    assert list(text.recommendation_table(plain_study(chain, ["a"]), chain)["arm"]) == ["b", "c"]
    assert list(table["mIoU %"]) == ["35.0", "40.0"] and list(table["arms of this network"]) == [1, 1]


def test_the_arm_that_is_best_on_val_is_shown_with_the_networks():
    results = best_rows(("a", "unet", 1.0, 0.3, 0.3), ("b", "dabnet", 1.5, 0.4, 0.35),
                        ("c", "unet", 1.0, 0.5, 0.5))  # fmt: skip
    arms = text.networks_with_best(plain_study(results, ["a", "b"]), results)
    assert list(arms["label"]) == ["A", "B", "unet"] and list(arms["arm"]) == ["a", "b", "c"]
    assert arms["test_miou"].dtype == float
    named = plain_study(results, ["a", "b"])
    named.network_question.labels["a"] = "unet"
    assert list(text.networks_with_best(named, results)["label"]) == ["unet", "B", "unet (c)"]
    worse = best_rows(*results.arms.iloc[:2, :5].itertuples(index=False))
    assert list(text.networks_with_best(plain_study(worse, ["a", "b"]), worse)["label"]) == ["A", "B"]


def test_devices_are_told_once_with_their_threads():
    names = pd.Series(["Chip, 2 threads", "Chip, 1 threads", "H200", "Chip, 2 threads"])
    assert text.devices(names) == "Chip, 1 or 2 threads, H200"
    assert text.devices(pd.Series(["Chip, 1 threads"])) == "Chip, 1 thread"


def test_the_tricks_of_an_arm_are_those_whose_hyperparameters_it_has():
    tricks = {
        "flip": {"flip": 0.5}, "poly": {"schedule": "poly", "warmup_steps": 2}, "longer": {"steps": 9},
        "both": {"flip": 0.5, "steps": 9}, "rates": {"lr_search": [0.5, 1.0]},
    }  # fmt: skip
    study = SimpleNamespace(
        tricks={name: SimpleNamespace(name=name, hyperparameters=settings) for name, settings in tricks.items()},
        networks={"small": SimpleNamespace(name="small", network="baseline")},
        arms={
            "plain": Recipe(),
            "all": Recipe(flip=0.5, steps=9, schedule="poly", warmup_steps=2, lr_search=(0.5, 1.0)),
            "half": Recipe(schedule="poly", batch_norm=True),
        },
    )
    assert text.tricks_of(study, "plain") == []
    assert text.tricks_of(study, "all") == ["flip", "poly", "longer", "rates"]  # both: flip and longer
    assert text.display_name(study, "all") == "small, 4 tricks"
    assert text.tricks_of(study, "half") == [] and text.display_name(study, "half") == "small +batch_norm"


def test_a_ladder_is_shown_up_to_the_rung_that_failed():
    rows = pd.DataFrame({"arm": ["a", "b", "d"], "against": ["start", "a", "c"]})
    assert list(text.rungs_until_failure(rows, "start").arm) == ["a", "b"]
    assert not len(text.rungs_until_failure(rows, "elsewhere"))
    assert list(text.rungs_until_failure(rows.head(2), "start").arm) == ["a", "b"]


def ended(study, failed=(), unfinished=()):
    """Return the results of a study of which arms failed, and questions are not finished."""
    outcomes = pd.DataFrame({"arm": list(study.arms)}).assign(why="why")
    outcomes["failed"] = outcomes["arm"].isin(failed).astype(int)
    rows = [{"question": name, "missing": 1, "runs": 6} for name in unfinished]
    unfinished = pd.DataFrame(rows, columns=["question", "missing", "runs"])
    others = dict.fromkeys(TABLES, pd.DataFrame())
    return Results(**others | {"outcomes": outcomes, "unfinished": unfinished})


def test_what_a_reader_must_know_before_any_score():
    outcomes = pd.DataFrame({
        "arm": ["good", "bad", "worse"], "failed": [0, 1, 3], "why": ["", "the loss: *too* high.", "same"],
    })  # fmt: skip
    failures = text.failures(outcomes)
    assert failures.startswith("**2 of 3 arms failed**")
    assert r"- **bad**, 1 seed: the loss\: \*too\* high\." in failures and "**worse**, 3 seeds: same" in failures
    assert text.failures(outcomes.head(1)) == ""
    all_there = pd.DataFrame(columns=["question", "missing", "runs"])
    two, one = (SimpleNamespace(classes=pd.DataFrame({"class": k}), outcomes=outcomes.head(1), unfinished=all_there)
                for k in (["road", "sky", "road"], ["road", "road"]))  # fmt: skip
    assert text.warnings_before_scores(two, tested=True) == ""
    assert text.warnings_before_scores(two, tested=False) == text.NO_TEST
    assert text.warnings_before_scores(one, tested=False) == f"{text.NO_TEST}\n\n{text.ONE_CLASS}"
    two.unfinished = pd.DataFrame([{"question": "ladder", "missing": 12, "runs": 30}])
    assert text.warnings_before_scores(two, tested=True) == (
        "**Not finished yet: ladder (12 of 30 runs missing).** The rest of this report is about the finished "
        "questions."
    )


def test_chapters_that_a_study_leaves_empty():
    study = load()
    assert text.empty_chapters(study, ended(study)) == {}
    fcn = {arm for arm, recipe in study.arms.items() if recipe.network.startswith("fcn")}
    assert "**fcn-8s**" in text.empty_chapters(study, ended(study, fcn))["3_fcn"]  # asked for, and failed
    left = study.without(fcn)
    assert "No question compares the baseline with FCN" in text.empty_chapters(left, ended(left))["3_fcn"]
    others = study.without(study.arms.keys() - {study.baseline})
    assert set(text.empty_chapters(others, ended(others))) == {"3_fcn", "4_tricks", "5_networks"}
    with pytest.raises(InputError, match="^4_tricks: No question tries a trick"):
        text.require_chapter(others, ended(others), "4_tricks")
    text.require_chapter(others, ended(others), "2_baseline")


def test_chapters_whose_questions_are_not_finished_say_so():
    study = load()
    tricks = [q.name for q in study.questions.values() if q.effects]
    missing = text.empty_chapters(study, ended(study, unfinished=tricks))
    assert list(missing) == ["4_tricks"]
    assert f"{tricks[0]} (1 of 6 runs missing)" in missing["4_tricks"]
    finished = ended(study, unfinished=tricks).finished(study)
    assert finished.questions.keys() == study.questions.keys() - set(tricks)


def test_a_ladder_s_failed_rungs_are_said_to_have_failed():
    study = load()
    ladder = next(each for each in study.questions.values() if each.kind == "ladder")
    start, (trick, arm, _) = next(iter(ladder.arms)), ladder.effects[1]
    left = study.without({arm}).questions[ladder.name]
    summary = text.ladder_summary(ladder, left)
    assert summary.startswith(f"Tricks are added to {start} one after the other: ")
    assert f"→ {trick} (failed) →" in summary and summary.count("(failed)") == 1
    first = study.without({start}).questions[ladder.name]
    assert text.ladder_summary(ladder, first).startswith(f"Tricks are added to {start} (failed) one")


def test_the_spread_between_seeds_takes_three():
    noise = {"arm": "a", "blocks": 9, "mean": 0.6, "low": 0.5, "high": 0.7, "sd": 0.02, "sd_low": 0.01, "sd_high": 0.06}
    five, two = (text.noise_summary(pd.DataFrame([noise | {"seeds": n}])) for n in (5, 2))
    assert "1.00 to 6.00" in five and "2.8 to 16.6" in five
    assert two == "2 seeds of **a** cannot show how much seeds vary; that needs 3."


def test_short_trainings_are_marked():
    runs = pd.DataFrame({"arm": ["a", "b", "c"], "steps": [80, 80, 9000], "batch_size": 4, "train_images": 120})
    short = text.short_training(SimpleNamespace(runs=runs), ["a", "b"])
    assert "2.7 epochs" in short
    assert text.short_training(SimpleNamespace(runs=runs.assign(steps=900)), ["a", "b"]) == ""
    assert text.short_training(SimpleNamespace(runs=runs), []) == ""
