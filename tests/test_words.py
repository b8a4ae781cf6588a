"""What the report says about networks, on tables whose answer is known."""

import numpy as np
import pandas as pd
import pytest

from roadseg import words


def fronts(rows):
    """Return a study's `fronts` for one measure: (label, cost, val, test, on the front)."""
    return pd.DataFrame([
        {"study": "s", "measure": "gmacs", "arm": f"{label}-s", "label": label, "cost": cost,
         "val_miou": val, "test_miou": test, "low": test - 0.01, "high": test + 0.01,
         "front": front, "share": 0.755}
        for label, cost, val, test, front in rows
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
        p = 0.5 if verdict == "no difference seen" else 0.01
        return pd.Series({"difference": change, "low": change - 0.01, "high": change + 0.01,
                          "verdict": verdict, "p_corrected": p})  # fmt: skip

    return difference


THREE = fronts([
    ("small", 0.1, 0.2, 0.21, True), ("middle", 0.5, 0.3, 0.33, True), ("large", 2.0, 0.31, 0.32, True),
    ("odd", 1.0, 0.25, 0.26, False),
])  # fmt: skip
SEEN = {
    ("middle", "small"): (0.12, "better"), ("large", "small"): (0.11, "better"),
    ("large", "middle"): (-0.01, "no difference seen"), ("odd", "small"): (0.05, "better"),
    ("odd", "middle"): (-0.07, "worse"), ("large", "odd"): (0.06, "better"),
}  # fmt: skip


def test_a_budget_buys_the_best_affordable_network_by_val():
    table = words.budget_table(THREE, compare(SEEN))
    assert list(table["take"]) == ["small", "middle", "large"]
    assert list(table["from … to"]) == [
        "0.1 · 10⁹ to 0.5 · 10⁹", "0.5 · 10⁹ to 2 · 10⁹", "2 · 10⁹ and more"
    ]  # fmt: skip
    assert list(table["mIoU %"]) == ["21.0", "33.0", "32.0"]
    assert list(table["over the cheaper one"]) == [
        "the cheapest", "+12.0 (better)", "−1.0 (no difference seen)"
    ]  # fmt: skip
    assert set(table["on the test front"]) == {"76 % of resamples"}


def test_size_stops_paying_at_the_cheapest_that_none_is_seen_to_beat():
    told = words.size_words(THREE, compare(SEEN))
    assert told.startswith("**middle** (0.5 · 10⁹ multiply-adds, 33.0 % mIoU) is the cheapest")
    assert "The best of them by val score, **large**, costs 4.0 times as much" in told
    assert "of 2 dearer, none gains more than +0.0 points" in told and "rank correlation" in told
    assert "−1.0 points (−2.0 to +0.0, no difference seen)" in told
    paying = {**SEEN, ("large", "middle"): (0.05, "better")}
    told = words.size_words(THREE, compare(paying))
    assert told.startswith("More cost has not stopped paying: every cheaper network is seen")
    unknown = THREE.assign(low=np.nan, high=np.nan)
    assert "cannot be told" in words.size_words(unknown, compare(SEEN))


def test_the_volume_is_told_with_its_interval():
    table = pd.DataFrame([
        {"measure": "gmacs", "cheapest": 0.1, "dearest": 2.0, "volume": 0.25, "low": 0.2, "high": 0.3},
        {"measure": "parameters", "cheapest": 1e6, "dearest": 1e6, "volume": np.nan, "low": np.nan,
         "high": np.nan},
    ])  # fmt: skip
    told = words.volume_words(table)
    assert "**25.0 %** for multiply-adds between 0.1 · 10⁹ and 2 · 10⁹ (95 % interval 20.0 to 30.0)" in told
    assert "in parameters all cost the same, so there is none" in told


def test_searches_say_what_they_chose_and_where_they_end():
    table = pd.DataFrame(
        [("a", 0.1, 0.2, False), ("a", 0.4, 0.3, True), ("a", 1.6, 0.1, False),
         ("b", 0.1, 0.4, True), ("b", 0.4, 0.3, False), ("b", 1.6, np.nan, False)],
        columns=["arm", "lr", "val_miou", "chosen"],
    ).assign(steps=50, seconds=2.0)  # fmt: skip
    told = words.search_words(table, {"a": "A", "b": "B"})
    assert "best on val of 0.1, 0.4 and 1.6, each tried once" in told and "50 steps" in told
    assert "A 0.4; B 0.1" in told and "took 12 s" in told
    assert "For B the choice lies at an end of the range" in told
    assert "In 1 of the 6 trials, whose time is not counted, the loss did not stay finite." in told
    assert "was not searched for" in words.search_words(table, {"c": "C"})


def test_differences_from_the_course_are_explained_where_they_are_large():
    table = pd.DataFrame([
        {"network": "N", "reported": 100.0, "excess": 0.02, "gmacs_like": 102.0, "excess_like": 0.02,
         "differs": "x"},
        {"network": "M", "reported": 100.0, "excess": -0.5, "gmacs_like": 99.0, "excess_like": -0.01,
         "differs": "is wider"},
    ])  # fmt: skip
    told = words.course_words(table)
    assert told.startswith("Within 4.0 % of what it reports, of 2 networks: N (+2.0 %).")
    assert "- **M** (−50.0 %): the study's build is wider. Built like that, we count 99.0" in told
    assert "−1.0 % of the 100 reported" in told and "**N**" not in told


@pytest.mark.parametrize(("value", "text"), [(0.0123, "0.0123 · 10⁹"), (1234.0, "1,234 · 10⁹")])
def test_costs_are_written_short(value, text):
    assert words.UNITS["gmacs"][1](value) == text
