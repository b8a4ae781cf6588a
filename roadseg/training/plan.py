"""What of a plan is trained already, and how long the rest takes on the device at hand."""

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from roadseg.config.recipe import Recipe
from roadseg.config.study import ROOT, Plan
from roadseg.data.scenes import CITYSCAPES, Scenes
from roadseg.errors import InputError
from roadseg.training.loop import default_device, device_name, make_network, train
from roadseg.training.run import _settings, pretraining, teacher_recipe, trials

MOST_PIXELS = 500_000  # of a step that is timed as it is on a CPU
START_SECONDS = 10  # of one arm: kernel, imports, scoring; measured on two CPU cores


def finished(plan: Plan) -> dict[tuple[str, int], Path]:
    """Return the runs of a plan that are trained already: (arm, seed) -> folder of its record.

    Code, data, device and versions are those that a training of today would have.
    """
    checked = plan.build / "checked.json"  # the data that are prepared
    if not checked.is_file() or _arrays(json.loads(checked.read_text())) != _arrays(plan.data):
        return {}
    try:
        scenes = Scenes.load(plan.prepared, "train")
    except InputError:
        return {}
    found = {}
    for arm, recipe in plan.arms.items():
        with _threads(len(plan.seeds_of(arm))):
            for seed in plan.seeds_of(arm):
                folder = plan.folder(arm, seed)
                about = _about(folder)
                if (
                    about
                    and _key(recipe.changed({"seed": seed}), about["lr_used"], scenes)
                    == about["training"]
                ):
                    found[arm, seed] = folder
    return found


def _arrays(data: dict) -> dict:
    """Return the settings of data without what prepared arrays do not depend on."""
    return {key: value for key, value in data.items() if key != "block"}


def _about(folder: Path) -> dict:
    try:
        return json.loads((folder / "record.json").read_text())["about"]
    except (OSError, ValueError):  # not trained, or being written
        return {}


def _key(recipe: Recipe, lr: float, scenes: Scenes) -> str:
    """Return the key under which `runs.trained` would keep a training of today."""
    about = _settings(recipe.training.at_lr(lr), scenes, default_device())
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:12]


