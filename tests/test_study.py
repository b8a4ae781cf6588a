import re

import pytest
from ruamel.yaml import YAML

from roadseg import study
from roadseg.recipe import InputError

TEXT = """\
study: tiny
title: A tiny study
root: .
params: params.yaml
plan: plan.yaml
data: {source: synthetic, path: roadseg/synthetic.py, size: [64, 96], block: 1, seed: 0,
       counts: {train: 4, val: 2, test: 2}}
seeds: [0, 1]
remarks: []
base: {network: "fcn8s:resnet18", steps: 10}
tricks:
  flip: {knobs: {flip: 0.5}, source: someone}
  adamw: {knobs: {optimizer: adamw, weight_decay: 0.01}}
  poly: {knobs: {schedule: poly}}
studies:
  heads:
    question: Which?
    networks: {baseline: baseline, fcn-8s: "fcn8s:resnet18"}
  ladder:
    question: What helps?
    start: fcn-8s
    ladder: [flip, adamw, poly]
"""


def load(tmp_path, text=TEXT):
    file = tmp_path / "params.yaml"
    file.write_text(text)
    return study.load(file)


def test_a_ladder_adds_one_trick_at_each_rung(tmp_path):
    arms = load(tmp_path).studies["ladder"].arms
    assert list(arms) == ["fcn-8s", "with-flip", "with-adamw", "with-poly"]
    base = {"network": "fcn8s:resnet18", "steps": 10}
    added = [{}, {"flip": 0.5}, {"optimizer": "adamw", "weight_decay": 0.01}, {"schedule": "poly"}]
    settings = dict(base)
    for recipe, extra in zip(arms.values(), added, strict=True):
        settings |= extra
        assert recipe.differences() == settings


def test_the_baseline_is_the_one_beside_fcn(tmp_path):
    first = '  sizes:\n    question: q\n    networks: {wide: baseline, narrow: "baseline:0.5"}\n'
    text = TEXT.replace("studies:\n", "studies:\n" + first).replace(
        "{baseline: baseline,", "{small: 'baseline:0.25',"
    )
    plan = load(tmp_path, text)
    assert next(iter(plan.arms)) == "wide"
    assert (plan.fcn.name, plan.baseline) == ("heads", "small")


def test_equal_recipes_train_once(tmp_path):
    plan = load(tmp_path)
    assert list(plan.runs) == [
        f"{arm}-s{seed}"
        for arm in ("baseline", "fcn-8s", "with-flip", "with-adamw", "with-poly")
        for seed in (0, 1)
    ]
    assert plan.arm(plan.studies["ladder"].arms["fcn-8s"]) == "fcn-8s"


def test_equal_recipes_may_have_two_names(tmp_path):
    more = '  again:\n    question: q\n    networks: {plain: "fcn8s:resnet18", unet: "smp:unet:resnet18"}\n'
    plan = load(tmp_path, TEXT + more)
    assert "plain" not in plan.arms and "unet" in plan.arms
    assert plan.arm(plan.studies["again"].arms["plain"]) == "fcn-8s"


def test_the_plan_s_text_reads_back_as_its_runs(tmp_path):
    plan = load(tmp_path, TEXT.replace("steps: 10", "steps: 10, lr: 3e-4"))
    read = YAML(typ="safe").load(plan.text())
    assert read["runs"] == plan.runs
    assert "0.0003" not in plan.text()  # the default leaves no trace
    tiny = load(tmp_path, TEXT.replace("steps: 10", "steps: 10, lr: 1e-5"))
    assert "lr: 0.00001\n" in tiny.text()  # never 1e-05, which YAML 1.1 reads as text


def test_a_ladder_may_start_from_an_arm_of_an_earlier_study(tmp_path):
    plan = load(tmp_path, TEXT.replace("start: fcn-8s", "start: baseline"))
    arms = plan.studies["ladder"].arms
    assert all(recipe.network == "baseline" for recipe in arms.values())
    assert plan.baseline == "baseline" and len(plan.arms) == 5


@pytest.mark.parametrize("lr", ["0.00012345678901234", "1e-13", "3", "0.1"])
def test_the_plan_keeps_every_digit(tmp_path, lr):
    plan = load(tmp_path, TEXT.replace("steps: 10", f"steps: 10, lr: {lr}"))
    read = YAML(typ="safe").load(plan.text())["runs"]
    assert read == plan.runs and not re.search(r"\de-\d", plan.text())


