import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix, jaccard_score
from torchmetrics.classification import MulticlassJaccardIndex

from roadseg.metrics import Confusion, bootstrap_weights, count, interval, iou, miou


def test_worked_example():
    # truth 0: 3 right, 1 taken for 1; truth 1: 4 right; class 2 neither true nor predicted
    c = Confusion(np.array([[3, 1, 0], [0, 4, 0], [0, 0, 0]]))
    np.testing.assert_allclose(c.iou, [3 / 4, 4 / 5, np.nan])
    assert c.miou == pytest.approx((3 / 4 + 4 / 5) / 2)
    assert c.course_miou == pytest.approx((3 / 4 + 4 / 5) / 3)
    assert c.accuracy == pytest.approx(7 / 8)


def test_a_class_predicted_but_never_true_has_no_iou_and_costs_the_true_class():
    c = Confusion(np.array([[6, 2], [0, 0]]))
    np.testing.assert_allclose(c.iou, [6 / 8, np.nan])
    assert c.miou == pytest.approx(0.75)
    assert c.course_miou == pytest.approx(0.375)


def test_confusions_add():
    a, b = np.array([[1, 2], [3, 4]]), np.array([[10, 0], [0, 10]])
    np.testing.assert_array_equal((Confusion(a) + Confusion(b)).counts, [[11, 2], [3, 14]])


@given(st.integers(0, 10_000))
def test_agrees_with_scikit_learn_and_torchmetrics(seed):
    rng = np.random.default_rng(seed)
    k = int(rng.integers(2, 7))
    labels = rng.integers(0, k, (3, 5, 7))
    labels[rng.random(labels.shape) < 0.2] = 255
    predictions = rng.integers(0, k, labels.shape)
    counts = count(torch.from_numpy(predictions), torch.from_numpy(labels), k).numpy()
    for image in range(3):
        seen = labels[image] != 255
        expected = confusion_matrix(labels[image][seen], predictions[image][seen], labels=range(k))
        np.testing.assert_array_equal(counts[image], expected)
    seen = labels != 255
    present = np.unique(labels[seen])
    expected = jaccard_score(labels[seen], predictions[seen], labels=present, average="macro")
    assert miou(counts.sum(0)) == pytest.approx(expected)
    theirs = MulticlassJaccardIndex(k, average="none", ignore_index=255)(
        torch.from_numpy(predictions), torch.from_numpy(labels)
    )
    np.testing.assert_allclose(iou(counts.sum(0))[present], theirs.numpy()[present], atol=1e-6)


def test_bootstrap_draws_whole_blocks():
    weights = bootstrap_weights(np.array([7, 7, 3, 3, 3]), 200, np.random.default_rng(0))
    assert weights.shape == (200, 5)
    assert (weights[:, 0] == weights[:, 1]).all()
    assert (weights[:, 2] == weights[:, 4]).all()
    assert (weights[:, 0] + weights[:, 2] == 2).all()


def _simulated(rng, seeds, images, right):
    """Counts (S, N, 2, 2): per image 100 pixels of each class, a share of them right."""
    hits = rng.binomial(100, np.clip(right, 0.02, 0.98), (2, seeds, images)).transpose(1, 2, 0)
    counts = np.zeros((seeds, images, 2, 2), np.int64)
    counts[..., 0, 0], counts[..., 1, 1] = hits[..., 0], hits[..., 1]
    counts[..., 0, 1], counts[..., 1, 0] = 100 - hits[..., 0], 100 - hits[..., 1]
    return counts


def test_interval_of_equal_arms_is_zero_and_of_a_real_gain_excludes_it():
    rng = np.random.default_rng(0)
    a = _simulated(rng, 3, 40, 0.7)
    same = interval(a, np.arange(40), minus=a)
    assert (same.estimate, same.low, same.high) == (0, 0, 0)
    assert not same.excludes_zero
    gain = interval(_simulated(rng, 3, 40, 0.8), np.arange(40), minus=a)
    assert gain.low > 0 and gain.excludes_zero
    assert gain.estimate == pytest.approx(miou(_truth(0.8)) - miou(_truth(0.7)), abs=0.02)


def _truth(right):
    return np.array([[right, 1 - right], [1 - right, right]])


def test_interval_covers_the_truth():
    """Image difficulty and seed both vary, the same for both arms; 95 % should cover."""
    rng = np.random.default_rng(1)
    truth = 0.0
    covered, detected, trials = 0, 0, 300
    for _ in range(trials):
        difficulty = rng.normal(0.75, 0.08, 40)
        arms = []
        for _ in range(2):
            luck = rng.normal(0, 0.01, (3, 1))
            arms.append(_simulated(rng, 3, 40, difficulty + luck))
        found = interval(arms[1], np.arange(40), minus=arms[0], rounds=200)
        covered += found.low <= truth <= found.high
        detected += interval(
            _simulated(rng, 3, 40, difficulty + 0.05 + luck),
            np.arange(40),
            minus=arms[0],
            rounds=200,
        ).excludes_zero
    # Few seeds make the t interval err on the wide side, but it must not be useless: a gain of
    # five points of accuracy is mostly found.
    assert 0.92 <= covered / trials < 1.0
    assert detected / trials > 0.7


def test_interval_where_nothing_varies_is_endless():
    rng = np.random.default_rng(2)
    a, b = _simulated(rng, 1, 8, 0.5), _simulated(rng, 1, 8, 0.9)
    found = interval(b, np.zeros(8), minus=a)
    assert found.estimate > 0.2 and not found.excludes_zero and found.low == -np.inf


def test_interval_with_one_seed_covers_the_images_alone():
    rng = np.random.default_rng(2)
    found = interval(_simulated(rng, 1, 30, 0.7), np.arange(30))
    assert found.seeds == 1 and found.low < found.estimate < found.high
