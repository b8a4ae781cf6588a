"""Faults of the whole pipeline, as they happen: signals, dead processes, disks, data that change.

All slow: `make test-slow` runs them and writes docs/reliability.md.
"""

import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import psutil
import pytest
import torch
from conftest import call, ran, replace, surroundings

from roadseg.report.notebooks import CHAPTERS

pytestmark = pytest.mark.slow
STEPS = 300
QUESTIONS = """\
questions:
  heads:
    asks: Which?
    networks:
      - baseline
      - fcn-8s

  ladder:
    asks: What for?
    start: fcn-8s
    ladder:
      - augmentation
"""
NETWORKS = """\
baseline:
  network: baseline:0.05
fcn-8s:
  network: fcn8s:tu-test_resnet
"""
ARMS = {"heads": ("baseline", "fcn-8s"), "ladder": ("fcn-8s", "with-augmentation")}
SEEDS = (0, 1)
TRAININGS = 6  # fcn-8s is asked for twice
BUILD = "build/synthetic"


@pytest.fixture(scope="module")
def study(clone) -> Path:
    """The clone with two questions, whose trainings take some seconds; its data prepared."""
    params = clone / "params.yaml"
    params.write_text(params.read_text().partition("questions:\n")[0] + QUESTIONS)
    (clone / "networks.yaml").write_text(NETWORKS)
    for file, old, new in (
        ("params.yaml", "  steps: 4\n", f"  steps: {STEPS}\n"),
        ("params.yaml", "seeds:\n  - 0\n", "seeds:\n  - 0\n  - 1\n"),
        ("params.yaml", "train: 6\n", "train: 24\n"),
        # seconds between states: short enough for such trainings
        ("roadseg/training/checkpoints.py", "MIN_PAUSE = 15.0", "MIN_PAUSE = 0.5"),
        ("roadseg/training/checkpoints.py", "SHARE = 0.02", "SHARE = 0.2"),
    ):
        replace(clone / file, old, new)
    prepared = call(clone, "dvc", "repro", "prepare")
    assert prepared.returncode == 0, prepared.stdout + prepared.stderr
    return clone


UNRELATED = {os.getpid()}


@pytest.fixture(scope="module", autouse=True)
def terminal(study):
    """A process in the project's folder that has nothing to do with the pipeline."""
    process = subprocess.Popen(["sleep", "7200"], cwd=study, start_new_session=True)
    UNRELATED.add(process.pid)
    yield process
    process.kill()
    process.wait()


@pytest.fixture(scope="module")
def whole(study, tmp_path_factory) -> SimpleNamespace:
    """What the pipeline comes to if nothing stops it: weights, counts and scores of all runs."""
    clear(study)
    result = call(study, "dvc", "repro")
    assert result.returncode == 0, result.stdout + result.stderr
    assert ran(result) == {"train@heads", "train@ladder", "results", "chapters", "report"}
    kept = tmp_path_factory.mktemp("whole")
    for folder in ("work", f"{BUILD}/runs"):
        shutil.copytree(study / folder, kept / folder)
    reference = SimpleNamespace(**outcome(study), kept=kept)
    clear(study)
    return reference


@pytest.fixture
def fresh(study, terminal):
    """Nothing trained, nothing running; at the end nothing is left, and nothing else was ended."""
    clear(study)
    yield study
    kill(started_here(study))
    clear(study)
    assert terminal.poll() is None


def clear(study) -> None:
    for folder in ("runs", "trained", "executed"):
        shutil.rmtree(study / BUILD / folder, ignore_errors=True)
    for folder in ("work", "results", "reports", ".dvc/cache/runs"):
        shutil.rmtree(study / folder, ignore_errors=True)
    (study / ".dvc/tmp/rwlock").unlink(missing_ok=True)
    lock = (study / "dvc.lock").read_text()
    (study / "dvc.lock").write_text(
        re.sub(r"(?m)^  (train@\w+|results|chapters|report):\n(    .*\n)*", "", lock)
    )


