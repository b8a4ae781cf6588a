"""Tells a refactoring from a change of results: what a few toy trainings come to.

`PYTHONPATH=tests python tests/training/test_golden.py` writes golden.json beside it anew, for a change of results that is meant.
On the processor kind and torch version that it was written with, counts and losses must be equal;
elsewhere arithmetic differs in the last digits, and they must be near.
"""

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch

from roadseg.config.recipe import DEFAULTS, Recipe
from roadseg.models.build import build
from roadseg.training import loop as train
from roadseg.training.device import device_name
from roadseg.training.evaluate import evaluate

GOLDEN = Path(__file__).with_name("golden.json")
CPU = torch.device("cpu")
STEPS = 20
TOY = {"network": "fcn8s:tu-test_resnet", "steps": STEPS, "batch_size": 2, "lr": 0.004,
       "precision": "fp32"}  # fmt: skip
RECIPES = {
    "plain": {},
    "weighted": {
        "optimizer": "adamw", "weight_decay": 0.01, "schedule": "poly", "poly_power": 1.0,
        "warmup_steps": 2, "flip": 0.5, "scale_jitter": 1.25, "colour_jitter": 0.2,
        "hue_jitter": 15.0, "class_balance": 0.999, "ohem_threshold": 0.5, "ohem_kept": 1000,
        "label_smoothing": 0.1, "aux_weight": 0.4, "ema_decay": 0.9, "dropout": 0.1,
    },
    "overlap": {
        "schedule": "cosine", "cycles": 2, "crop": 0.75, "size_jitter": 1.25, "focal_gamma": 2.0,
        "dice_weight": 1.0, "lovasz_weight": 1.0, "test_scales": [0.75, 1.0], "test_flip": True,
        "teacher": "fcn8s:tu-resnet10t", "distill_weight": 3.0, "distill_temperature": 2.0,
    },
    "fine-tuned": {
        "pretrained": "imagenet", "freeze_stages": 2, "freeze_norm": True, "encoder_lr": 0.1, "class_power": 0.5,
    },
    "baseline": {"network": "baseline:0.05", "batch_norm": True, "residual": True},
}  # fmt: skip


def made_on() -> str:
    processor = device_name(CPU).partition(",")[0]
    return f"torch {torch.__version__}, {processor}, {torch.backends.cpu.get_cpu_capability()}"


def toy(name: str, scenes: dict) -> dict:
    """Train one recipe on one thread; return its losses and the counts on test."""
    recipe = Recipe.of({**TOY, **RECIPES[name]})
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        torch.manual_seed(1)
        teacher = build(recipe.teacher, 19).eval() if recipe.teacher else None
        network, curve, _ = train.train(
            recipe, scenes["train"], scenes["val"], device=CPU, teacher=teacher, say=lambda _: None
        )
        counts = evaluate(network, scenes["test"], CPU, **recipe.testing)
    finally:
        torch.set_num_threads(threads)
    return {"loss": curve.loss.round(5).tolist(), "counts": counts.sum(0).tolist()}


def test_every_hyperparameter_takes_part():
    elsewhere = {"seed", "pretrained_part", "pretrain_steps", "lr_search",
                 "lr_search_steps"}  # see test_run.py  # fmt: skip
    used = {name for changes in RECIPES.values() for name in {**TOY, **changes}}
    untested = set(DEFAULTS) - used - elsewhere
    assert not untested, f"add to RECIPES in this file: {untested}"


@pytest.mark.parametrize("name", RECIPES)
def test_toy_trainings_come_to_what_they_came_to(scenes, name):
    golden = json.loads(GOLDEN.read_text())
    result, expected = toy(name, scenes), golden["recipes"][name]
    loss = np.array(result["loss"]), np.array(expected["loss"])
    counts = np.array(result["counts"]), np.array(expected["counts"])
    assert counts[0].sum() == counts[1].sum()
    if golden["made_on"] == made_on():
        np.testing.assert_allclose(*loss, atol=2e-5)
        np.testing.assert_array_equal(*counts)
    else:
        np.testing.assert_allclose(*loss, rtol=0.1)
        moved = np.abs(counts[0] - counts[1]).sum() / 2 / counts[0].sum()
        assert moved < 0.15, f"{100 * moved:.1f} % of the pixels are counted elsewhere"


def write() -> None:
    from conftest import SMALL

    from roadseg.config.paths import ROOT
    from roadseg.data.datasets import find_source
    from roadseg.data.prepare import prepare
    from roadseg.data.scenes import Scenes

    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "small"
        prepare(SMALL, find_source(SMALL, ROOT), target)
        scenes = {split: Scenes.load(target, split) for split in ("train", "val", "test")}
        content = {"made_on": made_on(), "recipes": {name: toy(name, scenes) for name in RECIPES}}
    GOLDEN.write_text(json.dumps(content, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    sys.exit(write())
