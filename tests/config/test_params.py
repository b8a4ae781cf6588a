"""What is wrong with a study's files: several problems at once, old files, hostile input."""

import json
import re
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_study import BELOW, below, project
from tiny import LISTED, LONG, MANY, TINY, appended, load, places, problems, refused, spoilt, write

from roadseg.__main__ import main
from roadseg.config import paths, study
from roadseg.config.yaml import read_yaml
from roadseg.errors import InputError
from roadseg.training import resolve
from roadseg.training.question import resolved_question


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """Let the test's folder be the project's root, so that its catalogue is the only one."""
    monkeypatch.setattr(paths, "ROOT", tmp_path)


def test_problems_are_lines_in_order_of_files_and_come_in_three_rounds(tmp_path):
    """What depends on something wrong may be right once that is mended."""
    no_yaml = ("title: A tiny study", "title: 2024-01-01")
    no_setting = [("block: 1", "block: 0"), ("steps: 10", "stesp: 10"), ("flip: 0.5", "flip: yes"),
                  ("alone: [adamw]", "alone: [adamw]\n    alonne: [adamw]")]  # fmt: skip
    contradictions = [("study: tiny", "study: ti ny"), ("lr: 0.001", "cycles: 2"), ("adamw:\n  set", "ad.amw:\n  set")]
    in_questions = [("  - flip", "  - flop"), ("start: with-flip", "start: with-flop")]
    changes = [no_yaml, *no_setting, *contradictions, *in_questions]
    odd = {"networks.yaml": "odd: {netwrk: dabnet}\n"}
    files = {**spoilt(LONG, *changes), **odd, "remarks.md": "Nothing was tuned.\n"}
    assert places(refused(tmp_path, files)) == ["params.yaml:2: title", "remarks.md:1"]
    files = {**spoilt(LONG, *changes[1:]), **odd, "remarks.md": ""}
    assert places(refused(tmp_path, files)) == [
        "params.yaml:9: data: block", "params.yaml:15: base: stesp", "params.yaml:31: questions: each: alonne",
        "tricks.yaml:3: flip: set: flip", "networks.yaml:1: odd: netwrk",
    ]  # fmt: skip
    files = {**files, **spoilt(LONG, *contradictions, *in_questions)}
    assert places(refused(tmp_path, files)) == ["params.yaml:1: study", "params.yaml:16: base: cycles", "tricks.yaml:4"]
    files = spoilt(LONG, *in_questions)  # and the second may be an arm of the first
    assert places(refused(tmp_path, files)) == ["params.yaml:25: questions: ladder: ladder"]
    files = spoilt(LONG, in_questions[1])
    assert places(refused(tmp_path, files)) == ["params.yaml:29: questions: each: start"]


def test_problems_that_are_no_consequence_are_shown(tmp_path):
    files = spoilt(LONG, ("source: synthetic", "source: synthetic\n  sed: 1"), ("  seed: 0\n", ""),
                   ("  block: 1\n", ""))  # fmt: skip
    assert places(refused(tmp_path, files)) == ["params.yaml:5: data: block", "params.yaml:7: data: sed"]
    files = spoilt(LONG, ("steps: 10", "steps: 10\n  cycles: 3\n  warmup_steps: 10"))
    assert places(refused(tmp_path, files)) == ["params.yaml:16: base: cycles", "params.yaml:17: base: warmup_steps"]


def test_a_problem_of_an_entry_has_the_file_that_says_it(tmp_path):
    """The project's, or the study's own, whatever the other one says of the entry."""
    def places_of(*changes, **more):
        return places(problems(lambda: below(tmp_path, *changes, **more)))

    assert places_of(("idea: mirrors", "idea: 3")) == ["tricks.yaml:1: flip: idea"]
    study_catalogue = {"studies/tiny/tricks.yaml": BELOW["studies/tiny/tricks.yaml"].replace("flip: 0.5", "flip: 5")}
    assert places_of(**study_catalogue) == ["studies/tiny/tricks.yaml:1: flip: set: flip"]
    # a value that the study replaces is judged no more
    below(tmp_path, ("flip: 0.25", "flip: 25"))
    below(tmp_path, **{"studies/tiny/networks.yaml": "unet: {network: dabnet, source: of it}\n"})
    assert places_of(("network: unet", "netwrk: unet"), ("title: A tiny study", "title: 2020"),
                     ("poly: {set:", "poly: {sett:")) == [
        "studies/tiny/params.yaml:2: title", "studies/tiny/tricks.yaml:3: poly: sett", "networks.yaml:1: unet: netwrk",
    ]  # fmt: skip


