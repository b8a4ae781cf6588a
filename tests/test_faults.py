"""Faults of the whole pipeline, as they happen: signals, dead kernels, disks, data that change.

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
from pathlib import Path

import psutil
import pytest
import torch
from conftest import call, surroundings

from roadseg.report.notebooks import CHAPTERS

pytestmark = pytest.mark.slow
STUDIES = """\
studies:
  heads: {question: "Which?", networks: [baseline, fcn-8s]}
  ladder: {question: "What for?", start: fcn-8s, ladder: [augmentation]}
"""
ARMS = ("baseline", "fcn-8s", "with-augmentation")


@pytest.fixture(scope="module")
def study(clone) -> Path:
    """The clone with three arms of two seeds that take some seconds, its data prepared."""
    text = (clone / "params.yaml").read_text()
    text = text[: text.index("\nstudies:") + 1] + STUDIES
    text = text.replace("  steps: 4", "  steps: 150").replace("seeds: [0]", "seeds: [0, 1]")
    (clone / "params.yaml").write_text(text)
    planned = call(clone, "roadseg", "plan")
    assert planned.returncode == 0, planned.stderr
    prepared = call(clone, "dvc", "repro", "notebooks", "prepare")
    assert prepared.returncode == 0, prepared.stderr
    # seconds between states: short enough for trainings that take ten
    file = clone / "roadseg/training/checkpoints.py"
    text = file.read_text()
    assert "PAUSE = 15.0" in text
    file.write_text(text.replace("PAUSE = 15.0", "PAUSE = 0.5"))
    return clone


@pytest.fixture(scope="module")
def whole(study, tmp_path_factory) -> Path:
    """The runs that were never stopped."""
    kept = tmp_path_factory.mktemp("whole") / "runs"
    result = call(study, "dvc", "repro", *(f"train@{arm}" for arm in ARMS))
    assert result.returncode == 0, result.stdout + result.stderr
    shutil.copytree(study / "build/synthetic/runs", kept)
    return kept


@pytest.fixture
def fresh(study):
    """Nothing trained, nothing running."""
    clear(study)
    yield study
    for process in ours(study):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    clear(study)


def clear(study):
    for folder in ("build/synthetic/runs", "build/synthetic/executed", "work", ".dvc/tmp/rwlock"):
        shutil.rmtree(study / folder, ignore_errors=True)
    shutil.rmtree(study / ".dvc/cache/runs", ignore_errors=True)
    (study / ".dvc/tmp/rwlock").unlink(missing_ok=True)
    lock = (study / "dvc.lock").read_text()
    (study / "dvc.lock").write_text(re.sub(r"(?m)^  train@.*\n(    .*\n)*", "", lock))


def ours(study):
    """All processes that work in the clone."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if Path(process.cwd()) == study and process.pid != os.getpid():
                found.append(process)
    return found


def started(study, *command):
    return subprocess.Popen(
        [sys.executable, "-u", "-m", *command], cwd=study, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, start_new_session=True, env=surroundings(),
    )  # fmt: skip


def until(process, pattern):
    log = ""
    for line in process.stdout:
        log += line
        if re.search(pattern, line):
            return log
    raise AssertionError(log)


def ended(process, timeout=240):
    out, _ = process.communicate(timeout=timeout)
    return process.returncode, out


def assert_whole(study, whole):
    for arm in ARMS:
        for seed in (0, 1):
            found, wanted = (
                torch.load(folder / arm / f"s{seed}/weights.pt", weights_only=True)
                for folder in (study / "build/synthetic/runs", whole)
            )
            assert all(torch.equal(found[key], wanted[key]) for key in wanted), (arm, seed)


def tell(record_property, area, tried, times, outcome):
    record_property("tried", json.dumps([area, tried, times, outcome]))


TRAIN = ("dvc", "repro", "--keep-going", *(f"train@{arm}" for arm in ARMS))


def test_control_c_ends_the_pipeline_and_it_goes_on(fresh, whole, record_property):
    process = started(fresh, *TRAIN)
    until(process, r"seed 0  epoch +20/")
    pressed = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: the kernel is in another group
    status, out = ended(process)
    assert time.monotonic() - pressed < 20, out
    assert status != 0 and len(re.findall(r"seed \d  stopped at step \d+", out)) == 2, out
    assert "roadseg: stopped; called again, it goes on from there" in out
    assert "Traceback" not in out and "Running stage" not in out  # the next arm is not begun
    assert not ours(fresh)
    status, out = ended(started(fresh, *TRAIN))
    assert status == 0 and len(re.findall(r"seed \d  goes on after step \d+", out)) == 2, out
    assert_whole(fresh, whole)
    tell(record_property, "Resume", "Ctrl-C during dvc repro", 1,
         "states saved, no further stage, no process left; goes on; equal weights")  # fmt: skip


