"""Data larger than memory: what reading from disk costs, and how memory grows with the images.

Prepared folders of 150, 1,500 and 15,000 images repeat 150 drawn scenes. A run on each, scoring and
saving included, is a process of its own, whose peak memory Linux tells. Steps from memory and from
disk are timed in turn, in one process; Linux forgets the files before it reads them from disk.
"""

import dataclasses
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import page
import torch

from roadseg.config.paths import ROOT
from roadseg.config.recipe import Recipe
from roadseg.data.datasets import find_source
from roadseg.data.prepare import prepare
from roadseg.data.scenes import Scenes
from roadseg.training import batches
from roadseg.training.loop import train
from roadseg.training.run import Run, run_and_score

SYNTHETIC = {
    "source": "synthetic", "path": "roadseg/data/synthetic.py", "size": [64, 192], "seed": 5,
    "counts": {"train": 150, "val": 30, "test": 100}, "block": 1,
}  # fmt: skip
RECIPE = Recipe(network="fcn8s:tu-test_resnet", steps=40, class_balance=0.9999, flip=0.5)
COUNTS = (150, 1500, 15_000)
ROUNDS = 12


def repeated(small: Path, count: int) -> Path:
    """Return a prepared folder whose training images are those of another, again and again."""
    folder = small.with_name(f"n{count}")
    folder.mkdir()
    for file in small.iterdir():
        if not file.name.startswith("train"):
            (folder / file.name).symlink_to(file)
    for kind in ("images", "labels"):
        rows = np.load(small / f"train_{kind}.npy")
        shape = (count, *rows.shape[1:])
        array = np.lib.format.open_memmap(folder / f"train_{kind}.npy", "w+", rows.dtype, shape)
        for first in range(0, count, len(rows)):
            array[first : first + len(rows)] = rows
    about = json.loads((small / "scenes.json").read_text())
    train = about["splits"]["train"]
    about["splits"]["train"] = {key: value * (count // 150) for key, value in train.items()}
    (folder / "scenes.json").unlink()
    (folder / "scenes.json").write_text(json.dumps(about))
    return folder


def peak() -> int:
    """Return the most memory this process has held, in MiB, as Linux counts it."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) // 1024


def one_run(prepared: str, limit: str) -> None:
    """Train on a prepared folder and print the peak of memory: at the end, and before."""
    if limit:
        batches.RESIDENT_BYTES = int(limit)
    torch.set_num_threads(1)
    before = peak()
    with tempfile.TemporaryDirectory() as store:
        os.environ["DVC_ROOT"] = store  # where the run store is
        run_and_score(Run(RECIPE), Path(prepared), torch.device("cpu"), lambda _: None)
    print(peak(), before)


def step_times(prepared: Path) -> dict[str, np.ndarray]:
    """Return milliseconds a step, (ROUNDS,), with batches from memory and from disk, in turn."""
    scenes, val = (Scenes.load(prepared, split) for split in ("train", "val"))
    recipe = dataclasses.replace(RECIPE, class_balance=0.0)
    times = {"memory": [], "disk": []}
    for _ in range(ROUNDS + 1):
        for name, limit in (("memory", sys.maxsize), ("disk", 0)):
            batches.RESIDENT_BYTES = limit
            for kind in ("images", "labels"):
                with open(prepared / f"train_{kind}.npy", "rb") as file:
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            *_, seconds = train(recipe, scenes, val, device=torch.device("cpu"), say=lambda _: None)
            times[name].append(1000 * seconds / recipe.steps)
    return {name: np.array(each[1:]) for name, each in times.items()}


def main() -> None:
    """Write the page's section."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        small = Path(folder) / "small"
        prepare(SYNTHETIC, find_source(SYNTHETIC, ROOT), small)
        for count in COUNTS:
            prepared = repeated(small, count)
            scenes = Scenes.load(prepared, "train")
            for limit in ("", "0"):
                done = subprocess.run(
                    [sys.executable, __file__, str(prepared), limit], cwd=ROOT, check=True,
                    capture_output=True, text=True,
                )  # fmt: skip
                most, before = map(int, done.stdout.split())
                held = batches.fits(scenes, torch.device("cpu")) and not limit
                rows.append(
                    {
                        "images": f"{count:,}",
                        "on disk, MiB": (scenes.images.nbytes + scenes.labels.nbytes) // 2**20,
                        "chosen": "by size" if not limit else "disk",
                        "batches come from": "memory" if held else "disk",
                        "peak, MiB": most,
                        "before training, MiB": before,
                    }
                )
                print(rows[-1], flush=True)
        torch.set_num_threads(1)
        times = step_times(prepared)  # of the last and largest
    ratios = times["disk"] / times["memory"]
    low, ratio, high = np.percentile(ratios, [25, 50, 75])
    median = {name: np.median(each) for name, each in times.items()}
    page.section(
        "scale",
        f"{page.conditions()} {RECIPE.network}, batch {RECIPE.batch_size}, "
        f"{' x '.join(map(str, SYNTHETIC['size']))}, one thread.\n\n{page.table(rows)}\n\n"
        f"A step takes {median['memory']:.1f} ms with batches from memory and "
        f"{median['disk']:.1f} ms from disk; over {RECIPE.steps} steps, {ROUNDS} times in "
        f"turn, the median ratio is {ratio:.3f} (quartiles {low:.3f} to {high:.3f}).",
    )


if __name__ == "__main__":
    one_run(*sys.argv[1:]) if len(sys.argv) > 1 else main()
