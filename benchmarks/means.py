"""What each means of going faster brings, one by one: a step, or a part of it, with it and without.

What pays is in the project, what does not is only here; docs/performance.md says which is which.
"""

import argparse
import dataclasses
import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import page
import torch
import torch.nn.functional as F
from speed import DEVICE, Fixed, drawn, repeated
from torchvision.transforms import v2
from turns import spread, timed

from roadseg.config.recipe import Recipe
from roadseg.config.study import ROOT
from roadseg.data.datasets import find_source
from roadseg.data.prepare import prepare
from roadseg.data.scenes import CITYSCAPES, Scenes
from roadseg.training import loop as train
from roadseg.training import run as runs
from roadseg.training.augment import _grid, augment, hue_rotations
from roadseg.training.losses import cross_entropy

CASES = [("fcn8s:tu-test_resnet", (64, 192), 20)]  # the embedded study's
BATCH = 4


class Steps(Fixed):
    """Steps on a fixed batch, of which one thing is otherwise."""

    def __init__(self, recipe: Recipe, scenes: Scenes, *, compiled=False, nchw=False, plain=False):
        super().__init__(recipe, scenes)
        if nchw:
            self.network.to(memory_format=torch.contiguous_format)
            self.x = self.x.contiguous()
        if plain:
            self.optimizer = torch.optim.Adam(self.network.parameters(), lr=recipe.lr)
        if compiled:
            self.network = torch.compile(self.network)


