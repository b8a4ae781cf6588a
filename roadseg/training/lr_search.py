"""The search for a learning rate: short trainings, scored on val."""

import dataclasses
from collections.abc import Callable

import pandas as pd

from roadseg.config.recipe import DEFAULTS, Recipe
from roadseg.training.loop import Diverged


def trials(recipe: Recipe) -> dict[float, Recipe]:
    """Return each learning rate of a recipe's search, ascending, and the training that tries it.

    Its warm-up is shortened as the training is, so that the schedule keeps its shape.
    """
    if recipe.lr_search == DEFAULTS["lr_search"]:
        return {}
    steps = recipe.lr_search_steps
    warmup = min(round(recipe.warmup_steps * steps / recipe.steps), steps - 1)
    short = dataclasses.replace(recipe.training, steps=steps, warmup_steps=warmup)
    rates = sorted(float(f"{recipe.lr * factor:.6g}") for factor in recipe.lr_search)
    return {lr: short.at_lr(lr) for lr in rates}


def search(
    recipe: Recipe, run_trial: Callable[[Recipe], tuple[float, float]]
) -> tuple[float, pd.DataFrame]:
    """Choose the learning rate whose trial scores best on val.

    Parameters
    ----------
    recipe : one with trials; its seed is theirs
    run_trial : returns the val mIoU that a trial ends with (NaN if its loss was not finite), and
        its seconds

    Returns
    -------
    lr : the chosen one
    table : one row per trial, lr ascending: lr, steps, val_miou, seconds

    Raises
    ------
    Diverged : the loss was finite at none of them
    """
    rows = []
    for lr, trial in trials(recipe).items():
        val_miou, seconds = run_trial(trial)
        rows.append({"lr": lr, "steps": trial.steps, "val_miou": val_miou, "seconds": seconds})
    table = pd.DataFrame(rows)
    if table["val_miou"].isna().all():
        raise Diverged(
            f"lr_search: the loss is finite at none of {', '.join(f'{lr:g}' for lr in table.lr)}; "
            "lower lr, or add smaller factors."
        )
    return float(table.loc[table["val_miou"].idxmax(), "lr"]), table
