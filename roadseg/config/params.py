"""What `params.yaml` and the catalogue are made of, and which values are allowed."""

import difflib
import re
from typing import Annotated, Any, get_args, get_origin

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError

from roadseg.config.recipe import HYPERPARAMETERS, check_hyperparameter
from roadseg.config.yaml import DECIMAL, UNREAD, Problems
from roadseg.errors import InputError, nearest, not_allowed

CATALOGUE = ("tricks", "networks")  # NAME.yaml, beside params.yaml
RENAMED = {"knobs": "set", "question": "asks"}  # since an earlier version
SWITCHES = ("on", "off", "yes", "no", "y", "n")
# The course study's ladder (data/reference_ladder.csv), for a study with `ladder: course`.
COURSE_LADDER = (
    "transfer", "adamw-poly", "class-balanced", "ohem", "multi-scale-training",
    "multi-scale-testing", "auxiliary-head",
)  # fmt: skip
LINES = "'key: value' lines"


def _validated(check) -> AfterValidator:
    def validate(value):
        if not check(value):
            raise PydanticCustomError("rule", "rule")
        return value

    return AfterValidator(validate)


def _are_seeds(value: list) -> bool:
    whole_numbers = all(type(seed) is int and seed >= 0 for seed in value)
    return whole_numbers and 0 < len(set(value)) == len(value)


def _are_lengths(value: list) -> bool:
    return len(value) > 1 and _are_seeds(value) and 0 not in value


def _is_size(value: list) -> bool:
    return len(value) == 2 and all(type(side) is int and 32 <= side <= 8192 for side in value)


Text = Annotated[str, Field(description="text")]
Natural = Annotated[int, Field(ge=1, description="a whole number >= 1")]
Lines = Annotated[dict, Field(description=LINES)]
LENGTHS = "a list of two or more different whole numbers >= 1"
SEEDS = "a list of different whole numbers >= 0"


class _Section(BaseModel):
    """Settings that stand together. The description of each says what is allowed."""

    model_config = ConfigDict(extra="forbid", strict=True)


class _Counts(_Section):
    train: Natural
    val: Natural
    test: Natural


class _Data(_Section):
    source: Text
    path: Text
    size: Annotated[list, _validated(_is_size)] = Field(
        description="[height, width], each 32 to 8192 pixels"
    )
    block: int = Field(ge=1, description="1 frame or more")
    seed: int = Field(None, description="a whole number; the scenes depend on it")
    counts: _Counts = Field(None, description="train, val and test, each >= 1")


class _Trick(_Section):
    set: Lines
    idea: Text = ""
    source: Text = ""


class _Network(_Section):
    network: Text
    idea: Text = ""
    source: Text = ""


class _Question(_Section):
    asks: Text
    start: Text = None
    tricks: list = Field(None, description="a list of tricks")
    networks: Annotated[Any, _validated(lambda value: isinstance(value, dict | list))] = Field(
        None, description="a list of names, or 'name: network' lines"
    )
    ladder: Annotated[Any, _validated(lambda v: isinstance(v, list) or v == "course")] = Field(
        None,
        description="a list of tricks, or 'course' for the course study's: "
        + ", ".join(COURSE_LADDER),
    )
    leave_one_out: list = Field(None, description="a list of tricks")
    alone: list = Field(None, description="a list of tricks")
    length: list = Field(None, description="a list of tricks")
    steps: Annotated[list, _validated(_are_lengths)] = Field(None, description=LENGTHS)
    noise: Annotated[list, _validated(_are_seeds)] = Field(None, description=SEEDS)


class _Settings(_Section):
    study: Text
    title: Text
    root: Annotated[str, _validated(lambda v: re.fullmatch(r"\.|\.\.(/\.\.)*", v))] = Field(
        description="the way from the study's folder to the project's root: . or ../.."
    )
    folder: Annotated[str, _validated(lambda v: re.fullmatch(r"\.|\w[\w.-]*(/\w[\w.-]*)*", v))] = (
        Field(description="the study's folder from the project's root: . or studies/NAME")
    )
    data: _Data = Field(description=LINES)
    seeds: Annotated[list, _validated(_are_seeds)] = Field(description=SEEDS)
    base: Lines
    tricks: dict[str, _Trick] = Field(description=LINES)
    networks: dict[str, _Network] = Field(description=LINES)
    questions: dict[str, _Question] = Field(description=LINES)


def check_structure(content: dict, problems: Problems) -> None:
    """Note unknown and missing settings, and values of a wrong type or out of range."""
    try:
        _Settings.model_validate(content)
        errors = []
    except ValidationError as invalid:
        errors = invalid.errors(include_url=False)
    data = content.get("data")
    if isinstance(data, dict) and data.get("source") == "synthetic":
        missing = [key for key in ("counts", "seed") if key not in data]
        errors += [{"type": "missing", "loc": ("data", key), "input": data} for key in missing]
    misspelt = set()
    for error in sorted(errors, key=lambda error: error["type"] != "extra_forbidden"):
        kind, path, value = error["type"], error["loc"], error["input"]
        known_names, allowed = _allowed(path)
        if kind == "extra_forbidden":
            intended = RENAMED.get(path[-1], path[-1])
            matches = difflib.get_close_matches(intended, known_names, n=1, cutoff=0.6)
            misspelt |= {(*path[:-1], name) for name in matches}
            problems.add(
                f"{path[-1]}: no such setting.{nearest(intended, known_names)}", *path[:-1]
            )
        elif kind == "missing":
            if path not in misspelt and not problems.has_problem_at(*path[:-1], "<<"):
                problems.add(f"{path[-1]}: missing; give {allowed}.", *path[:-1])
        elif not _is_unread(value):
            hint = _hint(value, allowed)
            problems.add(f"{not_allowed(value)}; give {allowed}.{hint}", *path, at=path)


def _allowed(path: tuple) -> tuple[dict, str]:
    """Return the settings that are known where a path ends, and what is allowed for it."""
    model, known_names, description = _Settings, {}, LINES
    for part in path:
        if isinstance(model, type) and issubclass(model, _Section):
            known_names = model.model_fields
            if part in known_names:
                model, description = known_names[part].annotation, known_names[part].description
        elif get_origin(model) is dict:
            model, description = get_args(model)[1], LINES
    if len(path) == 1:  # of params.yaml itself, which does not hold the catalogue
        known_names = {name: about for name, about in known_names.items() if name not in CATALOGUE}
    return known_names, description


def _is_unread(value) -> bool:
    items = value.values() if isinstance(value, dict) else value
    return value is UNREAD or (isinstance(value, dict | list) and any(map(_is_unread, items)))


def check_hyperparameters(hyperparameters: dict, problems: Problems, *path, at: tuple) -> None:
    """Note unknown hyperparameters, and values that they cannot have; `at` is their path."""
    for name, value in hyperparameters.items():
        if name in HYPERPARAMETERS and _is_unread(value):
            continue
        try:
            check_hyperparameter(name, value)
        except InputError as problem:
            hint = ""
            if known := HYPERPARAMETERS.get(name):
                hint = _hint(value, f"{known.type.__name__}: {known.metadata['allowed']}")
            problems.add(f"{problem}{hint}", *path, at=(*at, name))


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
