"""Files that appear whole or not at all, and where those lie that can be made again."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import psutil

from roadseg.config import paths
from roadseg.errors import InputError


def work_folder() -> Path:
    """Return the folder of finished runs and checkpoints, which all studies share.

    Where DVC works in a copy of the project (`dvc exp run --temp`, `dvc queue`), it is that of the
    project itself.
    """
    return Path(os.environ.get("DVC_ROOT") or paths.ROOT) / "work"


@contextlib.contextmanager
def written(folder: Path) -> Iterator[Path]:
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
