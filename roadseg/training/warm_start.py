"""Where a training starts from: pre-training, weights in files and of other studies, a teacher."""

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from roadseg import code
from roadseg.config import paths
from roadseg.config.recipe import DEFAULTS, Recipe
from roadseg.data import synthetic
from roadseg.data.scenes import CITYSCAPES, Scenes
from roadseg.errors import InputError
from roadseg.models.build import WITHOUT_ENCODER, check_name, on_meta
from roadseg.models.freeze import freeze
from roadseg.models.pretrained import (
    check_published,
    encoder_of,
    file_digest,
    load_encoder,
    packaged_file,
)
from roadseg.models.segmenter import Segmenter
from roadseg.training.files import atomic_folder, work_folder
from roadseg.training.loop import make_network, parameter_groups

SCENES_SEED = 1_000_003  # of scenes drawn for pre-training, which no study's own scenes share


def starting_point(
    recipe: Recipe,
    scenes: Scenes,
    device: torch.device,
    train_first: Callable[..., Segmenter],
    say: Callable[[str], None],
) -> tuple[Callable[[Segmenter], None] | None, Segmenter | None]:
    """Return what puts a recipe's first weights into its network, and its teacher in eval mode.

    Either is None where the recipe has none.

    Parameters
    ----------
    scenes : what it will learn from
    train_first : trains a recipe on 'train' and 'val', if given, else on those of `recipe`

    Raises
    ------
    InputError : weights or teacher are not there, or do not fit
    """
    start, teacher = None, None
    if recipe.pretrained:
        start = start_weights(recipe, scenes, train_first, say)
    if recipe.teacher:
        teacher = load_teacher(recipe, len(scenes.classes), train_first, say)
        teacher = teacher.to(device, memory_format=torch.channels_last).eval()
    return start, teacher


def start_weights(
    recipe: Recipe,
    scenes: Scenes,
    train_first: Callable[[Recipe, dict[str, Scenes]], Segmenter],
    say: Callable[[str], None],
) -> Callable[[Segmenter], None]:
    """Return what puts a recipe's pre-trained weights into its new network.

    'scenes:N' trains the same network first, by `pretrain_steps` steps of Adam with the poly
    schedule, on N road scenes drawn for that; 'study:NAME/ARM' and 'file:PATH' read weights that
    this project or torch.save wrote; 'imagenet' and 'hub:NAME' are the encoder's published weights,
    see `models.pretrained`.

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
    if kind in ("imagenet", "hub"):
        return lambda network: load_encoder(network, recipe.pretrained, recipe.network)
    if kind == "scenes":
        if recipe.pretrained_part == "network" and scenes.classes != tuple(CITYSCAPES):
            raise InputError(
                "pretrained: drawn scenes have the classes of Cityscapes, these data have others: "
                "set pretrained_part: encoder."
            )
        splits, first_recipe = (
            pretraining_scenes(recipe, scenes.labels.shape[1:]),
            pretraining(recipe),
        )
        say(f"pre-training: {first_recipe.steps} steps on {rest} synthetic scenes")
        donor = train_first(first_recipe, splits)
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


def pretraining_scenes(recipe: Recipe, size: tuple[int, int]) -> dict[str, Scenes]:
    """Return the scenes that a recipe's network is trained on first, and a few for its curve."""
    scenes = synthetic_scenes(int(recipe.pretrained.partition(":")[2]), size)
    few = dataclasses.replace(
        scenes, images=scenes.images[:8], labels=scenes.labels[:8], names=scenes.names[:8]
    )
    return {"train": scenes, "val": few}


