"""What is wrong with params.yaml: YAML's traps, several problems at once, hostile input."""

import datetime
import json
import re
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_study import LISTED, MORE, TEXT, load, only, refused

from roadseg import __main__ as commands
from roadseg.config import study
from roadseg.config.settings import is_text, read_yaml
from roadseg.config.study import ROOT
from roadseg.errors import InputError

# One setting a line, so that each problem has a line of its own.
LONG = """\
study: tiny
title: A tiny study
root: .
params: params.yaml
plan: plan.yaml
data:
  source: synthetic
  path: roadseg/data/synthetic.py
  size: [64, 96]
  block: 1
  seed: 0
  counts: {train: 4, val: 2, test: 2}
seeds: [0, 1]
remarks: []
networks: {}
base:
  network: fcn8s:resnet18
  steps: 10
  lr: 0.001
tricks:
  flip:
    knobs:
      flip: 0.5
  adamw:
    knobs:
      optimizer: adamw
      weight_decay: 0.01
studies:
  heads:
    question: Which?
    networks: {baseline: baseline, fcn-8s: "fcn8s:resnet18"}
  ladder:
    question: What helps?
    start: fcn-8s
    ladder:
      - flip
      - adamw
  each:
    question: And alone?
    start: with-flip
    alone: [adamw]
"""


def spoilt(*changes: tuple[str, str], text: str = LONG) -> str:
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new, 1)
    return text


def test_six_problems_are_six_lines_in_order(tmp_path):
    text = spoilt(
        ("title: A tiny study", "title: 2024-01-01"), ("block: 1", "block: 0"),
        ("steps: 10", "stesp: 10"), ("flip: 0.5", "flip: yes"), ("  - adamw", "  - adam"),
        ("alone: [adamw]", "alonne: [adamw]"),
    )  # fmt: skip
    found = refused(tmp_path, text)
    assert [int(line.partition(":")[0]) for line in found] == [2, 10, 18, 23, 37, 41]
    for line, said in zip(found, [
        "title: 2024-01-01 is a date to other readers of YAML; put it into quotes.",
        "data: block: 0 is not allowed; give 1 frame or more.",
        "base: stesp: no such knob. Did you mean 'steps'? Known: ",
        "tricks: flip: flip: 'yes' is not allowed; it must be a probability in [0, 1]. To YAML 1.2 "
        "this is text; a switch is true or false.",
        "studies: ladder: 'adam' is no trick. Did you mean 'adamw'? Known: adamw, flip.",
        "studies: each: alonne: no such setting. Did you mean 'alone'? Known: ",
    ], strict=True):  # fmt: skip
        assert line.partition(": ")[2].startswith(said)


@pytest.mark.parametrize(
    ("changes", "line", "message"),
    [
        # the study that is refused is not missed by the next one
        ([("start: fcn-8s", "start: fcn-9s")], 34, "studies: ladder: start: 'fcn-9s' is no arm"),
        ([("  - flip", "  - flop")], 36, "studies: ladder: 'flop' is no trick."),
        ([("    networks: {", "    netwroks: {")], 31, "studies: heads: netwroks: no such setting."),
        # nor is what it would have made
        ([("fcn-8s: ", "fcn.8s: ")], 31, "studies: heads: arm: 'fcn.8s' cannot name a file"),
        # a misspelt setting is not missing too, and what stands in it is not unknown
        ([("seeds: [0", "sedes: [0")], 13, "sedes: no such setting. Did you mean 'seeds'?"),
        ([("tricks:\n", "tircks:\n")], 20, "tircks: no such setting. Did you mean 'tricks'?"),
        ([("  size: [", "  sizes: [")], 9, "data: sizes: no such setting. Did you mean 'size'?"),
        ([("      flip: 0.5", "      filp: 0.5")], 23, "tricks: flip: filp: no such knob."),
        # contradictions wait for sound knobs
        ([("steps: 10", "steps: 10\n  cycles: 3\n  shedule: cosine")], 20, "base: shedule: no such"),
        ([("flip: 0.5", "flip: 0.0")], 36, "studies: ladder: tricks: flip: flip is 0.0 already"),
        ([("lr: 0.001", "warmup_steps: 10")], 19, "base: warmup_steps: 10 leaves nothing of steps"),
        ([("study: tiny\n", "<<: {study: tiny}\n")], 1, "<<: is not supported; write the lines out."),
    ],
)  # fmt: skip
def test_consequences_are_not_shown(tmp_path, changes, line, message):
    (found,) = refused(tmp_path, spoilt(*changes))
    assert found.startswith(f"{line}: {message}")


