import ast
import inspect
import json
import re
import runpy

import pandas as pd
import pytest
from ruamel.yaml import YAML

from roadseg import __main__ as commands
from roadseg.config import study
from roadseg.config.settings import read_lines
from roadseg.errors import InputError
from roadseg.models import build as models
from roadseg.training import loop as train

TEXT = """\
study: tiny
title: A tiny study
root: .
params: params.yaml
plan: plan.yaml
data: {source: synthetic, path: roadseg/data/synthetic.py, size: [64, 96], block: 1, seed: 0,
       counts: {train: 4, val: 2, test: 2}}
seeds: [0, 1]
remarks: []
networks: {}
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


def refused(tmp_path, text: str) -> list[str]:
    """Return the problems of settings, each as 'LINE: ...'."""
    with pytest.raises(InputError) as caught:
        load(tmp_path, text)
    first, *rest = str(caught.value).split("\n")
    file = f"{tmp_path}/params.yaml:"
    listed = rest or [first]
    assert not rest or first == f"{file} {len(rest)} problems:"
    assert all(line.startswith(file) for line in listed)
    return [line.removeprefix(file) for line in listed]


def only(tmp_path, text: str) -> str:
    """Return the one problem of settings, without its line."""
    (problem,) = refused(tmp_path, text)
    return re.sub(r"^\d+: ", "", problem)


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


def test_the_plan_s_text_reads_back_as_its_arms(tmp_path):
    plan = load(tmp_path, TEXT.replace("steps: 10", "steps: 10, lr: 3e-4"))
    read = YAML(typ="safe").load(plan.text())
    assert read["arms"] == plan.written
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
    read = YAML(typ="safe").load(plan.text())["arms"]
    assert read == plan.written and not re.search(r"\de-\d", plan.text())


def test_yaml_1_2_numbers(tmp_path):
    plan = load(tmp_path, TEXT.replace("steps: 10", "steps: 10, lr: 1e-3"))
    assert next(iter(plan.arms.values())).lr == 0.001


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seeds:", "sedes:", "sedes: no such setting. Did you mean 'seeds'?"),
        ("seeds: [0, 1]", "seeds: []", "seeds: [] is not allowed"),
        ("seeds: [0, 1]", "seeds: 3", "seeds: 3 is not allowed; give a list of different whole numbers >= 0."),
        ("seeds: [0, 1]", "seeds: [1, 1]", "seeds: [1, 1] is not allowed"),
        ("title: A tiny study\n", "", "title: missing; give text."),
        ("study: tiny", "study: ../tiny", "study: '../tiny' cannot name a file"),
        ("size: [64, 96]", "size: [64]", "data: size: [64] is not allowed; give [height, width]"),
        ("seed: 0,", "", "data: seed: missing; give a whole number; the scenes"),
        ("train: 4, ", "", "data: counts: train: missing; give a whole number >= 1."),
        ("steps: 10", "stesp: 10", "base: stesp: no such knob. Did you mean 'steps'?"),
        ("steps: 10", "seed: 1", "base: seed: set 'seeds' instead"),
        ("flip: 0.5}", "flip: 1.5}", "tricks: flip: flip: 1.5 is not allowed"),
        ("flip: 0.5}", "filp: 0.5}", "tricks: flip: filp: no such knob. Did you mean 'flip'?"),
        ("flip: 0.5}", "flip: 0.0}", "studies: ladder: tricks: flip: flip is 0.0 already without it"),
        ("{knobs: {flip: 0.5}, source: someone}", "{knobs: {}}", "tricks: flip: sets no knob"),
        ("{schedule: poly}", "{optimizer: adam}", "studies: ladder: adamw and poly both set"
         " optimizer; the second would undo the first"),
        ("[flip, adamw, poly]", "[flop, adamw]", "studies: ladder: 'flop' is no trick."
         " Did you mean 'flip'?"),
        ("    start: fcn-8s\n", "", "studies: ladder: start: missing"),
        ("start: fcn-8s", "start: fcn8s", "studies: ladder: start: 'fcn8s' is no arm of an earlier"
         " study. Did you mean 'fcn-8s'?"),
        ("    ladder: [flip, adamw, poly]", "    ladder: [flip]\n  more:\n    question: And?\n"
         "    start: baseline\n    ladder: [flip]", "studies: more: arm with-flip is another recipe in"
         " ladder (network differ); rename one. A rung is named after its trick"),
        ("[flip, adamw, poly]", "[]", "studies: ladder: ladder: lists 0 tricks; a comparison needs one or more."),
        ("[flip, adamw, poly]", "[flip, flip]", "studies: ladder: ladder: lists 'flip' twice; drop one."),
        ("[flip, adamw, poly]", "[{flip: 1}]", "studies: ladder: {'flip': 1} is no trick."),
        ("    start: fcn-8s", "    start: fcn-8s\n    tricks: [flip]", "studies: ladder: tricks: has no"
         " effect here; leave it out."),
        ("    networks: {", "    start: a\n    networks: {", "studies: heads: start: has no effect"),
        ("    start: fcn-8s", "    start: fcn-8s\n    goal: {miou: 0.6, gmacs: 6}", "studies: ladder: goal:"
         " has no effect here; leave it out."),
        ("    start: fcn-8s", "    start: fcn-8s\n    goal: {miou: 60, gmacs: 6}", "studies: ladder: goal:"
         " miou: 60 is not allowed; give a score between 0 and 1."),
        ("fcn-8s: \"fcn8s", "fcn.8s: \"fcn8s", "studies: heads: arm: 'fcn.8s' cannot name a file"),
        ("    networks: {", "    ladder: [flip]\n    networks: {", "studies: heads: give exactly one of networks, ladder,"),
        ("fcn-8s: \"fcn8s:resnet18\"", "again: baseline", "studies: heads: networks: two arms are"),
        ("remarks: []", "remarks: none", "remarks: 'none' is not allowed; give a list of texts, or []."),
        ("seeds: [0, 1]", "seeds: [0, 1]\nseeds: [2]", "seeds: stands on lines 8 and 9; keep one of them."),
        ("seeds: [0, 1]", "\tseeds: [0, 1]", "a tab before the text; YAML is indented with spaces."),
    ],
)  # fmt: skip
def test_bad_settings_are_named(tmp_path, old, new, message):
    assert old in TEXT
    assert only(tmp_path, TEXT.replace(old, new, 1)).startswith(message)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match="nowhere.yaml: no such file."):
        study.load(tmp_path / "nowhere.yaml")


MORE = """\
  without:
    question: Which are needed?
    start: fcn-8s
    leave_one_out: [flip, adamw, poly]
  each:
    question: What does each do?
    start: fcn-8s
    alone: [flip, poly]
  spread:
    question: How far do seeds spread?
    start: fcn-8s
    noise: [0, 1, 2, 5]
