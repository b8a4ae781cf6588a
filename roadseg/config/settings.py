"""Reads YAML files with the line of each value, and checks the structure of `params.yaml`.

What is wrong is collected, so that a file's problems come all at once. The rules of knobs are in
`recipe.py`, those of studies in `study.py`.
"""

import difflib
import re
from functools import cache
from operator import itemgetter
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    CollectionEndEvent,
    CollectionStartEvent,
    DocumentStartEvent,
    MappingStartEvent,
    ScalarEvent,
)
from ruamel.yaml.nodes import ScalarNode

from roadseg.config.recipe import KNOBS, check_knob
from roadseg.errors import InputError, escaped, nearest

DEEPEST = 20  # levels of nesting; settings have five
LARGEST = 10_000  # values that aliases may stand for in one file
LONGEST = 900  # characters of a message
DIGITS = 15  # of a number without a point
DECIMAL = re.compile(r"[-+]?(0|[1-9]\d*|(?=\.\d))(\.\d*)?([eE][-+]?\d+)?|[-+]?\.(inf|nan)", re.I)
DATE = re.compile(r"\d{4}-\d\d?-\d\d?([Tt \t].*)?")
SWITCHES = ("on", "off", "yes", "no", "y", "n")


class _Unread:
    """Stands for a value whose problem is listed already, so that nobody judges it again."""

    def __repr__(self):
        return "..."


UNREAD = _Unread()


