"""Makes the folder of a new study: a checked data set with the embedded study's recipes."""

import json
import os
import shutil
from pathlib import Path

from roadseg.config import paths
from roadseg.config.questions import check_name
from roadseg.config.study import EMBEDDED
from roadseg.data.check import Summary, inspect
from roadseg.data.datasets import open_folder, recognise
from roadseg.errors import InputError

MOST_PIXELS = 180 * 240  # of an image, in a study that two CPU cores can train
HEAD = """\
# Made by: python -m roadseg start {name} ...
# After a change: make report STUDY={name}. How long that takes: python -m roadseg plan {name}.
study: "{name}"
title: "Road scenes: {name}"
root: ../..
folder: {folder}

data:
  source: {kind}
  path: {path}
  size:  # height, width in pixels; most files have {files}
    - {height}
    - {width}
  block: {block}  # neighbouring video frames that a bootstrap keeps together

"""

TRICKS = "# Tricks of this study alone, or at another strength than in the project's tricks.yaml.\n"
NETWORKS = "# Networks of this study alone.\n"
REMARKS = "- Recipes and tricks are the embedded study's; nothing was tuned.\n"


def start(name: str, data: Path) -> tuple[Path, Summary]:
    """Check a data set and write `studies/NAME`: what is asked, and the pipeline.

    Seeds, recipes and questions are the embedded study's. The image size is the most frequent
    one of the files, made smaller where that has more than 180 x 240 pixels, in whole fours, and at
    least 64 each way.

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
    kind, summary = recognise(data), inspect(open_folder(data))
    (height, width), _ = summary.sizes.most_common(1)[0]
    smaller = min(1.0, (MOST_PIXELS / (height * width)) ** 0.5)
    size = [max(64, 4 * round(smaller * side / 4)) for side in (height, width)]
    splits = summary.source.splits.values()
    video = any(len({item.sequence for item in items}) < len(items) for items in splits)
    data = Path(os.path.abspath(data))  # links stay: they are how this machine names its disks
    text = HEAD.format(
        name=name, folder=f"studies/{name}", kind=kind, height=size[0], width=size[1],
        files=f"{height} x {width}", block=10 if video else 1,
        path=json.dumps(
            str(data.relative_to(paths.ROOT) if data.is_relative_to(paths.ROOT) else data),
            ensure_ascii=False,
        ),
    )  # fmt: skip
    embedded = (paths.ROOT / "params.yaml").read_text()
    work = target.with_name(f".{name}.partial")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    try:
        (work / "params.yaml").write_text(text + embedded[embedded.index("\nseeds:") + 1 :])
        (work / "tricks.yaml").write_text(TRICKS)
        (work / "networks.yaml").write_text(NETWORKS)
        (work / "remarks.md").write_text(REMARKS)
        shutil.copy(paths.ROOT / "dvc.yaml", work)
        work.rename(target)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
    return target, summary
