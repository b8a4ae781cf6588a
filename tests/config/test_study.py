"""What a study asks for: its questions, their arms and runs."""

import ast
import dataclasses
import inspect
import json
import re
import runpy

import pandas as pd
import pytest
from tiny import LISTED, MANY, TINY, appended, load, only, refused, spoilt, write

from roadseg.config import paths, study
from roadseg.config.paths import ROOT
from roadseg.config.questions import Network
from roadseg.errors import InputError
from roadseg.training import loop, resolve


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """Let the test's folder be the project's root, so that its catalogue is the only one."""
    monkeypatch.setattr(paths, "ROOT", tmp_path)


def test_a_ladder_adds_one_trick_at_each_rung(tmp_path):
    arms = load(tmp_path).questions["ladder"].arms
    assert list(arms) == ["fcn-8s", "with-flip", "with-adamw", "with-poly"]
    base = {"network": "fcn8s:resnet18", "steps": 10}
    added = [{}, {"flip": 0.5}, {"optimizer": "adamw", "weight_decay": 0.01}, {"schedule": "poly"}]
    settings = dict(base)
    for recipe, extra in zip(arms.values(), added, strict=True):
        settings |= extra
        assert recipe.differences() == settings


def test_the_baseline_is_the_one_beside_fcn(tmp_path):
    first = '  sizes:\n    asks: q\n    networks: {wide: baseline, narrow: "baseline:0.5"}\n'
    loaded = load(tmp_path, spoilt(
        TINY, ("questions:\n", "questions:\n" + first),
        ("{baseline: baseline,", "{small: 'baseline:0.25',"),
    ))  # fmt: skip
    assert next(iter(loaded.arms)) == "wide"
    assert (loaded.fcn.name, loaded.baseline) == ("heads", "small")


def test_equal_recipes_train_once(tmp_path):
    loaded = load(tmp_path)
    assert list(loaded.runs) == [
        f"{arm}-s{seed}"
        for arm in ("baseline", "fcn-8s", "with-flip", "with-adamw", "with-poly")
        for seed in (0, 1)
    ]
    # and the first question that asks for one has its record
    assert loaded.run_folder("fcn-8s", 1) == tmp_path / "build/tiny/runs/heads/fcn-8s/s1"
    assert loaded.run_folder("with-poly", 0) == tmp_path / "build/tiny/runs/ladder/with-poly/s0"


    # of two names for one the first stands for both
    more = '  again:\n    asks: q\n    networks: {plain: "fcn8s:resnet18", unet: "smp:unet:resnet18"}\n'
    loaded = load(tmp_path, appended(TINY, more))
    assert "plain" not in loaded.arms and "unet" in loaded.arms
    again = loaded.questions["again"]
    assert list(again.arms) == ["fcn-8s", "unet"] and again.labels == {"fcn-8s": "plain", "unet": "unet"}


def test_a_ladder_may_start_from_an_arm_of_an_earlier_question(tmp_path):
    loaded = load(tmp_path, spoilt(TINY, ("start: fcn-8s", "start: baseline")))
    arms = loaded.questions["ladder"].arms
    assert all(recipe.network == "baseline" for recipe in arms.values())
    assert loaded.baseline == "baseline" and len(loaded.arms) == 5


@pytest.mark.parametrize("questions", ["questions: {}\n", ""])
def test_a_study_without_a_question_is_refused(tmp_path, questions):
    params = TINY["params.yaml"].partition("questions:")[0] + questions
    assert only(tmp_path, {**TINY, "params.yaml": params}).startswith("params.yaml: questions: ")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match="^nowhere.yaml: no such file.$"):
        study.load("nowhere.yaml")
    for name in ("tiny", "studies/camvid", "..", "camvid/params"):
        with pytest.raises(InputError, match=f"^{name}: no such study. Known: synthetic.$"):
            study.load(name)


