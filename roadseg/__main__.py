"""The command line: what people call (fetch, check, start, plan), and the stages of dvc.yaml.

Bad input ends with one message and exit status 2.
"""

import argparse
import errno
import json
import os
import shutil
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import psutil

from roadseg.config.recipe import DEFAULTS, Recipe
from roadseg.config.settings import Problems, read_yaml
from roadseg.config.study import ROOT, Plan, load, network_alone
from roadseg.errors import InputError, escaped, nearest

OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)
SMALLEST = 34  # pixels: the baseline's unpadded convolution at 1/16 of the size, and a rounding
HELP = {
    "params": "the study's params.yaml",
    "path": "a folder of images and labels, or a study's params.yaml",
    "folder": "a folder of images and labels",
    "arm": "an arm of plan.yaml",
}


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m roadseg", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(function, *positional: str, **options: dict):
        """Add a command named after a function; its help is the docstring's first line."""
        about = function.__doc__.splitlines()[0]
        command = commands.add_parser(function.__name__, help=about, description=about)
        for name in positional:
            default = {"nargs": "?", "default": "params.yaml"} if function is plan else {}
            command.add_argument(name, help=HELP.get(name), **default)
        for name, settings in options.items():
            command.add_argument(f"--{name}", **settings)
        command.set_defaults(function=function)

    add(fetch, "name", url={"help": "a mirror to load it from"})
    add(check, "path", settings={"action": "store_true", "help": "settings and file names only"})
    add(start, "name", "folder")
    add(plan, "params")
    add(prepare, "params")
    add(strip, "params")
    add(train, "params", "arm")
    add(results, "params")
    add(execute, "params")
    add(report, "params")
    options = vars(parser.parse_args(arguments))
    function = options.pop("function")
    del options["command"]
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        if "params" in options:
            options["study"] = load(options.pop("params"))
        function(**options)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has seen enough, as `head` has
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except InputError as problem:
        # it may quote a name that a terminal would obey
        print("roadseg:", "\n".join(map(escaped, str(problem).split("\n"))), file=sys.stderr)
        return 2
    except OSError as problem:
        if problem.errno not in OF_THE_DISK:
            raise
        print(
            f"roadseg: {problem.filename or 'a file'}: {problem.strerror}. Make room, or let it be "
            "written there, and call again; what was there before is still there.",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        print("roadseg: stopped; called again, it goes on from there", file=sys.stderr, flush=True)
        _stop_pipeline()
        os._exit(130)  # threads that wait for a kernel are not waited for; the kernels notice
    return 0


def _stop_pipeline() -> None:
    """End the `dvc repro` that called this, which ignores Ctrl-C and would begin the next stage."""
    if "DVC_STAGE" in os.environ:
        for parent in psutil.Process().parents():
            if any(Path(part).name == "dvc" for part in parent.cmdline()[:5]):
                parent.terminate()
                return


def plan(study: Plan) -> None:
    """Write the plan of runs that params.yaml asks for; say what is in it and how long it takes."""
    from roadseg.training.plan import forecast, keep

    _check_settings(study)
    file, before = ROOT / study.plan, _planned(study)
    keep(study, [arm for arm, own in study.written.items() if own != before.get(arm)])
    partial = file.with_suffix(".partial")
    partial.write_text(study.text())
    partial.replace(file)
    asked = sum(len(s.arms) for s in study.studies.values())
    print(
        f"{study.plan}: {len(study.arms)} arms ({asked} asked for by {len(study.studies)} studies, "
        f"{asked - len(study.arms)} shared), {len(study.runs)} runs, {len(study.trainings)} "
        "trainings (runs that differ in testing share theirs)."
    )
    print(forecast(study))


def _planned(study: Plan) -> dict:
    """Return what the plan's file has now; nothing if it has none that can be read."""
    try:
        return read_yaml(ROOT / study.plan).get("arms") or {}
    except InputError:
        return {}


def fetch(name: str, url: str | None) -> None:
    """Download a public data set into data/raw: camvid or kitti."""
    from roadseg.data.download import fetch

    fetch(name, ROOT / "data/raw", url=url)


def check(path: str, settings: bool) -> None:
    """Check a folder of images and labels, or a study's params.yaml and its data."""
    from roadseg.data.check import inspect
    from roadseg.data.datasets import find_source, link_source, open_folder
    from roadseg.data.folder import DESCRIPTION
    from roadseg.data.layout import BadData

    path = Path(path)
    if path.suffix in (".yaml", ".yml") and path.name != DESCRIPTION:
        study = load(path)
        _check_settings(study)
        if _planned(study) != study.written:
            raise InputError(
                f"{study.plan} is not what {study.params} asks for. Run: "
                f"python -m roadseg plan {study.params}"
            )
        source = find_source(study.data, ROOT)
        if settings:
            if source.findings:
                raise BadData(source.root, source.findings)
            link_source(study.data, ROOT, source)
            study.build.mkdir(parents=True, exist_ok=True)
            # Replaced, not written into: DVC keeps the old one as a link into its cache.
            partial = study.build / "checked.partial"
            partial.write_text(json.dumps(study.data) + "\n")
            partial.replace(study.build / "checked.json")
            return
    elif settings:
        raise InputError(f"--settings: {path} is no params.yaml; leave the option out.")
    else:
        source = open_folder(path.parent if path.name == DESCRIPTION else path)
    print(f"{path}: no problem found.\n{inspect(source)}")


def start(name: str, folder: str) -> None:
    """Make a new study from a folder of images and labels: studies/NAME."""
    from roadseg.data.start import start

    target, summary = start(name, Path(folder))
    plan = load(target.relative_to(ROOT) / "params.yaml")
    print(
        f"{summary}\n{target.relative_to(ROOT)}: made, with {len(plan.trainings)} trainings of "
        f"{'/'.join(sorted({str(recipe.steps) for recipe in plan.arms.values()}))} steps. "
        f"Change its params.yaml as you like, then: make report STUDY={name}"
    )


def prepare(study: Plan) -> None:
    """Check all files of a study's data set and write it as arrays into data/prepared."""
    from roadseg.data.datasets import find_source, link_source
    from roadseg.data.prepare import prepare
    from roadseg.data.scenes import test_is_val

    source = find_source(study.data, ROOT)
    about = prepare(study.data, source, study.prepared)
    link_source(study.data, ROOT, source)
    splits = {name: len(s["names"]) for name, s in about["splits"].items()}
    if test_is_val(study.prepared):
        splits["test"] = "no"
    counts = ", ".join(f"{count} {name}" for name, count in splits.items())
    print(f"{study.prepared.relative_to(ROOT)}: {counts}, digest {about['digest'][:12]}")


def strip(study: Plan) -> None:
    """Copy the notebooks without their outputs, for the pipeline to depend on."""
    from roadseg.report.notebooks import strip

    for file in sorted((ROOT / "notebooks").glob("*.ipynb")):
        strip(file, study.build / "notebooks" / file.name)


def train(study: Plan, arm: str) -> None:
    """Train one arm of the plan with each of its seeds, in notebooks/train.ipynb."""
    from roadseg.report.notebooks import execute
    from roadseg.training.weights import failure

    if arm not in study.arms:
        raise InputError(f"{arm!r} is no arm of {study.plan}: {', '.join(study.arms)}.")
    out = study.build / "runs" / arm
    there = sum((study.build / "runs" / name).is_dir() for name in study.arms if name != arm)
    print(f"{study.name}: {arm}; of the {len(study.arms) - 1} other arms {there} have their runs")
    try:
        execute(
            study.build / "notebooks/train.ipynb",
            study.build / f"executed/train/{arm}.ipynb",
            {"params": study.params, "arm": arm, "out": str(out.relative_to(ROOT))},
            echo=True,
        )
    except InputError as problem:
        raise InputError(f"arm {arm}: {problem}") from None
    for seed in study.seeds_of(arm):
        folder = study.folder(arm, seed)
        if why := failure(folder):
            print(f"roadseg: arm {arm}, seed {seed}: {why} The report goes on without this arm.",
                  file=sys.stderr)  # fmt: skip
        elif not (folder / "record.json").is_file():
            raise InputError(f"{arm}: train.ipynb came to its end without writing seed {seed}.")


def results(study: Plan) -> None:
    """Collect the records of all runs into the tables under results/."""
    from roadseg.analysis.results import collect, compact_counts, write

    write(collect(study), compact_counts(study), study.results)
    # All arms are done, and DVC has them: what was kept for the case of a stop is not needed.
    shutil.rmtree(ROOT / "work" / study.name, ignore_errors=True)


def execute(study: Plan) -> None:
    """Execute the report's notebooks, as many at a time as there are cores."""
    from roadseg.analysis.tables import Results
    from roadseg.report.notebooks import CHAPTERS, execute, leave_out
    from roadseg.report.text import missing

    lacking = missing(study, study.without(Results.read(study).failed))

    def one(name: str) -> None:
        file = f"{name}.ipynb"
        source, target = study.build / "notebooks" / file, study.build / "executed" / file
        if name in lacking:
            leave_out(source, target, lacking[name])
        else:
            execute(source, target, {"params": study.params})

    # Several at a time, with a thread for each core, would wait for one another.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, os.cpu_count() // (1 + len(CHAPTERS)))))
    # What may take longest begins first: nothing else is left to do beside it at the end.
    names = sorted([*CHAPTERS, "report"], key=lambda name: name not in ("4_tricks", "5_networks"))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for job in [pool.submit(one, name) for name in names]:
            job.result()


def report(study: Plan) -> None:
    """Render the executed notebooks as one HTML file, and print its path."""
    from roadseg.report.notebooks import render

    target = study.report / "report.html"
    render(study, study.build / "executed", target)
    print(target)


def _check_sizes(recipe: Recipe, size: list[int]) -> None:
    """Raise InputError where a knob means nothing, or a network too little, at an image size."""
    pixels = size[0] * size[1] * recipe.crop**2
    if recipe.ohem_threshold < 1 and recipe.ohem_kept >= pixels:
        raise InputError(
            f"ohem_kept: {recipe.ohem_kept} of at most {pixels:.0f} pixels keeps all of them; set "
            f"fewer, such as {max(round(pixels / 4), 1)}."
        )
    smallest = min(size) * min(recipe.crop / recipe.size_jitter, *recipe.test_scales, 1.0)
    if recipe.network.startswith("baseline") and smallest < SMALLEST:
        raise InputError(
            f"data: size: {size[0]} x {size[1]} becomes {smallest:.0f} pixels by crop, size_jitter "
            f"or test_scales; the baseline needs at least {SMALLEST} each way."
        )


def _check_sources(recipe: Recipe, own: str) -> None:
    """Raise InputError for a teacher, or weights, that the study `own` cannot start from."""
    named = recipe.teacher and not recipe.teacher.startswith("study:")
    if named and recipe.lr_search != DEFAULTS["lr_search"]:
        raise InputError(
            "lr_search: each trial would train a teacher of its own for as few steps; name "
            "an arm of another study as teacher, or leave the search out."
        )
    for source in (recipe.pretrained, recipe.teacher):
        if source.startswith(f"study:{own}/"):
            raise InputError(
                f"{source}: is an arm of this study, which may be trained later; name "
                "another study's, or a network."
            )


def _try(make, what: str) -> None:
    """Raise an InputError of what a library cannot build, whatever it raises."""
    try:
        make()
    except InputError:
        raise
    except Exception as problem:
        raise InputError(
            f"{what} cannot be built ({problem}); choose another architecture or encoder."
        ) from None


def _check_settings(study: Plan) -> None:
    """Raise InputError for all networks, weights, teachers and sources that nothing provides."""
    from roadseg.data.datasets import SOURCES
    from roadseg.models.build import check_name, on_meta
    from roadseg.training.loop import make_network
    from roadseg.training.run import check_start

    problems = Problems(study.params, study.lines)
    kind = study.data["source"]
    if kind not in SOURCES:
        problems.add(f"source: {kind!r} is unknown.{nearest(kind, SOURCES)}", "data")
    unknown, built, told = set(), set(), set()
    for entry in study.networks.values():
        try:
            check_name(entry.network)
        except InputError as problem:
            problems.add(
                str(problem), "networks", entry.name, at=("networks", entry.name, "network")
            )
            unknown.add(entry.network)

    def build(recipe: Recipe) -> None:
        if (network := network_alone(recipe)) in built or recipe.network in unknown:
            return
        unknown.add(recipe.network)
        _try(partial(on_meta, partial(make_network, network, 2)), f"network {recipe.network!r}")
        unknown.discard(recipe.network)
        built.add(network)

    def start_all(arm: str, recipe: Recipe) -> None:
        what = f"teacher {recipe.teacher!r}" if recipe.teacher else recipe.pretrained
        for seed in study.seeds_of(arm):
            _try(partial(check_start, study.runs[f"{arm}-s{seed}"]), what)

    for arm, recipe in study.arms.items():
        for check in (
            partial(build, recipe),
            partial(_check_sizes, recipe, study.data["size"]),
            partial(_check_sources, recipe, study.name),
            partial(start_all, arm, recipe),
        ):
            try:
                check()
            except InputError as problem:
                # of what arms have in common, the first one tells
                if str(problem) not in told:
                    problems.add(f"arm {arm}: {problem}", at=("arms", arm))
                told.add(str(problem))
    problems.raise_any()


if __name__ == "__main__":
    sys.exit(main())
