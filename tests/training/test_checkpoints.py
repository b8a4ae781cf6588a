"""A training that is stopped, at whatever moment, ends as one that never was."""

import contextlib
import json
import multiprocessing
import os
import pickle
import random
import re
import resource
import signal
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest
import torch

from roadseg.config.recipe import Recipe
from roadseg.errors import InputError
from roadseg.models.build import build
from roadseg.training import checkpoints as checkpoint
from roadseg.training import loop as train
from roadseg.training import run as runs
from roadseg.training import weights
from roadseg.training.checkpoints import Checkpoints

CPU = torch.device("cpu")
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


def quiet(_):
    pass


@pytest.fixture
def always(monkeypatch):
    """A state after each step."""
    monkeypatch.setattr(checkpoint, "PAUSE", 0)
    monkeypatch.setattr(checkpoint, "SHARE", 1e9)


@pytest.fixture
def root(tmp_path, monkeypatch):
    for module in (runs, weights):
        monkeypatch.setattr(module, "ROOT", tmp_path)
    return tmp_path


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
    network, curve, _ = train.train(
        recipe, scenes["train"], scenes["val"], device=CPU, teacher=teacher, checkpoints=saved, say=say
    )  # fmt: skip
    return network.state_dict(), curve


@pytest.mark.parametrize("name", RECIPES)
def test_stopped_after_each_step_it_comes_to_the_same_weights(
    scenes, tmp_path, always, name, record_property
):
    recipe = Recipe.of(RECIPES[name])
    wanted, curve = trained(recipe, scenes, None)
    for step in range(2, STEPS):  # every state is gone on from, and in one training
        with pytest.raises(Killed):
            trained(recipe, scenes, tmp_path / "work", after=step)
    lines = []
    found, again = trained(recipe, scenes, tmp_path / "work", say=lines.append)
    assert lines[0] == f"goes on after step {STEPS - 2}"
    assert list(found) == list(wanted)
    for key, value in wanted.items():
        assert torch.equal(found[key], value), key
    np.testing.assert_array_equal(again.to_numpy(), curve.to_numpy())
    record_property("tried", json.dumps(
        ["Resume", f"stopped before each step's state ({name})", STEPS - 2, "equal weights, bit for bit"]
    ))  # fmt: skip


def test_what_a_process_did_before_does_not_matter(scenes, record_property):
    recipe = Recipe.of(RECIPES["all of it"])
    one, _ = trained(recipe, scenes, None, after=3)
    trained(Recipe.of(PLAIN | {"seed": 5}), scenes, None)
    other, _ = trained(recipe, scenes, None, after=4)
    assert all(torch.equal(one[key], other[key]) for key in one)
    record_property("tried", json.dumps(
        ["Same again", "a training repeated in one process, after others", 1, "equal weights"]))  # fmt: skip


def test_streamed_batches_go_on_where_they_were(scenes, tmp_path, always, monkeypatch):
    monkeypatch.setattr("roadseg.feed.RESIDENT_BYTES", 0)
    recipe = Recipe.of(PLAIN)
    wanted, _ = trained(recipe, scenes, None)
    with pytest.raises(Killed):
        trained(recipe, scenes, tmp_path / "work", after=4)
    found, _ = trained(recipe, scenes, tmp_path / "work")
    assert all(torch.equal(found[key], value) for key, value in wanted.items())


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
    digest = checkpoint.hashlib.sha256(content).hexdigest()
    file.with_name(f"step-0000004-{digest[:16]}.pt").write_bytes(content)
    file.unlink()


def archived(file):
    """The same within torch's own archive."""
    torch.save({"key": "key", "step": 4, "x": Harm()}, file)
    digest = checkpoint.hashlib.sha256(file.read_bytes()).hexdigest()
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
    scenes, states, name, capsys, record_property
):
    spoil, message = SPOILT[name]
    spoil(sorted(states.iterdir())[1])
    lines = []
    found, _ = trained(Recipe.of(PLAIN), scenes, states, say=lines.append)
    assert re.match(rf"{states}/step-000000[49]-\w+.pt: {re.escape(message)}", lines[0]), lines
    assert lines[0].endswith("passed over") and lines[1] == "goes on after step 3"
    wanted, _ = trained(Recipe.of(PLAIN), scenes, None)
    assert all(torch.equal(found[key], value) for key, value in wanted.items())
    assert "run by a pickle" not in capsys.readouterr().out
    record_property("tried", json.dumps(
        ["Resume", f"the newest state {name}", 1, "named, and the one before it taken"]))  # fmt: skip


