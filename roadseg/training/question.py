"""All runs of one question: trained side by side, and copied out of the run store."""

import contextlib
import json
import re
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from roadseg.config import paths
from roadseg.config.recipe import Recipe
from roadseg.config.study import Study
from roadseg.data.scenes import Scenes, stamp
from roadseg.errors import InputError, nearest
from roadseg.training.device import default_device
from roadseg.training.files import atomic_folder
from roadseg.training.loop import Diverged
from roadseg.training.lr_search import trials
from roadseg.training.run import (
    Run,
    load_splits,
    progress,
    run_and_score,
    train_or_load,
    write_out,
)
from roadseg.training.store import Record, export_failure, training_of
from roadseg.training.warm_start import start_digest, synthetic_scenes
from roadseg.training.workers import Outcome, run_jobs

Say = Callable[[str], None]


def resolved_question(study: Study, question: str) -> dict:
    """Return what is trained for a question: for each arm its seeds, and its recipe.

    Texts are not part of it, nor is what analysis alone needs.
    """
    seeds = study.question_seeds(study.questions[question])
    content = {}
    for arm, recipe in study.questions[question].arms.items():
        content[arm] = {"seeds": list(seeds), "recipe": recipe.differences()}
        # DVC sees no file that a recipe names: another content is another question
        starts = [start_digest(recipe.changed({"seed": seed})) for seed in seeds]
        if any(starts):
            content[arm]["starts_from"] = starts
    return content


def read_question(name: str, question: str) -> dict[str, list[Run]]:
    """Read what the pipeline resolved for a question of a study: arm -> its runs.

    Raises
    ------
    InputError : it has not been resolved, with what to do
    """
    folder = paths.ROOT / "build" / name / "questions"
    file = folder / f"{question}.json"
    if not file.is_file():
        known = [f.stem for f in folder.glob("*.json")]
        raise InputError(
            f"{question}: is no question of {name} that is ready to be trained."
            + (nearest(question, known) if known else f" Run: python -m roadseg resolve {name}")
        )
    return {
        arm: [
            Run(Recipe.of({**settings["recipe"], "seed": seed}), settings["seeds"][0])
            for seed in settings["seeds"]
        ]
        for arm, settings in json.loads(file.read_text()).items()
    }


def train_question(
    arms: dict[str, list[Run]],
    prepared: Path,
    folder: Path,
    *,
    device: torch.device | None = None,
    say: Say = print,
) -> dict[str, list[Record | None]]:
    """Train and score all runs that the store has not got, and copy all into a folder.

    Parameters
    ----------
    arms : the question's arms, each with its runs
    prepared : folder of the prepared scenes
    folder : receives ARM/sSEED of each run, and ARM/search.csv where a search chose the learning
        rate; it appears when all are written, an old one is replaced then

    Returns
    -------
    The records of each arm; None for each run whose loss did not stay finite, which is a result as
    well

    Raises
    ------
    InputError : some runs failed; those that did not are in the store
    """
    device = device or default_device()
    splits = load_splits(prepared)
    runs = {
        f"{arm}-s{run.recipe.seed}": (arm, run)
        for arm, arm_runs in arms.items()
        for run in arm_runs
    }
    files = stamp(*splits.values())  # what is trained on others would be kept as of these
    outcomes, missing = {}, {}
    for name, (arm, run) in runs.items():
        try:
            if progress(run, splits, device) == "all":
                outcomes[name] = Outcome("done", "stored")
            else:
                missing[name] = arm, run
        except InputError as problem:  # what it starts from is gone; the others are trained
            outcomes[name] = Outcome("failed", str(problem))
    _draw_scenes([run for _, run in missing.values()], splits["train"].labels.shape[1:])
    jobs = {
        name: partial(_train_trial, trial, prepared, files, device)
        for name, trial in _missing_trials(missing, splits, device).items()
    }
    jobs |= {
        name: partial(run_and_score, run, prepared, device, files=files)
        for name, (_, run) in sorted(missing.items(), key=lambda item: -item[1][1].recipe.steps)
    }
    ended = run_jobs(jobs, device, say, {name: arm for name, (arm, _) in missing.items()})
    outcomes = {name: outcomes.get(name) or ended[name] for name in runs}
    _raise_failed(outcomes)
    with atomic_folder(folder) as work:
        for name, (arm, run) in runs.items():
            run_folder = work / arm / f"s{run.recipe.seed}"
            run_folder.mkdir(parents=True)
            try:
                write_out(run, prepared, device, run_folder)
            except Diverged as problem:
                outcomes[name] = Outcome("diverged", str(problem))
                export_failure(run.recipe, str(problem), run_folder)
    say(_summary(outcomes))
    return {
        arm: [
            Record.read(run_folder) if (run_folder / "record.json").is_file() else None
            for run_folder in (folder / arm / f"s{run.recipe.seed}" for run in arm_runs)
        ]
        for arm, arm_runs in arms.items()
    }


def progress_bars() -> Say:
    """Return a `say` for notebooks by hand: a bar for each run in place of its printed lines."""
    from tqdm.auto import tqdm

    bars = {}

    def say(line: str) -> None:
        run, _, text = line.partition("  ")
        steps = re.search(r"step +(\d+)/(\d+)", text)
        if not steps:
            tqdm.write(line)
            return
        if run not in bars:
            bars[run] = tqdm(total=int(steps[2]), desc=run, unit="step")
        bars[run].update(int(steps[1]) - bars[run].n)
        bars[run].set_postfix_str(" ".join(text[steps.end() :].split()))

    return say


def _missing_trials(
    runs: dict[str, tuple[str, Run]], splits: dict[str, Scenes], device: torch.device
) -> dict[str, Recipe]:
    """Return the missing trials of learning rates: they come before runs that wait for them."""
    missing = {}
    for arm, run in runs.values():
        for lr, trial in trials(run.search_recipe).items():
            training = training_of(trial, splits, device)
            with contextlib.suppress(Diverged):
                if not training.is_whole:
                    missing.setdefault(training.key, (f"{arm} lr {lr:g}", trial))
    return dict(missing.values())


def _train_trial(
    trial: Recipe, prepared: Path, files: dict[str, tuple], device: torch.device, say: Say
) -> None:
    try:
        train_or_load(trial, load_splits(prepared, files), device, say)
    except Diverged as problem:
        say(str(problem))


def _draw_scenes(runs, size: tuple[int, int]) -> None:
    """Draw the scenes of pre-trainings once, before each process would."""
    for source in {run.recipe.pretrained for run in runs}:
        kind, _, n = source.partition(":")
        if kind == "scenes":
            synthetic_scenes(int(n), size)


def _raise_failed(outcomes: dict[str, Outcome]) -> None:
    failed = {name: o.value for name, o in outcomes.items() if o.how == "failed"}
    if failed:
        lines = [f"{name}: {why}" for name, why in failed.items()]
        others = "" if len(failed) == len(outcomes) else (
            " The others came to their end and need no training again."
        )  # fmt: skip
        lines.append(f"{len(failed)} of {len(outcomes)} runs failed.{others}")
        raise InputError("\n".join(lines))


def _summary(outcomes: dict[str, Outcome]) -> str:
    counts = Counter(o.value if o.how == "done" else o.how for o in outcomes.values())
    parts = {
        "trained": "trained",
        "scored": "scored anew",
        "stored": "from the store",
        "diverged": "whose loss did not stay finite",
    }
    return f"{len(outcomes)} runs: " + ", ".join(
        f"{counts[how]} {what}" for how, what in parts.items() if counts[how]
    )
