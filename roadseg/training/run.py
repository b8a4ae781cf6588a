"""A run, from recipe to record: what it starts from, its scores, and all seeds of an arm at once.

From the inside out: `trained` finds what the loop starts from (weights, a teacher), or that an
equal training is done already; `run` scores the result and keeps it; `search_lr` chooses a learning
rate, and `run_all` runs each seed of an arm with it.
"""

import contextlib
import dataclasses
import datetime
import hashlib
import io
import json
import multiprocessing
import os
import pickle
import platform
import shutil
import signal
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import torch
from torch import Tensor

from roadseg.config.paths import ROOT
from roadseg.config.recipe import DEFAULTS, Recipe
from roadseg.data import synthetic
from roadseg.data.scenes import CITYSCAPES, UNLABELLED, Scenes, check_unchanged, stamp
from roadseg.errors import InputError
from roadseg.models.build import WHOLE, Segmenter, check_hub, check_name, load_encoder, on_meta
from roadseg.training import metrics
from roadseg.training.checkpoints import Checkpoints
from roadseg.training.energy import spending
from roadseg.training.loop import (
    Diverged,
    default_device,
    device_name,
    evaluate,
    make_network,
    peak_memory,
    precision_on,
    train,
)
from roadseg.training.weights import start_digest, weights_file

# Forked, a process starts at once; imports take longer than many a training.
CONTEXT = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
SHARED = "_shared"  # in `work/`, what all studies may take; no study can have this name
SCENES_SEED = 1_000_003  # of scenes drawn for pre-training, which no study's own scenes share


@dataclass(frozen=True)
class Record:
    """What one run left behind.

    Attributes
    ----------
    recipe : the settings
    about : digest, data digest, device, versions, precision, seconds, memory
    curve : one row per epoch: step, loss (mean, nats per pixel), lr, val_miou (where it was taken)
    counts : 'val' and 'test', int64 (N, K, K) per image
    boundary : of test, int64 (N, 3, K) per image, see `metrics.boundary_sums`
    reliability : of test, float64 (3, BINS), see `metrics.reliability`
    """

    recipe: Recipe
    about: dict
    curve: pd.DataFrame
    counts: dict[str, np.ndarray]
    boundary: np.ndarray
    reliability: np.ndarray

    @classmethod
    def read(cls, folder: Path) -> "Record":
        """Read a record; the InputError of a missing one says how to make it."""
        if not (folder / "record.json").is_file():
            raise InputError(f"{folder}: holds no finished run. Run 'make report' first.")
        record = json.loads((folder / "record.json").read_text())
        with np.load(folder / "counts.npz") as counts:
            counts = {split: counts[split].astype(np.int64) for split in counts.files}
        boundary = counts.pop("boundary")
        curve = pd.read_csv(folder / "curve.csv")
        reliability = np.loadtxt(folder / "reliability.csv", delimiter=",", skiprows=1).T
        recipe = Recipe.of(record["recipe"])
        return cls(recipe, record["about"], curve, counts, boundary, reliability)


@dataclass(frozen=True)
class Trained:
    """A network whose training is over, with its curve, and what the record says about both."""

    network: Segmenter
    curve: pd.DataFrame
    about: dict


