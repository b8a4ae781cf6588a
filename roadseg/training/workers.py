"""Jobs in processes of their own, one thread each, as many at a time as there are cores."""

import contextlib
import math
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, wait

import torch

from roadseg.errors import InputError
from roadseg.training.loop import Diverged

# Forked, a process starts at once; imports take longer than many a training.
CONTEXT = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
KILLED = (
    "its process was killed, most often for want of memory (lower batch_size or data: size), or "
    "since a data file was cut short. Called again, it goes on from its last saved state."
)
Say = Callable[[str], None]


@dataclass(frozen=True)
class Outcome:
    """How a job ended: 'done', with what it returned; 'diverged' or 'failed', with why."""

    how: str
    value: object


def run_jobs(
    jobs: dict[str, Callable[[Say], object]],
    device: torch.device,
    say: Say,
    groups: dict[str, str] | None = None,
) -> dict[str, Outcome]:
    """Do jobs and return how each ended; one that fails does not keep the others from being done.

    On a GPU one after the other, in this process. On a CPU as many at a time as it has cores: small
    networks do not fill several, two processes with several threads each wait for one another, and
    a network of one thread comes to the same numbers whatever runs beside it.

    Parameters
    ----------
    jobs : name -> what is called with a function that prints a line under the job's name
    groups : name -> name of a group of jobs that take about as long. Groups of which none has ended
        come first, in the order of `jobs`, then the longest jobs, so that no core is idle at the
        end

    Raises
    ------
    KeyboardInterrupt : when the jobs that ran have saved their state
    """
    if device.type == "cuda":
        return {
            name: _outcome(job, lambda line, name=name: say(f"{name}  {line}"))
            for name, job in jobs.items()
        }
    waiting, running, ended, seconds = dict(jobs), {}, {}, {}
    group = {name: name for name in jobs} | (groups or {})
    try:
        while waiting or running:
            while waiting and len(running) < torch.get_num_threads():
                name = max(waiting, key=lambda name: seconds.get(group[name], math.inf))
                job = waiting.pop(name)
                reader, writer = CONTEXT.Pipe(duplex=False)
                process = CONTEXT.Process(target=_work, args=(job, writer))
                process.start()
                writer.close()  # so that its end is noticed when the process has gone
                running[reader] = (name, process, time.perf_counter())
            for reader in wait(list(running)):
                name, process, began = running[reader]
                try:
                    message = reader.recv()
                except (EOFError, OSError):
                    process.join()
                    del running[reader]
                    ended.setdefault(name, Outcome("failed", KILLED))
                    seconds[group[name]] = time.perf_counter() - began
                    continue
                if isinstance(message, Outcome):
                    ended[name] = message
                else:
                    say(f"{name}  {message}")
    except BaseException:
        with _ignored_interrupts():
            for _, process, _ in running.values():
                process.terminate()  # which saves its state first
            for reader, (name, process, _) in running.items():
                _print_rest(name, reader, say)
                process.join()
        raise
    return {name: ended[name] for name in jobs}


def values_of(jobs: dict[str, Callable[[], object]], device: torch.device) -> dict[str, object]:
    """Do jobs as `run_jobs` does, silently, and return what each returned.

    Where processes are not forked, jobs must be picklable.

    Raises
    ------
    InputError : one failed
    """
    ended = run_jobs({n: partial(_silent, job) for n, job in jobs.items()}, device, lambda _: None)
    for name, outcome in ended.items():
        if outcome.how != "done":
            raise InputError(f"{name}: {outcome.value}")
    return {name: outcome.value for name, outcome in ended.items()}


@contextlib.contextmanager
def _ignored_interrupts() -> Iterator[None]:
    """Let Ctrl-C do nothing; who wants no state to be saved kills this process."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _silent(job: Callable[[], object], _say: Say) -> object:
    return job()


def _print_rest(name: str, reader: Connection, say: Say) -> None:
    with contextlib.suppress(EOFError, OSError):
        while True:
            if isinstance(message := reader.recv(), str):
                say(f"{name}  {message}")


def _outcome(job: Callable[[Say], object], say: Say) -> Outcome:
    try:
        return Outcome("done", job(say))
    except Diverged as problem:
        say(str(problem))
        return Outcome("diverged", str(problem))
    except InputError as problem:
        return Outcome("failed", str(problem))
    except Exception:  # of one job: the others are done all the same
        return Outcome("failed", traceback.format_exc())


def _work(job: Callable[[Say], object], writer: Connection) -> None:
    """Do one job in a process of its own.

    Ctrl-C is the parent's to pass on. If the parent is killed, this one saves its state and ends.
    """
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        writer.send(_outcome(job, writer.send))
    except (KeyboardInterrupt, BrokenPipeError):  # stopped, or nobody reads any more
        return


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os.kill(os.getpid(), signal.SIGTERM)