def load_part(network: Segmenter, weights: dict[str, Tensor], part: str, source: str) -> None:
    """Put a state dict into a network: all of it, or what its encoder finds there.

    Raises
    ------
    InputError : a weight is missing or has another shape; `source` is named
    """
    expected = network.state_dict()
    if part == "encoder":
        parts = getattr(network.body, "encoder_parts", ("encoder.",))
        parts = tuple(f"body.{part}" for part in parts)
        if not any(name.startswith(parts) for name in weights):  # an encoder's own state dict
            weights = {parts[0] + name: value for name, value in weights.items()}
        normalisation = [name for name in ("mean", "std") if name in weights]
        parts = (*parts, *normalisation)
        expected = {name: value for name, value in expected.items() if name.startswith(parts)}
    else:  # an auxiliary head starts anew where the source has none, normalisation is ImageNet's
        expected = {
            name: value for name, value in expected.items()
            if name in weights or not name.startswith(("auxiliary.", "mean", "std"))
        }  # fmt: skip
    mismatched = [n for n, v in expected.items() if n not in weights or weights[n].shape != v.shape]
    if mismatched:
        raise InputError(
            f"pretrained: {source}: {len(mismatched)} of the {len(expected)} weights of the {part} "
            f"are missing there or have another shape, {mismatched[0]} first; it must come from "
            "the same network" + (" and classes." if part == "network" else "'s encoder.")
        )
    network.load_state_dict({name: weights[name] for name in expected}, strict=False)


def synthetic_scenes(n: int, size: tuple[int, int]) -> Scenes:
    """Return N synthetic road scenes of a size, (height, width), from `work/` if they are there."""
    digest, folder = _synthetic_digest(n, size), synthetic_folder(n, size)
    if not (folder / "labels.npy").is_file():
        with atomic_folder(folder) as work, ProcessPoolExecutor(os.cpu_count()) as pool:
            images, labels = (
                np.lib.format.open_memmap(work / file, "w+", np.uint8, shape)
                for file, shape in (("images.npy", (n, 3, *size)), ("labels.npy", (n, *size)))
            )
            draw_scene = partial(synthetic.scene, SCENES_SEED, size=tuple(size))
            for index, (image, classes) in enumerate(pool.map(draw_scene, range(n))):
                images[index], labels[index] = image.transpose(2, 0, 1), classes
    names = tuple(f"drawn-{i}" for i in range(n))
    images, labels = (
        np.load(folder / f"{kind}.npy", mmap_mode="r") for kind in ("images", "labels")
    )
    classes, colours = tuple(CITYSCAPES), tuple(CITYSCAPES.values())
    return Scenes(images, labels, names, names, classes, colours, digest)


def synthetic_folder(n: int, size: tuple[int, int]) -> Path:
    """Return where N drawn scenes of a size lie, or will."""
    return work_folder() / f"scenes-{_synthetic_digest(n, size)[:12]}"


def _synthetic_digest(n: int, size: tuple[int, int]) -> str:
    content = f"{code.digest('roadseg.data.synthetic')} {n} {tuple(size)} {SCENES_SEED}"
    return hashlib.sha256(content.encode()).hexdigest()