def test_leave_one_out_takes_one_trick_from_all(tmp_path):
    loaded = load(tmp_path, MANY)
    question = loaded.questions["without"]
    everything = question.arms["with-poly"]  # the ladder's last rung
    without = {
        "flip": ("fcn-8s-all-but-flip", {"flip": 0.0}),
        "adamw": ("fcn-8s-all-but-adamw", {"optimizer": "adam", "weight_decay": 0.0}),
        "poly": ("with-adamw", {"schedule": "fixed"}),  # the rung before it
    }
    for trick, (arm, neutral) in without.items():
        assert question.arms[arm] == everything.changed(neutral)
        assert (trick, "with-poly", arm) in question.effects
    assert len(question.effects) == 3 and len(question.arms) == 4 and question.start == "fcn-8s"
    assert list(loaded.arms) == [  # what questions share is one arm
        "baseline", "fcn-8s", "with-flip", "with-adamw", "with-poly", "fcn-8s-all-but-flip",
        "fcn-8s-all-but-adamw", "fcn-8s-poly",
    ]  # fmt: skip


def test_alone_puts_one_trick_on_the_start(tmp_path):
    loaded = load(tmp_path, MANY)
    question, start = loaded.questions["each"], loaded.arms["fcn-8s"]
    assert question.arms == {
        "fcn-8s": start, "with-flip": start.changed({"flip": 0.5}),
        "fcn-8s-poly": start.changed({"schedule": "poly"}),
    }  # fmt: skip
    assert question.effects == (("flip", "with-flip", "fcn-8s"), ("poly", "fcn-8s-poly", "fcn-8s"))


LENGTH = "  longer:\n    asks: q\n    start: fcn-8s\n    length: [flip, poly]\n    steps: [5, 20]\n"


def test_a_length_question_tries_tricks_at_several_lengths(tmp_path):
    loaded = load(tmp_path, appended(TINY, LENGTH))
    question, start = loaded.questions["longer"], loaded.arms["fcn-8s"]
    assert question.arms == {
        f"fcn-8s{trick}-{n}-steps": start.changed({"steps": n, **changes})
        for n in (5, 20)
        for trick, changes in (("", {}), ("-flip", {"flip": 0.5}), ("-poly", {"schedule": "poly"}))
    }
    assert question.effects[1] == ("poly at 5 steps", "fcn-8s-poly-5-steps", "fcn-8s-5-steps")
    assert len(question.effects) == 4


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [("{schedule: poly}", "{steps: 7}", "length"),
     *(("    steps: [5, 20]\n", steps, "steps") for steps in ("", "    steps: [5]\n", "    steps: [5, 5]\n", "    steps: [0, 5]\n"))],
)  # fmt: skip
def test_lengths_must_differ_and_be_the_question_s_own(tmp_path, old, new, key):
    assert only(tmp_path, spoilt(appended(TINY, LENGTH), (old, new))).startswith(f"params.yaml: questions: longer: {key}: ")


def test_a_noise_question_trains_its_arm_with_more_seeds(tmp_path):
    loaded = load(tmp_path, MANY)
    assert loaded.seeds_of("fcn-8s") == (0, 1, 2, 5) and loaded.seeds_of("baseline") == (0, 1)
    assert [run for run in loaded.runs if run.startswith("fcn-8s-s")] == [
        f"fcn-8s-s{s}" for s in (0, 1, 2, 5)
    ]
    assert loaded.question_seeds(loaded.questions["spread"]) == (0, 1, 2, 5)
    assert loaded.question_seeds(loaded.questions["heads"]) == (0, 1)
    folders = [loaded.run_folder("fcn-8s", seed).relative_to(loaded.build) for seed in (1, 5)]
    assert list(map(str, folders)) == ["runs/heads/fcn-8s/s1", "runs/spread/fcn-8s/s5"]
    with pytest.raises(InputError, match="^tiny: no question asks for baseline with seed 5.$"):
        loaded.run_folder("baseline", 5)