def trained(
    recipe: Recipe,
    splits: dict[str, Scenes],
    device: torch.device,
    *,
    runs: Path,
    keep: bool = False,
    say: Callable[[str], None] = print,
) -> Trained:
    """Train a recipe with what it starts from, or take the weights of an equal training.

    Trainings are equal when code, data, device, versions and the recipe, apart from what only
    testing sees, are: with multi-scale testing or without, the network is trained once. Its saved
    states and its result are kept in `work/`, for a run that is stopped; DVC removes a stage's own
    folder before it begins again. Results that others start from have a place that all share.

    Parameters
    ----------
    recipe : the run's settings; its learning rate is taken as it is, without a search
    splits : 'train' and 'val'
    device : where it runs
    runs : folder of the study's finished runs, whose weights may be taken
    keep : whether to keep the result where other studies look too

    Raises
    ------
    InputError : the weights or the teacher it asks for are not there or do not fit, it needs more
        memory than there is, or another process trains it
    Diverged : its loss is not finite any more
    KeyboardInterrupt : it was asked to stop, and has saved its state
    """
    recipe = recipe.training.at_lr(recipe.lr)
    about = _settings(recipe, splits["train"], device)
    key = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:12]
    kept = ROOT / "work" / (SHARED if keep else runs.parent.name) / key
    with Checkpoints(kept, key, say) as checkpoints:
        for place in [*(file.parent for file in sorted(runs.glob("*/s*/record.json"))), kept]:
            if (found := _taken(place, key, recipe, splits["train"], device)) is not None:
                name = found.about["weights_of"]
                why = "an equal training" if name else "done before"
                say(f"weights of {name or key}: {why}")
                return found

        before = []

        def train_first(recipe: Recipe, splits: dict[str, Scenes] = splits) -> Segmenter:
            """Train what this recipe starts from, for others to find too."""
            try:
                before.append(trained(recipe, splits, device, runs=runs, keep=True, say=say))
            except Diverged as problem:
                raise Diverged(f"{recipe.architecture}, trained before it: {problem}") from None
            return before[-1].network

        start, teacher = None, None
        if recipe.pretrained:
            start = start_weights(recipe, splits["train"], train_first, say)
        if recipe.teacher:
            teacher = teach(recipe, len(splits["train"].classes), train_first, say)
            teacher = teacher.to(device, memory_format=torch.channels_last).eval()
        try:
            with _enough_memory(recipe, splits["train"]):
                network, curve, seconds = train(
                    recipe, splits["train"], splits["val"], device=device, start=start,
                    teacher=teacher, checkpoints=checkpoints, say=say,
                )  # fmt: skip
        except Diverged:  # a state of it may be spoilt already, and no change of settings wants it
            shutil.rmtree(kept, ignore_errors=True)
            raise
        spent = sum(t.about["seconds"] + t.about["start_seconds"] for t in before)
        about |= {
            "training": key,
            "weights_of": "",
            "seconds": round(seconds, 2),
            "start_seconds": round(spent, 2),
            "images_per_second": round(recipe.steps * recipe.batch_size / seconds, 2),
            "peak_memory_mib": peak_memory(device),
            "python": platform.python_version(),
            "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        }
        found = Trained(network, curve, about)
        try:
            with _written(kept) as work:
                _keep(found, recipe, work)
        except InputError as problem:  # the run's own folder may have room
            say(str(problem))
    return found


@contextlib.contextmanager
def _enough_memory(recipe: Recipe, scenes: Scenes) -> Iterator[None]:
    """Turn a want of memory into an InputError that says what to lower."""
    try:
        yield
    except (MemoryError, RuntimeError) as problem:
        of_memory = isinstance(problem, MemoryError | torch.OutOfMemoryError)
        if not of_memory and "can't allocate memory" not in str(problem):
            raise
        height, width = scenes.labels.shape[1:]
        raise InputError(
            f"out of memory with batch_size {recipe.batch_size} and images of {height} x {width}: "
            "lower batch_size, or data: size."
        ) from None


def _settings(recipe: Recipe, scenes: Scenes, device: torch.device) -> dict:
    """Return all that decides a training, apart from chance."""
    modules = (
        "config/recipe", "data/scenes", "data/synthetic", "models/build", "models/realtime",
        "training/augment", "training/batches", "training/checkpoints", "training/energy",
        "training/loop", "training/losses", "training/metrics", "training/run", "training/weights",
    )  # fmt: skip
    code = hashlib.sha256()
    for module in modules:
        code.update((Path(__file__).parents[1] / f"{module}.py").read_bytes())
    height, width = scenes.labels.shape[1:]
    return {
        "digest": recipe.digest,
        "data_digest": scenes.digest,
        "train_images": len(scenes),
        "height": height,
        "width": width,
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "precision": precision_on(device, recipe.precision),
        "code": code.hexdigest()[:12],
        "start": start_digest(recipe),
        **{name: version(name) for name in ("torch", "segmentation-models-pytorch", "timm")},
    }


def _taken(
    folder: Path, key: str, recipe: Recipe, scenes: Scenes, device: torch.device
) -> Trained | None:
    """Return the training that `folder` keeps if it is the one of this key, else None."""
    try:
        about = json.loads((folder / "record.json").read_text())["about"]
        if about.get("training") != key:
            return None
        if hashlib.sha256((folder / "weights.pt").read_bytes()).hexdigest() != about["weights"]:
            return None  # altered
        weights = torch.load(folder / "weights.pt", weights_only=True, map_location="cpu")
        curve = pd.read_csv(folder / "curve.csv")
    except (OSError, ValueError, KeyError, RuntimeError, EOFError, pickle.UnpicklingError):
        return None  # being written, or half removed: train again
    network = make_network(recipe, len(scenes.classes))
    network.load_state_dict(weights)
    if folder.name.startswith("s"):  # a finished run; else it is this one's own, from before a stop
        about["weights_of"] = about["weights_of"] or f"{folder.parent.name}-{folder.name}"
    return Trained(network.to(device, memory_format=torch.channels_last).eval(), curve, about)


def start_weights(
    recipe: Recipe,
    scenes: Scenes,
    train_first: Callable[[Recipe, dict[str, Scenes]], Segmenter],
    say: Callable[[str], None],
) -> Callable[[Segmenter], None]:
    """Return what puts a recipe's pre-trained weights into its new network.

    'scenes:N' trains the same network first, by `pretrain_steps` steps of Adam with the poly
    schedule, on N road scenes drawn for that; 'study:NAME/ARM' and 'file:PATH' read weights that
    this project or torch.save wrote; 'hub:NAME' asks segmentation-models-pytorch for its encoder's
    published weights of that name, and may download them.

    Parameters
    ----------
    recipe : one that is pre-trained
    scenes : what it will learn from then
    train_first : trains a recipe on 'train' and 'val'

    Raises
    ------
    InputError : the weights are not there, or do not fit the network
    """
    kind, _, rest = recipe.pretrained.partition(":")
    if kind == "hub":
        return lambda network: load_encoder(network, rest, recipe.network)
    if kind == "scenes":
        if recipe.pretrained_part == "network" and scenes.classes != tuple(CITYSCAPES):
            raise InputError(
                "pretrained: drawn scenes have the classes of Cityscapes, these data have others: "
                "set pretrained_part: encoder."
            )
        drawn, plain = drawn_scenes(int(rest), scenes.labels.shape[1:]), pretraining(recipe)
        say(f"pre-training: {plain.steps} steps on {len(drawn)} drawn scenes")
        few = dataclasses.replace(
            drawn, images=drawn.images[:8], labels=drawn.labels[:8], names=drawn.names[:8]
        )
        donor = train_first(plain, {"train": drawn, "val": few})
        weights = {name: value.cpu() for name, value in donor.state_dict().items()}
    else:
        file = weights_file(recipe.pretrained, recipe.seed)
        try:
            weights = torch.load(file, weights_only=True, map_location="cpu")
        except Exception as problem:  # of many kinds, for a file that is no such archive
            raise InputError(
                f"pretrained: {recipe.pretrained}: cannot be read as weights "
                f"({type(problem).__name__}); it must be a state dict that torch.save wrote."
            ) from None
        if not isinstance(weights, dict) or not all(map(torch.is_tensor, weights.values())):
            raise InputError(
                f"pretrained: {recipe.pretrained}: holds {type(weights).__name__}, no weights by "
                "name; save a network's or an encoder's state_dict()."
            )
    return lambda network: load_part(network, weights, recipe.pretrained_part, recipe.pretrained)


def pretraining(recipe: Recipe) -> Recipe:
    """Return the recipe that trains a recipe's network on drawn scenes first."""
    return Recipe(
        seed=recipe.seed, network=recipe.network, batch_norm=recipe.batch_norm,
        residual=recipe.residual, steps=recipe.pretrain_steps, batch_size=recipe.batch_size,
        lr=recipe.lr, schedule="poly", precision=recipe.precision,
    )  # fmt: skip


def load_part(network: Segmenter, weights: dict[str, Tensor], part: str, source: str) -> None:
    """Put a state dict into a network: all of it, or what its encoder finds there.

    Raises
    ------
    InputError : a weight is missing or has another shape; `source` is named
    """
    wanted = network.state_dict()
    if part == "encoder":
        parts = getattr(network.body, "encoder_parts", ("encoder.",))
        parts = tuple(f"body.{part}" for part in parts)
        if not any(name.startswith(parts) for name in weights):  # an encoder's own state dict
            weights = {parts[0] + name: value for name, value in weights.items()}
        wanted = {name: value for name, value in wanted.items() if name.startswith(parts)}
    else:  # an auxiliary head starts anew where the source has none
        wanted = {
            name: value for name, value in wanted.items()
            if name in weights or not name.startswith("auxiliary.")
        }  # fmt: skip
    unfit = [n for n, v in wanted.items() if n not in weights or weights[n].shape != v.shape]
    if unfit:
        raise InputError(
            f"pretrained: {source}: {len(unfit)} of the {len(wanted)} weights of the {part} are "
            f"missing there or have another shape, {unfit[0]} first; it must come from the same "
            "network" + (" and classes." if part == "network" else "'s encoder.")
        )
    network.load_state_dict({name: weights[name] for name in wanted}, strict=False)


def drawn_scenes(n: int, size: tuple[int, int]) -> Scenes:
    """Return N drawn road scenes of a size, (height, width), from `work/` if they are there."""
    content = Path(synthetic.__file__).read_bytes() + repr((n, tuple(size), SCENES_SEED)).encode()
    digest = hashlib.sha256(content).hexdigest()
    folder = ROOT / "work" / SHARED / f"scenes-{digest[:12]}"
    if not (folder / "labels.npy").is_file():
        with (
            _written(folder) as work,
            ProcessPoolExecutor(os.cpu_count(), CONTEXT) as pool,
        ):
            images, labels = (
                np.lib.format.open_memmap(work / file, "w+", np.uint8, shape)
                for file, shape in (("images.npy", (n, 3, *size)), ("labels.npy", (n, *size)))
            )
            one = partial(synthetic.scene, SCENES_SEED, size=tuple(size))
            for index, (image, classes) in enumerate(pool.map(one, range(n))):
                images[index], labels[index] = image.transpose(2, 0, 1), classes
    names = tuple(f"drawn-{i}" for i in range(n))
    images, labels = (
        np.load(folder / f"{kind}.npy", mmap_mode="r") for kind in ("images", "labels")
    )
    classes, colours = tuple(CITYSCAPES), tuple(CITYSCAPES.values())
    return Scenes(images, labels, names, names, classes, colours, digest)


def teach(
    recipe: Recipe,
    classes: int,
    train_first: Callable[[Recipe], Segmenter],
    say: Callable[[str], None],
) -> Segmenter:
    """Return the trained network that a recipe learns from.

    'study:NAME/ARM' is that arm's. A network's name is that network trained by `teacher_recipe`.

    Parameters
    ----------
    recipe : one with a teacher
    classes : number of classes K
    train_first : trains a recipe on the student's scenes

    Raises
    ------
    InputError : the teacher is not there, or knows another number of classes
    """
    if not recipe.teacher.startswith("study:"):
        say(f"the teacher, {recipe.teacher}:")
        return train_first(teacher_recipe(recipe))
    file = weights_file(recipe.teacher, recipe.seed)
    own = Recipe.of(json.loads((file.parent / "record.json").read_text())["recipe"])
    network = make_network(own, classes)
    weights = torch.load(file, weights_only=True, map_location="cpu")
    load_part(network, weights, "network", recipe.teacher)
    return network


def check_start(recipe: Recipe) -> None:
    """Raise InputError unless what a recipe starts from is there: files, names, teachers."""
    kind, _, name = recipe.pretrained.partition(":")
    try:
        if kind in ("file", "study"):
            weights_file(recipe.pretrained, recipe.seed)
        elif kind == "hub":
            check_hub(name, recipe.network)
        whole = recipe.network.split(":")[0] in WHOLE
        if recipe.pretrained and whole and recipe.pretrained_part == "encoder":
            raise InputError(
                f"{recipe.network!r} has no encoder apart from the rest; set pretrained_part: "
                "network, or leave it out."
            )
    except InputError as problem:
        raise InputError(f"pretrained: {problem}") from None
    if not recipe.teacher:
        return
    try:
        if recipe.teacher.startswith("study:"):
            weights_file(recipe.teacher, recipe.seed)
        else:
            check_name(recipe.teacher)
            on_meta(partial(make_network, teacher_recipe(recipe), 2))
    except InputError as problem:
        raise InputError(f"teacher: {problem}") from None
    if recipe.teacher == recipe.network:
        raise InputError(f"teacher: {recipe.teacher!r} is the network itself; name a larger one.")


def teacher_recipe(recipe: Recipe) -> Recipe:
    """Return the recipe of a teacher that is given as a network's name.

    It is the student's, seed included, without distillation and without what belongs to the
    student's network: changes of its layers, and weights that are not pre-trained on drawn scenes.
    """
    neutral = ["teacher", "distill_weight", "distill_temperature", "dropout", "batch_norm",
               "residual"]  # fmt: skip
    if not recipe.pretrained.startswith("scenes:"):
        neutral += ["pretrained", "pretrained_part", "pretrain_steps"]
    return recipe.changed({"network": recipe.teacher, **{name: DEFAULTS[name] for name in neutral}})


def run(
    recipe: Recipe,
    prepared: Path,
    folder: Path,
    *,
    lr: float | None = None,
    device: torch.device | None = None,
    say: Callable[[str], None] = print,
) -> Record:
    """Train one recipe on prepared scenes, score it once on val and test, and write its record.

    Parameters
    ----------
    recipe : the run's settings
    prepared : folder of the prepared scenes
    folder : receives record.json, curve.csv, counts.npz, reliability.csv, predictions.npz (test,
        uint8 (N, H, W)) and weights.pt; it appears when all of them are written, an old one is
        replaced then. Finished runs beside its parent may give their weights, see `trained`
    lr : the learning rate that a search chose, else the recipe's own

    Raises
    ------
    InputError, KeyboardInterrupt : as `trained` does; or a file cannot be written
    Diverged : its loss is not finite any more; `folder` then holds failed.json alone, which says so
    """
    device = device or default_device()
    splits = {split: Scenes.load(prepared, split) for split in ("train", "val", "test")}
    files = stamp(*splits.values())
    say(f"{recipe.architecture}, {recipe.steps} steps, on {device_name(device)}")
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    lr = lr or recipe.lr
    try:
        found = trained(recipe.at_lr(lr), splits, device, runs=folder.parent.parent, say=say)
    except Diverged as problem:
        _write_failure(recipe, folder, problem)
        raise
    network = found.network
    own = {"digest": recipe.digest, "lr_used": lr}
    sums, boundary = np.zeros((3, metrics.BINS)), []

    def kept(keep, best: Tensor, confidence: Tensor, labels: Tensor) -> None:
        keep(best.to(torch.uint8).cpu().numpy())
        labelled = labels != UNLABELLED
        right = (best == labels)[labelled].cpu().numpy()
        sums[:] += metrics.reliability(confidence[labelled].cpu().numpy(), right)
        boundary.append(metrics.boundary_sums(best, labels, len(splits["test"].classes)).cpu())

    with _written(folder) as work:
        _keep(dataclasses.replace(found, about=found.about | own), recipe, work)
        with (
            _array_in(work / "predictions.npz", "test", splits["test"].labels.shape) as keep,
            _enough_memory(recipe, splits["test"]),
        ):
            scored = {
                "val": evaluate(network, splits["val"], device, recipe),
                "test": evaluate(network, splits["test"], device, recipe, partial(kept, keep)),
                "boundary": torch.cat(boundary).numpy(),
            }
        np.savez_compressed(
            work / "counts.npz", **{split: c.astype(np.int32) for split, c in scored.items()}
        )
        header = "pixels,right,confidence"
        np.savetxt(work / "reliability.csv", sums.T, "%.9g", ",", header=header, comments="")
        check_unchanged(files, *splits.values())
    return Record.read(folder)


def _write_failure(recipe: Recipe, folder: Path, problem: Diverged) -> None:
    with _written(folder) as work:
        content = {"recipe": dataclasses.asdict(recipe), "why": str(problem)}
        (work / "failed.json").write_text(json.dumps(content, indent=1) + "\n")


@contextlib.contextmanager
def _written(folder: Path) -> Iterator[Path]:
    """Give a folder to write into; at the end it takes the place of `folder`, as a whole.

    What a process that was killed left of an earlier one is removed.

    Raises
    ------
    InputError : it cannot be written
    """
    work = folder.with_name(f"{folder.name}.{os.getpid()}.partial")
    for left in folder.parent.glob(f"{folder.name}.*.partial"):
        if left == work or not psutil.pid_exists(int(left.name.split(".")[-2])):
            shutil.rmtree(left, ignore_errors=True)
    try:
        work.mkdir(parents=True)
        yield work
        shutil.rmtree(folder, ignore_errors=True)
        work.rename(folder)
    except OSError as problem:
        raise InputError(
            f"{folder}: cannot be written ({problem.strerror or problem}). Make room, or let it be "
            "written there, and call again: it goes on from what is in work/."
        ) from None
    finally:
        shutil.rmtree(work, ignore_errors=True)


@contextlib.contextmanager
def _array_in(
    file: Path, name: str, shape: tuple[int, ...]
) -> Iterator[Callable[[np.ndarray], object]]:
    """Give what appends rows to an array uint8 of a new .npz file, which need not fit in memory."""
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    with (
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open(f"{name}.npy", "w", force_zip64=True) as array,
    ):
        np.lib.format.write_array_header_1_0(array, header)
        yield lambda rows: array.write(rows.tobytes())


def _keep(found: Trained, recipe: Recipe, folder: Path) -> None:
    """Write record, curve and weights of a training."""
    found.curve.to_csv(folder / "curve.csv", index=False)
    packed = io.BytesIO()  # torch's own writer calls a full disk an internal error
    torch.save(found.network.state_dict(), packed)
    (folder / "weights.pt").write_bytes(packed.getbuffer())
    about = found.about | {"weights": hashlib.sha256(packed.getbuffer()).hexdigest()}
    content = {"recipe": dataclasses.asdict(recipe), "about": about}
    (folder / "record.json").write_text(json.dumps(content, indent=1) + "\n")


def run_all(
    recipes: list[Recipe],
    prepared: Path,
    folder: Path,
    *,
    device: torch.device | None = None,
    say: Callable[[str], None] = print,
) -> list[Record | None]:
    """Do `run` for the seeds of one arm; the record of seed 2 goes into `folder`/s2.

    If the recipe asks for it, the first seed's search chooses the learning rate of all, and its
    scores go into `folder`/search.csv. What this call took goes into `folder`/spent.json: seconds,
    and joules where a driver tells them.

    Returns
    -------
    The records; None for each run whose loss did not stay finite, which is a result as well

    Raises
    ------
    InputError : a run's own, with its seed; or a process was killed
    """
    device = device or default_device()
    with spending(device) as spent:
        records = _all_seeds(recipes, prepared, folder, device, say)
    (folder / "spent.json").write_text(json.dumps(spent) + "\n")
    return records


def _all_seeds(
    recipes: list[Recipe],
    prepared: Path,
    folder: Path,
    device: torch.device,
    say: Callable[[str], None],
) -> list[Record | None]:
    kind, _, n = recipes[0].pretrained.partition(":")
    if kind == "scenes":  # once, before each process would draw them
        drawn_scenes(int(n), Scenes.load(prepared, "train").labels.shape[1:])
    lr = None
    if trials(recipes[0]):
        try:
            table = search_lr(recipes[0], prepared, folder.parent, device=device, say=say)
        except Diverged as problem:
            say(str(problem))
            for recipe in recipes:
                _write_failure(recipe, folder / f"s{recipe.seed}", problem)
            return [None] * len(recipes)
        lr = float(table.loc[table["val_miou"].idxmax(), "lr"])
        say(f"the search's choice: lr {lr:g}")
        folder.mkdir(parents=True, exist_ok=True)
        table.to_csv(folder / "search.csv", index=False)
    jobs = [
        partial(_run_or_failure, recipe, prepared, folder / f"s{recipe.seed}", lr, device)
        for recipe in recipes
    ]
    return _at_once(
        {f"seed {r.seed}": job for r, job in zip(recipes, jobs, strict=True)}, device, say
    )


def _run_or_failure(
    recipe: Recipe,
    prepared: Path,
    folder: Path,
    lr: float | None,
    device: torch.device,
    say: Callable[[str], None],
) -> Record | None:
    try:
        return run(recipe, prepared, folder, lr=lr, device=device, say=say)
    except Diverged as problem:
        say(str(problem))
        return None


def trials(recipe: Recipe) -> dict[float, Recipe]:
    """Return each learning rate of a recipe's search, ascending, and the training that tries it.

    Its warm-up is shortened as the training is, so that the schedule keeps its shape.
    """
    if recipe.lr_search == DEFAULTS["lr_search"]:
        return {}
    steps = recipe.lr_search_steps
    warmup = min(round(recipe.warmup_steps * steps / recipe.steps), steps - 1)
    short = dataclasses.replace(recipe.training, steps=steps, warmup_steps=warmup)
    rates = sorted(float(f"{recipe.lr * factor:.6g}") for factor in recipe.lr_search)
    return {lr: short.at_lr(lr) for lr in rates}


def search_lr(
    recipe: Recipe,
    prepared: Path,
    runs: Path,
    *,
    device: torch.device,
    say: Callable[[str], None] = print,
) -> pd.DataFrame:
    """Try the learning rates of a recipe in short trainings, and score them on val.

    Parameters
    ----------
    recipe : one with trials; its seed is theirs
    prepared : folder of the prepared scenes
    runs : folder of the study's finished runs, see `trained`

    Returns
    -------
    one row per trial, lr ascending: lr, steps, val_miou (after the last step; NaN where the loss
    was not finite), seconds

    Raises
    ------
    Diverged : the loss was finite at none of them
    """
    jobs = {
        f"lr {lr:g}": partial(_trial, trial, prepared, runs, device)
        for lr, trial in trials(recipe).items()
    }
    scores = _at_once(jobs, device, say)
    table = pd.DataFrame(
        [
            {"lr": lr, "steps": trial.steps, "val_miou": score, "seconds": seconds}
            for (lr, trial), (score, seconds) in zip(trials(recipe).items(), scores, strict=True)
        ]
    )
    if table["val_miou"].isna().all():
        raise Diverged(
            f"lr_search: the loss is finite at none of {', '.join(f'{lr:g}' for lr in table.lr)}; "
            "lower lr, or add smaller factors."
        )
    return table


def _trial(
    recipe: Recipe, prepared: Path, runs: Path, device: torch.device, say: Callable[[str], None]
) -> tuple[float, float]:
    """Return the val mIoU that a short training ends with, and its seconds."""
    splits = {split: Scenes.load(prepared, split) for split in ("train", "val")}
    try:
        found = trained(recipe, splits, device, runs=runs, say=say)
    except Diverged as problem:
        say(str(problem))
        return float("nan"), float("nan")
    seconds = found.about["seconds"] + found.about["start_seconds"]
    return float(found.curve["val_miou"].iloc[-1]), round(seconds, 2)


def _at_once(jobs: dict[str, Callable], device: torch.device, say: Callable[[str], None]) -> list:
    """Return the results of jobs, in their order; each is called with `say` and a prefix.

    On a GPU one after the other. On the CPU at the same time, in processes that share its cores:
    small networks do not fill several cores, and a network of one core gives the same numbers
    whatever runs beside it.
    """
    if device.type == "cuda" or len(jobs) == 1:
        return [job(say=_prefixed(name, say)) for name, job in jobs.items()]
    cores = torch.get_num_threads()
    workers = len(jobs) if len(jobs) <= 2 * cores else cores
    lines = CONTEXT.SimpleQueue()
    printer = threading.Thread(target=lambda: [say(line) for line in iter(lines.get, None)])
    printer.start()
    try:
        with ProcessPoolExecutor(
            workers, CONTEXT, initializer=_join, initargs=(lines, max(1, cores // workers))
        ) as pool:
            doing = [pool.submit(_in_process, name, job) for name, job in jobs.items()]
            try:
                wait(doing)
            except BaseException:
                for process in multiprocessing.active_children():
                    process.terminate()  # which saves its state first
                pool.shutdown(cancel_futures=True)
                raise
    finally:
        lines.put(None)
        printer.join()
    return _all_or_message(dict(zip(jobs, doing, strict=True)))


def _all_or_message(done: dict[str, Future]) -> list:
    """Return the results of jobs that have ended, or raise one InputError for all that failed."""
    failed = {name: problem for name, job in done.items() if (problem := job.exception())}
    if not failed:
        return [job.result() for job in done.values()]
    if any(isinstance(problem, KeyboardInterrupt) for problem in failed.values()):
        raise KeyboardInterrupt
    for problem in failed.values():
        if isinstance(problem, BrokenProcessPool):
            raise InputError(
                "a training process was killed, most often for want of memory (lower batch_size "
                "or data: size, or train fewer seeds at once), or since a data file was cut short. "
                "Called again, each seed goes on from its last saved state."
            ) from None
        if not isinstance(problem, InputError):
            raise problem
    told = [f"{name}: {problem}" for name, problem in failed.items()]
    if len(done) > len(failed):
        told.append(f"The others came to their end and need no training again ({len(failed)} of "
                    f"{len(done)} failed).")  # fmt: skip
    raise InputError("\n".join(told))


def _prefixed(name: str, say: Callable[[str], None]) -> Callable[[str], None]:
    return lambda line: say(f"{name}  {line}")


def _join(lines, threads: int) -> None:
    """Make this process one of several that train: fewer threads, lines to the parent.

    Ctrl-C is the parent's to pass on. If the parent is killed, this one saves its state and ends.
    """
    torch.set_num_threads(threads)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _in_process.lines, _in_process.stopped = lines, False


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60)  # for the state to be saved
    os._exit(1)


def _in_process(name: str, job: Callable):
    if _in_process.stopped:  # a job that was on its way when the process was asked to stop
        raise KeyboardInterrupt
    try:
        return job(say=_prefixed(name, _in_process.lines.put))
    except KeyboardInterrupt:
        if not multiprocessing.parent_process().is_alive():  # nobody to tell
            os._exit(1)
        _in_process.stopped = True
        raise
