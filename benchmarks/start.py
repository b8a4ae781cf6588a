"""What an arm takes beside its training steps, item by item, and a `dvc repro` with nothing to do.

An arm of the embedded study is trained for one step with each of its seeds, in the same process and
notebook as the pipeline does it; and with one seed alone, which is then taken apart further.
"""

import datetime
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = Path("build/bench")
ROUNDS = 7
CELLS = {  # of notebooks/train.ipynb, by what is in them
    "import pandas": "imports in the kernel: torch, torchvision, timm, pandas, matplotlib",
    "runs.run_all(": "training: data, network, first step, val and test scores, saving",
    ".plot(": "the picture of the curves",
}


def one_arm(params: str, began: float) -> None:
    """Train the arm, and print what it took as JSON: item -> seconds."""
    from roadseg.config.study import load
    from roadseg.report import notebooks as notebook

    load(params)
    items = {"interpreter, settings, notebook format": time.time() - began}
    cells = []
    read = notebook._read

    def spy(file: Path):
        found = read(file)
        if file.name.endswith(".failed.ipynb"):  # executed, with its times still in it
            cells.extend((c.source, dict(c.metadata["papermill"])) for c in found.cells)
        return found

    notebook._read = spy
    notebook.execute(
        ROOT / "notebooks/train.ipynb",
        ROOT / FOLDER / "executed.ipynb",
        {"params": params, "arm": "fcn-8s", "out": str(FOLDER / "runs/fcn-8s")},
    )
    ended = time.time()
    first = datetime.datetime.fromisoformat(cells[0][1]["start_time"]).timestamp()
    items["kernel, and meanwhile papermill"] = first - began - sum(items.values())
    for part, name in CELLS.items():
        (items[name],) = (times["duration"] for source, times in cells if part in source)
    items["the rest"] = ended - began - sum(items.values())
    print(json.dumps(items))


def one_run(params: str) -> None:
    """Train one run in this process, and print its parts as JSON: item -> seconds."""
    import torch

    from roadseg.config import study
    from roadseg.training import run as runs

    torch.set_num_threads(1)
    plan, parts = study.load(params), {}

    def apart(name: str, part: str) -> None:
        whole = getattr(runs, name)

        def timed(*arguments, **options):
            started = time.perf_counter()
            found = whole(*arguments, **options)
            parts[part] = parts.get(part, 0.0) + time.perf_counter() - started
            return found

        setattr(runs, name, timed)

    apart("train", "network, first step, and its val score")
    apart("evaluate", "val and test scores")
    apart("_keep", "saving weights, curve and record")
    started = time.perf_counter()
    folder = ROOT / FOLDER / "runs/alone/s0"
    runs.run(plan.arms["fcn-8s"], plan.prepared, folder, say=lambda _: None)
    parts["the rest: opening data, saving counts"] = (
        time.perf_counter() - started - sum(parts.values())
    )
    print(json.dumps(parts))


def main() -> None:
    """Write the page's section."""
    import numpy as np
    import page
    from turns import spread

    from roadseg.config.study import read_yaml

    settings = read_yaml(ROOT / "params.yaml")
    settings["base"] |= {"steps": 1}
    ladder = {"question": "?", "start": "fcn-8s", "ladder": ["augmentation"]}
    settings["studies"] = {"fcn": settings["studies"]["fcn"], "ladder": ladder}
    several = len(settings["seeds"])
    (ROOT / FOLDER).mkdir(parents=True, exist_ok=True)
    files = {several: FOLDER / "several.yaml", 1: FOLDER / "one.yaml"}
    for seeds, file in files.items():
        settings |= {"seeds": list(range(seeds)), "params": str(file)}
        (ROOT / file).write_text(json.dumps(settings))

    def told(*arguments: str) -> dict[str, float]:
        for kept in (ROOT / FOLDER / "runs", ROOT / "work" / FOLDER.name):
            shutil.rmtree(kept, ignore_errors=True)  # or weights would be taken
        done = subprocess.run(
            [sys.executable, __file__, *arguments], cwd=ROOT, check=True, capture_output=True,
            text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        return json.loads(done.stdout.splitlines()[-1])

    arms, parts, idle = {seeds: [] for seeds in files}, [], []
    for turn in range(ROUNDS + 1):
        found = {seeds: told(str(file), str(time.time())) for seeds, file in files.items()}
        run = told(str(files[1]))
        started = time.perf_counter()
        nothing = subprocess.run(
            ["dvc", "repro"], cwd=ROOT, check=True, capture_output=True, text=True
        )
        if turn:  # the first one fills caches
            idle.append(time.perf_counter() - started)
            parts.append(run)
            for seeds, items in found.items():
                arms[seeds].append(items)
    if "are up to date" not in nothing.stdout:
        raise SystemExit("dvc repro had something to do: run make report first")

    def column(found: list[dict[str, float]], name: str) -> str:
        return spread(np.array([each[name] for each in found]))

    heads = {seeds: f"{seeds} seed{'s' if seeds > 1 else ''}, s" for seeds in files}
    rows = [
        {"item": name} | {heads[seeds]: column(arms[seeds], name) for seeds in files}
        for name in arms[1][0]
    ]
    totals = {seeds: np.array([sum(each.values()) for each in arms[seeds]]) for seeds in files}
    rows.append({"item": "**an arm**"} | {heads[s]: f"**{spread(t)}**" for s, t in totals.items()})
    rows.append({"item": "a run's share"} | {heads[s]: spread(t / s) for s, t in totals.items()})
    inside = [{"item": name, "seconds": column(parts, name)} for name in parts[0]]
    inside.append({"item": "`dvc repro` with nothing to do", "seconds": spread(np.array(idle))})
    page.section(
        "start",
        f"{page.conditions()} Medians of {ROUNDS}, quartiles in brackets.\n\n{page.table(rows)}"
        f"\n\nOne run's training, on one thread and with all imported; and DVC:\n\n"
        f"{page.table(inside)}",
    )


if __name__ == "__main__":
    if len(sys.argv) == 3:
        one_arm(sys.argv[1], float(sys.argv[2]))
    elif len(sys.argv) == 2:
        one_run(sys.argv[1])
    else:
        main()