def test_yaml_1_2_numbers(tmp_path):
    plan = load(tmp_path, TEXT.replace("steps: 10", "steps: 10, lr: 1e-3"))
    assert next(iter(plan.arms.values())).lr == 0.001


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seeds:", "sedes:", "sedes: no such setting. Did you mean 'seeds'?"),
        ("seeds: [0, 1]", "seeds: []", "seeds: [] is not allowed"),
        ("seeds: [0, 1]", "seeds: 3", "seeds: 3 is not allowed; give a list."),
        ("seeds: [0, 1]", "seeds: [1, 1]", "seeds: [1, 1] is not allowed"),
        ("title: A tiny study\n", "", "title: missing."),
        ("study: tiny", "study: ../tiny", "study: '../tiny' cannot name a file"),
        ("size: [64, 96]", "size: [64]", "data: size: [64] is not allowed; give [height, width]"),
        ("seed: 0,", "", "data: seed: give a whole number"),
        ("train: 4, ", "", "data: counts: "),
        ("steps: 10", "stesp: 10", "base: stesp: no such knob. Did you mean 'steps'?"),
        ("steps: 10", "seed: 1", "base: seed: set 'seeds' instead"),
        ("flip: 0.5}", "flip: 1.5}", "tricks: flip: flip: 1.5 is not allowed"),
        ("flip: 0.5}", "filp: 0.5}", "tricks: flip: filp: no such knob. Did you mean 'flip'?"),
        ("flip: 0.5}", "flip: 0.0}", "tricks: flip: flip is 0.0 already without it"),
        ("{knobs: {flip: 0.5}, source: someone}", "{knobs: {}}", "tricks: flip: sets no knob"),
        ("{schedule: poly}", "{optimizer: adam}", "studies: ladder: adamw and poly both set"
         " optimizer"),
        ("[flip, adamw, poly]", "[flop, adamw]", "studies: ladder: 'flop' is no trick."
         " Did you mean 'flip'?"),
        ("    start: fcn-8s\n", "", "studies: ladder: start: missing"),
        ("start: fcn-8s", "start: fcn8s", "studies: ladder: start: 'fcn8s' is no arm of an earlier"
         " study. Did you mean 'fcn-8s'?"),
        ("    ladder: [flip, adamw, poly]", "    ladder: [flip]\n  more:\n    question: And?\n"
         "    start: baseline\n    ladder: [flip]", "studies: more: arm with-flip is another recipe in"
         " ladder (network differ); rename one. A rung is named after its trick"),
        ("[flip, adamw, poly]", "[]", "studies: ladder: has 1 arm; a comparison needs two or more."),
        ("[flip, adamw, poly]", "[{flip: 1}]", "studies: ladder: {'flip': 1} is no trick."),
        ("    start: fcn-8s", "    start: fcn-8s\n    tricks: [flip]", "studies: ladder: tricks: has no"
         " effect here; leave it out."),
        ("    networks: {", "    start: a\n    networks: {", "studies: heads: start: has no effect"),
        ("baseline: baseline", "unet: 'smp:unet:resnet18'", "studies: the report compares the baseline"
         " with FCN; give one study"),
        ("    start: fcn-8s\n    ladder: [flip, adamw, poly]", "    networks: {a: baseline, b:"
         " 'smp:unet:resnet18'}", "studies: the report needs a ladder"),
        ("fcn-8s: \"fcn8s", "fcn.8s: \"fcn8s", "studies: heads: arm: 'fcn.8s' cannot name a file"),
        ("    networks: {", "    ladder: [flip]\n    networks: {", "studies: heads: give either"),
        ("fcn-8s: \"fcn8s:resnet18\"", "again: baseline", "studies: heads: networks: two arms are"),
        ("remarks: []", "remarks: none", "remarks: 'none' is not allowed; give a list."),
        ("seeds: [0, 1]", "seeds: [0, 1]\nseeds: [2]", "9: not valid YAML"),
        ("seeds: [0, 1]", "\tseeds: [0, 1]", "8: not valid YAML"),
    ],
)  # fmt: skip
def test_bad_settings_are_named(tmp_path, old, new, message):
    assert old in TEXT
    with pytest.raises(InputError) as caught:
        load(tmp_path, TEXT.replace(old, new, 1))
    text = str(caught.value)
    assert text.startswith(f"{tmp_path}/params.yaml: ")
    assert text.removeprefix(f"{tmp_path}/params.yaml: ").removeprefix("line ").startswith(message)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match="nowhere.yaml: no such file."):
        study.load(tmp_path / "nowhere.yaml")