def test_problems_that_are_no_consequence_are_shown(tmp_path):
    text = spoilt(("steps: 10", "steps: 10\n  cycles: 3\n  warmup_steps: 10"),
                  ("source: synthetic", "source: synthetic\n  sed: 1"), ("  seed: 0\n", ""),
                  ("start: with-flip", "start: with-flop"), ("  block: 1\n", ""))  # fmt: skip
    assert [re.sub(r"(\d+: [a-z]+(: \w+)?).*", r"\1", line) for line in refused(tmp_path, text)] == [
        "6: data: block", "8: data: sed", "18: base: cycles", "19: base: warmup_steps",
        "41: studies: each",
    ]  # fmt: skip


IN_FLIP = [
    ("on", "'on' is not allowed; it must be a probability in [0, 1]. To YAML 1.2 this is text; a"),
    ("off", "'off' is not allowed"),
    ("true", "True is not allowed"),
    (
        '"1e-3"',
        "'1e-3' is not allowed; it must be a probability in [0, 1]. Write it without quotes",
    ),
    (
        "1e-3x",
        "'1e-3x' is not allowed; it must be a probability in [0, 1]. This is text; numbers are",
    ),
    (
        "1:30",
        "'1:30' is not allowed; it must be a probability in [0, 1]. This is text; numbers are",
    ),
    (
        "0,5",
        "'0,5' is not allowed; it must be a probability in [0, 1]. Decimals have a point: 0.5.",
    ),
    (".inf", "inf is not allowed"),
    (".nan", "nan is not allowed"),
    ("1e400", "inf is not allowed"),
    ("", "has no value; it must be a probability in [0, 1]."),
    ("~", "has no value"),
    ("null", "has no value"),
    ("=", "'=' is not allowed"),
]
IN_KNOBS = [
    ("2024-01-01", "2024-01-01 is a date to other readers of YAML; put it into quotes."),
    (
        "010",
        "010 is not the same number to all readers of YAML; write 10, or put it into quotes if",
    ),
    ("0x10", "0x10 is not the same number to all readers of YAML; write 16, or"),
    ("0o17", "0o17 is not the same number to all readers of YAML; write 15, or"),
    ("0b11", "0b11 is not the same number to all readers of YAML; write 3, or"),
    ("1_000", "1_000 is not the same number to all readers of YAML; write 1000, or"),
    ("00.5", "00.5 is not the same number to all readers of YAML; write 0.5, or"),
    ("9" * 20, f"{'9' * 20} has more than 15 digits"),
    ("9" * 5000, "a number of too many digits"),
    ("-_", "'-_' is no number"),
    ("*gone", "*gone has no & before it; write the value out."),
    ("!!float 1", "!!float makes an object; settings are plain values, so take it out."),
    ("!mine 1", "!mine makes an object"),
    ("!!python/object/apply:os.system [exit 1]", "!!python/object/apply:os.system makes an object"),
]