def outcome(study) -> dict:
    """The weights and counts of all runs, and their scores in the tables."""
    weights, counts = {}, {}
    for question, arms in ARMS.items():
        for name in (f"{question}/{arm}/s{seed}" for arm in arms for seed in SEEDS):
            folder = study / BUILD / "runs" / name
            weights[name] = torch.load(folder / "weights.pt", weights_only=True)
            with np.load(folder / "counts.npz") as stored:
                counts[name] = stored["test"]
    file = study / "results/synthetic/tables/runs.csv"
    scores = pd.read_csv(file)[["run", "val_miou", "test_miou"]] if file.is_file() else None
    return {"weights": weights, "counts": counts, "scores": scores}


def assert_whole(study, whole, *, report: bool = False) -> None:
    """All is as if nothing had been stopped, to the last bit, and nothing half-done is left."""
    result = SimpleNamespace(**outcome(study))
    for name, expected in whole.weights.items():
        assert list(result.weights[name]) == list(expected)
        assert all(torch.equal(result.weights[name][key], expected[key]) for key in expected), name
        np.testing.assert_array_equal(result.counts[name], whole.counts[name])
    if report:
        pd.testing.assert_frame_equal(result.scores, whole.scores)
        assert (study / "reports/synthetic/report.html").is_file()
        assert "are up to date" in call(study, "dvc", "repro").stdout
    assert len(finished(study)) == TRAININGS
    assert not states(study) and not halves(study)


def finished(study) -> list[Path]:
    """The trainings that the run store has."""
    return [f.parent for f in study.glob("work/runs/*/training.json") if "." not in f.parent.name]


def states(study) -> set[Path]:
    """The trainings that have saved states."""
    return {file.parent for file in study.glob("work/runs/*/step-*.pt")}


def halves(study) -> list[Path]:
    """What was begun to be written, and is not whole."""
    folders = ("work", "build", "results", "reports")
    return [file for folder in folders for file in (study / folder).rglob("*.partial")]


def started_here(study) -> list[psutil.Process]:
    """All processes that work in the clone."""
    processes = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.pid not in UNRELATED and Path(process.cwd()).is_relative_to(study):
                processes.append(process)
    return processes


def kill(processes) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes, timeout=20)


def mend(study) -> None:
    """Remove DVC's table of locks if it is no JSON, as `make report` does.

    DVC writes it in place; killed in that moment, it leaves an empty file and refuses to work.
    """
    file = study / ".dvc/tmp/rwlock"
    try:
        json.loads(file.read_text())
    except FileNotFoundError:
        return
    except ValueError:
        file.unlink()


def wait_for(reached, seconds: float = 60):
    """Return what becomes true within some seconds."""
    deadline = time.monotonic() + seconds
    while not (value := reached()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return value


def below(pid: int) -> list[psutil.Process]:
    """All processes that a process began, and these began, parents first."""
    return psutil.Process(pid).children(recursive=True)


class Begun:
    """A command that was begun in the clone, as a terminal does it, and all that is printed below it."""

    def __init__(self, study, *command):
        self.study = study
        self.file = study.parent / f"{len(list(study.parent.glob('*.log')))}.log"
        with open(self.file, "w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-u", "-m", *command], cwd=study, stdout=log,
                stderr=subprocess.STDOUT, start_new_session=True, env=surroundings(PYTHONUNBUFFERED="1"),
            )  # fmt: skip
        self.pid = self.process.pid

    @property
    def text(self) -> str:
        return self.file.read_text()

    def until(self, pattern, seconds: float = 240) -> re.Match:
        def reached():
            if self.process.poll() is None:
                return re.search(pattern, self.text, re.M)
            match = re.search(pattern, self.text, re.M)
            assert match, self.text
            return match

        return wait_for(reached, seconds)

    def press(self) -> str:
        """Press Ctrl-C: the kernel is in a group of its own. Return what had been printed."""
        before = self.text
        os.killpg(self.pid, signal.SIGINT)
        return before

    def kernel(self) -> psutil.Process | None:
        """The kernel of the one notebook that is executed: the first of all that are its copies."""
        for process in below(self.pid):
            with contextlib.suppress(psutil.Error):
                if "ipykernel" in " ".join(process.cmdline()):
                    return process
        return None

    def end(self, seconds: float = 240) -> tuple[int, str]:
        self.process.wait(seconds)
        return self.process.returncode, self.text


