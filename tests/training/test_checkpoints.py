"""A training that is stopped, at whatever moment, ends as one that never was."""

import hashlib
import json
import os
import pickle
import random
import re
import signal
import subprocess
import time

import numpy as np
import psutil
import pytest
import torch
from toys import (
    CPU,
    ENDLESS,
    LONG,
    SMALLEST,
    Process,
    done,
    give_own_root,
    quiet,
    train_arms,
    train_one,
    weights_of,
)

from roadseg.config.recipe import Recipe
from roadseg.errors import InputError
from roadseg.models.build import build
from roadseg.training import checkpoints, loop
from roadseg.training.checkpoints import Checkpoints
from roadseg.training.files import atomic_folder
from roadseg.training.run import load_splits
from roadseg.training.store import training_of

STEPS = 7
PLAIN = {"network": "fcn8s:tu-test_resnet", "steps": STEPS, "batch_size": 4, "precision": "fp32"}
RECIPES = {
    "plain": PLAIN,
    "all of it": PLAIN | {  # every stream of chance, and every part that has a state
        "optimizer": "adamw", "weight_decay": 0.01, "schedule": "cosine", "cycles": 2,
        "warmup_steps": 2, "ema_decay": 0.9, "flip": 0.5, "scale_jitter": 1.25, "crop": 0.75,
        "colour_jitter": 0.2, "dropout": 0.2, "aux_weight": 0.4, "size_jitter": 1.25,
        "teacher": "fcn8s:tu-resnet10t", "distill_weight": 1.0,
    },
    "baseline": PLAIN | {"network": "baseline:0.05", "batch_norm": True},
}  # fmt: skip


@pytest.fixture
def always(monkeypatch):
    """A state after each step."""
    monkeypatch.setattr(checkpoints, "MIN_PAUSE", 0)
    monkeypatch.setattr(checkpoints, "MAX_SAVE_SHARE", 1e9)


@pytest.fixture(autouse=True)
def nothing_left():
    yield
    Process.kill_all()


class Killed(Exception):
    pass


class Breaking(Checkpoints):
    """Ends the process's training, as far as a test can, right after a state or before it."""

    def __init__(self, *arguments, after):
        super().__init__(*arguments)
        self.after, self.calls = after, 0

    def save(self, step, state):
        if step == self.after:
            raise Killed
        super().save(step, state)


def trained(recipe, scenes, folder, say=quiet, after=None):
    torch.manual_seed(1)
    teacher = build(recipe.teacher, 19).eval() if recipe.teacher else None
    torch.manual_seed(after or 0)  # what the process did before must not matter
    saved = Breaking(folder, "key", say, after=after) if folder else None
    network, curve, _ = loop.train(
        recipe, scenes["train"], scenes["val"], device=CPU, teacher=teacher, checkpoints=saved, say=say
    )  # fmt: skip
    return network.state_dict(), curve


@pytest.mark.parametrize("name", RECIPES)
def test_stopped_after_each_step_it_comes_to_the_same_weights(
    scenes, tmp_path, always, name, tell
):
    recipe = Recipe.of(RECIPES[name])
    expected, curve = trained(recipe, scenes, None)
    for step in range(2, STEPS):  # every state is gone on from, and in one training
        with pytest.raises(Killed):
            trained(recipe, scenes, tmp_path / "work", after=step)
    lines = []
    weights, again = trained(recipe, scenes, tmp_path / "work", say=lines.append)
    assert lines[0] == f"goes on after step {STEPS - 2}"
    assert list(weights) == list(expected)
    for key, value in expected.items():
        assert torch.equal(weights[key], value), key
    np.testing.assert_array_equal(again.to_numpy(), curve.to_numpy())
    tell("Resume", f"stopped before each step's state ({name})", STEPS - 2, "equal weights, bit for bit")


