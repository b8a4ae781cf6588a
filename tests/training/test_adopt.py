"""After a change of code that changes no result, what is finished is kept; else it is not."""

import json

import numpy as np
import pytest
from toys import CPU, copied, quiet, toy_study

from roadseg.training import loop, store
from roadseg.training.adopt import adopt
from roadseg.training.plan import RequestedRuns
from roadseg.training.question import train_question
from roadseg.training.run import Run, load_splits
from roadseg.training.store import all_trainings

HEADS = "heads: {asks: 'Which?', networks: [baseline, fcn]}\n"


@pytest.fixture(autouse=True)
def on_a_cpu(monkeypatch):
    monkeypatch.setattr("roadseg.training.adopt.default_device", lambda: CPU)


def trained_study(root, prepared, questions, tricks="flip: {set: {flip: 0.5}}\n", seeds=(0, 1)):
    """A study whose runs are all in the store, made by other code than what follows."""
    study = toy_study(root, prepared, questions, tricks, seeds)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "TRAINING_CODE", "before")
        for question in study.questions.values():
            arms = {
                arm: [Run(recipe.changed({"seed": s}), study.seeds[0]) for s in study.seeds]
                for arm, recipe in question.arms.items()
            }
            train_question(arms, study.prepared, study.build / question.name, device=CPU, say=quiet)
    return study


def records(study, folder):
    """All runs of a study as the store has them now."""
    return {
        run.recipe: copied(run.recipe, study.prepared, folder / run.recipe.digest, run.search_seed)
        for run in RequestedRuns(study, CPU).stored
    }


def of_code():
    """Which trainings of the store are of which code, and which of them were adopted."""
    trainings_by_code = {}
    for training in all_trainings():
        name = "training.json" if (training.folder / "training.json").is_file() else "failed.json"
        adopted = '"adopted_from"' in (training.folder / name).read_text()
        code = training.decided_by["code"]
        trainings_by_code.setdefault("adopted" if adopted else "before" if code == "before" else "anew", []).append(training)
    return {what: len(trainings) for what, trainings in trainings_by_code.items()}


