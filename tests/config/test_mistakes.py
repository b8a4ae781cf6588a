"""Each mistake in a study's files is one problem, at its file, line and key.

What is said of the most common ones, and of YAML's traps, is in tests/messages.txt.
"""

import re

import pytest
from tiny import LISTED, LONG, MANY, TINY, load, places, refused, spoilt, write

from roadseg.config import paths, study
from roadseg.config.yaml import read_yaml
from roadseg.errors import InputError


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """Let the test's folder be the project's root, so that its catalogue is the only one."""
    monkeypatch.setattr(paths, "ROOT", tmp_path)


# Files, and where the problem is -> what stands there, and what shall stand there instead.
MISTAKES = [
    (LONG, "params.yaml:1: title", ("title: A tiny study\n", "")),
    (LONG, "params.yaml:1: study", ("study: tiny", "study: ../tiny")),
    (LONG, "params.yaml:2: title", ("A tiny study", "2020"), ("A tiny study", "")),
    (LONG, "params.yaml:2", ("A tiny study", "@me"), ("A tiny study", "A \x01")),
    (LONG, "params.yaml", ("A tiny study", "[" * 3000 + "]" * 3000), ("seeds: [0, 1]", "seeds: &a [*a]")),
    (LONG, "params.yaml:5: data: seed", ("  seed: 0\n", "")),
    (LONG, "params.yaml:7: data: splits", ("source: synthetic", "source: camvid\n  splits: {val: rest, test: none}")),
    (LONG, "params.yaml:7: data: splits: val", ("source: synthetic", "source: camvid\n  splits: {val: data/x.txt, test: none}")),
    (LONG, "params.yaml:10: data: seed", ("seed: 0", "seed: " + "9" * 20)),
    (LONG, "params.yaml:8: data: size", ("[64, 96]", "[64]"), ("[64, 96]", "[31, 96]"), ("[64, 96]", "[64.0, 96]")),
    (LONG, "params.yaml:11: data: counts: train", ("train: 4, ", ""), ("train: 4", "train: 0")),
    (LONG, "params.yaml:12: seeds", ("[0, 1]", "[]"), ("[0, 1]", "[1, 1]"), ("[0, 1]", "[-1]"), ("[0, 1]", "[0, 01]")),
    (LONG, "params.yaml:13", ("base:", "---\nbase:")),
    (LONG, "params.yaml:15: base: steps", ("steps: 10", "steps: '10'"), ("steps: 10", "steps: true")),
    (LONG, "params.yaml:15", ("steps: 10", "steps: *gone")),
    (LONG, "params.yaml:16: base: warmup_steps", ("lr: 0.001", "warmup_steps: 10")),
    (LONG, "params.yaml:16: base: 1", ("lr: 0.001", "1: 2")),
    (LONG, "params.yaml:16: base: true", ("lr: 0.001", "true: 2")),
    (LONG, "params.yaml:16: base: ~", ("lr: 0.001", "~: 2")),
    (LONG, "params.yaml:16: base", ("lr: 0.001", "[a]: 2")),
    (LONG, "params.yaml:16: base: <<", ("lr: 0.001", "<<: {lr: 1}")),
    (LONG, "params.yaml:17: base: steps", ("lr: 0.001", "steps: 10\n  steps: 3")),
    (LONG, "params.yaml:18: questions", ("heads:", "he.ads:")),
    (LONG, "params.yaml:19: questions: heads: asks", ("Which?", ""), ("Which?", "{Which: one}")),
    (LONG, "params.yaml:20", ('fcn-8s: "fcn8s:resnet18"', "fcn-8s: fcn8s:resnet18")),
    (LONG, "params.yaml:20: questions: heads: start", ("    networks: {", "    start: a\n    networks: {")),
    (LONG, "params.yaml:20: questions: heads: networks", ('fcn-8s: "fcn8s:resnet18"', "again: baseline")),
    (LONG, "params.yaml:24: questions: ladder: tricks", ("    ladder:\n", "    tricks: [flip]\n    ladder:\n")),
    (LONG, "params.yaml:25: questions: ladder: ladder", ("      - flip", "      - {flip: 1}")),
    (LONG, "params.yaml:26: questions: ladder: ladder", ("      - adamw", "      - flip")),
    (LONG, "params.yaml:27: questions: each: start", ("    start: with-flip\n", "")),
    (LONG, "params.yaml:30: questions: each: alone", ("alone: [adamw]", "alone: []"), ("alone: [adamw]", "alone: [adam]")),
    (TINY, "params.yaml:10: questions: first: start",
     ("  heads:\n", "  first: {asks: q, start: fcn-8s, noise: [3]}\n  heads:\n")),
    (TINY, "tricks.yaml:1: flip: set", ("{set: {flip: 0.5}, source: someone}", "{source: someone}")),
    (MANY, "params.yaml:28: questions: spread: noise", ("[0, 1, 2, 5]", "[0, -1]"), ("[0, 1, 2, 5]", "5")),
    (LISTED, "params.yaml:16: questions: ladder: ladder", ("ladder: [flip, adamw, poly]", "ladder: curse")),
    (LISTED, "params.yaml:20: questions: sizes: networks", ("[small, unet]", "[small, small]"), ("[small, unet]", "[]"),
     ("[small, unet]", "small"), ("lr_search: [0.5, 2.0], ", "")),
    (LISTED, "networks.yaml:2: small: netwrk", ("small: {network:", "small: {netwrk:")),
    (LISTED, "networks.yaml:4: never: network", ('{network: "dabnet"}', "{idea: none}")),
    (LISTED, "networks.yaml:4", ("never: {", "n.ever: {")),
    (LISTED, "tricks.yaml:4: search: set: lr_search", ("[0.5, 2.0]", "[0.5, 0.5]")),
    # a mistake has no consequences: a question that is refused is not missed by the next one,
    (LONG, "params.yaml:20: questions: heads: arm", ("fcn-8s: ", "fcn.8s: ")),
    (LONG, "params.yaml:23: questions: ladder: start", ("start: fcn-8s", "start: fcn-9s")),
    (LONG, "params.yaml:25: questions: ladder: ladder", ("  - flip", "  - flop"), ("flip: 0.5", "flip: 0.0")),
    # nor is a misspelt setting missing, and what stands in it is not unknown,
    (LONG, "params.yaml:8: data: sizes", ("  size: [", "  sizes: [")),
    (LONG, "params.yaml:13: bsae", ("base:\n", "bsae:\n")),
    (LONG, "params.yaml:17: qeustions", ("questions:\n", "qeustions:\n")),
    (LONG, "params.yaml:20: questions: heads: netwroks", ("    networks: {", "    netwroks: {")),
    # and contradictions wait for sound hyperparameters
    (LONG, "params.yaml:17: base: shedule", ("steps: 10", "steps: 10\n  cycles: 3\n  shedule: cosine")),
]  # fmt: skip
IN_FLIP = (
    "on", "true", '"1e-3"', "1:30", ".inf", ".nan", "1e400", "", "~", "null", "=", "2024-01-01", "010", "0x10", "0o17", "0b11",
    "1_000", "00.5", "9" * 16, "9" * 5000, "-_", "!!float 1", "!mine 1", "!!python/object/apply:os.system [exit 1]",
)  # fmt: skip
MISTAKES += [(LONG, "tricks.yaml:3: flip: set: flip", *(("flip: 0.5", f"flip: {value}") for value in IN_FLIP))]
HEADS = {**TINY, "params.yaml": TINY["params.yaml"].partition("  ladder:")[0], "tricks.yaml": "TRICKS"}
MISTAKES += [
    (HEADS, place, *(("TRICKS", text) for text in texts))
    for place, *texts in [
        ("tricks.yaml", "- flip", "flip"),
        ("tricks.yaml:1", "\tflip: 1"),
        ("tricks.yaml:1: 1", "1: {set: {flip: 0.5}}"),
        ("tricks.yaml:1: a", "a: 3", "a:", "a: {set: {}}"),
        ("tricks.yaml:1: a: idea", "a: {set: {flip: 0.5}, idea: 3}"),
        ("tricks.yaml:1: a: set: focal_gama", "a: {set: {focal_gama: 2.0}}"),  # though no question asks for it
        ("tricks.yaml:2", "flip: {set: {flip: 0.5}\nadamw: {set: {}}"),
        ("tricks.yaml:2: a", "a: {set: {flip: 0.5}}\na: {set: {flip: 0.5}}"),
        ("tricks.yaml:2: a: set", "a:\n  set:"),
    ]
]
FLAT = [(files, change, place) for files, place, *changes in MISTAKES for change in changes]