def test_killed_at_random_dvc_repro_comes_to_the_same_weights(fresh, whole, record_property):
    chance, landed = random.Random(5), 0
    for _ in range(6):
        process = started(fresh, *TRAIN)
        with contextlib.suppress(AssertionError):  # it may come to its end
            until(process, r"seed \d  epoch ")
        time.sleep(chance.uniform(0, 8))
        landed += process.poll() is None
        for each in ours(fresh):
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()
        ended(process)
    status, out = ended(started(fresh, *TRAIN), 600)
    assert status == 0, out
    assert_whole(fresh, whole)
    tell(record_property, "Resume", "SIGKILL to dvc repro and all below it at a random moment", landed,
         "the next dvc repro comes to equal weights, bit for bit")  # fmt: skip


def test_dvc_killed_alone_leaves_a_training_that_nobody_doubles(fresh, record_property):
    process = started(fresh, "dvc", "repro", "train@baseline")
    until(process, r"seed 0  epoch +3/")
    process.kill()
    process.wait()
    orphans = ours(fresh)
    for orphan in orphans:  # so that it is not done before the next one begins
        orphan.suspend()
    status, out = ended(started(fresh, "dvc", "repro", "train@baseline"))
    for orphan in orphans:
        orphan.resume()
    assert status != 0
    pid = re.search(r"is being trained by process (\d+), started \S+ \S+\.", out)[1]
    assert int(pid) in [orphan.pid for orphan in orphans]
    deadline = time.monotonic() + 120
    while ours(fresh) and time.monotonic() < deadline:
        time.sleep(0.5)
    status, out = ended(started(fresh, "dvc", "repro", "train@baseline"))
    assert status == 0 and len(re.findall(r"weights of \w+: done before", out)) == 2, out
    tell(record_property, "Resume", "dvc killed alone, and called again beside its orphan", 1,
         "refused with process and start; later it takes what the orphan trained")  # fmt: skip


def test_the_driver_killed_takes_its_kernel_and_processes_along(fresh, record_property):
    process = started(fresh, "roadseg", "train", "params.yaml", "baseline")
    until(process, r"seed 0  epoch +3/")
    assert len(ours(fresh)) >= 4  # itself, kernel, two seeds
    process.kill()
    process.wait()
    deadline = time.monotonic() + 30
    while ours(fresh) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not ours(fresh)
    assert len({file.parent for file in fresh.glob("work/synthetic/*/step-*.pt")}) == 2
    tell(record_property, "Resume", "roadseg train killed alone", 1,
         "kernel and seeds end by themselves; both seeds save first")  # fmt: skip


def test_a_dead_kernel(fresh, record_property):
    process = started(fresh, "roadseg", "train", "params.yaml", "baseline")
    until(process, r"seed 0  epoch +3/")
    (kernel,) = [p for p in psutil.Process(process.pid).children() if "ipykernel" in " ".join(p.cmdline())]
    kernel.kill()
    status, out = ended(process)
    assert status == 2, out
    assert "roadseg: arm baseline: train.ipynb: its kernel died, most often for want of memory" in out
    assert "baseline.failed.ipynb" in out and "Traceback" not in out
    status, out = ended(started(fresh, "roadseg", "train", "params.yaml", "baseline"))
    assert status == 0 and "goes on after step" in out
    tell(record_property, "Faults", "a kernel killed during training", 1,
         "one message, status 2; the next call goes on")  # fmt: skip


def test_an_arm_that_fails_lets_the_others_go_on(fresh, whole, record_property):
    text = (fresh / "params.yaml").read_text()
    before = {name: (fresh / name).read_text() for name in ("params.yaml", "plan.yaml", "dvc.lock")}
    (fresh / "data/mine.pt").write_text("no weights")
    try:
        (fresh / "params.yaml").write_text(text.replace(
            "ladder: [augmentation]}", "ladder: [augmentation]}\n"
            "  wild: {question: Too much, start: baseline, alone: [wild, spoilt]}\n").replace(
            "\ntricks:\n", "\ntricks:\n  wild: {knobs: {lr: 1.0e+30}, idea: much, source: none}\n"
            "  spoilt: {knobs: {pretrained: 'file:data/mine.pt'}, idea: wrong, source: none}\n"))  # fmt: skip
        assert call(fresh, "roadseg", "plan").returncode == 0
        arms = [f"train@{arm}" for arm in ("baseline-spoilt", "baseline-wild", *ARMS)]
        status, out = ended(started(fresh, "dvc", "repro", "--keep-going", *arms))
        assert status != 0
        assert re.search(
            r"roadseg: arm baseline-spoilt: train.ipynb, cell \d+: seed 0: pretrained: file:data/mine.pt: cannot "
            r"be read as weights", out), out  # fmt: skip
        assert "executed/train/baseline-spoilt.failed.ipynb" in out
        # that a loss does not stay finite is a result, and the stage one that has come to its end
        assert re.search(
            r"roadseg: arm baseline-wild, seed 0: the loss is not finite at step \d+: lr \S+, images scene_\d+.* "
            r"The report goes on without this arm", out), out  # fmt: skip
        assert "baseline-wild.failed.ipynb" not in out
        assert_whole(fresh, whole)
    finally:
        (fresh / "data/mine.pt").unlink()
        for name, content in before.items():
            (fresh / name).write_text(content)
    tell(record_property, "Faults", "an arm whose cell fails, among others", 1,
         "arm, cell, seed, cause and notebook named; the others are trained")  # fmt: skip
    tell(record_property, "Faults", "an arm whose loss does not stay finite, among others", 1,
         "arm, seed, step, learning rate and images named; the report goes on without it")  # fmt: skip


