import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix, jaccard_score
from torchmetrics.classification import MulticlassCalibrationError, MulticlassJaccardIndex

from roadseg.training.metrics import Confusion, class_sums, count, iou, iou_of_sums, miou
from roadseg.training.score import BINS, boundary_sums, calibration_error, reliability

NAN = float("nan")


@pytest.mark.parametrize(
    ("counts", "ious", "mean", "course", "accuracy"),
    [  # class 2 is neither true nor predicted; class 1 is predicted and never true
        ([[3, 1, 0], [0, 4, 0], [0, 0, 0]], [3 / 4, 4 / 5, NAN], 1.55 / 2, 1.55 / 3, 7 / 8),
        ([[6, 2], [0, 0]], [6 / 8, NAN], 0.75, 0.375, 0.75),
    ],
)
def test_scores_by_hand(counts, ious, mean, course, accuracy):
    c = Confusion(np.array(counts))
    np.testing.assert_allclose(c.iou, ious)
    assert [c.miou, c.course_miou, c.accuracy] == pytest.approx([mean, course, accuracy])
    np.testing.assert_array_equal((c + c).counts, 2 * c.counts)


def test_scores_of_many_counts_are_those_of_each():
    counts = np.random.default_rng(0).integers(0, 9, (2, 3, 4, 4))
    counts[0, 1, 2] = 0  # a class that is not true in one of them
    assert class_sums(counts).shape == (2, 3, 3, 4)
    for place in np.ndindex(2, 3):
        one = Confusion(counts[place])
        np.testing.assert_array_equal(iou(counts)[place], one.iou)
        assert miou(counts)[place] == one.miou


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


def test_calibration_by_hand():
    # three answers as sure as 0.7 of which one is right, one of certainty that is right
    sums = reliability(np.array([0.7, 0.7, 0.7, 1.0]), np.array([True, False, False, True]))
    assert sums.shape == (3, BINS)
    assert sums[:, 10].tolist() == pytest.approx([3, 1, 2.1])  # (10/15, 11/15]
    assert sums[:, 14].tolist() == [1, 1, 1]
    assert calibration_error(sums) == pytest.approx(3 / 4 * (0.7 - 1 / 3))
    assert np.isnan(calibration_error(np.zeros((3, BINS))))


@given(st.integers(0, 10_000))
def test_calibration_agrees_with_torchmetrics_and_adds(seed):
    rng = np.random.default_rng(seed)
    k = int(rng.integers(2, 7))
    probabilities = rng.dirichlet(np.full(k, 0.4), 300)
    labels = rng.integers(0, k, 300)
    theirs = MulticlassCalibrationError(k, n_bins=BINS, norm="l1")(
        torch.from_numpy(probabilities), torch.from_numpy(labels)
    )
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels
    parts = [reliability(confidence[some], right[some]) for some in (slice(70), slice(70, None))]
    assert calibration_error(sum(parts)) == pytest.approx(float(theirs), abs=1e-5)


def near_contours(classed, reach):
    """The zone as its definition has it, pixel by pixel; negative is not labelled."""
    zone = np.zeros(classed.shape, bool)
    for (row, column), label in np.ndenumerate(classed):
        around = classed[
            max(row - reach, 0) : row + reach + 1, max(column - reach, 0) : column + reach + 1
        ]
        zone[row, column] = label >= 0 and ((around != label) & (around >= 0)).any()
    return zone


@settings(max_examples=15)  # of many pixels each
@given(st.integers(0, 10_000))
def test_boundary_sums_are_those_of_the_definition(seed):
    rng = np.random.default_rng(seed)
    k, reach = 4, 2
    labels, predictions = (  # patches of 9 pixels, so that some lie away from any contour
        rng.integers(0, k, (2, 8, 8)).repeat(9, 1).repeat(9, 2) for _ in range(2)
    )
    labels[:, 20:30, 5:40] = 255
    sums = boundary_sums(torch.from_numpy(predictions), torch.from_numpy(labels), k).numpy()
    for image in range(2):
        seen = labels[image] != 255
        truth, predicted = (np.where(seen, each[image], -1) for each in (labels, predictions))
        true_zone, predicted_zone = near_contours(truth, reach), near_contours(predicted, reach)
        assert not true_zone[seen].all()
        hits = true_zone & predicted_zone & (truth == predicted)
        for row, (classed, zone) in enumerate(
            ((truth, hits), (truth, true_zone), (predicted, predicted_zone))
        ):
            assert sums[image, row].tolist() == [(zone & (classed == c)).sum() for c in range(k)]


def test_boundary_iou_of_the_truth_is_one_and_a_shift_costs_more_than_it_costs_iou():
    labels = torch.zeros(1, 60, 80, dtype=torch.int64)
    labels[:, 20:40, 20:60] = 1
    assert iou_of_sums(boundary_sums(labels, labels, 2).numpy()).tolist() == [[1, 1]]
    shifted = labels.roll(2, -1)
    boundary = iou_of_sums(boundary_sums(shifted, labels, 2).numpy())
    assert (boundary < iou_of_sums(class_sums(count(shifted, labels, 2).numpy()))).all()
