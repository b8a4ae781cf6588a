"""Runs the tests that try faults, stops and hostile input, also the slow ones; writes the page.

The tests tell what they tried by pytest's `record_property("tried", ...)`: area, what, how often,
outcome. A test that fails is in the table as well. Given tests as arguments, it runs these alone
and puts their rows into the table that is there, if that is of the same machine.
"""

import dataclasses
import json
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from xml.etree import ElementTree

import page
import torch

from roadseg.config.paths import ROOT
from roadseg.config.study import load
from roadseg.data.scenes import Scenes
from roadseg.training.evaluate import evaluate
from roadseg.training.loop import train
from roadseg.training.metrics import Confusion

PAGE = ROOT / "docs/reliability.md"
TELLS = 'record_property("tried"', " tell("
REPEATS = 5
STEPS = 300


def tried(file: Path) -> list[dict]:
    """Return a row for each thing that was tried; equal ones are one row, their numbers added.

    Parameters
    ----------
    file : pytest's report in JUnit's format
    """
    rows: dict[tuple[str, str, str], int] = {}
    for case in ElementTree.parse(file).iter("testcase"):
        name = f"{case.get('classname')}.{case.get('name')}"
        if case.find("failure") is not None or case.find("error") is not None:
            rows["FAILED", f"`{name}`", "did not come out as it should"] = 1
        elif case.find("skipped") is not None:
            rows["not tried", f"`{name}`", case.find("skipped").get("message")] = 0
        for record in case.iter("property"):
            if record.get("name") == "tried":
                area, what, times, outcome = json.loads(record.get("value"))
                key = area, what, outcome
                rows[key] = rows.get(key, 0) + times
    return [
        {"area": area, "tried": what, "times": f"{times:,}", "outcome": outcome}
        for (area, what, outcome), times in sorted(rows.items())
    ]


def spread() -> str:
    """Return how far equal trainings differ on a GPU, and what it costs that they do not."""
    if not torch.cuda.is_available():
        return "Not measured: no GPU was at hand."
    study, device = load(), torch.device("cuda")
    recipe = dataclasses.replace(study.arms["fcn-8s"], steps=STEPS)
    scenes, val = (Scenes.load(study.prepared, split) for split in ("train", "val"))
    rows, without = [], set()
    for deterministic in (False, True):
        torch.use_deterministic_algorithms(deterministic, warn_only=True)
        scores, seconds, weights = [], [], []
        for _ in range(REPEATS):
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                started = time.perf_counter()
                network, *_ = train(recipe, scenes, val, device=device, say=lambda _: None)
                seconds.append(time.perf_counter() - started)
            messages = [str(each.message) for each in caught]
            without |= {text.split()[0] for text in messages if "deterministic" in text}
            counts = evaluate(network, val, device, **recipe.testing).sum(0)
            scores.append(100 * Confusion(counts).miou)
            weights.append(torch.cat([p.detach().flatten() for p in network.parameters()]))
        torch.use_deterministic_algorithms(False)
        equal = sum(bool(torch.equal(w, weights[0])) for w in weights)
        rows.append(
            {
                "deterministic algorithms": "yes" if deterministic else "no",
                "repeats": str(REPEATS),
                "of equal weights": str(equal),
                "val mIoU, %": f"{min(scores):.2f} to {max(scores):.2f}",
                "median seconds": f"{sorted(seconds)[REPEATS // 2]:.1f}",
            }
        )
    left = f" Without a deterministic form: {', '.join(sorted(without))}." if without else ""
    what = f"{recipe.architecture}, {STEPS} steps, the embedded study's scenes."
    return f"{what}{left}\n\n{page.table(rows)}"


def table_rows(text: str) -> list[dict]:
    """Return the rows of the page's table."""
    section = text.partition("<!-- tried: written by a benchmark -->")[2]
    section = section.partition("<!-- tried: end -->")[0]
    cells = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in section.splitlines()
        if line.startswith("|") and not line.startswith("|:")
    ]
    return [dict(zip(cells[0], row, strict=True)) for row in cells[1:]]


def merged(before: list[dict], rows: list[dict], tests: list[str]) -> list[dict]:
    """Return the rows of a table with those of some tests that were run again."""
    names = [test.rpartition("::")[2] for test in tests]
    failed = [
        row
        for row in before
        if row["area"] in ("FAILED", "not tried")
        and any(f".{name}`" in row["tried"] or f".{name}[" in row["tried"] for name in names)
    ]
    table = {(r["area"], r["tried"]): r for r in before if r not in failed}
    table |= {(row["area"], row["tried"]): row for row in rows}
    return [table[key] for key in sorted(table)]


def main(tests: list[str]) -> int:
    """Run the tests and write the page; return pytest's exit status."""
    machine = page.conditions().rpartition(", ")[0]
    if tests and machine not in PAGE.read_text():
        raise SystemExit(f"{PAGE}: its table is of another machine; run all tests.")
    texts = {file: file.read_text() for file in sorted((ROOT / "tests").rglob("test_*.py"))}
    files = [file for file, text in texts.items() if any(tells in text for tells in TELLS)]
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "tried.xml"
        options = ["-m", "slow or not slow", f"--junitxml={report}"]
        command = [sys.executable, "-m", "pytest", *options, *(tests or files)]
        done = subprocess.run(command, cwd=ROOT)
        rows = tried(report)
    if tests:
        rows = merged(table_rows(PAGE.read_text()), rows, tests)
    page.section("tried", f"{page.conditions()}\n\n{page.table(rows)}", PAGE)
    if tests:
        return done.returncode
    page.section("gpu", f"{page.conditions()} {spread()}", PAGE)
    return done.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
