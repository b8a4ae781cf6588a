"""What a study asks for, what of it the run store has, and how long the rest takes here."""

import contextlib
import dataclasses
import json
import shutil
from collections import defaultdict
from collections.abc import Iterator
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch

from roadseg.config import paths
from roadseg.config.recipe import Recipe
from roadseg.config.study import EMBEDDED, Study, load
from roadseg.data.scenes import CITYSCAPES, Scenes, read_about
from roadseg.errors import InputError
from roadseg.training import store
from roadseg.training.device import default_device, device_name
from roadseg.training.files import folder_size, remove_leftovers, work_folder, write_if_changed
from roadseg.training.loop import Diverged, make_network, train
from roadseg.training.lr_search import trials
from roadseg.training.run import Run, load_splits, progress, stored_recipe
from roadseg.training.store import (
    Training,
    key_of,
    scores_decided_by,
    training_of,
    trainings_by_code,
)
from roadseg.training.warm_start import (
    pretraining,
    pretraining_scenes,
    synthetic_folder,
    teacher_recipe,
)
from roadseg.training.workers import values_of

MAX_PIXELS = 500_000  # of a step that is timed as it is on a CPU


class RequestedRuns:
    """The runs that a study asks for, held against the run store.

    `splits` is None where the study's data are not prepared, or were before its settings changed:
    then nothing of it can be in the store.

    Parameters
    ----------
    others : trainings of one other code, by `key_without_code`, that stand for those that are
        missing until they are adopted: a search has chosen its learning rate by them
    """

    def __init__(
        self,
        study: Study,
        device: torch.device,
        others: dict[str, Training] | None = None,
    ):
        self.study, self.device, self.others = study, device, others or {}
        self.runs = [
            Run(study.runs[f"{arm}-s{seed}"], study.seeds_of(arm)[0])
            for arm in study.arms
            for seed in study.seeds_of(arm)
        ]

    @cached_property
    def splits(self) -> dict[str, Scenes] | None:
        """The prepared scenes."""
        file = self.study.prepared / "scenes.json"
        settings = json.loads(file.read_text()).get("settings") if file.is_file() else None
        return load_splits(self.study.prepared) if settings == self.study.arrays else None

    @cached_property
    def _progress(self) -> dict[Run, str]:
        if self.splits is None:
            return {}
        return {run: progress(run, self.splits, self.device) for run in self.runs}

    @property
    def stored(self) -> list[Run]:
        """The runs that need no training and no scoring."""
        return [run for run, has in self._progress.items() if has == "all"]

    @property
    def unscored(self) -> list[Run]:
        """The runs that are trained, but not scored by this code on these images."""
        return [run for run, has in self._progress.items() if has == "weights"]

    @cached_property
    def trainings(self) -> list[tuple[Recipe, Training | None]]:
        """Each distinct training, with its place in the store where that is known.

        Those of trials, pre-trainings and teachers are among them.
        """
        trainings = {}
        for run in self.runs:
            recipes = [*trials(run.search_recipe).values()]
            with contextlib.suppress(Diverged):  # at all rates, so that none is trained further
                chosen = self.splits and stored_recipe(
                    run, self.splits, self.device, self._substitute
                )
                recipes.append(chosen or run.recipe.at_lr(run.recipe.lr))
            for recipe in recipes:
                for part in _with_prerequisites(recipe.training):
                    # on these data, or on so many synthetic scenes
                    data_name = run.recipe.pretrained if _is_pretraining(part, run.recipe) else ""
                    if (part, data_name) not in trainings:
                        trainings[part, data_name] = part, self._stored_training(part, run.recipe)
        return list(trainings.values())

    def _substitute(self, training: Training) -> Training:
        other = None if training.is_finished else self.others.get(training.key_without_code)
        return other or training

    def _stored_training(self, recipe: Recipe, run: Recipe) -> Training | None:
        if self.splits is None:
            return None
        splits = self.splits
        if _is_pretraining(recipe, run):
            size = splits["train"].labels.shape[1:]
            if not synthetic_folder(int(run.pretrained.partition(":")[2]), size).is_dir():
                return None
            splits = pretraining_scenes(run, size)
        return training_of(recipe, splits, self.device)

    @property
    def scores(self) -> dict[str, set[str]]:
        """Key of each training of a run -> keys of the scores that are asked for."""
        scores = defaultdict(set)
        for run in self.runs:
            with contextlib.suppress(Diverged):
                if self.splits and (recipe := stored_recipe(run, self.splits, self.device)):
                    training = training_of(recipe, self.splits, self.device)
                    decided_by = scores_decided_by(
                        recipe, self.splits["val"], self.splits["test"], self.device
                    )
                    scores[training.key].add(key_of(decided_by))
        return scores

    @property
    def at_each_rate(self) -> list[Training]:
        """The trainings of runs whose learning rate is searched for, at each rate that may win."""
        return [
            training_of(run.recipe.at_lr(lr), self.splits, self.device)
            for run in self.runs
            for lr in trials(run.search_recipe)
        ]

    @property
    def pretraining_folders(self) -> set[Path]:
        """Where the scenes lie that networks are pre-trained on."""
        size = tuple(self.study.data["size"])
        sources = {run.recipe.pretrained for run in self.runs}
        numbers = [int(s.partition(":")[2]) for s in sources if s.startswith("scenes:")]
        return {synthetic_folder(n, size) for n in numbers}

    @property
    def missing(self) -> list[Recipe]:
        """The trainings that the store has not got."""
        return [
            recipe for recipe, place in self.trainings if place is None or not place.is_finished
        ]

    @cached_property
    def pairs(self) -> list[tuple[Recipe, Training, Training]]:
        """Trainings of which `others` has one by other code: recipe, place, and that."""
        return [
            (recipe, place, other)
            for recipe, place in self.trainings
            if place and (other := self.others.get(place.key_without_code)) and other != place
        ]

    @property
    def adoptable(self) -> list[tuple[Recipe, Training, Training]]:
        """Those of the pairs that are missing."""
        return [pair for pair in self.pairs if not pair[1].is_finished]