def test_runs_that_differ_in_testing_share_their_training(tmp_path):
    files = appended(TINY, tricks="mirror: {set: {test_flip: true}}\n")
    loaded = load(tmp_path, spoilt(files, ("adamw, poly]", "adamw, mirror, poly]")))
    assert len(loaded.runs) == 12 and len({run.training for run in loaded.runs.values()}) == 10
    assert loaded.runs["with-mirror-s0"].training == loaded.runs["with-adamw-s0"].training


@pytest.mark.parametrize(
    ("files", "change", "place"),
    [
        (appended(TINY, tricks="again: {set: {optimizer: adamw}}\n"),
         ("networks: {base", "tricks: [adamw, again]\n    networks: {base"), "questions: heads: tricks: "),
        (MANY, ("{schedule: poly}", "{weight_decay: 0.1}}\nother: {set: {schedule: poly}"), "questions: without: leave_one_out: "),
        (appended(TINY, "  second:\n    asks: q\n    start: baseline\n    ladder: [mirror]\n",
                  "mirror: {set: {test_scales: [1, 2]}}\n"), ("adamw, poly]", "mirror]"), "questions: second: arm with-mirror "),
    ],
)  # fmt: skip
def test_tricks_that_undo_each_other_and_one_name_for_two_recipes(tmp_path, files, change, place):
    *others, problem = refused(tmp_path, spoilt(files, change))
    assert re.sub(r":\d+", "", problem).startswith(f"params.yaml: {place}") and len(others) <= 1


def test_a_question_takes_networks_from_the_list_and_names_arms_after_itself(tmp_path):
    loaded = load(tmp_path, LISTED)
    sizes = loaded.questions["sizes"]
    assert list(sizes.arms) == ["small-sizes", "unet-sizes"]  # other recipes than `small` has alone
    assert sizes.labels == {"small-sizes": "small", "unet-sizes": "unet"}
    assert sizes.shared == ("search",)
    searched = {"steps": 10, "lr_search": [0.5, 2.0], "lr_search_steps": 3}
    assert sizes.arms["small-sizes"].differences() == {"network": "baseline:0.5", **searched}
    assert loaded.networks["small"] == Network("small", "baseline:0.5", "", "i", "s")
    assert "dabnet" not in {recipe.network for recipe in loaded.arms.values()}
    assert loaded.network_question.name == "sizes"  # not that of the FCN
    plain = load(tmp_path, spoilt(LISTED, ("    tricks: [search]\n", "")))
    assert list(plain.questions["sizes"].arms) == ["small", "unet"]


def project() -> dict[str, str]:
    """Return the texts of the embedded study and of the project's catalogue."""
    names = ("params.yaml", "tricks.yaml", "networks.yaml", "remarks.md")
    return {name: (ROOT / name).read_text() for name in names}


def test_the_course_study_s_ladder_has_its_order(tmp_path):
    files = project()
    question, key = "\n  ladder:\n", "    ladder:\n"
    start = files["params.yaml"].index(key, files["params.yaml"].index(question))
    before = files["params.yaml"][:start]  # later questions start from another ladder's rungs
    loaded = load(tmp_path, {**files, "params.yaml": f"{before}    ladder: course\n"})
    reported = pd.read_csv(ROOT / "data/reference_ladder.csv").trick[1:]
    words = {
        "adamw-poly": "AdamW + poly schedule",
        "class-balanced": "class-balanced loss",
        "transfer": "transfer learning",
        "ohem": "OHEM",
        "auxiliary-head": "auxiliary FCN head",
    }
    rungs = [trick for trick, _, _ in loaded.questions["ladder"].effects]
    joined = [words.get(trick, trick) for trick in rungs if trick != "multi-scale-testing"]
    assert [
        t.replace("multi-scale-training", "multi-scale training and testing") for t in joined
    ] == (list(reported))


def test_each_distinct_network_is_built_once(tmp_path, monkeypatch):
    """Two networks, and one with an auxiliary head; what only training sees needs no other."""
    files = appended(TINY, tricks="head: {set: {aux_weight: 0.4}}\n")
    loaded = load(tmp_path, spoilt(files, ("adamw, poly]", "adamw, poly, head]")))
    built = []
    monkeypatch.setattr(resolve, "check_build", built.append)
    resolve.check_settings(loaded)
    assert [(network.network, network.aux_weight) for network in built] == [
        ("baseline", 0.0), ("fcn8s:resnet18", 0.0), ("fcn8s:resnet18", 0.4)
    ]  # fmt: skip