@pytest.mark.parametrize("spoil", ["vanishes", "changes", "is cut short"])
def test_data_that_change_during_training(fresh, spoil, record_property):
    prepared = fresh / "data/prepared/synthetic"
    file, kept = prepared / "val_images.npy", fresh.parent / "kept.npy"
    shutil.copy(file, kept)
    process = started(fresh, "roadseg", "train", "params.yaml", "baseline")
    until(process, r"seed 0  epoch +3/")
    try:
        if spoil == "changes":
            shutil.copy(file, fresh.parent / "new.npy")
            os.replace(fresh.parent / "new.npy", file)
        else:
            content = file.read_bytes()
            file.unlink()  # DVC may have linked it to its cache
            if spoil == "is cut short":
                file.write_bytes(content[:1000])
        status, out = ended(process)
    finally:
        file.unlink(missing_ok=True)
        shutil.copy(kept, file)
    assert status == 2, out
    assert re.search(r"val_images.npy: (was changed|has vanished|was cut short|cannot be read)", out), out
    assert "Traceback" not in out and not list(fresh.glob("build/synthetic/runs/baseline/*/record.json"))
    tell(record_property, "Faults", f"a data file that {spoil} during training", 1,
         "the file is named; no run is written")  # fmt: skip


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

    yield mount
    for place in reversed(places):
        subprocess.run(["umount", "-l", place], check=True)


def trained(study):
    if not all((study / f"build/synthetic/runs/{arm}/s1/record.json").is_file() for arm in ARMS):
        status, out = ended(started(study, *TRAIN), 600)
        assert status == 0, out


def test_results_that_may_not_be_written(fresh, mounted, record_property):
    trained(fresh)
    done = call(fresh, "roadseg", "results", "params.yaml")
    assert done.returncode == 0, done.stderr
    folder = fresh / "results/synthetic"
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    copy = fresh.parent / "copy"
    shutil.copytree(folder, copy, dirs_exist_ok=True)
    mounted("results/synthetic", "--bind", str(copy))
    subprocess.run(["mount", "-o", "remount,ro,bind", folder], check=True)
    result = call(fresh, "roadseg", "results", "params.yaml")
    assert result.returncode == 2, result.stderr
    assert "Read-only file system" in result.stderr and "Traceback" not in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    tell(record_property, "Faults", "a results folder that is read-only", 1,
         "one message, status 2; earlier results intact")  # fmt: skip


@pytest.mark.parametrize("folder", ["results/synthetic", "build/synthetic/executed", "reports/synthetic"])
def test_a_disk_that_is_full(fresh, mounted, folder, record_property):
    trained(fresh)
    place = mounted(folder, "-t", "tmpfs", "-o", "size=64k", "tmpfs")
    (place / "filler").write_bytes(b"x" * 60_000)
    if folder.startswith("results"):
        result = call(fresh, "roadseg", "results", "params.yaml")
    elif folder.startswith("reports"):
        executed = fresh / "build/synthetic/executed"
        executed.mkdir(parents=True, exist_ok=True)
        for name in (*CHAPTERS, "report"):
            shutil.copy(fresh / f"build/synthetic/notebooks/{name}.ipynb", executed)
        result = call(fresh, "roadseg", "report", "params.yaml")
    else:
        result = call(fresh, "roadseg", "train", "params.yaml", "baseline")
    assert result.returncode == 2, result.stdout + result.stderr
    assert "No space left on device" in result.stderr and "Traceback" not in result.stderr
    assert {file.name for file in place.iterdir() if file.is_file()} <= {"filler"}
    tell(record_property, "Faults", f"a full disk at {folder.split('/')[0]}", 1,
         "one message, status 2; nothing half-written")  # fmt: skip
