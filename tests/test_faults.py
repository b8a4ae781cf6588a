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


@pytest.fixture(scope="module", autouse=True)
def bystanders(study, tmp_path_factory):
    """Processes that have nothing to do with the pipeline: none of its faults may end them."""
    other = tmp_path_factory.mktemp("other")
    (other / "dvc.yaml").write_text("stages:\n  wait:\n    cmd: sleep 7200\n")
    subprocess.run([sys.executable, "-m", "dvc", "init", "-q", "--no-scm"], cwd=other, check=True)
    commands = {
        "a terminal in the project": (["sleep", "7200"], study),
        "another project": (["sleep", "7200"], other),
        "another project's pipeline": ([sys.executable, "-m", "dvc", "repro"], other),
    }
    running = {
        name: subprocess.Popen(command, cwd=folder, start_new_session=True, stdout=subprocess.DEVNULL)
        for name, (command, folder) in commands.items()
    }  # fmt: skip
    pipeline = psutil.Process(running["another project's pipeline"].pid)
    wait_for(lambda: [c for c in pipeline.children(recursive=True) if c.name() == "sleep"])
    BYSTANDERS.update({name: psutil.Process(p.pid) for name, p in running.items()})
    BYSTANDERS["its stage"] = next(c for c in pipeline.children(recursive=True) if c.name() == "sleep")
    yield
    for process in running.values():
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    BYSTANDERS.clear()


BYSTANDERS: dict[str, psutil.Process] = {}


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
def fresh(study):
    """Nothing trained, nothing running; at the end nothing is left, and no bystander was ended."""
    clear(study)
    yield study
    kill(started_here(study))
    clear(study)
    for name, process in BYSTANDERS.items():
        assert process.is_running() and process.status() != psutil.STATUS_ZOMBIE, name


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
    known, processes = {process.pid for process in BYSTANDERS.values()} | {os.getpid()}, []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.pid not in known and Path(process.cwd()).is_relative_to(study):
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


def summary(log: str) -> list[str]:
    return re.findall(r"(?m)^\d+ runs: .*", log)


def tell(record_property, area, tried, times, outcome):
    record_property("tried", json.dumps([area, tried, times, outcome]))


TRAIN = ("dvc", "repro", "train@heads", "train@ladder")  # in this order, which else is DVC's
HEADS = ("roadseg", "train", "synthetic", "heads")
TRAINS = r"^baseline-s0  epoch +3/"


# Killed ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [5, 6])
def test_killed_at_random_dvc_repro_comes_to_the_same_weights(fresh, whole, seed, record_property):
    chance, landed, logs = random.Random(seed), 0, ""
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
    begun = Begun(fresh, "dvc", "repro")
    status, out = begun.end(600)
    assert status == 0, out
    assert "goes on after step" in logs + out and "Traceback" not in out
    assert_whole(fresh, whole, report=True)
    tell(record_property, "Resume", "SIGKILL to dvc repro and all below it at a random moment", landed,
         "the next dvc repro comes to equal weights, bit for bit, and to equal tables")  # fmt: skip


def test_dvc_killed_alone_leaves_a_training_that_nobody_doubles(fresh, whole, record_property):
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
    tell(record_property, "Resume", "dvc killed alone, and called again beside its orphan", 1,
         "waits for it, with its process and start; no run is trained twice; equal weights")  # fmt: skip


def test_the_driver_killed_takes_its_kernel_and_processes_along(fresh, whole, record_property):
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
    tell(record_property, "Resume", "roadseg train killed alone", 1,
         "kernel and runs end by themselves; the runs save first")  # fmt: skip


