"""What ImageNet weights, FCN-4s and the means of short fine-tunings bring on CamVid, on val.

    ROADSEG_CAMVID=/path/to/camvid dvc repro studies/camvid/dvc.yaml:prepare
    python benchmarks/fine_tuning.py

Each arm differs from the one that it is compared with in one thing, at equal steps. Test images are
not looked at. Finished runs are kept in `work/fine-tuning`, and taken from there whatever the code
is by then: remove the folder after a change of training code.
"""

import argparse
from pathlib import Path

import numpy as np
import page

from roadseg.analysis import intervals
from roadseg.config.recipe import Recipe
from roadseg.config.study import load
from roadseg.data.scenes import Scenes, blocks
from roadseg.training import metrics
from roadseg.training.device import default_device
from roadseg.training.evaluate import evaluate
from roadseg.training.files import work_folder
from roadseg.training.loop import train
from roadseg.training.warm_start import start_weights
from roadseg.training.workers import run_jobs

SEEDS = 3
BASE = {
    "network": "fcn8s:tu-tf_efficientnet_lite0", "batch_size": 4, "optimizer": "adamw",
    "lr": 0.001, "weight_decay": 0.01, "schedule": "poly", "warmup_steps": 20, "flip": 0.5,
    "scale_jitter": 1.5,
}  # fmt: skip
IMAGENET = {"pretrained": "imagenet"}
ARMS = {  # name -> what it is compared with, what it sets
    "from scratch": (None, {}),
    "ImageNet weights": ("from scratch", IMAGENET),
    "FCN-4s": ("ImageNet weights", {"network": "fcn4s:tu-tf_efficientnet_lite0"}),
    "two frozen stages": ("ImageNet weights", {"freeze_stages": 2}),
    "frozen batch normalisation": ("ImageNet weights", {"freeze_norm": True}),
    "encoder at a tenth of the rate": ("ImageNet weights", {"encoder_lr": 0.1}),
    "weight averaging": ("ImageNet weights", {"ema_decay": 0.98}),
    "classes balanced by square root": ("ImageNet weights", {"class_power": 0.5}),
}


def recipe(arm: str, steps: int, seed: int) -> Recipe:
    """Return the recipe of an arm's run."""
    against, changes = ARMS[arm]
    first = {} if against is None else IMAGENET
    return Recipe.of({**BASE, **first, **changes, "steps": steps, "seed": seed})


def train_and_count(run: Recipe, prepared: Path, file: Path, say) -> None:
    """Train a run and keep its counts on val and its seconds, unless they are there."""
    if file.is_file():
        return
    splits = {split: Scenes.load(prepared, split) for split in ("train", "val")}
    device = default_device()
    start = start_weights(run, splits["train"], None, say) if run.pretrained else None
    network, _, seconds = train(
        run, splits["train"], splits["val"], device=device, start=start, say=lambda _: None
    )
    counts = evaluate(network, splits["val"], device, **run.testing)
    partial = file.with_suffix(".partial.npz")
    np.savez(partial, counts=counts)
    partial.replace(file)
    say(f"val mIoU {metrics.miou(counts.sum(0)):.3f}, {seconds:.0f} s")


def row(arm: str, counts: dict[str, np.ndarray], val: Scenes) -> dict:
    """Return an arm's row."""
    against, _ = ARMS[arm]
    cells = {
        "arm": arm,
        "val mIoU, %": f"{100 * metrics.miou(counts[arm].sum(1)).mean():.1f}",
        "against": against or "",
        "difference (95 % interval)": "",
    }
    if against:
        gap = intervals.interval(
            metrics.class_sums(counts[arm]), blocks(val.sequences, 10),
            metrics.class_sums(counts[against]),
        )  # fmt: skip
        cells["difference (95 % interval)"] = (
            f"{100 * gap.estimate:+.1f} ({100 * gap.low:+.1f} to {100 * gap.high:+.1f})"
        )
    return cells


def main() -> None:
    """Train what is not trained yet and write the page's section."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=400)
    steps = parser.parse_args().steps
    study = load("camvid")
    folder = work_folder() / "fine-tuning"
    folder.mkdir(parents=True, exist_ok=True)
    files = {
        (arm, seed): folder / f"{recipe(arm, steps, seed).digest}.npz"
        for arm in ARMS
        for seed in range(SEEDS)
    }
    jobs = {
        f"{arm}, seed {seed}": lambda say, arm=arm, seed=seed, file=file: train_and_count(
            recipe(arm, steps, seed), study.prepared, file, say
        )
        for (arm, seed), file in files.items()
    }
    for name, ended in run_jobs(jobs, default_device(), print).items():
        if ended.how != "done":
            raise SystemExit(f"{name}: {ended.value}")
    counts = {
        arm: np.stack([np.load(files[arm, seed])["counts"] for seed in range(SEEDS)])
        for arm in ARMS
    }
    val = Scenes.load(study.prepared, "val")
    height, width = study.data["size"]
    conditions = (
        f"{page.conditions()} CamVid's {len(Scenes.load(study.prepared, 'train'))} training images "
        f"at {height} x {width}, {steps} steps of batch {BASE['batch_size']}, AdamW, poly, flips "
        f"and zooms, {SEEDS} seeds, two runs at a time. Scored on the {len(val)} val images, one "
        "street that training has seen too: only differences are meaningful."
    )
    rows = page.table([row(arm, counts, val) for arm in ARMS])
    page.section("fine", f"{conditions}\n\n{rows}", page.PAGE.with_name("weights.md"))


if __name__ == "__main__":
    main()
