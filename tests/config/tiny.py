"""Small studies as texts of their files, for several test files."""

import re

import pytest

from roadseg.config import study
from roadseg.errors import InputError

TINY = {
    "params.yaml": """\
study: tiny
title: A tiny study
root: .
folder: .
data: {source: synthetic, path: roadseg/data/synthetic.py, size: [64, 96], block: 1, seed: 0,
       counts: {train: 4, val: 2, test: 2}}
seeds: [0, 1]
base: {network: "fcn8s:resnet18", steps: 10}
questions:
  heads:
    asks: Which?
    networks: {baseline: baseline, fcn-8s: "fcn8s:resnet18"}
  ladder:
    asks: What helps?
    start: fcn-8s
    ladder: [flip, adamw, poly]
""",
    "tricks.yaml": """\
flip: {set: {flip: 0.5}, source: someone}
adamw: {set: {optimizer: adamw, weight_decay: 0.01}}
poly: {set: {schedule: poly}}
""",
    "networks.yaml": "# none\n",
}
MORE = """\
  without:
    asks: Which are needed?
    start: fcn-8s
    leave_one_out: [flip, adamw, poly]
  each:
    asks: What does each do?
    start: fcn-8s
    alone: [flip, poly]
  spread:
    asks: How far do seeds spread?
    start: fcn-8s
    noise: [0, 1, 2, 5]
"""
# One setting a line, so that each problem has a line of its own.
LONG = {
    "params.yaml": """\
study: tiny
title: A tiny study
root: .
folder: .
data:
  source: synthetic
  path: roadseg/data/synthetic.py
  size: [64, 96]
  block: 1
  seed: 0
  counts: {train: 4, val: 2, test: 2}
seeds: [0, 1]
base:
  network: fcn8s:resnet18
  steps: 10
  lr: 0.001
questions:
  heads:
    asks: Which?
    networks: {baseline: baseline, fcn-8s: "fcn8s:resnet18"}
  ladder:
    asks: What helps?
    start: fcn-8s
    ladder:
      - flip
      - adamw
  each:
    asks: And alone?
    start: with-flip
    alone: [adamw]
""",
    "tricks.yaml": """\
flip:
  set:
    flip: 0.5
adamw:
  set:
    optimizer: adamw
    weight_decay: 0.01
""",
    "networks.yaml": "",
}


def spoilt(files: dict[str, str], *changes: tuple[str, str]) -> dict[str, str]:
    """Return files with texts replaced, each in the first file that it stands in, once."""
    files = dict(files)
    for old, new in changes:
        name = next((name for name, text in files.items() if old in text), None)
        assert name, old
        files[name] = files[name].replace(old, new, 1)
    return files


def appended(files: dict[str, str], params: str = "", tricks: str = "", networks: str = ""):
    """Return files with something put at their ends."""
    more = {"params.yaml": params, "tricks.yaml": tricks, "networks.yaml": networks}
    return {**files, **{name: files[name] + text for name, text in more.items()}}


MANY = appended(TINY, MORE)
LISTED = appended(
    TINY,
    "  sizes:\n    asks: q\n    tricks: [search]\n    networks: [small, unet]\n",
    "search: {set: {lr_search: [0.5, 2.0], lr_search_steps: 3}}\n",
    'small: {network: "baseline:0.5", idea: i, source: s}\n'
    'unet: {network: "smp:unet:resnet18"}\n'
    'never: {network: "dabnet"}\n',
)


def write(folder, files: dict[str, str]):
    """Write a study's files, and return its params.yaml."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder / "params.yaml"


def load(folder, files: dict[str, str] = TINY) -> study.Study:
    return study.load(write(folder, files))


def problems(function) -> list[str]:
    """Return the problems of what `function` loads, each as 'FILE:LINE: ...'."""
    with pytest.raises(InputError) as caught:
        function()
    first, *rest = str(caught.value).split("\n")
    assert not rest or re.fullmatch(rf"\S*params\.yaml: {len(rest)} problems:", first)
    return rest or [first]


def refused(folder, files: dict[str, str]) -> list[str]:
    """Return the problems of a study's files, each as 'FILE:LINE: ...'."""
    return problems(lambda: load(folder, files))


def only(folder, files: dict[str, str]) -> str:
    """Return the one problem of a study's files, as 'FILE: ...'."""
    (problem,) = refused(folder, files)
    return re.sub(r"^(\S+?):\d+: ", r"\1: ", problem)


def places(lines: list[str]) -> list[str]:
    """Return where problems are, each as 'FILE:LINE: KEY: KEY', without the words that follow."""
    return [re.match(r"\S+?\.\w+(:\d+)?(: [^\s:'(]+(?=: ))*", line)[0] for line in lines]
