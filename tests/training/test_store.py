"""Under which keys trainings and scores are kept, and what happens to them there."""

import dataclasses
import json
import os
import pickle
import shutil

import numpy as np
import pytest
import torch
from filelock import FileLock
from toys import CPU, SMALLEST, TINY, copied, done

from roadseg.config.recipe import DEFAULTS, Recipe
from roadseg.errors import InputError
from roadseg.training import store
from roadseg.training.device import precision_on
from roadseg.training.loop import Diverged
from roadseg.training.run import load_splits
from roadseg.training.store import (
    Record,
    all_trainings,
    export_failure,
    failure,
    prune,
    scores_decided_by,
    training_of,
)


@pytest.fixture
def splits(prepared):
    return load_splits(prepared)


def keys(recipe, splits, device=CPU):
    training = training_of(recipe, splits, device)
    decided_by = scores_decided_by(recipe, splits["val"], splits["test"], device)
    return training.key, store.key_of(decided_by)


# What changes, and whether that is another training key and another scores key.
CHANGES = {
    "seed": ({"seed": 1}, True, False),
    "learning rate": ({"lr": 0.002}, True, False),
    "steps": ({"steps": 4}, True, False),
    "network": ({"network": "baseline:0.05"}, True, False),
    "augmentation": ({"flip": 0.5}, True, False),
    "pre-training": ({"pretrained": "scenes:4"}, True, False),
    "teacher": ({"teacher": "baseline:0.05", "distill_weight": 1.0}, True, False),
    "precision": ({"precision": "bf16"}, True, True),
    "sizes of testing": ({"test_scales": [0.5, 1.0]}, False, True),
    "mirrored testing": ({"test_flip": True}, False, True),
    "a search, by the rate it chose": ({"lr_search": [0.5, 1.0], "lr_search_steps": 2}, False, False),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_a_hyperparameter_changes(splits, name):
    change, training, scores = CHANGES[name]
    before, after = keys(TINY, splits), keys(TINY.changed(change), splits)
    assert (before[0] != after[0], before[1] != after[1]) == (training, scores)


def other(split, **changes):
    return dataclasses.replace(split, digest="f" * 64, **changes)


def fewer(split):
    return dataclasses.replace(
        split, images=split.images[1:], labels=split.labels[1:], names=split.names[1:]
    )


@pytest.mark.parametrize(
    ("name", "change", "training", "scores"),
    [
        ("train", other, True, False),
        ("train", fewer, True, False),
        ("val", other, True, True),
        ("val", fewer, True, True),
        ("test", other, False, True),
        ("test", fewer, False, True),
    ],
)
def test_what_other_images_change(splits, name, change, training, scores):
    before, after = keys(TINY, splits), keys(TINY, {**splits, name: change(splits[name])})
    assert (before[0] != after[0], before[1] != after[1]) == (training, scores)


@pytest.mark.parametrize(
    ("name", "value", "training", "scores"),
    [
        ("TRAINING_CODE", "other", True, False),
        ("EVALUATION_CODE", "other", False, True),
        ("version", lambda name: "0.0.0" if name == "torch" else "1.0", True, False),
    ],
)
def test_what_other_code_changes(splits, monkeypatch, name, value, training, scores):
    before = keys(TINY, splits)
    monkeypatch.setattr(store, name, value)
    after = keys(TINY, splits)
    assert (before[0] != after[0], before[1] != after[1]) == (training, scores)


def test_each_version_decides(splits, monkeypatch):
    all_keys = set()
    for changed in (None, *store.VERSIONS):
        monkeypatch.setattr(store, "version", lambda name, c=changed: "2" if name == c else "1")
        all_keys.add(keys(TINY, splits)[0])
    assert len(all_keys) == 5


def test_a_key_is_of_what_it_is_made_from_in_any_order():
    assert store.key_of({"a": 1, "b": [2]}) == store.key_of({"b": [2], "a": 1})
    assert store.key_of({"a": 1}) != store.key_of({"a": 2})


def test_the_code_that_trained_last_comes_first(splits, root, monkeypatch):
    keys_of = {}
    for code, seconds in (("one", 30), ("two", 10), ("three", 20)):
        monkeypatch.setattr(store, "TRAINING_CODE", code)
        training = training_of(TINY, splits, CPU)
        training.keep_failure(TINY, "by hand")
        os.utime(training.folder, (seconds, seconds))
        keys_of[code] = {training.key_without_code: training}
    assert store.trainings_by_code() == keys_of
    assert list(store.trainings_by_code()) == ["one", "three", "two"]


def test_weights_that_would_run_code_are_not_loaded(splits, root):
    training = training_of(TINY, splits, CPU)
    training.folder.mkdir(parents=True)
    torch.save(Recipe(), training.folder / "weights.pt")
    with pytest.raises(pickle.UnpicklingError):
        training.network(TINY, CPU)


def test_every_hyperparameter_is_in_one_key_or_both(splits):
    """One that is added and forgotten would be the same run as without it."""
    values = {int: 5, float: 0.625, bool: True, tuple: [0.625], str: None}
    texts = {"network": "baseline:0.05", "pretrained": "scenes:4", "pretrained_part": "network",
             "optimizer": "adamw", "schedule": "poly", "teacher": "baseline:0.1", "precision": "bf16"}  # fmt: skip
    beside = {
        "poly_power": {"schedule": "poly"}, "cycles": {"schedule": "cosine"},
        "ohem_kept": {"ohem_threshold": 0.5}, "pretrained_part": {"pretrained": "scenes:4"},
        "pretrain_steps": {"pretrained": "scenes:4"},
        "freeze_stages": {"pretrained": "scenes:4"}, "freeze_norm": {"pretrained": "scenes:4"},
        "teacher": {"distill_weight": 1.0}, "distill_weight": {"teacher": "baseline:0.1"},
        "distill_temperature": {"teacher": "baseline:0.1", "distill_weight": 1.0},
        "batch_norm": {"network": "baseline"}, "residual": {"network": "baseline"},
    }  # fmt: skip
    large = {"scale_jitter": 2.0, "size_jitter": 2.0, "warmup_steps": 2}
    for name, default in DEFAULTS.items():
        if name in ("lr_search", "lr_search_steps"):
            continue
        value = large.get(name) or texts.get(name) or values[type(default)]
        plain = TINY.changed(beside.get(name, {})) if name not in ("teacher", "distill_weight") else TINY
        changed = TINY.changed({**beside.get(name, {}), name: value})
        assert keys(plain, splits) != keys(changed, splits), name


def test_precision_counts_by_what_it_comes_to(splits, monkeypatch):
    resolved = precision_on(CPU)
    (unlike,) = {"bf16", "fp32"} - {resolved}
    auto = keys(TINY.changed({"precision": "auto"}), splits)
    assert auto == keys(TINY.changed({"precision": resolved}), splits)
    apart = keys(TINY.changed({"precision": unlike}), splits)
    assert auto[0] != apart[0] and auto[1] != apart[1]


def test_device_and_threads_are_in_neither(splits):
    threads, before = torch.get_num_threads(), keys(TINY, splits)
    torch.set_num_threads(threads + 1)
    try:
        assert keys(TINY, splits) == before == keys(TINY, splits, torch.device("cuda"))
    finally:
        torch.set_num_threads(threads)


def test_a_file_that_a_recipe_names_counts_by_its_content(splits, root):
    recipe, all_keys = TINY.changed({"pretrained": "file:start.pt"}), []
    for content in (b"one", b"other", b"one"):
        (root / "start.pt").write_bytes(content)
        all_keys.append(keys(recipe, splits)[0])
    assert all_keys[0] == all_keys[2] != all_keys[1]
    (root / "start.pt").unlink()
    with pytest.raises(InputError, match="file:start.pt: no such file"):
        keys(recipe, splits)


def test_what_stands_in_the_folder_of_another_key_is_not_taken(prepared, splits, root):
    """Copied there by hand, or named so."""
    done(SMALLEST, prepared)
    first, second = (training_of(SMALLEST.changed({"seed": s}), splits, CPU) for s in (0, 1))
    assert first.is_whole and not second.is_whole
    shutil.copytree(first.folder, second.folder)
    assert not second.is_whole and second.about() is None
    assert [training.key for training in all_trainings()] == [first.key]
    first.keep_failure(SMALLEST, "by hand")
    shutil.rmtree(second.folder)
    shutil.copytree(first.folder, second.folder)
    assert not second.is_whole
    with pytest.raises(Diverged, match="by hand"):
        assert first.is_whole


def test_in_a_copy_that_dvc_works_in_the_store_is_the_project_s(tmp_path, monkeypatch, root):
    assert store.runs_folder() == root / "work/runs"
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "project"))
    assert store.runs_folder() == tmp_path / "project/work/runs"


