"""Makes the folder of a new study: a checked data set with the embedded study's recipes."""

import json
import os
import shutil
from pathlib import Path

from roadseg.config import study
from roadseg.data.check import Summary, inspect
from roadseg.data.datasets import open_folder, recognise
from roadseg.errors import InputError

MOST_PIXELS = 180 * 240  # of an image, in a study that two CPU cores can train
HEAD = """\
# Made by: python -m roadseg start {name} ...
# After a change: python -m roadseg plan {folder}/params.yaml, then make report STUDY={name}.
study: "{name}"
title: "Road scenes: {name}"

# Where the pipeline finds its files.
root: ../..
params: {folder}/params.yaml
plan: {folder}/plan.yaml

data:
  source: {kind}
  path: {path}
  size: {size}                # height, width in pixels; most files have {files}
  block: {block}                       # neighbouring video frames that a bootstrap keeps together

"""


def start(name: str, data: Path) -> tuple[Path, Summary]:
    """Check a data set and write `studies/NAME` with params.yaml, plan.yaml and dvc.yaml.

    Seeds, recipes, tricks and studies are the embedded study's. The image size is the most frequent
    one of the files, made smaller where that has more than 180 x 240 pixels, in whole fours, and at
    least 64 each way.

    Returns
    -------
    The new folder, and what the data set holds

    Raises
    ------
    InputError : the name cannot name a folder, the study exists already, or the data are not good
    """
    study.check_name("study", name)
    target = study.ROOT / "studies" / name
    if target.exists() or name.lower() == "synthetic":
        raise InputError(f"studies/{name}: exists already; choose another name, or remove it.")
    if not str(data).isprintable():
        raise InputError(f"{ascii(str(data))}: cannot be printed, and so not written into a file.")
    kind, summary = recognise(data), inspect(open_folder(data))
    (height, width), _ = summary.sizes.most_common(1)[0]
    smaller = min(1.0, (MOST_PIXELS / (height * width)) ** 0.5)
    size = [max(64, 4 * round(smaller * side / 4)) for side in (height, width)]
    splits = summary.source.splits.values()
    video = any(len({item.sequence for item in items}) < len(items) for items in splits)
    data = Path(os.path.abspath(data))  # links stay: they are how this machine names its disks
    text = HEAD.format(
        name=name, folder=f"studies/{name}", kind=kind, size=size, files=f"{height} x {width}",
        path=json.dumps(
            str(data.relative_to(study.ROOT) if data.is_relative_to(study.ROOT) else data),
            ensure_ascii=False,
        ),
        block=10 if video else 1,
    )  # fmt: skip
    embedded = (study.ROOT / "params.yaml").read_text()
    seeds, rest = embedded.index("\nseeds:") + 1, embedded.index("\n# Every run starts")
    text += embedded[seeds : embedded.index("\n", seeds)] + "\n\n"
    text += 'remarks:\n  - "Recipes and tricks are the embedded study\'s; nothing was tuned."\n'
    work = target.with_name(f".{name}.partial")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    try:
        (work / "params.yaml").write_text(text + embedded[rest:])
        shutil.copy(study.ROOT / "dvc.yaml", work)
        plan = study.load((work / "params.yaml").relative_to(study.ROOT))
        (work / "plan.yaml").write_text(plan.text())
        work.rename(target)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
    return target, summary
