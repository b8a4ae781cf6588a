"""Reads YAML files with the line of each value.

What is wrong is collected, so that a file's problems come all at once.
"""

import re
from functools import cache
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import Node, ScalarNode, SequenceNode

from roadseg.errors import InputError, escaped

STR = "tag:yaml.org,2002:str"
MAX_MESSAGE_LENGTH = 900  # characters of a message
MAX_DIGITS = 15  # of a number without a point
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
        self._problems: dict[tuple[str, int, str], tuple] = {}

    def include(self, other: "Problems", part: str) -> None:
        """Take another file's lines and problems for those of the paths that begin with `part`."""
        self._parts.add(part)
        self._order.append(other.file)
        for path, line in other.lines.items():
            self.lines[part, *path], self._files[part, *path] = line, other.file
        for problem, where in other._problems.items():
            self._problems.setdefault(problem, (part, *where))

    def copy_location(self, path: tuple, other: tuple) -> None:
        """Let a path stand where another one does."""
        self._files[path], self.lines[path] = self.location(other)

    def location(self, path: tuple) -> tuple[str, int]:
        """Return file and line of a value, or else of what would hold it."""
        while path and path not in self.lines:
            path = path[:-1]
        return self._files.get(path, self.file), self.lines.get(path, 1)

    def line(self, path: tuple) -> int:
        """Return the line of a value, or else of what would hold it."""
        return self.location(path)[1]

    def add(self, text: str, *path, at: tuple | None = None) -> None:
        """Note a problem of the value at a path, in words that go on from its names.

        Its line is that of `at`, else of the key below `path` that the text begins with, if
        there is one.
        """
        where = at or (*path, text.partition(":")[0])
        file, line = self.location(where)
        if file != self.file and path[:1] and path[0] in self._parts:
            path = path[1:]  # which the file's name says
        text = ": ".join([*(str(part) for part in path if type(part) is not int), text])
        text = escaped(text)
        if len(text) > MAX_MESSAGE_LENGTH:
            text = f"{text[: MAX_MESSAGE_LENGTH * 2 // 3]} ... {text[-MAX_MESSAGE_LENGTH // 3 :]}"
        self._problems.setdefault((file, line, text), where)

    def has_problem_at(self, *path) -> bool:
        """Return whether a problem lies at, in or around the value at a path."""
        return any(
            all(a == b for a, b in zip(where, path, strict=False))
            for where in self._problems.values()
        )

    def raise_any(self) -> None:
        """Raise an InputError of all problems, by file and line, if there are some."""
        in_order = sorted(
            self._problems, key=lambda problem: (self._order.index(problem[0]), problem[1])
        )
        listed = [f"{file}:{line}: {text}" for file, line, text in in_order]
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
        node = YAML(typ="safe").compose(text)  # the parser that DVC uses
        content = None if node is None else _content(node, (), problems, settings)
    except YAMLError as problem:
        _explain(problem, text, problems)
        problems.raise_any()
    except RecursionError:
        raise InputError(f"{name}: nested too deeply; settings have five levels.") from None
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
    tabs = [n for n, text_line in enumerate(lines, 1) if re.match(r" *\t\s*\S", text_line)]
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
    elif "alphabetic" in what:  # the name of an alias or an anchor
        advice = "Put text that begins with * or & into quotes."
    elif "document" in what:
        advice = "Take the line --- or ... out."
    elif "alias" in what:
        advice = "Write the value out."
    else:
        advice = (
            "Look here and one line above: indent with spaces, not tabs, put a space after each "
            "colon, and close brackets and quotes."
        )
    problems.lines["here",] = line
    problems.add(f"not valid YAML ({what}). {advice}", at=("here",))


def _content(node: Node, path: tuple, problems: Problems, settings: bool, ancestors: tuple = ()):
    """Return what a node stands for, with its problems and lines noted; nothing is built by tags.

    `ancestors` are the nodes that it is in.
    """
    line = node.start_mark.line + 1

    def note(text: str, *where, line: int = line) -> None:
        at = (*where, ("line", line, text))
        problems.lines[at] = line
        problems.add(text, *where, at=at)

    if any(node is ancestor for ancestor in ancestors):
        note("an alias in the value that it stands for; write the value out.", *path)
        return UNREAD
    unquoted = isinstance(node, ScalarNode) and not node.style
    resolved_tag = _yaml().resolver.resolve(
        type(node), getattr(node, "value", None), (unquoted, not unquoted)
    )
    # the C parser gives STR to all text without a tag
    if str(node.tag) not in (str(resolved_tag), STR):
        tag = str(node.tag).replace("tag:yaml.org,2002:", "!!")
        note(f"{tag} makes an object; settings are plain values, so take it out.", *path)
        return UNREAD
    if isinstance(node, ScalarNode):
        value, problem = _scalar(node.value) if unquoted else (node.value, None)
        if problem and settings:
            note(problem, *path)
            return UNREAD
        return value
    ancestors = (*ancestors, node)
    if isinstance(node, SequenceNode):
        items = []
        for i, item in enumerate(node.value):
            problems.lines[*path, i] = item.start_mark.line + 1
            items.append(_content(item, (*path, i), problems, settings, ancestors))
        return items
    content, lines = {}, {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, ScalarNode):
            note("a key must be one text, not a list or lines.", *path, line=line)
            continue
        key = _content(key_node, path, problems, False)
        if key == "<<" and not key_node.style:
            note("is not supported; write the lines out.", *path, "<<", line=line)
        elif settings and not isinstance(key, str):
            what = "has no text" if key is None else f"{key!r} is no text"
            note(f"a key {what}; put it into quotes if it is a name.", *path, line=line)
        elif key is not UNREAD:
            problems.lines.setdefault((*path, key), line)
            lines.setdefault(key, []).append(line)
            content[key] = _content(value_node, (*path, key), problems, settings, ancestors)
    for key, key_lines in lines.items():
        if len(key_lines) > 1:
            where = f"lines {', '.join(map(str, key_lines[:-1]))} and {key_lines[-1]}"
            where = (
                where
                if key_lines[0] != key_lines[-1]
                else f"line {key_lines[0]}, {len(key_lines)} times"
            )
            note(f"duplicate key ({where}); keep one of them.", *path, key, line=key_lines[-1])
            content[key] = UNREAD
    return content


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
    if type(value) is int and abs(value) >= 10**MAX_DIGITS:
        return (
            value,
            f"{text} has more than {MAX_DIGITS} digits; put it into quotes if it is a name.",
        )
    return value, None