def assert_kept(study, root, n):
    """All n runs are there, with scores, and come to what they came to by the code before."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "TRAINING_CODE", "before")
        before = records(study, root / "before")
    after = records(study, root / "after")
    assert len(before) == len(after) == n
    for recipe, record in after.items():
        old = before[recipe]
        assert record.about["training"] != old.about["training"]
        assert record.about["code"] == store.TRAINING_CODE and old.about["code"] == "before"
        for name in ("weights", "lr_used", "digest", "data_digest", "precision"):
            assert record.about[name] == old.about[name]
        for name in ("val", "test"):
            np.testing.assert_array_equal(record.counts[name], old.counts[name])
        np.testing.assert_array_equal(record.boundary, old.boundary)
        np.testing.assert_array_equal(record.curve.to_numpy(), old.curve.to_numpy())
    lines = []
    arms = {"all": [Run(recipe, study.seeds[0]) for recipe in after]}
    numbered = {str(i): [run] for i, run in enumerate(arms["all"])}
    train_question(numbered, study.prepared, root / "out", device=CPU, say=lines.append)
    assert lines == [f"{n} runs: {n} from the store"]


def test_one_run_of_each_network_is_trained_anew_and_the_rest_is_kept(prepared, root):
    study, lines = trained_study(root, prepared, HEADS), []
    assert of_code() == {"before": 4} and not RequestedRuns(study, CPU).stored
    assert adopt(study, lines.append)
    assert of_code() == {"before": 4, "anew": 2, "adopted": 2}
    trained_anew = {line.split()[0] for line in lines if " epoch " in line}
    assert trained_anew == {"baseline:0.05", "fcn8s:tu-test_resnet"}
    assert_kept(study, root, 4)
    lines.clear()
    assert adopt(study, lines.append) and len(lines) == 1 and "nothing to adopt" in lines[0]


def test_a_change_that_alters_results_is_told_and_nothing_is_kept(prepared, root, monkeypatch):
    """Here all weights start elsewhere."""
    study, lines, stream = trained_study(root, prepared, HEADS), [], loop.stream

    def other(seed, purpose):
        return stream(seed + 9 if purpose == "init" else seed, purpose)

    monkeypatch.setattr(loop, "stream", other)
    assert not adopt(study, lines.append)
    assert of_code() == {"before": 4, "anew": 2}
    for network in ("baseline:0.05", "fcn8s:tu-test_resnet"):
        assert any(line.startswith(network) and "confusion matrix" in line for line in lines)
    assert "Nothing is adopted" in lines[-1]


def test_scores_of_the_store_are_compared_too(prepared, root):
    """What a network computes may have changed for old and new weights alike."""
    study, lines = trained_study(root, prepared, HEADS, seeds=(0,)), []
    for training in all_trainings():
        (file,) = training.folder.glob("scores/*/counts.npz")
        with np.load(file) as counts:
            other = {name: values + (name == "test") for name, values in counts.items()}
        np.savez_compressed(file, **other)
    assert not adopt(study, lines.append)
    assert "Nothing is adopted" in lines[-1] and of_code() == {"before": 2, "anew": 2}


def test_a_run_that_fails_now_is_a_change_as_well(prepared, root, monkeypatch):
    study, lines = trained_study(root, prepared, HEADS, seeds=(0,)), []

    def fail(*_, **__):
        raise RuntimeError("the change is wrong")

    monkeypatch.setattr("roadseg.training.run.train", fail)
    assert not adopt(study, lines.append)
    assert of_code() == {"before": 2}
    assert any("the change is wrong" in line for line in lines)
    assert not any("alters results" in line for line in lines)


TRICKS = """\
flip: {set: {flip: 0.5}}
smooth: {set: {label_smoothing: 0.1}}
both: {set: {weight_decay: 0.1, schedule: poly}}
"""


def test_each_hyperparameter_is_in_a_run_that_is_trained_anew(prepared, root):
    """'both' sets most; flip and smooth are in none of it, so that each has a run of its own."""
    alone = "alone: {asks: 'What helps?', start: fcn, alone: [flip, smooth, both]}\n"
    study, lines = trained_study(root, prepared, HEADS + alone, TRICKS, seeds=(0,)), []
    assert of_code() == {"before": 5}
    assert adopt(study, lines.append)
    assert of_code() == {"before": 5, "anew": 4, "adopted": 1}
    (kept,) = [t for t in all_trainings() if t.about().get("code") != "before"
               and '"adopted_from"' in (t.folder / "training.json").read_text()]  # fmt: skip
    assert kept.decided_by["recipe"].keys().isdisjoint({"flip", "label_smoothing", "schedule"})


def test_neutral_settings_have_a_run_that_is_trained_anew(prepared, root, monkeypatch):
    """The change breaks the plain loss alone, which runs that set something do not take."""
    questions = HEADS.replace("baseline, fcn", "fcn")
    questions += "alone: {asks: 'What helps?', start: fcn, alone: [smooth]}\n"
    study, lines, loss = trained_study(root, prepared, questions, TRICKS), [], loop.segmentation_loss

    def changed(logits, labels, **options):
        return loss(logits if options.get("label_smoothing") else logits * 2, labels, **options)

    monkeypatch.setattr(loop, "segmentation_loss", changed)
    assert not adopt(study, lines.append)
    assert of_code() == {"before": 4, "anew": 2}


def test_trainings_of_one_code_vouch_for_no_others(prepared, root):
    """The newest code gave other results, the one before it the same."""
    study = trained_study(root, prepared, HEADS, seeds=(0,))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "TRAINING_CODE", "later")
        recipe = study.questions["heads"].arms["fcn"]
        arms = {"fcn": [Run(recipe.changed({"seed": seed})) for seed in (1, 2)]}
        train_question(arms, study.prepared, root / "out", device=CPU, say=quiet)
    for training in all_trainings():
        if training.decided_by["code"] == "later":
            curve = training.curve().assign(val_miou=0.5)
            curve.to_csv(training.folder / "curve.csv", index=False)
    study, lines = toy_study(root, prepared, HEADS, seeds=(0, 1, 2)), []
    assert adopt(study, lines.append), lines
    assert sum("alters results" in line for line in lines) == 1
    now = [t.decided_by["recipe"] for t in all_trainings() if t.decided_by["code"] == store.TRAINING_CODE]
    assert len(now) == 3 and sum(recipe.get("seed", 0) > 0 for recipe in now) == 1
    lines.clear()
    assert not adopt(study, lines.append)  # what differed is compared again
    assert any("alters results" in line for line in lines)


def test_another_device_s_trainings_are_not_compared(prepared, root):
    study, lines = trained_study(root, prepared, HEADS, seeds=(0,)), []
    for training in all_trainings():
        file = training.folder / "training.json"
        record = json.loads(file.read_text())
        record["about"]["device"] = "another"
        file.write_text(json.dumps(record))
    assert not adopt(study, lines.append)
    assert of_code() == {"before": 2} and any("another device" in line for line in lines)


SEARCH = "search: {set: {lr_search: [0.5, 2.0], lr_search_steps: 2}}\nwild: {set: {lr: 1.0e+30}}\n"


def test_searched_runs_are_kept_and_failed_ones_trained_anew(prepared, root):
    """A search's choice is known before its trials are adopted."""
    questions = "heads: {asks: 'Which?', tricks: [search], networks: [baseline, fcn]}\n"
    questions += "wild: {asks: 'Which?', tricks: [wild], networks: [baseline]}\n"
    study, lines = trained_study(root, prepared, questions, SEARCH, seeds=(0, 1)), []
    splits = load_splits(study.prepared)
    assert splits and of_code() == {"before": 2 * (2 + 2) + 2}
    assert adopt(study, lines.append), lines
    assert of_code() == {"before": 10, "anew": 2, "adopted": 6}
    assert len(RequestedRuns(study, CPU).missing) == 2  # a failure may be what was mended
    assert len(RequestedRuns(study, CPU).stored) == 4


def test_what_another_study_starts_from_is_kept_with_it(prepared, root):
    """A pre-training on synthetic scenes, and a teacher."""
    tricks = "pre: {set: {pretrained: 'scenes:4', pretrain_steps: 2}}\n"
    tricks += "teach: {set: {teacher: 'baseline:0.1', distill_weight: 1.0}}\n"
    questions = HEADS.replace("baseline, fcn", "baseline")
    questions += "alone: {asks: 'What helps?', start: baseline, alone: [pre, teach]}\n"
    study, lines = trained_study(root, prepared, questions, tricks), []
    assert of_code() == {"before": 2 * 3 + 2 * 2}
    assert adopt(study, lines.append), lines
    assert not RequestedRuns(study, CPU).missing
    counts = of_code()
    assert counts["before"] == 10 and counts["anew"] + counts["adopted"] == 10