@pytest.mark.parametrize(("files", "change", "place"), FLAT, ids=range(len(FLAT)))
def test_a_mistake_is_one_problem_at_its_place(tmp_path, files, change, place):
    (problem,) = refused(tmp_path, spoilt(files, change))
    assert problem.startswith(f"{place}: ") and len(problem) < 1200


@pytest.mark.parametrize(
    "change",
    [
        ("steps: 10", "steps: 10 # \t"), ("study: tiny", "---\nstudy: tiny"), ("study: tiny", "\ufeffstudy: tiny"),
        ("alone: [adamw]\n", "alone: [adamw]\n...\n"), ("steps: 10", "&key steps: &value 10"), ("study: tiny\n", "study: tiny\r\n"),
        *(("lr: 0.001", f"lr: {written}") for written in ("1e-3", "1.0e-3", "+.001", "0.0010")),
    ],
)  # fmt: skip
def test_what_looks_odd_and_means_the_same(tmp_path, change):
    assert load(tmp_path, spoilt(LONG, change)) == load(tmp_path, LONG)


def test_an_alias_stands_for_its_value(tmp_path):
    files = spoilt(LONG, ("seeds: [0, 1]", "seeds: &s [0, 1]"), ("alone: [adamw]", "noise: *s"))
    assert load(tmp_path, files).questions["each"].seeds == (0, 1)


