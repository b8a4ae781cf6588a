"""Pictures show what they are of."""

import base64
import io
import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
from PIL import Image

from roadseg.report import pictures

VOID = 255


def decoded(html: str) -> list[tuple[str, str, np.ndarray]]:
    """Return (class, alternative text, pixels) of each picture of a page."""
    found = re.findall(r'<img class="([^"]*)"[^>]*? alt="([^"]*)" src="data:image/\w+;base64,([^"]+)"', html)
    return [
        (kind, alt, np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")))
        for kind, alt, data in found
    ]


def test_labels_are_painted_in_their_classes_colours(scenes):
    split = scenes["test"]
    painted = pictures.paint(np.array([[0, 1], [VOID, 2]], np.uint8), split)
    assert [tuple(colour) for colour in painted.reshape(-1, 3)] == [
        tuple(split.colours[0]), tuple(split.colours[1]), (0, 0, 0), tuple(split.colours[2])
    ]  # fmt: skip


def test_label_maps_stay_exact_and_photographs_nearly(scenes):
    split = scenes["test"]
    shown = decoded(pictures.samples(split, [0, 2]).html())
    assert [alt for _, alt, _ in shown] == [split.names[0], split.names[2], "its labels", "its labels"]
    np.testing.assert_array_equal(shown[3][2], pictures.paint(split.labels[2], split))
    assert np.abs(shown[1][2].astype(float) - pictures.photo(split, 2)).mean() < 12  # a JPEG
    assert [kind for kind, _, _ in shown] == ["", "", "labels", "labels"]


def test_an_error_map_marks_the_wrong_pixels_and_no_others(scenes):
    split = scenes["test"]
    predicted = np.array(split.labels[1])
    first = tuple(np.argwhere(predicted != VOID)[0])
    predicted[predicted == VOID] = 0  # what has no label is neither right nor wrong
    predicted[first] = (predicted[first] + 1) % len(split.classes)
    wrong = (pictures.error_map(split, 1, predicted) == pictures.WRONG).all(-1)
    assert np.argwhere(wrong).tolist() == [list(first)]


def test_one_street_says_how_much_of_each_prediction_is_wrong(scenes):
    split = scenes["test"]
    truth = split.labels[0]
    shown = pictures.one_street(split, 0, {"all right": truth, "nothing": (truth + 1) % len(split.classes)})
    words = [text for _, text in shown.pictures]
    assert shown.columns == 4 and words[2:4] == ["all right", "nothing"]
    assert words[6:] == ["0 % wrong", "100 % wrong"]
    bundle = shown.titled("Street.", with_png=True)._repr_mimebundle_()
    assert Image.open(io.BytesIO(base64.b64decode(bundle["image/png"]))).width > 1200
    assert "image/png" not in shown.titled("Street.")._repr_mimebundle_()


def test_predictions_have_a_row_for_the_truth_and_for_each_network(scenes):
    split = scenes["test"]
    shown = pictures.predictions(split, [0, 1], {"x": split.labels, "y": split.labels})
    assert [text for _, text in shown.pictures][2:] == ["truth"] * 2 + ["x"] * 2 + ["y"] * 2
    close = pictures.close_ups(split, {"thin": (1, 2, 3)}, (4, 5), {"x": split.labels})
    np.testing.assert_array_equal(close.pictures[1][0], pictures.paint(split.labels[1][2:6, 3:8], split))


def test_outlines_run_between_labelled_classes():
    outline = pictures._outlines(np.array([[0, 1, 1], [0, VOID, 1]], np.uint8))
    assert outline.tolist() == [[True, False, False], [False, False, False]]


def test_suspects_are_dark_where_not_labelled(scenes):
    split = scenes["test"]
    rows = pd.DataFrame({"split": ["test"], "index": [0], "name": ["x" * 60], "words": ["odd"]})
    ((picture, words),) = pictures.suspects(rows, {"test": split}).pictures
    assert words.endswith("x. odd") and len(words) < 70
    unlabelled = split.labels[0] == VOID
    if unlabelled.any():
        assert picture[unlabelled].mean() < picture[~unlabelled].mean()


def test_heat_maps_reach_from_the_lowest_to_the_highest():
    flat = pictures.feature_maps([np.stack([np.zeros((2, 3)), np.arange(6.0).reshape(2, 3)])], columns=2)
    (first, words), (second, flat_words) = flat.pictures
    assert first[0, 0].sum() < 20 and first[1, 2].min() > 150 and words == "pooling 1, channel 1"
    assert flat_words.endswith("(constant)") and (second == second[0, 0]).all()
    field = np.zeros((21, 31))
    field[10, 15] = 1
    ((picture, words),) = pictures.effective_fields({"n": field}, {"n": 6.0}).pictures
    assert words == "n: 6 px" and (picture[7, 12:19] == 255).all() and (picture[0] < 255).all()


def test_receptive_fields_are_drawn_around_the_middle(scenes):
    layers = pd.DataFrame({"kind": ["Conv2d", "MaxPool2d", "Conv2d"], "receptive_field": [3, 4, 8]})
    ((picture, words),) = pictures.receptive_field(layers, scenes["test"], 0).pictures
    assert words == "side in pixels after pooling 1 4, after the last layer 8"
    height, width = scenes["test"].labels.shape[1:]
    assert picture.shape[1] % width == 0 and picture.shape[0] % height == 0


def test_a_divider_has_all_layers_and_shows_what_is_wrong(scenes):
    split = scenes["test"]
    predicted = np.array(split.labels)
    predicted[predicted == VOID] = 0
    first = tuple(np.argwhere(split.labels[1] != VOID)[0])
    predicted[1][first] = (split.labels[1][first] + 1) % len(split.classes)
    shown = pictures.sliders(split, {"worst <b>": 1}, predicted, "a & b").titled("Here.")
    html = shown._repr_mimebundle_()["text/html"]
    assert "worst &lt;b&gt;" in html and "Prediction of a &amp; b" in html
    layers = {kind.split()[0]: pixels for kind, _, pixels in decoded(html)}
    assert list(layers) == ["prediction", "errors", "truth", "image"]
    np.testing.assert_array_equal(layers["truth"], pictures.paint(split.labels[1], split))
    wrong = (layers["errors"] == pictures.WRONG).all(-1)
    assert np.argwhere(wrong).tolist() == [list(first)]


def test_a_legend_names_every_class():
    few = SimpleNamespace(classes=("road", "<sky>"), colours=((1, 2, 3), (4, 5, 6)))
    html = pictures.legend(few).data
    assert "rgb(1 2 3)" in html and "&lt;sky&gt;" in html and "not labelled" in html