@pytest.mark.parametrize(
    ("value", "message"),
    [(v, f"tricks: flip: flip: {m}") for v, m in IN_FLIP]
    + [(v, f"tricks: flip: knobs: flip: {m}") for v, m in IN_KNOBS],
)
def test_yaml_s_traps_in_a_value(tmp_path, value, message):
    (found,) = refused(tmp_path, spoilt(("flip: 0.5", f"flip: {value}")))
    assert found.startswith(f"23: {message}")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("lr: 0.001", "1: 2", "19: base: a key 1 is no text; put it into quotes if it is a name."),
        ("lr: 0.001", "true: 2", "19: base: a key True is no text"),
        ("lr: 0.001", "~: 2", "19: base: a key has no text"),
        ("lr: 0.001", "[a]: 2", "19: base: a key must be one text, not a list or lines."),
        ("lr: 0.001", "<<: {lr: 1}", "19: base: <<: is not supported; write the lines out."),
        ("lr: 0.001", "steps: 10\n  steps: 3", "20: base: steps: stands on lines 18, 19 and 20; keep"),
        ("steps: 10", "steps: 1e3", "18: base: steps: 1000.0 is not allowed; it must be a whole number"
         " >= 1. Write 1000, without point and exponent."),
        ("steps: 10", "steps: '10'", "18: base: steps: '10' is not allowed; it must be a whole number"
         " >= 1. Write it without quotes."),
        ("steps: 10", "steps: 10 # \t", None),
        ("lr: 0.001", "\tlr: 0.001", "19: a tab before the text; YAML is indented with spaces."),
        ("title: A tiny study", "title: A tiny: study", "2: not valid YAML (mapping values are not"
         " allowed in this context). Put a space after the colon of 'key: value', and text with colons"),
        ("title: A tiny study", "title: @me", "2: not valid YAML (found character that cannot start"),
        ("title: A tiny study", "title: A \x01", "2: not valid YAML (unacceptable character #x0001"),
        ("title: A tiny study", "title: 2020", "2: title: 2020 is not allowed; give text. Put it into"),
        ("title: A tiny study", "title: ", "2: title: has no value; give text."),
        ("[0, 1]", "[0, 1", "14: not valid YAML (did not find expected ',' or ']', while parsing a flow"
         " sequence from line 13 on)."),
        ("fcn-8s: \"fcn8s:resnet18\"", "fcn-8s: fcn8s:resnet18", "31: not valid YAML (found unexpected"
         " ':'). Put a space after the colon of 'key: value', and text with colons into quotes."),
        ("remarks: []", "remarks: [Note: this]", "14: remarks: {'Note': 'this'} is not allowed; give a"
         " list of texts, or []. Put text with a colon into quotes."),
        ("seeds: [0, 1]", "seeds: [0, 01]", "13: seeds: 01 is not the same number to all readers"),
        ("study: tiny", "%YAML 1.1\n---\nstudy: tiny", "1: is read as YAML 1.2; take the %YAML line"),
        ("study: tiny", "---\nstudy: tiny", None),
        ("remarks: []", "---\nremarks: []", "14: a second document begins here; take the line ---"),
        ("study: tiny", "\ufeffstudy: tiny", None),
        ("    alone: [adamw]\n", "    alone: [adamw]\n...\n", None),
        ("title: A tiny study", f"title: {'[' * 3000}{']' * 3000}", "2: is nested more than 20 levels"),
        ("remarks: []", "remarks: &a [*a]", "14: remarks: *a stands for what it is in; write the"),
        ("flip: 0.5", "&knob flip: &value 0.5", None),
    ],
)  # fmt: skip
def test_yaml_s_other_traps(tmp_path, old, new, message):
    text = spoilt((old, new))
    if message is None:
        assert load(tmp_path, text) == load(tmp_path, LONG)
    else:
        (found,) = refused(tmp_path, text)
        assert found.startswith(message)


def test_numbers_and_aliases_that_mean_what_they_say(tmp_path):
    for written in ("1e-3", "1.0e-3", "+.001", "0.0010"):
        assert load(tmp_path, spoilt(("lr: 0.001", f"lr: {written}"))) == load(tmp_path, LONG)
    text = spoilt(("seeds: [0, 1]", "seeds: &s [0, 1]"), ("alone: [adamw]", "noise: *s"))
    assert load(tmp_path, text).studies["each"].seeds == (0, 1)
    crlf = tmp_path / "crlf.yaml"
    crlf.write_bytes(LONG.replace("\n", "\r\n").encode())
    assert study.load(crlf) == load(tmp_path, LONG)


def test_all_tabs_and_all_twins_are_listed(tmp_path):
    tabs = spoilt(("  source:", "\tsource:"), ("      flip:", "  \tflip:"))
    assert [line.partition(":")[0] for line in refused(tmp_path, tabs)] == ["7", "23"]
    twins = spoilt(("  steps: 10", "  steps: 10\n  steps: 9"), ("root: .", "root: .\ntitle: B"),
                   ("counts: {train: 4,", "counts: {train: 4, train: 5,"))  # fmt: skip
    assert refused(tmp_path, twins) == [
        "4: title: stands on lines 2 and 4; keep one of them.",
        "13: data: counts: train: stands 2 times on line 13; keep one of them.",
        "20: base: steps: stands on lines 19 and 20; keep one of them.",
    ]


def test_aliases_do_not_blow_up(tmp_path):
    names = "abcdefghij"
    lines = [f"a: &a [{'1, ' * 9}1]"]
    for before, name in zip(names, names[1:], strict=False):
        lines.append(f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]")
    started = time.perf_counter()
    assert "aliases stand for more than 10000 values; write them out." in only(
        tmp_path, "\n".join(lines)
    )
    assert time.perf_counter() - started < 1