def test_the_same_fault_in_two_files_is_two_problems(tmp_path):
    fault = "flip: {set: {flip: 0.5}, source: 2020-01-01}\n"
    lines = problems(lambda: below(tmp_path, **{
        "tricks.yaml": fault, "studies/tiny/tricks.yaml": fault + "adamw: {set: {steps: 3}}\n",
        "studies/tiny/params.yaml": BELOW["studies/tiny/params.yaml"].replace(", poly]", "]"),
    }))  # fmt: skip
    assert places(lines) == [f"{file}:1: flip: source" for file in ("tricks.yaml", "studies/tiny/tricks.yaml")]


def test_what_cannot_be_built_is_listed_for_all_arms(tmp_path):
    """A bad network stands on its line of the list, and arms that have it say nothing."""
    files = spoilt(
        appended(LISTED, tricks="ohem: {set: {ohem_threshold: 0.5, ohem_kept: 9999}}\n"
                                "tie: {set: {pretrained: 'study:tiny/baseline'}}\n",
                 networks="own: {network: 'smp:unet:resnet19'}\n"),
        ('"dabnet"', '"dabent"'), ("adamw, poly]", "adamw, poly, ohem, tie]"),
        ("source: synthetic", "source: sintetic"),
    )  # fmt: skip
    loaded = load(tmp_path, files)
    lines = problems(lambda: resolve.check_settings(loaded))
    for line, (place, expected) in zip(lines, [
        ("data:", "data: source: 'sintetic' is unknown. Did you mean 'synthetic'?"),
        ("ladder: [", "arm with-ohem: ohem_kept: 9999 of at most 6144 pixels keeps all of them"),
        ("ladder: [", "arm with-tie: study:tiny/baseline: is an arm of this study"),
        ("ladder: [", "arm with-tie: pretrained: study:tiny/baseline: study 'tiny' has no trained"),
        ("never:", "never: network 'dabent': unknown. Did you mean"),
        ("own:", "own: network 'smp:unet:resnet19': unknown encoder"),
    ], strict=True):  # fmt: skip
        file, number, message = re.fullmatch(r"(\w+\.yaml):(\d+): (.*)", line).groups()
        assert message.startswith(expected)
        assert files[file].split("\n")[int(number) - 1].strip().startswith(place)


# Where a study lies ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new"),
    [
        *(("folder: studies/tiny\n", f"folder: {value}\n") for value in (".", "studies/camvid", "/tmp", "studies/../x", "-x", "x y")),
        *(("root: ../..\n", f"root: {value}\n") for value in (".", "../../..", "/tmp")),
        ("folder: studies/tiny\n", ""), ("study: tiny", "study: camvid"),
    ],
)  # fmt: skip
def test_a_study_says_where_it_lies_and_how_it_is_called(tmp_path, old, new):
    first, *_ = places(problems(lambda: below(tmp_path, (old, new))))
    assert re.fullmatch(rf"studies/tiny/params.yaml:\d: {old.partition(':')[0]}", first)


def test_the_embedded_study_lies_in_the_root(tmp_path):
    files = spoilt(TINY, ("root: .", "root: ../.."), ("folder: .", "folder: studies/tiny"))
    assert places(refused(tmp_path, files)) == ["params.yaml:3: root", "params.yaml:4: folder"]
    write(tmp_path, {**TINY, "remarks.md": ""})
    assert places(problems(study.load)) == ["params.yaml:1: study"]  # which is synthetic


def test_a_folder_that_no_study_can_be_called_after_is_refused(tmp_path):
    write(tmp_path, {name.replace("tiny", "my_set"): text for name, text in BELOW.items()})
    with pytest.raises(InputError, match="^studies/my_set: "):
        study.load("my_set")


@pytest.mark.parametrize("command", ["plan", "resolve", "prepare"])
@pytest.mark.parametrize("name", ["studies/tiny/tricks.yaml", "studies/tiny/remarks.md", "tricks.yaml", "networks.yaml"])
def test_files_that_the_pipeline_reads_are_missed_before_it_does(tmp_path, capsys, name, command):
    below(tmp_path)
    (tmp_path / name).unlink()
    assert main([command, "tiny"]) == 2
    assert re.fullmatch(f"roadseg: {name}: no such file.*\n", capsys.readouterr().err)


# Hostile input -----------------------------------------------------------------------------------

REAL = project()
SYNTAX = st.sampled_from(list("{}[]:,-#&*!|>'\"%@`?\t\n ~=<.0123456789eE_xo") + [
    "<<", "---\n", "...\n", "!!python/name:os.system ", "&a ", "*a", "null", "on", ".inf", "[a]: ",
    "\ufeff", "\x00", "é", "\U0001f600", "\u2028", "seeds:", "  steps: 010\n", "set: ", "{}", "[]",
    "- ", "tricks:\n", "folder: x\n",
])  # fmt: skip


def edited(draw, text: str) -> str:
    """Return a text after some edits of characters or lines."""
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


@st.composite
def edits(draw, names=tuple(REAL)) -> dict[str, bytes]:
    """Return the real files, one or two of them edited."""
    files = dict(REAL)
    for name in draw(st.lists(st.sampled_from(names), min_size=1, max_size=2, unique=True)):
        files[name] = edited(draw, files[name])
    return {name: text.encode() for name, text in files.items()}


