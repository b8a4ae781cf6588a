"""What `params.yaml` and the catalogue are made of, and which values are allowed."""

import re
from functools import partial
from typing import Annotated, Any

from pydantic import Field, create_model

from roadseg.config.recipe import HYPERPARAMETERS, check_hyperparameter
from roadseg.config.schema import LINES, Section, check_section, validated
from roadseg.config.splits import Splits, check_fractions
from roadseg.config.yaml import Problems
from roadseg.errors import InputError

LISTS = "data/splits/"  # the folder of lists that params.yaml names, from the project's root
# Sources with a place of their own for what `data: splits` says.
HAS_SPLITS = {"synthetic": "has counts", "folder": "has them in its dataset.yaml"}
CATALOGUE = ("tricks", "networks")  # NAME.yaml, beside params.yaml
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


def _is_hyperparameter(name: str, value) -> bool:
    try:
        check_hyperparameter(name, value)
    except InputError:
        return False
    return True


def _matches(pattern: str):
    return validated(lambda value: re.fullmatch(pattern, value))


Text = Annotated[str, Field(description="text")]
Natural = Annotated[int, Field(ge=1, description="a whole number >= 1")]
Tricks = Annotated[list, Field(description="a list of tricks")]
Seeds = Annotated[
    list, validated(_are_seeds), Field(description="a list of different whole numbers >= 0")
]
Hyperparameters = create_model(
    "Hyperparameters",
    __base__=Section,
    **{
        name: Annotated[
            Any,
            validated(partial(_is_hyperparameter, name)),
            Field(None, description=known.metadata["allowed"]),
        ]
        for name, known in HYPERPARAMETERS.items()
    },
)


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
    set: Hyperparameters = Field(description=LINES)
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
    tricks: Tricks = None
    networks: Annotated[Any, validated(lambda value: isinstance(value, dict | list))] = Field(
        None, description="a list of names, or 'name: network' lines"
    )
    ladder: Annotated[Any, validated(lambda v: isinstance(v, list) or v == "course")] = Field(
        None,
        description="a list of tricks, or 'course' for the course study's: "
        + ", ".join(COURSE_LADDER),
    )
    leave_one_out: Tricks = None
    alone: Tricks = None
    length: Tricks = None
    steps: Annotated[list, validated(_are_lengths)] = Field(
        None, description="a list of two or more different whole numbers >= 1"
    )
    noise: Seeds = None


class _Settings(Section):
    study: Text
    title: Text
    root: Annotated[str, _matches(r"\.|\.\.(/\.\.)*")] = Field(
        description="the way from the study's folder to the project's root: . or ../.."
    )
    folder: Annotated[str, _matches(r"\.|\w[\w.-]*(/\w[\w.-]*)*")] = Field(
        description="the study's folder from the project's root: . or studies/NAME"
    )
    data: _Data = Field(description=LINES)
    seeds: Seeds
    base: Hyperparameters = Field(description=LINES)
    questions: dict[str, _Question] = Field(description=LINES)


class _Catalogue(Section):
    tricks: dict[str, _Trick] = Field(description=LINES)
    networks: dict[str, _Network] = Field(description=LINES)


def check_structure(content: dict, problems: Problems) -> None:
    """Note unknown and missing settings, and values of a wrong type or out of range.

    `content` is that of params.yaml, with that of the catalogue under 'tricks' and 'networks'.
    """
    data = content.get("data") if isinstance(content.get("data"), dict) else {}
    required = []
    if data.get("source") == "synthetic":
        required = [("data", key) for key in ("counts", "seed") if key not in data]
    settings = {key: value for key, value in content.items() if key not in CATALOGUE}
    check_section(_Settings, settings, problems, required=required)
    catalogue = {part: content[part] for part in CATALOGUE if part in content}
    check_section(_Catalogue, catalogue, problems)


def check_splits(data: dict, problems: Problems) -> None:
    """Note what cannot be among the other splits that are asked of a data set."""
    splits, source = data.get("splits"), data["source"]
    if splits is None:
        return
    check_fractions(splits, problems, "data", "splits")
    for split, part in splits.items():
        if isinstance(part, str) and part.endswith(".txt") and not part.startswith(LISTS):
            problems.add(
                f"{part!r} is not in {LISTS}; move it there, where the pipeline sees that lists of "
                "images change.", "data", "splits", split,
            )  # fmt: skip
    if source in HAS_SPLITS:
        problems.add(f"{source} {HAS_SPLITS[source]}; leave it out.", "data", "splits")
