"""What `params.yaml` and the catalogue are made of, and which values are allowed."""

import re
from typing import Annotated, Any

from pydantic import Field

from roadseg.config.recipe import HYPERPARAMETERS, check_hyperparameter
from roadseg.config.schema import LINES, Section, check_section, hint_of, is_unread, validated
from roadseg.config.splits import Splits, check_fractions
from roadseg.config.yaml import Problems
from roadseg.errors import InputError

LISTS = "data/splits/"  # the folder of lists that params.yaml names, from the project's root
# Sources with a place of their own for what `data: splits` says.
HAS_SPLITS = {"synthetic": "has counts", "folder": "has them in its dataset.yaml"}
CATALOGUE = ("tricks", "networks")  # NAME.yaml, beside params.yaml
RENAMED = {"knobs": "set", "question": "asks"}  # since an earlier version
# The course study's ladder (data/reference_ladder.csv), for a study with `ladder: course`.
COURSE_LADDER = (
    "transfer", "adamw-poly", "class-balanced", "ohem", "multi-scale-training",
    "multi-scale-testing", "auxiliary-head",
)  # fmt: skip


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


class _Counts(Section):
    train: Natural
    val: Natural
    test: Natural


class _Data(Section):
    source: Text
    path: Text
    size: Annotated[list, validated(_is_size)] = Field(
        description="[height, width], each 32 to 8192 pixels"
    )
    block: int = Field(ge=1, description="1 frame or more")
    seed: int = Field(None, description="a whole number; the scenes depend on it")
    counts: _Counts = Field(None, description="train, val and test, each >= 1")
    splits: Splits = Field(None, description="'train:', 'val:' and 'test:' lines")


class _Trick(Section):
    set: Lines
    title: Text = ""
    idea: Text = ""
    source: Text = ""


class _Network(Section):
    network: Text
    title: Text = ""
    idea: Text = ""
    source: Text = ""


class _Question(Section):
    asks: Text
    start: Text = None
    tricks: list = Field(None, description="a list of tricks")
    networks: Annotated[Any, validated(lambda value: isinstance(value, dict | list))] = Field(
        None, description="a list of names, or 'name: network' lines"
    )
    ladder: Annotated[Any, validated(lambda v: isinstance(v, list) or v == "course")] = Field(
        None,
        description="a list of tricks, or 'course' for the course study's: "
        + ", ".join(COURSE_LADDER),
    )
    leave_one_out: list = Field(None, description="a list of tricks")
    alone: list = Field(None, description="a list of tricks")
    length: list = Field(None, description="a list of tricks")
    steps: Annotated[list, validated(_are_lengths)] = Field(None, description=LENGTHS)
    noise: Annotated[list, validated(_are_seeds)] = Field(None, description=SEEDS)


class _Settings(Section):
    study: Text
    title: Text
    root: Annotated[str, validated(lambda v: re.fullmatch(r"\.|\.\.(/\.\.)*", v))] = Field(
        description="the way from the study's folder to the project's root: . or ../.."
    )
    folder: Annotated[str, validated(lambda v: re.fullmatch(r"\.|\w[\w.-]*(/\w[\w.-]*)*", v))] = (
        Field(description="the study's folder from the project's root: . or studies/NAME")
    )
    data: _Data = Field(description=LINES)
    seeds: Annotated[list, validated(_are_seeds)] = Field(description=SEEDS)
    base: Lines
    tricks: dict[str, _Trick] = Field(description=LINES)
    networks: dict[str, _Network] = Field(description=LINES)
    questions: dict[str, _Question] = Field(description=LINES)


def check_structure(content: dict, problems: Problems) -> None:
    """Note unknown and missing settings, and values of a wrong type or out of range."""
    data, required = content.get("data"), []
    if isinstance(data, dict) and data.get("source") == "synthetic":
        required = [("data", key) for key in ("counts", "seed") if key not in data]
    check_section(
        _Settings, content, problems, required=required, renamed=RENAMED, elsewhere=CATALOGUE
    )
    splits = data.get("splits") if isinstance(data, dict) else None
    if isinstance(splits, dict) and not problems.has_problem_at("data", "splits"):
        check_fractions(splits, problems, "data", "splits")
        for split, part in splits.items():
            if isinstance(part, str) and part.endswith(".txt") and not part.startswith(LISTS):
                problems.add(
                    f"{split}: {part!r} is not in {LISTS}; lists of images lie there, where the "
                    "pipeline sees that they change. Move it.", "data", "splits",
                )  # fmt: skip
    for source, remedy in HAS_SPLITS.items():
        if splits is not None and data.get("source") == source:
            problems.add(f"splits: {source} {remedy}; leave it out.", "data")


def check_hyperparameters(hyperparameters: dict, problems: Problems, *path, at: tuple) -> None:
    """Note unknown hyperparameters, and values that they cannot have; `at` is their path."""
    for name, value in hyperparameters.items():
        if name in HYPERPARAMETERS and is_unread(value):
            continue
        try:
            check_hyperparameter(name, value)
        except InputError as problem:
            hint = ""
            if known := HYPERPARAMETERS.get(name):
                hint = hint_of(value, f"{known.type.__name__}: {known.metadata['allowed']}")
            problems.add(f"{problem}{hint}", *path, at=(*at, name))