def nothing_left(study, seconds: float = 20) -> None:
    wait_for(lambda: not started_here(study), seconds)


def owners(study) -> dict[int, Path]:
    """The processes that train now, each with its training."""
    folders = {}
    for file in study.glob("work/runs/*.owner"):
        with contextlib.suppress(OSError, ValueError):  # it is written now, or gone
            folders[json.loads(file.read_text())["pid"]] = file.with_suffix("")
    return folders


def begun_trainings(*logs: str) -> Counter:
    """How often the training of each run was begun, or gone on with."""
    return Counter(run for log in logs for run in re.findall(rf"(?m)^(\S+)  .*, {STEPS} steps, on ", log))


TRAIN = ("dvc", "repro", "train@heads", "train@ladder")  # in this order, which else is DVC's
HEADS = ("roadseg", "train", "synthetic", "heads")
TRAINS = r"^baseline-s0  epoch +3/"


# Killed ------------------------------------------------------------------------------------------


def test_killed_at_random_dvc_repro_comes_to_the_same_weights(fresh, whole, tell):
    chance, landed, logs = random.Random(5), 0, ""
    while landed < 10:
        begun = Begun(fresh, "dvc", "repro")
        with contextlib.suppress(subprocess.TimeoutExpired):
            begun.process.wait(chance.uniform(0.5, 18))
        logs += begun.text
        if begun.process.poll() is not None:  # it had come to its end
            assert begun.process.returncode == 0, begun.text
            clear(fresh)
            continue
        landed += 1
        while processes := started_here(fresh):  # in any order, and what is begun meanwhile too
            chance.shuffle(processes)
            kill(processes)
        mend(fresh)
    status, out = Begun(fresh, "dvc", "repro").end(600)
    assert status == 0, out
    assert "goes on after step" in logs + out and "Traceback" not in out
    assert_whole(fresh, whole, report=True)
    tell("Resume", "SIGKILL to dvc repro and all below it at a random moment", landed,
         "the next dvc repro comes to equal weights, bit for bit, and to equal tables")  # fmt: skip


def test_dvc_killed_alone_leaves_a_training_that_nobody_doubles(fresh, whole, tell):
    first = Begun(fresh, *TRAIN)
    first.until(TRAINS)
    first.process.kill()
    first.process.wait()
    orphans = started_here(fresh)
    for orphan in orphans:  # so that it is not done before the next one comes
        orphan.suspend()
    second = Begun(fresh, *TRAIN)
    waits = r"^\S+  waits for process (\d+), started \S+ \S+, which trains this already"
    match = second.until(waits)
    assert int(match[1]) in [orphan.pid for orphan in orphans]
    for orphan in orphans:
        orphan.resume()
    status, out = second.end()
    assert status == 0, out
    nothing_left(fresh, 60)
    assert "Traceback" not in first.text + out
    assert set(begun_trainings(first.text, out).values()) == {1}
    assert_whole(fresh, whole)
    tell("Resume", "dvc killed alone, and called again beside its orphan", 1,
         "waits for it, with its process and start; no run is trained twice; equal weights")  # fmt: skip


def test_the_driver_killed_takes_its_kernel_and_processes_along(fresh, whole, tell):
    begun = Begun(fresh, *TRAIN)
    begun.until(TRAINS)
    (driver,) = [p for p in below(begun.pid)
                 if p.cmdline()[-3:] == ["train", "synthetic", "heads"] and "-m" in p.cmdline()]  # fmt: skip
    training = set(owners(fresh).values())
    assert len(training) == 2
    before = begun.text
    driver.kill()
    status, out = begun.end(60)
    assert status != 0 and "Running stage" not in out[len(before) :]
    nothing_left(fresh)
    assert states(fresh) == training  # both have saved theirs
    status, out = Begun(fresh, *TRAIN).end()
    assert status == 0 and len(re.findall(r"goes on after step \d+", out)) == 2, out
    assert_whole(fresh, whole)
    tell("Resume", "roadseg train killed alone", 1,
         "kernel and runs end by themselves; the runs save first")  # fmt: skip


# Stopped -----------------------------------------------------------------------------------------

