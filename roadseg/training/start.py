"""Makes the folder of a new study: a checked data set, and a recipe for the machine at hand."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
from ruamel.yaml import YAML

from roadseg.config import paths
from roadseg.config.questions import check_name
from roadseg.config.recipe import Recipe
from roadseg.config.study import EMBEDDED
from roadseg.data.check import Summary, header_size, inspect_source, larger_sizes, lost_classes
from roadseg.data.datasets import open_folder, recognise
from roadseg.errors import InputError
from roadseg.training.device import default_device, device_name
from roadseg.training.plan import processes, step_seconds

TEMPLATE = Path(__file__).with_name("new_study.yaml")
MAX_PIXELS = 360 * 480  # of an image; in a short training larger ones cost more than they bring
# Shares of that size's sides, the first that leaves time for enough steps.
SIDE_SHARES = (1.0, 0.75, 0.5)
MIN_SIDE = 64
ENOUGH_STEPS, MIN_STEPS, MAX_EPOCHS = 400, 50, 60
TRICKS = "# Tricks of this study alone, or at another strength than in the project's tricks.yaml.\n"
NETWORKS = "# Networks of this study alone.\n"
REMARKS = "- `start` gives this recipe to any data set; nothing was tuned for this one.\n"


def start(name: str, data: Path, minutes: float = 10) -> tuple[Path, Summary]:
    """Check a data set and write `studies/NAME`: what is asked, and the pipeline.

    Two runs of one recipe, from ImageNet weights. Images have the most frequent size of the files,
    made smaller where that has more than 360 x 480 pixels or training would be too slow, or larger
    where a side has fewer than 64, in whole fours. The number of steps comes from a timed step.

    Parameters
    ----------
    minutes : how long both trainings may take together here

    Returns
    -------
    The new folder, and what the data set holds

    Raises
    ------
    InputError : the name cannot name a folder, the study exists already, or the data are not good
    """
    check_name("study", name)
    target = paths.ROOT / "studies" / name
    if name.lower() == EMBEDDED:
        raise InputError(f"{name}: exists already, as the embedded study; choose another name.")
    if target.exists():
        raise InputError(f"studies/{name}: exists already; choose another name, or remove it.")
    if not str(data).isprintable():
        raise InputError(f"{ascii(str(data))}: cannot be printed, and so not written into a file.")
    if not minutes > 0:
        raise InputError(f"minutes: {minutes:g}; it must be a number > 0.")
    kind, source = recognise(data), open_folder(data)
    files = header_size(source)
    sizes = list(dict.fromkeys(_size(files, share) for share in SIDE_SHARES))
    summary = inspect_source(source, sizes=[*sizes, *larger_sizes(sizes[0])[1:]])
    splits = source.splits
    video = any(len({i.sequence for i in items}) < len(items) for items in splits.values())
    data = Path(os.path.abspath(data))  # links stay: they are how this machine names its disks
    template, device = TEMPLATE.read_text(), default_device()
    template_values = {
        "name": name, "kind": kind, "files": "{} x {}".format(*files), "block": 10 if video else 1,
        "path": json.dumps(
            str(data.relative_to(paths.ROOT) if data.is_relative_to(paths.ROOT) else data),
            ensure_ascii=False,
        ),
        "device": device_name(device),
    }  # fmt: skip
    placeholders = {"height": 1, "width": 1, "steps": 1000, "epochs": 1, "minutes": 1}
    settings = YAML(typ="safe").load(template.format(**template_values, **placeholders))
    recipe, seeds = Recipe.of(settings["base"]), len(settings["seeds"])
    at_once = min(seeds, processes(device))
    epoch_steps = -(-len(splits["train"]) // recipe.batch_size)
    for size in sizes:
        seconds = step_seconds(recipe, size, len(source.palette), at_once)
        steps = min(60 * minutes * at_once / seeds / seconds, MAX_EPOCHS * epoch_steps)
        if steps >= min(ENOUGH_STEPS, MAX_EPOCHS * epoch_steps):
            break
    if steps < MIN_STEPS:
        min_minutes = MIN_STEPS * seconds * seeds / at_once / 60
        raise InputError(
            f"minutes: {minutes:g} leaves time for {int(steps)} steps, and {MIN_STEPS} are the "
            f"least; give --minutes {np.ceil(10 * min_minutes) / 10:g} or more."
        )
    summary.notes += lost_classes(summary, size)
    steps = 10 * int(steps / 10)
    text = template.format(
        **template_values, height=size[0], width=size[1], steps=steps,
        epochs=f"{steps / epoch_steps:.2g}",
        minutes=f"{steps * seconds * seeds / at_once / 60:.2g}",
    )  # fmt: skip
    work = target.with_name(f".{name}.partial")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    try:
        (work / "params.yaml").write_text(text)
        (work / "tricks.yaml").write_text(TRICKS)
        (work / "networks.yaml").write_text(NETWORKS)
        (work / "remarks.md").write_text(REMARKS)
        shutil.copy(paths.ROOT / "dvc.yaml", work)
        work.rename(target)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
    return target, summary


def _size(files: tuple[int, int], share: float) -> tuple[int, int]:
    """Return the height and width of images whose files have another size."""
    scale = share * min(1.0, (MAX_PIXELS / (files[0] * files[1])) ** 0.5)
    scale = max(scale, MIN_SIDE / min(files))  # of both sides, so that shapes are kept
    height, width = (4 * round(scale * side / 4) for side in files)
    return height, width