def test_a_copy_reads_back(prepared, splits, root):
    recipe = SMALLEST.changed({"test_flip": True})
    done(recipe, prepared)
    training = training_of(recipe, splits, CPU)
    record = copied(recipe, prepared, root / "out")
    assert record.recipe == recipe and record.about["lr_used"] == recipe.lr
    assert record.about["training"] == training.key and record.about["digest"] == recipe.digest
    assert record.counts.keys() == {"val", "test"} and record.counts["test"].shape == (4, 19, 19)
    assert record.counts["test"].dtype == record.counts["val"].dtype == np.int64
    assert record.boundary.shape == (4, 3, 19) and record.reliability.shape[0] == 3
    assert list(record.curve) == ["step", "loss", "lr", "val_miou"]
    assert {file.name for file in (root / "out").iterdir()} == {
        "record.json", "curve.csv", "weights.pt", "counts.npz", "reliability.csv", "predictions.npz",
    }  # fmt: skip
    content = json.loads((training.folder / "training.json").read_text())
    assert content["decided_by"] == training.decided_by
    assert content["about"].items() <= record.about.items()
    assert content["recipe"] == json.loads(json.dumps(dataclasses.asdict(SMALLEST)))
    assert not failure(root / "out")


def test_a_failure_is_reported_and_is_no_record(tmp_path):
    assert failure(tmp_path) == ""
    with pytest.raises(InputError, match="holds no finished run. Run 'make report' first."):
        Record.read(tmp_path)
    export_failure(SMALLEST, "the loss is not finite", tmp_path)
    assert failure(tmp_path) == "the loss is not finite"
    with pytest.raises(InputError, match="holds no finished run"):
        Record.read(tmp_path)