MOMENTS = [  # stage, seconds after it was begun: the kernel starts, imports, trains
    *(("train@", after) for after in (0.1, 0.6, 1.2, 1.8, 2.5, 3.5, 5.0, 7.0)), ("results", 1.0),
    ("results", 5.0), ("chapters", 0.8), ("chapters", 2.0), ("chapters", 6.0), ("report", 0.3),
]  # fmt: skip


def test_control_c_at_any_moment(fresh, whole, tell):
    for stage, after in MOMENTS:
        begun = Begun(fresh, "dvc", "repro")
        begun.until(f"^Running stage '{stage}")
        time.sleep(after)
        training = set(owners(fresh).values())
        pressed, before = time.monotonic(), begun.press()
        try:
            status, out = begun.end(30)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{stage}, {after} s: goes on for 30 s\n{begun.text}") from None
        assert status != 0 and time.monotonic() - pressed < 15, (stage, after, out)
        assert "Running stage" not in out[len(before) :], (stage, after, out)
        nothing_left(fresh, 10)
        assert training - set(finished(fresh)) <= states(fresh), (stage, after, out)
    status, out = Begun(fresh, "dvc", "repro").end(600)
    assert status == 0, out
    assert_whole(fresh, whole, report=True)
    tell("Resume", "Ctrl-C during dvc repro: kernels, tables, chapters, report", len(MOMENTS),
         "ends within seconds, no further stage, no process left; equal weights and tables")  # fmt: skip


def test_two_questions_at_once_train_each_run_once(fresh, whole, tell):
    calls = [Begun(fresh, "roadseg", "train", "synthetic", name) for name in ARMS]
    most = 0
    while any(each.process.poll() is None for each in calls):
        most = max([most, *Counter(owners(fresh).values()).values()])
        time.sleep(0.2)
    logs = [each.end()[1] for each in calls]
    assert [each.process.returncode for each in calls] == [0, 0], "\n".join(logs)
    counts = begun_trainings(*logs)
    assert set(counts.values()) == {1} and len(counts) == TRAININGS and most == 1
    assert Begun(fresh, *TRAIN).end()[0] == 0
    assert_whole(fresh, whole)
    tell("Resume", "two processes on the same runs", 1,
         "each run is trained once; the other process waits for it")  # fmt: skip


# Data and disks ----------------------------------------------------------------------------------


FULL = ("-t", "tmpfs", "-o", "size=64k", "tmpfs")
@pytest.fixture
def mounted(study):
    """Puts a small or read-only disk on a folder of the clone."""
    places = []

    def mount(folder, *options):
        place = study / folder
        place.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(["mount", *options, str(place)], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"the right to mount is needed: {done.stderr}")
        places.append(place)
        return place

    def unmount():
        while places:
            subprocess.run(["umount", "-l", places.pop()], check=True)

    mount.end = unmount
    yield mount
    unmount()


@pytest.fixture
def trained(fresh, whole):
    """The clone with all runs, as `whole` has them, without training them again."""
    shutil.copytree(whole.kept, fresh, dirs_exist_ok=True)
    return fresh


@pytest.mark.parametrize("folder", ["results/synthetic", f"{BUILD}/executed", "reports/synthetic"])
def test_a_full_disk_for_tables_chapters_and_report(trained, mounted, folder, tell):
    if "results" not in folder:
        assert call(trained, "roadseg", "results", "synthetic").returncode == 0
    if "reports" in folder:
        executed = trained / BUILD / "executed"
        executed.mkdir(parents=True, exist_ok=True)
        for name in (*CHAPTERS, "report"):
            shutil.copy(trained / f"notebooks/{name}.ipynb", executed)
    place = mounted(folder, *FULL)
    (place / "filler").write_bytes(b"x" * 60_000)
    command = {"results": "results", "build": "chapters", "reports": "report"}[folder.split("/")[0]]
    result = call(trained, "roadseg", command, "synthetic")
    assert result.returncode == 2 and "No space left on device" in result.stderr
    assert "Traceback" not in result.stderr
    left = {file.name for file in place.rglob("*") if file.is_file()}
    assert {name for name in left if not name.endswith(".failed.ipynb")} == {"filler"}
    nothing_left(trained, 5)
    tell("Faults", f"a full disk at {folder.split('/')[0]}", 1,
         "one message, status 2; nothing half-written")  # fmt: skip