def held_against_other_code(study: Study, device: torch.device) -> list[RequestedRuns]:
    """Return what a study asks for, held against each other code of which some can be adopted.

    The code that trained last comes first.
    """
    requested = [RequestedRuns(study, device, others) for others in trainings_by_code().values()]
    return [each for each in requested if each.adoptable]


def _with_prerequisites(recipe: Recipe) -> Iterator[Recipe]:
    """Yield the trainings that a training needs before it, and itself."""
    if recipe.teacher and not recipe.teacher.startswith("study:"):
        yield from _with_prerequisites(teacher_recipe(recipe))
    if recipe.pretrained.startswith("scenes:"):
        yield pretraining(recipe)
    yield recipe


def _is_pretraining(recipe: Recipe, run: Recipe) -> bool:
    """Return whether a training that a run needs is one on synthetic scenes."""
    return run.pretrained.startswith("scenes:") and not recipe.pretrained


def plan(study: Study) -> str:
    """Return in words what a study asks for, what the store has, and how long the rest takes.

    Times are estimated from a step of each training, and kept in `build/<study>/steps.json`, so
    that planning again is quick.
    """
    device = default_device()
    requested = RequestedRuns(study, device)
    stored, unscored = len(requested.stored), len(requested.unscored)
    summary = (
        f"{study.name}: {_count(len(study.questions), 'question asks', 'questions ask')} for "
        f"{_count(len(requested.runs), 'run', 'runs')}; {stored + unscored} of them are in the run "
        "store."
    )
    if unscored:
        summary += f" {unscored} are to be scored anew, without training."
    if requested.splits is None:
        summary += " The data are not prepared yet, or their settings changed."
    if not requested.missing:
        return summary
    adoptable = {
        place.key for r in held_against_other_code(study, device) for _, place, _ in r.adoptable
    }
    if adoptable:
        summary += (
            f"\n{_count(len(adoptable), 'training is', 'trainings are')} in the store, "
            "made by other training code. If the change alters no result, `python -m roadseg adopt "
            f"{study.name}` keeps them."
        )
    seconds, slowest = _estimate_seconds(requested)
    return (
        f"{summary}\n{_count(len(requested.missing), 'training is', 'trainings are')} to be done, "
        "counting learning-rate trials and pre-trainings. This takes about "
        f"{_format_duration(seconds)} on {device_name(device)}, by one timed step of each; the "
        f"longest is {slowest.architecture}, {slowest.steps} steps."
    )


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


