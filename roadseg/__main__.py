"""The command line: what people call (fetch, check, start, plan), and the stages of dvc.yaml.

Bad input ends with one message and exit status 2.
"""

import argparse
import json
import os
import sys
from pathlib import Path

from roadseg.recipe import InputError
from roadseg.study import ROOT, Plan, load, read_yaml

HELP = {
    "params": "the study's params.yaml",
    "path": "a folder of images and labels, or a study's params.yaml",
    "folder": "a folder of images and labels",
    "run": "a run of plan.yaml",
    "notebook": "its name, such as 1_data",
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
    add(strip, "params", "notebook")
    add(run, "params", "run")
    add(results, "params")
    add(execute, "params", "notebook")
    add(report, "params")
    options = vars(parser.parse_args(arguments))
    function = options.pop("function")
    del options["command"]
    try:
        if "params" in options:
            options["study"] = load(options.pop("params"))
        function(**options)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has seen enough, as `head` has
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except InputError as problem:
        print(f"roadseg: {problem}", file=sys.stderr)
        return 2
    return 0


def plan(study: Plan) -> None:
    """Write the plan of runs that params.yaml asks for, and say what is in it."""
    _check_settings(study)
    file = ROOT / study.plan
    partial = file.with_suffix(".partial")
    partial.write_text(study.text())
    partial.replace(file)
    asked = sum(len(s.arms) for s in study.studies.values()) * len(study.seeds)
    print(
        f"{study.plan}: {len(study.runs)} runs for {len(study.studies)} studies and "
        f"{len(study.seeds)} seeds ({asked - len(study.runs)} shared)."
    )


def fetch(name: str, url: str | None) -> None:
    """Download a public data set into data/raw: camvid or kitti."""
    from roadseg.fetch import fetch

    fetch(name, ROOT / "data/raw", url=url)


def check(path: str, settings: bool) -> None:
    """Check a folder of images and labels, or a study's params.yaml and its data."""
    from roadseg.check import inspect
    from roadseg.folder import DESCRIPTION
    from roadseg.layout import BadData
    from roadseg.sources import find_source, link_source, open_folder

    path = Path(path)
    if path.suffix in (".yaml", ".yml") and path.name != DESCRIPTION:
        study = load(path)
        _check_settings(study)
        try:
            planned = read_yaml(ROOT / study.plan).get("runs")
        except InputError:
            planned = None
        if planned != study.runs:
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
    from roadseg.start import start

    target, summary = start(name, Path(folder))
    plan = load(target.relative_to(ROOT) / "params.yaml")
    print(
        f"{summary}\n{target.relative_to(ROOT)}: made, with {len(plan.runs)} runs of "
        f"{'/'.join(sorted({str(recipe.steps) for recipe in plan.arms.values()}))} steps. "
        f"Change its params.yaml as you like, then: make report STUDY={name}"
    )


def prepare(study: Plan) -> None:
    """Check all files of a study's data set and write it as arrays into data/prepared."""
    from roadseg.prepare import prepare
    from roadseg.sources import find_source, link_source

    source = find_source(study.data, ROOT)
    about = prepare(study.data, source, study.prepared)
    link_source(study.data, ROOT, source)
    counts = ", ".join(f"{len(s['names'])} {name}" for name, s in about["splits"].items())
    print(f"{study.prepared.relative_to(ROOT)}: {counts}, digest {about['digest'][:12]}")


def strip(study: Plan, notebook: str) -> None:
    """Copy a notebook without its outputs, for the pipeline to depend on."""
    from roadseg.notebook import strip

    strip(ROOT / f"notebooks/{notebook}.ipynb", study.build / f"notebooks/{notebook}.ipynb")


def run(study: Plan, run: str) -> None:
    """Train one run of the plan, in notebooks/train.ipynb."""
    from roadseg.notebook import execute

    if run not in study.runs:
        raise InputError(f"{run!r} is no run of {study.plan}: {', '.join(study.runs)}.")
    out = study.build / "runs" / run
    execute(
        study.build / "notebooks/train.ipynb",
        study.build / f"executed/train/{run}.ipynb",
        {"params": study.params, "run": run, "out": str(out.relative_to(ROOT))},
        echo=True,
    )
    if not (out / "record.json").is_file():
        raise InputError(f"{run}: train.ipynb came to its end without writing {out}.")


def results(study: Plan) -> None:
    """Collect the records of all runs into the tables under results/."""
    from roadseg.results import collect, write

    write(collect(study), study.results)


def execute(study: Plan, notebook: str) -> None:
    """Execute one of the report's notebooks."""
    from roadseg.notebook import execute

    execute(
        study.build / f"notebooks/{notebook}.ipynb",
        study.build / f"executed/{notebook}.ipynb",
        {"params": study.params},
    )


def report(study: Plan) -> None:
    """Render the executed notebooks as one HTML file, and print its path."""
    from roadseg.notebook import render

    target = study.report / "report.html"
    render(study, study.build / "executed", target)
    print(target)


def _check_settings(study: Plan) -> None:
    """Raise InputError for networks and data sources that nothing provides."""
    import torch

    from roadseg.models import build
    from roadseg.recipe import nearest
    from roadseg.sources import SOURCES

    for network in {recipe.network: None for recipe in study.arms.values()}:
        arm = next(name for name, recipe in study.arms.items() if recipe.network == network)
        try:
            with torch.device("meta"):  # builds everything but the weights' memory
                build(network, 2)
        except InputError as problem:
            raise InputError(f"{study.params}: arm {arm}: {problem}") from None
        except Exception as problem:  # a library's own, of any kind: a combination it cannot build
            raise InputError(
                f"{study.params}: arm {arm}: network {network!r} cannot be built ({problem}); "
                "choose another architecture or encoder."
            ) from None
    if study.data["source"] not in SOURCES:
        kind = study.data["source"]
        raise InputError(
            f"{study.params}: data: source: {kind!r} is unknown.{nearest(kind, SOURCES)}"
        )


if __name__ == "__main__":
    sys.exit(main())
