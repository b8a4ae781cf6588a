import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix, jaccard_score
from torchmetrics.classification import MulticlassJaccardIndex

from roadseg.metrics import Confusion, count, iou, miou


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
