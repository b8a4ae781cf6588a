"""Batches of scenes, on the device: from its memory where they fit, else read ahead from disk."""

import itertools
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Generator, Tensor

from roadseg.data import Scenes, read

RESIDENT_BYTES = 2**29  # on a CPU, where each of several trainings at once has its own copy
RESIDENT_SHARE = 0.5  # of a GPU's memory
AHEAD = 4  # batches that are read before they are asked for


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
    most = RESIDENT_BYTES
    if device.type == "cuda":
        most = RESIDENT_SHARE * torch.cuda.get_device_properties(device).total_memory
    return scenes.images.nbytes + scenes.labels.nbytes <= most


def batches(
    scenes: Scenes, size: int, rng: Generator, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield images uint8 (size, 3, H, W) and labels uint8 (size, H, W) on the device, for ever.

    The batches are the same whether the split is held in memory or read from disk. Then a thread
    reads ahead, into page-locked memory for a GPU, and memory does not grow with the data.
    """
    chosen = order(len(scenes), size, rng)
    arrays = scenes.images, scenes.labels
    if fits(scenes, device):
        images, labels = (torch.from_numpy(read(array, slice(None))).to(device) for array in arrays)
        for indices in chosen:
            indices = indices.to(device, non_blocking=True)
            yield images[indices], labels[indices]

    def load(indices: Tensor) -> list[Tensor]:
        parts = [torch.from_numpy(read(array, indices.numpy())) for array in arrays]
        return [part.pin_memory() for part in parts] if device.type == "cuda" else parts

    with ThreadPoolExecutor(1) as reader:
        coming = deque(reader.submit(load, i) for i in itertools.islice(chosen, AHEAD))
        while True:
            images, labels = coming.popleft().result()
            coming.append(reader.submit(load, next(chosen)))
            yield images.to(device, non_blocking=True), labels.to(device, non_blocking=True)