def test_what_is_no_settings_at_all(tmp_path):
    file = tmp_path / "params.yaml"
    for content, message in {
        b"": "must hold 'key: value' lines, is empty.",
        b"# nothing\n": "must hold 'key: value' lines, is empty.",
        b"- a\n": "must hold 'key: value' lines, holds list.",
        "title: Straße".encode("latin-1"): "is no UTF-8 text; save it in that encoding.",
        "title: Street".encode("utf-16"): "is no UTF-8 text; save it in that encoding.",
    }.items():
        file.write_bytes(content)
        with pytest.raises(InputError) as caught:
            study.load(file)
        assert str(caught.value) == f"{file}: {message}"
    with pytest.raises(InputError, match="cannot be read"):
        study.load(tmp_path)


def test_nobody_s_tag_is_executed(tmp_path):
    trace = tmp_path / "trace"
    tag = f"!!python/object/apply:pathlib.Path.touch [{trace}]"
    assert "makes an object" in only(tmp_path, spoilt(("title: A tiny study", f"title: {tag}")))
    assert not trace.exists()


def test_other_files_keep_what_only_settings_refuse(tmp_path):
    file = tmp_path / "dataset.yaml"
    file.write_text("1: 010\nval: [2011_09_26, 2011-09-26, 2011-99-99]\n")
    assert read_yaml(file) == {1: 10, "val": [20110926, "2011-09-26", "2011-99-99"]}
    assert not any(isinstance(v, datetime.date) for v in read_yaml(file)["val"])
    file.write_text("a: 1\nb: 2\na: 3\n")
    with pytest.raises(InputError, match=r"dataset.yaml:3: a: stands on lines 1 and 3"):
        read_yaml(file)


def test_names_that_yaml_would_read_otherwise_are_quoted_in_the_plan(tmp_path):
    odd = ["010", "1e3", "2024-01-01", "true", "null", "7"]
    assert not any(map(is_text, odd)) and all(map(is_text, ["with-flip", "on", "fcn-8s", "3d"]))
    for name in odd:
        plan = load(tmp_path, spoilt(("{baseline: baseline,", f'{{"{name}": baseline,')))
        file = tmp_path / "plan.yaml"
        file.write_text(plan.text())
        assert read_yaml(file)["arms"] == plan.written and name in plan.written


def test_what_cannot_be_built_is_listed_for_all_arms(tmp_path):
    """A bad network stands on its line of the list, and arms that have it say nothing."""
    text = LISTED.replace('"dabnet"', '"dabent"').replace("adamw, poly]", "adamw, poly, ohem, tie]")
    text = text.replace("studies:\n", "  own: {network: 'smp:unet:resnet19'}\nstudies:\n", 1)
    text = text.replace("source: synthetic", "source: sintetic").replace(
        "  poly: {", "  ohem: {knobs: {ohem_threshold: 0.5, ohem_kept: 9999}}\n"
        "  tie: {knobs: {pretrained: 'study:tiny/baseline'}}\n  poly: {"
    )  # fmt: skip
    with pytest.raises(InputError) as caught:
        commands._check_settings(load(tmp_path, text))
    first, *found = str(caught.value).split("\n")
    assert first == f"params.yaml: {len(found)} problems:"
    lines = text.split("\n")
    for line, (place, said) in zip(found, [
        ("data:", "data: source: 'sintetic' is unknown. Did you mean 'synthetic'?"),
        ("never:", "networks: never: network 'dabent': unknown. Did you mean"),
        ("own:", "networks: own: network 'smp:unet:resnet19': unknown encoder"),
        ("ladder: [", "arm with-ohem: ohem_kept: 9999 of at most 6144 pixels keeps all of them"),
        ("ladder: [", "arm with-tie: study:tiny/baseline: is an arm of this study"),
        ("ladder: [", "arm with-tie: pretrained: study:tiny/baseline: study 'tiny' has no trained"),
    ], strict=True):  # fmt: skip
        number, _, message = line.removeprefix("params.yaml:").partition(": ")
        assert message.startswith(said) and lines[int(number) - 1].strip().startswith(place)


# Hostile input -----------------------------------------------------------------------------------

REAL = (study.ROOT / "params.yaml").read_text()
SYNTAX = st.sampled_from(list("{}[]:,-#&*!|>'\"%@`?\t\n ~=<.0123456789eE_xo") + [
    "<<", "---\n", "...\n", "!!python/name:os.system ", "&a ", "*a", "null", "on", ".inf", "[a]: ",
    "\ufeff", "\x00", "é", "\U0001f600", "\u2028", "seeds:", "  steps: 010\n", "knobs: ", "{}", "[]",
])  # fmt: skip


