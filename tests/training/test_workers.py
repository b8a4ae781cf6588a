"""Jobs in processes: each is done, whatever happens to the others, and none outlives its parent."""

import os
import re
import signal
import time
from functools import partial

import psutil
import pytest
import torch
import toys
from toys import CPU, ENDLESS, Process, train_arms

from roadseg.errors import InputError
from roadseg.training.loop import Diverged
from roadseg.training.workers import CONTEXT, Outcome, run_jobs, values_of


@pytest.fixture(autouse=True)
def nothing_left():
    yield
    Process.kill_all()


@pytest.fixture
def two_at_once(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)


def test_values_come_back_by_name_and_a_failure_is_reported(two_at_once):
    jobs = {name: partial(len, name) for name in ("a", "bb", "ccc")}
    assert values_of(jobs, CPU) == {"a": 1, "bb": 2, "ccc": 3}
    with pytest.raises(InputError, match="bad: "):
        values_of({**jobs, "bad": partial(len, 3)}, CPU)


def give(value, say):
    say(f"gives {value}")
    return value


def refuse(say):
    raise InputError("this is not allowed")


def diverge(say):
    raise Diverged("the loss is not finite")


def break_down(say):
    return {}["gone"]


def die(say):
    say("about to die")
    os.kill(os.getpid(), signal.SIGKILL)


def leave(say):
    os._exit(3)


def wait(seconds, name, say):
    say(name)
    time.sleep(seconds)


def count_threads(say):
    return torch.get_num_threads()


def test_the_longest_jobs_come_first_once_one_of_their_kind_has_ended(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    lines = []
    seconds = {"short-0": 0, "short-1": 0, "long-0": 0.2, "long-1": 0.2, "long-2": 0.2}
    run_jobs(
        {name: partial(wait, each, name) for name, each in seconds.items()}, CPU, lines.append,
        {name: name.split("-")[0] for name in seconds},
    )  # fmt: skip
    order = ["short-0", "long-0", "long-1", "long-2", "short-1"]
    assert [line.split()[0] for line in lines] == order


def test_each_job_ends_in_its_own_way_and_the_others_are_done(two_at_once):
    lines = []
    jobs = {"first": lambda say: give(1, say), "refused": refuse, "diverged": diverge,
            "broken": break_down, "killed": die, "left": leave,
            "last": lambda say: give([2, None], say)}  # fmt: skip
    ended = run_jobs(jobs, CPU, lines.append)
    assert list(ended) == list(jobs)
    assert ended["first"] == Outcome("done", 1) and ended["last"] == Outcome("done", [2, None])
    assert ended["refused"] == Outcome("failed", "this is not allowed")
    assert ended["diverged"] == Outcome("diverged", "the loss is not finite")
    assert ended["broken"].how == "failed"
    assert "KeyError: 'gone'" in ended["broken"].value and "in break_down" in ended["broken"].value
    for name in ("killed", "left"):
        assert ended[name].how == "failed" and "its process was killed" in ended[name].value
    assert set(lines) == {
        "first  gives 1", "last  gives [2, None]", "killed  about to die",
        "diverged  the loss is not finite",
    }  # fmt: skip


@pytest.mark.parametrize("cores", [1, 3])
def test_as_many_at_a_time_as_there_are_cores(monkeypatch, cores):
    """So many that they can wait for one another, and no more."""
    meeting = CONTEXT.Barrier(cores)
    running = CONTEXT.Value("i", 0)
    monkeypatch.setattr(torch, "get_num_threads", lambda: cores)

    def meet(say):
        with running:
            running.value += 1
            most = running.value
        meeting.wait(60)
        with running:
            most = max(most, running.value)
            running.value -= 1
        return most

    ended = run_jobs({str(i): meet for i in range(2 * cores)}, CPU, toys.quiet)
    assert {outcome.how for outcome in ended.values()} == {"done"}
    assert max(outcome.value for outcome in ended.values()) == cores


def test_a_child_computes_with_one_thread_whatever_its_parent_has():
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        ended = run_jobs({"one": count_threads, "other": count_threads}, CPU, toys.quiet)
        assert {outcome.value for outcome in ended.values()} == {1}
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)


def test_on_a_gpu_one_after_the_other_in_this_process():
    lines = []
    jobs = {"own": lambda say: os.getpid(), "broken": break_down, "diverged": diverge,
            "said": lambda say: give(1, say)}  # fmt: skip
    ended = run_jobs(jobs, torch.device("cuda"), lines.append)
    assert ended["own"] == Outcome("done", os.getpid()) and ended["broken"].how == "failed"
    assert ended["diverged"].how == "diverged" and ended["said"].value == 1
    assert lines == ["diverged  the loss is not finite", "said  gives 1"]


# Stops ---------------------------------------------------------------------------------------------

TWO = {"arm": [ENDLESS, ENDLESS.changed({"seed": 1})], "other": [ENDLESS.changed({"lr": 0.0001})]}
# Two arms whose encoders start from one pre-training, which one of them does and the other awaits.
def states(root):
    return {file.parent.name for file in (root / "work/runs").glob("*/step-*.pt")}


def children_of(process):
    return psutil.Process(process.pid).children(recursive=True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_children_end_with_their_parent_and_have_saved_their_state(
    prepared, tmp_path, number, record_property
):
    """Ctrl-C in the parent alone, as in a notebook; and a parent that is killed."""
    only_when_stopped = 3600
    process = Process(tmp_path, train_arms, tmp_path, prepared, TWO, 2, only_when_stopped)
    for job in ("arm-s0", "arm-s1"):
        process.until(rf"{job}  epoch +2/")
    children = children_of(process)
    assert len(children) == 2
    began = time.monotonic()
    os.kill(process.pid, number)
    status, text = process.end(30)
    _, alive = psutil.wait_procs(children, timeout=30)
    assert not alive and time.monotonic() - began < 20
    assert len(states(tmp_path)) == 2
    assert status != 0 and not re.search("other-s0", text)  # it never began
    if number == signal.SIGINT:
        assert text.endswith("KeyboardInterrupt\n")
        stopped = re.findall(r"^(\S+)  stopped at step (\d+)", text, re.M)
        assert sorted(name for name, _ in stopped) == ["arm-s0", "arm-s1"]
        steps = {int(f.name.split("-")[1]) for f in (tmp_path / "work/runs").glob("*/step-*.pt")}
        assert steps >= {int(step) for _, step in stopped}
    assert not list(tmp_path.rglob("*.partial")) and not (tmp_path / "build").exists()
