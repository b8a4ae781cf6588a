"""One run: trained and scored once, found again, and what of it is done anew if a part is lost."""

import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from toys import (
    CPU,
    SMALLEST,
    TINY,
    Process,
    copied,
    done,
    give_own_root,
    quiet,
    run,
    set_up,
    train_arms,
)

from roadseg.data.scenes import Scenes
from roadseg.errors import InputError
from roadseg.models.build import build
from roadseg.training import loop, store
from roadseg.training import run as runs
from roadseg.training.evaluate import evaluate
from roadseg.training.files import write_whole
from roadseg.training.run import Run, load_splits, train_or_load
from roadseg.training.score import boundary_sums
from roadseg.training.store import Record, training_of


@pytest.fixture(autouse=True)
def nothing_left():
    yield
    Process.kill_all()


def place_of(recipe, prepared):
    return training_of(recipe, load_splits(prepared), CPU)


def test_a_record_is_what_its_weights_come_to(prepared, root):
    lines = []
    record = run(TINY, prepared, root, say=lines.append)
    folder = root / "build/own/runs/question/arm/s0"
    assert record.recipe == TINY and record.about["digest"] == TINY.digest
    assert {"device", "threads", "precision", "torch", "data_digest"} <= set(record.about)
    assert record.about["seconds"] > 0 == record.about["start_seconds"]
    assert len(lines) == 1 + len(record.curve)
    network = build(TINY.network, 19)
    network.load_state_dict(torch.load(folder / "weights.pt", weights_only=True))
    kept, scenes = [], Scenes.load(prepared, "test")
    counts = evaluate(network, scenes, CPU, **TINY.testing, keep=lambda *some: kept.append(some))
    best, confidence, labels = (torch.cat(each) for each in zip(*kept, strict=True))
    with np.load(folder / "predictions.npz") as stored:
        np.testing.assert_array_equal(stored["test"], best)
    np.testing.assert_array_equal(counts, record.counts["test"])
    val = evaluate(network, Scenes.load(prepared, "val"), CPU, **TINY.testing)
    np.testing.assert_array_equal(val, record.counts["val"])
    np.testing.assert_array_equal(record.boundary, boundary_sums(best, labels, 19))
    pixels, right, sums = record.reliability
    assert pixels.sum() == counts.sum() and right.sum() == np.trace(counts.sum(0))
    assert sums.sum() == pytest.approx(float(confidence[labels != 255].double().sum()), rel=1e-6)


def test_runs_that_differ_in_testing_alone_train_once(prepared, root, tmp_path, monkeypatch):
    recipe = TINY.changed({"test_scales": [0.5, 1.0], "test_flip": True})
    assert [done(r, prepared) for r in (TINY, recipe, TINY, recipe)] == [
        "trained", "scored", "stored", "stored",
    ]  # fmt: skip
    plain, tested = copied(TINY, prepared, root / "plain"), copied(recipe, prepared, root / "tested")
    assert tested.recipe == recipe and tested.about["digest"] == recipe.digest
    for name in ("training", "seconds", "finished", "weights"):
        assert tested.about[name] == plain.about[name]
    assert not np.array_equal(tested.counts["test"], plain.counts["test"])
    give_own_root(monkeypatch, tmp_path / "elsewhere")
    assert done(recipe, prepared) == "trained"
    alone = copied(recipe, prepared, root / "alone")
    np.testing.assert_array_equal(alone.counts["test"], tested.counts["test"])


