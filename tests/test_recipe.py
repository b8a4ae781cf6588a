import dataclasses

import pytest

from roadseg.recipe import InputError, Recipe


def test_equal_settings_are_the_same_run():
    assert Recipe(lr=0.001) == Recipe.of({"lr": 0.001})
    assert Recipe(lr=0.001).digest == Recipe(lr=0.001).digest != Recipe(lr=0.002).digest
    assert Recipe(seed=1).digest != Recipe(seed=2).digest


def test_a_knob_at_its_default_does_not_change_the_digest():
    assert Recipe(flip=0.0, scale_jitter=1).digest == Recipe().digest


def test_defaults_are_only_added_to():
    # An edited default would give the digest of an old run a new meaning.
    assert dataclasses.asdict(Recipe()) == {
        "seed": 0, "network": "baseline", "steps": 1000, "batch_size": 4, "optimizer": "adam",
        "lr": 0.0003, "weight_decay": 0.0, "schedule": "fixed", "poly_power": 0.9,
        "warmup_steps": 0, "flip": 0.0, "scale_jitter": 1.0, "colour_jitter": 0.0,
        "precision": "auto",
    }  # fmt: skip
    assert Recipe().digest == "44136fa355b3"


def test_differences_rebuild_the_recipe():
    recipe = Recipe(seed=2, network="fcn8s:resnet18", flip=0.5)
    assert recipe.differences() == {"seed": 2, "network": "fcn8s:resnet18", "flip": 0.5}
    assert Recipe.of(recipe.differences()) == recipe


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lrr": 1.0}, "lrr: no such knob. Did you mean 'lr'?"),
        ({"lr": 0}, "lr: 0.0 is not allowed; it must be a number > 0."),
        ({"lr": "1e-3"}, "lr: '1e-3' is not allowed; it must be a number > 0. Write it without"
         " quotes, as 0.001."),
        ({"lr": float("nan")}, "lr: nan is not allowed"),
        ({"flip": 1.5}, "flip: 1.5 is not allowed; it must be a probability in [0, 1]."),
        ({"steps": 10.5}, "steps: 10.5 is not allowed; it must be a whole number >= 1."),
        ({"steps": True}, "steps: True is not allowed"),
        ({"optimizer": "sgd"}, "optimizer: 'sgd' is not allowed; it must be one of adam, adamw."),
        ({"steps": 5, "warmup_steps": 5}, "warmup_steps: 5 leaves nothing of steps: 5"),
        ({"poly_power": 2.0}, "poly_power: has no effect with schedule: fixed"),
    ],
)  # fmt: skip
def test_bad_settings_are_named(settings, message):
    with pytest.raises(InputError) as caught:
        Recipe.of(settings)
    assert str(caught.value).startswith(message)
