"""What a whole `dvc repro` of the embedded study takes, and how much of it is training.

It runs in a temporary copy of the project, so that nothing is taken from a cache or a run store.
"""

import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from pathlib import Path
from statistics import median

import page
import torch

from roadseg.config.paths import ROOT
from roadseg.training.device import default_device

IDLE = 5  # calls with nothing to do
MADE = ("results/", "reports/", "dvc.lock")  # in git, and made anew


def copy_project(folder: Path) -> Path:
    """Copy what git knows, or would, apart from what the pipeline makes."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, check=True,
        capture_output=True, text=True,
    )  # fmt: skip
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file() and not name.startswith(MADE):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    return folder


def repro(project: Path) -> tuple[Counter, float]:
    """Run `dvc repro`; return the seconds of each stage, in order, and of all of it.

    A stage lasts until DVC names the next one: what DVC does for it is part of it.
    """
    stages, current, log = Counter(), None, ""
    environment = {k: v for k, v in os.environ.items() if k != "DVC_ROOT"}
    environment |= {"PYTHONPATH": str(project), "PYTHONUNBUFFERED": "1"}
    began = last = time.perf_counter()
    with subprocess.Popen(
        ["dvc", "repro"], cwd=project, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env=environment,
    ) as process:  # fmt: skip
        for line in process.stdout:
            log += line
            if match := re.match(r"Running stage '([^']+)'", line):
                now = time.perf_counter()
                stages[current or "(DVC's own start)"] += now - last
                current, last = match[1], now
    if process.returncode:
        raise SystemExit(f"{log}\ndvc repro failed, with what is above")
    ended = time.perf_counter()
    stages[current or "(nothing to do)"] += ended - last
    return stages, ended - began


def training_seconds(project: Path) -> float:
    """Return the seconds that one thread each spent in training steps, each training once."""
    records = project.glob("work/runs/*/training.json")
    return sum(json.loads(record.read_text())["about"]["seconds"] for record in records)


def measure(project: Path, workers: int) -> str:
    """Return the section's tables, of a study whose pipeline has not run."""
    stages, whole = repro(project)
    threads = training_seconds(project)
    train = sum(seconds for name, seconds in stages.items() if name.startswith("train@"))
    idle = []
    for _ in range(IDLE):
        ran, seconds = repro(project)
        if list(ran) != ["(nothing to do)"]:
            raise SystemExit(f"dvc repro had something to do: {', '.join(ran)}")
        idle.append(seconds)
    stages = [{"stage": name, "seconds": f"{seconds:.1f}"} for name, seconds in stages.items()]
    totals_by_name = {
        "all of `dvc repro`, s": f"{whole:.1f}",
        "all train stages, s": f"{train:.1f}",
        "training steps, seconds of one thread": f"{threads:.1f}",
        "processes at a time": str(workers),
        "train stages / (training steps / processes)": f"{train * workers / threads:.2f}",
        "all of `dvc repro` / (training steps / processes)": f"{whole * workers / threads:.2f}",
        f"`dvc repro` with nothing to do, median of {IDLE}, s": f"{median(idle):.1f}",
    }
    totals = [{"total": name, "value": value} for name, value in totals_by_name.items()]
    return f"{page.table(stages)}\n\n{page.table(totals)}"


def main() -> None:
    """Write the page's section."""
    workers = 1 if default_device().type == "cuda" else torch.get_num_threads()
    with tempfile.TemporaryDirectory() as folder:
        tables = measure(copy_project(Path(folder)), workers)
    page.section("start", f"{page.conditions()}\n\n{tables}")


if __name__ == "__main__":
    main()
