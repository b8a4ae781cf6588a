import dataclasses

import pytest

from roadseg.config.recipe import Recipe
from roadseg.errors import InputError


def test_equal_settings_are_the_same_run():
    assert Recipe(lr=0.001) == Recipe.of({"lr": 0.001})
    assert Recipe(lr=0.001).digest == Recipe(lr=0.001).digest != Recipe(lr=0.002).digest
    assert Recipe(seed=1).digest != Recipe(seed=2).digest


def test_a_hyperparameter_at_its_default_does_not_change_the_digest():
    assert Recipe(flip=0.0, scale_jitter=1).digest == Recipe().digest


def test_defaults_are_only_added_to():
    # An edited default would give the digest of an old run a new meaning.
    assert dataclasses.asdict(Recipe()) == {
        "seed": 0, "network": "baseline", "batch_norm": False, "residual": False, "dropout": 0.0,
        "pretrained": "", "pretrained_part": "encoder", "pretrain_steps": 1000, "steps": 1000,
        "batch_size": 4, "optimizer": "adam", "lr": 0.0003, "weight_decay": 0.0, "schedule": "fixed",
        "poly_power": 0.9, "cycles": 1, "warmup_steps": 0, "ema_decay": 0.0, "flip": 0.0,
        "scale_jitter": 1.0, "colour_jitter": 0.0, "hue_jitter": 0.0, "crop": 1.0,
        "size_jitter": 1.0, "class_balance": 0.0, "ohem_threshold": 1.0, "ohem_kept": 10000,
        "label_smoothing": 0.0, "focal_gamma": 0.0, "dice_weight": 0.0, "lovasz_weight": 0.0,
        "aux_weight": 0.0, "teacher": "", "distill_weight": 0.0, "distill_temperature": 4.0,
        "test_scales": (1.0,), "test_flip": False, "precision": "auto", "lr_search": (1.0,),
        "lr_search_steps": 300, "freeze_stages": 0, "freeze_norm": False, "encoder_lr": 1.0,
        "class_power": 0.0,
    }  # fmt: skip
    assert Recipe().digest == "44136fa355b3"


def test_differences_rebuild_the_recipe():
    recipe = Recipe(seed=2, network="fcn8s:resnet18", flip=0.5)
    assert recipe.differences() == {"seed": 2, "network": "fcn8s:resnet18", "flip": 0.5}
    assert Recipe.of(recipe.differences()) == recipe


WRONG = {
    "lrr": [{"lrr": 1.0}],
    "lr": [{"lr": 0}, {"lr": "1e-3"}, {"lr": float("nan")}, {"lr": float("inf")}],
    "flip": [{"flip": 1.5}],
    "steps": [{"steps": 10.5}, {"steps": True}],
    "optimizer": [{"optimizer": "sgd"}],
    "batch_norm": [{"batch_norm": 1}, {"batch_norm": True, "network": "fcn8s:resnet18"}],
    "test_scales": [{"test_scales": value} for value in ([], [1, 1], 2.0, ["a"], [5.0])],
    "pretrained": [{"pretrained": value} for value in ("imagnet", "scenes:many", "study:one", "file:")],
    "pretrain_steps": [{"pretrain_steps": 7, "pretrained": "hub:imagenet"}],
    "teacher": [{"teacher": "baseline"}],
    "distill_weight": [{"distill_weight": 1.0}],
    "class_power": [{"class_balance": 0.9, "class_power": 0.5}],
    "ohem_kept": [{"ohem_kept": 5}],
    "cycles": [{"cycles": 2}],
    "dropout": [{"dropout": 0.1}],
    "warmup_steps": [{"steps": 5, "warmup_steps": 5}],
    "poly_power": [{"poly_power": 2.0}],
}


@pytest.mark.parametrize(("name", "settings"), [(name, settings) for name, ways in WRONG.items() for settings in ways])
def test_bad_settings_are_named(name, settings):
    with pytest.raises(InputError, match=f"^{name}: "):
        Recipe.of(settings)


def test_what_only_testing_sees_is_no_part_of_the_training():
    plain = Recipe(network="fcn8s:resnet18", lr=0.1)
    tested = plain.changed({"test_scales": [0.5, 1], "test_flip": True})
    assert tested.training == plain and tested != plain and tested.digest != plain.digest
    assert tested.differences()["test_scales"] == [0.5, 1.0]
    assert Recipe.of(tested.differences()) == tested
    assert plain.passes == (1.0,) and tested.passes == (0.5, 0.5, 1.0, 1.0)


def test_the_architecture_names_what_changes_the_layers():
    assert Recipe(network="baseline:0.5").architecture == "baseline:0.5"
    assert Recipe(residual=True, batch_norm=True).architecture == "baseline+batch_norm+residual"


def test_at_a_chosen_rate_a_search_is_over():
    searched = Recipe(lr=0.1, lr_search=(0.5, 2.0), lr_search_steps=7)
    assert searched.at_lr(0.2) == Recipe(lr=0.2)
