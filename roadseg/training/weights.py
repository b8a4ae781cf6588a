"""Where weights that a recipe names are found: files, and arms of other studies."""

import hashlib
import json
from pathlib import Path

from roadseg.config.paths import ROOT
from roadseg.config.recipe import Recipe
from roadseg.errors import InputError


def weights_file(source: str, seed: int) -> Path:
    """Return the file that 'file:PATH' or 'study:NAME/ARM' stands for.

    Of another study's arm it is the run of the same seed.

    Raises
    ------
    InputError : there is no such file
    """
    kind, _, name = source.partition(":")
    if kind == "file":
        file = ROOT / name
        if not file.is_file():
            raise InputError(f"{source}: no such file. Paths start at the project's root.")
        return file
    study, _, arm = name.partition("/")
    runs = ROOT / "build" / study / "runs"
    file = runs / arm / f"s{seed}" / "weights.pt"
    if file.is_file():
        return file
    if why := failure(file.parent):
        raise InputError(f"{source}: its seed {seed} failed: {why}")
    seeds = sorted(int(f.parent.name[1:]) for f in (runs / arm).glob("s*/weights.pt"))
    if seeds:
        raise InputError(
            f"{source}: has no run of seed {seed}, only of {', '.join(map(str, seeds))}. Train it "
            f"with that seed too, so that seeds stay independent."
        )
    known = dict.fromkeys(sorted(f.parent.parent.name for f in runs.glob("*/s*/weights.pt")))
    there = f"It has: {', '.join(known)}." if known else "It has none."
    raise InputError(
        f"{source}: study {study!r} has no trained arm {arm!r}. {there} "
        f"Run 'make report STUDY={study}' first."
    )


def failure(folder: Path) -> str:
    """Return why a run, given by its folder, was trained and has no record; '' otherwise."""
    file = folder / "failed.json"
    return json.loads(file.read_text())["why"] if file.is_file() else ""


def start_digest(recipe: Recipe) -> str:
    """Return digests of the files that a recipe starts from, in order; '' if it names none.

    Raises
    ------
    InputError : such a file is not there
    """
    files = [
        weights_file(source, recipe.seed)
        for source in (recipe.pretrained, recipe.teacher)
        if source.startswith(("file:", "study:"))
    ]
    return " ".join(hashlib.sha256(file.read_bytes()).hexdigest()[:12] for file in files)