def test_streamed_batches_go_on_where_they_were(scenes, tmp_path, always, monkeypatch):
    monkeypatch.setattr("roadseg.training.batches.RESIDENT_BYTES", 0)
    recipe = Recipe.of(PLAIN)
    expected, _ = trained(recipe, scenes, None)
    with pytest.raises(Killed):
        trained(recipe, scenes, tmp_path / "work", after=4)
    weights, _ = trained(recipe, scenes, tmp_path / "work")
    assert all(torch.equal(weights[key], value) for key, value in expected.items())


@pytest.fixture
def states(scenes, tmp_path, always):
    """Folder of a stopped training's states, after steps 3 and 4."""
    with pytest.raises(Killed):
        trained(Recipe.of(PLAIN), scenes, tmp_path / "work", after=5)
    return tmp_path / "work"


def test_there_are_two_states_and_their_names_hold_what_they_are(states):
    old, new = sorted(states.iterdir())
    assert re.fullmatch(r"step-0000003-[0-9a-f]{16}\.pt", old.name)
    assert re.fullmatch(r"step-0000004-[0-9a-f]{16}\.pt", new.name)
    assert Checkpoints(states, "key").newest()["step"] == 4


def flipped(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def pickled(file):
    """A file that is what its name says, and would run code."""
    content = pickle.dumps({"key": "key", "step": 4, "x": Harm()})
    digest = hashlib.sha256(content).hexdigest()
    file.with_name(f"step-0000004-{digest[:16]}.pt").write_bytes(content)
    file.unlink()


def archived(file):
    """The same within torch's own archive."""
    torch.save({"key": "key", "step": 4, "x": Harm()}, file)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    file.replace(file.with_name(f"step-0000004-{digest[:16]}.pt"))


class Harm:
    def __reduce__(self):
        return (print, ("run by a pickle",))


SPOILT = {
    "cut short": (lambda f: os.truncate(f, f.stat().st_size // 2), "is not what was saved"),
    "empty": (lambda f: f.write_bytes(b""), "is not what was saved"),
    "a bit flipped": (flipped, "is not what was saved"),
    "renamed": (lambda f: f.replace(f.with_name("step-0000009-0123456789abcdef.pt")), "is not what was saved"),
    "a pickle": (pickled, "holds more than numbers, which is not loaded"),
    "a pickle in an archive": (archived, "holds more than numbers, which is not loaded"),
    "a folder": (lambda f: (f.unlink(), f.mkdir()), "cannot be read (IsADirectoryError)"),
}  # fmt: skip


@pytest.mark.parametrize("name", SPOILT)
def test_a_spoilt_state_is_named_and_the_one_before_it_taken(
    scenes, states, name, capsys, tell
):
    spoil, message = SPOILT[name]
    spoil(sorted(states.iterdir())[1])
    lines = []
    weights, _ = trained(Recipe.of(PLAIN), scenes, states, say=lines.append)
    assert re.match(rf"{states}/step-000000[49]-\w+.pt: {re.escape(message)}", lines[0]), lines
    assert lines[0].endswith("skipped") and lines[1] == "goes on after step 3"
    expected, _ = trained(Recipe.of(PLAIN), scenes, None)
    assert all(torch.equal(weights[key], value) for key, value in expected.items())
    assert "run by a pickle" not in capsys.readouterr().out
    tell("Resume", f"the newest state {name}", 1, "named, and the one before it taken")


def test_where_no_state_is_whole_or_its_own_training_begins_anew(states):
    lines = []
    assert Checkpoints(states, "other", lines.append).newest() is None
    assert len(lines) == 2 and all("another training" in line for line in lines)
    for file in states.iterdir():
        flipped(file)
    assert Checkpoints(states, "key", lines.append).newest() is None and len(lines) == 4


def test_large_states_are_saved_less_often(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    saved = Checkpoints(tmp_path / "work", "key", quiet)
    now[0] = checkpoints.MIN_PAUSE - 1
    assert not saved.due
    now[0] += 1
    assert saved.due

    def slow(*_):
        now[0] += 10

    monkeypatch.setattr(os, "fsync", slow)
    saved.save(1, {})
    now[0] += 10 / checkpoints.MAX_SAVE_SHARE - 1
    assert not saved.due
    now[0] += 1
    assert saved.due


# Processes -----------------------------------------------------------------------------------------

SEEDS = [LONG, LONG.changed({"seed": 1})]


def assert_same(root, other, seeds):
    for seed in range(seeds):
        weights, expected = weights_of(root, seed=seed), weights_of(other, seed=seed)
        assert list(weights) == list(expected)
        assert all(torch.equal(weights[key], expected[key]) for key in expected)


@pytest.fixture(scope="module")
def whole(prepared, tmp_path_factory):
    """The runs that were never stopped."""
    root = tmp_path_factory.mktemp("whole")
    assert Process(root, train_arms, root, prepared, {"arm": SEEDS}).end()[0] == 0
    return root


def killed_at_random(prepared, root, kills, seed):
    """Kill a run of two seeds so often at random moments, and let it come to its end."""
    chance, log, landed = random.Random(seed), "", 0
    for step in sorted(chance.choices(range(50), k=kills)):
        process = Process(root, train_arms, root, prepared, {"arm": SEEDS})
        process.until_step(step)
        time.sleep(chance.uniform(0, 0.1))
        landed += process.process.is_alive()
        log += process.kill()[1]
    status, out = Process(root, train_arms, root, prepared, {"arm": SEEDS}).end()
    assert status == 0, out
    return log + out, landed


def test_killed_three_times_it_ends_with_the_same_weights(prepared, root, whole, tell):
    log, landed = killed_at_random(prepared, root, 3, seed=1)
    assert landed >= 2 and "goes on after step" in log
    assert_same(root, whole, 2)
    assert not list(root.rglob("*partial"))
    tell("Resume", "SIGKILL to two seeds at a random moment", landed, "equal weights, bit for bit")


@pytest.mark.parametrize(("seeds", "number"), [(1, signal.SIGTERM), (2, signal.SIGINT)])
def test_asked_to_stop_it_saves_and_goes_on_later(
    prepared, root, whole, seeds, number, tell
):
    """One seed in the process itself; two in processes of their own."""
    what = (train_one, root, prepared, LONG) if seeds == 1 else (train_arms, root, prepared, {"arm": SEEDS})
    process = Process(root, *what)
    process.until_step(6)
    os.kill(process.pid, number)
    status, out = process.end()
    assert status != 0 and out.endswith("KeyboardInterrupt\n"), out
    stopped = re.findall(r"stopped at step (\d+); the next call goes on from there", out)
    assert len(stopped) == seeds and not list((root / "work").rglob("*.partial"))
    status, out = Process(root, train_arms, root, prepared, {"arm": SEEDS[:seeds]}).end()
    assert status == 0 and sorted(re.findall(r"goes on after step (\d+)", out)) == sorted(stopped)
    assert_same(root, whole, seeds)
    assert not list((root / "work").rglob("step-*.pt"))  # nobody goes on from them any more
    tell("Resume", f"{number.name} to {seeds} seed{'s' * (seeds > 1)}", 1, "state saved; goes on there; equal weights")


def test_a_second_process_waits_for_the_first_and_goes_on_from_its_state(
    prepared, root, tell
):
    first = Process(root, train_one, root, prepared, ENDLESS)
    first.until("epoch +3/")
    second = Process(root, train_one, root, prepared, ENDLESS)
    second.until(f"waits for process {first.pid}")
    os.kill(first.pid, signal.SIGTERM)
    assert first.end()[0] != 0
    stopped = re.search(r"stopped at step (\d+)", first.text)[1]
    second.until(f"goes on after step {stopped}\n")
    third = Process(root, train_one, root, prepared, ENDLESS)
    third.until(f"waits for process {second.pid}")
    second.kill()  # a lock dies with its owner, whatever kills it
    third.until("goes on after step")
    tell("Resume", "a second process on the same run", 1, "waits; lines the first one's id and start")


def test_what_a_process_waited_for_is_not_trained_again(prepared, root):
    splits = load_splits(prepared)
    training = training_of(SMALLEST, splits, CPU)
    with Checkpoints(training.folder, f"{training.key} on cpu", quiet):
        other = Process(root, train_one, root, prepared, SMALLEST)
        other.until(f"waits for process {os.getpid()}")
        network, curve, _ = loop.train(SMALLEST, splits["train"], splits["val"], device=CPU, say=quiet)
        about = training.keep(network, curve, SMALLEST, {"seconds": 1.0})
    status, text = other.end()
    assert status == 0 and "epoch" not in text
    assert training.about() == about and (training.folder / "scores").is_dir()


@pytest.mark.parametrize("note", ["own", "other", "{", "", "[]", '{"pid": 1}', None])
def test_who_waits_is_told_for_whom(tmp_path, note):
    lines, other = [], subprocess.Popen(["sleep", "60"], start_new_session=True)

    def keep(line):
        lines.append(line)
        raise Killed

    with Checkpoints(tmp_path / "work", "key", quiet):
        owner = tmp_path / "work.owner"
        if note is None:
            owner.unlink()
        elif note == "other":
            owner.write_text(json.dumps({"pid": other.pid, "started": 1e9}))
        elif note != "own":
            owner.write_text(note)
        with pytest.raises(Killed):
            Checkpoints(tmp_path / "work", "key", keep).__enter__()
    other.kill()
    other.wait()
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(1e9))
    expected = {"own": "another run of this question", "other": f"process {other.pid}, started {since}"}
    assert lines[0].startswith(f"waits for {expected.get(note, 'another process')}, which")
    assert not owner.exists()
    with Checkpoints(tmp_path / "work", "key", keep):  # it is free again
        assert psutil.Process().create_time() == json.loads(owner.read_text())["started"]


def test_a_stop_that_comes_after_the_last_state_is_not_forgotten(tmp_path):
    with pytest.raises(KeyboardInterrupt), Checkpoints(tmp_path / "work", "key", quiet):
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.fixture
def small_disk(tmp_path):
    """A disk of a few MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", disk], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("a small disk needs the right to mount one")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


def test_a_full_disk_costs_states_but_not_the_training(scenes, small_disk, always, tell):
    expected, _ = trained(Recipe.of(PLAIN), scenes, None)
    lines = []
    weights, _ = trained(Recipe.of(PLAIN), scenes, small_disk / "work", say=lines.append)
    assert all(torch.equal(weights[key], value) for key, value in expected.items())
    warnings = [line for line in lines if "its state cannot be saved in" in line]
    assert warnings and "The training goes on" in warnings[0]
    assert not list(small_disk.rglob("*.partial"))
    assert Checkpoints(small_disk / "work", "key").newest()["step"] < STEPS - 1  # the last that fitted
    tell("Faults", "a full disk while a state is saved", len(warnings), "lines; the training goes on")


def test_a_full_disk_is_one_message_and_nothing_is_half_written(
    prepared, small_disk, monkeypatch, tell
):
    give_own_root(monkeypatch, small_disk)
    (small_disk / "filler").write_bytes(b"x" * 7_500_000)
    with pytest.raises(InputError, match=r"cannot be written \(No space left on device\). Free disk space"):
        done(Recipe.of(PLAIN), prepared)
    assert not list(small_disk.rglob("*.partial")) and not list(small_disk.rglob("training.json"))
    (small_disk / "filler").unlink()
    assert done(Recipe.of(PLAIN), prepared) == "trained"
    with pytest.raises(InputError, match=r"no space|No space"), atomic_folder(small_disk / "x") as work:
        (work / "y").write_bytes(b"x" * 9_000_000)
    assert not list(small_disk.glob("x*"))
    tell("Faults", "a full disk while results are written", 1, "one message; nothing half-written")
