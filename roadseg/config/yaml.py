"""Reads YAML files with the line of each value, and collects what is wrong with them."""

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
MAX_DIGITS = 15  # of a whole number
DECIMAL = re.compile(r"[-+]?(0|[1-9]\d*|(?=\.\d))(\.\d*)?([eE][-+]?\d+)?|[-+]?\.(inf|nan)", re.I)
DATE = re.compile(r"\d{4}-\d\d?-\d\d?([Tt \t].*)?")
IF_NAME = "put it into quotes if it is a name."
# What to do about text that is no YAML, by what the parser says of it.
ADVICE = {
    "':'": "Put a space after the colon of 'key: value', and text with colons into quotes.",
    "mapping values": "Put text with colons into quotes.",
    "alphabetic": "Put text that begins with * or & into quotes.",
    "document": "Take the line --- or ... out.",
    "alias": "Write the value out.",
    "": "Look here and one line above: indent with spaces, put a space after each colon, and close "
    "brackets and quotes.",
}


class Problems:
    """What is wrong with a file and with those that go with it, each with its file and line.

    Attributes
    ----------
    file : the file that the others go with
    places : path of keys and indices -> file and line
    """

    def __init__(self, file: str):
        self.file = file
        self.places: dict[tuple, tuple[str, int]] = {}
        self._files = {file: ()}  # file, in the order of a message -> how its paths begin
        self._problems: dict[tuple[str, int, str], None] = {}  # each once

    def __len__(self) -> int:
        return len(self._problems)

    def include(self, other: "Problems", part: str) -> None:
        """Take another file's places, as those of paths that begin with `part`, and problems."""
        self._files[other.file] = (part,)
        self.places |= {(part, *path): place for path, place in other.places.items()}
        self._problems |= other._problems

    def place(self, path: tuple) -> tuple[str, int]:
        """Return file and line of a value, or else of what would hold it."""
        while path and path not in self.places:
            path = path[:-1]
        return self.places.get(path, (self.file, 1))

    def add(self, text: str, *path, at: tuple | None = None) -> None:
        """Note a problem of the value at a path; it stands there, or else `at` another path."""
        file, line = self.place(path if at is None else at)
        start = self._files.get(file, ())  # which the file's name says
        keys = path[len(start) :] if path[: len(start)] == start else path
        text = escaped(": ".join([*(str(key) for key in keys if type(key) is not int), text]))
        if len(text) > MAX_MESSAGE_LENGTH:
            text = f"{text[: MAX_MESSAGE_LENGTH * 2 // 3]} ... {text[-MAX_MESSAGE_LENGTH // 3 :]}"
        self._problems[file, line, text] = None

    def raise_any(self) -> None:
        """Raise an InputError of all problems, by file and line, if there are some."""
        files = list(self._files)
        in_order = sorted(self._problems, key=lambda found: (files.index(found[0]), found[1]))
        listed = [f"{file}:{line}: {text}" for file, line, text in in_order]
        if len(listed) > 1:
            listed.insert(0, f"{self.file}: {len(listed)} problems:")
        if listed:
            raise InputError("\n".join(listed))


def read_yaml(file: Path) -> dict:
    """Read a YAML 1.2 mapping.

    Raises
    ------
    InputError : the file is missing, or all that `read_lines` finds in it
    """
    content, problems = read_lines(file, str(file))
    problems.raise_any()
    return content


