"""YAML's traps: each is refused with its line, or means what it says."""

import re

import pytest
from tiny import LONG, TINY, load, only, refused, spoilt, write

from roadseg.config import paths, study
from roadseg.config.yaml import read_yaml
from roadseg.errors import InputError


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """Let the test's folder be the project's root, so that its catalogue is the only one."""
    monkeypatch.setattr(paths, "ROOT", tmp_path)


@pytest.mark.parametrize(
    "value",
    [
        "on", "off", "true", '"1e-3"', "1e-3x", "1:30", "0,5", ".inf", ".nan", "1e400", "", "~", "null", "=",
        "2024-01-01", "010", "0x10", "0o17", "0b11", "1_000", "00.5", "9" * 20, "9" * 5000, "-_",
        "!!float 1", "!mine 1", "!!python/object/apply:os.system [exit 1]",
    ],
)  # fmt: skip
def test_traps_in_a_value(tmp_path, value):
    (problem,) = refused(tmp_path, spoilt(LONG, ("flip: 0.5", f"flip: {value}")))
    assert problem.startswith("tricks.yaml:3: flip: set: flip: ")


@pytest.mark.parametrize(
    ("old", "new", "place"),
    [
        ("lr: 0.001", "1: 2", "params.yaml:16: base: 1"),
        ("lr: 0.001", "true: 2", "params.yaml:16: base: true"),
        ("lr: 0.001", "~: 2", "params.yaml:16: base: ~"),
        ("lr: 0.001", "[a]: 2", "params.yaml:16: base"),
        ("lr: 0.001", "<<: {lr: 1}", "params.yaml:16: base: <<"),
        ("lr: 0.001", "steps: 10\n  steps: 3", "params.yaml:17: base: steps"),
        ("steps: 10", "steps: 1e3", "params.yaml:15: base: steps"),
        ("steps: 10", "steps: '10'", "params.yaml:15: base: steps"),
        ("steps: 10", "steps: 10 # \t", None),
        ("lr: 0.001", "\tlr: 0.001", "params.yaml:16"),
        ("title: A tiny study", "title: A tiny: study", "params.yaml:2"),
        ("title: A tiny study", "title: @me", "params.yaml:2"),
        ("title: A tiny study", "title: A \x01", "params.yaml:2"),
        ("title: A tiny study", "title: 2020", "params.yaml:2: title"),
        ("title: A tiny study", "title: ", "params.yaml:2: title"),
        ("[0, 1]", "[0, 1", "params.yaml:13"),
        ("fcn-8s: \"fcn8s:resnet18\"", "fcn-8s: fcn8s:resnet18", "params.yaml:20"),
        ("asks: Which?", "asks: {Which: one}", "params.yaml:19: questions: heads: asks"),
        ("seeds: [0, 1]", "seeds: [0, 01]", "params.yaml:12: seeds"),
        ("study: tiny", "---\nstudy: tiny", None),
        ("base:", "---\nbase:", "params.yaml:13"),
        ("steps: 10", "steps: *gone", "params.yaml:15"),
        ("study: tiny", "\ufeffstudy: tiny", None),
        ("    alone: [adamw]\n", "    alone: [adamw]\n...\n", None),
        ("title: A tiny study", f"title: {'[' * 3000}{']' * 3000}", "params.yaml"),
        ("seeds: [0, 1]", "seeds: &a [*a]", "params.yaml"),
        ("steps: 10", "&key steps: &value 10", None),
    ],
)  # fmt: skip
def test_other_traps(tmp_path, old, new, place):
    files = spoilt(LONG, (old, new))
    if place is None:
        assert load(tmp_path, files) == load(tmp_path, LONG)
    else:
        (problem,) = refused(tmp_path, files)
        assert problem.startswith(f"{place}: ")


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("flip: {set: {flip: 0.5}\nadamw: {set: {}}\n", "tricks.yaml:2"),
        ("\tflip: 1\n", "tricks.yaml:1"),
        ("- flip\n", "tricks.yaml"),
        ("flip\n", "tricks.yaml"),
        ("1: {set: {flip: 0.5}}\n", "tricks.yaml:1: 1"),
        ("a: {set: {flip: 0.5}}\na: {set: {flip: 0.5}}\n", "tricks.yaml:2: a"),
        ("a: 3\n", "tricks.yaml:1: a"),
        ("a:\n", "tricks.yaml:1: a"),
        ("a:\n  set:\n", "tricks.yaml:2: a: set"),
        ("a: {set: {flip: 0.5}, idea: 3}\n", "tricks.yaml:1: a: idea"),
    ],
)  # fmt: skip
def test_traps_in_the_catalogue(tmp_path, text, place):
    params = TINY["params.yaml"]
    one = {**TINY, "params.yaml": params[: params.index("  ladder:")], "tricks.yaml": text}
    (problem,) = refused(tmp_path, one)
    assert problem.startswith(f"{place}: ")


def test_numbers_and_aliases_that_mean_what_they_say(tmp_path):
    for written in ("1e-3", "1.0e-3", "+.001", "0.0010"):
        loaded = load(tmp_path, spoilt(LONG, ("lr: 0.001", f"lr: {written}")))
        assert loaded == load(tmp_path, LONG) and next(iter(loaded.arms.values())).lr == 0.001
    files = spoilt(LONG, ("seeds: [0, 1]", "seeds: &s [0, 1]"), ("alone: [adamw]", "noise: *s"))
    assert load(tmp_path, files).questions["each"].seeds == (0, 1)
    plain = load(tmp_path, LONG)
    (tmp_path / "params.yaml").write_bytes(LONG["params.yaml"].replace("\n", "\r\n").encode())
    assert study.load("params.yaml") == plain


def test_all_twins_are_listed(tmp_path):
    twins = spoilt(LONG, ("  steps: 10", "  steps: 10\n  steps: 9"), ("root: .", "root: .\ntitle: B"),
                   ("counts: {train: 4,", "counts: {train: 4, train: 5,"))  # fmt: skip
    places = ["4: title", "12: data: counts: train", "17: base: steps"]
    for problem, place in zip(refused(tmp_path, twins), places, strict=True):
        assert problem.startswith(f"params.yaml:{place}: ")


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


def test_nobody_s_tag_is_executed(tmp_path):
    trace = tmp_path / "trace"
    tag = f"!!python/object/apply:pathlib.Path.touch [{trace}]"
    for old in ("title: A tiny study", "flip: 0.5"):
        files = spoilt(LONG, (old, f"{old.partition(':')[0]}: {tag}"))
        assert "makes an object" in only(tmp_path, files)
    assert not trace.exists()


def test_other_files_are_read_alike(tmp_path):
    file = tmp_path / "dataset.yaml"
    for text, line in (("1: 2\n", 1), ("val: [\n2011_09_26]\n", 2), ("a: 1\nb: 2\na: 3\n", 3), ("", None)):
        file.write_text(text)
        with pytest.raises(InputError, match=re.escape(f"{file}:{line}: " if line else f"{file}: ")):
            read_yaml(file)
    file.write_text("'1': 10\nval: ['2011_09_26']\n")
    assert read_yaml(file) == {"1": 10, "val": ["2011_09_26"]}
