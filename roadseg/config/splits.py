"""What can be said under `splits:`, in `dataset.yaml` and under `data:` in `params.yaml`."""

import re
from typing import Annotated, Any

from pydantic import Field

from roadseg.config.schema import Section, validated
from roadseg.config.yaml import Problems

NO_TEST = "none"  # under splits: test:
REST = "rest"  # all images, values or pixels that nothing else names


def _is_part(value) -> bool:
    if isinstance(value, str):
        return not re.fullmatch(r"\d{1,3} *%", value)
    if isinstance(value, list):
        return all(isinstance(entry, str) for entry in value)
    return type(value) in (int, float) and 0 < value < 1


PART = (
    "a fraction between 0 and 1 (20 % is 0.2), a folder, a .txt file, a list of names (those of "
    "digits in quotes), or rest"
)
Part = Annotated[Any, validated(_is_part)]


class Splits(Section):
    """Which images are train, val and test."""

    train: Part = Field(REST, description=PART)
    val: Part = Field(description=PART)
    test: Part = Field(description=f"{PART}; or {NO_TEST}, if there are no test images")


def check_fractions(splits: dict, problems: Problems, *path: str) -> None:
    """Note fractions that leave nothing, and two splits that get the rest."""
    splits = {"train": REST, **splits}
    total = sum(part for part in splits.values() if isinstance(part, float))
    rests = list(splits.values()).count(REST)
    if total > 1 + 1e-9 or (total > 1 - 1e-9 and rests):
        consequence = ", which leaves no rest for train" if rests else ""
        problems.add(f"the fractions add up to {total:g}{consequence}; lower them.", *path)
    if rests > 1:
        problems.add(
            "more than one split gets the rest (train does, if not named); say what the others "
            "get.", *path,
        )  # fmt: skip
