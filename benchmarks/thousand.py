"""How long planning, tables and report take for 60, 250 and 1000 runs, training left out.

In a temporary copy of the project it makes studies of made-up tricks on one network: ladders, each
trick alone, all but one, seeds only, and six networks. Every run gets a record with made-up pixel
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
    "data/reference_ladder.csv", "data/published.csv",
)  # fmt: skip
NETWORKS = {
    "baseline": "baseline:0.25", "fcn-32s": "fcn32s:tu-test_resnet",
    "fcn-8s": "fcn8s:tu-test_resnet", "pspnet-light": "smp:pspnet:tu-test_resnet",
    "unet-eighth": "unet:0.125", "dabnet-half": "dabnet:0.5",
}  # fmt: skip
# What a family's tricks set, each with the family's number in its strength: no two are equal.
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
WITHOUT = ("plan: steps to time", "per network")  # rows that are no bookkeeping


def settings(families: int) -> dict[str, dict]:
    """Return the content of params.yaml and of the catalogue, with so many families of tricks."""
    names = [[f"{kind}-{n}" for kind in FAMILY] for n in range(families)]
    questions = {
        "networks": {"asks": "Which network?", "networks": list(NETWORKS)},
        "luck": {"asks": "How much luck?", "start": "fcn-8s", "noise": [0, 1, 2, 3, 4]},
    }
    for n, family in enumerate(names):
        questions[f"ladder-{n}"] = {"asks": "In steps?", "start": "fcn-8s", "ladder": family}
    every = [trick for family in names for trick in family]
    questions["each"] = {"asks": "Alone?", "start": "fcn-8s", "alone": every}
    for n, (first, *others) in enumerate(names):
        questions[f"needed-{n}"] = {
            "asks": "On top of all?", "start": f"fcn-8s-{first}", "leave_one_out": others,
        }  # fmt: skip
    params = {
        "study": "synthetic", "title": "Simulated", "root": ".", "folder": ".",
        "data": {
            "source": "synthetic", "path": "roadseg/data/synthetic.py", "size": [64, 192],
            "seed": 13,
            "block": 1, "counts": {"train": 120, "val": 30, "test": 100},
        },
        "seeds": [0, 1, 2],
        "base": {"network": NETWORKS["fcn-8s"], "steps": STEPS, "lr": 0.004},
        "questions": questions,
    }  # fmt: skip
    tricks = {
        f"{kind}-{n}": {"set": changes(n), "idea": "Made up.", "source": "Nobody 2000"}
        for n in range(families) for kind, changes in FAMILY.items()
    }  # fmt: skip
    networks = {name: {"network": network} for name, network in NETWORKS.items()}
    return {"params": params, "tricks": tricks, "networks": networks}


def write_records(study) -> None:
    """Write a record for each run of a study, with counts drawn around a score for each arm."""
    import torch

    from roadseg.data.scenes import UNLABELLED, Scenes
    from roadseg.training import metrics
    from roadseg.training.loop import make_network
    from roadseg.training.score import BINS

    scenes = {split: Scenes.load(study.prepared, split) for split in ("val", "test")}
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
    arms_with_weights = study.network_question.arms
    for number, (arm, recipe) in enumerate(study.arms.items()):
        rng = np.random.default_rng(number)
        base = np.clip(rng.normal(0.6, 0.03) + rng.normal(0, 0.15, k), 0.05, 0.95)
        for seed in study.seeds_of(arm):
            right = np.clip(base + rng.normal(0, 0.02, k), 0.02, 0.98)
            taken_for = (1 - right[:, None]) * rng.dirichlet(np.full(k, 0.3), k)
            taken_for[np.arange(k), np.arange(k)] += right
            counts = {
                split: rng.multinomial(pixels, taken_for).astype(np.int32)
                for split, pixels in truth.items()
            }
            folder = study.run_folder(arm, seed)
            folder.mkdir(parents=True)
            boundary = metrics.class_sums(counts["test"]) // 4
            np.savez_compressed(folder / "counts.npz", **counts, boundary=boundary.astype(np.int32))
            sure = rng.multinomial(counts["test"].sum(), np.full(BINS, 1 / BINS))
            levels = (np.arange(BINS) + 0.5) / BINS
            table = np.stack([sure, sure * levels, sure * levels], 1)
            header = "pixels,right,confidence"
            np.savetxt(folder / "reliability.csv", table, "%.9g", ",", header=header, comments="")
            (folder / "predictions.npz").write_bytes(predictions.getvalue())
            run = recipe.changed({"seed": seed})
            about = _about(run, scenes["test"], rng)
            content = {"recipe": dataclasses.asdict(run), "about": about}
            (folder / "record.json").write_text(json.dumps(content, indent=1) + "\n")
            (folder / "curve.csv").write_text(_curve(rng))
            if arm in arms_with_weights and seed == study.seeds[0]:
                network = make_network(recipe, k)
                torch.save(network.state_dict(), folder / "weights.pt")
            for question in study.questions.values():  # each has a copy of all its runs
                for name, question_recipe in question.arms.items():
                    copy = study.build / "runs" / question.name / name / f"s{seed}"
                    is_copy = question_recipe == recipe and seed in study.question_seeds(question)
                    if is_copy and copy != folder:
                        shutil.copytree(folder, copy)


def _about(recipe, scenes, rng: np.random.Generator) -> dict:
    """Return what a record says of a training that never was."""
    height, width = scenes.labels.shape[1:]
    versions = {name: version(name) for name in ("torch", "segmentation-models-pytorch", "timm")}
    return {
        "digest": recipe.digest, "data_digest": scenes.digest, "training": recipe.training.digest,
        "train_images": 120, "height": height, "width": width, "device": "none", "threads": 1,
        "precision": "fp32", "code": "0" * 12, "start": "", **versions, "python": "3",
        "seconds": round(float(rng.uniform(20, 30)), 2), "start_seconds": 0.0, "joules": None,
        "images_per_second": 24.0, "peak_memory_mib": 600, "lr_used": recipe.lr,
        "finished": "2000-01-01T00:00:00+00:00", "weights": "0" * 64,
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
    from roadseg.config.study import load
    from roadseg.report.page import render
    from roadseg.training import plan as planning
    from roadseg.training.device import default_device
    from roadseg.training.resolve import resolve

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

    with clock("settings"):
        study = load()
        counted = {"arms": len(study.arms), "runs": len(study.runs)}
    with clock("resolve"):
        resolve(study)
    steps = []
    real, planning.step_seconds = planning.step_seconds, lambda *step: steps.append(step) or 0.1
    with clock("plan: run store, adding up"):
        planning.plan(study)
    with clock("plan: steps to time"):
        real(*steps[-1])
    seconds["plan: steps to time"] *= len(steps)
    counted["trainings"] = len(planning.RequestedRuns(study, default_device()).trainings)
    write_records(study)
    for module, name in ((results, "_costs"), (results, "_catalogue")):
        apart(module, name, "per network")
    with clock("tables"):
        tables = results.collect(study)
        results.write(tables, results.compact_counts(study), study.results)
    for taken in (seconds, busy):
        taken["tables"] -= taken["per network"]
    with clock("chapters"):
        commands.chapters(study)
    with clock("report"):
        render(study, study.build / "executed", study.report / "report.html")
    size = (study.report / "report.html").stat().st_size
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
            for name, content in settings(families).items():
                (project / f"{name}.yaml").write_text(json.dumps(content))  # YAML too
            (project / "remarks.md").write_text("- All of it is made up.\n")
            for command in (
                ["-m", "roadseg", "prepare", "synthetic"],
                [str(HERE), "--inside", "--profile", *options.profile],
            ):
                output = subprocess.run(
                    [sys.executable, *command], cwd=project, env=environment, text=True,
                    stdout=subprocess.PIPE, check=True,
                ).stdout  # fmt: skip
            columns.append(json.loads(output.splitlines()[-1]))
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
    bookkeeping = [values for part, values in parts.items() if part not in WITHOUT]
    parts["**bookkeeping**"] = [sum(values) for values in zip(*bookkeeping, strict=True)]
    parts["bookkeeping, seconds of a core"] = [c["core seconds"] for c in columns]
    runs = [c["runs"] for c in columns]

    def row(name: str, values: list, growth: str = "") -> dict:
        cells = {f"{n} runs": value for n, value in zip(runs, values, strict=True)}
        return {"seconds": name, **cells, "growth": growth}

    table_rows = [row(name, [c[name] for c in columns]) for name in ("arms", "trainings", "steps")]
    for part, values in parts.items():
        name = f"_{part}_ (not counted)" if part in WITHOUT else part
        table_rows.append(row(name, [f"{value:.1f}" for value in values], growth(runs, values)))
    table_rows.append(row("report.html, MB", [f"{c['megabytes']:.1f}" for c in columns]))
    return table_rows


def growth(runs: list[int], seconds: list[float]) -> str:
    """Return the last slope over the one before; '' where the first is no growth to speak of."""
    slopes = np.diff(seconds) / np.diff(runs)
    if len(slopes) < 2 or slopes[-2] * runs[-1] < 0.5:
        return ""
    return f"{slopes[-1] / slopes[-2]:.1f}"


if __name__ == "__main__":
    main()
