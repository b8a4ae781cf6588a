"""What a run starts from, what it shares with equal trainings, and what it leaves behind."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from segmentation_models_pytorch.encoders import get_encoder

from roadseg.config.recipe import Recipe
from roadseg.config.study import ROOT
from roadseg.data.scenes import Scenes
from roadseg.errors import InputError
from roadseg.models.build import build
from roadseg.training import loop as train
from roadseg.training import metrics, weights
from roadseg.training import run as runs
from roadseg.training.weights import failure

CPU = torch.device("cpu")
TINY = Recipe(
    network="fcn8s:tu-test_resnet", steps=3, batch_size=2, precision="fp32", lr=0.001
)  # fmt: skip


def quiet(_):
    pass


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A project's root of its own, for build/ and work/."""
    monkeypatch.setattr(runs, "ROOT", tmp_path)
    monkeypatch.setattr(weights, "ROOT", tmp_path)
    return tmp_path


def run(recipe, prepared, root, arm="arm", say=quiet):
    folder = root / f"build/own/runs/{arm}/s{recipe.seed}"
    return runs.run(recipe, prepared, folder, device=CPU, say=say)


def encoder_of(folder):
    weights = torch.load(folder / "weights.pt", weights_only=True)
    return {k: v for k, v in weights.items() if k.startswith("body.encoder.")}


def test_the_record_reads_back(prepared, root):
    lines = []
    record = run(TINY, prepared, root, say=lines.append)
    folder = root / "build/own/runs/arm/s0"
    assert record.recipe == TINY
    assert record.about["digest"] == TINY.digest
    assert {"device", "precision", "seconds", "torch", "data_digest"} <= set(record.about)
    assert record.counts["val"].shape == (2, 19, 19)
    assert len(lines) == 1 + len(record.curve)
    network = build(TINY.network, 19)
    network.load_state_dict(torch.load(folder / "weights.pt", weights_only=True))
    kept, scenes = [], Scenes.load(prepared, "test")
    counts = train.evaluate(network, scenes, CPU, TINY, lambda *some: kept.append(some))
    best, confidence, labels = (torch.cat(each) for each in zip(*kept, strict=True))
    with np.load(folder / "predictions.npz") as stored:
        np.testing.assert_array_equal(stored["test"], best)
    np.testing.assert_array_equal(counts, record.counts["test"])
    expected = metrics.boundary_sums(best, labels, 19)
    np.testing.assert_array_equal(record.boundary, expected)
    pixels, right, sums = record.reliability
    assert pixels.sum() == counts.sum()
    assert right.sum() == np.trace(counts.sum(0))
    assert sums.sum() == pytest.approx(float(confidence[labels != 255].double().sum()), rel=1e-6)
    assert [p.name for p in folder.parent.iterdir()] == ["s0"]
    json.loads((folder / "record.json").read_text())


def test_a_missing_record_says_how_to_make_it(tmp_path):
    with pytest.raises(InputError, match="holds no finished run. Run 'make report' first."):
        runs.Record.read(tmp_path)


def test_runs_that_differ_in_testing_alone_train_once(prepared, root):
    plain = run(TINY, prepared, root, "plain")
    recipe = TINY.changed({"test_scales": [0.5, 1.0], "test_flip": True})
    lines = []
    tested = run(recipe, prepared, root, "tested", say=lines.append)
    assert "weights of plain-s0: an equal training" in lines
    assert tested.about["weights_of"] == "plain-s0" and plain.about["weights_of"] == ""
    assert tested.about["digest"] == recipe.digest and tested.recipe == recipe
    assert tested.about["seconds"] == plain.about["seconds"]
    assert not np.array_equal(tested.counts["test"], plain.counts["test"])
    alone = run(recipe, prepared, root / "elsewhere", "tested")
    assert alone.about["weights_of"] == ""
    np.testing.assert_array_equal(alone.counts["test"], tested.counts["test"])


@pytest.mark.parametrize("change", [{"seed": 1}, {"lr": 0.002}, {"steps": 2}])
def test_other_settings_train_anew(prepared, root, change):
    run(TINY, prepared, root, "plain")
    assert run(TINY.changed(change), prepared, root, "other").about["weights_of"] == ""