def read_text(file: Path, name: str) -> str:
    """Return the text of a UTF-8 file; an InputError, with a name for messages, if it has none."""
    try:
        return Path(file).read_text("utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"{name}: no such file.") from None
    except UnicodeDecodeError:
        raise InputError(f"{name}: is not UTF-8 text; save it in that encoding.") from None
    except (OSError, ValueError) as problem:
        raise InputError(f"{name}: cannot be read ({problem}).") from None


def read_lines(file: Path, name: str, *, may_be_empty: bool = False) -> tuple[dict, Problems]:
    """Read a YAML 1.2 mapping under a name for messages; one that `may_be_empty` is {} then.

    Returns
    -------
    The mapping, and what is wrong: keys that are no text or stand twice, tags, merge keys, and what
    other readers of YAML take for something else (010, 1_000, dates). Its places are those of all
    values.

    Raises
    ------
    InputError : the file is missing, is no YAML, or holds no mapping
    """
    text, problems = read_text(file, name), Problems(name)
    try:
        node = YAML(typ="safe").compose(text)  # the parser that DVC uses
        content = node and _content(node, (), problems)
    except YAMLError as problem:
        _explain(problem, text, problems)
        problems.raise_any()
    except RecursionError:
        raise InputError(f"{name}: values are nested too deeply, or hold themselves.") from None
    if content is None and may_be_empty and not problems:
        return {}, problems
    if not isinstance(content, dict):
        problems.raise_any()
        what = "is empty" if content is None else "has other content"
        raise InputError(f"{name}: {what}; write 'key: value' lines.")
    return content, problems


def _explain(problem: YAMLError, text: str, problems: Problems) -> None:
    """Note where reading ended, and why."""
    lines = re.split("\r\n|[\n\r\x85\u2028\u2029]", text)
    mark = getattr(problem, "problem_mark", None)
    if mark is None:  # a character that no YAML has
        before = text[: getattr(problem, "position", 0)]
        line = len(re.split("\r\n|[\n\r\x85\u2028\u2029]", before))
        what, advice = str(problem).partition("\n")[0], "Take it out."
    else:
        line = min(mark.line + 1, len(lines))
        what, start = problem.problem or problem.context, getattr(problem, "context_mark", None)
        advice = next(remedy for words, remedy in ADVICE.items() if words in what)
        if problem.problem and start and start.line != mark.line:
            what += f", {problem.context} from line {start.line + 1} on"
    problems.places["here",] = problems.file, line
    if re.match(r" *\t\s*\S", lines[line - 1]):
        problems.add("a tab before the text; indent with spaces.", at=("here",))
    else:
        problems.add(f"not valid YAML ({what}). {advice}", at=("here",))


def _content(node: Node, path: tuple, problems: Problems) -> Any:
    """Return what a node stands for, with its problems and lines noted; nothing is built by tags.

    Where a value has a problem, what is returned for it has no meaning.
    """
    is_scalar = isinstance(node, ScalarNode)
    unquoted = is_scalar and not node.style
    implicit_tag = _yaml().resolver.resolve(
        type(node), node.value if is_scalar else None, (unquoted, not unquoted)
    )
    # the C parser gives STR to all text without a tag
    if str(node.tag) not in (str(implicit_tag), STR):
        tag = str(node.tag).replace("tag:yaml.org,2002:", "!!")
        problems.add(f"{tag} makes an object; settings are plain values, so take it out.", *path)
        return None
    if is_scalar:
        value, problem = _scalar(node.value) if unquoted else (node.value, "")
        if problem:
            problems.add(problem, *path)
        return value
    if isinstance(node, SequenceNode):
        for i, item in enumerate(node.value):
            problems.places[*path, i] = problems.file, item.start_mark.line + 1
        return [_content(item, (*path, i), problems) for i, item in enumerate(node.value)]
    content, lines = {}, {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        is_text = isinstance(key_node, ScalarNode)
        key = key_node.value if is_text and key_node.style else _key(key_node)
        problem = ""
        if key == "<<" and not key_node.style:
            problem = "is not supported; write the lines out."
        elif not isinstance(key, str):
            problem = "as a key is not text; put it into quotes if it is a name."
            key = key_node.value if is_text else "a list or lines"
        problems.places.setdefault((*path, key), (problems.file, line))
        if problem:
            problems.add(problem, *path, key or "nothing")
            continue
        lines.setdefault(key, []).append(line)
        if len(lines[key]) == 1:
            content[key] = _content(value_node, (*path, key), problems)
    for key, (first, *others) in lines.items():
        if others:
            problems.places[*path, key] = problems.file, others[-1]
            listed = f"lines {', '.join(map(str, [first, *others[:-1]]))} and {others[-1]}"
            problems.add(f"stands twice ({listed}); keep one of them.", *path, key)
    return content


@cache
def _yaml() -> YAML:
    return YAML(typ="safe", pure=True)


def _key(node: Node) -> Any:
    return _scalar(node.value)[0] if isinstance(node, ScalarNode) else None


def _scalar(text: str) -> tuple[Any, str]:
    """Return what a text without quotes stands for in YAML 1.2; what is wrong with it, or ''."""
    if DATE.fullmatch(text):
        return text, f"{text} is a date to other readers of YAML; put it into quotes."
    if text[:1].isalpha() and text.lower() not in ("true", "false", "null"):
        return text, ""  # most of them; the rest of this takes longer
    if text in ("<<", "="):
        return text, ""
    resolver, constructor = _yaml().resolver, _yaml().constructor
    try:
        tag = resolver.resolve(ScalarNode, text, (True, False))
        value = constructor.construct_non_recursive_object(ScalarNode(tag, text))
    except (ValueError, YAMLError):  # of '-_', for instance, and of thousands of digits
        return text, f"{text!r} is no number; {IF_NAME}"
    if type(value) is int and abs(value) >= 10**MAX_DIGITS:
        return value, f"{text} has more than {MAX_DIGITS} digits; {IF_NAME}"
    if type(value) in (int, float) and not DECIMAL.fullmatch(text):
        problem = f"{text} is not the same number to all readers of YAML; write {value}, or"
        return value, f"{problem} {IF_NAME}"
    return value, ""
