"""Where a training starts from: drawn scenes, files, other studies, and teachers."""

import pytest
import torch
from segmentation_models_pytorch.encoders import get_encoder
from toys import CPU, SMALLEST, TINY, done, run, weights_of

from roadseg.errors import InputError
from roadseg.models.build import build
from roadseg.training import loop
from roadseg.training.loop import Diverged
from roadseg.training.run import load_splits
from roadseg.training.store import all_trainings, export_failure, training_of
from roadseg.training.warm_start import check_start, teacher_recipe

# A learning rate near zero leaves the weights, and batch normalisation's statistics aside.
STAYING = {"steps": 1, "lr": 1e-9}


def encoder_of(weights):
    return {
        k: v for k, v in weights.items()
        if k.startswith("body.encoder.") and "running" not in k and "num_" not in k
    }  # fmt: skip


def assert_close(weights, expected):
    assert weights.keys() == expected.keys() and weights
    for name, value in expected.items():
        torch.testing.assert_close(weights[name], value, atol=1e-6, rtol=0)


def test_synthetic_scenes_train_the_encoder_first(prepared, root):
    """The pre-training is kept, and what another arm starts from; the head starts at random."""
    recipe = TINY.changed({"pretrained": "scenes:4", "pretrain_steps": 2, **STAYING})
    first = run(recipe, prepared, root, "first")
    study_digest = load_splits(prepared)["train"].digest
    (kept,) = [t for t in all_trainings() if t.decided_by["train"] != study_digest]
    weights = torch.load(kept.folder / "weights.pt", weights_only=True)
    first_weights = weights_of(root, "first")
    assert_close(encoder_of(first_weights), encoder_of(weights))
    torch.manual_seed(loop.stream(0, "init"))
    fresh = build(TINY.network, 19).state_dict()
    head = "body.scores.0.weight"
    torch.testing.assert_close(first_weights[head], fresh[head], atol=1e-6, rtol=0)
    before = kept.about()["finished"]
    second = run(recipe.changed({"flip": 0.5}), prepared, root, "second")
    assert kept.about()["finished"] == before and len(list(all_trainings())) == 3
    assert first.about["start_seconds"] == second.about["start_seconds"] > 0
    assert first.about["start_seconds"] == kept.about()["seconds"]


def test_a_pre_training_that_fails_is_named_and_is_a_result(prepared, root, monkeypatch):
    change = {"pretrained": "scenes:4", "pretrain_steps": 3, "lr": 1e30}
    for _ in range(2):
        with pytest.raises(Diverged, match="^baseline:0.05, trained before it: the loss is not finite"):
            done(SMALLEST.changed(change), prepared)
        monkeypatch.setattr("roadseg.training.run.train", None)
    assert len(list(all_trainings())) == 2


def test_weights_of_another_study_by_seed(prepared, root):
    for seed in (0, 1):
        run(SMALLEST.changed({"seed": seed}), prepared, root, "donor")
    for seed in (0, 1):
        recipe = SMALLEST.changed(
            {"pretrained": "study:own/donor", "pretrained_part": "network", "seed": seed, **STAYING}
        )
        record = run(recipe, prepared, root, "heir")
        assert_close(weights_of(root, "heir", seed), weights_of(root, "donor", seed))
        assert record.about["start"]  # the file's digest
    with pytest.raises(InputError, match="study:own/donor: has no run of seed 7, only of 0, 1"):
        check_start(recipe.changed({"seed": 7}))
    folder = root / "build/own/runs/question/donor/s7"
    folder.mkdir()
    export_failure(SMALLEST, "the loss is not finite", folder)
    with pytest.raises(InputError, match="study:own/donor: its seed 7 failed: the loss is not finite"):
        check_start(recipe.changed({"seed": 7}))


