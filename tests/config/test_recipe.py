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


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lrr": 1.0}, "lrr: no such hyperparameter. Did you mean 'lr'?"),
        ({"lr": 0}, "lr: 0 is not allowed; it must be a number > 0."),
        ({"lr": "1e-3"}, "lr: '1e-3' is not allowed; it must be a number > 0."),
        ({"lr": float("nan")}, "lr: nan is not allowed"),
        ({"flip": 1.5}, "flip: 1.5 is not allowed; it must be a probability in [0, 1]."),
        ({"steps": 10.5}, "steps: 10.5 is not allowed; it must be a whole number >= 1."),
        ({"steps": True}, "steps: True is not allowed"),
        ({"optimizer": "sgd"}, "optimizer: 'sgd' is not allowed; it must be one of adam, adamw."),
        ({"optimizr": "adam"}, "optimizr: no such hyperparameter. Did you mean 'optimizer'?"),
        ({"batch_norm": 1}, "batch_norm: 1 is not allowed; it must be true or false."),
        ({"test_scales": []}, "test_scales: [] is not allowed; it must be a list of different factors"),
        ({"test_scales": [1, 1]}, "test_scales: [1, 1] is not allowed"),
        ({"test_scales": 2.0}, "test_scales: 2.0 is not allowed"),
        ({"test_scales": ["a"]}, "test_scales: ['a'] is not allowed"),
        ({"pretrained": "imagnet"}, "pretrained: 'imagnet' is not allowed; it must be imagenet, scenes:N,"
         " study:NAME/ARM, file:PATH or hub:NAME."),
        ({"pretrained": "scenes:many"}, "pretrained: 'scenes:many' is not allowed"),
        ({"pretrain_steps": 7, "pretrained": "hub:imagenet"}, "pretrain_steps: has no effect without"
         " pretrained: scenes:N"),
        ({"teacher": "baseline"}, "teacher: has no effect without distill_weight above 0"),
        ({"distill_weight": 1.0}, "distill_weight: has no effect without a teacher"),
        ({"class_balance": 0.9, "class_power": 0.5}, "class_power: class_balance weighs the classes"),
        ({"ohem_kept": 5}, "ohem_kept: has no effect without ohem_threshold below 1"),
        ({"cycles": 2}, "cycles: has no effect without schedule: cosine"),
        ({"batch_norm": True, "network": "fcn8s:resnet18"}, "batch_norm: is a change to the baseline"),
        ({"dropout": 0.1}, "dropout: the baselines have their own"),
        ({"steps": 5, "warmup_steps": 5}, "warmup_steps: 5 leaves nothing of steps: 5"),
        ({"poly_power": 2.0}, "poly_power: has no effect without schedule: poly"),
    ],
)  # fmt: skip
def test_bad_settings_are_named(settings, message):
    with pytest.raises(InputError) as caught:
        Recipe.of(settings)
    assert str(caught.value).startswith(message)


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