class ImageLoss(Steps):
    """Steps whose loss sees images, as torch's cross-entropy is usually called."""

    def total(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the sum of the loss over pixels."""
        return F.cross_entropy(logits, self.y, ignore_index=255, reduction="sum")

    def __call__(self, steps: int) -> None:
        """Train so many steps."""
        for _ in range(steps):
            loss = self.total(self.network(self.x)) / (self.y != 255).sum().clamp(min=1)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()
        loss.item()


class SingleLosses(ImageLoss):
    """Steps whose loss is added up from single pixels, and not inside torch's cross-entropy."""

    def total(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the sum of the loss over pixels."""
        return cross_entropy(logits, self.y).sum()


def one_by_one(images: torch.Tensor, labels: torch.Tensor) -> None:
    """Flip and zoom each image by torchvision's functions, as transforms do."""
    size = images.shape[-2:]
    for x, y in zip(images, labels, strict=True):
        zoom = float(torch.empty(1).uniform_(0.8, 1.25))
        small = [round(side * zoom) for side in size]
        x = v2.functional.resize(x, small, antialias=True)
        y = v2.functional.resize(y[None], small, v2.InterpolationMode.NEAREST)
        x, y = v2.functional.center_crop(x, size), v2.functional.center_crop(y, size)
        x, y = v2.functional.horizontal_flip(x), v2.functional.horizontal_flip(y)


def chain(images: torch.Tensor, factors: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
    """Change colours by one operation after the other."""
    brightness, contrast, saturation = factors.view(-1, 3, 1, 1, 1).unbind(1)
    x = images.float() * brightness
    mean = x.mean((1, 2, 3), keepdim=True)
    x = mean + (x - mean) * contrast
    grey = x.mean(1, keepdim=True)
    x = (grey + (x - grey) * saturation).clamp(0, 255)
    return torch.einsum("nij,njhw->nihw", hue_rotations(angles).to(x.device), x).clamp(0, 255)


def parts(name: str, size: tuple[int, int], steps: int, rounds: int) -> list[dict]:
    """Return a row for each means that can be seen in one process."""
    recipe = Recipe(network=name, batch_size=BATCH, precision="fp32")
    with tempfile.TemporaryDirectory() as folder:
        scenes = drawn(Path(folder), size)
    images = torch.from_numpy(scenes.images[:BATCH]).to(DEVICE)
    labels = torch.from_numpy(scenes.labels[:BATCH]).to(DEVICE)
    factors, angles = 1 + 0.2 * (torch.rand(BATCH, 3) - 0.5), torch.rand(BATCH) - 0.5
    factors, rng = factors.to(DEVICE), torch.Generator().manual_seed(0)
    moved = {"flip": 0.5, "scale_jitter": 1.25}
    scale, shift = torch.rand(BATCH, 2), torch.rand(BATCH, 2)
    theta = torch.cat([torch.diag_embed(scale), shift[:, :, None]], 2).to(DEVICE)
    scale, shift = scale.to(DEVICE), shift.to(DEVICE)
    sure, least = torch.rand(BATCH * size[0] * size[1], device=DEVICE), 3000 * BATCH
    some, network = repeated(scenes, 32), Fixed(recipe, scenes).network

    def step(cls, **otherwise):
        one = cls(recipe, scenes, **otherwise)
        return lambda: one(steps)

    def tested(at_once: int):
        groups = [
            dataclasses.replace(
                some, images=some.images[i : i + at_once], labels=some.labels[i : i + at_once],
                names=some.names[i : i + at_once],
            )
            for i in range(0, 32, at_once)
        ]  # fmt: skip
        return lambda: [train.evaluate(network, group, DEVICE, recipe) for group in groups]

    both, compiling = Steps(recipe, scenes), []
    with tempfile.TemporaryDirectory() as cache:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache
        for _ in range(2):  # without a cache, and with a warm one
            torch.compiler.reset()
            compiled = Steps(recipe, scenes, compiled=True)
            started = time.perf_counter()
            compiled(1)
            compiling.append(f"{time.perf_counter() - started:.0f} s")
    bf16 = Fixed(dataclasses.replace(recipe, precision="bf16"), scenes)
    pairs = {
        "loss over pixels as rows, not over images": (step(Steps), step(ImageLoss)),
        "loss added up from single pixels, not inside torch's": (step(SingleLosses), step(Steps)),
        "limit of hard pixels by sorting, not by selection": (
            lambda: [float(sure.sort().values[least - 1]) for _ in range(steps)],
            lambda: [float(sure.kthvalue(least).values) for _ in range(steps)],
        ),
        "channels last, not first": (step(Steps), step(ImageLoss, nchw=True)),
        "fused Adam, not torch's default": (step(Steps), step(Steps, plain=True)),
        "one resampling for a batch, not image by image": (
            lambda: [augment(images, labels, rng, **moved) for _ in range(steps)],
            lambda: [one_by_one(images, labels) for _ in range(steps)],
        ),
        "colour as one matrix, not as four operations": (
            lambda: [
                augment(images, labels, rng, colour_jitter=0.2, hue_jitter=15) for _ in range(steps)
            ],
            lambda: [chain(images, factors, angles) for _ in range(steps)],
        ),
        "resampling by a row and a column, not a matrix": (
            lambda: [_grid(scale, shift, list(size)) for _ in range(steps)],
            lambda: [F.affine_grid(theta, [BATCH, 1, *size], False) for _ in range(steps)],
        ),
        "testing 8 images at once, not one": (tested(8), tested(1)),
        "testing 32 images at once, not 8": (tested(32), tested(8)),
        f"torch.compile (after {compiling[0]}, from a warm cache {compiling[1]})": (
            lambda: compiled(steps), lambda: both(steps),
        ),
        "bf16, not fp32": (lambda: bf16(max(steps // 5, 1)), lambda: both(max(steps // 5, 1))),
    }  # fmt: skip
    rows = []
    train.hold_memory()
    for means, (with_it, without) in pairs.items():
        seconds = timed({"with": with_it, "without": without}, rounds)
        rows.append(row(means, name, size, seconds["without"] / seconds["with"]))
    return rows


def apart(name: str, size: tuple[int, int], steps: int, rounds: int) -> list[dict]:
    """Return a row for each means that takes processes of its own."""
    data = {"source": "synthetic", "path": "roadseg/data/synthetic.py",
            "size": list(size), "seed": 5,
            "counts": {"train": 24, "val": 1, "test": 1}, "block": 1}  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        prepare(data, find_source(data, ROOT), Path(folder) / "data")

        def told(way: str) -> float:
            # In a process that has trained nothing yet: one that has cannot be forked, and holds
            # its memory already.
            done = subprocess.run(
                [sys.executable, __file__, way, name, str(3 * steps), folder], check=True,
                capture_output=True, text=True,
            )  # fmt: skip
            return float(done.stdout.splitlines()[-1])

        ways = {
            "three seeds in processes of one thread, not one after the other":
                ("together", "one by one"),
            "freed memory held, not given back": ("held", "given back"),
        }  # fmt: skip
        contenders = {way: partial(told, way) for pair in ways.values() for way in pair}
        seconds = timed(contenders, rounds)
    return [
        row(means, name, size, seconds[without] / seconds[with_it])
        for means, (with_it, without) in ways.items()
    ]


def one_way(way: str, name: str, steps: str, folder: str) -> None:
    """Train one seed or three on prepared data and print the seconds."""
    recipe = Recipe(
        network=name, batch_size=BATCH, steps=int(steps), flip=0.5, scale_jitter=1.25,
        colour_jitter=0.2,
    )  # fmt: skip
    if way in ("held", "given back"):
        if way == "given back":
            train.hold_memory = lambda: None
        splits = [Scenes.load(Path(folder) / "data", split) for split in ("train", "val")]
        *_, seconds = train.train(recipe, *splits, device=DEVICE, say=lambda _: None)
        print(seconds)
        return
    seeds = [recipe.changed({"seed": seed}) for seed in range(3)]
    groups = [seeds] if way == "together" else [[seed] for seed in seeds]
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as out:
        runs.ROOT = Path(out)  # what it keeps goes with it
        for group in groups:
            runs.run_all(group, Path(folder) / "data", Path(out) / "runs/arm", say=lambda _: None)
    print(time.perf_counter() - started)


def row(means: str, name: str, size: tuple[int, int], ratio: np.ndarray) -> dict:
    """Return a row of the table."""
    where = f"{name}, {size[0]} x {size[1]}"
    return {"means": means, "network": where, "times as fast": spread(ratio)}


def main() -> None:
    """Write the page's section."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    rows = []
    for case in CASES:
        rows += parts(*case, options.rounds)
        if DEVICE.type == "cpu":  # on a GPU one after the other, see `runs.run_all`
            rows += apart(*case, max(options.rounds // 2, 1))
    rows.sort(key=lambda each: each["means"])
    page.section(
        "means",
        f"{page.conditions()} Batch {BATCH}, {len(CITYSCAPES)} classes, fp32. Medians of "
        f"{options.rounds} rounds, quartiles in brackets.\n\n{page.table(rows)}",
    )


if __name__ == "__main__":
    one_way(*sys.argv[1:]) if len(sys.argv) == 5 else main()