def test_other_code_or_data_train_anew(prepared, root, monkeypatch):
    run(TINY, prepared, root, "plain")
    settings = runs._settings
    monkeypatch.setattr(runs, "_settings", lambda *given: settings(*given) | {"code": "changed"})
    assert run(TINY, prepared, root, "other").about["weights_of"] == ""
    monkeypatch.setattr(runs, "_settings", lambda *given: settings(*given) | {"data_digest": "x"})
    assert run(TINY, prepared, root, "third").about["weights_of"] == ""


def test_a_run_half_removed_is_no_training(prepared, root):
    run(TINY, prepared, root, "plain")
    weights = root / "build/own/runs/plain/s0/weights.pt"
    weights.write_bytes(weights.read_bytes()[:100])
    recipe = TINY.changed({"test_flip": True})
    with pytest.raises(RuntimeError):
        torch.load(weights, weights_only=True)
    assert run(recipe, prepared, root, "tested").about["weights_of"] == ""


def test_drawn_scenes_train_the_encoder_first(prepared, root):
    """The pre-training is kept, and what another arm starts from; the head starts at random."""
    recipe = TINY.changed({"pretrained": "scenes:4", "pretrain_steps": 2, "steps": 1, "lr": 1e-9})
    lines = []
    run(recipe, prepared, root, "first", say=lines.append)
    assert "pre-training: 2 steps on 4 drawn scenes" in lines
    (kept,) = [p.parent for p in (root / "work").glob("_shared/*/weights.pt")]
    first = encoder_of(root / "build/own/runs/first/s0")
    # a learning rate near zero leaves the weights, and batch normalisation's statistics aside
    own = {k: v for k, v in encoder_of(kept).items() if "running" not in k and "num_" not in k}
    for name, value in own.items():
        torch.testing.assert_close(first[name], value, atol=1e-6, rtol=0)
    torch.manual_seed(train.stream(0, "init"))
    fresh = build(TINY.network, 19).state_dict()
    found = torch.load(root / "build/own/runs/first/s0/weights.pt", weights_only=True)
    head = "body.scores.0.weight"
    torch.testing.assert_close(found[head], fresh[head], atol=1e-6, rtol=0)
    lines.clear()
    run(recipe.changed({"flip": 0.5}), prepared, root, "second", say=lines.append)
    assert any(line.startswith("weights of ") for line in lines)
    records = [runs.Record.read(root / f"build/own/runs/{arm}/s0") for arm in ("first", "second")]
    assert records[0].about["start_seconds"] == records[1].about["start_seconds"] > 0
    assert len(list((root / "work").glob("_shared/*/weights.pt"))) == 1


def test_drawn_scenes_are_not_the_study_s(root):
    ours = runs.drawn_scenes(3, (48, 96))
    assert ours.images.shape == (3, 3, 48, 96) and ours.labels.shape == (3, 48, 96)
    again = runs.drawn_scenes(3, (48, 96))  # from work/
    np.testing.assert_array_equal(ours.images, again.images)
    from roadseg.data.synthetic import scene

    assert not np.array_equal(ours.images[0], scene(3, 0, (48, 96))[0])


def test_weights_of_another_study_by_seed(prepared, root):
    donors = {seed: run(TINY.changed({"seed": seed}), prepared, root, "donor") for seed in (0, 1)}
    assert len(donors) == 2
    for seed, donor in ((0, 0), (1, 1)):
        recipe = TINY.changed({"pretrained": "study:own/donor", "pretrained_part": "network",
                               "steps": 1, "lr": 1e-9, "seed": seed})  # fmt: skip
        record = run(recipe, prepared, root, f"heir-{seed}")
        found = encoder_of(root / f"build/own/runs/heir-{seed}/s{seed}")
        name = "body.encoder.model.conv1.weight"
        name = name if name in found else next(k for k in found if k.endswith("weight"))
        wanted = encoder_of(root / f"build/own/runs/donor/s{donor}")[name]
        torch.testing.assert_close(found[name], wanted, atol=1e-6, rtol=0)
        assert record.about["start"]  # the file's digest
    with pytest.raises(InputError, match="study:own/donor: has no run of seed 7, only of 0, 1"):
        runs.check_start(recipe.changed({"seed": 7}))
    with pytest.raises(train.Diverged):
        run(TINY.changed({"seed": 7, "network": "baseline:0.05", "lr": 1e30}), prepared, root, "donor")
    with pytest.raises(InputError, match="study:own/donor: its seed 7 failed: the loss is not finite at step"):
        runs.check_start(recipe.changed({"seed": 7}))


