"""Reads YAML files with the line of each value.

What is wrong is collected, so that a file's problems come all at once.
"""

import re
from functools import cache
from pathlib import Path
from typing import Any

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

from roadseg.errors import InputError, escaped

DEEPEST = 20  # levels of nesting; settings have five
LARGEST = 10_000  # values that aliases may stand for in one file
LONGEST = 900  # characters of a message
DIGITS = 15  # of a number without a point
DECIMAL = re.compile(r"[-+]?(0|[1-9]\d*|(?=\.\d))(\.\d*)?([eE][-+]?\d+)?|[-+]?\.(inf|nan)", re.I)
DATE = re.compile(r"\d{4}-\d\d?-\d\d?([Tt \t].*)?")


class _Unread:
    """Stands for a value whose problem is listed already, so that nobody judges it again."""

    def __repr__(self):
        return "..."


UNREAD = _Unread()


class Problems:
    """What is wrong with a file and with those that go with it, each with its file and line.

    `lines` is path of keys and indices -> line of the file.
    """

    def __init__(self, file: str, lines: dict[tuple, int] | None = None):
        self.file, self.lines = file, {} if lines is None else lines
        self._order = [file]  # of the files, in a message
        self._files: dict[tuple, str] = {}  # path -> the other file that it stands in
        self._parts: set[str] = set()  # first keys of paths that stand in other files
        self._found: dict[tuple[str, int, str], tuple] = {}

    def include(self, other: "Problems", part: str) -> None:
        """Take another file's lines and problems for those of the paths that begin with `part`."""
        self._parts.add(part)
        self._order.append(other.file)
        for path, line in other.lines.items():
            self.lines[part, *path], self._files[part, *path] = line, other.file
        for found, where in other._found.items():
            self._found.setdefault(found, (part, *where))

    def same_place(self, path: tuple, other: tuple) -> None:
        """Let a path stand where another one does."""
        self._files[path], self.lines[path] = self.place(other)

    def place(self, path: tuple) -> tuple[str, int]:
        """Return file and line of a value, or else of what would hold it."""
        while path and path not in self.lines:
            path = path[:-1]
        return self._files.get(path, self.file), self.lines.get(path, 1)

    def line(self, path: tuple) -> int:
        """Return the line of a value, or else of what would hold it."""
        return self.place(path)[1]

    def add(self, text: str, *path, at: tuple | None = None) -> None:
        """Note a problem of the value at a path, in words that go on from its names.

        Its line is that of `at`, else of the key below `path` that the text begins with, if
        there is one.
        """
        where = at or (*path, text.partition(":")[0])
        file, line = self.place(where)
        if file != self.file and path[:1] and path[0] in self._parts:
            path = path[1:]  # which the file's name says
        text = ": ".join([*(str(part) for part in path if type(part) is not int), text])
        text = escaped(text)
        if len(text) > LONGEST:
            text = f"{text[: LONGEST * 2 // 3]} ... {text[-LONGEST // 3 :]}"
        self._found.setdefault((file, line, text), where)

    def touch(self, *path) -> bool:
        """Return whether a problem lies at, in or around the value at a path."""
        return any(
            all(a == b for a, b in zip(where, path, strict=False)) for where in self._found.values()
        )

    def raise_any(self) -> None:
        """Raise an InputError of all problems, by file and line, if there are some."""
        found = sorted(self._found, key=lambda place: (self._order.index(place[0]), place[1]))
        listed = [f"{file}:{line}: {text}" for file, line, text in found]
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


def read_text(file: Path, name: str) -> str:
    """Return the text of a UTF-8 file; an InputError, with a name for messages, if it has none."""
    try:
        return Path(file).read_text("utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"{name}: no such file.") from None
    except UnicodeDecodeError:
        raise InputError(f"{name}: is no UTF-8 text; save it in that encoding.") from None
    except (OSError, ValueError) as problem:
        raise InputError(f"{name}: cannot be read ({problem}).") from None


def read_lines(
    file: Path, name: str, settings: bool = True, *, may_be_empty: bool = False
) -> tuple[dict, Problems]:
    """Read a YAML 1.2 mapping under a name for messages.

    Of `settings`, keys must be text, and what other readers of YAML take for something else (010,
    1_000, dates) is a problem. A file that `may_be_empty` then holds an empty mapping.

    Returns
    -------
    The mapping, and the problems so far, which know the lines. UNREAD stands for what has one.

    Raises
    ------
    InputError : the file is missing, is no YAML, or holds no mapping
    """
    text, problems = read_text(file, name), Problems(name)
    try:
        content = _compose(text, problems, settings)
    except YAMLError as problem:
        _explain(problem, text, problems)
        problems.raise_any()
    if content is None and may_be_empty:
        return {}, problems
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