"""


def test_leave_one_out_takes_one_trick_from_all(tmp_path):
    plan = load(tmp_path, TEXT + MORE)
    found = plan.studies["without"]
    everything = found.arms["fcn-8s-all"]
    assert everything == plan.studies["ladder"].arms["with-poly"]
    without = {"flip": {"flip": 0.0}, "adamw": {"optimizer": "adam", "weight_decay": 0.0},
               "poly": {"schedule": "fixed"}}  # fmt: skip
    for trick, neutral in without.items():
        assert found.arms[f"fcn-8s-all-but-{trick}"] == everything.changed(neutral)
        assert (trick, "fcn-8s-all", f"fcn-8s-all-but-{trick}") in found.effects
    assert len(found.effects) == 3 and len(found.arms) == 4


def test_alone_puts_one_trick_on_the_start(tmp_path):
    plan = load(tmp_path, TEXT + MORE)
    found, start = plan.studies["each"], plan.arms["fcn-8s"]
    assert found.arms == {
        "fcn-8s": start, "fcn-8s-flip": start.changed({"flip": 0.5}),
        "fcn-8s-poly": start.changed({"schedule": "poly"}),
    }  # fmt: skip
    assert found.effects == (("flip", "fcn-8s-flip", "fcn-8s"), ("poly", "fcn-8s-poly", "fcn-8s"))


def test_a_noise_study_trains_its_arm_with_more_seeds(tmp_path):
    plan = load(tmp_path, TEXT + MORE)
    assert plan.seeds_of("fcn-8s") == (0, 1, 2, 5) and plan.seeds_of("baseline") == (0, 1)
    assert [run for run in plan.runs if run.startswith("fcn-8s-s")] == [
        f"fcn-8s-s{s}" for s in (0, 1, 2, 5)
    ]
    assert plan.written["fcn-8s"]["seeds"] == [0, 1, 2, 5]


def test_studies_share_what_is_equal(tmp_path):
    """Of 4 + 4 + 3 + 1 + 2 arms, the start occurs five times, flip and two ladders' ends twice."""
    plan = load(tmp_path, TEXT + MORE)
    shared = {plan.arm(plan.studies[study].arms[arm]) for study, arm in [
        ("without", "fcn-8s-all"), ("without", "fcn-8s-all-but-poly"), ("each", "fcn-8s-flip"),
        ("spread", "fcn-8s")]}  # fmt: skip
    assert shared == {"with-poly", "with-adamw", "with-flip", "fcn-8s"}
    assert list(plan.arms) == [
        "baseline", "fcn-8s", "with-flip", "with-adamw", "with-poly", "fcn-8s-all-but-flip",
        "fcn-8s-all-but-adamw", "fcn-8s-poly",
    ]  # fmt: skip


