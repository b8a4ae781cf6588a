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
from roadseg.training.device import default_device, device_name
from roadseg.training.evaluate import evaluate
from roadseg.training.files import atomic_folder, folder_lock
from roadseg.training.plan import RequestedRuns, held_against_other_code
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

    Each earlier code is tried, the newest first. Of its trainings one of each network is trained
    anew, and further ones until each hyperparameter is both set and neutral in one of them, as far
    as the study has such runs. What was trained anew before, for whatever reason, is compared as
    well. A training is kept if these vouch for its network and hyperparameters.

    Returns
    -------
    Whether all that was trained anew came to the same as by one of the earlier codes; True also
    where there was nothing to adopt
    """
    device = default_device()
    if RequestedRuns(study, device).splits is None:
        say(f"{study.name}: its data are not prepared; there is nothing to adopt.")
        return True
    codes = held_against_other_code(study, device)
    if not codes:
        say(f"{study.name}: no finished training is of other code; there is nothing to adopt.")
    verdicts = []
    for requested in codes:
        if requested.adoptable:  # the code before this one may have given them
            verdicts.append(_adopt_code(requested, say))
    if verdicts and not any(verdicts):
        say("Nothing is adopted. 'make report' trains it anew.")
    return not verdicts or any(verdicts)


def _adopt_code(requested: RequestedRuns, say: Say) -> bool:
    """Adopt the trainings of one earlier code, unless they come to something else."""
    device, name = requested.device, requested.study.name
    pairs = [Candidate(*pair) for pair in requested.pairs]
    missing = [c for c in pairs if not c.new.is_finished]
    comparable = [c for c in pairs if _is_comparable(c, requested)]
    chosen = [c for c in comparable if c.new.is_finished]
    chosen += _choose_candidates([c for c in comparable if c not in chosen], chosen)
    code = pairs[0].old.decided_by["code"]
    say(
        f"{name}: {len(missing)} trainings were made by other code ({code}). {len(chosen)} are "
        "compared with what the code of today comes to."
    )
    if not chosen:
        say(
            "None of them can be compared: their losses were not finite, or they were trained on "
            f"other data or on another device than {device_name(device)}."
        )
        return False
    jobs = {
        f"{c.network} {c.new.key}": partial(_train, c.recipe, requested.study.prepared, device)
        for c in chosen
        if not c.new.is_finished
    }
    failed = [o.value for o in run_jobs(jobs, device, say).values() if o.how == "failed"]
    if failed:
        for problem in failed:
            say(str(problem))
        say("Not all of them came to their end. Mend that, and run it again.")
        return False
    differing = [c for c in chosen if not _equal(c, requested.splits, device)]
    if differing:
        for c in differing:
            say(
                f"{c.network} (seed {c.recipe.seed}; {', '.join(sorted(c.hyperparameters))}) gives "
                "another curve or confusion matrix than before."
            )
        say("The change alters results.")
        return False
    networks, paths = {c.network for c in chosen}, {path for c in chosen for path in c.paths}
    # What is trained on synthetic scenes first was trained again with what starts from it.
    vouched_for = [
        c
        for c in missing
        if c.network in networks
        and (c.paths if _on_study_data(c, requested) else {("pretrained", "scenes")}) <= paths
        and (c in chosen or c.old.has_weights)
    ]
    for c in vouched_for:
        with folder_lock(c.new.folder):  # another process may be training it
            if not c.new.is_finished:
                _adopt_candidate(c)
            elif (c.old.folder / "scores").is_dir():  # equal counts: they are its own as well
                shutil.copytree(
                    c.old.folder / "scores", c.new.folder / "scores", dirs_exist_ok=True,
                    copy_function=_link,
                )  # fmt: skip
    say(f"All {len(chosen)} came to the same: {len(vouched_for)} trainings are kept.")
    if rest := len(missing) - len(vouched_for):
        say(f"The other {rest} are like none of these, or failed, and are trained anew.")
    return True


def _on_study_data(candidate: Candidate, requested: RequestedRuns) -> bool:
    return candidate.new.decided_by["train"] == requested.splits["train"].digest


def _is_comparable(candidate: Candidate, requested: RequestedRuns) -> bool:
    """Return whether a training can be compared with a new one here.

    It has weights, and is on the study's own data and on this kind of device: another one's
    arithmetic differs.
    """
    return (
        _on_study_data(candidate, requested)
        and candidate.old.has_weights
        and candidate.old.about()["device"] == device_name(requested.device)
    )


def _choose_candidates(
    candidates: list[Candidate], compared_anyway: list[Candidate]
) -> list[Candidate]:
    """Return few trainings that have, with others, every network and every path of the code.

    Of each network the one that sets most, of equals the shortest; then the one of all that sets
    least, since plain settings may have a path of their own; then what is not covered yet.
    """
    ranked = sorted(candidates, key=lambda c: (-len(c.hyperparameters), c.recipe.steps))
    seen = {c.network for c in compared_anyway}
    networks = dict.fromkeys(c.network for c in candidates if c.network not in seen)
    chosen = [next(c for c in ranked if c.network == network) for network in networks]
    plainest = min(candidates, key=lambda c: (len(c.hyperparameters), c.recipe.steps), default=None)
    compared = [*compared_anyway, *chosen]
    if plainest and all(c.hyperparameters > plainest.hyperparameters for c in compared):
        chosen.append(plainest)
    covered = {path for c in [*compared_anyway, *chosen] for path in c.paths}
    while rest := [c for c in ranked if c.paths - covered]:
        chosen.append(max(rest, key=lambda c: len(c.paths - covered)))
        covered |= chosen[-1].paths
    return chosen


def _train(recipe: Recipe, prepared: Path, device: torch.device, say: Say) -> None:
    train_or_load(recipe, load_splits(prepared), device, say)


def _equal(candidate: Candidate, splits: dict[str, Scenes], device: torch.device) -> bool:
    """Return whether old and new curves, and counts on val and test, are the same.

    Old scores in the store count too: what networks compute may have changed for old and new
    weights alike.
    """
    old, new = candidate.old, candidate.new
    if not (new.has_weights and old.curve().equals(new.curve())):
        return False
    decided_by = scores_decided_by(candidate.recipe, splits["val"], splits["test"], device)
    counts = [_stored_counts(training.scores(decided_by)) for training in (old, new)]
    if not all(counts):
        counts += [
            {
                split: evaluate(network, splits[split], device, **candidate.recipe.testing)
                for split in ("val", "test")
            }
            for network in (t.network(candidate.recipe, device) for t in (old, new))
        ]
    first, *others = filter(None, counts)
    return all(np.array_equal(first[s], each[s]) for each in others for s in ("val", "test"))


def _stored_counts(scores: Path) -> dict[str, np.ndarray]:
    """Return the counts in a folder of scores; empty if there are none."""
    if not (scores / "counts.npz").is_file():
        return {}
    with np.load(scores / "counts.npz") as counts:
        return {split: counts[split] for split in ("val", "test")}


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
