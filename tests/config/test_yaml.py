"""YAML's traps: each is refused with its line, or means what it says."""

import datetime
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


IN_FLIP = [
    ("on", "'on' is not allowed; it must be a probability in [0, 1]. To YAML 1.2 this is text; a"),
    ("off", "'off' is not allowed"),
    ("true", "True is not allowed"),
    ('"1e-3"', "'1e-3' is not allowed; it must be a probability in [0, 1]. Write it without quotes"),
    ("1e-3x", "'1e-3x' is not allowed; it must be a probability in [0, 1]. This is text; numbers are"),
    ("1:30", "'1:30' is not allowed; it must be a probability in [0, 1]. This is text; numbers are"),
    ("0,5", "'0,5' is not allowed; it must be a probability in [0, 1]. Decimals have a point: 0.5."),
    (".inf", "inf is not allowed"),
    (".nan", "nan is not allowed"),
    ("1e400", "inf is not allowed"),
    ("", "has no value; it must be a probability in [0, 1]."),
    ("~", "has no value"),
    ("null", "has no value"),
    ("=", "'=' is not allowed"),
]
IN_SET = [
    ("2024-01-01", "2024-01-01 is a date to other readers of YAML; put it into quotes."),
    ("010", "010 is not the same number to all readers of YAML; write 10, or put it into quotes if"),
    ("0x10", "0x10 is not the same number to all readers of YAML; write 16, or"),
    ("0o17", "0o17 is not the same number to all readers of YAML; write 15, or"),
    ("0b11", "0b11 is not the same number to all readers of YAML; write 3, or"),
    ("1_000", "1_000 is not the same number to all readers of YAML; write 1000, or"),
    ("00.5", "00.5 is not the same number to all readers of YAML; write 0.5, or"),
    ("9" * 20, f"{'9' * 20} has more than 15 digits"),
    ("9" * 5000, "a number of too many digits"),
    ("-_", "'-_' is no number"),
    ("!!float 1", "!!float makes an object; settings are plain values, so take it out."),
    ("!mine 1", "!mine makes an object"),
    ("!!python/object/apply:os.system [exit 1]", "!!python/object/apply:os.system makes an object"),
]