def load_teacher(
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
    arm_recipe = Recipe.of(json.loads((file.parent / "record.json").read_text())["recipe"])
    network = make_network(arm_recipe, classes)
    weights = torch.load(file, weights_only=True, map_location="cpu")
    load_part(network, weights, "network", recipe.teacher)
    return network


def check_start(recipe: Recipe) -> None:
    """Raise InputError unless what a recipe starts from is there: files, names, teachers."""
    kind = recipe.pretrained.partition(":")[0]
    try:
        if kind in ("file", "study"):
            weights_file(recipe.pretrained, recipe.seed)
        elif kind in ("imagenet", "hub"):
            check_published(recipe.pretrained, recipe.network)
        has_no_encoder = recipe.network.split(":")[0] in WITHOUT_ENCODER
        if recipe.pretrained and has_no_encoder and recipe.pretrained_part == "encoder":
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
            teacher = teacher_recipe(recipe)
            check_build(teacher)
            check_start(teacher)
    except InputError as problem:
        raise InputError(f"teacher: {problem}") from None
    if recipe.teacher == recipe.network:
        raise InputError(f"teacher: {recipe.teacher!r} is the network itself; name a larger one.")


def check_build(recipe: Recipe) -> None:
    """Build a recipe's network as training does, with shapes alone.

    Raises
    ------
    InputError : it has no such parts as the recipe asks for
    Exception : of any kind, a library's own
    """
    network = on_meta(partial(make_network, recipe, 2))
    freeze(network, recipe.freeze_stages, recipe.freeze_norm)
    parameter_groups(network, recipe)


def teacher_recipe(recipe: Recipe) -> Recipe:
    """Return the recipe of a teacher that is given as a network's name.

    It is the student's, seed included, without distillation and without what belongs to the
    student's network: changes of its layers, and weights that are neither pre-trained on drawn
    scenes nor ImageNet's.
    """
    neutral = ["teacher", "distill_weight", "distill_temperature", "dropout", "batch_norm",
               "residual"]  # fmt: skip
    if not recipe.pretrained.startswith(("scenes:", "imagenet")):
        neutral += [
            "pretrained", "pretrained_part", "pretrain_steps", "freeze_stages", "freeze_norm",
            "encoder_lr",
        ]  # fmt: skip
    return recipe.changed({"network": recipe.teacher, **{name: DEFAULTS[name] for name in neutral}})


def weights_file(source: str, seed: int) -> Path:
    """Return the file that 'file:PATH' or 'study:NAME/ARM' stands for.

    Of another study's arm it is the run of the same seed.

    Raises
    ------
    InputError : there is no such file
    """
    kind, _, name = source.partition(":")
    if kind == "file":
        file = paths.ROOT / name
        if not file.is_file():
            raise InputError(f"{source}: no such file. Paths start at the project's root.")
        return file
    study, _, arm = name.partition("/")
    folders = [folder for folder in _run_folders(study) if folder.parent.name == arm]
    for folder in folders:  # equal ones, whatever question asks
        if folder.name != f"s{seed}":
            continue
        if (folder / "weights.pt").is_file():
            return folder / "weights.pt"
        if (folder / "failed.json").is_file():
            why = json.loads((folder / "failed.json").read_text())["why"]
            raise InputError(f"{source}: its seed {seed} failed: {why}")
    seeds = sorted({int(f.name[1:]) for f in folders if (f / "weights.pt").is_file()})
    if seeds:
        raise InputError(
            f"{source}: has no run of seed {seed}, only of {', '.join(map(str, seeds))}. Train it "
            f"with that seed too, so that seeds stay independent."
        )
    known = sorted({f.parent.name for f in _run_folders(study) if (f / "weights.pt").is_file()})
    available = f"It has: {', '.join(known)}." if known else "It has none."
    raise InputError(
        f"{source}: study {study!r} has no trained arm {arm!r}. {available} "
        f"Run 'make report STUDY={study}' first."
    )


def _run_folders(study: str) -> list[Path]:
    """Return the folders of a study's runs: QUESTION/ARM/sSEED of the finished questions."""
    runs = paths.ROOT / "build" / study / "runs"
    # QUESTION.PID.partial is a copy under way
    return [f for f in sorted(runs.glob("[!.]*/*/s*")) if "." not in f.parent.parent.name]


def start_digest(recipe: Recipe) -> str:
    """Return digests of the files that a recipe starts from, in order; '' if there are none.

    Raises
    ------
    InputError : such a file is not there
    """
    files = [
        weights_file(source, recipe.seed)
        for source in (recipe.pretrained, recipe.teacher)
        if source.startswith(("file:", "study:"))
    ]
    digests = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    if recipe.pretrained == "imagenet":
        networks = [recipe.network]
        if recipe.teacher and not recipe.teacher.startswith("study:"):
            networks.append(recipe.teacher)
        packaged = [packaged_file(encoder_of(network)) for network in networks]
        digests += [file_digest(file) for file in packaged if file]
    return " ".join(digest[:12] for digest in digests)
