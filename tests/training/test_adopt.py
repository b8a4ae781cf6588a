"""After a change of code that changes no result, what is finished is kept; else it is not."""

import contextlib
import json
from collections import Counter

import numpy as np
import pytest
from toys import CPU, copied, quiet, toy_study

from roadseg.training import loop, store
from roadseg.training.adopt import adopt
from roadseg.training.loop import Diverged
from roadseg.training.plan import RequestedRuns
from roadseg.training.question import train_question
from roadseg.training.run import Run
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
    """How many trainings of the store are of the code before, trained anew, and adopted."""
    counts = Counter()
    for training in all_trainings():
        with contextlib.suppress(Diverged):
            adopted = "adopted_from" in training.about()
            before = training.decided_by["code"] == "before"
            counts["adopted" if adopted else "before" if before else "anew"] += 1
    return counts


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


# What changed with the code, or in the store.


def starts_elsewhere(patch):
    stream = loop.stream

    def other(seed, purpose):
        return stream(seed + 9 if purpose == "init" else seed, purpose)

    patch.setattr(loop, "stream", other)


def breaks_the_plain_loss(patch):
    """Which runs that set something do not take."""
    loss = loop.segmentation_loss

    def changed(logits, labels, **options):
        return loss(logits if options.get("label_smoothing") else logits * 2, labels, **options)

    patch.setattr(loop, "segmentation_loss", changed)


def computes_otherwise(patch):
    """For old and new weights alike, so that the scores of the store alone tell."""
    for training in all_trainings():
        (file,) = training.folder.glob("scores/*/counts.npz")
        with np.load(file) as counts:
            other = {name: values + (name == "test") for name, values in counts.items()}
        np.savez_compressed(file, **other)


def fails(patch):
    def fail(*_, **__):
        raise RuntimeError("the change is wrong")

    patch.setattr("roadseg.training.run.train", fail)


def was_on_another_device(patch):
    for training in all_trainings():
        file = training.folder / "training.json"
        record = json.loads(file.read_text())
        record["about"]["device"] = "another"
        file.write_text(json.dumps(record))


TRICKS = """\
flip: {set: {flip: 0.5}}
smooth: {set: {label_smoothing: 0.1}}
both: {set: {weight_decay: 0.1, schedule: poly}}
search: {set: {lr_search: [0.5, 2.0], lr_search_steps: 2}}
wild: {set: {lr: 1.0e+30}}
pre: {set: {pretrained: 'scenes:4', pretrain_steps: 2}}
teach: {set: {teacher: 'baseline:0.1', distill_weight: 1.0}}
"""
ONE = "heads: {{asks: 'Which?', networks: [{}]}}\n"
ALONE = "alone: {{asks: 'What helps?', start: {}, alone: [{}]}}\n"
WILD = "wild: {asks: 'Which?', tricks: [wild], networks: [baseline]}\n"


@pytest.mark.parametrize(
    ("questions", "seeds", "change", "adopted", "counts"),
    [
        (HEADS, (0, 1), starts_elsewhere, False, {"before": 4, "anew": 2}),
        (HEADS, (0,), computes_otherwise, False, {"before": 2, "anew": 2}),
        (HEADS, (0,), fails, False, {"before": 2}),
        (HEADS, (0,), was_on_another_device, False, {"before": 2}),
        # 'both' sets most; flip and smooth are in none of it, so that each has a run of its own
        (HEADS + ALONE.format("fcn", "flip, smooth, both"), (0,), None, True,
         {"before": 5, "anew": 4, "adopted": 1}),
        (ONE.format("fcn") + ALONE.format("fcn", "smooth"), (0, 1), breaks_the_plain_loss, False,
         {"before": 4, "anew": 2}),
        # a search's choice is known before its trials are adopted; a failure may be what was mended
        (HEADS.replace("networks", "tricks: [search], networks") + WILD, (0, 1), None, True,
         {"before": 8, "anew": 2, "adopted": 6}),
        (WILD, (0,), None, False, {}),  # losses that were not finite vouch for nothing
    ],
)  # fmt: skip
def test_trainings_are_kept_if_those_trained_anew_come_to_the_same(
    prepared, root, monkeypatch, questions, seeds, change, adopted, counts
):
    study = trained_study(root, prepared, questions, TRICKS, seeds)
    if change:
        change(monkeypatch)
    assert adopt(study, quiet) == adopted
    assert of_code() == counts


def test_what_another_study_starts_from_is_kept_with_it(prepared, root):
    """A pre-training on synthetic scenes, and a teacher."""
    questions = ONE.format("baseline") + ALONE.format("baseline", "pre, teach")
    study = trained_study(root, prepared, questions, TRICKS)
    assert adopt(study, quiet) and not RequestedRuns(study, CPU).missing
    counts = of_code()
    assert counts["before"] == 10 and counts["anew"] + counts["adopted"] == 10


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
