"""What grouped convolutions and the last upsampling cost on a CPU, alone and in a whole step."""

import time
from collections.abc import Callable
from statistics import median
from unittest import mock

import page
import torch
import torch.nn.functional as F
from torch import nn

from roadseg.models import segmenter
from roadseg.models.build import build
from roadseg.models.freeze import freeze
from roadseg.models.segmenter import GroupedInFp32
from roadseg.training.losses import segmentation_loss

ROUNDS = 7
LITE = "tu-tf_efficientnet_lite0"
# channels, height, width, side of the kernel, stride, dilation, groups: batch 4 at 360 x 480
LAYERS = [
    (32, 180, 240, 3, 1, 1, 32), (144, 90, 120, 3, 1, 1, 144), (96, 180, 240, 3, 2, 1, 96),
    (144, 90, 120, 5, 2, 1, 144), (240, 45, 60, 5, 1, 1, 240), (1152, 12, 15, 5, 1, 1, 1152),
    (96, 90, 120, 3, 1, 2, 96), (128, 90, 120, 3, 1, 1, 32),
]  # fmt: skip
NETWORKS = [  # name, frozen stages
    (f"fcn8s:{LITE}", 0), (f"fcn8s:{LITE}", 2), (f"smp:unet:{LITE}", 0),
    ("tv:lraspp_mobilenet_v3_large", 0), ("dabnet:0.5", 0), ("smp:segformer:mit_b0", 0),
]  # fmt: skip
SIZE = (180, 240)
ENDS = [(2, 360, 480), (11, 360, 480), (19, 64, 128), (19, 360, 480)]  # classes, height, width


def timed(calls: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Return the median milliseconds of each call, taken in turn."""
    taken = {name: [] for name in calls}
    for _ in range(ROUNDS + 1):
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            taken[name].append(1e3 * (time.perf_counter() - began))
    return {name: median(each[1:]) for name, each in taken.items()}  # the first one warms up


def layer(channels: int, height: int, width: int, side: int, stride: int, dilation: int,
          groups: int) -> dict:  # fmt: skip
    """Return a row: one convolution, forwards and backwards."""
    convolution = nn.Conv2d(
        channels, channels, side, stride, dilation * (side // 2), dilation, groups, bias=False
    ).to(memory_format=torch.channels_last)
    x = torch.randn(4, channels, height, width, dtype=torch.bfloat16)
    x = x.contiguous(memory_format=torch.channels_last)
    x.requires_grad_()

    def in_bf16() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            y = convolution(x)
        y.backward(torch.ones_like(y))

    def in_fp32() -> None:
        y = convolution(x.float()).to(torch.bfloat16)
        y.backward(torch.ones_like(y))

    replaced = GroupedInFp32.of(convolution)

    def with_grouped() -> None:
        y = replaced(x)
        y.backward(torch.ones_like(y))

    times = timed({"bf16": in_bf16, "fp32": in_fp32, "ours": with_grouped})
    return {
        "convolution": f"{channels} channels in {groups} groups, {side} x {side}, stride {stride}, "
        f"dilation {dilation}",
        "map": f"{height} x {width}",
        "bf16, ms": f"{times['bf16']:.1f}",
        "fp32 with both casts, ms": f"{times['fp32']:.1f}",
        "`GroupedInFp32`, ms": f"{times['ours']:.1f}",
        "bf16 / `GroupedInFp32`": f"{times['bf16'] / times['ours']:.2f}",
    }


def end(classes: int, height: int, width: int) -> dict:
    """Return a row: the last upsampling and the loss of 4 images, forwards and backwards."""
    scores = torch.randn(4, classes, height // 8, width // 8, dtype=torch.bfloat16)
    scores = scores.contiguous(memory_format=torch.channels_last).requires_grad_()
    labels = torch.randint(0, classes, (4, height, width))

    def upsampled(first: bool) -> torch.Tensor:
        x = scores.float().contiguous() if first else scores.float()
        return F.interpolate(x, size=(height, width), mode="bilinear", align_corners=False)

    def rows() -> None:
        flat = upsampled(first=False).permute(0, 2, 3, 1).flatten(0, 2)
        F.cross_entropy(flat, labels.flatten(), ignore_index=255).backward()

    calls = {
        "pixels as rows, ms": rows,
        "channels last, ms": lambda: segmentation_loss(upsampled(first=False), labels).backward(),
        "channels first, ms": lambda: segmentation_loss(upsampled(first=True), labels).backward(),
    }
    times = timed(calls)
    return {
        "classes": classes,
        "images": f"{height} x {width}",
        **{name: f"{taken:.1f}" for name, taken in times.items()},
        "rows / first": f"{times['pixels as rows, ms'] / times['channels first, ms']:.2f}",
    }


def stepping(name: str, stages: int) -> Callable[[], None]:
    """Return a training step, in bf16 by autocast."""
    network = build(name, 11)
    freeze(network, stages, norm=False)
    network = network.to(memory_format=torch.channels_last).train()
    trained = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=1e-4, fused=True)
    images = torch.randint(0, 256, (4, 3, *SIZE), dtype=torch.uint8)
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, 11, (4, *SIZE))

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            logits = network(images)
        optimizer.zero_grad()
        segmentation_loss(logits, labels).backward()
        optimizer.step()

    return step


def network(name: str, stages: int) -> dict:
    """Return a row: whole steps of a network, all in bf16 and as we do it."""
    with mock.patch.object(segmenter, "_replace_grouped"):
        plain = stepping(name, stages)
    times = timed({"plain": plain, "ours": stepping(name, stages)})
    return {
        "network": f"`{name}`" + (f", {stages} stages frozen" if stages else ""),
        "all in bf16, ms": f"{times['plain']:.0f}",
        "as we do it, ms": f"{times['ours']:.0f}",
        "times as fast": f"{times['plain'] / times['ours']:.2f}",
    }


def main() -> None:
    """Write the page's section."""
    torch.set_num_threads(1)
    layers = page.table([layer(*each) for each in LAYERS])
    ends = page.table([end(*each) for each in ENDS])
    networks = page.table([network(*each) for each in NETWORKS])
    conditions = f"Batch 4, one thread, medians of {ROUNDS}; networks at {SIZE[0]} x {SIZE[1]}."
    tables = "\n\n".join([layers, ends, networks])
    page.section("grouped", f"{page.conditions()} {conditions}\n\n{tables}")


if __name__ == "__main__":
    main()