def test_published_weights_are_asked_for_by_name(prepared, root, monkeypatch):
    requested, donor = [], get_encoder("tu-test_resnet", weights=None)

    def fake(name, weights):
        requested.append((name, weights))
        if weights == "imagenet":
            return donor
        raise OSError("no network")

    monkeypatch.setattr("roadseg.models.pretrained.get_encoder", fake)
    run(TINY.changed({"pretrained": "hub:imagenet", **STAYING}), prepared, root)
    assert requested == [("tu-test_resnet", "imagenet")]
    expected = {f"body.encoder.{name}": p.detach() for name, p in donor.named_parameters()}
    assert_close(encoder_of(weights_of(root)), expected)
    with pytest.raises(InputError, match=r"other: the weights of tu-test_resnet could not be loaded"
                       r" \(no network\). Offline, use an"):  # fmt: skip
        done(TINY.changed({"pretrained": "hub:other"}), prepared)


class Harm:
    def __reduce__(self):
        return (print, ("run by a pickle",))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda: get_encoder("resnet18", weights=None).state_dict(), "weights of the encoder are missing"),
        (lambda: [1, 2], "holds list, no weights by name"),
        (lambda: {"x": Harm()}, "cannot be read as weights"),
        (None, "cannot be read as weights"),
    ],
)  # fmt: skip
def test_weights_that_do_not_fit_are_named(prepared, root, content, message, capsys):
    """And a file of weights cannot run code."""
    if content:
        torch.save(content(), root / "other.pt")
    else:
        (root / "other.pt").write_text("no weights")
    with pytest.raises(InputError, match=f"^pretrained: file:other.pt: .*{message}"):
        done(TINY.changed({"pretrained": "file:other.pt"}), prepared)
    assert not list(all_trainings()) and "run by a pickle" not in capsys.readouterr().out


def test_a_teacher_is_the_same_recipe_with_another_network(prepared, root):
    """It is trained once, and an arm that is the same training is the teacher."""
    recipe = TINY.changed({"teacher": "fcn8s:tu-resnet10t", "distill_weight": 3.0, "dropout": 0.1,
                           "flip": 0.5})  # fmt: skip
    expected = TINY.changed({"network": "fcn8s:tu-resnet10t", "flip": 0.5})
    assert teacher_recipe(recipe) == expected
    record = run(recipe, prepared, root, "student")
    teacher = training_of(expected, load_splits(prepared), CPU)
    before = teacher.about()
    assert record.about["start_seconds"] == before["seconds"] > 0
    assert done(recipe.changed({"distill_weight": 5.0}), prepared) == "trained"
    assert done(expected, prepared) == "scored"  # trained it was as a teacher
    assert teacher.about() == before and len(list(all_trainings())) == 3


def test_a_teacher_from_another_study(prepared, root):
    """It teaches what the same network, trained here, would."""
    large = SMALLEST.changed({"network": "baseline:0.1"})
    run(large, prepared, root, "large")
    taught = [
        run(SMALLEST.changed({"teacher": teacher, "distill_weight": 3.0}), prepared, root, f"student-{i}")
        for i, teacher in enumerate(("study:own/large", "baseline:0.1"))
    ]
    assert taught[0].about["start"] and not taught[1].about["start"]
    assert_close(weights_of(root, "student-0"), weights_of(root, "student-1"))
    assert len(list(all_trainings())) == 3


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"pretrained": "file:gone.pt"}, "file:gone.pt"),
        ({"pretrained": "study:own/gone"}, "'gone'. It has: known"),
        ({"pretrained": "study:none/gone"}, "study 'none'"),
        ({"pretrained": "hub:imgnet"}, "imgnet"),
        ({"teacher": "fcn8s:resnet19", "distill_weight": 1.0}, "teacher: .*'resnet19'"),
        ({"teacher": "study:own/gone", "distill_weight": 1.0}, "teacher: study:own/gone"),
        ({"teacher": "fcn8s:tu-test_resnet", "distill_weight": 1.0}, "is the network itself"),
    ],
)  # fmt: skip
def test_what_is_not_there_is_named_before_anything_trains(root, changes, named):
    folder = root / "build/own/runs/question/known/s0"
    folder.mkdir(parents=True)
    (folder / "weights.pt").touch()
    with pytest.raises(InputError, match=named):
        check_start(TINY.changed(changes))