def test_a_pre_training_that_fails_is_named(prepared, root):
    recipe = TINY.changed({"network": "baseline:0.05", "pretrained": "scenes:4", "pretrain_steps": 3, "lr": 1e30})
    with pytest.raises(train.Diverged, match="^baseline:0.05, trained before it: the loss is not finite"):
        run(recipe, prepared, root, "arm")


def test_an_encoder_s_own_state_dict_from_a_file(prepared, root):
    encoder = get_encoder("tu-test_resnet", weights=None)
    torch.save(encoder.state_dict(), root / "encoder.pt")
    recipe = TINY.changed({"pretrained": "file:encoder.pt", "steps": 1, "lr": 1e-9})
    run(recipe, prepared, root, "first")
    found = encoder_of(root / "build/own/runs/first/s0")
    for name, value in encoder.named_parameters():
        torch.testing.assert_close(found[f"body.encoder.{name}"], value.detach(), atol=1e-6, rtol=0)


def test_another_file_of_the_same_name_trains_anew(prepared, root):
    recipe = TINY.changed({"pretrained": "file:encoder.pt", "steps": 1})
    for draw, arm in enumerate(("first", "second")):
        torch.manual_seed(draw)
        torch.save(get_encoder("tu-test_resnet", weights=None).state_dict(), root / "encoder.pt")
        assert run(recipe, prepared, root, arm).about["weights_of"] == ""


def test_published_weights_are_asked_for_by_name(prepared, root, monkeypatch):
    asked = []

    def fake(name, weights):
        asked.append((name, weights))
        if weights == "imagenet":
            return get_encoder(name, weights=None)
        raise OSError("no network")

    monkeypatch.setattr("roadseg.models.get_encoder", lambda name, weights=None: (
        fake(name, weights) if weights else get_encoder(name, weights=None)))  # fmt: skip
    run(TINY.changed({"pretrained": "hub:imagenet", "steps": 1}), prepared, root)
    assert asked == [("tu-test_resnet", "imagenet")]
    with pytest.raises(InputError, match=r"hub:other: no such weights could be loaded for tu-test_resnet"
                       r" \(no network\). Without a network, put"):  # fmt: skip
        run(TINY.changed({"pretrained": "hub:other"}), prepared, root)


def test_weights_that_do_not_fit_are_named(prepared, root):
    torch.save(get_encoder("resnet18", weights=None).state_dict(), root / "other.pt")
    with pytest.raises(
        InputError, match="pretrained: file:other.pt: .* weights of the encoder are missing"
    ):
        run(TINY.changed({"pretrained": "file:other.pt"}), prepared, root)
    (root / "text.pt").write_text("no weights")
    torch.save([1, 2], root / "list.pt")
    with pytest.raises(
        InputError, match="pretrained: file:list.pt: holds list, no weights by name"
    ):
        run(TINY.changed({"pretrained": "file:list.pt"}), prepared, root)
    with pytest.raises(InputError, match="pretrained: file:text.pt: cannot be read as weights"):
        run(TINY.changed({"pretrained": "file:text.pt"}), prepared, root)
    assert not (root / "build/own/runs/arm").exists() or not list(
        (root / "build/own/runs/arm").iterdir()
    )


class Harm:
    def __reduce__(self):
        return (print, ("run by a pickle",))


def test_a_file_of_weights_cannot_run_code(prepared, root, capsys):
    torch.save({"x": Harm()}, root / "harm.pt")
    with pytest.raises(InputError, match="cannot be read as weights"):
        run(TINY.changed({"pretrained": "file:harm.pt"}), prepared, root)
    assert "run by a pickle" not in capsys.readouterr().out