def test_runs_that_differ_in_testing_share_their_training(tmp_path):
    text = TEXT.replace("  poly: {", "  mirror: {knobs: {test_flip: true}}\n  poly: {").replace(
        "adamw, poly]", "adamw, mirror, poly]"
    )
    plan = load(tmp_path, text)
    assert len(plan.runs) == 12 and len(plan.trainings) == 10
    assert plan.trainings[plan.runs["with-mirror-s0"].training] == "with-adamw-s0"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("leave_one_out: [flip, adamw, poly]", "leave_one_out: [flip]", "studies: without: leave_one_out:"
         " lists 1 tricks; a comparison needs two or more."),
        ("alone: [flip, poly]", "alone: [flip, polly]", "studies: each: 'polly' is no trick. Did you mean"
         " 'poly'?"),
        ("noise: [0, 1, 2, 5]", "noise: [0, -1]", "studies: spread: noise: [0, -1] is not allowed"),
        ("noise: [0, 1, 2, 5]", "noise: 5", "studies: spread: noise: 5 is not allowed; give a list of different"),
        ("    start: fcn-8s\n    noise", "    noise", "studies: spread: start: missing"),
        ("alone: [flip, poly]", "alone: [flip, poly]\n    tricks: [flip]", "studies: each: tricks: has no"
         " effect here"),
    ],
)  # fmt: skip
def test_bad_studies_are_named(tmp_path, old, new, message):
    text = TEXT + MORE
    assert old in text
    assert only(tmp_path, text.replace(old, new, 1)).startswith(message)


def test_tricks_of_a_networks_study_and_one_name_for_two_recipes(tmp_path):
    both = TEXT.replace("networks: {base", "tricks: [adamw, again]\n    networks: {base").replace(
        "  poly: {", "  again: {knobs: {optimizer: adamw}}\n  poly: {"
    )
    with pytest.raises(InputError, match="studies: heads: adamw and again both set optimizer"):
        load(tmp_path, both)
    more = "  second:\n    question: q\n    start: baseline\n    ladder: [mirror]\n"
    text = TEXT.replace("  poly: {", "  mirror: {knobs: {test_scales: [1, 2]}}\n  poly: {").replace(
        "adamw, poly]", "mirror]"
    )
    with pytest.raises(
        InputError, match="arm with-mirror is another recipe in ladder .*network.* differ"
    ):
        load(tmp_path, text + more)