@contextlib.contextmanager
def _threads(seeds: int) -> Iterator[None]:
    """Have as many threads as each of some seeds that `runs.run_all` trains at once."""
    cores = torch.get_num_threads()
    if default_device().type == "cpu" and seeds > 1:
        workers = seeds if seeds <= 2 * cores else cores
        torch.set_num_threads(max(1, cores // workers))
    try:
        yield
    finally:
        torch.set_num_threads(cores)


def keep(plan: Plan, arms: list[str]) -> None:
    """Keep the finished trainings of arms where a run that goes on looks for them.

    DVC removes what a stage made before it does the stage again: without this, a seed more would
    train all others anew.
    """
    for (arm, _), folder in finished(plan).items():
        kept = ROOT / "work" / plan.name / _about(folder)["training"]
        if arm not in arms or kept.exists():
            continue
        partial = kept.with_name(f"{kept.name}.{os.getpid()}.partial")
        partial.mkdir(parents=True)
        try:
            for name in ("record.json", "curve.csv", "weights.pt"):
                shutil.copyfile(folder / name, partial / name)
            partial.rename(kept)
        except OSError as problem:  # a pipeline at work took it away, or the disk is full
            shutil.rmtree(partial)
            print(f"{folder}: not kept ({problem.strerror}); it will be trained again.")


def forecast(plan: Plan) -> str:
    """Return in words how long the plan's training takes here, from one step of each arm.

    Times are kept in `build/<study>/steps.json`, so that planning again is quick.
    """
    device = default_device()
    file = plan.build / "steps.json"
    kept = json.loads(file.read_text()) if file.is_file() else {}
    classes = len(CITYSCAPES)
    if (plan.prepared / "scenes.json").is_file():
        classes = len(json.loads((plan.prepared / "scenes.json").read_text())["classes"])
    seconds, slowest = 0.0, (0.0, "")
    where = f"{device_name(device)}, torch {torch.__version__}"
    cores = 1 if device.type == "cuda" else torch.get_num_threads()
    done = finished(plan).keys() | _failed(plan)
    counted = {
        part for arm, seed in done for group in _groups(plan.arms[arm], (seed,)) for part in group
    }
    for arm, recipe in plan.arms.items():
        seeds = [seed for seed in plan.seeds_of(arm) if (arm, seed) not in done]
        if not seeds:
            continue
        own = 0.0
        for group in _groups(recipe, seeds):
            group = [part for part in group if part not in counted]
            counted |= set(group)  # what several arms share trains once
            for part in group:
                key = f"{_step_digest(part)} {plan.data['size']} {classes} {where}"
                if key not in kept:
                    kept[key] = step_seconds(part, tuple(plan.data["size"]), classes)
                own += part.steps * kept[key] / min(cores, len(group))
        slowest = max(slowest, (own, arm))
        seconds += own + START_SECONDS
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(kept, indent=1) + "\n")
    if len(done) == len(plan.runs):
        return "All of these runs are done already."
    told = f" {len(done)} runs are done already and take none of it." if done else ""
    return (
        f"Training takes about {_words(seconds)} on {device_name(device)}, by one timed step of "
        f"each arm; the slowest arm is {slowest[1]} ({_words(slowest[0])}).{told}"
    )


def _failed(plan: Plan) -> set[tuple[str, int]]:
    """Return the runs that the pipeline has tried as they are planned, and that diverged."""
    found = set()
    for arm, recipe in plan.arms.items():
        for seed in plan.seeds_of(arm):
            with contextlib.suppress(OSError, ValueError):
                failed = json.loads((plan.folder(arm, seed) / "failed.json").read_text())
                if Recipe.of(failed["recipe"]) == recipe.changed({"seed": seed}):
                    found.add((arm, seed))
    return found


def _groups(recipe: Recipe, seeds: tuple[int, ...]) -> list[list[Recipe]]:
    """Return the trainings of an arm that this project does, as groups that run at once."""
    own = recipe.training.at_lr(recipe.lr)
    parts = [own]
    if recipe.pretrained.startswith("scenes:"):
        parts.append(pretraining(own))
    if recipe.teacher and not recipe.teacher.startswith("study:"):
        parts.append(teacher_recipe(own))
    groups = [[part.changed({"seed": seed}) for seed in seeds] for part in parts]
    tried = [trial.changed({"seed": seeds[0]}) for trial in trials(recipe).values()]
    if recipe.pretrained.startswith("scenes:"):  # once for each rate
        groups.append([pretraining(trial) for trial in tried])
    return [tried, *groups]


def _step_digest(recipe: Recipe) -> str:
    """Return the digest of what decides a step's time: the recipe without its number of steps."""
    free = {"steps": 1000, "warmup_steps": 0, "lr": 0.001, "pretrained": "",
            "pretrained_part": "encoder", "pretrain_steps": 1000, "seed": 0}  # fmt: skip
    return recipe.changed(free).digest


def _words(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} minutes" if seconds < 6000 else f"{seconds / 3600:.1f} hours"


def step_seconds(recipe: Recipe, size: tuple[int, int], classes: int) -> float:
    """Measure one training step of a recipe at an image size, in seconds, on the device at hand.

    Random images stand for the data; a teacher's own training is left out, its forward pass is not.
    On the CPU the step runs on one core, as it does beside the other seeds of its arm; there a step
    of many pixels is told from one of few, so that a plan made for a GPU can be made anywhere.
    """
    threads = torch.get_num_threads()
    pixels = recipe.batch_size * size[0] * size[1]
    if default_device().type == "cpu" and pixels > MOST_PIXELS:
        smaller = tuple(max(side // 3, 128) for side in size)
        kept = {"ohem_kept": min(recipe.ohem_kept, 1000)} if recipe.ohem_threshold < 1 else {}
        few = recipe.changed({"batch_size": 2, **kept})
        share = 2 * smaller[0] * smaller[1] / pixels
        return step_seconds(few, smaller, classes) / share
    device, n = default_device(), 2 * recipe.batch_size
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (n, 3, *size), np.uint8)
    labels = rng.integers(0, classes, (n, *size), np.uint8)
    names, colours = tuple(map(str, range(classes))), ((0, 0, 0),) * classes
    scenes = Scenes(images, labels, ("",) * n, ("",) * n, names, colours, "")
    few = dataclasses.replace(
        scenes, images=scenes.images[:1], labels=scenes.labels[:1], names=("",)
    )
    teacher = None
    if recipe.teacher and not recipe.teacher.startswith("study:"):
        teacher = make_network(teacher_recipe(recipe), classes).to(device).eval()
    elif recipe.teacher:
        recipe = recipe.changed({"teacher": "", "distill_weight": 0.0, "distill_temperature": 4.0})
    plain = {"pretrained": "", "pretrained_part": "encoder", "pretrain_steps": 1000}
    # near zero, a learning rate cannot make the loss infinite without the recipe's warm-up
    short = recipe.training.changed({**plain, "warmup_steps": 0, "lr": 1e-9})
    torch.set_num_threads(1)
    try:
        taken = []
        for steps in (1, 2, 6):  # the first steps are slow: only those after them count
            _, _, seconds = train(
                short.changed({"steps": steps}), scenes, few, device=device, teacher=teacher,
                say=lambda _: None,
            )  # fmt: skip
            taken.append(seconds)
    finally:
        torch.set_num_threads(threads)
    return max(taken[2] - taken[1], 0.0) / 4
