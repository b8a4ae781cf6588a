"""What a new user gets from 150 labelled images in a quarter of an hour.

    ROADSEG_CAMVID=/path/to/camvid python benchmarks/own_data.py

150 of CamVid's training images, every so many in order of names, become a folder of one's own, with
val and test images taken from them by stretches of ten. `check`, `start` and `dvc repro` run as
README says, in a temporary copy of the project. Afterwards the networks are scored on CamVid's own
test images, which none of these steps sees.
"""

import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import page
import torch
from start import copy_project

from roadseg.config.recipe import Recipe
from roadseg.config.yaml import read_yaml
from roadseg.data.datasets import find_source
from roadseg.data.prepare import prepare
from roadseg.data.scenes import CAMVID, Scenes
from roadseg.training.device import default_device
from roadseg.training.evaluate import evaluate
from roadseg.training.loop import make_network
from roadseg.training.metrics import Confusion

IMAGES, NAME = 150, "mine"
DESCRIPTION = f"""\
images: images
labels: labels
classes: [{", ".join(name.replace(" ", "-") for name in CAMVID)}]
unlabelled: 11
sequence: 10
splits: {{val: 0.15, test: 0.15}}
"""


def folder_of(camvid: Path, folder: Path) -> None:
    """Write the user's folder."""
    names = sorted(file.name for file in (camvid / "train").glob("*.png"))
    chosen = [names[round(i * (len(names) - 1) / (IMAGES - 1))] for i in range(IMAGES)]
    for part, source in (("images", "train"), ("labels", "trainannot")):
        (folder / part).mkdir(parents=True)
        for name in chosen:
            shutil.copy(camvid / source / name, folder / part / name)
    (folder / "dataset.yaml").write_text(DESCRIPTION)


def run_command(project: Path, *command: str) -> float:
    """Run a command in the project; return its seconds."""
    began = time.perf_counter()
    kept = {k: v for k, v in os.environ.items() if k != "DVC_ROOT"}
    subprocess.run(command, cwd=project, check=True, env=kept | {"PYTHONPATH": str(project)})
    return time.perf_counter() - began


def score_run(run: Path, test: Scenes) -> Confusion:
    """Return what a run's network comes to on CamVid's test images."""
    record = json.loads((run / "record.json").read_text())
    recipe = Recipe.of(record["recipe"])
    network = make_network(recipe, len(test.classes))
    weights = torch.load(run / "weights.pt", weights_only=True, map_location="cpu")
    network.load_state_dict(weights)
    device = default_device()
    network = network.to(device, memory_format=torch.channels_last).eval()
    return Confusion(evaluate(network, test, device, **recipe.testing).sum(0))


def main() -> None:
    """Do what a new user does, score it, and write the page's section."""
    camvid = Path(os.environ["ROADSEG_CAMVID"])
    with tempfile.TemporaryDirectory() as temporary:
        project = Path(temporary) / "project"
        project.mkdir()
        copy_project(project)
        folder_of(camvid, project / "data/raw" / NAME)
        raw = f"data/raw/{NAME}"
        python = ["python", "-m", "roadseg"]
        seconds = {
            "`check`": run_command(project, *python, "check", raw),
            "`start`": run_command(project, *python, "start", NAME, raw),
            "`make report`": run_command(project, "dvc", "repro", f"studies/{NAME}/dvc.yaml"),
        }
        settings = read_yaml(project / f"studies/{NAME}/params.yaml")
        about = json.loads((project / f"data/prepared/{NAME}/scenes.json").read_text())
        size = [360, 480]
        given = {"source": "camvid", "path": str(camvid), "size": size}
        prepare(given, find_source(given, project), project / "camvid")
        test = Scenes.load(project / "camvid", "test")
        runs = sorted((project / f"build/{NAME}/runs").glob("*/*/s*/record.json"))
        confusions = [score_run(record.parent, test) for record in runs]
    counts = {split: len(kept["names"]) for split, kept in about["splits"].items()}
    base = settings["base"]
    rows = [{"step": name, "seconds": f"{taken:.0f}"} for name, taken in seconds.items()]
    rows.append({"step": "together", "seconds": f"{sum(seconds.values()):.0f}"})
    scores = [
        {"seed": seed, "mIoU on CamVid's test images, %": f"{100 * confusion.miou:.1f}"}
        | {name: f"{100 * iou:.0f}" for name, iou in zip(CAMVID, confusion.iou, strict=True)}
        for seed, confusion in enumerate(confusions)
    ]
    conditions = (
        f"{page.conditions()} {counts['train']} images to train on, {counts['val']} for val, "
        f"{counts['test']} for test; `start` chose {base['steps']} steps of batch "
        f"{base['batch_size']} at {' x '.join(map(str, settings['data']['size']))}. "
        f"Scored on {len(test)} images at {size[0]} x {size[1]}."
    )
    page.section(
        "own", f"{conditions}\n\n{page.table(rows)}\n\n{page.table(scores)}",
        page.PAGE.with_name("weights.md"),
    )  # fmt: skip


if __name__ == "__main__":
    main()
