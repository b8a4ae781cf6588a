"""How long planning, tables and report take for 60, 250 and 1000 runs, training left out.

In a temporary copy of the project it makes studies of made-up tricks on one network: ladders, each
trick alone, all but one, seeds only, and six networks. Every run gets a record with drawn pixel
counts, as large as the embedded study's; only the networks that the report looks through have
weights, random ones. Each size is timed in a process of its own.

`growth` is what a further run costs from the middle size to the largest, over what it costs from
the smallest to the middle one: 1 is linear, and parts that are as long at any size show no growth.
"""

import argparse
import cProfile
import dataclasses
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve()
COPIED = (
    "roadseg", "notebooks", "data/reference.csv", "data/reference_classes.csv",
    "data/reference_ladder.csv",
)  # fmt: skip
NETWORKS = {
    "baseline": "baseline:0.25", "fcn-32s": "fcn32s:tu-test_resnet",
    "fcn-8s": "fcn8s:tu-test_resnet", "pspnet-light": "smp:pspnet:tu-test_resnet",
    "unet-eighth": "unet:0.125", "dabnet-half": "dabnet:0.5",
}  # fmt: skip
# Knobs of a family's tricks, each with the family's number in its strength: no two are equal.
FAMILY = {
    "flip": lambda n: {"flip": 0.2 + n / 100},
    "decay": lambda n: {"optimizer": "adamw", "weight_decay": 0.01 + n / 1000},
    "smooth": lambda n: {"label_smoothing": 0.05 + n / 1000},
    "dice": lambda n: {"dice_weight": 0.5 + n / 100},
    "average": lambda n: {"ema_decay": 0.9 + n / 1000},
    "sizes": lambda n: {"test_scales": [1.0, 0.75 + n / 1000]},
}
RUNS_OF_A_FAMILY = 45  # a ladder of 6 arms, 5 more alone, 4 more of all but one; 3 seeds
OTHER_RUNS = 20  # of networks and seeds only
STEPS = 160
WITHOUT = ("forecast: steps to time", "per network")  # rows that are no bookkeeping


def settings(families: int) -> dict:
    """Return the content of a params.yaml with so many families of tricks."""
    names = [[f"{kind}-{n}" for kind in FAMILY] for n in range(families)]
    studies = {
        "networks": {"question": "Which network?", "networks": list(NETWORKS)},
        "luck": {"question": "How much luck?", "start": "fcn-8s", "noise": [0, 1, 2, 3, 4]},
    }
    for n, own in enumerate(names):
        studies[f"ladder-{n}"] = {"question": "In steps?", "start": "fcn-8s", "ladder": own}
    every = [trick for own in names for trick in own]
    studies["each"] = {"question": "Alone?", "start": "fcn-8s", "alone": every}
    for n, (first, *others) in enumerate(names):
        studies[f"needed-{n}"] = {
            "question": "On top of all?", "start": f"fcn-8s-{first}", "leave_one_out": others,
        }  # fmt: skip
    return {
        "study": "simulated", "title": "Simulated", "root": ".", "params": "params.yaml",
        "plan": "plan.yaml", "seeds": [0, 1, 2], "remarks": [],
        "data": {
            "source": "synthetic", "path": "roadseg/data/synthetic.py", "size": [64, 192],
            "seed": 13,
            "block": 1, "counts": {"train": 120, "val": 30, "test": 100},
        },
        "base": {"network": NETWORKS["fcn-8s"], "steps": STEPS, "lr": 0.004},
        "tricks": {
            f"{kind}-{n}": {"knobs": knobs(n), "idea": "Made up.", "source": "Nobody 2000"}
            for n in range(families) for kind, knobs in FAMILY.items()
        },
        "networks": {name: {"network": network} for name, network in NETWORKS.items()},
        "studies": studies,
    }  # fmt: skip


