import dataclasses
import json

import pytest
import torch
from conftest import SMALL

from roadseg.config import study
from roadseg.training import plan as forecast
from roadseg.training import run as runs

PARAMS = """\
{{study: timed, title: t, root: ., params: params.yaml, plan: plan.yaml, remarks: [], seeds: [0, 1],
data: {data}, base: {{network: "fcn8s:tu-test_resnet", steps: 100}},
networks: {{}}, tricks: {{flip: {{knobs: {{flip: 0.5}}}}, mirror: {{knobs: {{test_flip: true}}}},
         start: {{knobs: {{pretrained: "scenes:9", pretrain_steps: 50}}}}}},
studies: {{heads: {{question: q, networks: {{baseline: "baseline:0.05", fcn: "fcn8s:tu-test_resnet"}}}},
          ladder: {{question: q, start: fcn, ladder: [start, flip, mirror]}}}}}}
"""


@pytest.fixture
def plan(tmp_path, monkeypatch):
    (tmp_path / "params.yaml").write_text(PARAMS.format(data=json.dumps(SMALL)))
    monkeypatch.setattr(study, "ROOT", tmp_path)
    return study.load("params.yaml")


def test_shared_trainings_count_once(plan, monkeypatch):
    """At 0.1 s a step: four trainings of 100 steps and one pre-training of 50, two seeds each."""
    timed = []
    monkeypatch.setattr(forecast, "step_seconds", lambda recipe, *_: timed.append(recipe) or 0.1)
    monkeypatch.setattr(forecast, "START_SECONDS", 0)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    text = forecast.forecast(plan)
    assert text.startswith("Training takes about 45 s on ")
    assert "the slowest arm is with-start (15 s)" in text
    assert len(timed) == 4  # two networks, the pre-training, the flip; others are as long as these
    timed.clear()
    assert forecast.forecast(plan) == text and not timed  # kept


def test_a_step_is_measured(plan):
    recipe = plan.arms["fcn"].changed({"batch_size": 2, "teacher": "baseline:0.05", "distill_weight": 1.0})
    threads = torch.get_num_threads()
    seconds = forecast.step_seconds(recipe, (48, 96), 19)
    assert 0 <= seconds < 10 and torch.get_num_threads() == threads


def test_a_search_counts_once_for_all_seeds(plan, monkeypatch):
    """Two trials of 30 steps on two cores at once, and two seeds of 100 steps: 130 times 0.1 s."""
    monkeypatch.setattr(forecast, "step_seconds", lambda *_: 0.1)
    recipe = plan.arms["fcn"].changed({"lr_search": [0.5, 2.0], "lr_search_steps": 30})
    groups = forecast._groups(recipe, (0, 1))
    assert [[part.steps for part in group] for group in groups] == [[30, 30], [100, 100]]
    assert {part.lr for part in groups[0]} == {0.00015, 0.0006} and groups[1][1].seed == 1


def test_a_large_step_is_told_from_a_small_one(plan, monkeypatch):
    monkeypatch.setattr(forecast, "MOST_PIXELS", 2 * 128 * 128)
    timed = []
    monkeypatch.setattr(forecast, "train", lambda recipe, scenes, *_, **__: (
        timed.append(scenes.images.shape) or (0, 0, 0.1 * recipe.steps)
    ))
    seconds = forecast.step_seconds(plan.arms["fcn"].changed({"batch_size": 8}), (384, 384), 19)
    assert {shape[2:] for shape in timed} == {(128, 128)}
    assert seconds == pytest.approx(0.1 * 4 * 9)  # four times the images, nine times the pixels


def test_finished_runs_take_no_time(plan, monkeypatch):
    """With one arm done: three trainings of 100 steps and one pre-training of 50, two seeds each."""
    monkeypatch.setattr(forecast, "step_seconds", lambda *_: 0.1)
    monkeypatch.setattr(forecast, "START_SECONDS", 0)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    done = {("baseline", 0): None, ("baseline", 1): None}
    monkeypatch.setattr(forecast, "finished", lambda _: done)
    text = forecast.forecast(plan)
    assert text.startswith("Training takes about 35 s on ")
    assert text.endswith("2 runs are done already and take none of it.")
    done[("fcn", 0)] = None  # its other seed has a core of its own, and takes as long as both
    assert forecast.forecast(plan).startswith("Training takes about 35 s on ")
    done |= {(arm, seed): None for arm in plan.arms for seed in (0, 1)}
    assert forecast.forecast(plan) == "All of these runs are done already."


def test_what_is_trained_is_finished_until_something_changes(plan, prepared, monkeypatch):
    """Two seeds at once, with fewer threads each than this process has."""
    plan.build.mkdir(parents=True)
    plan.prepared.parent.mkdir(parents=True)
    plan.prepared.symlink_to(prepared)
    cpu = torch.device("cpu")
    monkeypatch.setattr(forecast, "default_device", lambda: cpu)
    short = {arm: recipe.changed({"steps": 2, "batch_size": 2}) for arm, recipe in plan.arms.items()}
    monkeypatch.setitem(plan.__dict__, "arms", short)
    arm = plan.folder("baseline", 0).parent
    records = runs.run_all(
        [short["baseline"].changed({"seed": seed}) for seed in (0, 1)], prepared, arm, device=cpu, say=lambda _: None
    )
    both = {("baseline", 0): arm / "s0", ("baseline", 1): arm / "s1"}
    assert forecast.finished(plan) == {}  # nobody has checked the data
    checked = plan.build / "checked.json"
    checked.write_text(json.dumps({**plan.data, "block": 99}))  # which no training sees
    threads = torch.get_num_threads()
    assert forecast.finished(plan) == both and torch.get_num_threads() == threads

    monkeypatch.setattr(forecast, "ROOT", plan.build)
    forecast.keep(plan, ["fcn"])
    assert not (plan.build / "work").exists()
    forecast.keep(plan, ["baseline"])
    forecast.keep(plan, ["baseline"])
    kept = {folder.name: folder for folder in (plan.build / "work/timed").iterdir()}
    assert kept.keys() == {record.about["training"] for record in records}
    files = {file.name for folder in kept.values() for file in folder.iterdir()}
    assert files == {"record.json", "curve.csv", "weights.pt"}

    settings = forecast._settings
    with monkeypatch.context() as other:
        other.setattr(forecast, "_settings", lambda *a: {**settings(*a), "code": "other"})
        assert forecast.finished(plan) == {}
    monkeypatch.setitem(short, "baseline", short["baseline"].changed({"steps": 3}))
    assert forecast.finished(plan) == {}
    monkeypatch.setitem(short, "baseline", short["baseline"].changed({"steps": 2}))
    (arm / "s1/record.json").write_text("{")
    assert forecast.finished(plan) == {("baseline", 0): arm / "s0"}
    checked.write_text(json.dumps({**plan.data, "seed": 99}))
    assert forecast.finished(plan) == {}


def test_a_run_that_diverged_is_not_forecast_again(plan):
    recipe = plan.arms["fcn"].changed({"seed": 1})
    folder = plan.folder("fcn", 1)
    folder.mkdir(parents=True)
    for written, found in ((recipe, {("fcn", 1)}), (recipe.changed({"lr": 0.5}), set())):
        content = {"recipe": dataclasses.asdict(written), "why": "diverged"}
        (folder / "failed.json").write_text(json.dumps(content))
        assert forecast._failed(plan) == found
