"""Checks the content of YAML files against pydantic models, and says what is allowed where."""

import difflib
import re
from collections.abc import Callable, Collection, Iterable
from typing import Any, get_args, get_origin

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError
from pydantic_core import PydanticCustomError

from roadseg.config.yaml import DECIMAL, Problems
from roadseg.errors import nearest, not_allowed

LINES = "'key: value' lines"
MAX_LISTED = 12  # names that a message lists beside the one that is most like a wrong one


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


def closest(name: str, known: Iterable[str]) -> str:
    """Return the known name that is most like another one; '' if none is like it."""
    return next(iter(difflib.get_close_matches(str(name), list(known), n=1, cutoff=0.6)), "")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return 'Did you mean ...?' with the closest of the known names; '' if none is like it.

    `errors.nearest` lists the known names, too.
    """
    match = closest(name, known)
    return f"Did you mean {match!r}?" if match else ""


def _unknown(name: str, known: Collection[str]) -> str:
    """Return what may have been meant by an unknown name, for the end of an error message."""
    hint = did_you_mean(name, known)
    return f" {hint}" if hint and len(known) > MAX_LISTED else nearest(name, known)


def check_section(
    model: type[Section], content: dict, problems: Problems, *, required: Collection[tuple] = ()
) -> None:
    """Note unknown and missing settings, and values of a wrong type or out of range.

    Parameters
    ----------
    model : the settings of the whole file
    required : paths of settings that must be there too, though the model does not say so
    """
    errors = [{"type": "missing", "loc": path, "input": None} for path in required]
    try:
        model.model_validate(content)
    except ValidationError as invalid:
        errors += invalid.errors(include_url=False)
    misspelt = set()
    for error in sorted(errors, key=lambda error: error["type"] != "extra_forbidden"):
        kind, path = error["type"], error["loc"]
        known, allowed = _allowed(model, path)
        if kind == "extra_forbidden":
            misspelt.add((*path[:-1], closest(path[-1], known)))
            problems.add(f"no such setting.{_unknown(path[-1], known)}", *path)
        elif kind != "missing":
            add_not_allowed(problems, error["input"], allowed, *path)
        elif path not in misspelt:
            problems.add(f"missing; give {allowed}.", *path)


def add_not_allowed(problems: Problems, value: Any, allowed: str, *path, remedy: str = "") -> None:
    """Note that the value at a path is not allowed, and what is."""
    hint = remedy or _hint(value, allowed)
    problems.add(f"{not_allowed(value)}; give {allowed}.{' ' * bool(hint)}{hint}", *path)


def _allowed(model: Any, path: tuple) -> tuple[dict, str]:
    """Return the settings that are known where a path ends, and what is allowed for it."""
    known, allowed = {}, LINES
    for part in path:
        if isinstance(model, type) and issubclass(model, Section):
            known = model.model_fields
            if part in known:
                model, allowed = known[part].annotation, known[part].description
        elif get_origin(model) is dict:
            model, allowed = get_args(model)[1], LINES
    return known, allowed


def _hint(value: Any, allowed: str) -> str:
    """Return what YAML may have made of a value, for the end of an error message."""
    if isinstance(value, str) and value.lower() in ("on", "off", "yes", "no", "y", "n"):
        return "To YAML 1.2 this is text; a switch is true or false."
    if isinstance(value, str) and re.fullmatch(r"[-+]?\d+,\d+", value):
        return f"Decimals have a point: {value.replace(',', '.')}."
    if isinstance(value, str) and re.fullmatch(r"\d{1,2} *%", value):
        return f"Write {float(value.rstrip(' %')) / 100:g}."
    if isinstance(value, str) and "text" not in allowed and any(map(str.isdigit, allowed)):
        if DECIMAL.fullmatch(value):
            return "Write it without quotes."
        if re.match(r"[-+.]?\d", value):
            return "This is text; numbers are written like 20, 0.001 or 1e-3."
    if type(value) is float and "whole" in allowed and value.is_integer():
        return f"Write {int(value)}, without point and exponent."
    if "text" in allowed and isinstance(value, dict):
        return "Put text with a colon into quotes."
    if "text" in allowed and isinstance(value, bool | int | float):
        return "Put it into quotes if it is meant."
    return ""
