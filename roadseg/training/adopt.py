"""Keeps finished trainings after a change of training code that changes no result.

A changed loop is another key, so that the run store would train everything anew. `adopt` trains a
few runs again, and keeps all others if these come to the same counts.
"""

import dataclasses
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from roadseg.config.recipe import DEFAULTS, Recipe
from roadseg.config.study import Study
from roadseg.data.scenes import Scenes
from roadseg.training.device import default_device
from roadseg.training.evaluate import evaluate
from roadseg.training.files import atomic_folder, folder_lock
from roadseg.training.loop import Diverged
from roadseg.training.plan import RequestedRuns, held_against_other_code, is_finished
from roadseg.training.run import load_splits, train_or_load
from roadseg.training.store import Training, rewrite_key, scores_decided_by
from roadseg.training.workers import run_jobs

Say = Callable[[str], None]


# Hyperparameters of which another number runs the same code; the network is compared by name.
NUMBERS_WITHOUT_PATHS = ("network", "seed", "steps", "batch_size", "lr")


@dataclass(frozen=True)
class Candidate:
    """A training that is asked for, and the one of other code that may stand for it."""

    recipe: Recipe
    new: Training
    old: Training

    @property
    def network(self) -> str:
        """The network's name, with what the recipe changes about its layers."""
        return self.recipe.architecture

    @property
    def hyperparameters(self) -> set[str]:
        """What the recipe sets, apart from the seed."""
        return set(self.recipe.differences()) - {"seed"}

    @property
    def paths(self) -> set[tuple]:
        """What decides which lines of code a training runs: (hyperparameter, value).

        Of numbers, whether they are neutral; of 'kind:name', the kind.
        """
        return {
            (name, value.partition(":")[0] if isinstance(value, str) else value == DEFAULTS[name])
            for name, value in dataclasses.asdict(self.recipe.training).items()
            if name not in NUMBERS_WITHOUT_PATHS
        }


def adopt(study: Study, say: Say = print) -> bool:
    """Keep the trainings of a study that other training code made, if they come to the same.

    Of all codes before, it is the one of which most is left. One run of each network is trained
    anew, and further ones until each hyperparameter is both set and neutral in one of them, as far
    as the study has such runs.

    Returns
    -------
    Whether all that was trained anew came to the same counts on val and test; True also where
    there was nothing to adopt
    """
    device = default_device()
    requested = held_against_other_code(study, device)
    if requested.splits is None:
        say(f"{study.name}: its data are not prepared; there is nothing to adopt.")
        return True
    candidates = [Candidate(*found) for found in requested.adoptable]
    if not candidates:
        say(f"{study.name}: no finished training is of other code; there is nothing to adopt.")
        return True
    comparable = [c for c in candidates if _converged(c.old) and _on_study_data(c, requested)]
    if not comparable:
        say(
            f"{study.name}: {len(candidates)} trainings were made by other code, and none of them "
            "can be compared, since they failed or are on other data: nothing is adopted. "
            "'make report' trains all of it anew."
        )
        return False
    chosen = _choose_candidates(comparable)
    say(
        f"{study.name}: {len(candidates)} trainings were made by other code. {len(chosen)} are "
        "trained again, to see whether they come to the same."
    )
    jobs = {
        f"{c.network} {c.new.key}": partial(_train, c.recipe, study.prepared, device)
        for c in chosen
    }
    failed = [o.value for o in run_jobs(jobs, device, say).values() if o.how == "failed"]
    if failed:
        for problem in failed:
            say(str(problem))
        say("Not all of them came to their end, so nothing is adopted. Mend that, and call again.")
        return False
    differing = [c for c in chosen if not _equal(c, requested.splits, device)]
    if differing:
        for c in differing:
            say(
                f"{c.network} (seed {c.recipe.seed}; {', '.join(sorted(c.hyperparameters))}) gives "
                "a different confusion matrix than before."
            )
        say("The change alters results: nothing is adopted. 'make report' trains all of it anew.")
        return False
    for c in candidates:
        with folder_lock(c.new.folder):  # another process may be training it
            if not is_finished(c.new):
                _adopt_candidate(c)
            elif (c.old.folder / "scores").is_dir():  # equal counts: they are its own as well
                shutil.copytree(
                    c.old.folder / "scores", c.new.folder / "scores", dirs_exist_ok=True,
                    copy_function=_link,
                )  # fmt: skip
    say(f"All {len(chosen)} came to the same counts: {len(candidates)} trainings are kept.")
    if held_against_other_code(study, device).adoptable:
        say("More trainings are of yet other code: call again to compare these.")
    return True


def _converged(training: Training) -> bool:
    try:
        return training.is_whole
    except Diverged:
        return False


def _on_study_data(candidate: Candidate, requested: RequestedRuns) -> bool:
    """Return whether a training is on the study's data: one on synthetic scenes is its start."""
    return candidate.new.decided_by["train"] == requested.splits["train"].digest


def _choose_candidates(candidates: list[Candidate]) -> list[Candidate]:
    """Return few trainings that have every network, and between them every path of the code.

    Of each network the one that sets most, of equals the shortest; then the one of all that sets
    least, since plain settings may have a path of their own; then what is not covered yet.
    """
    ranked = sorted(candidates, key=lambda c: (-len(c.hyperparameters), c.recipe.steps))
    networks = dict.fromkeys(c.network for c in candidates)
    chosen = [next(c for c in ranked if c.network == network) for network in networks]
    plainest = min(candidates, key=lambda c: (len(c.hyperparameters), c.recipe.steps))
    if all(c.hyperparameters > plainest.hyperparameters for c in chosen):
        chosen.append(plainest)
    covered = {path for c in chosen for path in c.paths}
    while rest := [c for c in ranked if c.paths - covered]:
        chosen.append(max(rest, key=lambda c: len(c.paths - covered)))
        covered |= chosen[-1].paths
    return chosen


def _train(recipe: Recipe, prepared: Path, device: torch.device, say: Say) -> None:
    train_or_load(recipe, load_splits(prepared), device, say)


def _equal(candidate: Candidate, splits: dict[str, Scenes], device: torch.device) -> bool:
    """Return whether old and new weights, and scores in the store, are the same counts."""
    if not _converged(candidate.new):
        return False
    networks = [t.network(candidate.recipe, device) for t in (candidate.old, candidate.new)]
    decided_by = scores_decided_by(candidate.recipe, splits["val"], splits["test"], device)
    stored = candidate.old.scores(decided_by) / "counts.npz"
    for split in ("val", "test"):
        counts = [
            evaluate(network, splits[split], device, **candidate.recipe.testing)
            for network in networks
        ]
        if stored.is_file():  # by the code before: what the networks compute may have changed alike
            with np.load(stored) as scores:
                counts.append(scores[split])
        if not all(np.array_equal(counts[0], other) for other in counts[1:]):
            return False
    return True


def _adopt_candidate(candidate: Candidate) -> None:
    """Put a finished training, with its scores, under its new key too."""
    with atomic_folder(candidate.new.folder) as work:
        shutil.copytree(
            candidate.old.folder, work, dirs_exist_ok=True, copy_function=_link,
            ignore=shutil.ignore_patterns("step-*.pt"),
        )  # fmt: skip
        rewrite_key(work, candidate.new.decided_by, adopted_from=candidate.old.key)


def _link(source: str, target: str) -> None:
    """Link a file, which takes no room; copy it where that cannot be done."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