def test_a_dead_kernel(fresh, whole, record_property):
    for moment in (r"^Running stage 'train@heads'", TRAINS):  # it starts; it trains
        begun = Begun(fresh, *TRAIN)
        begun.until(moment)
        kernel, before = wait_for(begun.kernel), begun.text
        kernel.kill()
        status, out = begun.end(60)
        assert status != 0 and "Traceback" not in out, out
        assert out.count("roadseg: ") == 1
        assert "roadseg: question heads: train.ipynb: its kernel died, most often for want of memory" in out
        assert "heads.failed.ipynb" in out and "Running stage" not in out[len(before) :]
        nothing_left(fresh)
    status, out = Begun(fresh, *TRAIN).end()
    assert status == 0 and "goes on after step" in out, out
    assert_whole(fresh, whole)
    tell(record_property, "Faults", "a kernel killed while it starts, and during training", 2,
         "one message, status 2; the next call goes on; equal weights")  # fmt: skip


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_one_run_killed_lets_the_others_come_to_their_end(fresh, whole, number, record_property):
    begun = Begun(fresh, *HEADS)
    begun.until(TRAINS)
    pid, training = next(iter(owners(fresh).items()))
    wait_for(lambda: training in states(fresh))
    os.kill(pid, number)
    status, out = begun.end()
    assert status == 2 and "Traceback" not in out, out
    (message,) = re.findall(r"(?s)^roadseg: .*", out, re.M)
    assert re.match(r"roadseg: question heads: train.ipynb, cell \d+: baseline-s[01]: its process was killed", message)
    assert "1 of 4 runs failed. The others came to their end and need no training again." in message
    assert len(message.splitlines()) <= 3
    assert len(finished(fresh)) == 3 and training not in finished(fresh)
    assert training in states(fresh)
    nothing_left(fresh)
    status, out = Begun(fresh, *HEADS).end()
    assert status == 0 and len(re.findall(r"goes on after step \d+", out)) == 1, out
    assert summary(out) == ["4 runs: 1 trained, 3 from the store"]
    assert Begun(fresh, *TRAIN).end()[0] == 0
    assert_whole(fresh, whole)
    tell(record_property, "Faults", f"one of a question's run processes ended by {number.name}", 1,
         "one message, status 2; the others are trained; the next call goes on; equal weights")  # fmt: skip


# Stopped -----------------------------------------------------------------------------------------


def test_control_c_ends_the_pipeline_and_it_goes_on(fresh, whole, record_property):
    begun = Begun(fresh, "dvc", "repro")
    begun.until(r"^fcn-8s-s\d  epoch +9/")
    training = set(owners(fresh).values())
    pressed = time.monotonic()
    before = begun.press()
    status, out = begun.end(30)
    assert time.monotonic() - pressed < 15, out
    more = out[len(before) :]
    assert status != 0 and len(re.findall(r"stopped at step \d+", more)) == len(training), out
    assert "roadseg: stopped; run the same command to resume" in more
    assert "Traceback" not in out and "Running stage" not in more  # the next question is not begun
    nothing_left(fresh, 5)
    assert states(fresh) == training
    status, out = Begun(fresh, "dvc", "repro").end(600)
    assert status == 0 and len(re.findall(r"goes on after step \d+", out)) == len(training), out
    assert_whole(fresh, whole, report=True)
    tell(record_property, "Resume", "Ctrl-C during a training of dvc repro", 1,
         "states saved, no further stage, no process left; goes on; equal weights")  # fmt: skip


MOMENTS = [  # stage, seconds after it was begun: the kernel starts, imports, trains
    *(("train@", after) for after in (0.1, 0.6, 1.2, 1.8, 2.5, 3.5, 5.0, 7.0)), ("results", 1.0), ("results", 5.0), ("chapters", 0.8), ("chapters", 2.0),
    ("chapters", 6.0), ("report", 0.3),
]  # fmt: skip


def test_control_c_at_any_moment(fresh, whole, record_property):
    for stage, after in MOMENTS:
        begun = Begun(fresh, "dvc", "repro")
        begun.until(f"^Running stage '{stage}")
        time.sleep(after)
        assert begun.process.poll() is None, (stage, after)
        pressed = time.monotonic()
        before = begun.press()
        try:
            status, out = begun.end(30)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{stage}, {after} s: goes on for 30 s\n{begun.text}") from None
        assert status != 0 and time.monotonic() - pressed < 15, (stage, after, out)
        assert "Running stage" not in out[len(before) :], (stage, after, out)
        nothing_left(fresh, 10)
    status, out = Begun(fresh, "dvc", "repro").end(600)
    assert status == 0, out
    assert_whole(fresh, whole, report=True)
    tell(record_property, "Resume", "Ctrl-C during dvc repro: kernels, tables, chapters, report", len(MOMENTS),
         "ends within seconds, no further stage, no process left; equal weights and tables")  # fmt: skip


