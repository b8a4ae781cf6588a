"""All runs of a question: what is trained, what comes from the store, and what is copied out."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from toys import CPU, SMALLEST, TINY, copied, quiet, toy_study

from roadseg.errors import InputError
from roadseg.training import loop
from roadseg.training.question import read_question, resolved_question, train_question
from roadseg.training.run import Run, load_splits
from roadseg.training.store import all_trainings, failure, training_of


@pytest.fixture(autouse=True)
def two_at_a_time(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)


def seeds(recipe, *numbers):
    """An arm's runs, which share the search of the first."""
    return [Run(recipe.changed({"seed": seed}), numbers[0]) for seed in numbers]


def train(arms, prepared, root, say=quiet):
    return train_question(arms, prepared, root / "build/own/runs/question", device=CPU, say=say)


def stored():
    """When each training of the store was finished."""
    return {
        training.key: json.loads(file.read_text())["about"]["finished"]
        if (file := training.folder / "training.json").is_file() else None
        for training in all_trainings()
    }  # fmt: skip


def tree(folder):
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


FILES = ("record.json", "curve.csv", "weights.pt", "counts.npz", "reliability.csv", "predictions.npz")


def test_only_what_the_store_has_not_got_is_trained(prepared, root):
    lines, tested = [], SMALLEST.changed({"test_flip": True})
    arms = {"plain": seeds(SMALLEST, 0, 1), "tested": seeds(tested, 0)}
    records = train(arms, prepared, root, lines.append)
    first = stored()
    assert len(first) == 2  # the arms that differ in testing share theirs
    assert {line.split()[0] for line in lines[:-1]} <= {"plain-s0", "plain-s1", "tested-s0"}
    assert lines[-1].startswith("3 runs: ")
    folder = root / "build/own/runs/question"
    runs = ("plain/s0", "plain/s1", "tested/s0")
    assert tree(folder) == {f"{run}/{file}" for run in runs for file in FILES}
    assert {arm: [r.recipe for r in arm_runs] for arm, arm_runs in records.items()} == {
        arm: [run.recipe for run in arm_runs] for arm, arm_runs in arms.items()
    }
    again = records["tested"][0]
    assert again.about["training"] == records["plain"][0].about["training"]
    assert not np.array_equal(again.counts["test"], records["plain"][0].counts["test"])

    lines.clear()
    shutil.rmtree(folder)
    records = train(arms, prepared, root, lines.append)
    assert stored() == first and lines == ["3 runs: 3 from the store"]
    assert tree(folder) == {f"{run}/{file}" for run in runs for file in FILES}
    np.testing.assert_array_equal(records["tested"][0].counts["test"], again.counts["test"])

    lines.clear()
    more = {"plain": seeds(SMALLEST, 0, 1, 2), "tested": seeds(tested, 0, 1)}
    records = train(more, prepared, root, lines.append)
    later = stored()
    assert len(later) == 3 and first.items() <= later.items()
    assert lines[-1] == "5 runs: 1 trained, 1 scored anew, 3 from the store"
    assert [record.recipe.seed for record in records["plain"]] == [0, 1, 2]


def test_a_run_that_fails_keeps_no_other_from_the_store(prepared, root):
    torch.save([1], root / "other.pt")
    bad = SMALLEST.changed({"pretrained": "file:other.pt"})
    arms = {"first": seeds(bad, 0), "second": seeds(SMALLEST, 0, 1), "third": seeds(bad, 1)}
    folder = root / "build/own/runs/question"
    with pytest.raises(InputError) as caught:
        train(arms, prepared, root)
    message = str(caught.value)
    assert "first-s0: pretrained: file:other.pt: holds list" in message and "third-s1: " in message
    assert "second" not in message and "2 of 4" in message
    assert len(stored()) == 2 and not folder.exists()
    folder.mkdir(parents=True)
    (folder / "old").touch()
    torch.save({}, root / "other.pt")
    with pytest.raises(InputError, match="first-s0: pretrained: file:other.pt: .* weights"):
        train(arms, prepared, root)
    assert tree(folder) == {"old"}  # until all is there
    before, lines = stored(), []
    assert len(train({"second": arms["second"]}, prepared, root, lines.append)["second"]) == 2
    assert stored() == before and lines == ["2 runs: 2 from the store"]
    assert not (folder / "old").exists()
    assert [p.name for p in folder.parent.iterdir()] == ["question"]


def test_a_loss_that_is_not_finite_is_a_result(prepared, root):
    wild, folder = SMALLEST.changed({"lr": 1e30}), root / "build/own/runs/question"
    arms = {"wild": seeds(wild, 0, 1), "tame": seeds(SMALLEST, 0)}
    for again in (False, True):
        lines = []
        records = train(arms, prepared, root, lines.append)
        assert records["wild"] == [None, None] and records["tame"][0].recipe == SMALLEST
        assert any("wild-s1  the loss is not finite" in line for line in lines) != again
        assert tree(folder / "wild") == {"s0/failed.json", "s1/failed.json"}
        for seed in (0, 1):
            place = folder / f"wild/s{seed}"
            assert failure(place).startswith("the loss is not finite at step 2: lr 1e+30")
    assert not failure(folder / "tame/s0") and len(stored()) == 3
    records = train({"wild": seeds(SMALLEST, 0)}, prepared, root)  # under the same name
    assert records["wild"][0] and not failure(folder / "wild/s0")


