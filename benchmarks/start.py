"""What an arm takes beside its training steps, item by item, and a `dvc repro` with nothing to do.

An arm of the embedded study is trained for one step with each of its seeds, in the same process and
notebook as the pipeline does it.
"""

import datetime
import json
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PARAMS = Path("build/bench/params.yaml")
ROUNDS = 7
CELLS = {  # of notebooks/train.ipynb, by their number after papermill has put parameters in
    3: "imports in the kernel: torch, torchvision, timm, pandas, matplotlib",
    4: "three seeds at once: network, first step, val and test scores, saving",
    6: "the picture of the curves",
}


def one_arm() -> None:
    """Train the arm, and print what it took as JSON: item -> seconds."""
    began = time.time()
    from roadseg import notebook
    from roadseg.study import load

    load(PARAMS)
    items = {"interpreter and imports": time.time() - began}
    cells = []
    read = notebook._read

    def spy(file: Path):
        found = read(file)
        if file.name.endswith(".failed.ipynb"):  # executed, with its times still in it
            cells.extend(dict(cell.metadata["papermill"]) for cell in found.cells)
        return found

    notebook._read = spy
    notebook.execute(
        ROOT / "notebooks/train.ipynb",
        ROOT / "build/bench/executed.ipynb",
        {"params": str(PARAMS), "arm": "fcn-8s", "out": "build/bench/runs/fcn-8s"},
    )
    ended = time.time()
    first = datetime.datetime.fromisoformat(cells[0]["start_time"]).timestamp()
    items["kernel, and meanwhile papermill"] = first - began - items["interpreter and imports"]
    for number, name in CELLS.items():
        items[name] = cells[number]["duration"]
    items["the rest"] = ended - began - sum(items.values())
    print(json.dumps(items))


def main() -> None:
    """Write the page's section."""
    import numpy as np
    import page
    from turns import spread

    from roadseg.study import load, read_yaml

    settings = read_yaml(ROOT / "params.yaml")
    settings["base"] |= {"steps": 1}
    ladder = {"question": "?", "start": "fcn-8s", "ladder": ["augmentation"]}
    settings["studies"] = {"fcn": settings["studies"]["fcn"], "ladder": ladder}
    settings["params"] = str(PARAMS)
    (ROOT / PARAMS).parent.mkdir(parents=True, exist_ok=True)
    (ROOT / PARAMS).write_text(json.dumps(settings))
    seeds = len(load(PARAMS).seeds)
    times, idle = [], []
    for turn in range(ROUNDS + 1):
        done = subprocess.run(
            [sys.executable, __file__, "arm"], cwd=ROOT, check=True, capture_output=True,
            text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        started = time.perf_counter()
        nothing = subprocess.run(
            ["dvc", "repro"], cwd=ROOT, check=True, capture_output=True, text=True
        )
        if turn:  # the first one fills caches
            times.append(json.loads(done.stdout.splitlines()[-1]))
            idle.append(time.perf_counter() - started)
    if "are up to date" not in nothing.stdout:
        raise SystemExit("dvc repro had something to do: run make report first")
    rows = [
        {"item": name, "seconds": spread(np.array([each[name] for each in times]))}
        for name in times[0]
    ]
    total = np.array([sum(each.values()) for each in times])
    rows.append({"item": f"**an arm of {seeds} seeds**", "seconds": f"**{spread(total)}**"})
    rows.append({"item": "**a run, one of its seeds**", "seconds": f"**{spread(total / seeds)}**"})
    rows.append({"item": "`dvc repro` with nothing to do", "seconds": spread(np.array(idle))})
    page.section(
        "start",
        f"{page.conditions()} Medians of {ROUNDS}, quartiles in brackets.\n\n{page.table(rows)}",
    )


if __name__ == "__main__":
    one_arm() if len(sys.argv) > 1 else main()