def test_a_teacher_is_the_same_recipe_with_another_network(prepared, root):
    recipe = TINY.changed({"teacher": "fcn8s:tu-resnet10t", "distill_weight": 3.0, "dropout": 0.1,
                           "flip": 0.5})  # fmt: skip
    wanted = runs.teacher_recipe(recipe)
    assert wanted == TINY.changed({"network": "fcn8s:tu-resnet10t", "flip": 0.5})
    lines = []
    run(recipe, prepared, root, "student", say=lines.append)
    assert "the teacher, fcn8s:tu-resnet10t:" in lines
    lines.clear()
    run(recipe.changed({"distill_weight": 5.0}), prepared, root, "again", say=lines.append)
    assert any(line.startswith("weights of ") for line in lines)  # it is trained once


def test_a_residual_baseline_s_encoder_has_its_shortcuts(prepared, root):
    donor = TINY.changed({"network": "baseline:0.05", "residual": True})
    run(donor, prepared, root, "donor")
    heir = donor.changed({"pretrained": "study:own/donor", "steps": 1, "lr": 1e-9})
    run(heir, prepared, root, "heir")
    found, wanted = (
        torch.load(root / f"build/own/runs/{arm}/s0/weights.pt", weights_only=True)
        for arm in ("heir", "donor")
    )
    for name in ("body.blocks.1.0.weight", "body.shortcuts.1.weight"):
        torch.testing.assert_close(found[name], wanted[name], atol=1e-6, rtol=0)
    assert not torch.allclose(found["body.scores.0.weight"], wanted["body.scores.0.weight"])


def test_a_teacher_that_is_an_arm_is_not_trained_again(prepared, root):
    run(TINY.changed({"network": "fcn8s:tu-resnet10t"}), prepared, root, "large")
    recipe = TINY.changed({"teacher": "fcn8s:tu-resnet10t", "distill_weight": 3.0})
    lines = []
    record = run(recipe, prepared, root, "student", say=lines.append)
    assert "weights of large-s0: an equal training" in lines
    assert record.about["start_seconds"] > 0


def test_a_teacher_from_another_study(prepared, root):
    run(TINY.changed({"network": "fcn8s:tu-resnet10t"}), prepared, root, "large")
    recipe = TINY.changed({"teacher": "study:own/large", "distill_weight": 3.0})
    record = run(recipe, prepared, root, "student")
    assert record.about["start"] and not (root / "work/_shared").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pretrained": "file:gone.pt"}, "pretrained: file:gone.pt: no such file."),
        ({"pretrained": "study:own/gone"}, "pretrained: study:own/gone: study 'own' has no trained arm"
         " 'gone'. It has: known. Run 'make report STUDY=own' first."),
        ({"pretrained": "study:none/gone"}, "pretrained: study:none/gone: study 'none' has no trained arm"
         " 'gone'. It has none."),
        ({"pretrained": "hub:imgnet"}, "pretrained: hub:imgnet: tu-test_resnet has no such weights."),
        ({"teacher": "fcn8s:resnet19", "distill_weight": 1.0}, "teacher: network 'fcn8s:resnet19': unknown"
         " encoder 'resnet19'. Did you mean"),
        ({"teacher": "study:own/gone", "distill_weight": 1.0}, "teacher: study:own/gone: study 'own' has no"),
        ({"teacher": "fcn8s:tu-test_resnet", "distill_weight": 1.0}, "teacher: 'fcn8s:tu-test_resnet' is the"
         " network itself; name a larger one."),
    ],
)  # fmt: skip
def test_what_is_not_there_is_named_before_anything_trains(root, changes, message):
    (root / "build/own/runs/known/s0").mkdir(parents=True)
    (root / "build/own/runs/known/s0/weights.pt").touch()
    with pytest.raises(InputError) as caught:
        runs.check_start(TINY.changed(changes))
    assert str(caught.value).startswith(message)


