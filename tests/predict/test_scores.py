import dataclasses
import json

import numpy as np
import pytest
import torch
from sklearn.metrics import precision_score, recall_score
from strongest import about

from roadseg.__main__ import main
from roadseg.config.recipe import Recipe
from roadseg.config.study import load
from roadseg.data.scenes import UNLABELLED, Scenes
from roadseg.errors import InputError
from roadseg.predict import evaluate as module
from roadseg.predict.weights import Weights, pack
from roadseg.training.evaluate import evaluate as count_pixels
from roadseg.training.loop import make_network
from roadseg.training.metrics import Confusion


@pytest.fixture
def study(prepared, monkeypatch):
    """The embedded study, with fewer scenes, and smaller."""
    data = load().data | {"size": [48, 96], "seed": 3, "counts": {"train": 6, "val": 2, "test": 4}}
    study = dataclasses.replace(load(), data=data)
    monkeypatch.setattr(type(study), "prepared", property(lambda _: prepared))
    return study


@pytest.fixture
def weights(study):
    scenes = Scenes.load(study.prepared, "test")
    torch.manual_seed(0)
    recipe = {"network": "fcn8s:tu-test_resnet", "precision": "fp32"}
    return Weights(
        about(recipe=recipe, classes=list(scenes.classes), colours=[list(c) for c in scenes.colours]),
        make_network(Recipe.of(recipe), len(scenes.classes)), "0",
    )  # fmt: skip


def score(weights, study, tmp_path, size=None):
    pack(weights, tmp_path / "w.pt")
    return module.evaluate(str(tmp_path / "w.pt"), study, size)


def test_scores_are_those_of_the_study_and_of_another_library(weights, study, tmp_path):
    scores = score(weights, study, tmp_path)
    scenes, kept = Scenes.load(study.prepared, "test"), []
    network = module.load_weights(str(tmp_path / "w.pt"))
    counts = count_pixels(
        network, scenes, torch.device("cpu"), precision="fp32", keep=lambda p, *_: kept.append(p.numpy())
    )
    confusion = Confusion(counts.sum(0))
    assert scores.overall["mIoU"] == confusion.miou and scores.overall["accuracy"] == confusion.accuracy
    np.testing.assert_array_equal(scores.classes["IoU"], confusion.iou)
    labels, predicted = np.array(scenes.labels).ravel(), np.concatenate(kept).ravel()
    labelled = labels != UNLABELLED
    numbers = range(len(scenes.classes))
    for name, function in (("precision", precision_score), ("recall", recall_score)):
        expected = function(
            labels[labelled], predicted[labelled], labels=numbers, average=None, zero_division=np.nan
        )
        np.testing.assert_allclose(scores.classes[name], expected)
    np.testing.assert_array_equal(
        scores.classes["pixels"], np.bincount(labels[labelled], minlength=len(numbers))
    )


def test_another_size_is_prepared_for_it_and_leaves_the_study_s_own(weights, study, tmp_path):
    before = (study.prepared / "scenes.json").read_bytes()
    scores = score(weights, study, tmp_path, ["32", "64"])
    assert scores.about["size"] == "32 x 64" and scores.about["images"] == study.data["counts"]["test"]
    assert (study.prepared / "scenes.json").read_bytes() == before
    for wrong in (["32"], ["32", "x"], ["0", "64"], ["99999", "64"], ["huge"]):
        with pytest.raises(InputError, match="--size"):
            score(weights, study, tmp_path, wrong)


def test_json_has_all_of_it(weights, study, tmp_path):
    scores = score(weights, study, tmp_path)
    scores.write(tmp_path / "scores.json")
    content = json.loads((tmp_path / "scores.json").read_text())
    assert content["overall"] == pytest.approx(scores.overall) and content["about"]["study"] == "synthetic"
    for name, row in content["classes"].items():
        expected = scores.classes.loc[name, "IoU"]
        assert row["IoU"] is None if np.isnan(expected) else row["IoU"] == pytest.approx(expected)
    assert all(name in str(scores) for name in scores.classes.index)


def test_other_classes_are_named(study, tmp_path, capsys):
    torch.manual_seed(0)
    recipe = {"network": "fcn8s:tu-test_resnet"}
    pack(Weights(about(recipe=recipe), make_network(Recipe.of(recipe), 3), "0"), tmp_path / "w.pt")
    assert main(["evaluate", str(tmp_path / "w.pt"), "synthetic"]) == 2
    message = capsys.readouterr().err
    assert "blue, green, red" in message and "bicycle" in message
