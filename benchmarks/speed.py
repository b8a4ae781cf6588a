"""Training and testing: ours, its ceiling, and the loop that one would write first.

- ours: `train` of `roadseg/training/loop.py`, with flips, zooms and changes of colour
- ceiling: the same network, loss, optimiser and precision on one batch that stays where it is
- usual: PNG files, torchvision's transforms image by image, a DataLoader with a worker for each
  core, fp32; and the same with autocast, where the device computes bf16 natively

Everything in one process, in turn; see `turns.timed`.
"""

import argparse
import dataclasses
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import page
import torch
import torch.nn.functional as F
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2
from turns import spread, timed

from roadseg.config.recipe import Recipe
from roadseg.data.scenes import CITYSCAPES, Scenes
from roadseg.data.synthetic import scene
from roadseg.training import loop
from roadseg.training.device import default_device, precision_on
from roadseg.training.evaluate import evaluate
from roadseg.training.loop import make_network
from roadseg.training.losses import segmentation_loss

DEVICE = default_device()
CPU = DEVICE.type == "cpu"
BASE = Recipe(
    batch_size=4 if CPU else 16, lr=0.001, flip=0.5, scale_jitter=1.25, colour_jitter=0.2,
    hue_jitter=15,
)  # fmt: skip
NETWORKS = [
    "baseline:0.25" if CPU else "baseline",
    "fcn8s:resnet18",
    "smp:segformer:mit_b0",
    "smp:deeplabv3plus:resnet18",
]
CASES = [
    ("fcn4s:tu-tf_efficientnet_lite0", (64, 128)),  # the embedded study
    ("fcn8s:tu-tf_efficientnet_lite0", (360, 480)),
    *((network, size) for size in ((192, 256), (360, 480)) for network in NETWORKS),
]
CHUNK_SECONDS = 1.5  # steps are timed so many at a time
SCENES = 24  # different scenes; more of them would make no step slower


class Files(Dataset):
    """PNG images and label images, changed one by one."""

    def __init__(self, folder: Path, size: tuple[int, int], count: int):
        self.folder, self.count = folder, count
        self.change = v2.Compose(
            [
                v2.ScaleJitter(size, scale_range=(0.8, 1.25)),
                v2.RandomCrop(
                    size, pad_if_needed=True, fill={tv_tensors.Image: 118, tv_tensors.Mask: 255}
                ),
                v2.RandomHorizontalFlip(),
                v2.ColorJitter(0.2, 0.2, 0.2, 15 / 360),
                v2.ToDtype({tv_tensors.Image: torch.float32, "others": None}),
            ]
        )

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int):
        index %= SCENES
        image = tv_tensors.Image(Image.open(self.folder / f"image{index}.png"))
        labels = Image.open(self.folder / f"labels{index}.png")
        return self.change(image, tv_tensors.Mask(np.array(labels)))


def draw_scenes(folder: Path, size: tuple[int, int]) -> Scenes:
    """Draw scenes, write them as PNG files, and return them."""
    images, labels = zip(*(scene(7, index, size=size) for index in range(SCENES)), strict=True)
    for index, pair in enumerate(zip(images, labels, strict=True)):
        for kind, pixels in zip(("image", "labels"), pair, strict=True):
            Image.fromarray(pixels).save(folder / f"{kind}{index}.png")
    names, colours = tuple(map(str, range(SCENES))), tuple(CITYSCAPES.values())
    images = np.ascontiguousarray(np.stack(images).transpose(0, 3, 1, 2))  # as prepared files are
    return Scenes(images, np.stack(labels), names, names, tuple(CITYSCAPES), colours, "")


def repeated(scenes: Scenes, count: int) -> Scenes:
    """Return `count` scenes, the same again and again."""
    rows = np.arange(count) % len(scenes)
    names = tuple(map(str, range(count)))
    return dataclasses.replace(
        scenes, images=scenes.images[rows], labels=scenes.labels[rows], names=names
    )


def epoch_seconds(recipe: Recipe, scenes: Scenes) -> float:
    """Train two epochs, and return the seconds of the second one."""
    marks = []

    def mark(*_, **__) -> np.ndarray:
        marks.append(time.perf_counter())  # an epoch's loss has been read: its steps are done
        return np.ones((1, 2, 2), np.int64)

    steps = 2 * len(scenes) // recipe.batch_size
    loop.evaluate = mark
    try:
        loop.train(
            dataclasses.replace(recipe, steps=steps), scenes, scenes, device=DEVICE,
            say=lambda _: None,
        )  # fmt: skip
    finally:
        loop.evaluate = evaluate
    return marks[1] - marks[0]


