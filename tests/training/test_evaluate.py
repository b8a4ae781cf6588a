"""Scoring: every labelled pixel once, at one size or at several."""

import functools

import numpy as np
import pandas as pd
import torch
from toys import CPU, TINY, quiet

from roadseg.models.build import build
from roadseg.training import loop
from roadseg.training.evaluate import averaged_probabilities, evaluate


def evaluated(network, scenes, recipe):
    """The counts, and the predictions of all scenes in one array."""
    kept = []
    counts = evaluate(network, scenes, CPU, **recipe.testing, keep=lambda best, *_: kept.append(best))
    return counts, torch.cat(kept).numpy()


def test_evaluation_counts_every_labelled_pixel_once(scenes):
    torch.manual_seed(0)
    network = build(TINY.network, 19)
    counts, predictions = evaluated(network, scenes["test"], TINY)
    labels = np.array(scenes["test"].labels)
    assert counts.shape == (4, 19, 19) and predictions.shape == labels.shape
    assert (counts.sum((1, 2)) == (labels != 255).sum((1, 2))).all()
    for k in range(19):
        expected = ((labels == k) & (predictions == k)).sum((1, 2))
        np.testing.assert_array_equal(counts[:, k, k], expected)
    assert not network.training


def test_averaged_probabilities_by_hand():
    """A 'network' whose logits are its red channel and zero, over two sizes and mirrored."""
    def network(x):
        return torch.stack([x[:, 0] / 100, torch.zeros_like(x[:, 0])], 1)

    images = torch.rand(1, 3, 8, 12) * 255
    one = network(images).softmax(1)
    torch.testing.assert_close(averaged_probabilities(network, images, (1.0,), flip=True), one)
    resize = functools.partial(torch.nn.functional.interpolate, mode="bilinear")
    larger = resize(network(resize(images, size=(12, 18))), size=(8, 12)).softmax(1)
    both = averaged_probabilities(network, images, (1.0, 1.5), flip=False)
    torch.testing.assert_close(both, (one + larger) / 2)


def test_multi_scale_testing_changes_predictions_and_not_the_curve(scenes):
    recipe = TINY.changed({"test_scales": [0.5, 1.0, 1.5], "test_flip": True})
    network, curve, _ = loop.train(recipe, scenes["train"], scenes["val"], device=CPU, say=quiet)
    _, plain_curve, _ = loop.train(TINY, scenes["train"], scenes["val"], device=CPU, say=quiet)
    pd.testing.assert_frame_equal(curve, plain_curve)
    several = evaluated(network, scenes["test"], recipe)[1]
    single = evaluated(network, scenes["test"], TINY)[1]
    assert 0.3 < (several == single).mean() < 1