@st.composite
def edits(draw) -> str:
    """Return the real settings after some edits of characters or lines."""
    text = REAL
    for _ in range(draw(st.integers(1, 4))):
        at, length = draw(st.integers(0, len(text))), draw(st.integers(0, 12))
        lines = text.split("\n")
        line, other = (draw(st.integers(0, len(lines) - 1)) for _ in range(2))
        kind = draw(
            st.sampled_from(["put", "put", "cut", "drop", "twice", "move", "swap", "indent"])
        )
        if kind == "put":
            text = text[:at] + draw(SYNTAX) + text[at:]
            continue
        if kind == "cut":
            text = text[:at] + text[at + length :]
            continue
        if kind == "drop":
            del lines[line]
        elif kind == "twice":
            lines.insert(other, lines[line])
        elif kind == "move":
            lines.insert(other, lines.pop(line))
        elif kind == "swap":
            lines[line], lines[other] = lines[other], lines[line]
        else:
            lines[line] = " " * draw(st.integers(0, 6)) + lines[line].lstrip()
        text = "\n".join(lines)
    return text


def outcome(folder, content: bytes) -> str:
    """Return 'plan', or 'message' after a look at it; anything else is an error."""
    file = folder / "params.yaml"
    file.write_bytes(content)
    started = time.perf_counter()
    try:
        study.load(file).text()
        return "plan"
    except InputError as problem:
        first, *rest = str(problem).split("\n")
        assert not rest or first == f"{file}: {len(rest)} problems:"
        for line in rest or [first]:
            assert re.match(r"[^:]+params\.yaml:(\d+:)? \S", line) and line.endswith((".", "..."))
            assert len(line) < 1200
        numbers = [int(line.removeprefix(f"{file}:").partition(":")[0]) for line in rest]
        assert numbers == sorted(numbers)
        return "message"
    finally:
        assert time.perf_counter() - started < 2


def hostile(folder, contents, examples: int) -> set[str]:
    seen = set()

    @settings(max_examples=examples, deadline=None, database=None, derandomize=True,
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(contents)
    def tried(content):
        seen.add(outcome(folder, content))

    tried()
    return seen


def test_edits_of_the_real_settings_end_in_a_plan_or_a_message(tmp_path, record_property):
    assert hostile(tmp_path, edits().map(str.encode), 300) == {"plan", "message"}
    tried = ["Hostile input", "params.yaml, random edits", 300, "a plan or one message"]
    record_property("tried", json.dumps(tried))


def test_arbitrary_content_ends_in_a_message(tmp_path, record_property):
    pieces = st.lists(SYNTAX | st.text(max_size=5), max_size=40).map("".join)
    encoded = pieces.map(lambda text: text.encode("utf-8", "surrogatepass"))
    assert hostile(tmp_path, st.binary(max_size=200) | encoded, 150) == {"message"}
    tried = ["Hostile input", "params.yaml, arbitrary bytes and text", 150, "one message"]
    record_property("tried", json.dumps(tried))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
    | st.sampled_from(["fcn-8s", "flip", "course", "fcn8s:resnet18", "adamw", "synthetic"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)  # fmt: skip


def test_any_value_in_any_place_ends_in_a_plan_or_a_message(tmp_path, record_property):
    file = tmp_path / "base.yaml"
    file.write_text(TEXT + MORE)
    plain = json.dumps(read_yaml(file))
    paths = []

    def walk(value, path):
        paths.append(path)
        if isinstance(value, dict | list):
            for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
                walk(inner, (*path, key))

    for key, inner in json.loads(plain).items():
        walk(inner, (key,))

    @st.composite
    def changed(draw) -> bytes:
        content = json.loads(plain)
        *parents, last = draw(st.sampled_from(paths))
        inside = content
        for key in parents:
            inside = inside[key]
        inside[last] = draw(VALUES)
        return json.dumps(content).encode()

    assert hostile(tmp_path, changed(), 150) <= {"plan", "message"}
    tried = ["Hostile input", "params.yaml, any value in any place", 150, "a plan or one message"]
    record_property("tried", json.dumps(tried))


@pytest.mark.parametrize("key", ["params", "plan"])
@pytest.mark.parametrize(
    "path", ["../../x.yaml", "/tmp/x.yaml", "a/../../x.yaml", "x.yaml; rm x", "-x.yaml", "$(x).yaml", "README.md"]
)  # fmt: skip
def test_what_is_written_stays_inside(tmp_path, key, path):
    text = re.sub(rf"(?m)^{key}:.*", f'{key}: "{path}"', (ROOT / "params.yaml").read_text())
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(InputError, match=rf"{key}: .* is not allowed; give the path of a .yaml file"):
        study.load(tmp_path / "params.yaml")