class Fixed:
    """Steps on one batch that stays on the device."""

    def __init__(self, recipe: Recipe, scenes: Scenes):
        self.network = make_network(recipe, len(scenes.classes))
        self.network.to(DEVICE, memory_format=torch.channels_last).train()
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=recipe.lr, fused=True)
        rows = slice(0, recipe.batch_size)
        x = torch.from_numpy(scenes.images[rows]).to(DEVICE).float()
        self.x = x.contiguous(memory_format=torch.channels_last)
        self.y = torch.from_numpy(scenes.labels[rows]).to(DEVICE).long()
        self.bf16 = precision_on(DEVICE, recipe.precision) == "bf16"

    def __call__(self, steps: int) -> None:
        """Train so many steps."""
        for _ in range(steps):
            with torch.autocast(DEVICE.type, torch.bfloat16, enabled=self.bf16):
                logits = self.network(self.x)
            loss = segmentation_loss(logits, self.y)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()
        loss.item()


class Usual:
    """Steps as one would write them first."""

    def __init__(self, recipe: Recipe, folder: Path, size: tuple[int, int], autocast: bool):
        self.network = make_network(recipe, len(CITYSCAPES)).to(DEVICE).train()
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=recipe.lr)
        self.autocast = autocast
        self.workers = os.cpu_count()
        loader = DataLoader(
            Files(folder, size, 1_000_000), recipe.batch_size, num_workers=self.workers,
            shuffle=True, pin_memory=not CPU,
        )  # fmt: skip
        self.batches = iter(loader)

    def step(self) -> None:
        """Train one step."""
        x, y = next(self.batches)
        x, y = x.to(DEVICE), y.to(DEVICE).long()
        with torch.autocast(DEVICE.type, torch.bfloat16, enabled=self.autocast):
            loss = F.cross_entropy(self.network(x), y, ignore_index=255)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        loss.item()

    def __call__(self, steps: int) -> float:
        """Train so many steps, and return their seconds."""
        # The workers had time while others were timed: what they made meanwhile does not count.
        for _ in range(2 * self.workers):
            next(self.batches)
        self.step()
        started = time.perf_counter()
        for _ in range(steps):
            self.step()
        return time.perf_counter() - started


def case(name: str, size: tuple[int, int], rounds: int) -> tuple[dict, dict]:
    """Return a row for training and one for testing."""
    batch = BASE.batch_size // (2 if CPU and size[0] > 300 else 1)
    recipe = BASE.changed({"network": name, "batch_size": batch})
    with tempfile.TemporaryDirectory() as folder:
        scenes = draw_scenes(Path(folder), size)
        fixed = Fixed(recipe, scenes)
        fixed(2)
        started = time.perf_counter()
        fixed(2)
        a_step = (time.perf_counter() - started) / 2
        steps = int(min(max(CHUNK_SECONDS / a_step, 2), 40))
        long_enough = repeated(scenes, steps * batch)
        usual = Usual(recipe, Path(folder), size, False)
        contenders = {
            "ours": lambda: epoch_seconds(recipe, long_enough),
            "ceiling": lambda: fixed(steps),
            "usual": lambda: usual(steps),
        }
        cast = None
        if precision_on(DEVICE) == "bf16":
            cast = Usual(recipe, Path(folder), size, True)
            contenders["usual, autocast"] = lambda: cast(steps)
        seconds = {k: 1000 * v / steps for k, v in timed(contenders, rounds).items()}
        usual = cast = contenders = None  # and with them the workers
        tested = BASE.changed({"network": name, "test_flip": True, "test_scales": [0.75, 1, 1.25]})
        some = repeated(scenes, 8)
        testing = timed(
            {
                "once": lambda: evaluate(fixed.network, some, DEVICE, **recipe.testing),
                "six": lambda: evaluate(fixed.network, some, DEVICE, **tested.testing),
            },
            rounds,
        )
    where = {"network": name, "size": f"{size[0]} x {size[1]}", "batch": batch}
    row = {
        **where,
        "step, ms": spread(seconds["ours"], 0 if a_step > 0.1 else 1),
        "share of the ceiling": spread(seconds["ceiling"] / seconds["ours"]),
        "times the usual loop": spread(seconds["usual"] / seconds["ours"]),
    }
    if "usual, autocast" in seconds:
        row["times it with autocast"] = spread(seconds["usual, autocast"] / seconds["ours"])
    return row, {
        **where,
        "batch": 8,
        "an image, ms": spread(1000 * testing["once"] / 8, 1),
        "3 sizes, mirrored, ms": spread(1000 * testing["six"] / 8, 1),
        "ratio": spread(testing["six"] / testing["once"], 1),
    }


def main() -> None:
    """Write the page's sections."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    training, testing = [], []
    for name, size in CASES:
        one, other = case(name, size, options.rounds)
        training.append(one)
        testing.append(other)
        print(one, other, flush=True)
    about = f"{page.conditions()} Medians of {options.rounds} rounds, quartiles in brackets."
    page.section("training", f"{about}\n\n{page.table(training)}")
    page.section("testing", f"{about}\n\n{page.table(testing)}")


if __name__ == "__main__":
    main()