def test_a_file_of_weights_is_part_of_the_plan_by_content(tmp_path, monkeypatch):
    monkeypatch.setattr("roadseg.training.weights.ROOT", tmp_path)
    text = TEXT.replace(
        "  poly: {", "  start: {knobs: {pretrained: 'file:w.pt'}}\n  poly: {"
    ).replace("[flip, adamw, poly]", "[start]")
    plan = load(tmp_path, text)
    with pytest.raises(InputError, match="file:w.pt: no such file"):
        plan.text()
    (tmp_path / "w.pt").write_bytes(b"one")
    first = plan.text()
    assert len(plan.written["with-start"]["starts_from"]) == 2  # one of each seed
    assert YAML(typ="safe").load(first)["arms"] == plan.written
    (tmp_path / "w.pt").write_bytes(b"two")
    assert plan.text() != first


def test_a_trick_that_no_study_uses_is_checked_too(tmp_path):
    text = TEXT.replace("studies:\n", "  idle: {knobs: {focal_gama: 2.0}}\nstudies:\n", 1)
    with pytest.raises(
        InputError, match="tricks: idle: focal_gama: no such knob. Did you mean 'focal_gamma'?"
    ):
        load(tmp_path, text)
    with pytest.raises(InputError, match="tricks: idle: focal_gamma: 99 is not allowed"):
        load(tmp_path, text.replace("focal_gama: 2.0", "focal_gamma: 99"))


LISTED = TEXT.replace("networks: {}\n", "").replace("studies:\n", """networks:
  small: {network: "baseline:0.5", idea: i, source: s}
  unet: {network: "smp:unet:resnet18"}
  never: {network: "dabnet"}
studies:
""", 1) + """\
  sizes:
    question: q
    tricks: [search]
    networks: [small, unet]
"""  # fmt: skip
LISTED = LISTED.replace(
    "  poly: {", "  search: {knobs: {lr_search: [0.5, 2.0], lr_search_steps: 3}}\n  poly: {"
)


def test_a_study_takes_networks_from_the_list_and_names_arms_after_itself(tmp_path):
    plan = load(tmp_path, LISTED)
    sizes = plan.studies["sizes"]
    assert list(sizes.arms) == ["small-sizes", "unet-sizes"]  # other recipes than `small` has alone
    assert sizes.labels == {"small-sizes": "small", "unet-sizes": "unet"}
    assert sizes.shared == ("search",)
    searched = {"steps": 10, "lr_search": [0.5, 2.0], "lr_search_steps": 3}
    assert sizes.arms["small-sizes"].differences() == {"network": "baseline:0.5", **searched}
    assert plan.networks["small"] == study.Network("small", "baseline:0.5", "i", "s")
    assert "dabnet" not in plan.text() and plan.compared.name == "sizes"  # not that of the FCN
    plain = load(tmp_path, LISTED.replace("    tricks: [search]\n", ""))
    assert list(plain.studies["sizes"].arms) == ["small", "unet"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[small, unet]", "[small, unte]", "studies: sizes: 'unte' is none of the settings'"
         " networks. Did you mean 'unet'?"),
        ("[small, unet]", "[small, small]", "studies: sizes: networks: lists 'small' twice; drop one."),
        ("[small, unet]", "[]", "studies: sizes: networks: lists no network; name one or more."),
        ("[small, unet]", "small", "studies: sizes: networks: 'small' is not allowed; give a list of"
         " names, or 'name: network' lines."),
        ("small: {network:", "small: {netwrk:", "networks: small: netwrk: no such setting. Did you"),
        ('{network: "dabnet"}', "{idea: none}", "networks: never: network: missing"),
        ("lr_search: [0.5, 2.0]", "lr_search: [0.5, 0.5]", "tricks: search: lr_search: [0.5, 0.5] is"
         " not allowed; it must be a list of different factors in [0.001, 1000]."),
        ("lr_search: [0.5, 2.0], ", "", "studies: sizes: tricks: search: lr_search_steps: has no effect without"
         " lr_search"),
        ("ladder: [flip, adamw, poly]", "ladder: curse", "studies: ladder: ladder: 'curse' is not"
         " allowed; give a list of tricks, or 'course' for the course study's: transfer, adamw-poly,"),
    ],
)  # fmt: skip
def test_bad_lists_of_networks_are_named(tmp_path, old, new, message):
    assert old in LISTED
    assert only(tmp_path, LISTED.replace(old, new, 1)).startswith(message)


