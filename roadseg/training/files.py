"""Files that appear whole or not at all, and where those lie that can be made again."""

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import psutil
from filelock import FileLock

from roadseg.config import paths
from roadseg.errors import InputError


def work_folder() -> Path:
    """Return the folder of finished runs and checkpoints, which all studies share.

    Where DVC works in a copy of the project (`dvc exp run --temp`, `dvc queue`), it is that of the
    project itself.
    """
    return Path(os.environ.get("DVC_ROOT") or paths.ROOT) / "work"


def write_if_changed(file: Path, text: str) -> None:
    """Write a text unless the file has it; replaced, since DVC may keep the old one as a link."""
    if file.is_file() and file.read_text() == text:
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    partial.write_text(text)
    partial.replace(file)


def write_whole(file: Path, content: bytes) -> None:
    """Write a file so that it has all of its content, on the disk, or is as it was before."""
    partial = file.with_name(f"{file.name}.{os.getpid()}.partial")
    try:
        with open(partial, "wb") as opened:
            opened.write(content)
            opened.flush()
            os.fsync(opened.fileno())
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """Give a folder to write into; at the end it takes the place of `folder`, as a whole.

    What a process that was killed left of an earlier one is removed.

    Raises
    ------
    InputError : it cannot be written
    """
    work = folder.with_name(f"{folder.name}.{os.getpid()}.partial")
    shutil.rmtree(work, ignore_errors=True)
    remove_leftovers(folder.parent, f"{folder.name}.*.partial")
    try:
        work.mkdir(parents=True)
        yield work
        _replace_folder(work, folder)
    except OSError as problem:
        raise unwritable(folder, problem) from None
    finally:
        shutil.rmtree(work, ignore_errors=True)


def remove_leftovers(folder: Path, pattern: str) -> int:
    """Remove folders NAME.PID.partial of processes that are gone; return their size in bytes."""
    size = 0
    for leftover in folder.glob(pattern):
        if not psutil.pid_exists(int(leftover.name.split(".")[-2])):
            size += folder_size(leftover)
            shutil.rmtree(leftover, ignore_errors=True)
    return size


def folder_size(folder: Path) -> int:
    """Return the size in bytes of the files of a folder that no other folder links to."""
    files = [file.stat() for file in folder.rglob("*") if file.is_file()]
    return sum(file.st_size for file in files if file.st_nlink == 1)


def _replace_folder(work: Path, folder: Path) -> None:
    """Let a folder take the place of another, whoever else does so at the same time."""
    aside = folder.with_name(f"{folder.name}.old.{os.getpid()}.partial")
    while True:
        with contextlib.suppress(FileNotFoundError):
            folder.rename(aside)
        try:
            work.rename(folder)
            return
        except OSError as problem:
            if problem.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        finally:
            shutil.rmtree(aside, ignore_errors=True)


@contextlib.contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Wait until no other process is in here with this folder; FOLDER.lock is beside it.

    Raises
    ------
    InputError : that cannot be written
    """
    lock = FileLock(f"{folder}.lock")
    try:
        lock.acquire()
    except OSError as problem:
        raise unwritable(lock.lock_file, problem) from None
    try:
        yield
    finally:
        lock.release()


def unwritable(place: Path | str, problem: OSError) -> InputError:
    """Return what is said of a place that cannot be written."""
    return InputError(
        f"{place}: cannot be written ({problem.strerror or problem}). Free disk space, or fix "
        "the permissions, and run it again: it resumes from what is in work/."
    )