SEVERAL = """
import sys
from pathlib import Path
import torch
from roadseg.training import run as runs, weights
from roadseg.config.recipe import Recipe
prepared, target, steps, lr = sys.argv[1:]
runs.ROOT = weights.ROOT = Path(target).parent  # work/ is there
recipes = [Recipe(network=sys.modules["__main__"].__dict__.get("n", "fcn8s:tu-test_resnet"), seed=s,
                  steps=int(steps), batch_size=2, precision="fp32", lr=float(lr)) for s in (0, 1, 2)]
for record in runs.run_all(recipes, Path(prepared), Path(target), device=torch.device("cpu")):
    print("done", record.recipe.seed, record.about["threads"]) if record else print("failed")
"""


def several(prepared, target, steps=3, lr=0.001, before=""):
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", before + SEVERAL, prepared, target, str(steps), str(lr)],
        cwd=ROOT, capture_output=True, text=True, timeout=300,
    )  # fmt: skip


def test_seeds_at_the_same_time_give_what_each_alone_gives(prepared, root, record_property):
    """In processes of one thread each, side by side, the counts are those of a run by itself."""
    result = several(prepared, root / "build/own/runs/side")
    assert result.returncode == 0, result.stderr
    assert "seed 0  epoch    1/1" in result.stdout and "seed 2  fcn8s:tu-" in result.stdout
    assert [line for line in result.stdout.splitlines() if line.startswith("done")] == [
        f"done {seed} 1" for seed in (0, 1, 2)
    ]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for seed in (0, 2):
            alone = run(TINY.changed({"seed": seed}), prepared, root / "alone", "side")
            beside = runs.Record.read(root / f"build/own/runs/side/s{seed}")
            np.testing.assert_array_equal(alone.counts["test"], beside.counts["test"])
            assert alone.recipe == beside.recipe
        record_property("tried", json.dumps(
            ["Same again", "a run by itself, and beside two others in processes", 2, "equal counts"]))  # fmt: skip
    finally:
        torch.set_num_threads(threads)


def test_a_loss_that_is_not_finite_is_a_result(prepared, root):
    result = several(prepared, root / "side", lr=1e30, before="n = 'baseline:0.1'\n")
    assert result.returncode == 0 and result.stdout.count("failed\n") == 3
    told = r"the loss is not finite at step 2: lr 1e\+30, images scene_00004, "
    assert re.search("seed 0  " + told, result.stdout)
    for seed in (0, 1, 2):
        left = list((root / f"side/s{seed}").iterdir())
        assert [file.name for file in left] == ["failed.json"]
        assert failure(root / f"side/s{seed}").startswith("the loss is not finite at step 2: lr 1e+30")
        with pytest.raises(InputError, match="holds no finished run"):
            runs.Record.read(root / f"side/s{seed}")
    assert not list((root / "work/own").glob("*/*"))


def test_a_run_that_comes_to_its_end_takes_the_place_of_one_that_failed(prepared, root):
    recipes, folder = [TINY.changed({"network": "baseline:0.05", "lr": lr}) for lr in (1e30, 0.001)], root / "runs/arm"
    assert runs.run_all(recipes[:1], prepared, folder, device=CPU, say=quiet) == [None]
    assert failure(folder / "s0")
    (record,) = runs.run_all(recipes[1:], prepared, folder, device=CPU, say=quiet)
    assert record and not failure(folder / "s0")
    spent = json.loads((folder / "spent.json").read_text())
    assert spent["seconds"] > record.about["seconds"] > 0 and set(spent) == {"seconds", "joules"}


def test_what_a_killed_process_left_is_removed(prepared, root):
    folder = root / "runs/arm"
    gone, alive = folder / "s0.4194999.partial", folder / f"s0.{os.getppid()}.partial"
    for left in (gone, alive, folder / "s1.4194999.partial"):
        left.mkdir(parents=True)
    runs.run(TINY, prepared, folder / "s0", device=CPU, say=quiet)
    assert sorted(p.name for p in folder.iterdir()) == sorted(["s0", alive.name, "s1.4194999.partial"])


def test_a_killed_process_is_told(prepared, root):
    killer = "import os, signal\nfrom roadseg import runs as r\n" + (
        "def die(*_, **__): os.kill(os.getpid(), signal.SIGKILL)\nr.run = die\n"
    )
    result = several(prepared, root / "side", before=killer)
    assert result.returncode != 0
    assert "a training process was killed, most often for want of memory (lower" in result.stderr


