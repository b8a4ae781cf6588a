"""The command line: what people call (from fetch to evaluate), and the stages of dvc.yaml.

Bad input ends with one message and exit status 2.
"""

import argparse
import errno
import json
import os
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from roadseg import code as digests
from roadseg.config import paths
from roadseg.config.study import Study, load, load_resolved
from roadseg.errors import InputError, escaped, nearest

DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)
HELP = {
    "study": "a study's name: synthetic, or that of a folder in studies/",
    "path": "a folder of images and labels, or a study's params.yaml",
    "folder": "a folder of images and labels",
    "question": "a question of the study",
    "inputs": "pictures, videos, folders of them, or patterns with *",
    "weights": "a finished run (ARM, STUDY/ARM or STUDY/ARM/SEED), a name in models/, or a file",
}
# The modules that each stage runs; the chapters' are those that the notebooks import.
STAGES = {
    "resolve": ["roadseg.training.resolve"],
    "prepare": ["roadseg.data.prepare", "roadseg.data.datasets"],
    "train": ["roadseg.training.question"],
    "results": ["roadseg.analysis.results"],
    "chapters": ["roadseg.report.notebooks"],
    "report": ["roadseg.report.page"],
}
NOTEBOOKS = {"train": "train.ipynb", "chapters": "[r0-9]*.ipynb"}  # report, and those with a number


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m roadseg", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(function, *positional: str, **options: dict):
        """Add a command named after a function; its help is the docstring's first line."""
        about = function.__doc__.splitlines()[0]
        command = commands.add_parser(function.__name__, help=about, description=about)
        for name in positional:
            number = {"nargs": "?", "default": "synthetic"} if function is plan else {}
            number = {"nargs": "+"} if name == "inputs" else number
            command.add_argument(name, help=HELP.get(name), **number)
        for name, settings in options.items():
            command.add_argument(f"--{name}", **settings)
        command.set_defaults(function=function)

    add(fetch, "name", url={"help": "a mirror to load it from"})
    add(check, "path", all={
        "action": "store_true",
        "help": "also list every problem of every file, one a line",
    })  # fmt: skip
    add(start, "name", "folder", minutes={
        "type": float,
        "default": 10,
        "help": "how long its trainings may take on this machine, 10 if not given",
    })  # fmt: skip
    add(plan, "study", prune={
        "action": "store_true",
        "help": "remove from the run store what no study asks for",
    })  # fmt: skip
    add(adopt, "study")
    add(predict, "inputs", weights={
        "default": "camvid", "help": HELP["weights"] + "; camvid if not given",
    }, out={
        "default": "predictions", "help": "folder to write into, predictions if not given",
    }, overlay={
        "type": float, "default": 0.5, "metavar": "OPACITY",
        "help": "of the colours over the pictures, from 0 (no overlays) to 1; 0.5 if not given",
    }, values={
        "choices": ["classes", "original"], "default": "classes",
        "help": "what label images hold: 0, 1, 2, ... or the values of the data set itself",
    }, height={
        "type": int, "help": "what pictures are brought to, that of training if not given; 0: none",
    })  # fmt: skip
    add(export, "weights", to={
        "required": True, "help": "the file: .onnx, .pt2 (torch.export) or .pt (our own, small)",
    }, int8={"action": "store_true", "help": "of ONNX: 8-bit weights and activations"})  # fmt: skip
    add(evaluate, "weights", "study", size={
        "nargs": "+", "metavar": "PIXELS",
        "help": "height and width to score at, or own, that of the files; the study's if not given",
    }, json={"metavar": "FILE", "help": "also write all scores into a file"})  # fmt: skip
    add(code, "study")
    add(resolve, "study")
    # What follows `resolve` in the pipeline: an edit meanwhile is for the next call.
    later_stages = (prepare, train, results, chapters, report)
    for stage in later_stages:
        add(stage, "study", *(["question"] if stage is train else []))
    options = vars(parser.parse_args(arguments))
    function = options.pop("function")
    del options["command"]
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        if "study" in options:
            load_study = load_resolved if function in later_stages else load
            options["study"] = load_study(options["study"])
        status = function(**options)
        sys.stdout.flush()
        return status or 0
    except BrokenPipeError:  # the reader has seen enough, as `head` has
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except InputError as problem:
        # it may quote a name that a terminal would obey
        print("roadseg:", "\n".join(map(escaped, str(problem).split("\n"))), file=sys.stderr)
        return 2
    except OSError as problem:
        if problem.errno not in DISK_ERRORS:
            raise
        print(
            f"roadseg: {problem.filename or 'a file'}: {problem.strerror}. Free disk space, or fix "
            "the permissions, and run it again; what was there before is still there.",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        print("roadseg: stopped; run the same command to resume", file=sys.stderr, flush=True)
        return 130


def fetch(name: str, url: str | None) -> None:
    """Download a public data set into data/raw: camvid or kitti."""
    from roadseg.data.download import fetch

    fetch(name, paths.ROOT / "data/raw", url=url)


def check(path: str, all: bool) -> None:
    """Check a folder of images and labels, or a study's params.yaml and its data."""
    from roadseg.data.check import inspect_source
    from roadseg.data.dataset_yaml import DESCRIPTION
    from roadseg.data.datasets import find_source, open_folder
    from roadseg.data.findings import BadData

    path = Path(path)
    try:
        if path.suffix in (".yaml", ".yml") and path.name != DESCRIPTION:
            from roadseg.training.resolve import check_settings

            study = load(path)
            check_settings(study)
            source = find_source(study.data, paths.ROOT)
            size = tuple(study.data["size"])
        else:
            source, size = open_folder(path.parent if path.name == DESCRIPTION else path), None
        print(f"{path}: no problem found.\n{inspect_source(source, size)}")
    except BadData as problem:
        if all:
            print(*problem.findings, sep="\n")
        raise


def start(name: str, folder: str, minutes: float) -> None:
    """Make a new study from a folder of images and labels: studies/NAME."""
    from roadseg.training.start import start

    target, summary = start(name, Path(folder), minutes)
    study = load(name)
    steps = sorted({str(recipe.steps) for recipe in study.arms.values()})
    print(
        f"{summary}\n{target.relative_to(paths.ROOT)}: made, with {len(study.runs)} runs of "
        f"{'/'.join(steps)} steps. Change its params.yaml as you like, then: make report "
        f"STUDY={name}"
    )


def plan(study: Study, prune: bool) -> None:
    """Say what a study asks for, what of it is trained already, and how long the rest takes."""
    from roadseg.training.plan import plan
    from roadseg.training.plan import prune as prune_store
    from roadseg.training.resolve import check_settings

    check_settings(study)
    print(plan(study))
    if prune:
        print(prune_store())


def adopt(study: Study) -> int:
    """Keep finished runs after a change of code, if training a few again gives equal results."""
    from roadseg.training.adopt import adopt

    return 0 if adopt(study) else 1


def predict(
    inputs: list[str], weights: str, out: str, overlay: float, values: str, height: int | None
) -> int:
    """Write label images and overlays of pictures, folders and videos."""
    from roadseg.predict.files import Output, predict_files
    from roadseg.predict.predictor import Predictor

    if not 0 <= overlay <= 1:
        raise InputError(f"--overlay {overlay}: give an opacity from 0 (no overlays) to 1.")
    if height is not None and not 0 <= height <= 10_000:
        raise InputError(f"--height {height}: give pixels, or 0 for the pictures' own.")
    predictor = Predictor.load(weights, threads=1, height=height)  # as many pictures as cores
    output = Output(Path(out), overlay, values == "original")
    return 0 if predict_files(predictor, inputs, output) else 1


def export(weights: str, to: str, int8: bool) -> None:
    """Write a trained network into one file, for other programs, and compare what the two say."""
    from roadseg.predict.export import export

    export(weights, Path(to), int8=int8)


def evaluate(weights: str, study: Study, size: list[str] | None, json: str | None) -> None:
    """Score weights on the test images of a study, whatever they were trained on."""
    from roadseg.predict.evaluate import evaluate

    scores = evaluate(weights, study, size)
    print(scores)
    if json:
        scores.write(Path(json))


def code(study: Study) -> None:
    """Write the digest of the code of each stage, for the pipeline to depend on."""
    from roadseg.training.files import write_if_changed

    folder = study.build / "code"
    for stage, modules in STAGES.items():
        files = sorted((paths.ROOT / "notebooks").glob(NOTEBOOKS.get(stage, "no notebook")))
        notebooks = {file.name: digests.notebook_digest(file) for file in files}
        modules = [
            *modules,
            *(used for _, imported_names in notebooks.values() for used in imported_names),
        ]
        lines = [
            f"{digests.file_digest(f)} {name}" for name, f in digests.closure(*modules).items()
        ]
        lines += [f"{digest} {name}" for name, (digest, _) in notebooks.items()]
        lines += [f"{digest} {name}" for name, digest in digests.asset_digests(*modules).items()]
        write_if_changed(folder / f"{stage}.txt", "\n".join(lines) + "\n")


def resolve(study: Study) -> None:
    """Check a study's settings and write what they ask for, for the pipeline to depend on."""
    from roadseg.training.resolve import resolve

    resolve(study)


def prepare(study: Study) -> None:
    """Check all files of a study's data set and write it as arrays into data/prepared."""
    from roadseg.data.datasets import find_source, link_source
    from roadseg.data.prepare import prepare
    from roadseg.data.scenes import test_is_val

    resolved = study.build / "data.json"
    if resolved.is_file() and json.loads(resolved.read_text()) != study.arrays:
        raise InputError(
            f"{study.params}: a list of images that it names was edited meanwhile. Run: "
            f"python -m roadseg resolve {study.name}"
        )
    source = find_source(study.data, paths.ROOT)
    about = prepare(study.arrays, source, study.prepared)
    link_source(study.data, paths.ROOT, source)
    splits = {name: len(s["names"]) for name, s in about["splits"].items()}
    if test_is_val(study.prepared):
        splits["test"] = "no"
    counts = ", ".join(f"{count} {name}" for name, count in splits.items())
    print(f"{study.prepared.relative_to(paths.ROOT)}: {counts}, digest {about['digest'][:12]}")


def train(study: Study, question: str) -> None:
    """Train the runs of one question, in notebooks/train.ipynb."""
    from roadseg.report.notebooks import execute

    if question not in study.questions:
        hint = nearest(question, study.questions)
        raise InputError(f"{question!r} is no question of {study.params}.{hint}")
    folder = study.build / "runs" / question
    try:
        execute(
            paths.ROOT / "notebooks/train.ipynb",
            study.build / f"trained/{question}.ipynb",
            {"name": study.name, "question": question, "out": str(folder.relative_to(paths.ROOT))},
            echo=True,
        )
    except InputError as problem:
        raise InputError(f"question {question}: {problem}") from None
    for file in sorted(folder.glob("*/s*/failed.json")):
        arm, seed = file.parent.parent.name, file.parent.name.removeprefix("s")
        why = json.loads(file.read_text())["why"]
        print(f"roadseg: arm {arm}, seed {seed}: {why} The report goes on without this arm.",
              file=sys.stderr)  # fmt: skip


def results(study: Study) -> None:
    """Collect the records of all runs into the tables under results/."""
    from roadseg.analysis.results import collect, compact_counts, write

    write(collect(study), compact_counts(study), study.results)


def chapters(study: Study) -> None:
    """Execute the report's notebooks, as many at a time as there are cores."""
    from roadseg.analysis.tables import Results
    from roadseg.report.load import empty_chapters
    from roadseg.report.notebooks import CHAPTERS, execute, kill_kernel, write_placeholder

    placeholders = empty_chapters(study, Results.read(study))
    kernels = []

    def execute_chapter(name: str) -> None:
        source = paths.ROOT / f"notebooks/{name}.ipynb"
        target = study.build / f"executed/{name}.ipynb"
        if name in placeholders:
            write_placeholder(source, target, placeholders[name])
        else:
            execute(source, target, {"name": study.name}, kernels=kernels)

    # Several at a time, with a thread for each core, would wait for one another.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, os.cpu_count() // (1 + len(CHAPTERS)))))
    # What may take longest begins first: nothing else is left to do beside it at the end.
    names = sorted([*CHAPTERS, "report"], key=lambda name: name not in ("4_tricks", "5_networks"))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        jobs = [pool.submit(execute_chapter, name) for name in names]
        try:
            for job in jobs:
                job.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            # A thread that waits for its kernel is not waited for in vain; some may only start.
            while not all(job.done() for job in jobs):
                for kernel in kernels:
                    kill_kernel(kernel)
                time.sleep(0.1)
            raise


def report(study: Study) -> None:
    """Render the executed notebooks as one HTML file, and print its path."""
    from roadseg.report.page import render

    target = study.report / "report.html"
    render(study, study.build / "executed", target)
    print(target)


if __name__ == "__main__":
    sys.exit(main())