def test_all_twins_are_listed(tmp_path):
    twins = spoilt(LONG, ("  steps: 10", "  steps: 10\n  steps: 9"), ("root: .", "root: .\ntitle: B"),
                   ("counts: {train: 4,", "counts: {train: 4, train: 5,"))  # fmt: skip
    assert places(refused(tmp_path, twins)) == [
        "params.yaml:4: title", "params.yaml:12: data: counts: train", "params.yaml:17: base: steps"
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["params.yaml", "tricks.yaml", "networks.yaml"])
def test_what_is_no_file_of_settings_at_all(tmp_path, name):
    file = write(tmp_path, TINY).with_name(name)
    contents = [b"- a\n", "title: Straße".encode("latin-1"), "title: Street".encode("utf-16")]
    for content in [*contents, *[b"", b"# nothing\n"] * (name == "params.yaml")]:
        file.write_bytes(content)
        with pytest.raises(InputError, match=rf"^{name}: [^\n]*$"):
            study.load("params.yaml")
    file.unlink()
    file.mkdir()
    with pytest.raises(InputError, match=f"^{name}: (cannot be read|no such file)"):
        study.load("params.yaml")


def test_an_empty_catalogue_has_no_names(tmp_path):
    problems = refused(tmp_path, {**TINY, "tricks.yaml": "", "networks.yaml": "# nothing\n"})
    for problem, name in zip(problems, ("flip", "adamw", "poly"), strict=True):
        assert problem.startswith(f"params.yaml:16: questions: ladder: ladder: {name!r}")


def test_the_tricks_of_the_course_s_ladder_must_be_there(tmp_path):
    files = spoilt(LISTED, ("ladder: [flip, adamw, poly]", "ladder: course"),
                   ("search: {", "ohem: {set: {flip: 0.5}}\nsearch: {"))  # fmt: skip
    lines = refused(tmp_path, files)
    assert len(lines) == 6 and "'transfer'" in lines[0] and not any("'ohem'" in line for line in lines)


def test_nobody_s_tag_is_executed(tmp_path):
    trace = tmp_path / "trace"
    tag = f"!!python/object/apply:pathlib.Path.touch [{trace}]"
    for old in ("title: A tiny study", "flip: 0.5"):
        assert refused(tmp_path, spoilt(LONG, (old, f"{old.partition(':')[0]}: {tag}")))
    assert not trace.exists()


def test_other_files_are_read_alike(tmp_path):
    file = tmp_path / "dataset.yaml"
    for text, line in (("1: 2\n", 1), ("val: [\n2011_09_26]\n", 2), ("a: 1\nb: 2\na: 3\n", 3), ("", None)):
        file.write_text(text)
        with pytest.raises(InputError, match=re.escape(f"{file}:{line}: " if line else f"{file}: ")):
            read_yaml(file)
    file.write_text("'1': 10\nval: ['2011_09_26']\n")
    assert read_yaml(file) == {"1": 10, "val": ["2011_09_26"]}
