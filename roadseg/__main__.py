"""The command line: what the stages of dvc.yaml call, and `plan`, which people call.

Bad input ends with one message and exit status 2.
"""

import argparse
import json
import sys

from roadseg.recipe import InputError
from roadseg.study import ROOT, Plan, load, read_yaml


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m roadseg", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(function, *positional: str):
        """Add a command named after a function; its help is the docstring's first line."""
        about = function.__doc__.splitlines()[0]
        command = commands.add_parser(function.__name__, help=about, description=about)
        default = {"nargs": "?", "default": "params.yaml"} if function is plan else {}
        command.add_argument("params", help="the study's params.yaml", **default)
        for name in positional:
            command.add_argument(name)
        command.set_defaults(function=function)

    add(plan)
    add(check)
    add(prepare)
    add(strip, "notebook")
    add(run, "name")
    add(results)
    add(execute, "notebook")
    add(report)
    options = vars(parser.parse_args(arguments))
    function, params = options.pop("function"), options.pop("params")
    del options["command"]
    try:
        function(load(params), **options)
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


def check(study: Plan) -> None:
    """Check settings, plan and data folder; the pipeline's first stage."""
    from roadseg.sources import find_source

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
    find_source(study.data, ROOT)
    study.build.mkdir(parents=True, exist_ok=True)
    # Replaced, not written into: DVC keeps the old one as a link into its cache.
    partial = study.build / "checked.partial"
    partial.write_text(json.dumps(study.data) + "\n")
    partial.replace(study.build / "checked.json")


def prepare(study: Plan) -> None:
    """Write the data set as arrays into data/prepared."""
    from roadseg import sources

    about = sources.prepare(study.data, ROOT, study.prepared)
    counts = ", ".join(f"{len(s['names'])} {name}" for name, s in about["splits"].items())
    print(f"{study.prepared.relative_to(ROOT)}: {counts}, digest {about['digest'][:12]}")


def strip(study: Plan, notebook: str) -> None:
    """Copy a notebook without its outputs, for the pipeline to depend on."""
    from roadseg.notebook import strip

    strip(ROOT / f"notebooks/{notebook}.ipynb", study.build / f"notebooks/{notebook}.ipynb")


def run(study: Plan, name: str) -> None:
    """Train one run of the plan, in notebooks/train.ipynb."""
    from roadseg.notebook import execute

    if name not in study.runs:
        raise InputError(f"{name!r} is no run of {study.plan}: {', '.join(study.runs)}.")
    out = study.build / "runs" / name
    execute(
        study.build / "notebooks/train.ipynb",
        study.build / f"executed/train/{name}.ipynb",
        {"params": study.params, "run": name, "out": str(out.relative_to(ROOT))},
        echo=True,
    )
    if not (out / "record.json").is_file():
        raise InputError(f"{name}: train.ipynb came to its end without writing {out}.")


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