# Several at once ---------------------------------------------------------------------------------


@pytest.mark.parametrize("others", ["ladder", "heads"])
def test_two_at_once_train_each_run_once(fresh, whole, others, record_property):
    """Two questions that share an arm, and one question twice."""
    calls = [Begun(fresh, "roadseg", "train", "synthetic", name) for name in ("heads", others)]
    most = 0
    while any(each.process.poll() is None for each in calls):
        held = Counter(owners(fresh).values())
        most = max([most, *held.values()])
        time.sleep(0.2)
    logs = [each.end()[1] for each in calls]
    assert [each.process.returncode for each in calls] == [0, 0], "\n".join(logs)
    assert "Traceback" not in "".join(logs) and re.search(r"waits for process \d+", "".join(logs))
    counts = begun_trainings(*logs)
    assert set(counts.values()) == {1} and len(counts) == (4 if others == "heads" else 6), counts
    assert most == 1
    assert Begun(fresh, *TRAIN).end()[0] == 0
    assert_whole(fresh, whole)
    tell(record_property, "Resume", "two processes on the same runs", 1,
         "each run is trained once; the other process waits for it")  # fmt: skip


def test_who_waits_is_told_whom_to_stop_and_goes_on_there(fresh, whole, record_property):
    first = Begun(fresh, *HEADS)
    first.until(TRAINS)
    suspended = started_here(fresh)
    for process in suspended:  # so that it is not done before the next one comes
        process.suspend()
    second = Begun(fresh, *HEADS)
    match = second.until(r"^(\S+)  waits for process (\d+),.*\(kill (\d+) stops it; it saves its state\)")
    assert match[2] == match[3] and int(match[2]) in owners(fresh)
    third = Begun(fresh, *HEADS)
    third.until(r"waits for process")
    third.press()
    status, out = third.end(15)
    assert status == 130 and "roadseg: stopped" in out and "Traceback" not in out, out
    for process in suspended:
        process.resume()
    os.kill(int(match[2]), signal.SIGTERM)
    assert first.end()[0] == 2
    assert f"{match[1]}: its process was killed" in first.text
    status, out = second.end()
    assert status == 0 and re.search(rf"(?m)^{match[1]}  goes on after step \d+", out), out
    assert Begun(fresh, *TRAIN).end()[0] == 0
    assert_whole(fresh, whole)
    tell(record_property, "Resume", "a training stopped while another process waits for it", 1,
         "the other one goes on from its state; equal weights")  # fmt: skip
    tell(record_property, "Resume", "Ctrl-C to a process that waits for another one", 1,
         "it ends, the other goes on")  # fmt: skip


# An arm that fails -------------------------------------------------------------------------------

WILD = """
  wild:
    asks: Too much?
    start: fcn-8s
    alone:
      - spoilt
      - gone
      - augmentation
      - wild
      - huge
"""
TRICKS = """
spoilt:
  set:
    pretrained: file:data/spoilt.pt
  source: none
gone:
  set:
    pretrained: file:data/gone.pt
  source: none
wild:
  set:
    lr: 1.0e+30
  source: none
huge:
  set:
    batch_size: 8000
  source: none
"""