class Problems:
    """What is wrong with a file, with the line of each.

    `lines` is path of keys and indices -> line of the file.
    """

    def __init__(self, file: str, lines: dict[tuple, int] | None = None):
        self.file, self.lines = file, {} if lines is None else lines
        self._found: dict[tuple[int, str], tuple] = {}

    def line(self, path: tuple) -> int:
        """Return the line of a value, or else of what would hold it."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)

    def add(self, text: str, *path, at: tuple | None = None) -> None:
        """Note a problem of the value at a path, in words that go on from its names.

        Its line is that of `at`, else of the key below `path` that the text begins with, if
        there is one.
        """
        where = at or (*path, text.partition(":")[0])
        text = ": ".join([*(str(part) for part in path if type(part) is not int), text])
        text = escaped(text)
        if len(text) > LONGEST:
            text = f"{text[: LONGEST * 2 // 3]} ... {text[-LONGEST // 3 :]}"
        self._found.setdefault((self.line(where), text), where)

    def touch(self, *path) -> bool:
        """Return whether a problem lies at, in or around the value at a path."""
        return any(
            all(a == b for a, b in zip(where, path, strict=False)) for where in self._found.values()
        )

    def raise_any(self) -> None:
        """Raise an InputError of all problems, by line, if there are some."""
        listed = [
            f"{self.file}:{line}: {text}" for line, text in sorted(self._found, key=itemgetter(0))
        ]
        if len(listed) > 1:
            listed.insert(0, f"{self.file}: {len(listed)} problems:")
        if listed:
            raise InputError("\n".join(listed))


# YAML --------------------------------------------------------------------------------------------


def read_yaml(file: Path) -> dict:
    """Read a YAML 1.2 mapping; duplicate keys and objects are errors.

    Raises
    ------
    InputError : the file is missing, or no such mapping, with the line
    """
    content, problems = read_lines(file, str(file), settings=False)
    problems.raise_any()
    return content


def read_lines(file: Path, name: str, settings: bool = True) -> tuple[dict, Problems]:
    """Read a YAML 1.2 mapping under a name for messages.

    Of `settings`, keys must be text, and what other readers of YAML take for something else (010,
    1_000, dates) is a problem.

    Returns
    -------
    The mapping, and the problems so far, which know the lines. UNREAD stands for what has one.

    Raises
    ------
    InputError : the file is missing, is no YAML, or holds no mapping
    """
    try:
        text = Path(file).read_text("utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"{name}: no such file.") from None
    except (OSError, ValueError) as problem:
        if isinstance(problem, UnicodeDecodeError):
            raise InputError(f"{name}: is no UTF-8 text; save it in that encoding.") from None
        raise InputError(f"{name}: cannot be read ({problem}).") from None
    problems = Problems(name)
    try:
        content = _compose(text, problems, settings)
    except YAMLError as problem:
        _explain(problem, text, problems)
        problems.raise_any()
    if content is None:
        raise InputError(f"{name}: must hold 'key: value' lines, is empty.")
    if content is UNREAD:
        problems.raise_any()
    if not isinstance(content, dict):
        raise InputError(f"{name}: must hold 'key: value' lines, holds {type(content).__name__}.")
    return content, problems


def _explain(problem: YAMLError, text: str, problems: Problems) -> None:
    """Note what is no YAML: all lines that tabs indent, or the place where reading ended."""
    lines = re.split("\r\n|[\n\r\x85\u2028\u2029]", text)
    mark = getattr(problem, "problem_mark", None)
    if mark is None:  # a character that no YAML has
        what = str(problem).partition("\n")[0]
        at = getattr(problem, "position", 0)
        line = len(re.split("\r\n|[\n\r\x85\u2028\u2029]", text[:at]))
        problems.lines["character",] = line
        problems.add(f"not valid YAML ({what}); take it out.", at=("character",))
        return
    line = min(mark.line + 1, len(lines))
    tabs = [n for n, found in enumerate(lines, 1) if re.match(r" *\t\s*\S", found)]
    if line in tabs:
        for n in tabs:
            problems.lines["tab", n] = n
            problems.add("a tab before the text; YAML is indented with spaces.", at=("tab", n))
        return
    what, start = problem.problem or problem.context, getattr(problem, "context_mark", None)
    if problem.problem and start and start.line != mark.line:
        what += f", {problem.context} from line {start.line + 1} on"
    if "':'" in what or "mapping values" in what:
        advice = "Put a space after the colon of 'key: value', and text with colons into quotes."
    else:
        advice = (
            "Look here and one line above: indent with spaces, not tabs, put a space after each "
            "colon, and close brackets and quotes."
        )
    problems.lines["here",] = line
    problems.add(f"not valid YAML ({what}). {advice}", at=("here",))


def _is_tagged(event) -> bool:
    return event.tag not in (None, "!")


class _Open:
    """A mapping or list of which the end is yet to come."""

    def __init__(self, value: dict | list, path: tuple, event):
        self.value, self.path, self.anchor = value, path, event.anchor
        self.line, self.tagged = event.start_mark.line + 1, _is_tagged(event)
        self.key: tuple | None = None  # (key,) from when it is read until its value is
        self.keys: dict[tuple, list[int]] = {}  # (type, key) -> its lines
        self.size = 1  # values in it


def _compose(text: str, problems: Problems, settings: bool):
    """Return the content of a YAML text, built from the events of the parser that DVC uses.

    Nothing is built by tags, and nesting takes no recursion.
    """
    stack: list[_Open] = []
    anchors: dict[str, tuple[Any, int]] = {}
    lines, root, documents, aliased = problems.lines, None, 0, 0

    def path_below() -> tuple:
        top = stack[-1] if stack else None
        if top is None or (isinstance(top.value, dict) and top.key is None):
            return top.path if top else ()
        return (*top.path, top.key[0] if isinstance(top.value, dict) else len(top.value))

    def note(text: str, line: int, *path) -> None:
        at = (*path, ("line", line, text))
        lines[at] = line
        problems.add(text, *path, at=at)

    def place(value, line: int, plain: bool, size: int = 1) -> None:
        nonlocal root
        if not stack:
            root = value
            return
        top = stack[-1]
        top.size += size
        if isinstance(top.value, list):
            lines[*top.path, len(top.value)] = line
            top.value.append(value)
        elif top.key is not None:
            if top.key[0] is not UNREAD:
                top.value[top.key[0]] = value
            top.key = None
        elif isinstance(value, dict | list | _Unread):
            if value is not UNREAD:
                note("a key must be one text, not a list or lines.", line, *top.path)
            top.key = (UNREAD,)
        elif value == "<<" and plain:
            note("is not supported; write the lines out.", line, *top.path, "<<")
            top.key = (UNREAD,)
        elif settings and not isinstance(value, str):
            what = "has no text" if value is None else f"{value!r} is no text"
            note(f"a key {what}; put it into quotes if it is a name.", line, *top.path)
            top.key = (UNREAD,)
        else:
            top.key = (value,)
            lines.setdefault((*top.path, value), line)
            top.keys.setdefault((type(value), value), []).append(line)

    for event in YAML(typ="safe").parse(text):
        line = event.start_mark.line + 1
        if isinstance(event, DocumentStartEvent):
            documents += 1
            if documents > 1:
                note("a second document begins here; take the line --- or ... out.", line)
                return UNREAD
            if event.version not in (None, (1, 2)):
                note("is read as YAML 1.2; take the %YAML line out.", line)
        elif isinstance(event, CollectionEndEvent):
            top = stack.pop()
            for (_, key), found in top.keys.items():
                if len(found) > 1:
                    on = f"on lines {', '.join(map(str, found[:-1]))} and {found[-1]}"
                    if found[0] == found[-1]:
                        on = f"{len(found)} times on line {found[0]}"
                    note(f"stands {on}; keep one of them.", found[-1], *top.path, key)
                    top.value[key] = UNREAD
            value = UNREAD if top.tagged else top.value
            if top.anchor is not None:
                anchors[top.anchor] = value, top.size
            place(value, top.line, False, top.size)
        elif isinstance(event, AliasEvent):
            inside = any(top.anchor == event.anchor for top in stack)
            if inside or event.anchor not in anchors:
                what = "stands for what it is in" if inside else "has no & before it"
                note(f"*{event.anchor} {what}; write the value out.", line, *path_below())
                place(UNREAD, line, False)
                continue
            value, size = anchors[event.anchor]
            aliased += size
            if aliased > LARGEST:
                note(f"aliases stand for more than {LARGEST} values; write them out.", line)
                return UNREAD
            place(value, line, False, size)
        elif isinstance(event, ScalarEvent | CollectionStartEvent):
            path, tagged = path_below(), _is_tagged(event)
            if tagged:
                tag = event.tag.replace("tag:yaml.org,2002:", "!!")
                note(
                    f"{tag} makes an object; settings are plain values, so take it out.",
                    line,
                    *path,
                )
            if isinstance(event, CollectionStartEvent):
                if len(stack) == DEEPEST:
                    note(f"is nested more than {DEEPEST} levels deep; settings are not.", line)
                    return UNREAD
                stack.append(_Open({} if isinstance(event, MappingStartEvent) else [], path, event))
                continue
            plain = event.implicit[0]
            value, wrong = UNREAD, None
            if not tagged:
                value, wrong = _scalar(event.value) if plain else (event.value, None)
            if wrong and settings:
                note(wrong, line, *path)
                value = UNREAD
            if event.anchor is not None:
                anchors[event.anchor] = value, 1
            place(value, line, plain)
    return root


@cache
def _yaml() -> YAML:
    return YAML(typ="safe", pure=True)


def _scalar(text: str) -> tuple[Any, str | None]:
    """Return what a text without quotes stands for in YAML 1.2, and what is wrong with it."""
    if DATE.fullmatch(text):
        return text, f"{text} is a date to other readers of YAML; put it into quotes."
    if text[:1].isalpha() and text.lower() not in ("true", "false", "null"):
        return text, None  # most of them; the rest of this takes longer
    if len(text) > 40:
        return text, None if not re.fullmatch(r"[-+]?[\d_.]+", text) else (
            "a number of too many digits; put it into quotes if it is a name."
        )
    if text in ("<<", "="):
        return text, None
    yaml = _yaml()
    try:
        tag = yaml.resolver.resolve(ScalarNode, text, (True, False))
        value = yaml.constructor.construct_non_recursive_object(ScalarNode(tag, text))
    except (ValueError, YAMLError):  # of '-_', for instance
        return text, f"{text!r} is no number; put it into quotes if it is a name."
    if type(value) in (int, float) and not DECIMAL.fullmatch(text):
        return value, (
            f"{text} is not the same number to all readers of YAML; write {value}, or put it into "
            "quotes if it is a name."
        )
    if type(value) is int and abs(value) >= 10**DIGITS:
        return value, f"{text} has more than {DIGITS} digits; put it into quotes if it is a name."
    return value, None


def is_text(name: str) -> bool:
    """Return whether all readers of YAML take a name without quotes for text."""
    return _scalar(name) == (name, None)


# What params.yaml is made of ---------------------------------------------------------------------

# The course study's ladder (data/reference_ladder.csv), for a study with `ladder: course`.
COURSE_LADDER = (
    "transfer", "adamw-poly", "class-balanced", "ohem", "multi-scale-training",
    "multi-scale-testing", "auxiliary-head",
)  # fmt: skip
LINES = "'key: value' lines"


def _holds(check) -> AfterValidator:
    def validate(value):
        if not check(value):
            raise PydanticCustomError("rule", "rule")
        return value

    return AfterValidator(validate)


def _are_seeds(value: list) -> bool:
    whole = all(type(seed) is int and seed >= 0 for seed in value)
    return whole and 0 < len(set(value)) == len(value)


def _is_size(value: list) -> bool:
    return len(value) == 2 and all(type(side) is int and 32 <= side <= 8192 for side in value)


def _is_inside(value: str) -> bool:
    parts = value.split("/")
    named = all(re.fullmatch(r"\w[\w.-]*", part, re.ASCII) for part in parts)
    return named and value.endswith(".yaml")


Text = Annotated[str, Field(description="text")]
# The pipeline writes there, and its commands name it.
Place = Annotated[str, _holds(_is_inside)]
INSIDE = "the path of a .yaml file from the project's root, of letters, digits and ._-/"
Natural = Annotated[int, Field(ge=1, description="a whole number >= 1")]
Lines = Annotated[dict, Field(description=LINES)]
SEEDS = "a list of different whole numbers >= 0"


class _Part(BaseModel):
    """Settings that stand together. The description of each says what is allowed."""

    model_config = ConfigDict(extra="forbid", strict=True)


class _Counts(_Part):
    train: Natural
    val: Natural
    test: Natural


class _Data(_Part):
    source: Text
    path: Text
    size: Annotated[list, _holds(_is_size)] = Field(
        description="[height, width], each 32 to 8192 pixels"
    )
    block: int = Field(ge=1, description="1 frame or more")
    seed: int = Field(None, description="a whole number; the scenes depend on it")
    counts: _Counts = Field(None, description="train, val and test, each >= 1")


class _Trick(_Part):
    knobs: Lines
    idea: Text = ""
    source: Text = ""


class _Network(_Part):
    network: Text
    idea: Text = ""
    source: Text = ""


class _Goal(_Part):
    miou: float = Field(gt=0, lt=1, description="a score between 0 and 1")
    gmacs: float = Field(gt=0, description="10^9 multiply-adds per image, > 0")


class _Study(_Part):
    question: Text
    goal: _Goal = Field(None, description=LINES)
    start: Text = None
    tricks: list = Field(None, description="a list of tricks")
    networks: Annotated[Any, _holds(lambda value: isinstance(value, dict | list))] = Field(
        None, description="a list of names, or 'name: network' lines"
    )
    ladder: Annotated[Any, _holds(lambda v: isinstance(v, list) or v == "course")] = Field(
        None,
        description="a list of tricks, or 'course' for the course study's: "
        + ", ".join(COURSE_LADDER),
    )
    leave_one_out: list = Field(None, description="a list of tricks")
    alone: list = Field(None, description="a list of tricks")
    noise: Annotated[list, _holds(_are_seeds)] = Field(None, description=SEEDS)


class _Settings(_Part):
    study: Text
    title: Text
    root: Annotated[str, _holds(lambda v: re.fullmatch(r"\.|\.\.(/\.\.)*", v))] = Field(
        description="the way from the study's folder to the project's root: . or ../.."
    )
    params: Place = Field(description=INSIDE)
    plan: Place = Field(description=INSIDE)
    data: _Data = Field(description=LINES)
    seeds: Annotated[list, _holds(_are_seeds)] = Field(description=SEEDS)
    remarks: list[str] = Field(description="a list of texts, or []")
    base: Lines
    tricks: dict[str, _Trick] = Field(description=LINES)
    networks: dict[str, _Network] = Field(description=LINES)
    studies: dict[str, _Study] = Field(description=LINES)


def check_structure(content: dict, problems: Problems) -> None:
    """Note unknown and missing settings, and values of a wrong type or out of range."""
    try:
        _Settings.model_validate(content)
        errors = []
    except ValidationError as found:
        errors = found.errors(include_url=False)
    data = content.get("data")
    if isinstance(data, dict) and data.get("source") == "synthetic":
        needed = [key for key in ("counts", "seed") if key not in data]
        errors += [{"type": "missing", "loc": ("data", key), "input": data} for key in needed]
    misspelt = set()
    for error in sorted(errors, key=lambda error: error["type"] != "extra_forbidden"):
        kind, path, value = error["type"], error["loc"], error["input"]
        known, allowed = _allowed(path)
        if kind == "extra_forbidden":
            meant = difflib.get_close_matches(path[-1], known, n=1, cutoff=0.6)
            misspelt |= {(*path[:-1], name) for name in meant}
            problems.add(f"{path[-1]}: no such setting.{nearest(path[-1], known)}", *path[:-1])
        elif kind == "missing":
            if path not in misspelt and not problems.touch(*path[:-1], "<<"):
                problems.add(f"{path[-1]}: missing; give {allowed}.", *path[:-1])
        elif not _is_unread(value):
            hint = _hint(value, allowed)
            problems.add(f"{_refused(value)}; give {allowed}.{hint}", *path, at=path)


def _allowed(path: tuple) -> tuple[dict, str]:
    """Return the settings that are known where a path ends, and what is allowed for it."""
    model, known, words = _Settings, {}, LINES
    for part in path:
        if isinstance(model, type) and issubclass(model, _Part):
            known = model.model_fields
            if part in known:
                model, words = known[part].annotation, known[part].description
        elif get_origin(model) is dict:
            model, words = get_args(model)[1], LINES
    return known, words


def _is_unread(value) -> bool:
    items = value.values() if isinstance(value, dict) else value
    return value is UNREAD or (isinstance(value, dict | list) and any(map(_is_unread, items)))


def check_knobs(knobs: dict, problems: Problems, *path, at: tuple) -> None:
    """Note each knob that there is not, and each value that it cannot have; `at` is their path."""
    for name, value in knobs.items():
        if name in KNOBS and _is_unread(value):
            continue
        try:
            check_knob(name, value)
        except InputError as problem:
            text = str(problem)
            if name in KNOBS and " Write " not in text:
                text = text.replace(f"{None!r} is not allowed", _refused(None))
                text += _hint(
                    value, f"{KNOBS[name].type.__name__}: {KNOBS[name].metadata['allowed']}"
                )
            problems.add(text, *path, at=(*at, name))


def _refused(value) -> str:
    return "has no value" if value is None else f"{value!r} is not allowed"


def _hint(value, allowed: str) -> str:
    """Return what YAML may have made of a value, for the end of an error message."""
    number = re.search(r"\b(number|int|float)\b", allowed)
    if isinstance(value, str) and value.lower() in SWITCHES:
        return " To YAML 1.2 this is text; a switch is true or false."
    if isinstance(value, str) and re.fullmatch(r"[-+]?\d+,\d+", value):
        return f" Decimals have a point: {value.replace(',', '.')}."
    if isinstance(value, str) and number and DECIMAL.fullmatch(value):
        return " Write it without quotes."
    if isinstance(value, str) and number and re.match(r"[-+.]?\d", value):
        return " This is text; numbers are written like 20, 0.001 or 1e-3."
    if type(value) is float and "whole" in allowed and value.is_integer():
        return f" Write {int(value)}, without point and exponent."
    if "text" in allowed and isinstance(value, dict):
        return " Put text with a colon into quotes."
    if "text" in allowed and isinstance(value, bool | int | float):
        return " Put it into quotes if it is meant."
    return ""