def _estimate_seconds(requested: RequestedRuns) -> tuple[float, Recipe]:
    """Return how long the missing trainings take together, and the longest of them."""
    study, missing, device = requested.study, requested.missing, requested.device
    file = study.build / "steps.json"
    timings = json.loads(file.read_text()) if file.is_file() else {}
    classes = len(CITYSCAPES)
    if (study.prepared / "scenes.json").is_file():
        classes = len(read_about(study.prepared)["classes"])
    machine = f"{device_name(device)}, torch {torch.__version__}"
    solo_seconds, at_once = [], min(processes(device), len(missing))
    for recipe in missing:
        key = f"{_step_digest(recipe)} {study.data['size']} {classes} {at_once} at once, {machine}"
        if key not in timings:
            timings[key] = step_seconds(recipe, tuple(study.data["size"]), classes, at_once)
        solo_seconds.append(recipe.steps * timings[key])
    write_if_changed(file, json.dumps(timings, indent=1) + "\n")
    longest = max(solo_seconds)
    seconds = max(sum(solo_seconds) / processes(device), longest)
    return seconds, missing[solo_seconds.index(longest)]


def prune() -> str:
    """Remove from the run store what no study of this project asks for; return what that was.

    Trainings by other code stay as long as `adopt` may keep them, and all trainings on data of a
    study that is not prepared here.

    Raises
    ------
    InputError : a study cannot be read, or it is not prepared and shares the data of another, so
        that nobody knows which runs are its own
    """
    device = default_device()
    names = [EMBEDDED, *(f.parent.name for f in paths.ROOT.glob("studies/*/params.yaml"))]
    requested = [RequestedRuns(load(name), device) for name in names]
    prepared = [r for r in requested if r.splits is not None]
    unprepared = [r.study for r in requested if r.splits is None]
    for study in unprepared:
        if any(study.data["size"] == r.study.data["size"] for r in prepared):
            raise InputError(
                f"{study.name}: its data are not prepared, and another study has images of the "
                "same size, maybe the same images, so that its runs cannot be told from those that "
                f"nobody asks for. Nothing was removed. Run: python -m roadseg resolve "
                f"{study.name}, then prepare {study.name}."
            )
    others = trainings_by_code().values()
    held_against = [RequestedRuns(r.study, device, o) for r in prepared for o in [None, *others]]
    trainings = [t for r in held_against for _, t in r.trainings if t]
    trainings += [t for r in prepared for t in r.at_each_rate]
    # results of a GPU are not unwanted because this is a CPU
    wanted = {other.key for t in trainings for other in t.on_each_precision}
    adoptable = {
        other.key_without_code
        for t in trainings
        if not t.is_finished
        for other in t.on_each_precision
    }
    train_digests = {t.decided_by["train"] for t in trainings}

    def keep(training: Training) -> bool:
        return (
            training.key in wanted
            or training.key_without_code in adoptable
            or (bool(unprepared) and training.decided_by["train"] not in train_digests)
        )

    scores = defaultdict(set)
    for r in prepared:
        for key, wanted_scores in r.scores.items():
            scores[key] |= wanted_scores
    removed, size = store.prune(keep, lambda key: key in wanted or bool(unprepared), scores)
    if not unprepared:
        size += remove_leftovers(work_folder(), "scenes-*.partial")
        scenes = {folder for r in prepared for folder in r.pretraining_folders}
        for folder in set(work_folder().glob("scenes-*")) - scenes:
            if "." not in folder.name:  # one that is being drawn
                size += folder_size(folder)
                shutil.rmtree(folder, ignore_errors=True)
    removal = f"{removed} trainings that no study asks for were removed: {size / 1e6:.0f} MB."
    if unprepared:
        removal += (
            " Trainings that may belong to these studies were kept, since their data are not "
            f"prepared: {', '.join(study.name for study in unprepared)}."
        )
    return removal