def test_a_search_tries_each_learning_rate_and_the_best_on_val_trains_all_seeds(
    prepared, root, monkeypatch
):
    """The same numbers as a search by hand: three short trainings, then each seed at the best."""
    monkeypatch.setattr(runs, "_at_once", in_turn)
    recipe = TINY.changed({"lr_search": [0.1, 1.0, 10.0], "lr_search_steps": 2, "steps": 4})
    folder = root / "build/own/runs/searched"
    recipes = [recipe.changed({"seed": seed}) for seed in (0, 1)]
    records = runs.run_all(recipes, prepared, folder, device=CPU, say=quiet)
    table = pd.read_csv(folder / "search.csv")
    assert list(table.lr) == [0.0001, 0.001, 0.01] and list(table.steps) == [2, 2, 2]
    splits = {split: Scenes.load(prepared, split) for split in ("train", "val")}
    for row in table.itertuples():
        by_hand = TINY.changed({"lr": row.lr, "steps": 2})
        _, curve, _ = train.train(by_hand, splits["train"], splits["val"], device=CPU, say=quiet)
        assert row.val_miou == pytest.approx(curve.val_miou.iloc[-1])
    best = float(table.lr[table.val_miou.idxmax()])
    for record in records:
        assert record.about["lr_used"] == best and record.recipe.lr == 0.001
        assert record.recipe.lr_search == (0.1, 1.0, 10.0)
        alone = TINY.changed({"lr": best, "steps": 4, "seed": record.recipe.seed})
        found = runs.run(alone, prepared, root / "build/own/runs/alone/s0", device=CPU, say=quiet)
        # the network that the search led to is that of the recipe with this learning rate
        assert found.about["weights_of"] == f"searched-s{record.recipe.seed}"
        np.testing.assert_array_equal(found.counts["test"], record.counts["test"])


def in_turn(jobs, device, say):
    return [job(say=say) for job in jobs.values()]


def test_a_trial_keeps_the_schedule_s_shape():
    recipe = TINY.changed({
        "lr_search": [4.0, 1.0], "lr_search_steps": 10, "steps": 100, "schedule": "poly",
        "warmup_steps": 20, "test_flip": True,
    })  # fmt: skip
    short = {"steps": 10, "warmup_steps": 2, "schedule": "poly"}
    expected = {lr: TINY.changed({**short, "lr": lr}) for lr in (0.001, 0.004)}
    assert runs.trials(recipe) == expected
    assert list(runs.trials(recipe)) == [0.001, 0.004]
    assert runs.trials(TINY) == {}


def test_a_learning_rate_that_diverges_is_never_chosen(prepared, root, monkeypatch):
    monkeypatch.setattr(runs, "_at_once", in_turn)
    recipe = TINY.changed({
        "network": "baseline:0.05", "lr_search": [1.0, 1000.0], "lr_search_steps": 4, "lr": 1e20,
    })  # fmt: skip
    lines = []
    assert runs.run_all([recipe], prepared, root / "runs/arm", device=CPU, say=lines.append) == [None]
    assert any("the loss is not finite" in line for line in lines)
    none = "lr_search: the loss is finite at none of 1e+20, 1e+23"
    assert lines[-1].startswith(none) and failure(root / "runs/arm/s0").startswith(none)
    trial = lambda trial, *_, say: (0.1 if trial.lr == 1e20 else np.nan, 1.0)  # noqa: E731
    monkeypatch.setattr(runs, "_trial", trial)
    table = runs.search_lr(recipe, prepared, root / "runs", device=CPU, say=quiet)
    assert table.lr[table.val_miou.idxmax()] == 1e20


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_gpu_trains_too(prepared, tmp_path):
    recipe = TINY.changed({"precision": "auto"})
    record = runs.run(recipe, prepared, tmp_path / "runs/arm/s0", say=quiet)
    assert record.about["peak_memory_mib"] > 0 and np.isfinite(record.curve.loss).all()