def test_all_states_spoilt_is_a_new_beginning(scenes, states):
    for file in states.iterdir():
        flipped(file)
    lines = []
    found, _ = trained(Recipe.of(PLAIN), scenes, states, say=lines.append)
    assert [line.endswith("passed over") for line in lines] == [True, True] + [False] * len(lines[2:])
    assert "goes on" not in " ".join(lines)


def test_the_state_of_another_training_is_not_taken(states):
    lines = []
    assert Checkpoints(states, "other", lines.append).newest() is None
    assert len(lines) == 2 and all("is of another training; passed over" in line for line in lines)


def test_large_states_are_saved_less_often(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: now[0])
    saved = Checkpoints(tmp_path / "work", "key", quiet)
    now[0] = checkpoint.PAUSE - 1
    assert not saved.due
    now[0] += 1
    assert saved.due

    def slow(*_):
        now[0] += 10

    monkeypatch.setattr(checkpoint.os, "fsync", slow)
    saved.save(1, {})
    now[0] += 10 / checkpoint.SHARE - 1
    assert not saved.due
    now[0] += 1
    assert saved.due


def test_a_clock_that_jumps_changes_nothing(scenes, tmp_path, always, monkeypatch, record_property):
    wanted, _ = trained(Recipe.of(PLAIN), scenes, None)
    jumps = random.Random(0)
    monkeypatch.setattr(time, "time", lambda: jumps.uniform(-1e9, 4e9))
    torch.manual_seed(1)
    with Checkpoints(tmp_path / "work", "key", quiet) as saved:
        network, curve, seconds = train.train(
            Recipe.of(PLAIN), scenes["train"], scenes["val"], device=CPU, checkpoints=saved, say=quiet
        )  # fmt: skip
    assert 0 < seconds < 60 and list(curve.step) == sorted(curve.step)
    assert all(torch.equal(network.state_dict()[key], value) for key, value in wanted.items())
    record_property("tried", json.dumps(
        ["Faults", "a clock that jumps at each look, by decades", 1, "equal weights; sensible seconds"]))  # fmt: skip


# Processes -----------------------------------------------------------------------------------------

# A server that has imported torch forks them: that is much faster than to begin anew each time.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["roadseg.training.run", "test_checkpoint"])
LONG = {"network": "baseline:0.05", "batch_norm": True, "steps": 60, "batch_size": 2,
        "precision": "fp32", "flip": 0.5}  # fmt: skip
ENDLESS = LONG | {"steps": 1_000_000}


