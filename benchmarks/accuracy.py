"""Compare this code's scores with another revision's: the same recipe and seeds, both ways.

A change of arithmetic gives other last digits, and training makes other networks of them. Whether
they score differently is what a paired comparison over seeds and test images says.

    python benchmarks/accuracy.py HEAD~3 --seeds 20 --steps 160

The other revision must have the run store, as this one does.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import page

from roadseg.analysis import intervals
from roadseg.config.paths import ROOT
from roadseg.config.study import load
from roadseg.data.scenes import Scenes, blocks
from roadseg.training import metrics
from roadseg.training.store import Record

# A plain recipe, and one with most of what the embedded study's ladder changes in a step.
RECIPES = {
    "plain": {},
    "augmented and weighted": {
        "flip": 0.5, "scale_jitter": 1.25, "colour_jitter": 0.2, "hue_jitter": 15,
        "class_balance": 0.9999, "ohem_threshold": 0.5, "ohem_kept": 3000, "aux_weight": 0.4,
    },
}  # fmt: skip
TRAIN = """
import json, sys
from pathlib import Path
from roadseg.config.recipe import Recipe
from roadseg.training.question import train_question
from roadseg.training.run import Run
recipe, seeds, prepared, folder = json.loads(sys.argv[1])
runs = [Run(Recipe.of({**recipe, "seed": seed})) for seed in range(seeds)]
train_question({"arm": runs}, Path(prepared), Path(folder), say=lambda line: None)
"""


def main() -> None:
    """Train both ways and write the page's section."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("revision", help="what to compare with, as git names it")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--steps", type=int, default=160)
    options = parser.parse_args()
    study = load()
    start = study.arms["fcn-8s"]
    test = Scenes.load(study.prepared, "test")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        other = Path(folder) / "other"
        git("worktree", "add", "--detach", str(other), options.revision)
        try:
            for name, changes in RECIPES.items():
                recipe = {**start.differences(), **changes, "steps": options.steps}
                counts = []
                for tree in (other, ROOT):
                    records = Path(folder) / "runs" / tree.name / name
                    train(tree, [recipe, options.seeds, str(study.prepared), str(records)])
                    seeds = range(options.seeds)
                    arm_records = [Record.read(records / f"arm/s{seed}") for seed in seeds]
                    counts.append(np.stack([record.counts["test"] for record in arm_records]))
                means = [100 * metrics.miou(c.sum(1)).mean() for c in counts]
                gap = intervals.interval(
                    metrics.class_sums(counts[1]), blocks(test.sequences, 1),
                    metrics.class_sums(counts[0]),
                )  # fmt: skip
                rows.append(
                    {
                        "recipe": name,
                        "seeds": options.seeds,
                        "before, mIoU %": f"{means[0]:.2f}",
                        "after, mIoU %": f"{means[1]:.2f}",
                        "difference": f"{100 * gap.estimate:+.2f}",
                        "95 % interval": f"{100 * gap.low:+.2f} to {100 * gap.high:+.2f}",
                    }
                )
                print(rows[-1], flush=True)
        finally:
            git("worktree", "remove", "--force", str(other))
    before = git("rev-parse", "--short", options.revision)
    height, width = study.data["size"]
    page.section(
        "accuracy",
        f"{page.conditions()} {start.network}, {options.steps} steps, {height} x {width}, "
        f"batch {start.batch_size}; before is {before}, after the code that wrote this."
        f"\n\n{page.table(rows)}",
    )


def git(*arguments: str) -> str:
    """Run git here and return what it prints."""
    done = subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def train(tree: Path, arguments: list) -> None:
    """Train with the code of a tree, and with a run store that is not kept."""
    with tempfile.TemporaryDirectory() as store:
        subprocess.run(
            [sys.executable, "-c", TRAIN, json.dumps(arguments)], cwd=tree, check=True,
            env={**os.environ, "PYTHONPATH": str(tree), "DVC_ROOT": store},
        )  # fmt: skip


if __name__ == "__main__":
    main()
