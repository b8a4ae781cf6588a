"""Checks the content of YAML files against pydantic models, and says what is allowed where."""

import difflib
import re
from collections.abc import Callable, Collection, Mapping
from typing import get_args, get_origin

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError
from pydantic_core import PydanticCustomError

from roadseg.config.yaml import DECIMAL, UNREAD, Problems
from roadseg.errors import nearest, not_allowed

SWITCHES = ("on", "off", "yes", "no", "y", "n")
LINES = "'key: value' lines"


class Section(BaseModel):
    """Settings that stand together. The description of each says what is allowed."""

    model_config = ConfigDict(extra="forbid", strict=True)


def validated(check: Callable) -> AfterValidator:
    """Return an annotation of values that `check` must be true of."""

    def validate(value):
        if not check(value):
            raise PydanticCustomError("rule", "rule")
        return value

    return AfterValidator(validate)


def check_section(
    model: type[Section],
    content: dict,
    problems: Problems,
    *,
    required: Collection[tuple] = (),
    renamed: Mapping[str, str] | None = None,
    elsewhere: Collection[str] = (),
) -> None:
    """Note unknown and missing settings, and values of a wrong type or out of range.

    Parameters
    ----------
    model : the settings of the whole file
    required : paths of settings that must be there too, though the model does not say so
    renamed : names that settings had earlier -> their names now
    elsewhere : settings of the model that do not stand in the file itself
    """
    try:
        model.model_validate(content)
        errors = []
    except ValidationError as invalid:
        errors = invalid.errors(include_url=False)
    errors += [{"type": "missing", "loc": path, "input": None} for path in required]
    misspelt = set()
    for error in sorted(errors, key=lambda error: error["type"] != "extra_forbidden"):
        kind, path, value = error["type"], error["loc"], error["input"]
        known_names, allowed = _allowed(model, path)
        if len(path) == 1:
            known_names = {
                name: field for name, field in known_names.items() if name not in elsewhere
            }
        if kind == "extra_forbidden":
            intended = (renamed or {}).get(path[-1], path[-1])
            matches = difflib.get_close_matches(intended, known_names, n=1, cutoff=0.6)
            misspelt |= {(*path[:-1], name) for name in matches}
            problems.add(
                f"{path[-1]}: no such setting.{nearest(intended, known_names)}", *path[:-1]
            )
        elif kind == "missing":
            if path not in misspelt and not problems.has_problem_at(*path[:-1], "<<"):
                problems.add(f"{path[-1]}: missing; give {allowed}.", *path[:-1])
        else:
            add_not_allowed(problems, value, allowed, *path)


def add_not_allowed(problems: Problems, value, allowed: str, *path, remedy: str = "") -> None:
    """Note that the value at a path is not allowed, unless it has a problem already."""
    if not is_unread(value):
        hint = f" {remedy}" if remedy else hint_of(value, allowed)
        problems.add(f"{not_allowed(value)}; give {allowed}.{hint}", *path, at=path)


def _allowed(model: type[Section], path: tuple) -> tuple[dict, str]:
    """Return the settings that are known where a path ends, and what is allowed for it."""
    known_names, description = {}, LINES
    for part in path:
        if isinstance(model, type) and issubclass(model, Section):
            known_names = model.model_fields
            if part in known_names:
                model, description = known_names[part].annotation, known_names[part].description
        elif get_origin(model) is dict:
            model, description = get_args(model)[1], LINES
    return known_names, description


def is_unread(value) -> bool:
    """Return whether reading has found a problem in a value, so that nobody judges it again."""
    items = value.values() if isinstance(value, dict) else value
    return value is UNREAD or (isinstance(value, dict | list) and any(map(is_unread, items)))


def hint_of(value, allowed: str) -> str:
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
