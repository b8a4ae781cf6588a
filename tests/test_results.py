import dataclasses
import json

import numpy as np
import pandas as pd
import pytest

from roadseg import results, study
from roadseg.metrics import Confusion, Interval
from roadseg.recipe import InputError, Recipe
from roadseg.train import Record


def test_verdicts():
    assert results.verdict(Interval(0.02, 0.01, 0.03, 3)) == "better"
    assert results.verdict(Interval(-0.02, -0.03, -0.01, 3)) == "worse"
    assert results.verdict(Interval(0.02, -0.01, 0.05, 3)) == "no difference seen"


def row(difference, low, high, seeds=3, blocks=9):
    found = Interval(difference, low, high, seeds)
    return {
        "study": "s", "arm": "b-2", "against": "a-1", "difference": difference, "low": low,
        "high": high, "seeds": seeds, "blocks": blocks, "verdict": results.verdict(found),
    }  # fmt: skip


def test_a_bound_near_zero_keeps_its_sign():
    assert "interval +0.05 to +6.2" in results.sentence(pd.Series(row(0.031, 0.00046, 0.062)))
    assert "interval −0.004 to" in results.sentence(pd.Series(row(0.031, -0.00004, 0.062)))


def tables(rows):
    empty = pd.DataFrame()
    return results.Results(empty, empty, empty, pd.DataFrame(rows), empty, empty)


def test_sentences_say_what_the_interval_says():
    assert results.sentence(pd.Series(row(0.031, 0.012, 0.05))) == (
        "**b-2** scores 3.1 points of mIoU more than **a-1** (95 % interval +1.2 to +5.0, 3 seeds)."
    )
    assert "3.1 points of mIoU less than" in results.sentence(pd.Series(row(-0.031, -0.05, -0.012)))
    assert results.sentence(pd.Series(row(0.011, -0.01, 0.032, 1))) == (
        "Between **b-2** and **a-1** no difference was seen: +1.1 points of mIoU "
        "(95 % interval −1.0 to +3.2, over test images alone, 1 seed)."
    )


def test_sentences_say_what_the_interval_rests_on():
    assert results.sentence(pd.Series(row(0.02, 0.01, 0.03, 3, 1))).endswith(
        "(95 % interval +1.0 to +3.0, over 3 seeds alone, test images of one block)."
    )
    assert results.sentence(pd.Series(row(0.441, np.nan, np.nan, 1, 1))) == (
        "**b-2** and **a-1** differ by +44.1 points of mIoU here; whether they differ elsewhere "
        "cannot be told (1 seed, test images of one block: no interval can be computed)."
    )
    known = pd.Series({"low": 0.012, "high": 0.5, "seeds": 3, "blocks": 25})
    assert results.between(known) == "95 % interval 1.2 to 50.0, 3 seeds"
    unknown = pd.Series({"low": np.nan, "high": np.nan, "seeds": 1, "blocks": 1})
    assert results.between(unknown) == results.basis(unknown)
    assert results.basis(unknown) == "1 seed, test images of one block: no interval can be computed"
    assert results._told(Interval(0.3, -np.inf, np.inf, 1)).low is np.nan


def test_a_comparison_reads_both_ways():
    found = tables([row(0.03, 0.01, 0.05)])
    there, back = found.difference("s", "b-2", "a-1"), found.difference("s", "a-1", "b-2")
    assert (there["difference"], there["low"], there["high"]) == (0.03, 0.01, 0.05)
    assert (back["difference"], back["low"], back["high"]) == (-0.03, -0.05, -0.01)
    assert (there["verdict"], back["verdict"]) == ("better", "worse")
    with pytest.raises(InputError, match="study s does not compare a-1 with c"):
        found.difference("s", "a-1", "c")


def test_late_gain_is_the_change_since_three_quarters():
    table = pd.DataFrame(
        {
            "arm": "a",
            "run": ["a-s0", "a-s1"] * 4,
            "step": [10, 10, 30, 30, 35, 35, 40, 40],
            "val_miou": [0.1, 0.3, 0.2, 0.4, np.nan, np.nan, 0.3, 0.6],
        }
    )
    gain, steps = results.late_gain(table, "a")
    assert gain == pytest.approx(15.0) and steps == 10
    gain, steps = results.late_gain(table[table.step == 40], "a")
    assert gain == 0 and steps == 0


