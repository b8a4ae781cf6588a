import dataclasses
import functools

import numpy as np
import pytest
import torch
from toys import CPU, TINY, quiet

from roadseg.config.recipe import Recipe
from roadseg.errors import InputError
from roadseg.models.build import build
from roadseg.training import evaluate, loop, losses
from roadseg.training.metrics import Confusion


def test_pixels_are_counted_part_by_part(scenes):
    labels = np.resize(np.array(scenes["train"].labels), (150, 5, 4, 3))[:, 0]
    many = dataclasses.replace(scenes["train"], labels=labels, names=("",) * 150)
    expected = [(labels == k).sum() for k in range(19)]
    assert loop.labelled_pixels(many).tolist() == expected


def test_schedules_by_hand():
    fixed = Recipe(steps=10)
    assert [loop.lr_factor(s, fixed) for s in (0, 5, 9)] == [1, 1, 1]
    poly = Recipe(steps=10, schedule="poly", poly_power=2.0)
    assert loop.lr_factor(0, poly) == 1
    assert loop.lr_factor(5, poly) == pytest.approx(0.25)
    assert loop.lr_factor(9, poly) == pytest.approx(0.01)
    warm = Recipe(steps=10, schedule="poly", warmup_steps=4)
    assert [loop.lr_factor(s, warm) for s in range(4)] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert loop.lr_factor(4, warm) == 1
    assert loop.lr_factor(7, warm) == pytest.approx(0.5**0.9)


def test_warm_restarts_agree_with_torch():
    cosine = Recipe(steps=24, schedule="cosine", cycles=3)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    theirs = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, T_0=8)
    for step in range(24):
        assert loop.lr_factor(step, cosine) == pytest.approx(theirs.get_last_lr()[0], abs=1e-6)
        optimizer.step()
        theirs.step()
    warm = Recipe(steps=14, schedule="cosine", warmup_steps=4)
    assert loop.lr_factor(3, warm) == pytest.approx(0.8) and loop.lr_factor(4, warm) == 1
    assert loop.lr_factor(9, warm) == pytest.approx(0.5)


def test_poly_agrees_with_torch():
    poly = Recipe(steps=20, schedule="poly")
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    theirs = torch.optim.lr_scheduler.PolynomialLR(optimizer, total_iters=20, power=0.9)
    for step in range(20):
        assert loop.lr_factor(step, poly) == pytest.approx(theirs.get_last_lr()[0])
        optimizer.step()
        theirs.step()


def test_two_arms_of_one_seed_start_alike_and_see_the_same_images(scenes, monkeypatch):
    seen = []
    original = loop.augment

    def spy(images, labels, rng, **settings):
        seen.append(images.clone())
        return original(images, labels, rng, **settings)

    monkeypatch.setattr(loop, "augment", spy)
    for changes in ({}, {"flip": 0.5, "scale_jitter": 1.5, "optimizer": "adamw"}):
        recipe = TINY.changed(changes)
        loop.train(recipe, scenes["train"], scenes["val"], device=CPU, say=quiet)
    assert all(torch.equal(a, b) for a, b in zip(seen[:3], seen[3:], strict=True))


def test_a_few_scenes_can_be_learnt_by_heart(scenes):
    recipe = TINY.changed({"steps": 60, "lr": 0.005})
    few = scenes["train"]
    network, curve, seconds = loop.train(recipe, few, few, device=CPU, say=quiet)
    assert curve.loss.iloc[-1] < 0.5 * curve.loss.iloc[0]
    assert curve.val_miou.iloc[-1] > 0.2 > curve.val_miou.dropna().iloc[0]
    assert curve.val_miou.notna().sum() == loop.CURVE_POINTS
    assert seconds > 0


def test_a_loss_that_explodes_is_named(scenes):
    with pytest.raises(InputError, match="the loss is not finite at step 2: lr .*, images scene_00004, scene_00003. Lower lr"):
        recipe = TINY.changed({"network": "baseline:0.1", "lr": 1e30})
        loop.train(recipe, scenes["train"], scenes["val"], device=CPU, say=quiet)


# Each hyperparameter of a trick away from neutral, with what it needs beside it. A test below fails if a
# hyperparameter is missing here, another if one of these changes nothing.
HYPERPARAMETERS = {
    "batch_norm": {"batch_norm": True, "network": "baseline:0.05"},
    "residual": {"residual": True, "network": "baseline:0.05"},
    "dropout": {"dropout": 0.5},
    "optimizer": {"optimizer": "adamw", "weight_decay": 0.1},
    "weight_decay": {"weight_decay": 0.1},
    "schedule": {"schedule": "poly"},
    "poly_power": {"schedule": "poly", "poly_power": 3.0},
    "cycles": {"schedule": "cosine", "cycles": 2},
    "warmup_steps": {"warmup_steps": 2},
    "ema_decay": {"ema_decay": 0.5},
    "flip": {"flip": 1.0},
    "scale_jitter": {"scale_jitter": 2.0},
    "colour_jitter": {"colour_jitter": 0.5},
    "hue_jitter": {"hue_jitter": 90.0},
    "crop": {"crop": 0.75},
    "size_jitter": {"size_jitter": 1.5},
    "class_balance": {"class_balance": 1.0},
    "class_power": {"class_power": 0.5},
    "freeze_stages": {"pretrained": "imagenet", "freeze_stages": 2},
    "freeze_norm": {"pretrained": "imagenet", "freeze_norm": True},
    "encoder_lr": {"encoder_lr": 0.1},
    "ohem_threshold": {"ohem_threshold": 0.02, "ohem_kept": 200},
    "ohem_kept": {"ohem_threshold": 0.02, "ohem_kept": 400},
    "label_smoothing": {"label_smoothing": 0.2},
    "focal_gamma": {"focal_gamma": 2.0},
    "dice_weight": {"dice_weight": 1.0},
    "lovasz_weight": {"lovasz_weight": 1.0},
    "aux_weight": {"aux_weight": 0.4},
    "distill_weight": {"distill_weight": 3.0, "teacher": "fcn8s:tu-test_resnet"},
    "distill_temperature": {
        "distill_weight": 3.0, "teacher": "fcn8s:tu-test_resnet", "distill_temperature": 1.0,
    },
}  # fmt: skip
# What a trick does not set, or what test_warm_start.py and test_lr_search.py change: where weights, teachers and
# learning rates come from.
OTHERS = {"seed", "network", "steps", "batch_size", "lr", "precision", "test_scales", "test_flip",
          "pretrained", "pretrained_part", "pretrain_steps", "teacher", "lr_search", "lr_search_steps"}  # fmt: skip