def test_a_network_alone_has_all_that_building_reads():
    """A hyperparameter that `make_network` begins to read is one that tells networks apart."""
    tree = ast.parse(inspect.getsource(loop.make_network))
    read = {
        node.attr for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == "recipe"
    }  # fmt: skip
    assert read == set(study.NETWORK_HYPERPARAMETERS)


def test_a_simulated_study_is_as_large_as_its_benchmark_says(tmp_path):
    benchmark = runpy.run_path(str(ROOT / "benchmarks/thousand.py"))
    contents = benchmark["settings"](22)
    loaded = load(tmp_path, {f"{name}.yaml": json.dumps(made) for name, made in contents.items()})
    assert len(loaded.runs) == benchmark["OTHER_RUNS"] + 22 * benchmark["RUNS_OF_A_FAMILY"]
    assert {loaded.seeds_of(arm) for arm in loaded.arms} == {(0, 1, 2), (0, 1, 2, 3, 4)}


def test_a_study_without_some_arms_compares_the_others(tmp_path):
    noise = "  luck: {asks: Luck, start: with-flip, noise: [0, 1, 2]}\n"
    loaded = load(tmp_path, appended(TINY, noise))
    assert loaded.without(()).questions == loaded.questions
    left = loaded.without({"with-flip"})
    assert list(left.arms) == [arm for arm in loaded.arms if arm != "with-flip"]
    assert list(left.questions) == ["heads", "ladder"]  # seeds of what is not there: nothing is left to ask
    assert left.questions["heads"] == loaded.questions["heads"]
    assert left.questions["ladder"].effects == (("poly", "with-poly", "with-adamw"),)
    assert left.seeds_of("with-poly") == (0, 1)
    first = loaded.without({"fcn-8s"})
    assert list(first.questions["heads"].arms) == ["baseline"] and first.fcn is None
    assert first.baseline == "baseline" and first.network_question.name == "heads"
    assert loaded.without(set(loaded.arms)).questions == {}


def test_a_study_may_be_one_arm(tmp_path):
    text = TINY["params.yaml"]
    one = text[: text.index("questions:")] + 'questions:\n  one: {asks: Score, networks: {unet: "unet:0.1"}}\n'
    loaded = load(tmp_path, {**TINY, "params.yaml": one})
    assert list(loaded.runs) == ["unet-s0", "unet-s1"]
    assert loaded.fcn is None and loaded.baseline is None and loaded.network_question.name == "one"


def test_how_long_blocks_are_decides_no_array(tmp_path):
    loaded = load(tmp_path)
    other = load(tmp_path, spoilt(TINY, ("block: 1", "block: 3")))
    assert loaded.arrays == other.arrays != loaded.data and other.data["block"] == 3


# The catalogue, and where a study lies -----------------------------------------------------------

BELOW = {
    **{f"studies/tiny/{name}": text for name, text in TINY.items()},
    "studies/tiny/remarks.md": "",
    "tricks.yaml": "flip: {set: {flip: 0.25, hue_jitter: 9}, idea: mirrors, source: the project}\n"
                   "dice: {set: {dice_weight: 1.0}, idea: overlap}\n",
    "networks.yaml": 'unet: {network: unet, idea: U, source: someone}\n',
}  # fmt: skip
BELOW = spoilt(
    BELOW, ("root: .\nfolder: .", "root: ../..\nfolder: studies/tiny"),
    ("flip: {set: {flip: 0.5}, source: someone}", "flip: {set: {flip: 0.5}}"),
)  # fmt: skip


def below(folder, *changes: tuple[str, str], **more: str) -> study.Study:
    write(folder, {**spoilt(BELOW, *changes), **more})
    return study.load("tiny")


