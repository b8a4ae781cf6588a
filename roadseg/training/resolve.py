"""Checks what a study asks for, and writes it down for the stages of the pipeline.

Each stage depends on what it needs of it, and on nothing else: a changed text trains nothing.
"""

import json
import shutil
from functools import partial
from pathlib import Path

from roadseg.config import paths
from roadseg.config.recipe import DEFAULTS, Recipe
from roadseg.config.study import Study, network_recipe
from roadseg.data.datasets import SOURCES, find_source, link_source
from roadseg.data.findings import BadData
from roadseg.errors import InputError, nearest
from roadseg.models.build import check_name
from roadseg.training.files import write_if_changed
from roadseg.training.question import resolved_question
from roadseg.training.warm_start import check_build, check_start

# Hyperparameters that only some encoders can take.
ENCODER_HYPERPARAMETERS = ("freeze_stages", "freeze_norm", "encoder_lr")
MIN_SIDE = 34  # pixels: the baseline's unpadded convolution at 1/16 of the size, and a rounding


def resolve(study: Study) -> None:
    """Check a study, and write what it asks for into `build/<study>/`.

    `data.json` is what the arrays are made from, `questions/NAME.json` what is trained for a
    question, `tables.json` what the tables depend on beside that, `study.json` all of it, with the
    texts of the report. A file is written only if its content changed. Runs of questions that are
    gone are removed.

    Raises
    ------
    InputError : the study asks for what nothing provides, or its data are not there
    """
    check_settings(study)
    source = find_source(study.data, paths.ROOT)
    if source.findings:
        raise BadData(source.root, source.findings)
    link_source(study.data, paths.ROOT, source)
    build = study.build
    questions = {name: resolved_question(study, name) for name in study.questions}
    _write(build / "data.json", study.arrays)
    for name, content in questions.items():
        _write(build / "questions" / f"{name}.json", content)
    _write(build / "tables.json", _tables(study))
    _write(
        build / "study.json",
        {"params": study.params, "content": study.content, "remarks": study.remarks},
    )
    for file in (build / "questions").glob("*.json"):
        if file.stem not in questions:
            file.unlink()
    for folder in (build / "runs").glob("*"):
        if folder.name.partition(".")[0] not in questions:
            shutil.rmtree(folder, ignore_errors=True)


def _tables(study: Study) -> dict:
    return {
        "block": study.data["block"],
        "seeds": study.seeds,
        "networks": {name: entry.network for name, entry in study.networks.items()},
        "questions": {
            question.name: [
                question.kind, list(question.arms), question.effects, question.seeds,
                question.labels, question.shared,
            ]
            for question in study.questions.values()
        },
    }  # fmt: skip


def _write(file: Path, content: dict) -> None:
    write_if_changed(file, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def _check_sizes(recipe: Recipe, size: list[int]) -> None:
    """Raise InputError where a setting means nothing, or a network too little, at a size."""
    pixels = size[0] * size[1] * recipe.crop**2
    if recipe.ohem_threshold < 1 and recipe.ohem_kept >= pixels:
        raise InputError(
            f"ohem_kept: {recipe.ohem_kept} of at most {pixels:.0f} pixels keeps all of them; set "
            f"fewer, such as {max(round(pixels / 4), 1)}."
        )
    min_side = min(size) * min(recipe.crop / recipe.size_jitter, *recipe.test_scales, 1.0)
    if recipe.network.startswith("baseline") and min_side < MIN_SIDE:
        raise InputError(
            f"data: size: {size[0]} x {size[1]} becomes {min_side:.0f} pixels by crop, size_jitter "
            f"or test_scales; the baseline needs at least {MIN_SIDE} each way."
        )


def _check_sources(recipe: Recipe, study_name: str) -> None:
    """Raise InputError for a teacher, or weights, that the study `study_name` cannot start from."""
    has_named_teacher = recipe.teacher and not recipe.teacher.startswith("study:")
    if has_named_teacher and recipe.lr_search != DEFAULTS["lr_search"]:
        raise InputError(
            "lr_search: each trial would train a teacher of its own for as few steps; name "
            "an arm of another study as teacher, or leave the search out."
        )
    for source in (recipe.pretrained, recipe.teacher):
        if source.startswith(f"study:{study_name}/"):
            raise InputError(
                f"{source}: is an arm of this study, which may be trained later; name "
                "another study's, or a network."
            )


def _check_buildable(build, what: str) -> None:
    """Raise an InputError of what a library cannot build, whatever it raises."""
    try:
        build()
    except InputError:
        raise
    except Exception as problem:
        raise InputError(
            f"{what} cannot be built ({problem}); choose another architecture or encoder."
        ) from None


def check_settings(study: Study) -> None:
    """Raise InputError for all networks, weights, teachers and sources that nothing provides."""
    problems = study.problems
    kind = study.data["source"]
    if kind not in SOURCES:
        problems.add(f"{kind!r} is unknown.{nearest(kind, SOURCES)}", "data", "source")
    unknown, built, reported = set(), set(), set()
    for entry in study.networks.values():
        try:
            check_name(entry.network)
        except InputError as problem:
            problems.add(
                str(problem), "networks", entry.name, at=("networks", entry.name, "network")
            )
            unknown.add(entry.network)

    def build(recipe: Recipe) -> None:
        network = (
            network_recipe(recipe),
            *(getattr(recipe, name) for name in ENCODER_HYPERPARAMETERS),
        )
        if network in built or recipe.network in unknown:
            return
        unknown.add(recipe.network)
        _check_buildable(partial(check_build, recipe), f"network {recipe.network!r}")
        unknown.discard(recipe.network)
        built.add(network)

    def start_all(arm: str, recipe: Recipe) -> None:
        what = f"teacher {recipe.teacher!r}" if recipe.teacher else recipe.pretrained
        for seed in study.seeds_of(arm):
            _check_buildable(partial(check_start, study.runs[f"{arm}-s{seed}"]), what)

    for arm, recipe in study.arms.items():
        for check in (
            partial(build, recipe),
            partial(_check_sizes, recipe, study.data["size"]),
            partial(_check_sources, recipe, study.name),
            partial(start_all, arm, recipe),
        ):
            try:
                check()
            except InputError as problem:
                # of what arms have in common, the first one is reported
                if str(problem) not in reported:
                    problems.add(f"arm {arm}: {problem}", at=("arms", arm))
                reported.add(str(problem))
    problems.raise_any()
