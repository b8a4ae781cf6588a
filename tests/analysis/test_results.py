import dataclasses
import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch

from roadseg.analysis import intervals, results
from roadseg.analysis.tables import TABLES, Results, late_gain, reference
from roadseg.config import paths
from roadseg.config.study import load
from roadseg.data import survey
from roadseg.data.scenes import UNLABELLED, Scenes
from roadseg.errors import InputError
from roadseg.report.findings import unfinished
from roadseg.report.load import empty_chapters
from roadseg.training import metrics
from roadseg.training.loop import make_network
from roadseg.training.metrics import Confusion
from roadseg.training.store import Record


def test_verdicts():
    assert results.verdict(0.02, 0.01, trick=False) == "better"
    assert results.verdict(-0.02, 0.049, trick=False) == "worse"
    assert results.verdict(0.02, 0.05, trick=False) == "no difference found"
    assert results.verdict(0.02, 0.01, trick=True) == "helps"
    assert results.verdict(-0.02, 0.01, trick=True) == "hurts"
    assert results.verdict(0.02, np.nan, trick=True) == "no effect found"


def row(difference, low, high, seeds=3, blocks=9, trick="", tests=1, p=None):
    p = (0.5 if low <= 0 <= high else 0.01) if p is None else p
    return {
        "question": "s", "trick": trick, "arm": "b-2", "against": "a-1", "difference": difference,
        "low": low, "high": high, "seeds": seeds, "blocks": blocks, "effective_blocks": float(blocks), "p": p, "p_corrected": p,
        "tests": tests, "verdict": results.verdict(difference, p, trick=bool(trick)),
    }  # fmt: skip


def tables(rows):
    empty = pd.DataFrame()
    return Results(*[pd.DataFrame(rows) if name == "comparisons" else empty
                             for name in TABLES])  # fmt: skip


def test_a_comparison_reads_both_ways():
    one_row = tables([row(0.03, 0.01, 0.05)])
    there, back = one_row.difference("s", "b-2", "a-1"), one_row.difference("s", "a-1", "b-2")
    assert (there["difference"], there["low"], there["high"]) == (0.03, 0.01, 0.05)
    assert (back["difference"], back["low"], back["high"]) == (-0.03, -0.05, -0.01)
    assert (there["verdict"], back["verdict"]) == ("better", "worse")
    with pytest.raises(InputError, match="question s does not compare a-1 with c"):
        one_row.difference("s", "a-1", "c")