def test_the_course_study_s_ladder_has_its_order():
    content, problems = read_lines(study.ROOT / "params.yaml", "params.yaml")
    content["studies"]["ladder"]["ladder"] = "course"
    plan = study.parse(content, problems)
    reported = pd.read_csv(study.ROOT / "data/reference_ladder.csv").trick[1:]
    words = {
        "adamw-poly": "AdamW + poly schedule",
        "class-balanced": "class-balanced loss",
        "transfer": "transfer learning",
        "ohem": "OHEM",
        "auxiliary-head": "auxiliary FCN head",
    }
    rungs = [trick for trick, _, _ in plan.studies["ladder"].effects]
    joined = [words.get(trick, trick) for trick in rungs if trick != "multi-scale-testing"]
    assert [
        t.replace("multi-scale-training", "multi-scale training and testing") for t in joined
    ] == (list(reported))


def test_each_distinct_network_is_built_once(tmp_path, monkeypatch):
    """Two networks, and one with an auxiliary head; what only training sees needs no other."""
    head = "  poly: {knobs: {schedule: poly}}\n  head: {knobs: {aux_weight: 0.4}}\n"
    text = TEXT.replace("  poly: {knobs: {schedule: poly}}\n", head)
    plan = load(tmp_path, text.replace("adamw, poly]", "adamw, poly, head]"))
    built = []
    monkeypatch.setattr(models, "on_meta", lambda make: built.append(make.args[0]))
    commands._check_settings(plan)
    assert [(network.network, network.aux_weight) for network in built] == [
        ("baseline", 0.0), ("fcn8s:resnet18", 0.0), ("fcn8s:resnet18", 0.4)
    ]  # fmt: skip


def test_a_network_alone_has_all_that_building_reads():
    """A knob that `make_network` begins to read is one that tells networks apart."""
    tree = ast.parse(inspect.getsource(train.make_network))
    read = {
        node.attr for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == "recipe"
    }  # fmt: skip
    assert read == set(study.NETWORK_KNOBS)


def test_a_simulated_study_is_as_large_as_its_benchmark_says(tmp_path):
    benchmark = runpy.run_path(str(study.ROOT / "benchmarks/thousand.py"))
    plan = load(tmp_path, json.dumps(benchmark["settings"](22)))
    assert len(plan.runs) == benchmark["OTHER_RUNS"] + 22 * benchmark["RUNS_OF_A_FAMILY"]
    assert [plan.arm(recipe) for recipe in plan.arms.values()] == list(plan.arms)
    assert {plan.seeds_of(arm) for arm in plan.arms} == {(0, 1, 2), (0, 1, 2, 3, 4)}


def test_a_plan_without_some_arms_compares_the_others(tmp_path):
    luck = "  luck: {question: Luck, start: with-flip, noise: [0, 1, 2]}\n"
    plan = load(tmp_path, TEXT + luck)
    assert plan.without(()).studies == plan.studies
    left = plan.without({"with-flip"})
    assert list(left.arms) == [arm for arm in plan.arms if arm != "with-flip"]
    assert list(left.studies) == ["heads", "ladder"]  # seeds of what is not there: nothing is left to ask
    assert left.studies["heads"] == plan.studies["heads"]
    assert left.studies["ladder"].effects == (("poly", "with-poly", "with-adamw"),)
    assert left.seeds_of("with-poly") == (0, 1)
    first = plan.without({"fcn-8s"})
    assert list(first.studies["heads"].arms) == ["baseline"] and first.fcn is None
    assert first.baseline == "baseline" and first.compared.name == "heads"
    assert plan.without(set(plan.arms)).studies == {}


def test_a_study_may_be_one_arm(tmp_path):
    text = TEXT[: TEXT.index("studies:")] + 'studies:\n  one: {question: Score, networks: {unet: "unet:0.1"}}\n'
    plan = load(tmp_path, text)
    assert list(plan.runs) == ["unet-s0", "unet-s1"]
    assert plan.fcn is None and plan.baseline is None and plan.compared.name == "one"