def flipped(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def cut(file):
    os.truncate(file, file.stat().st_size // 2)


SPOILT = {
    "weights cut short": ("weights.pt", cut, "trained"),
    "a bit of the weights": ("weights.pt", flipped, "trained"),
    "no weights": ("weights.pt", Path.unlink, "trained"),
    "no curve": ("curve.csv", Path.unlink, "trained"),
    "no record": ("training.json", Path.unlink, "trained"),
    "a record cut short": ("training.json", cut, "trained"),
    "an empty record": ("training.json", lambda file: file.write_text(""), "trained"),
    "no folder": (".", shutil.rmtree, "trained"),
    "no counts": ("scores/*/counts.npz", Path.unlink, "scored"),
    "no predictions": ("scores/*/predictions.npz", Path.unlink, "scored"),
    "no scores": ("scores", shutil.rmtree, "scored"),
}


@pytest.fixture(scope="module")
def stored(prepared, tmp_path_factory):
    """A store with one run, to be copied."""
    with pytest.MonkeyPatch.context() as patch:
        root = give_own_root(patch, tmp_path_factory.mktemp("stored"))
        done(SMALLEST, prepared)
    return root / "work"


@pytest.mark.parametrize("name", SPOILT)
def test_what_is_lost_or_altered_is_made_again(prepared, root, stored, name):
    part, spoil, expected = SPOILT[name]
    shutil.copytree(stored, root / "work")
    assert done(SMALLEST, prepared) == "stored"
    before = copied(SMALLEST, prepared, root / "before")
    folder = place_of(SMALLEST, prepared).folder
    spoil(next(folder.glob(part)) if "*" in part else folder / part)
    splits = load_splits(prepared)
    has = {"trained": "nothing", "scored": "weights"}[expected]
    assert runs.progress(Run(SMALLEST), splits, CPU) == has
    assert done(SMALLEST, prepared) == expected
    assert runs.progress(Run(SMALLEST), splits, CPU) == "all"
    after = copied(SMALLEST, prepared, root / "after")
    np.testing.assert_array_equal(after.counts["test"], before.counts["test"])
    assert after.about["weights"] == before.about["weights"]


@pytest.mark.parametrize("moment", ["curve.csv", "weights.pt", "training.json", "after"])
def test_killed_while_a_training_is_written_it_is_written_again(
    prepared, root, monkeypatch, moment
):
    """Its checkpoints are there until all of it is."""
    monkeypatch.setattr("roadseg.training.checkpoints.MIN_PAUSE", 0)
    place = place_of(TINY, prepared)

    class Killed(BaseException):
        pass

    def write(file, content):
        if file.name == moment:
            raise Killed
        write_whole(file, content)
        if file.name == "training.json" and moment == "after":
            raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(store, "write_whole", write)
        train_or_load(TINY, load_splits(prepared), CPU, quiet)
    assert list(place.folder.glob("step-*.pt")) and place.is_whole == (moment == "after")
    lines = []
    _, trained = train_or_load(TINY, load_splits(prepared), CPU, lines.append)
    assert trained == (moment != "after")
    assert any("goes on after step" in line for line in lines) == trained
    expected, _, _ = loop.train(TINY, *list(load_splits(prepared).values())[:2], device=CPU, say=quiet)
    weights = place.network(TINY, CPU).state_dict()
    assert all(torch.equal(weights[name], value) for name, value in expected.state_dict().items())
    assert not trained or not list(place.folder.glob("step-*.pt"))


def test_scores_are_written_once_by_two_that_come_at_once(prepared, root, monkeypatch):
    """Whoever waited for a training comes to its scores while the other one writes them."""
    splits = load_splits(prepared)
    training, _ = train_or_load(SMALLEST, splits, CPU, quiet)
    first = Process(root, score_slowly, root, prepared)
    first.until("scoring")
    assert not runs.ensure_scored(SMALLEST, training, splits, CPU)
    assert first.end()[0] == 0


def score_slowly(root, prepared):
    set_up(root)
    score = runs.score

    def slow(*arguments, **testing):
        print("scoring")
        time.sleep(1)
        return score(*arguments, **testing)

    runs.score = slow
    done(SMALLEST, prepared)


def test_alone_or_beside_others_it_comes_to_the_same(prepared, root, tell):
    """In processes of one thread each, side by side, the counts are those of a run by itself."""
    recipes = [TINY.changed({"seed": seed}) for seed in (0, 1)]
    assert Process(root, train_arms, root, prepared, {"arm": recipes}).end()[0] == 0
    for recipe in recipes:
        beside = copied(recipe, prepared, root / "beside")
        shutil.rmtree(place_of(recipe, prepared).folder)
        assert done(recipe, prepared) == "trained"
        alone = copied(recipe, prepared, root / "alone")
        assert alone.about["weights"] == beside.about["weights"]
        np.testing.assert_array_equal(alone.counts["test"], beside.counts["test"])
        assert beside.about["threads"] == 1
    tell("Same again", "a run by itself, and beside another in processes", 2, "equal counts")


# What may run out ----------------------------------------------------------------------------------


@pytest.mark.parametrize("limited", ["a batch", "the scores"])
def test_want_of_memory_says_what_to_lower(prepared, root, monkeypatch, limited, tell):
    """A real one: torch asks for more than the process may have."""
    large = (1 << 50,)
    if limited == "a batch":
        monkeypatch.setattr(loop, "augment", lambda *_, **__: torch.empty(large))
    else:
        monkeypatch.setattr(runs, "score", lambda *_, **__: torch.empty(large))
    with pytest.raises(InputError, match="out of memory with batch_size [28] and images of 48 x 96: lower"):
        done(SMALLEST, prepared)
    assert bool(list((root / "work").rglob("weights.pt"))) == (limited == "the scores")
    assert not list((root / "work").rglob("scores/*"))
    tell("Faults", f"no memory for {limited}", 1, "batch, size and what to lower are named")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_gpu_trains_too(prepared, root):
    recipe, device = TINY.changed({"precision": "auto"}), torch.device("cuda")
    assert runs.run_and_score(Run(recipe), prepared, device, quiet) == "trained"
    (root / "out").mkdir()
    runs.write_out(Run(recipe), prepared, device, root / "out")
    record = Record.read(root / "out")
    assert record.about["peak_memory_mib"] > 0 and np.isfinite(record.curve.loss).all()