def outcome(folder, files: dict[str, bytes]) -> str:
    """Return 'study', or 'message' after a look at it; anything else is an error."""
    for name, content in files.items():
        (folder / name).write_bytes(content)
    started = time.perf_counter()
    try:
        loaded = study.load("params.yaml")
        for question in loaded.questions:
            json.dumps(resolved_question(loaded, question))
        return "study"
    except InputError as problem:
        first, *rest = str(problem).split("\n")
        assert not rest or re.fullmatch(rf"\w+\.yaml: {len(rest)} problems:", first)
        places = []
        for line in rest or [first]:
            match = re.match(r"(params\.yaml|tricks\.yaml|networks\.yaml|remarks\.md):(\d+:)? \S", line)
            assert match and line.endswith((".", "?")) and len(line) < 1200
            places.append((list(REAL).index(match[1]), int((match[2] or "0:")[:-1])))
        assert places == sorted(places)
        return "message"
    finally:
        assert time.perf_counter() - started < 10


def hostile(folder, contents, examples: int) -> set[str]:
    seen = set()

    @settings(max_examples=examples, deadline=None, database=None, derandomize=True,
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(contents)
    def tried(content):
        seen.add(outcome(folder, content))

    tried()
    return seen


@pytest.mark.parametrize("names", [("params.yaml",), tuple(REAL)])
def test_edits_of_the_real_files_end_in_a_study_or_a_message(tmp_path, record_property, names):
    assert hostile(tmp_path, edits(names), 300) == {"study", "message"}
    what = "params.yaml" if len(names) == 1 else "params.yaml, catalogue and remarks"
    record_property("tried", json.dumps(["Hostile input", f"{what}, random edits", 300, "a study or one message"]))


@pytest.mark.parametrize("name", ["params.yaml", "tricks.yaml"])
def test_arbitrary_content_ends_in_a_message(tmp_path, record_property, name):
    pieces = st.lists(SYNTAX | st.text(max_size=5), max_size=40).map("".join)
    encoded = pieces.map(lambda text: text.encode("utf-8", "surrogatepass"))
    files = {other: text.encode() for other, text in REAL.items()}
    contents = (st.binary(max_size=200) | encoded).map(lambda content: {**files, name: content})
    assert hostile(tmp_path, contents, 150) == {"message"}
    record_property("tried", json.dumps(["Hostile input", f"{name}, arbitrary bytes and text", 150, "one message"]))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
    | st.sampled_from(["fcn-8s", "flip", "course", "fcn8s:resnet18", "adamw", "synthetic"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)  # fmt: skip


def test_any_value_in_any_place_ends_in_a_study_or_a_message(tmp_path, record_property):
    files = appended(MANY, networks="small: {network: unet, idea: i}\n")
    write(tmp_path, {**files, "remarks.md": ""})
    plain = {name: json.dumps(read_yaml(tmp_path / name)) for name in files}
    places = []

    def walk(value, path):
        places.append(path)
        if isinstance(value, dict | list):
            for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
                walk(inner, (*path, key))

    for name, text in plain.items():
        for key, inner in json.loads(text).items():
            walk(inner, (name, key))

    @st.composite
    def changed(draw) -> dict[str, bytes]:
        name, *parents, last = draw(st.sampled_from(places))
        content = json.loads(plain[name])
        inside = content
        for key in parents:
            inside = inside[key]
        inside[last] = draw(VALUES)
        return {**{n: text.encode() for n, text in plain.items()}, name: json.dumps(content).encode()}

    assert hostile(tmp_path, changed(), 200) <= {"study", "message"}
    tried = ["Hostile input", "params.yaml and catalogue, any value in any place", 200, "a study or one message"]
    record_property("tried", json.dumps(tried))


@pytest.mark.parametrize("key", ["study", "root", "folder"])
@pytest.mark.parametrize(
    "path", ["../../x", "/tmp/x", "a/../../x", "x; rm x", "-x", "$(x)", "x\ny", "", "a b"]
)  # fmt: skip
def test_what_is_written_stays_inside(tmp_path, monkeypatch, key, path):
    """These three stand in the pipeline's paths and commands, whatever folder a study is in."""
    write(tmp_path / "project", {"tricks.yaml": "", "networks.yaml": ""})
    monkeypatch.setattr(paths, "ROOT", tmp_path / "project")
    text = re.sub(rf"(?m)^{key}:.*", lambda _: f"{key}: {json.dumps(path)}", TINY["params.yaml"])
    file = write(tmp_path / "elsewhere", {**TINY, "params.yaml": text})
    with pytest.raises(InputError, match=f"params.yaml:[134]: {key}: .* (is not allowed|cannot name)"):
        study.load(file)
