"""One run: trained and scored, or taken from the run store."""

import contextlib
import datetime
import math
import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from roadseg.config.recipe import Recipe
from roadseg.data.scenes import Scenes, check_unchanged, data_digest, stamp
from roadseg.errors import InputError
from roadseg.models.pretrained import weights_origin
from roadseg.models.segmenter import Segmenter
from roadseg.training.checkpoints import Checkpoints
from roadseg.training.device import device_name, peak_memory
from roadseg.training.energy import spending
from roadseg.training.evaluate import TEST_BATCH
from roadseg.training.files import atomic_folder, folder_lock
from roadseg.training.loop import Diverged, train
from roadseg.training.lr_search import search, trials
from roadseg.training.score import score
from roadseg.training.store import (
    VERSIONS,
    Training,
    export,
    scores_decided_by,
    training_of,
)
from roadseg.training.warm_start import starting_point

Say = Callable[[str], None]


@dataclass(frozen=True)
class Run:
    """A recipe with its seed, and the seed with which its learning rate is searched, if it is."""

    recipe: Recipe
    search_seed: int = 0

    @property
    def search_recipe(self) -> Recipe:
        """The recipe whose trials choose the learning rate: all seeds of an arm share them."""
        return self.recipe.changed({"seed": self.search_seed})


def load_splits(prepared: Path, files: dict[str, tuple] | None = None) -> dict[str, Scenes]:
    """Open the prepared scenes of all splits.

    Parameters
    ----------
    files : their `stamp`, if they must be what they were then

    Raises
    ------
    InputError : they are not there, or not what they were
    """
    splits = {split: Scenes.load(prepared, split) for split in ("train", "val", "test")}
    if files is not None:
        check_unchanged(files, *splits.values())
    return splits


def train_or_load(
    recipe: Recipe, splits: dict[str, Scenes], device: torch.device, say: Say
) -> tuple[Training, bool]:
    """Train a recipe, with what it starts from, unless the store has it.

    While another process trains it, this one waits for that.

    Parameters
    ----------
    recipe : its learning rate is taken as it is, without a search
    splits : 'train' and 'val'

    Returns
    -------
    The training, finished, and whether this call trained it

    Raises
    ------
    InputError : the weights or the teacher it asks for are not there or do not fit, or it needs
        more memory than there is
    Diverged : its loss is not finite any more
    KeyboardInterrupt : it was asked to stop, and has saved its state
    """
    recipe = recipe.training.at_lr(recipe.lr)
    training = training_of(recipe, splits, device)
    if training.is_whole:
        return training, False
    try:
        # Before this one's own turn: within it a stop waits for the next state to be saved, and
        # there is none while it waits for another process to train what it starts from.
        start, teacher, prerequisites = _starting_point(recipe, splits, device, say)
    except Diverged as problem:
        with folder_lock(training.folder):
            training.keep_failure(recipe, str(problem))
        raise
    # A state of one kind of device is not another's: arithmetic differs.
    name = f"{training.key} on {device.type}"
    with Checkpoints(training.folder, name, say) as checkpoints:
        if training.is_whole:  # trained while this waited for its turn
            return training, False
        say(f"{recipe.architecture}, {recipe.steps} steps, on {device_name(device)}")
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        try:
            with (
                _enough_memory(recipe.batch_size, splits["train"], "batch_size, or data: size"),
                spending(device) as spent,
            ):
                network, curve, seconds = train(
                    recipe, splits["train"], splits["val"], device=device, start=start,
                    teacher=teacher, checkpoints=checkpoints, say=say,
                )  # fmt: skip
        except Diverged as problem:
            training.keep_failure(recipe, str(problem))
            raise
        about = _about(
            training, recipe, splits["train"], device, seconds, prerequisites, spent["joules"]
        )
        training.keep(network, curve, recipe, about)
    return training, True


def _starting_point(
    recipe: Recipe, splits: dict[str, Scenes], device: torch.device, say: Say
) -> tuple[Callable[[Segmenter], None] | None, Segmenter | None, list[dict]]:
    """Return `starting_point`, and the records of what had to be trained for it.

    These trainings are in the store then, for others to find too.
    """
    prerequisites = []

    def train_first(recipe: Recipe, splits: dict[str, Scenes] = splits) -> Segmenter:
        try:
            first, _ = train_or_load(recipe, splits, device, say)
        except Diverged as problem:
            raise Diverged(f"{recipe.architecture}, trained before it: {problem}") from None
        prerequisites.append(first.about())
        return first.network(recipe, device)

    return *starting_point(recipe, splits["train"], device, train_first, say), prerequisites


