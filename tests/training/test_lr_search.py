"""The search for a learning rate: which trials, and which of them wins."""

import numpy as np
import pytest
from toys import TINY

from roadseg.training.loop import Diverged
from roadseg.training.lr_search import search, trials


def test_a_trial_keeps_the_schedule_s_shape():
    recipe = TINY.changed({
        "lr_search": [4.0, 1.0], "lr_search_steps": 10, "steps": 100, "schedule": "poly",
        "warmup_steps": 20, "test_flip": True,
    })  # fmt: skip
    short = {"steps": 10, "warmup_steps": 2, "schedule": "poly"}
    assert trials(recipe) == {lr: TINY.changed({**short, "lr": lr}) for lr in (0.001, 0.004)}
    assert list(trials(recipe)) == [0.001, 0.004]
    assert trials(TINY) == {}


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ({0.0001: 0.1, 0.001: 0.3, 0.01: 0.2}, 0.001),
        ({0.0001: np.nan, 0.001: np.nan, 0.01: 0.0}, 0.01),
        ({0.0001: 0.2, 0.001: np.nan, 0.01: 0.2}, 0.0001),  # of equals the smaller
    ],
)
def test_the_best_on_val_that_is_finite_is_chosen(scores, expected):
    recipe = TINY.changed({"lr_search": [10.0, 0.1, 1.0], "lr_search_steps": 2})
    lr, table = search(recipe, lambda trial: (scores[trial.lr], trial.lr * 10))
    assert lr == expected
    assert list(table.lr) == [0.0001, 0.001, 0.01] and list(table.steps) == [2, 2, 2]
    np.testing.assert_array_equal(table.val_miou, list(scores.values()))
    np.testing.assert_allclose(table.seconds, [0.001, 0.01, 0.1])


def test_at_none_of_the_rates_finite_is_a_failure():
    recipe = TINY.changed({"lr_search": [1.0, 1000.0], "lr_search_steps": 2})
    with pytest.raises(Diverged, match="finite at none of 0.001, 1"):
        search(recipe, lambda _: (np.nan, np.nan))