def test_a_search_tries_each_learning_rate_and_the_best_on_val_trains_all_seeds(prepared, root):
    """The same numbers as a search by hand: three short trainings, then each seed at the best."""
    recipe = TINY.changed({"lr_search": [0.1, 1.0, 10.0], "lr_search_steps": 2, "steps": 4})
    records = train({"searched": seeds(recipe, 0, 1)}, prepared, root)["searched"]
    table = pd.read_csv(root / "build/own/runs/question/searched/search.csv")
    assert list(table.lr) == [0.0001, 0.001, 0.01] and list(table.steps) == [2, 2, 2]
    first = stored()
    assert len(first) == 3 + 2  # trials are those of the first seed
    splits = load_splits(prepared)
    for row in table.itertuples():
        by_hand = TINY.changed({"lr": row.lr, "steps": 2})
        assert training_of(by_hand, splits, CPU).key in first
        _, curve, _ = loop.train(by_hand, splits["train"], splits["val"], device=CPU, say=quiet)
        assert row.val_miou == pytest.approx(curve.val_miou.iloc[-1])
    best = float(table.lr[table.val_miou.idxmax()])
    for record in records:
        assert record.about["lr_used"] == best and record.recipe.lr == 0.001
        assert record.recipe.lr_search == (0.1, 1.0, 10.0)
        # the network that the search led to is that of the recipe with this learning rate
        alone = TINY.changed({"lr": best, "steps": 4, "seed": record.recipe.seed})
        copy = copied(alone, prepared, root / f"alone-{record.recipe.seed}")
        assert copy.about["training"] == record.about["training"]
        np.testing.assert_array_equal(copy.counts["test"], record.counts["test"])
    lines = []
    more = {"searched": seeds(recipe, 0, 1, 2), "fixed": seeds(TINY.changed({"lr": best, "steps": 4}), 0)}
    train(more, prepared, root, lines.append)
    assert len(stored()) == 6 and first.items() <= stored().items()
    assert not any("lr" in line.split()[1] for line in lines)  # no trial is done again


def test_a_learning_rate_that_diverges_is_never_chosen(prepared, root):
    recipe = SMALLEST.changed({"lr_search": [1.0, 1e3], "lr_search_steps": 3, "lr": 1e20})
    lines = []
    assert train({"arm": seeds(recipe, 0)}, prepared, root, lines.append) == {"arm": [None]}
    none = "lr_search: the loss is finite at none of 1e+20, 1e+23"
    assert failure(root / "build/own/runs/question/arm/s0").startswith(none)
    assert any(line.startswith(f"arm-s0  {none}") for line in lines)
    assert len(stored()) == 2  # the trials, and no training at any rate
    lines.clear()
    assert train({"arm": seeds(recipe, 0)}, prepared, root, lines.append) == {"arm": [None]}
    assert len(lines) == 1


# What the pipeline resolves ------------------------------------------------------------------------

QUESTIONS = """\
heads: {asks: 'Which?', networks: [baseline, fcn]}
tricks: {asks: 'What helps?', start: fcn, alone: [flip]}
luck: {asks: 'How much is luck?', start: fcn, noise: [0, 5]}
"""


def test_what_is_resolved_is_what_is_trained(prepared, root):
    study = toy_study(root, prepared, QUESTIONS)
    for question, seeds in (("heads", (0, 1)), ("tricks", (0, 1)), ("luck", (0, 1, 5))):
        content = resolved_question(study, question)
        file = root / f"build/synthetic/questions/{question}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(content))
        arms = read_question("synthetic", question)
        recipes = study.questions[question].arms
        assert {arm: [run.recipe for run in runs] for arm, runs in arms.items()} == {
            arm: [recipe.changed({"seed": seed}) for seed in seeds] for arm, recipe in recipes.items()
        }
        assert {run.search_seed for runs in arms.values() for run in runs} == {0}


def test_another_file_to_start_from_is_another_question(prepared, root):
    tricks, resolved = "start: {set: {pretrained: 'file:start.pt'}}\n", []
    for content in (b"one", b"other"):
        (root / "start.pt").write_bytes(content)
        study = toy_study(root, prepared, QUESTIONS.replace("flip", "start"), tricks)
        resolved.append(resolved_question(study, "tricks"))
    assert resolved[0].keys() == resolved[1].keys() and resolved[0]["fcn"] == resolved[1]["fcn"]
    assert resolved[0]["fcn-start"]["starts_from"] != resolved[1]["fcn-start"]["starts_from"]


def test_a_question_that_is_not_resolved_says_what_to_do(root):
    with pytest.raises(InputError, match="ladder: .* python -m roadseg resolve own"):
        read_question("own", "ladder")
    (root / "build/own/questions").mkdir(parents=True)
    (root / "build/own/questions/ladder.json").write_text("{}")
    with pytest.raises(InputError, match="Did you mean 'ladder'?"):
        read_question("own", "lader")
