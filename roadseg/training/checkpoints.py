"""Saved states of a training: what lets it go on after a stop, and one process at a time do it."""

import contextlib
import datetime
import hashlib
import json
import os
import pickle
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import torch
from filelock import FileLock, Timeout

from roadseg.training.files import unwritable

MIN_PAUSE = 15.0  # seconds from one saved state to the next, at least
MAX_SAVE_SHARE = 0.02  # of the time that saving may take; large networks are saved less often


class Checkpoints:
    """The newest two saved states of one training; and, as a context, the right to train it.

    Entering waits for another process that has the right.

    A file has its step and its checksum in its name and takes that name when it is whole, so a
    process may be killed at any moment. Within the context, Ctrl-C and SIGTERM wait for the next
    call of `save`, and end the training there or, at the latest, when the context is left.

    Parameters
    ----------
    folder : where the files lie, made when needed; FOLDER.lock is beside it
    key : names the training; states of another one are not its own
    say : receives a line for each state that is skipped or could not be written

    Raises
    ------
    InputError : on entering: the folder cannot be written
    KeyboardInterrupt : from `save` and on leaving: the process was asked to stop
    """

    def __init__(self, folder: Path, key: str, say: Callable[[str], None] = print):
        self.folder, self.key, self.say = folder, key, say
        self.stop_requested = False  # to stop
        self._saved, self._save_seconds = time.monotonic(), 0.0
        self._lock = FileLock(f"{folder}.lock", timeout=0)
        self._owner = folder.with_name(f"{folder.name}.owner")
        self._handlers = {}

    def __enter__(self) -> "Checkpoints":
        try:
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._lock.acquire()
            except Timeout:
                self.say(self._busy())
                self._lock.acquire(timeout=-1)
            this_process = psutil.Process()
            self._owner.write_text(
                json.dumps({"pid": this_process.pid, "started": this_process.create_time()})
            )
        except OSError as problem:
            self._lock.release()
            raise unwritable(self.folder.parent, problem) from None
        if threading.current_thread() is threading.main_thread():  # others cannot set handlers
            for number in (signal.SIGINT, signal.SIGTERM):
                self._handlers[number] = signal.signal(number, self._request_stop)
        return self

    def __exit__(self, kind, *_) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler or signal.SIG_DFL)
        self._owner.unlink(missing_ok=True)
        self._lock.release()
        if self.stop_requested and kind is None:
            raise KeyboardInterrupt

    def _request_stop(self, *_) -> None:
        self.stop_requested = True

    def _busy(self) -> str:
        """Return who is training, in words."""
        try:
            owner = json.loads(self._owner.read_text())
            since = datetime.datetime.fromtimestamp(owner["started"]).isoformat(" ", "seconds")
            if os.getpgid(owner["pid"]) == os.getpgid(0):
                return "waits for another run of this question, which trains this already"
            return (
                f"waits for process {owner['pid']}, started {since}, which trains this already "
                f"(kill {owner['pid']} stops it; it saves its state)"
            )
        except (OSError, ValueError, KeyError, TypeError):  # it has only just begun
            return "waits for another process, which trains this already"

    @property
    def due(self) -> bool:
        """Whether the time for another state has come, or the training is to stop."""
        pause = max(MIN_PAUSE, self._save_seconds / MAX_SAVE_SHARE)
        return self.stop_requested or time.monotonic() - self._saved >= pause

    def save(self, step: int, state: dict) -> None:
        """Write the state after so many steps, and keep the one before it.

        A state that cannot be written is told, and does not end the training.

        Parameters
        ----------
        state : name -> what `torch.load(weights_only=True)` takes
        """
        began = time.monotonic()
        partial = self.folder / f"{os.getpid()}.partial"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with open(partial, "w+b") as file:
                torch.save({"key": self.key, "step": step, **state}, file)
                file.flush()
                os.fsync(file.fileno())
                file.seek(0)
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            new = self.folder / f"step-{step:07d}-{digest[:16]}.pt"
            partial.replace(new)
            # By time, not by step: those that were skipped may have later steps.
            others = [file for file in self._files() if file != new]
            for old in sorted(others, key=lambda file: file.stat().st_mtime)[:-1]:
                old.unlink(missing_ok=True)
        except (OSError, RuntimeError) as problem:  # torch's own, for a disk that is full
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
            why = getattr(problem, "strerror", None) or str(problem).splitlines()[0]
            self.say(
                f"step {step}: its state cannot be saved in {self.folder} ({why}). The training "
                "goes on; if it is stopped before the next state, it goes on from the last one."
            )
        self._saved = time.monotonic()
        self._save_seconds = self._saved - began
        if self.stop_requested:
            self.say(f"stopped at step {step}; the next call goes on from there")
            raise KeyboardInterrupt

    def newest(self) -> dict | None:
        """Return the newest state that is whole, or None; each that is not is told."""
        for file in self._files():
            problem = None
            try:
                with open(file, "rb") as content:
                    digest = hashlib.file_digest(content, "sha256").hexdigest()
                if digest[:16] != file.stem.rpartition("-")[2]:
                    problem = "is not what was saved: cut short or altered"
                else:
                    state = torch.load(file, weights_only=True, map_location="cpu")
                    if state["key"] == self.key:
                        return state
                    problem = "is of another training"
            except (OSError, RuntimeError, EOFError, KeyError, TypeError) as error:
                problem = f"cannot be read ({type(error).__name__})"
            except pickle.UnpicklingError:
                problem = "holds more than numbers, which is not loaded"
            self.say(f"{file}: {problem}; skipped")
        return None

    def _files(self) -> list[Path]:
        """Return the saved states, the newest first."""
        return sorted(self.folder.glob("step-*-*.pt"), reverse=True)