def write_records(plan) -> None:
    """Write a record for each run of a plan, with counts drawn around a score for each arm."""
    import torch

    from roadseg.data.scenes import UNLABELLED, Scenes
    from roadseg.training import metrics
    from roadseg.training.loop import make_network

    scenes = {split: Scenes.load(plan.prepared, split) for split in ("val", "test")}
    k = len(scenes["test"].classes)
    truth = {
        split: np.stack(
            [np.bincount(image[image != UNLABELLED], minlength=k) for image in s.labels]
        )
        for split, s in scenes.items()
    }  # (N, K) pixels
    predictions = io.BytesIO()
    labels = np.array(scenes["test"].labels)
    np.savez_compressed(predictions, test=np.where(labels == UNLABELLED, 0, labels))
    arms = plan.arms
    looked_through = plan.compared.arms
    for number, (arm, recipe) in enumerate(arms.items()):
        rng = np.random.default_rng(number)
        base = np.clip(rng.normal(0.6, 0.03) + rng.normal(0, 0.15, k), 0.05, 0.95)
        for seed in plan.seeds_of(arm):
            right = np.clip(base + rng.normal(0, 0.02, k), 0.02, 0.98)
            taken_for = (1 - right[:, None]) * rng.dirichlet(np.full(k, 0.3), k)
            taken_for[np.arange(k), np.arange(k)] += right
            counts = {
                split: rng.multinomial(pixels, taken_for).astype(np.int32)
                for split, pixels in truth.items()
            }
            folder = plan.folder(arm, seed)
            folder.mkdir(parents=True)
            boundary = metrics.class_sums(counts["test"]) // 4
            np.savez_compressed(folder / "counts.npz", **counts, boundary=boundary.astype(np.int32))
            sure = rng.multinomial(counts["test"].sum(), np.full(metrics.BINS, 1 / metrics.BINS))
            levels = (np.arange(metrics.BINS) + 0.5) / metrics.BINS
            table = np.stack([sure, sure * levels, sure * levels], 1)
            header = "pixels,right,confidence"
            np.savetxt(folder / "reliability.csv", table, "%.9g", ",", header=header, comments="")
            (folder / "predictions.npz").write_bytes(predictions.getvalue())
            own = recipe.changed({"seed": seed})
            about = _about(own, scenes["test"], rng)
            content = {"recipe": dataclasses.asdict(own), "about": about}
            (folder / "record.json").write_text(json.dumps(content, indent=1) + "\n")
            (folder / "curve.csv").write_text(_curve(rng))
        if arm in looked_through:
            network = make_network(recipe, k)
            torch.save(network.state_dict(), plan.folder(arm, plan.seeds[0]) / "weights.pt")


def _about(recipe, scenes, rng: np.random.Generator) -> dict:
    """Return what a record says of a training that never was."""
    height, width = scenes.labels.shape[1:]
    versions = {name: version(name) for name in ("torch", "segmentation-models-pytorch", "timm")}
    return {
        "digest": recipe.digest, "data_digest": scenes.digest, "train_images": 120,
        "height": height, "width": width, "device": "none", "threads": 1, "precision": "fp32",
        "code": "0" * 12, "start": "", **versions, "training": "0" * 12, "weights_of": "",
        "seconds": round(float(rng.uniform(20, 30)), 2), "start_seconds": 0.0,
        "images_per_second": 24.0, "peak_memory_mib": 600, "python": "3", "lr_used": recipe.lr,
        "finished": "2000-01-01T00:00:00+00:00",
    }  # fmt: skip


def _curve(rng: np.random.Generator) -> str:
    """Return a curve.csv of six epochs."""
    rows = [
        f"{step},{3 / (1 + step / 40) + rng.normal(0, 0.02)},0.004,"
        f"{0.3 * step / STEPS + rng.normal(0, 0.005)}"
        for step in (30, 60, 90, 120, 150, STEPS)
    ]
    return "\n".join(["step,loss,lr,val_miou", *rows]) + "\n"


def measure(profiled: str, file: str) -> dict:
    """Return the seconds of each part for the study in the current folder.

    The part of the name `profiled`, if any, is profiled into `file`.
    """
    from roadseg import __main__ as commands
    from roadseg.analysis import results
    from roadseg.config import study
    from roadseg.report import notebooks as notebook
    from roadseg.training import plan as forecast

    seconds, busy = {}, {}  # of the clock, and of all cores

    @contextmanager
    def clock(part: str):
        profiler = cProfile.Profile() if part == profiled else None
        started, before = time.perf_counter(), sum(os.times()[:4])
        if profiler:
            profiler.enable()
        yield
        if profiler:
            profiler.disable()
            profiler.dump_stats(file)
        seconds[part] = seconds.get(part, 0.0) + time.perf_counter() - started
        busy[part] = busy.get(part, 0.0) + sum(os.times()[:4]) - before

    def apart(module, name: str, part: str) -> None:
        """Let a function's time count as another part's."""
        whole = getattr(module, name)

        def timed(*arguments):
            with clock(part):
                return whole(*arguments)

        setattr(module, name, timed)

    with clock("settings and plan"):
        plan = study.load("params.yaml")
        Path(plan.plan).write_text(plan.text())
        counted = {"arms": len(plan.arms), "runs": len(plan.runs)}
        counted["trainings"] = len(plan.trainings)
    with clock("check"):
        commands._check_settings(plan)
        assert study.read_yaml(Path(plan.plan))["arms"] == plan.written
    steps = []
    real, forecast.step_seconds = forecast.step_seconds, lambda *step: steps.append(step) or 0.1
    with clock("forecast: adding up"):
        forecast.forecast(plan)
    with clock("forecast: steps to time"):
        real(*steps[-1])
    seconds["forecast: steps to time"] *= len(steps)
    write_records(plan)
    for module, name in (
        (results, "_costs"), (results, "_catalogue"), (results.course, "compare"),
    ):  # fmt: skip
        apart(module, name, "per network")
    with clock("tables"):
        found = results.collect(plan)
        results.write(found, results.compact_counts(plan), plan.results)
    for taken in (seconds, busy):
        taken["tables"] -= taken["per network"]
    commands.strip(plan)
    with clock("chapters"):
        commands.execute(plan)
    with clock("report"):
        notebook.render(plan, plan.build / "executed", plan.report / "report.html")
    size = (plan.report / "report.html").stat().st_size
    return {
        **counted, "steps": len(steps), "megabytes": size / 1e6, "seconds": seconds,
        "core seconds": sum(busy[part] for part in busy if part not in WITHOUT),
    }  # fmt: skip