def test_an_arm_that_fails_lets_the_others_be_trained(fresh, whole, record_property):
    kept = {name: (fresh / name).read_bytes() for name in ("params.yaml", "tricks.yaml", "dvc.lock")}
    files = [fresh / "data/spoilt.pt", fresh / "data/gone.pt"]
    try:
        (fresh / "params.yaml").write_bytes(kept["params.yaml"] + WILD.encode())
        (fresh / "tricks.yaml").write_bytes(kept["tricks.yaml"] + TRICKS.encode())
        for file in files:
            file.write_text("no weights")
        assert call(fresh, "dvc", "repro", "prepare").returncode == 0
        files[1].unlink()
        begun = Begun(fresh, "dvc", "repro", "train@wild")
        begun.until(r"^with-augmentation-s\d  epoch +3/")
        # the processes that are begun from now on may take so much and no more
        kernel = begun.kernel()
        most = kernel.memory_info().vms + 3 * 2**29
        kernel.rlimit(psutil.RLIMIT_AS, (most, most))
        status, out = begun.end()
        assert status != 0 and "Traceback" not in out, out
        (message,) = re.findall(r"(?s)^roadseg: .*?again\.", out, re.M)
        for seed in SEEDS:
            assert f"fcn-8s-spoilt-s{seed}: pretrained: file:data/spoilt.pt: cannot be read as weights" in message
            assert f"fcn-8s-gone-s{seed}: file:data/gone.pt: no such file" in message
            assert f"fcn-8s-huge-s{seed}: out of memory with batch_size 8000 and images of 48 x 96: lower" in message
        assert "6 of 12 runs failed. The others came to their end and need no training again." in message
        assert "wild.failed.ipynb" in out
        assert len(finished(fresh)) == 4 and len(list(fresh.glob("work/runs/*/failed.json"))) == 2
        # without those arms it is a stage that has come to its end: a loss that does not stay
        # finite is a result
        for arm in ("spoilt", "gone", "huge"):
            replace(fresh / "params.yaml", f"      - {arm}\n", "")
        status, out = Begun(fresh, "dvc", "repro", "train@wild").end()
        assert status == 0, out
        assert summary(out) == ["6 runs: 4 from the store, 2 whose loss did not stay finite"]
        for seed in SEEDS:
            assert re.search(
                rf"roadseg: arm fcn-8s-wild, seed {seed}: the loss is not finite at step \d+: lr \S+, images "
                r"scene_\d+.* The report goes on without this arm", out), out  # fmt: skip
    finally:
        for name, content in kept.items():
            (fresh / name).write_bytes(content)
        for file in files:
            file.unlink(missing_ok=True)
        assert call(fresh, "dvc", "repro", "prepare").returncode == 0
    tell(record_property, "Faults", "arms whose weights are spoilt or gone, among others", 2,
         "arm, seed and cause named, the notebook too; the others are trained")  # fmt: skip
    tell(record_property, "Faults", "an arm that wants more memory than there is, among others", 1,
         "batch, size and what to lower are named; the others are trained")  # fmt: skip
    tell(record_property, "Faults", "an arm whose loss does not stay finite, among others", 1,
         "arm, seed, step, learning rate and images named; the report goes on without it")  # fmt: skip


# Data that change --------------------------------------------------------------------------------


@pytest.mark.parametrize("spoil", ["vanishes", "changes", "is cut short"])
def test_data_that_change_during_training(fresh, whole, spoil, record_property):
    file, kept = fresh / "data/prepared/synthetic/val_images.npy", fresh.parent / "kept.npy"
    shutil.copy(file, kept)
    begun = Begun(fresh, *HEADS)
    begun.until(TRAINS)
    try:
        if spoil == "changes":
            other = np.load(file)
            other[:] = 255 - other
            np.save(fresh.parent / "new.npy", other)
            os.replace(fresh.parent / "new.npy", file)
        else:
            content = file.read_bytes()
            file.unlink()  # DVC may have linked it to its cache
            if spoil == "is cut short":
                file.write_bytes(content[:1000])
        status, out = begun.end()
    finally:
        file.unlink(missing_ok=True)
        shutil.copy(kept, file)
    assert status == 2, out
    assert re.search(r"val_images.npy: (was changed|has vanished|was cut short|cannot be read)", out), out
    assert "Traceback" not in out
    assert not (fresh / BUILD / "runs/heads").exists()
    assert not finished(fresh)  # what later runs saw was not what they are kept under
    nothing_left(fresh)
    status, out = Begun(fresh, *TRAIN).end()
    assert status == 0, out
    assert_whole(fresh, whole)
    tell(record_property, "Faults", f"a data file that {spoil} during training", 1,
         "the file is named; no run is kept; mended, it comes to equal weights")  # fmt: skip


