import dataclasses

import numpy as np
import pytest

from roadseg import explore
from roadseg.config.study import load
from roadseg.errors import InputError


def test_labels_are_painted_where_they_are_and_as_strongly_as_asked(scenes):
    split = scenes["test"]
    image, labels = np.full((3, 2, 2), 100, np.uint8), np.array([[0, 1], [1, 255]], np.uint8)
    painted = explore.overlay(image, labels, split, 0.25)
    for place, k in (((0, 0), 0), ((0, 1), 1), ((1, 0), 1)):
        expected = np.round(75 + 0.25 * np.array(split.colours[k])).astype(np.uint8)
        np.testing.assert_array_equal(painted[place], expected)
    assert (painted[1, 1] == 100).all()
    one = explore.overlay(image, labels, split, 0.25, only=split.classes[0])
    assert (one[0, 0] == painted[0, 0]).all() and (one[0, 1] == 100).all()


def test_where_two_predictions_differ():
    truth = np.array([[0, 0, 0, 0, 255]], np.uint8)
    shown = explore.difference_map(np.array([[0, 0, 1, 1, 0]]), np.array([[0, 1, 0, 1, 0]]), truth)
    both, first, second, neither, unlabelled = map(tuple, shown[0].tolist())
    assert both == (255, 255, 255) and neither == (150, 150, 150) and unlabelled == (0, 0, 0)
    assert first == (0, 0x72, 0xB2) and second == (0xE6, 0x9F, 0)


def test_without_a_finished_run_it_says_what_to_do():
    nowhere = dataclasses.replace(load(), name="nowhere")
    with pytest.raises(InputError, match="no finished run. Run 'make report' first."):
        explore.finished_runs(nowhere)