TOY = TINY.changed({"steps": 4, "lr": 0.01})


@functools.cache
def toy_weights(scenes_id, changes: tuple) -> torch.Tensor:
    """Return the weights after a few steps, flat, without those of an auxiliary head."""
    recipe = TOY.changed(dict(changes))
    scenes = SCENES[scenes_id]
    torch.manual_seed(0)
    teacher = build("fcn8s:tu-test_resnet", 19).eval() if recipe.teacher else None
    network, _, _ = loop.train(
        recipe, scenes["train"], scenes["val"], device=CPU, teacher=teacher, say=quiet
    )
    return torch.cat([p.detach().flatten() for p in network.body.parameters()])


SCENES = {}


def test_every_hyperparameter_of_a_trick_is_tested_here():
    untested = {field.name for field in dataclasses.fields(Recipe)} - set(HYPERPARAMETERS) - OTHERS
    assert not untested, f"add to HYPERPARAMETERS in this file: {untested}"
    assert not set(HYPERPARAMETERS) & OTHERS


@pytest.mark.parametrize("hyperparameter", HYPERPARAMETERS)
def test_each_hyperparameter_changes_the_training(scenes, hyperparameter):
    """Away from neutral the weights after a few steps are others than with it at neutral."""
    SCENES["small"] = scenes
    changes = HYPERPARAMETERS[hyperparameter]
    companions = {name: value for name, value in changes.items() if name != hyperparameter}
    neutral = dataclasses.asdict(Recipe())[hyperparameter]
    try:
        without = TOY.changed({**companions, hyperparameter: neutral})
    except InputError:  # the companion alone is refused: the plain recipe is without
        without = TOY.changed({k: v for k, v in companions.items() if k == "network"})
    plain = toy_weights("small", tuple(without.differences().items()))
    changed = toy_weights("small", tuple({**TOY.differences(), **changes}.items()))
    same_shape = plain.shape == changed.shape
    assert not (same_shape and torch.equal(plain, changed)), hyperparameter


def test_neutral_leaves_the_computation_as_it_was(scenes, monkeypatch):
    """At neutral none of the tricks' machinery is entered, so it cannot change a bit."""
    def forbidden(*_, **__):
        raise AssertionError("entered at neutral")

    for name in ("AveragedModel", "balanced_weights", "power_weights", "distillation_loss", "encoder_of"):
        monkeypatch.setattr(loop, name, forbidden)
    monkeypatch.setattr(evaluate, "averaged_probabilities", forbidden)
    for name in ("hard_pixels", "DICE", "LOVASZ"):
        monkeypatch.setattr(losses, name, forbidden)
    monkeypatch.setattr(torch.nn.functional, "grid_sample", forbidden)
    monkeypatch.setattr(loop.Segmenter, "with_auxiliary", forbidden)
    network, _, _ = loop.train(TOY, scenes["train"], scenes["val"], device=CPU, say=quiet)
    evaluate.evaluate(network, scenes["test"], CPU, **TOY.testing)


def test_the_average_of_weights_is_the_one_by_hand(scenes):
    recipe = TOY.changed({"ema_decay": 0.75})
    trace = []
    original = loop.AveragedModel.update_parameters

    class Spy(loop.AveragedModel):
        def update_parameters(self, network):
            trace.append([p.detach().clone() for p in network.parameters()])
            original(self, network)

    loop.AveragedModel, plain = Spy, loop.AveragedModel
    try:
        network, _, _ = loop.train(recipe, scenes["train"], scenes["val"], device=CPU, say=quiet)
    finally:
        loop.AveragedModel = plain
    # the weighted mean of all of them, the last one first in weight
    shares = np.array([0.75**age for age in range(len(trace))][::-1])
    shares = shares / shares.sum()
    expected = [
        sum(share * p for share, p in zip(shares, ps, strict=True)) for ps in zip(*trace, strict=True)
    ]
    for parameter, target in zip(network.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter, target, atol=1e-6, rtol=1e-5)


def test_the_last_score_of_the_curve_is_of_the_network_returned(scenes):
    for changes in ({}, {"ema_decay": 0.5}):
        recipe = TOY.changed(changes)
        network, curve, _ = loop.train(
            recipe, scenes["train"], scenes["val"], device=CPU, say=quiet
        )
        counts = evaluate.evaluate(network, scenes["val"], CPU, **recipe.testing)
        assert curve.val_miou.iloc[-1] == pytest.approx(Confusion(counts.sum(0)).miou)
