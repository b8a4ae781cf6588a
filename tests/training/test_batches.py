"""Batches are the same from memory and from disk, and memory does not grow with the file."""

import dataclasses
import itertools
import os

import numpy as np
import psutil
import pytest
import torch
from toys import CPU

from roadseg.config.recipe import Recipe
from roadseg.data.scenes import Scenes
from roadseg.errors import InputError
from roadseg.training import batches as batches_module
from roadseg.training import loop


def rng():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def streamed(monkeypatch):
    monkeypatch.setattr(batches_module, "RESIDENT_BYTES", 0)


def first(n, scenes, size):
    return list(itertools.islice(batches_module.iterate_batches(scenes, size, rng(), CPU), n))


def test_every_scene_comes_once_before_any_twice():
    chosen = batches_module.order(7, 3, rng())
    seen = torch.cat([next(chosen) for _ in range(14)]).view(6, 7)
    assert (seen.sort(dim=1).values == torch.arange(7)).all()
    assert len({tuple(row.tolist()) for row in seen}) > 1


def test_batches_from_disk_are_those_from_memory(scenes, monkeypatch):
    resident = first(11, scenes["train"], 4)
    monkeypatch.setattr(batches_module, "RESIDENT_BYTES", 0)
    for one, other in zip(resident, first(11, scenes["train"], 4), strict=True):
        assert all(map(torch.equal, one, other))


def test_a_training_comes_to_the_same_weights_both_ways(scenes, monkeypatch, tell):
    recipe = Recipe(network="baseline:0.05", steps=7, batch_size=4, flip=0.5, class_balance=0.99)

    def weights():
        network, _, _ = loop.train(
            recipe, scenes["train"], scenes["val"], device=CPU, say=lambda _: None
        )
        return network.state_dict()

    resident = weights()
    monkeypatch.setattr(batches_module, "RESIDENT_BYTES", 0)
    for name, value in weights().items():
        assert torch.equal(value, resident[name]), name
    tell("Same again", "batches from memory, and from disk", 1, "equal weights")


def test_memory_does_not_grow_with_the_file(tmp_path, streamed):
    shape = 400, 3, 256, 256  # 79 MB, which no disk has to hold: the file is empty
    images = np.lib.format.open_memmap(tmp_path / "images.npy", "w+", np.uint8, shape)
    labels = np.zeros((400, 1, 1), np.uint8)
    names = ("",) * 400
    scenes = Scenes(images, labels, names, names, ("road",), ((0, 0, 0),), "")
    before = psutil.Process().memory_info().rss
    batches = batches_module.iterate_batches(scenes, 8, rng(), CPU)
    seen = sum(len(images) for images, _ in itertools.islice(batches, 100))
    grown = psutil.Process().memory_info().rss - before
    assert seen == 800 and grown < images.nbytes / 3


def copied(split, tmp_path):
    """The split, with its images in a file of their own."""
    np.save(tmp_path / "images.npy", np.array(split.images))
    return dataclasses.replace(split, images=np.load(tmp_path / "images.npy", mmap_mode="r"))


def replaced(file):
    np.save(file.with_name("new.npy"), np.zeros_like(np.load(file)))
    file.with_name("new.npy").replace(file)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda file: os.truncate(file, 1000), "images.npy: was cut short while it was used."),
        (lambda file: file.unlink(), "images.npy: cannot be read any more (No such file or directory)."),
        (replaced, "images.npy: was changed while it was used."),
        (lambda file: os.utime(file), "images.npy: was changed while it was used."),
    ],
)  # fmt: skip
def test_a_file_that_changes_while_it_is_read_ends_the_training(
    tmp_path, scenes, streamed, spoil, message
):
    split = copied(scenes["train"], tmp_path)
    recipe = Recipe(network="baseline:0.05", steps=12, batch_size=4)
    epochs = []

    def say(line):
        epochs.append(line)
        if len(epochs) == 2:
            spoil(tmp_path / "images.npy")

    with pytest.raises(InputError) as caught:
        loop.train(recipe, split, scenes["val"], device=CPU, say=say)
    assert str(caught.value).startswith(f"{tmp_path}/{message}")
    assert "Run again" in str(caught.value)