@pytest.mark.parametrize(
    ("value", "message"),
    [(v, f"flip: flip: {m}") for v, m in IN_FLIP] + [(v, f"flip: set: flip: {m}") for v, m in IN_SET],
)
def test_traps_in_a_value(tmp_path, value, message):
    (problem,) = refused(tmp_path, spoilt(LONG, ("flip: 0.5", f"flip: {value}")))
    assert problem.startswith(f"tricks.yaml:3: {message}")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("lr: 0.001", "1: 2", "16: base: a key 1 is no text; put it into quotes if it is a name."),
        ("lr: 0.001", "true: 2", "16: base: a key True is no text"),
        ("lr: 0.001", "~: 2", "16: base: a key has no text"),
        ("lr: 0.001", "[a]: 2", "16: base: a key must be one text, not a list or lines."),
        ("lr: 0.001", "<<: {lr: 1}", "16: base: <<: is not supported; write the lines out."),
        ("lr: 0.001", "steps: 10\n  steps: 3", "17: base: steps: duplicate key (lines 15, 16 and 17); keep"),
        ("steps: 10", "steps: 1e3", "15: base: steps: 1000.0 is not allowed; it must be a whole number"
         " >= 1. Write 1000, without point and exponent."),
        ("steps: 10", "steps: '10'", "15: base: steps: '10' is not allowed; it must be a whole number"
         " >= 1. Write it without quotes."),
        ("steps: 10", "steps: 10 # \t", None),
        ("lr: 0.001", "\tlr: 0.001", "16: a tab before the text; YAML is indented with spaces."),
        ("title: A tiny study", "title: A tiny: study", "2: not valid YAML (mapping values are not"
         " allowed in this context). Put a space after the colon of 'key: value', and text with colons"),
        ("title: A tiny study", "title: @me", "2: not valid YAML (found character that cannot start"),
        ("title: A tiny study", "title: A \x01", "2: not valid YAML (unacceptable character #x0001"),
        ("title: A tiny study", "title: 2020", "2: title: 2020 is not allowed; give text. Put it into"),
        ("title: A tiny study", "title: ", "2: title: has no value; give text."),
        ("[0, 1]", "[0, 1", "13: not valid YAML (did not find expected ',' or ']', while parsing a flow"
         " sequence from line 12 on)."),
        ("fcn-8s: \"fcn8s:resnet18\"", "fcn-8s: fcn8s:resnet18", "20: not valid YAML (found unexpected"
         " ':'). Put a space after the colon of 'key: value', and text with colons into quotes."),
        ("asks: Which?", "asks: {Which: one}", "19: questions: heads: asks: {'Which': 'one'} is not"
         " allowed; give text. Put text with a colon into quotes."),
        ("seeds: [0, 1]", "seeds: [0, 01]", "12: seeds: 01 is not the same number to all readers"),
        ("study: tiny", "---\nstudy: tiny", None),
        ("base:", "---\nbase:", "13: not valid YAML (but found another document"),
        ("steps: 10", "steps: *gone", "15: not valid YAML (found undefined alias). Write the value out."),
        ("study: tiny", "\ufeffstudy: tiny", None),
        ("    alone: [adamw]\n", "    alone: [adamw]\n...\n", None),
        ("title: A tiny study", f"title: {'[' * 3000}{']' * 3000}", " nested too deeply"),
        ("seeds: [0, 1]", "seeds: &a [*a]", "12: seeds: an alias in the value that it stands for; write the"),
        ("steps: 10", "&key steps: &value 10", None),
    ],
)  # fmt: skip
def test_other_traps(tmp_path, old, new, message):
    files = spoilt(LONG, (old, new))
    if message is None:
        assert load(tmp_path, files) == load(tmp_path, LONG)
    else:
        (problem,) = refused(tmp_path, files)
        assert problem.startswith(f"params.yaml:{message}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("flip: {set: {flip: 0.5}\nadamw: {set: {}}\n", "2: not valid YAML ("),
        ("\tflip: 1\n", "1: a tab before the text; YAML is indented with spaces."),
        ("- flip\n", " must hold 'key: value' lines, holds list."),
        ("flip\n", " must hold 'key: value' lines, holds str."),
        ("1: {set: {flip: 0.5}}\n", "1: a key 1 is no text; put it into quotes if it is a name."),
        ("a: {set: {flip: 0.5}}\na: {set: {flip: 0.5}}\n", "2: a: duplicate key (lines 1 and 2); keep one of them."),
        ("a: 3\n", "1: a: 3 is not allowed; give 'key: value' lines."),
        ("a:\n", "1: a: has no value; give 'key: value' lines."),
        ("a:\n  set:\n", "2: a: set: has no value; give 'key: value' lines."),
        ("a: {set: {flip: 0.5}, idea: 3}\n", "1: a: idea: 3 is not allowed; give text. Put it into quotes"),
    ],
)  # fmt: skip
def test_traps_in_the_catalogue(tmp_path, text, message):
    params = TINY["params.yaml"]
    one = {**TINY, "params.yaml": params[: params.index("  ladder:")], "tricks.yaml": text}
    (problem,) = refused(tmp_path, one)
    assert problem.startswith(f"tricks.yaml:{message}")


def test_numbers_and_aliases_that_mean_what_they_say(tmp_path):
    for written in ("1e-3", "1.0e-3", "+.001", "0.0010"):
        loaded = load(tmp_path, spoilt(LONG, ("lr: 0.001", f"lr: {written}")))
        assert loaded == load(tmp_path, LONG) and next(iter(loaded.arms.values())).lr == 0.001
    files = spoilt(LONG, ("seeds: [0, 1]", "seeds: &s [0, 1]"), ("alone: [adamw]", "noise: *s"))
    assert load(tmp_path, files).questions["each"].seeds == (0, 1)
    plain = load(tmp_path, LONG)
    (tmp_path / "params.yaml").write_bytes(LONG["params.yaml"].replace("\n", "\r\n").encode())
    assert study.load("params.yaml") == plain


def test_all_tabs_and_all_twins_are_listed(tmp_path):
    tabs = spoilt(LONG, ("  source:", "\tsource:"), ("  steps:", "  \tsteps:"))
    problems = refused(tmp_path, tabs)
    assert [line.split(":")[1] for line in problems] == ["6", "15"]
    twins = spoilt(LONG, ("  steps: 10", "  steps: 10\n  steps: 9"), ("root: .", "root: .\ntitle: B"),
                   ("counts: {train: 4,", "counts: {train: 4, train: 5,"))  # fmt: skip
    assert refused(tmp_path, twins) == [
        "params.yaml:4: title: duplicate key (lines 2 and 4); keep one of them.",
        "params.yaml:12: data: counts: train: duplicate key (line 12, 2 times); keep one of them.",
        "params.yaml:17: base: steps: duplicate key (lines 16 and 17); keep one of them.",
    ]


@pytest.mark.parametrize("name", ["params.yaml", "tricks.yaml", "networks.yaml"])
def test_what_is_no_file_of_settings_at_all(tmp_path, name):
    file = write(tmp_path, TINY).with_name(name)
    empty = {b"": "is empty.", b"# nothing\n": "is empty."} if name == "params.yaml" else {}
    for content, message in {
        **{content: f"must hold 'key: value' lines, {text}" for content, text in empty.items()},
        b"- a\n": "must hold 'key: value' lines, holds list.",
        "title: Straße".encode("latin-1"): "is no UTF-8 text; save it in that encoding.",
        "title: Street".encode("utf-16"): "is no UTF-8 text; save it in that encoding.",
    }.items():
        file.write_bytes(content)
        with pytest.raises(InputError) as caught:
            study.load("params.yaml")
        assert str(caught.value) == f"{name}: {message}"
    file.unlink()
    file.mkdir()
    with pytest.raises(InputError, match=f"^{name}: (cannot be read|no such file)"):
        study.load("params.yaml")


def test_an_empty_catalogue_has_no_names(tmp_path):
    problems = refused(tmp_path, {**TINY, "tricks.yaml": "", "networks.yaml": "# nothing\n"})
    assert problems == [
        f"params.yaml:16: questions: ladder: {name!r} is no trick of tricks.yaml. There is none."
        for name in ("flip", "adamw", "poly")
    ]


def test_nobody_s_tag_is_executed(tmp_path):
    trace = tmp_path / "trace"
    tag = f"!!python/object/apply:pathlib.Path.touch [{trace}]"
    for old in ("title: A tiny study", "flip: 0.5"):
        files = spoilt(LONG, (old, f"{old.partition(':')[0]}: {tag}"))
        assert "makes an object" in only(tmp_path, files)
    assert not trace.exists()


def test_other_files_keep_what_only_settings_refuse(tmp_path):
    file = tmp_path / "dataset.yaml"
    file.write_text("1: 010\nval: [2011_09_26, 2011-09-26, 2011-99-99]\n")
    assert read_yaml(file) == {1: 10, "val": [20110926, "2011-09-26", "2011-99-99"]}
    assert not any(isinstance(v, datetime.date) for v in read_yaml(file)["val"])
    file.write_text("a: 1\nb: 2\na: 3\n")
    with pytest.raises(InputError, match=r"dataset.yaml:3: a: duplicate key \(lines 1 and 3\)"):
        read_yaml(file)
    file.write_text("")
    with pytest.raises(InputError, match=re.escape(f"{file}: must hold 'key: value' lines, is empty.")):
        read_yaml(file)
