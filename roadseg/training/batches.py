"""Batches of scenes, on the device: from its memory where they fit, else read ahead from disk."""

import itertools
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Generator, Tensor

from roadseg.data.scenes import Scenes, read

RESIDENT_BYTES = 2**29  # on a CPU, where each of several trainings at once has its own copy
RESIDENT_SHARE = 0.5  # of a GPU's memory
PREFETCHED_BATCHES = 4  # batches that are read before they are asked for
COPIED_IMAGES = 64  # images that go to the device at once


def order(n: int, size: int, rng: Generator) -> Iterator[Tensor]:
    """Yield indices int64 (size,) for ever: each of 0..n-1 once, shuffled, before any twice."""
    queue = torch.empty(0, dtype=torch.int64)
    while True:
        while len(queue) < size:
            queue = torch.cat([queue, torch.randperm(n, generator=rng)])
        yield queue[:size]
        queue = queue[size:]


def fits(scenes: Scenes, device: torch.device) -> bool:
    """Return whether a split is kept in the device's memory, by its size alone."""
    max_bytes = RESIDENT_BYTES
    if device.type == "cuda":
        max_bytes = RESIDENT_SHARE * torch.cuda.get_device_properties(device).total_memory
    return scenes.images.nbytes + scenes.labels.nbytes <= max_bytes


def iterate_batches(
    scenes: Scenes, size: int, rng: Generator, device: torch.device, first: int = 0
) -> Iterator[tuple[Tensor, Tensor]]:
    """Return batches without end: images uint8 (size, 3, H, W), labels uint8 (size, H, W).

    They begin with the one of number `first`, as a training does that goes on after a stop.

    They are the same whether the split is held in the device's memory, which it is before this
    returns, or read from disk. Then a thread reads ahead, into page-locked memory for a GPU, and
    memory does not grow with the data.
    """
    chosen = itertools.islice(order(len(scenes), size, rng), first, None)
    if fits(scenes, device):
        return _from_memory(
            _copy_to_device(scenes.images, device), _copy_to_device(scenes.labels, device), chosen
        )
    return _from_disk(scenes, chosen, device)


def _copy_to_device(array: np.ndarray, device: torch.device) -> Tensor:
    """Copy an array to the device, a part at a time: a GPU may have more memory than its host."""
    copy = torch.empty(array.shape, dtype=torch.uint8, device=device)
    for first in range(0, len(array), COPIED_IMAGES):
        rows = slice(first, first + COPIED_IMAGES)
        copy[rows] = torch.from_numpy(read(array, rows))
    return copy


def _from_memory(
    images: Tensor, labels: Tensor, chosen: Iterator[Tensor]
) -> Iterator[tuple[Tensor, Tensor]]:
    for indices in chosen:
        indices = indices.to(images.device, non_blocking=True)
        yield images[indices], labels[indices]


def _from_disk(
    scenes: Scenes, chosen: Iterator[Tensor], device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    def load(indices: Tensor) -> list[Tensor]:
        rows = indices.numpy()
        parts = [torch.from_numpy(read(a, rows)) for a in (scenes.images, scenes.labels)]
        return [part.pin_memory() for part in parts] if device.type == "cuda" else parts

    with ThreadPoolExecutor(1) as reader:
        pending = deque(
            reader.submit(load, i) for i in itertools.islice(chosen, PREFETCHED_BATCHES)
        )
        while True:
            images, labels = pending.popleft().result()
            pending.append(reader.submit(load, next(chosen)))
            yield images.to(device, non_blocking=True), labels.to(device, non_blocking=True)