def test_a_study_adds_to_the_catalogue_and_says_otherwise(tmp_path):
    loaded = below(tmp_path)
    assert list(loaded.tricks) == ["flip", "dice", "adamw", "poly"]
    flip = loaded.tricks["flip"]  # what it sets is replaced as a whole
    assert dataclasses.astuple(flip) == ("flip", {"flip": 0.5}, "", "mirrors", "the project")
    assert loaded.tricks["dice"].idea == "overlap" and not loaded.tricks["poly"].source
    assert loaded.networks == {"unet": Network("unet", "unet", "", "U", "someone")}
    # with networks of its own
    study_catalogue = {"studies/tiny/networks.yaml": 'unet: {network: "unet:0.5"}\nown: {network: dabnet}\n'}
    loaded = below(tmp_path, **study_catalogue)
    assert loaded.networks["unet"] == Network("unet", "unet:0.5", "", "U", "someone")
    assert loaded.networks["own"].network == "dabnet"
    loaded = below(tmp_path, ("{set: {flip: 0.5}}", "{idea: otherwise}"))
    assert loaded.tricks["flip"].hyperparameters == {"flip": 0.25, "hue_jitter": 9}
    assert (loaded.tricks["flip"].idea, loaded.tricks["flip"].source) == ("otherwise", "the project")


@pytest.mark.parametrize("nothing", ["", "# not yet\n", "---\n", "{}\n"])
def test_a_study_may_have_no_tricks_of_its_own(tmp_path, nothing):
    loaded = below(tmp_path, ("[flip, adamw, poly]", "[flip, dice]"),
                   **{"studies/tiny/tricks.yaml": nothing})  # fmt: skip
    assert loaded.arms["with-flip"].hue_jitter == 9 and list(loaded.tricks) == ["flip", "dice"]


def test_a_study_outside_of_the_project_has_the_project_s_catalogue_too(tmp_path, monkeypatch):
    write(tmp_path / "project", {name: BELOW[name] for name in ("tricks.yaml", "networks.yaml")})
    monkeypatch.setattr(paths, "ROOT", tmp_path / "project")
    loaded = load(tmp_path / "elsewhere")
    assert loaded.params == f"{tmp_path}/elsewhere/params.yaml"
    assert list(loaded.tricks) == ["flip", "dice", "adamw", "poly"]
    assert list(loaded.networks) == ["unet"]
    flip = loaded.tricks["flip"]
    assert (flip.hyperparameters, flip.idea, flip.source) == ({"flip": 0.5}, "mirrors", "someone")


def test_the_real_studies_load_by_name_and_by_path(monkeypatch):
    monkeypatch.setattr(paths, "ROOT", ROOT)
    folders = {"synthetic": ROOT} | {f.parent.name: f.parent for f in ROOT.glob("studies/*/params.yaml")}
    assert len(folders) > 1
    for name, folder in folders.items():
        loaded = study.load(name)
        assert loaded == study.load(folder / "params.yaml") and loaded.name == name
        assert loaded.params == str((folder / "params.yaml").relative_to(ROOT))
        assert loaded.remarks and all(remark.endswith(".") for remark in loaded.remarks)
    assert study.load() == study.load("synthetic")


def test_remarks_are_points_of_a_list(tmp_path):
    text = "# Remarks\n\n- One, which\n  goes on\nlazily.\n\n- Two.\n\n  Still two: `- x`\n## More\n-  Three\n"
    loaded = load(tmp_path, {**TINY, "remarks.md": text})
    assert loaded.remarks == ("One, which goes on lazily.", "Two. Still two: `- x`", "Three")
    for nothing in ("", "\n\n", "# Remarks\n"):
        assert load(tmp_path, {**TINY, "remarks.md": nothing}).remarks == ()
    (tmp_path / "remarks.md").write_bytes("\ufeff- Straße\r\n- two\r\n".encode())
    assert load(tmp_path).remarks == ("Straße", "two")
    (tmp_path / "remarks.md").unlink()
    assert load(tmp_path).remarks == ()