def test_late_gain_is_the_change_since_three_quarters():
    table = pd.DataFrame(
        {
            "arm": "a",
            "run": ["a-s0", "a-s1"] * 4,
            "step": [10, 10, 30, 30, 35, 35, 40, 40],
            "val_miou": [0.1, 0.3, 0.2, 0.4, np.nan, np.nan, 0.3, 0.6],
        }
    )
    gain, steps = late_gain(table, "a")
    assert gain == pytest.approx(15.0) and steps == 10
    gain, steps = late_gain(table[table.step == 40], "a")
    assert gain == 0 and steps == 0


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A study of four arms and three seeds, with records whose scores are known."""
    (tmp_path / "params.yaml").write_text(
        """{study: fake, title: t, root: ., folder: ., seeds: [3, 4, 5],
        data: {source: synthetic, path: p, size: [64, 64], block: 1, seed: 0,
               counts: {train: 1, val: 1, test: 8}},
        base: {network: "fcn8s:tu-resnet10t", steps: 2},
        questions: {heads: {asks: q, networks: {baseline: "baseline:0.05",
                            fcn: "fcn8s:tu-resnet10t"}},
                    ladder: {asks: q, start: fcn, ladder: [f]},
                    each: {asks: q, start: fcn, alone: [f, t]},
                    spread: {asks: q, start: fcn, noise: [3, 4, 5, 6]}}}"""
    )
    (tmp_path / "tricks.yaml").write_text("{f: {set: {flip: 0.5}}, t: {set: {test_flip: true}}}")
    (tmp_path / "networks.yaml").write_text("{}")
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    monkeypatch.setattr(results, "THROUGHPUT_SECONDS", 0.1)
    prior = dict.fromkeys(("val_miou", "test_miou", "low", "high", "accuracy"), 0.1)
    monkeypatch.setattr(results, "_prior", lambda *_: prior)  # here are no images
    study = load("params.yaml")
    study.prepared.mkdir(parents=True)
    splits = {"test": {"names": list("abcdefgh"), "sequences": list("abcdefgh"), "digest": "1"}}
    about = {"size": [64, 64], "classes": ["x", "y"], "splits": splits, "digest": "0",
             "colours": [[0, 0, 0], [9, 9, 9]]}  # fmt: skip
    (study.prepared / "scenes.json").write_text(json.dumps(about))
    rng = np.random.default_rng(0)
    np.save(study.prepared / "test_images.npy", rng.integers(0, 256, (8, 3, 64, 64), np.uint8))
    np.save(study.prepared / "test_labels.npy", rng.integers(0, 2, (8, 64, 64), np.uint8))
    right = {"baseline": 0.5, "fcn": 0.7, "with-f": 0.6, "fcn-t": 0.8}
    for arm in study.arms:
        for seed in study.seeds_of(arm):
            counts = {}
            for split, n in (("val", 1), ("test", 8)):
                hits = rng.binomial(1000, right[arm], (n, 2))
                counts[split] = np.stack([[[a, 1000 - a], [1000 - b, b]] for a, b in hits]).astype(
                    np.int32
                )
            folder = study.run_folder(arm, seed)
            folder.mkdir(parents=True)
            about = {"seconds": 1.0, "start_seconds": 0.5, "device": "d", "lr_used": 0.1, "precision": "fp32",
                     "training": f"{arm.removesuffix('-t')}-{seed}"}  # fmt: skip
            recipe = dataclasses.asdict(study.arms[arm].changed({"seed": seed}))
            (folder / "record.json").write_text(json.dumps({"recipe": recipe, "about": about}))
            (folder / "curve.csv").write_text("step,loss,lr,val_miou\n2,0.5,0.1,0.4\n")
            boundary = metrics.class_sums(counts["test"]) // 2  # half of the pixels are near contours
            np.savez_compressed(folder / "counts.npz", **counts, boundary=boundary)
            sure = f"pixels,right,confidence\n8000,{8000 * right[arm]},{8000 * right[arm] - 400}\n"
            (folder / "reliability.csv").write_text(sure + "0,0,0\n" * 14)
            torch.save(make_network(study.arms[arm], 2).state_dict(), folder / "weights.pt")
    for question in study.questions.values():  # each has its own copy of the runs that it asks for
        for arm in question.arms:
            for seed in study.question_seeds(question):
                folder = run_folder(study, question.name, arm, seed)
                if not folder.is_dir():
                    shutil.copytree(study.run_folder(arm, seed), folder)
    return study


def run_folder(study, question, arm, seed):
    """Return the folder of a run among those of a question."""
    return study.build / "runs" / question / arm / f"s{seed}"


def test_the_location_prior_is_scored_as_a_network_is(prepared):
    train = Scenes.load(prepared, "train")
    test = Scenes.load(prepared, "test")
    prior = results._prior(prepared, np.arange(len(test)))
    labels = np.array(test.labels)
    right = (labels == survey.location_prior(train))[labels != UNLABELLED].mean()
    assert prior["accuracy"] == pytest.approx(right)
    assert prior["test_miou"] <= right and np.isnan(prior["low"])  # of four test images


def test_of_equal_trainings_the_first_owns_the_weights():
    runs = pd.DataFrame(
        [("a", "t"), ("c", "u"), ("b", "t"), ("d", "u"), ("e", "v"), ("f", "t")], columns=["run", "training"]
    )
    assert list(results._with_weights_of(runs)["weights_of"]) == ["", "", "a", "c", "", "a"]


def test_the_tables_are_computed_from_the_right_runs(study):
    collected = results.collect(study)
    score = {
        f"{arm}-s{seed}": Confusion(Record.read(study.run_folder(arm, seed)).counts["test"].sum(0)).miou
        for arm in study.arms
        for seed in study.seeds_of(arm)
    }
    for row in collected.runs.itertuples():
        assert row.test_miou == pytest.approx(score[row.run])
        assert row.run == f"{row.arm}-s{row.seed}"
    for row in collected.arms.itertuples():
        of_seeds = [score[f"{row.arm}-s{seed}"] for seed in (3, 4, 5)]
        mean = np.mean(of_seeds)
        assert row.test_miou == pytest.approx(mean) and row.low < mean < row.high
        assert row.seed_sd == pytest.approx(np.std(of_seeds, ddof=1)) and row.effective_blocks == 8
        assert row.boundary_iou == pytest.approx(row.test_miou, abs=1e-3)
        assert row.calibration_error == pytest.approx(400 / 8000)
    for arm, class_rows in collected.classes.groupby("arm"):
        mean = collected.arms.set_index("arm").test_miou[[arm]].iloc[0]
        assert class_rows.iou.mean() == pytest.approx(mean)
        assert (class_rows.low < class_rows.iou).all() and (class_rows.iou < class_rows.high).all()
    assert (collected.reliability.groupby("arm").pixels.sum() == 24_000).all()
    up = collected.difference("heads", "fcn", "baseline")
    by_hand = np.mean([score[f"fcn-s{s}"] - score[f"baseline-s{s}"] for s in (3, 4, 5)])
    assert up["difference"] == pytest.approx(by_hand) and by_hand > 0.1
    down = collected.difference("ladder", "with-f", "fcn")
    assert down["difference"] < 0 and down["low"] < down["difference"] < down["high"]
    assert len(collected.comparisons) == 1 + 1 + 2 and len(collected.networks) == 2
    best = collected.best_of_each_network().set_index("network")
    assert best.arm["baseline:0.05"] == "baseline"
    twice = collected.networks.set_index("network").gmacs["fcn8s:tu-resnet10t"] * 2
    # the mirrored one scores best on val, and costs two passes
    assert best.loc["fcn8s:tu-resnet10t", "gmacs"] == pytest.approx(twice)


def test_tricks_are_judged_together(study):
    collected = results.collect(study)
    effects = collected.effects("each")
    assert list(effects.trick) == ["f", "t"] and list(effects.tests) == [2, 2]
    assert list(collected.effects("ladder").trick) == ["f"] and not len(collected.effects("heads"))
    tests = {
        arm: metrics.class_sums(
            np.stack([Record.read(study.run_folder(arm, s)).counts["test"] for s in study.seeds])
        )
        for arm in ("fcn", "with-f", "fcn-t")
    }
    by_hand = [
        intervals.interval(tests[arm], np.arange(8), baseline=tests["fcn"])
        for arm in ("with-f", "fcn-t")
    ]
    np.testing.assert_allclose(effects.p, [each.p for each in by_hand])
    np.testing.assert_allclose(effects.low, [each.low for each in by_hand])
    np.testing.assert_allclose(effects.p_corrected, intervals.holm(effects.p.to_numpy()))
    assert (effects.p_corrected >= effects.p).all()
    np.testing.assert_allclose(effects.detectable, [intervals.detectable(each, 2) for each in by_hand])
    signs = np.where(effects.difference > 0, "helps", "hurts")
    expected = np.where(effects.p_corrected < 0.05, signs, "no effect found")
    assert list(effects.verdict) == list(expected) and "hurts" in expected


def test_each_network_is_counted_once_at_each_size(study, monkeypatch):
    sizes, whole = [], results.cost.multiply_adds
    monkeypatch.setattr(results.cost, "multiply_adds", lambda network, size: (
        sizes.append(size) or whole(network, size)
    ))
    gmacs = results._test_gmacs(study, (64, 64), 2)
    assert sizes == [(64, 64)] * 2
    assert gmacs["with-f"] == gmacs["fcn"] and gmacs["fcn-t"] == 2 * gmacs["fcn"]
    assert gmacs["baseline"] == whole(results.meta_network(study.arms["baseline"], 2), (64, 64))


def test_classes_are_corrected_over_tricks_and_classes(study):
    table = results.collect(study).class_effects
    each = table[table.question == "each"]
    assert list(zip(each.trick, each["class"], strict=True)) == [
        ("f", "x"), ("f", "y"), ("t", "x"), ("t", "y")
    ]  # fmt: skip
    np.testing.assert_allclose(each.p_corrected, intervals.holm(each.p.to_numpy()))
    np.testing.assert_allclose(each.pixel_share, 0.5)


def test_where_there_is_no_interval_each_seed_is_told(study):
    first, second = (
        np.stack([metrics.class_sums(Record.read(study.run_folder(arm, s)).counts["test"]) for s in study.seeds])
        for arm in ("fcn", "with-f")
    )
    for seeds, blocks, expected in ((2, np.arange(8), 2), (3, np.arange(8) // 2, 4), (3, np.arange(8), 0)):
        arm, other = first[:seeds], second[:seeds]
        difference = intervals.interval(arm, blocks, other)
        samples = [float(x) for x in results._samples_text(difference, arm, other, blocks).split()]
        assert len(samples) == expected and bool(expected) == np.isnan(difference.low)
        if seeds == 2:
            assert np.mean(samples) == pytest.approx(difference.estimate, abs=1e-4)


def test_other_lengths_of_blocks_are_tried_on_video(study):
    tests = {"ladder": {
        arm: np.stack([
            metrics.class_sums(Record.read(study.run_folder(arm, s)).counts["test"]) for s in study.seeds
        ])
        for arm in ("fcn", "with-f")
    }}  # fmt: skip
    assert not len(results._block_lengths(study, ["a"] * 8, tests))  # of single images
    video = dataclasses.replace(study, data=study.data | {"block": 2})
    table = results._block_lengths(video, ["a"] * 8, tests)
    assert table.block.tolist() == [1, 4] and table.effective_blocks.tolist() == [8, 2]
    assert table.verdict.tolist() == ["hurts", "no effect found"]  # two blocks tell nothing


def test_a_noise_question_has_its_own_seeds(study):
    collected = results.collect(study)
    scores = [
        Confusion(Record.read(study.run_folder("fcn", s)).counts["test"].sum(0)).miou for s in (3, 4, 5, 6)
    ]
    (row,) = collected.noise.itertuples()
    assert (row.arm, row.seeds) == ("fcn", 4)
    assert row.sd == pytest.approx(np.std(scores, ddof=1)) and row.sd_low < row.sd < row.sd_high
    assert row.low < row.mean < row.high and row.mean == pytest.approx(np.mean(scores))
    arm = collected.arms[collected.arms.arm == "fcn"].iloc[0]
    assert arm.seeds == 3 and arm.test_miou == pytest.approx(np.mean(scores[:3]))


def test_an_arm_s_outcome_is_the_sum_of_its_trainings(study):
    outcomes = results.collect(study).outcomes.set_index("arm")
    assert outcomes.seconds.to_dict() == {"baseline": 4.5, "fcn": 6.0, "with-f": 4.5, "fcn-t": 4.5}
    assert outcomes.joules.isna().all() and not outcomes.failed.any()


def meter(study, arm, joules):
    for seed, spent in zip(study.seeds_of(arm), joules, strict=True):
        file = study.run_folder(arm, seed) / "record.json"
        record = json.loads(file.read_text())
        record["about"]["joules"] = spent
        file.write_text(json.dumps(record))


def test_energy_is_told_where_every_run_of_an_arm_has_a_meter(study):
    meter(study, "baseline", [10.0, 20.0, 30.0])
    meter(study, "fcn", [10.0, 20.0, 5.0, None])
    joules = results.collect(study).outcomes.set_index("arm").joules
    assert joules["baseline"] == 60 and joules.drop("baseline").isna().all()


def test_runs_of_two_precisions_are_not_compared(study):
    file = study.run_folder("fcn", 3) / "record.json"
    file.write_text(file.read_text().replace('"precision": "fp32"', '"precision": "bf16"'))
    with pytest.raises(InputError, match="bf16 .such as fcn-s3.*base: precision"):
        results.collect(study)


def fail(study, question, arm, seed, why="the loss is not finite"):
    """Let a run have failed, as a question has it."""
    folder = run_folder(study, question, arm, seed)
    recipe = json.loads((folder / "record.json").read_text())["recipe"]
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / "failed.json").write_text(json.dumps({"recipe": recipe, "why": why}))


def test_an_arm_that_failed_is_in_no_table_but_outcomes(study):
    fail(study, "heads", "baseline", 4)
    collected = results.collect(study)
    row = collected.outcomes.set_index("arm").loc["baseline"]
    assert (row.failed, row.why, row.seconds) == (1, "the loss is not finite", 3.0) and np.isnan(row.joules)
    assert collected.failed == {"baseline"} and "baseline" not in set(collected.arms.arm)
    assert "baseline" not in collected.finished(study).arms and "baseline" in collected.ended(study).arms
    assert not len(collected.unfinished)


def test_where_all_arms_failed_there_are_no_tables(study):
    for name, question in study.questions.items():
        for arm in question.arms:
            for seed in study.question_seeds(question):
                fail(study, name, arm, seed)
    with pytest.raises(InputError, match="fake: no arm came to its end. The first, baseline: the loss is not"):
        results.collect(study)


def test_a_question_whose_runs_are_not_all_there_is_left_out(study):
    shutil.rmtree(run_folder(study, "heads", "baseline", 3))
    shutil.rmtree(run_folder(study, "spread", "fcn", 5))
    left, others = results.finished(study)
    assert list(left.questions) == ["ladder", "each"] and others == ["heads", "spread"]
    collected = results.collect(study)
    assert collected.unfinished.to_dict("records") == [
        {"question": "heads", "missing": 1, "runs": 6}, {"question": "spread", "missing": 1, "runs": 4},
    ]  # fmt: skip
    assert set(collected.arms.question) == {"ladder", "each"} and not len(collected.noise) and not len(collected.pareto)
    assert set(collected.outcomes.arm) == {"fcn", "with-f", "fcn-t"} and len(collected.runs) == 9
    assert set(results.compact_counts(study)) == set(collected.runs.run)
    results.write(collected, results.compact_counts(study), study.results)
    again = Results.read(study)
    assert list(again.ended(study).questions) == ["ladder", "each"]
    missing = "heads (1 of 6 runs missing) and spread (1 of 4 runs missing)"
    assert unfinished(again) == missing.split(" and ")
    empty = empty_chapters(study, again)
    assert list(empty) == ["2_baseline", "3_fcn", "5_networks"]
    assert all(missing in words for words in empty.values())


def test_where_no_question_is_finished_there_are_no_tables(study):
    shutil.rmtree(study.build)
    with pytest.raises(InputError, match="fake: no question is finished; run 'make report'"):
        results.collect(study)


def test_a_run_of_other_settings_is_refused(study):
    changed = dataclasses.replace(study.questions["each"], arms={
        arm: recipe.changed({"lr": 0.1}) for arm, recipe in study.questions["each"].arms.items()
    })  # fmt: skip
    other = dataclasses.replace(study, questions={**study.questions, "each": changed})
    with pytest.raises(InputError, match=r"runs/each/fcn/s3: is of other settings than params.yaml has now. Run"):
        results.collect(other)


def test_tables_read_back(study):
    collected = results.collect(study)
    results.write(collected, results.compact_counts(study), study.results)
    again = Results.read(study)
    read = again.comparisons.fillna({"trick": "", "samples": ""})  # as every empty text in a CSV file
    pd.testing.assert_frame_equal(read, collected.comparisons, rtol=1e-4, check_dtype=False)
    with np.load(study.results / "tables/counts.npz") as counts:  # which are enough to score again
        for run in collected.runs.itertuples():
            scores = metrics.iou_of_sums(counts[run.run].sum(0))
            assert np.nanmean(scores) == pytest.approx(run.test_miou)
    before = (study.results / "tables/counts.npz").read_bytes()
    (study.results / "tables/fronts.csv").write_text("of an earlier version")
    results.write(collected, results.compact_counts(study), study.results)
    assert (study.results / "tables/counts.npz").read_bytes() == before
    assert not (study.results / "tables/fronts.csv").exists()


def test_missing_results_say_how_to_make_them(study):
    with pytest.raises(
        InputError, match="results/fake/tables/runs.csv: no results yet. Run 'make report'"
    ):
        Results.read(study)


def test_the_reference_table_holds_the_course_study_s_rows():
    table = reference()
    assert table.gmacs.iloc[0] == 67.003
    assert ((table.miou > 0.2) & (table.miou < 0.9)).all()
    assert np.isfinite(table.gmacs).all() and len(table) == 14


def test_latencies_that_no_clock_tells_apart_are_alike():
    grouped = results.group_similar_costs(np.array([10.0, 5.2, 5.0, 5.3, 10.4]))
    np.testing.assert_allclose(grouped, [10.0, 5.0, 5.0, 5.3, 10.0])


def test_pareto_fronts_choose_on_val_and_are_worth_what_test_says(study):
    collected = results.collect(study)
    pareto_rows = collected.pareto[collected.pareto.measure == "gmacs"].set_index("label")
    scores = collected.of("heads").set_index("arm")
    assert list(pareto_rows.test_miou) == list(scores.test_miou) and list(pareto_rows.cost) == list(scores.gmacs)
    cheap, dear = pareto_rows.cost.idxmin(), pareto_rows.cost.idxmax()
    assert pareto_rows.pareto_optimal[cheap] and pareto_rows.pareto_optimal[dear] == (pareto_rows.val_miou[dear] > pareto_rows.val_miou[cheap])
    assert pareto_rows.pareto_share.between(0, 1).all() and pareto_rows.pareto_share[cheap] == 1
    assert (collected.networks.memory_mib > 0).all() and (collected.networks.effective_field > 0).all()
    assert len(collected.searches) == 0 and len(collected.catalogue) == 0