def main() -> None:
    """Make the copy, time each size in it, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--runs", type=int, nargs="+", default=[60, 250, 1000], help="about so many"
    )
    parser.add_argument("--profile", nargs=2, default=["", ""], metavar=("PART", "FILE"))
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        print("\n" + json.dumps(measure(*options.profile)))
        return
    root, columns = HERE.parent.parent, []
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder)
        for name in COPIED:
            (project / name).parent.mkdir(parents=True, exist_ok=True)
            copy = shutil.copytree if (root / name).is_dir() else shutil.copy2
            copy(root / name, project / name)
        environment = {**os.environ, "PYTHONPATH": folder}
        for runs in options.runs:
            shutil.rmtree(project / "build", ignore_errors=True)
            families = max(1, round((runs - OTHER_RUNS) / RUNS_OF_A_FAMILY))
            (project / "params.yaml").write_text(json.dumps(settings(families)))  # YAML too
            for command in (
                ["-m", "roadseg", "prepare", "params.yaml"],
                [str(HERE), "--inside", "--profile", *options.profile],
            ):
                said = subprocess.run(
                    [sys.executable, *command], cwd=project, env=environment, text=True,
                    stdout=subprocess.PIPE, check=True,
                ).stdout  # fmt: skip
            columns.append(json.loads(said.splitlines()[-1]))
    import page  # and torch, whose import belongs to what the copy's processes take

    page.section(
        "runs",
        f"{page.conditions()} numpy {version('numpy')}, pandas {version('pandas')}, matplotlib "
        f"{version('matplotlib')}, {os.cpu_count()} cores. `growth` is what a further run costs "
        "from the middle size to the largest, over what it costs from the smallest to the middle "
        f"one.\n\n{page.table(rows(columns))}",
    )


def rows(columns: list[dict]) -> list[dict]:
    """Return the measurements of all sizes as rows of a table."""
    parts = {part: [c["seconds"][part] for c in columns] for part in columns[0]["seconds"]}
    own = [values for part, values in parts.items() if part not in WITHOUT]
    parts["**bookkeeping**"] = [sum(values) for values in zip(*own, strict=True)]
    parts["bookkeeping, seconds of a core"] = [c["core seconds"] for c in columns]
    runs = [c["runs"] for c in columns]

    def row(name: str, values: list, growth: str = "") -> dict:
        told = {f"{n} runs": value for n, value in zip(runs, values, strict=True)}
        return {"seconds": name, **told, "growth": growth}

    found = [row(name, [c[name] for c in columns]) for name in ("arms", "trainings", "steps")]
    for part, values in parts.items():
        name = f"_{part}_ (not counted)" if part in WITHOUT else part
        found.append(row(name, [f"{value:.1f}" for value in values], growth(runs, values)))
    found.append(row("report.html, MB", [f"{c['megabytes']:.1f}" for c in columns]))
    return found


def growth(runs: list[int], seconds: list[float]) -> str:
    """Return the last slope over the one before; '' where the first is no growth to speak of."""
    slopes = np.diff(seconds) / np.diff(runs)
    if len(slopes) < 2 or slopes[-2] * runs[-1] < 0.5:
        return ""
    return f"{slopes[-1] / slopes[-2]:.1f}"


if __name__ == "__main__":
    main()