@pytest.fixture
def plan(tmp_path, monkeypatch):
    """A plan of three arms and two seeds, with records whose scores are known."""
    (tmp_path / "params.yaml").write_text(
        """{study: fake, title: t, root: ., params: params.yaml, plan: plan.yaml, seeds: [3, 4],
        remarks: [],
        data: {source: synthetic, path: p, size: [64, 64], block: 1, seed: 0,
               counts: {train: 1, val: 1, test: 4}},
        base: {network: "fcn8s:tu-resnet10t", steps: 2}, tricks: {f: {knobs: {flip: 0.5}}},
        studies: {heads: {question: q, networks: {baseline: "baseline:0.05",
                          fcn: "fcn8s:tu-resnet10t"}},
                  ladder: {question: q, start: fcn, ladder: [f]}}}"""
    )
    monkeypatch.setattr(study, "ROOT", tmp_path)
    plan = study.load("params.yaml")
    plan.prepared.mkdir(parents=True)
    splits = {"test": {"names": list("abcd"), "sequences": list("abcd")}}
    (plan.prepared / "scenes.json").write_text(
        json.dumps({"size": [64, 64], "classes": ["x", "y"], "splits": splits})
    )
    rng = np.random.default_rng(0)
    right = {"baseline": 0.5, "fcn": 0.7, "with-f": 0.6}
    for run, differences in plan.runs.items():
        share = right[run.rpartition("-s")[0]]
        counts = {}
        for split, n in (("val", 1), ("test", 4)):
            hits = rng.binomial(1000, share, (n, 2))
            counts[split] = np.stack([[[a, 1000 - a], [1000 - b, b]] for a, b in hits]).astype(
                np.int32
            )
        folder = plan.build / "runs" / run
        folder.mkdir(parents=True)
        about = {"seconds": 1.0, "device": "d"}
        recipe = dataclasses.asdict(Recipe.of(differences))
        (folder / "record.json").write_text(json.dumps({"recipe": recipe, "about": about}))
        (folder / "curve.csv").write_text("step,loss,lr,val_miou\n2,0.5,0.1,0.4\n")
        np.savez_compressed(folder / "counts.npz", **counts)
    return plan


def test_the_tables_are_computed_from_the_right_runs(plan):
    found = results.collect(plan)
    score = {
        run: Confusion(Record.read(plan.build / "runs" / run).counts["test"].sum(0)).miou
        for run in plan.runs
    }
    for row in found.runs.itertuples():
        assert row.test_miou == pytest.approx(score[row.run])
        assert row.run == f"{row.arm}-s{row.seed}"
    for row in found.arms.itertuples():
        both = [score[f"{row.trained_as}-s3"], score[f"{row.trained_as}-s4"]]
        assert row.test_miou == pytest.approx(np.mean(both)) and row.low < np.mean(both) < row.high
        assert row.seed_sd == pytest.approx(np.std(both, ddof=1))
    up = found.difference("heads", "fcn", "baseline")
    by_hand = np.mean([score[f"fcn-s{s}"] - score[f"baseline-s{s}"] for s in (3, 4)])
    assert up["difference"] == pytest.approx(by_hand) and by_hand > 0.1
    down = found.difference("ladder", "with-f", "fcn")
    assert down["difference"] < 0 and down["low"] < down["difference"] < down["high"]
    assert len(found.comparisons) == 2 and len(found.networks) == 2
    best = found.best_of_each_network()
    assert list(best.arm) == ["baseline", "fcn"]
    results.write(found, plan.results)
    again = results.Results.read(plan)
    pd.testing.assert_frame_equal(again.comparisons, found.comparisons, rtol=1e-4)


def test_missing_results_say_how_to_make_them(plan):
    with pytest.raises(
        InputError, match="results/fake/runs.csv: no results yet. Run 'make report'"
    ):
        results.Results.read(plan)


def test_the_reference_table_holds_the_course_study_s_rows():
    table = results.reference()
    assert table.gmacs.iloc[0] == 67.003
    assert ((table.miou > 0.2) & (table.miou < 0.9)).all()
    assert np.isfinite(table.gmacs).all() and len(table) == 14
