"""Tiny recipes, and processes that train them, for several test files."""

import contextlib
import json
import multiprocessing
import os
import re
import signal
import sys
import time

import torch

from roadseg.config import paths
from roadseg.config.recipe import Recipe
from roadseg.config.study import load
from roadseg.training import checkpoints
from roadseg.training.question import train_question
from roadseg.training.run import Run, run_and_score, write_out
from roadseg.training.store import Record

CPU = torch.device("cpu")
TINY = Recipe(
    network="fcn8s:tu-test_resnet", steps=3, batch_size=2, precision="fp32", lr=0.001
)  # fmt: skip
SMALLEST = TINY.changed({"network": "baseline:0.05"})
# Many steps of a few milliseconds each, with every epoch told.
LONG = SMALLEST.changed({"batch_norm": True, "steps": 60, "flip": 0.5, "lr": 0.0003})
ENDLESS = LONG.changed({"steps": 1_000_000})


def quiet(_):
    pass


def give_own_root(monkeypatch, root):
    """Let the project's root be a folder: work/ and build/ are there then."""
    monkeypatch.setattr(paths, "ROOT", root)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    return root


def done(recipe, prepared, say=quiet, search_seed=0):
    """Train and score a recipe unless the store has it; return what was done."""
    return run_and_score(Run(recipe, search_seed), prepared, CPU, say)


def copied(recipe, prepared, folder, search_seed=0):
    """Copy a run out of the store, and read it back."""
    folder.mkdir(parents=True, exist_ok=True)
    write_out(Run(recipe, search_seed), prepared, CPU, folder)
    return Record.read(folder)


def run(recipe, prepared, root, arm="arm", say=quiet):
    """Do a run, and copy it where another study would look for it."""
    done(recipe, prepared, say)
    return copied(recipe, prepared, root / f"build/own/runs/question/{arm}/s{recipe.seed}")


def weights_of(root, arm="arm", seed=0):
    file = root / f"build/own/runs/question/{arm}/s{seed}/weights.pt"
    return torch.load(file, weights_only=True)


PARAMS = """\
study: synthetic
title: t
root: .
folder: .
data: {{source: synthetic, path: roadseg/data/synthetic.py, size: [48, 96], seed: 3, block: 1,
  counts: {{train: 6, val: 2, test: 4}}}}
seeds: {seeds}
base: {{network: "fcn8s:tu-test_resnet", steps: 3, batch_size: 2, precision: fp32, lr: 0.001}}
questions:
{questions}"""
NETWORKS = """\
baseline: {network: "baseline:0.05"}
fcn: {network: "fcn8s:tu-test_resnet"}
"""


def toy_study(root, prepared, questions, tricks="flip: {set: {flip: 0.5}}\n", seeds=(0, 1)):
    """Write a study into a root, with prepared scenes, and load it."""
    indented = "".join(f"  {line}\n" for line in questions.splitlines())
    (root / "params.yaml").write_text(PARAMS.format(questions=indented, seeds=list(seeds)))
    (root / "tricks.yaml").write_text(tricks)
    (root / "networks.yaml").write_text(NETWORKS)
    (root / "remarks.md").touch()
    study = load()
    study.prepared.mkdir(parents=True, exist_ok=True)
    for file in prepared.iterdir():
        place = study.prepared / file.name
        if file.name == "scenes.json":
            about = json.loads(file.read_text()) | {"settings": study.arrays}
            place.write_text(json.dumps(about))
        elif not place.exists():
            place.symlink_to(file)
    return study


# Processes -----------------------------------------------------------------------------------------

# A server that has imported torch forks them: that is much faster than to begin anew each time.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["roadseg.training.question", "toys"])


def _begin(function, arguments, out):
    os.setsid()
    multiprocessing.set_start_method("fork", force=True)  # as where no such server began it
    for stream in (1, 2):
        os.dup2(os.open(out, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
    sys.stdout = sys.stderr = open(1, "w", buffering=1)  # noqa: SIM115
    function(*arguments)
    print("done")


class Process:
    """A function in a process and a session of its own, and what it has printed."""

    begun = []

    @classmethod
    def kill_all(cls):
        """Kill what a test that failed may have left."""
        while cls.begun:
            cls.begun.pop().kill()

    def __init__(self, folder, function, *arguments):
        folder.mkdir(exist_ok=True)
        self.out = folder / f"{len(list(folder.glob('*.log')))}.log"
        self.process = CONTEXT.Process(target=_begin, args=(function, arguments, self.out))
        self.process.start()
        self.pid = self.process.pid
        self.begun.append(self)

    @property
    def text(self):
        return self.out.read_text() if self.out.exists() else ""

    def until(self, pattern):
        self.wait(lambda: re.search(pattern, self.text))

    def until_step(self, step):
        self.wait(lambda: any(int(n) >= step for n in re.findall(r" step +(\d+)/", self.text)))

    def wait(self, reached):
        deadline = time.monotonic() + 120
        while not reached():
            assert self.process.is_alive() or reached(), self.text
            assert time.monotonic() < deadline, self.text
            time.sleep(0.01)

    def kill(self):
        """Kill it and all its children at once, as a power cut does."""
        with contextlib.suppress(ProcessLookupError):  # before it has its own group, or after its end
            os.killpg(self.pid, signal.SIGKILL)
        self.process.kill()
        return self.end()

    def end(self, seconds=120):
        self.process.join(seconds)
        assert self.process.exitcode is not None, self.text
        return self.process.exitcode, self.text


def set_up(root, pause=0.1):
    """Give a process a root of its own, one thread, and a state saved ten times a second."""
    paths.ROOT = root
    os.environ.pop("DVC_ROOT", None)
    checkpoints.MIN_PAUSE, checkpoints.MAX_SAVE_SHARE = pause, 1e9
    torch.set_num_threads(1)


def train_one(root, prepared, recipe):
    """Train a recipe in the process itself, as on a GPU."""
    set_up(root)
    done(recipe, prepared, say=print)


def train_arms(root, prepared, arms, at_once=2, pause=0.1):
    """Train a question, as a notebook's kernel does."""
    set_up(root, pause)
    this_process, threads = os.getpid(), torch.get_num_threads
    torch.get_num_threads = lambda: at_once if os.getpid() == this_process else threads()
    runs = {arm: [Run(recipe) for recipe in recipes] for arm, recipes in arms.items()}
    train_question(runs, prepared, root / "build/own/runs/question", device=CPU)