def _step_digest(recipe: Recipe) -> str:
    """Return the digest of what decides a step's time: the recipe without its number of steps."""
    neutral = {"steps": 1000, "warmup_steps": 0, "lr": 0.001, "pretrained": "imagenet",
               "pretrained_part": "encoder", "pretrain_steps": 1000, "seed": 0}  # fmt: skip
    return recipe.changed(neutral).digest


def _format_duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} minutes" if seconds < 6000 else f"{seconds / 3600:.1f} hours"


def processes(device: torch.device) -> int:
    """Return how many runs train at a time."""
    return 1 if device.type == "cuda" else torch.get_num_threads()


def step_seconds(recipe: Recipe, size: tuple[int, int], classes: int, at_once: int) -> float:
    """Measure one training step of a recipe, in seconds, on the device at hand.

    Random images stand for the data; a teacher is not trained, but its forward pass is included.
    On a CPU each step runs on one core, and `at_once` of them at a time, which slow each other.
    There the time of a large step is estimated from a step of fewer images, and of smaller ones
    where two are still that large, so that a plan made for a GPU can be made anywhere.
    """
    device, pixels = default_device(), size[0] * size[1]
    if device.type == "cpu" and recipe.batch_size * pixels > MAX_PIXELS:
        # two at least: the batch normalisation of a single value has nothing to compute
        batch = min(recipe.batch_size, max(2, MAX_PIXELS // pixels))
        small_size = size
        if batch * pixels > MAX_PIXELS:
            small_size = tuple(min(side, max(side // 3, 128)) for side in size)
        if (batch, small_size) != (recipe.batch_size, size):
            share = small_size[0] * small_size[1] / pixels
            kept_pixels = {"ohem_kept": max(1, int(share * recipe.ohem_kept))}
            small_recipe = recipe.changed(
                {"batch_size": batch} | (kept_pixels if recipe.ohem_threshold < 1 else {})
            )
            seconds = step_seconds(small_recipe, small_size, classes, at_once)
            return seconds * recipe.batch_size / (share * batch)
    step = partial(_step_seconds, recipe, size, classes)
    return max(values_of({f"step {i}": step for i in range(at_once)}, device).values())


def _step_seconds(recipe: Recipe, size: tuple[int, int], classes: int) -> float:
    device, n = default_device(), 2 * recipe.batch_size
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (n, 3, *size), np.uint8)
    labels = rng.integers(0, classes, (n, *size), np.uint8)
    names, colours = tuple(map(str, range(classes))), ((0, 0, 0),) * classes
    scenes = Scenes(images, labels, ("",) * n, ("",) * n, names, colours, "")
    val = dataclasses.replace(
        scenes, images=scenes.images[:1], labels=scenes.labels[:1], names=("",)
    )
    teacher = None
    if recipe.teacher and not recipe.teacher.startswith("study:"):
        teacher = make_network(teacher_recipe(recipe), classes).to(device).eval()
    elif recipe.teacher:
        recipe = recipe.changed({"teacher": "", "distill_weight": 0.0, "distill_temperature": 4.0})
    # not loaded: it only allows for frozen stages
    imagenet_start = {
        "pretrained": "imagenet",
        "pretrained_part": "encoder",
        "pretrain_steps": 1000,
    }
    # near zero, a learning rate cannot make the loss infinite without the recipe's warm-up
    short = recipe.training.changed({**imagenet_start, "warmup_steps": 0, "lr": 1e-9})
    durations = []
    for steps in (1, 2, 6):  # the first steps are slow: only those after them count
        _, _, seconds = train(
            short.changed({"steps": steps}), scenes, val, device=device, teacher=teacher,
            say=lambda _: None,
        )  # fmt: skip
        durations.append(seconds)
    return max(durations[2] - durations[1], 1e-3) / 4  # on a GPU small steps drown in noise
