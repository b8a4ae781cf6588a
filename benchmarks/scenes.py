"""Are synthetic scenes worth training on? Time to draw them, class shares, the baseline on them.

Draws the default set (150 + 50 scenes of 128 x 384), then trains the course's baseline as the
course did (Adam, 3e-4, 180 epochs, batch 4), at a quarter of its width: ten minutes on two cores.
Choosing images (val) are scored, test images are not looked at.
"""

import argparse
import time

import numpy as np

from roadseg.config.recipe import Recipe
from roadseg.data import synthetic
from roadseg.data.scenes import CITYSCAPES, Scenes
from roadseg.training.device import default_device, device_name
from roadseg.training.loop import train

SIZE, TRAIN, VAL = (128, 384), 150, 50


def main() -> None:
    """Print the three."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=7, help="which set of scenes")
    parser.add_argument("--network", default="baseline:0.25")
    parser.add_argument("--epochs", type=int, default=180)
    options = parser.parse_args()

    started = time.perf_counter()
    drawn = [synthetic.scene(options.seed, index, SIZE) for index in range(TRAIN + VAL)]
    print(f"{len(drawn)} scenes of {SIZE[0]} x {SIZE[1]} in {time.perf_counter() - started:.1f} s")
    images = np.stack([image.transpose(2, 0, 1) for image, _ in drawn])
    labels = np.stack([labels for _, labels in drawn])
    pixels = np.bincount(labels.ravel(), minlength=256)[: len(CITYSCAPES)]
    for share, name in sorted(zip(pixels / pixels.sum(), CITYSCAPES, strict=True), reverse=True):
        print(f"{100 * share:8.2f} % {name}")

    def part(chosen: slice) -> Scenes:
        names = tuple(map(str, range(TRAIN + VAL)))[chosen]
        return Scenes(
            images[chosen], labels[chosen], names, names, tuple(CITYSCAPES),
            tuple(CITYSCAPES.values()), "",
        )  # fmt: skip

    steps = options.epochs * TRAIN // 4
    recipe = Recipe(network=options.network, steps=steps, batch_size=4)
    device = default_device()
    _, curve, seconds = train(recipe, part(slice(TRAIN)), part(slice(TRAIN, None)), device=device)
    print(
        f"{options.network}, {options.epochs} epochs of {TRAIN} scenes, {steps} steps, lr "
        f"{recipe.lr}: {100 * curve.val_miou.iloc[-1]:.1f} % mIoU on {VAL} others after "
        f"{seconds:.0f} s on {device_name(device)}"
    )


if __name__ == "__main__":
    main()