def _about(
    training: Training,
    recipe: Recipe,
    scenes: Scenes,
    device: torch.device,
    seconds: float,
    prerequisites: list[dict],
    joules: float | None,
) -> dict:
    """Return what the record says of a training that has come to its end."""
    height, width = scenes.labels.shape[1:]
    decided = training.decided_by
    return {
        "training": training.key,
        "train_images": len(scenes),
        "height": height,
        "width": width,
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        **{name: decided[name] for name in ("precision", "code", "start", *VERSIONS)},
        "start_weights": weights_origin(recipe.pretrained, recipe.network),
        "python": platform.python_version(),
        "seconds": round(seconds, 2),
        "start_seconds": round(sum(t["seconds"] + t["start_seconds"] for t in prerequisites), 2),
        "joules": joules,
        "images_per_second": round(recipe.steps * recipe.batch_size / seconds, 2),
        "peak_memory_mib": peak_memory(device),
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


@contextlib.contextmanager
def _enough_memory(batch_size: int, scenes: Scenes, remedy: str) -> Iterator[None]:
    """Turn a want of memory into an InputError that says what to lower."""
    try:
        yield
    except (MemoryError, RuntimeError) as problem:
        of_memory = isinstance(problem, MemoryError | torch.OutOfMemoryError)
        if not of_memory and "can't allocate memory" not in str(problem):
            raise
        height, width = scenes.labels.shape[1:]
        raise InputError(
            f"out of memory with batch_size {batch_size} and images of {height} x {width}: lower "
            f"{remedy}."
        ) from None


def ensure_scored(
    recipe: Recipe, training: Training, splits: dict[str, Scenes], device: torch.device
) -> bool:
    """Score a finished training on val and test, unless the store has that; return whether."""
    decided_by = scores_decided_by(recipe, splits["val"], splits["test"], device)
    folder = training.scores(decided_by)
    with folder_lock(training.folder):  # who waited for this training comes here as well
        if training.has_scores(decided_by):
            return False
        network, files = training.network(recipe, device), stamp(*splits.values())
        with (
            atomic_folder(folder) as work,
            _enough_memory(TEST_BATCH, splits["test"], "data: size"),
        ):
            counts, reliability = score(
                network, splits["val"], splits["test"], device, work / "predictions.npz",
                **recipe.testing,
            )  # fmt: skip
            np.savez_compressed(
                work / "counts.npz", **{split: c.astype(np.int32) for split, c in counts.items()}
            )
            np.savetxt(
                work / "reliability.csv", reliability.T, "%.9g", ",",
                header="pixels,right,confidence", comments="",
            )  # fmt: skip
            check_unchanged(files, *splits.values())
    return True


def choose_lr(
    run: Run, splits: dict[str, Scenes], device: torch.device, say: Say
) -> tuple[float, pd.DataFrame | None]:
    """Return the learning rate of a run, and the table of the search that chose it, if one did.

    Raises
    ------
    Diverged : the loss was finite at none of the rates
    """
    if not trials(run.search_recipe):
        return run.recipe.lr, None

    def run_trial(trial: Recipe) -> tuple[float, float]:
        try:
            trial_training, _ = train_or_load(trial, splits, device, say)
        except Diverged as problem:
            say(str(problem))
            return math.nan, math.nan
        return _trial_result(trial_training)

    return search(run.search_recipe, run_trial)


def _trial_result(training: Training) -> tuple[float, float]:
    """Return the val mIoU that a finished trial ends with, and its seconds; NaN if it diverged."""
    try:
        about = training.about()
    except Diverged:
        return math.nan, math.nan
    if about is None:
        raise LookupError
    seconds = about["seconds"] + about["start_seconds"]
    return float(training.curve()["val_miou"].iloc[-1]), round(seconds, 2)


def run_and_score(
    run: Run,
    prepared: Path,
    device: torch.device,
    say: Say,
    *,
    files: dict[str, tuple] | None = None,
) -> str:
    """Train and score a run, as far as the store has not got it; return what was done.

    Parameters
    ----------
    files : see `load_splits`

    Returns
    -------
    'trained', 'scored' (the training was in the store) or 'stored' (all was)

    Raises
    ------
    What `train_or_load` and `choose_lr` do
    """
    splits = load_splits(prepared, files)
    lr, _ = choose_lr(run, splits, device, say)
    recipe = run.recipe.at_lr(lr)
    training, was_trained = train_or_load(recipe, splits, device, say)
    was_scored = ensure_scored(recipe, training, splits, device)
    return "trained" if was_trained else "scored" if was_scored else "stored"


def progress(run: Run, splits: dict[str, Scenes], device: torch.device) -> str:
    """Return what the store has of a run: 'all', 'weights' (but no scores) or 'nothing' whole."""
    try:
        recipe = stored_recipe(run, splits, device)
        training = recipe and training_of(recipe, splits, device)
        if not training or not training.is_whole:
            return "nothing"
    except Diverged:
        return "all"
    decided_by = scores_decided_by(recipe, splits["val"], splits["test"], device)
    return "all" if training.has_scores(decided_by) else "weights"


def stored_recipe(
    run: Run,
    splits: dict[str, Scenes],
    device: torch.device,
    substitute: Callable[[Training], Training] = lambda training: training,
) -> Recipe | None:
    """Return a run's recipe at the learning rate that its search chose; None before all trials.

    Parameters
    ----------
    substitute : returns what stands for a trial's training, see `adopt`

    Raises
    ------
    Diverged : the loss was finite at none of the rates
    """

    def read_trial(trial: Recipe) -> tuple[float, float]:
        return _trial_result(substitute(training_of(trial, splits, device)))

    if not trials(run.search_recipe):
        return run.recipe
    try:
        return run.recipe.at_lr(search(run.search_recipe, read_trial)[0])
    except LookupError:
        return None


def write_out(run: Run, prepared: Path, device: torch.device, folder: Path) -> None:
    """Copy a run from the store into a folder, which must be there.

    The table of its learning-rate search, if it has one, goes into the folder's parent.

    Raises
    ------
    Diverged : its loss did not stay finite
    """
    splits = load_splits(prepared)
    lr, table = choose_lr(run, splits, device, lambda _: None)
    if table is not None:
        table.to_csv(folder.parent / "search.csv", index=False)
    recipe = run.recipe.at_lr(lr)
    training = training_of(recipe, splits, device)
    about = training.about() | {
        "digest": run.recipe.digest,
        "data_digest": data_digest(prepared),
        "lr_used": lr,
    }
    scores = training.scores(scores_decided_by(recipe, splits["val"], splits["test"], device))
    export(training, scores, run.recipe, about, folder)
