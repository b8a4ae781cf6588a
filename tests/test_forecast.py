import json

import pytest
import torch
from conftest import SMALL

from roadseg import forecast, study

PARAMS = """\
{{study: timed, title: t, root: ., params: params.yaml, plan: plan.yaml, remarks: [], seeds: [0, 1],
data: {data}, base: {{network: "fcn8s:tu-test_resnet", steps: 100}},
tricks: {{flip: {{knobs: {{flip: 0.5}}}}, mirror: {{knobs: {{test_flip: true}}}},
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