def train_arm(prepared, root, arm, seeds, settings, out, memory):
    """Train an arm in a process of its own, as a notebook's kernel does."""
    os.setsid()
    for stream in (1, 2):
        os.dup2(os.open(out, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
    sys.stdout = sys.stderr = open(1, "w", buffering=1)  # noqa: SIM115
    if memory:
        most = psutil.Process().memory_info().vms + memory
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    runs.ROOT = weights.ROOT = root
    checkpoint.PAUSE, checkpoint.SHARE = 0.1, 1e9
    torch.set_num_threads(1)
    recipes = [Recipe.of(settings | {"seed": seed}) for seed in range(seeds)]
    if seeds > 1:
        torch.get_num_threads = lambda: 2  # as many as there are processes
    cpu = torch.device("cpu")  # what is promised here is promised there alone
    runs.run_all(recipes, prepared, root / "build/own/runs" / arm, device=cpu, say=print)
    print("done")


class Arm:
    """Such a process, and what it has printed."""

    def __init__(self, prepared, root, arm, seeds, settings, memory=None):
        root.mkdir(exist_ok=True)
        self.out = root / f"{arm}-{len(list(root.glob('*.log')))}.log"
        self.process = CONTEXT.Process(
            target=train_arm, args=(prepared, root, arm, seeds, settings, self.out, memory)
        )
        self.process.start()
        self.pid = self.process.pid

    @property
    def text(self):
        return self.out.read_text() if self.out.exists() else ""

    def until(self, text):
        self.wait(lambda: text in self.text)

    def until_step(self, step):
        self.wait(lambda: any(int(n) >= step for n in re.findall(r" step +(\d+)", self.text)))

    def wait(self, reached):
        deadline = time.monotonic() + 120
        while not reached():
            assert self.process.is_alive() or reached(), self.text
            assert time.monotonic() < deadline, self.text
            time.sleep(0.01)

    def kill(self):
        with contextlib.suppress(ProcessLookupError):  # before it has its own group, or after its end
            os.killpg(self.pid, signal.SIGKILL)
        self.process.kill()
        return self.end()

    def end(self):
        self.process.join(120)
        assert self.process.exitcode is not None, self.text
        return self.process.exitcode, self.text


def weights_of(root, arm, seed=0):
    return torch.load(root / f"build/own/runs/{arm}/s{seed}/weights.pt", weights_only=True)


def assert_same(root, arm, other_root, other, seeds):
    for seed in range(seeds):
        found, wanted = weights_of(root, arm, seed), weights_of(other_root, other, seed)
        assert list(found) == list(wanted)
        assert all(torch.equal(found[key], wanted[key]) for key in wanted)


@pytest.fixture(scope="session")
def whole(prepared, tmp_path_factory):
    """The runs that were never stopped."""
    root = tmp_path_factory.mktemp("whole")
    assert Arm(prepared, root, "arm", 2, LONG).end()[0] == 0
    return root


def killed_at_random(prepared, root, kills, seed):
    """Kill a run of two seeds so often at random moments, and let it come to its end."""
    chance, log, landed = random.Random(seed), "", 0
    for step in sorted(chance.choices(range(50), k=kills)):
        arm = Arm(prepared, root, "arm", 2, LONG)
        arm.until_step(step)
        time.sleep(chance.uniform(0, 0.1))
        landed += arm.process.is_alive()
        log += arm.kill()[1]
    status, out = Arm(prepared, root, "arm", 2, LONG).end()
    assert status == 0, out
    return log + out, landed


def test_killed_three_times_it_ends_with_the_same_weights(prepared, root, whole, record_property):
    log, landed = killed_at_random(prepared, root, 3, seed=1)
    assert landed >= 2 and "goes on after step" in log
    assert_same(root, "arm", whole, "arm", 2)
    assert not list(root.glob("build/own/runs/arm/*partial"))
    record_property("tried", json.dumps(
        ["Resume", "SIGKILL to two seeds at a random moment", landed, "equal weights, bit for bit"]))  # fmt: skip


@pytest.mark.slow
def test_killed_twenty_times_it_ends_with_the_same_weights(prepared, root, whole, record_property):
    landed = 0
    for seed in range(8):
        _, some = killed_at_random(prepared, root / str(seed), 3, seed=10 + seed)
        landed += some
        assert_same(root / str(seed), "arm", whole, "arm", 2)
    assert landed >= 20
    record_property("tried", json.dumps(
        ["Resume", "SIGKILL to two seeds at a random moment", landed, "equal weights, bit for bit"]))  # fmt: skip


@pytest.mark.parametrize(("seeds", "number"), [(1, signal.SIGTERM), (1, signal.SIGINT), (2, signal.SIGINT)])
def test_asked_to_stop_it_saves_and_goes_on_later(
    prepared, root, whole, seeds, number, record_property
):
    """One seed in the process itself; two in processes of their own."""
    arm = Arm(prepared, root, "arm", seeds, LONG)
    arm.until("step     9/60")
    os.kill(arm.pid, number)
    status, out = arm.end()
    assert status != 0 and out.endswith("KeyboardInterrupt\n"), out
    assert len(re.findall(r"stopped at step \d+; the next call goes on from there", out)) == seeds
    left = list((root / "work/own").glob("*/step-*.pt"))
    assert len(left) >= seeds and not list((root / "work").rglob("*.partial"))
    status, out = Arm(prepared, root, "arm", seeds, LONG).end()
    assert status == 0 and out.count("goes on after step") == seeds
    assert_same(root, "arm", whole, "arm", seeds)
    record_property("tried", json.dumps(
        ["Resume", f"{number.name} to {seeds} seed{'s' * (seeds > 1)}", 1, "state saved; goes on there; equal weights"]))  # fmt: skip


def test_no_process_trains_on_when_its_parent_was_killed(prepared, root, record_property):
    arm = Arm(prepared, root, "arm", 2, ENDLESS)
    arm.until("epoch    3/")
    children = psutil.Process(arm.pid).children(recursive=True)
    assert len(children) >= 2
    os.kill(arm.pid, signal.SIGKILL)
    _, alive = psutil.wait_procs(children, timeout=30)
    assert not alive
    assert len({file.parent for file in (root / "work/own").glob("*/step-*.pt")}) == 2
    record_property("tried", json.dumps(
        ["Resume", "the parent of two seeds killed", 1, "both save their state and end"]))  # fmt: skip


def test_a_second_process_is_told_who_is_at_it(prepared, root, record_property):
    first = Arm(prepared, root, "arm", 1, ENDLESS)
    first.until("epoch    3/")
    started = psutil.Process(first.pid).create_time()
    status, out = Arm(prepared, root, "other", 1, ENDLESS).end()
    assert status != 0
    assert f"this run is being trained by process {first.pid}, started " in out
    told = re.search(r"started (\S+ \S+)\. Wait", out)[1]
    assert abs(time.mktime(time.strptime(told, "%Y-%m-%d %H:%M:%S")) - started) < 2
    assert f"or stop it: kill {first.pid}. It saves its state then." in out
    first.kill()
    third = Arm(prepared, root, "other", 1, ENDLESS)  # the lock died with its owner
    third.until("goes on after step")
    third.kill()
    record_property("tried", json.dumps(
        ["Resume", "a second process on the same run", 1, "refused with the first one's id and start"]))  # fmt: skip


def test_the_lock_is_free_again_after_an_error(tmp_path):
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), Checkpoints(tmp_path / "work/key", "key", quiet):
            1 / 0  # noqa: B018
    assert not list(tmp_path.glob("work/*.owner"))


def test_a_busy_run_without_a_note_of_its_owner(tmp_path):
    with Checkpoints(tmp_path / "work", "key", quiet):
        (tmp_path / "work.owner").write_text("{")
        busy = Checkpoints(tmp_path / "work", "key", quiet)
        with pytest.raises(InputError, match="is being trained by another process. Wait"), busy:
            pass


def test_a_stop_that_comes_after_the_last_state_is_not_forgotten(tmp_path):
    with pytest.raises(KeyboardInterrupt), Checkpoints(tmp_path / "work", "key", quiet):
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


# What else may go wrong ----------------------------------------------------------------------------


def run(recipe, prepared, root, arm="arm", say=quiet):
    folder = root / f"build/own/runs/{arm}/s{recipe.seed}"
    return runs.run(recipe, prepared, folder, device=CPU, say=say)


def test_what_was_finished_before_a_stop_is_not_trained_again(prepared, root, monkeypatch):
    """DVC removes the folder of an arm that was not finished; the seeds that were are in work/."""
    recipe = Recipe.of(PLAIN)
    first = run(recipe, prepared, root)
    runs.shutil.rmtree(root / "build")
    lines = []
    again = run(recipe, prepared, root, say=lines.append)
    assert any(line.startswith("weights of ") and line.endswith(": done before") for line in lines)
    assert again.about["weights_of"] == "" and again.about["seconds"] == first.about["seconds"]
    np.testing.assert_array_equal(again.counts["test"], first.counts["test"])


def test_a_trained_network_that_was_altered_is_trained_again(prepared, root):
    recipe = Recipe.of(PLAIN)
    run(recipe, prepared, root)
    (kept,) = (root / "work/own").glob("*/weights.pt")
    flipped(kept)
    runs.shutil.rmtree(root / "build")
    lines = []
    run(recipe, prepared, root, say=lines.append)
    assert not any(line.startswith("weights of ") for line in lines)


@pytest.mark.parametrize("change", [{"lr": 0.002}, {"seed": 1}, {"steps": STEPS - 1}, {"flip": 0.5}])
def test_states_and_results_of_other_settings_are_never_taken(prepared, root, always, change):
    run(Recipe.of(PLAIN), prepared, root, "first")
    (kept,) = (root / "work/own").glob("*/weights.pt")
    other = Recipe.of(PLAIN | change)
    lines = []
    found = run(other, prepared, root, "second", say=lines.append)
    assert not any("weights of" in line or "goes on" in line for line in lines)
    assert found.about["training"] != kept.parent.name
    moved = kept.parent.with_name(found.about["training"])  # put in its place by hand
    runs.shutil.rmtree(moved)
    runs.shutil.copytree(kept.parent, moved)
    runs.shutil.rmtree(root / "build")
    again = run(other, prepared, root, "second", say=lines.append)
    assert not any("weights of" in line for line in lines)
    np.testing.assert_array_equal(again.counts["test"], found.counts["test"])


def test_a_loss_that_is_not_finite_leaves_no_state(prepared, root, always, record_property):
    recipe = Recipe.of(PLAIN | {"lr": 1e30, "network": "baseline:0.05", "batch_size": 2})
    with pytest.raises(InputError, match=r"the loss is not finite at step 2: lr 1e\+30, images scene_"):
        run(recipe, prepared, root)
    assert not list((root / "work/own").glob("*/*"))
    assert [file.name for file in (root / "build").rglob("*") if file.is_file()] == ["failed.json"]
    record_property("tried", json.dumps(
        ["Faults", "a loss that is not finite", 1, "step, learning rate and images named; no state kept"]))  # fmt: skip


def test_the_images_that_are_named_are_those_of_the_step(scenes):
    recipe = Recipe.of(PLAIN | {"batch_size": 2})
    seen = []
    feed = train.batches(scenes["train"], 2, train._order_stream(recipe), CPU)
    for _, (images, _) in zip(range(5), feed, strict=False):
        seen.append([i for i in range(6) if any(np.array_equal(scenes["train"].images[i], x) for x in images)])  # fmt: skip
    losses = [torch.tensor(x) for x in (1.0, float("inf"), float("nan"))]
    with pytest.raises(train.Diverged) as caught:  # steps 3, 4 and 5
        train._check_finite(losses, 5, recipe, scenes["train"])
    assert "at step 4: " in str(caught.value)
    named = re.findall(r"scene_(\d+)", str(caught.value))
    assert sorted(map(int, named)) == seen[3]


@pytest.mark.parametrize("limited", ["a batch", "the scores"])
def test_want_of_memory_says_what_to_lower(prepared, root, monkeypatch, limited, record_property):
    """A real one: torch asks for more than the process may have."""
    large = (1 << 50,)
    if limited == "a batch":
        monkeypatch.setattr(train, "augment", lambda *_, **__: torch.empty(large))
    else:
        monkeypatch.setattr(runs, "evaluate", lambda *_, **__: torch.empty(large))
    with pytest.raises(InputError, match="out of memory with batch_size 4 and images of 48 x 96: lower"):
        run(Recipe.of(PLAIN), prepared, root)
    assert not list((root / "build").rglob("*.pt"))
    record_property("tried", json.dumps(
        ["Faults", f"no memory for {limited}", 1, "batch, size and what to lower are named"]))  # fmt: skip


def test_a_library_s_own_error_stays_what_it_is(scenes):
    with (
        pytest.raises(RuntimeError, match="shapes"),
        runs._enough_memory(Recipe.of(PLAIN), scenes["train"]),
    ):
        raise RuntimeError("shapes do not fit")


def test_a_process_that_runs_out_of_memory(prepared, root, record_property):
    settings = LONG | {"batch_size": 3_000}
    status, out = Arm(prepared, root, "arm", 1, settings, memory=2**28).end()
    assert status != 0
    assert "InputError: out of memory with batch_size 3000 and images of 48 x 96: lower" in out, out
    record_property("tried", json.dumps(
        ["Faults", "a process with a limit on its memory", 1, "batch, size and what to lower are named"]))  # fmt: skip


@pytest.fixture
def tmpfs(tmp_path):
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


def test_a_full_disk_costs_states_but_not_the_training(scenes, tmpfs, always, record_property):
    wanted, _ = trained(Recipe.of(PLAIN), scenes, None)
    lines = []
    found, _ = trained(Recipe.of(PLAIN), scenes, tmpfs / "work", say=lines.append)
    assert all(torch.equal(found[key], value) for key, value in wanted.items())
    told = [line for line in lines if "its state cannot be saved in" in line]
    assert told and "The training goes on" in told[0]
    assert not list(tmpfs.rglob("*.partial"))
    assert Checkpoints(tmpfs / "work", "key").newest()["step"] < STEPS - 1  # the last that fitted
    record_property("tried", json.dumps(
        ["Faults", "a full disk while a state is saved", len(told), "told; the training goes on"]))  # fmt: skip


def test_a_full_disk_for_results_is_one_message_and_nothing_is_half_written(
    prepared, tmpfs, monkeypatch, record_property
):
    for module in (runs, weights):
        monkeypatch.setattr(module, "ROOT", tmpfs)
    (tmpfs / "filler").write_bytes(b"x" * 5_800_000)
    lines = []
    with pytest.raises(InputError, match=r"s0: cannot be written \(No space left on device\). Make room"):
        run(Recipe.of(PLAIN), prepared, tmpfs, say=lines.append)
    assert not list(tmpfs.rglob("*.partial")) and not list(tmpfs.glob("build/own/runs/arm/*"))
    (tmpfs / "filler").unlink()
    record = run(Recipe.of(PLAIN), prepared, tmpfs)
    assert record.counts["test"].sum() > 0
    record_property("tried", json.dumps(
        ["Faults", "a full disk while results are written", 1, "one message; nothing half-written"]))  # fmt: skip