def test_pruning_removes_what_is_not_kept(prepared, splits, root):
    recipes = [SMALLEST.changed({"seed": seed}) for seed in (0, 1)]
    for recipe in recipes:
        done(recipe, prepared)
    diverging = SMALLEST.changed({"lr": 1e30})
    with pytest.raises(Diverged):
        done(diverging, prepared)
    first, second, third = (training_of(r, splits, CPU) for r in (*recipes, diverging))
    assert {t.key for t in all_trainings()} == {first.key, second.key, third.key}
    size = sum(
        file.stat().st_size for t in (second, third) for file in t.folder.rglob("*") if file.is_file()
    )
    assert prune(lambda training: training.key == first.key, lambda _: True, {}) == (2, size)
    assert [t.key for t in all_trainings()] == [first.key]
    assert not second.folder.exists() and first.is_whole
    abandoned = first.folder.with_name("0123456789ab")
    abandoned.mkdir()
    (abandoned / "step-0000001-x.pt").write_bytes(b"12345")
    assert prune(lambda _: True, lambda _: True, {}) == (0, 0)
    with FileLock(f"{abandoned}.lock"):
        assert prune(lambda _: True, lambda _: False, {}) == (0, 0)
    assert prune(lambda _: True, lambda _: False, {}) == (1, 5) and not abandoned.exists()
    assert done(recipes[0], prepared) == "stored" and done(recipes[1], prepared) == "trained"


def test_pruning_removes_old_scores_and_what_killed_processes_left(prepared, splits, root):
    done(SMALLEST, prepared)
    training = training_of(SMALLEST, splits, CPU)
    (scores,) = training.folder.glob("scores/*")
    old = scores.with_name("0123456789ab")
    gone, alive = (
        training.folder.with_name(f"{training.key}.{pid}.partial") for pid in (4194999, os.getpid())
    )
    for folder in (old, gone, alive):
        folder.mkdir()
        (folder / "file").write_bytes(b"123")
    assert prune(lambda _: True, lambda _: True, {}) == (0, 3) and alive.exists() and old.exists()
    assert not gone.exists()
    assert prune(lambda _: True, lambda _: True, {training.key: {scores.name}}) == (0, 3)
    assert not old.exists() and scores.exists() and done(SMALLEST, prepared) == "stored"


def test_a_record_under_another_key_is_a_record_of_that(prepared, splits, root, monkeypatch):
    """With files that are links to those of the first, which stays as it is."""
    done(SMALLEST, prepared)
    old = training_of(SMALLEST, splits, CPU)
    before = (old.folder / "training.json").read_text()
    monkeypatch.setattr(store, "TRAINING_CODE", "other")
    new = training_of(SMALLEST, splits, CPU)
    assert new.key != old.key
    shutil.copytree(old.folder, new.folder, copy_function=os.link)
    store.rewrite_key(new.folder, new.decided_by, adopted_from=old.key)
    assert new.is_whole and old.is_whole and (old.folder / "training.json").read_text() == before
    assert new.about() == old.about() | {
        "training": new.key, "code": "other", "adopted_from": old.key,
    }  # fmt: skip
    assert done(SMALLEST, prepared) == "stored"