# Disks -------------------------------------------------------------------------------------------


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


def assert_one_message(result, words: str) -> None:
    assert result.returncode == 2, result.stdout + result.stderr
    lines = [line for line in result.stderr.splitlines() if not line.startswith("The notebook as far")]
    assert len(lines) == 1 and lines[0].startswith("roadseg: ") and words in lines[0], result.stderr


def test_results_that_may_not_be_written(trained, mounted, record_property):
    done = call(trained, "roadseg", "results", "synthetic")
    assert done.returncode == 0, done.stderr

    def content() -> dict:
        return {f: f.read_bytes() for f in (trained / "results/synthetic").rglob("*") if f.is_file()}

    before, copy = content(), trained.parent / "copy"
    shutil.copytree(trained / "results/synthetic", copy, dirs_exist_ok=True)
    folder = mounted("results/synthetic", "--bind", str(copy))
    subprocess.run(["mount", "-o", "remount,ro,bind", folder], check=True)
    assert_one_message(call(trained, "roadseg", "results", "synthetic"), "Read-only file system")
    assert content() == before and len(before) > 10
    tell(record_property, "Faults", "a results folder that is read-only", 1,
         "one message, status 2; earlier results intact")  # fmt: skip


@pytest.mark.parametrize("folder", ["results/synthetic", f"{BUILD}/executed", "reports/synthetic"])
def test_a_full_disk_for_tables_chapters_and_report(trained, mounted, folder, record_property):
    if "results" not in folder:
        assert call(trained, "roadseg", "results", "synthetic").returncode == 0
    if "reports" in folder:
        executed = trained / BUILD / "executed"
        executed.mkdir(parents=True, exist_ok=True)
        for name in (*CHAPTERS, "report"):
            shutil.copy(trained / f"notebooks/{name}.ipynb", executed)
    place = mounted(folder, "-t", "tmpfs", "-o", "size=64k", "tmpfs")
    (place / "filler").write_bytes(b"x" * 60_000)
    command = {"results": "results", "build": "chapters", "reports": "report"}[folder.split("/")[0]]
    result = call(trained, "roadseg", command, "synthetic")
    assert_one_message(result, "No space left on device")
    left = {file.name for file in place.rglob("*") if file.is_file()}
    assert {name for name in left if not name.endswith(".failed.ipynb")} == {"filler"}
    nothing_left(trained, 5)
    tell(record_property, "Faults", f"a full disk at {folder.split('/')[0]}", 1,
         "one message, status 2; nothing half-written")  # fmt: skip


@pytest.mark.parametrize("folder", ["work", f"{BUILD}/runs", f"{BUILD}/trained"])
@pytest.mark.parametrize("how", ["full", "read-only"])
def test_a_disk_that_takes_no_runs(fresh, whole, mounted, folder, how, record_property):
    if how == "full":
        place = mounted(folder, "-t", "tmpfs", "-o", "size=64k", "tmpfs")
        (place / "filler").write_bytes(b"x" * 60_000)
    else:
        place = mounted(folder, "-t", "tmpfs", "-o", "ro", "tmpfs")
    result = call(fresh, "roadseg", "train", "synthetic", "heads")
    assert result.returncode == 2 and "Traceback" not in result.stdout + result.stderr, result.stderr
    words = "No space left on device" if how == "full" else "Read-only file system"
    lines = [line for line in result.stderr.splitlines() if words in line]
    assert 1 <= len(lines) <= 4 and lines[0].startswith("roadseg: "), result.stderr
    assert len(result.stderr.splitlines()) <= 6, result.stderr
    assert not halves(fresh)
    if folder == "work":
        assert not finished(fresh)
    elif folder == f"{BUILD}/runs":
        assert len(finished(fresh)) == 4  # nothing of it is lost
    nothing_left(fresh)
    mounted.end()
    begun = Begun(fresh, *TRAIN)
    assert begun.end()[0] == 0, begun.text
    assert_whole(fresh, whole)
    tell(record_property, "Faults", f"a disk at {folder.split('/')[-1]} that is {how}", 1,
         "one message, status 2; nothing half-written; with room it goes on")  # fmt: skip
