"""The project holds together: versions, layers, wiring, pipeline, notebooks."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import nbformat
import pytest
from conftest import call, copy_tree, ran, replace
from packaging.requirements import Requirement
from ruamel.yaml import YAML

from roadseg import code
from roadseg.config.paths import ROOT
from roadseg.config.study import load
from roadseg.config.yaml import read_yaml

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
STUDIES = [ROOT, *sorted(p.parent for p in ROOT.glob("studies/*/params.yaml"))]
# Imports point one way: a package imports from those before it, and within itself in no circle.
ORDER = ("errors", "code", "config", "data", "models", "training", "predict", "analysis", "report",
         "explore", "__main__")  # fmt: skip


def modules() -> dict[str, set[str]]:
    """Each module of the project, and the modules that it imports."""
    files = code.closure("roadseg.__main__", "roadseg.explore", "roadseg.report.chapters")
    return {
        name: {m for m in code.file_imports(file) if code.module_file(m)} - {name}
        for name, file in files.items()
    }


def test_imports_point_one_way():
    known = modules()
    files = {code.module_file(name) for name in known}
    assert files == set((ROOT / "roadseg").rglob("*.py"))  # none that nobody reaches
    part = {name: name.split(".")[1] if "." in name else "" for name in known}
    for name, imported in known.items():
        for other in imported:
            if part[other] and part[name]:
                assert ORDER.index(part[other]) <= ORDER.index(part[name]), (name, other)
    done = set()
    while rest := known.keys() - done:
        ready = {n for n in rest if not {m for m in known[n] if part[m] == part[n] != "" and m not in done and m.count(".") > 1}}
        assert ready, f"imports in a circle: {sorted(rest)}"
        done |= ready


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a git checkout")
def test_committed_results_are_of_this_code_and_these_settings(tmp_path):
    """Digests and settings first, then a dry run that must find nothing to do."""
    folder = copy_tree(tmp_path / "roadseg", made=True)

    def is_stale() -> bool:
        first = call(folder, "dvc", "repro", "code", "resolve")
        assert first.returncode == 0, first.stdout + first.stderr
        result = call(folder, "dvc", "repro", "--allow-missing", "--dry")
        # a stage that would run and whose data are not here ends the dry run
        return bool(ran(result)) or result.returncode != 0

    assert not is_stale()
    loop = folder / "roadseg/training/loop.py"
    replace(loop, "if step < recipe.warmup_steps:", "if step < recipe.warmup_steps:  # as long")
    assert not is_stale()
    replace(loop, "if step < recipe.warmup_steps:", "if step <= recipe.warmup_steps:")
    assert is_stale()


@pytest.mark.parametrize("folder", STUDIES, ids=lambda p: p.name)
def test_each_study_has_the_same_pipeline(folder):
    if (folder / "dvc.yaml").exists():  # `make report` copies it into a study that was never run
        assert (folder / "dvc.yaml").read_bytes() == (ROOT / "dvc.yaml").read_bytes()
    assert load((folder / "params.yaml").relative_to(ROOT)).questions


def test_every_trick_is_asked_for_and_says_where_it_comes_from():
    """What no study tries has no place in the catalogue."""
    used_names = set()
    for folder in STUDIES:
        study = load((folder / "params.yaml").relative_to(ROOT))
        for question in read_yaml(folder / "params.yaml")["questions"].values():
            lists = [entries for entries in question.values() if isinstance(entries, list)]
            used_names |= {name for entries in lists for name in entries}
        for trick in study.tricks.values():
            assert trick.idea and re.search(r"(19|20)\d\d|arXiv", trick.source), trick.name
    unused = set(read_yaml(ROOT / "tricks.yaml")) - used_names
    assert not unused, f"ask about these in a study's params.yaml, or remove them: {unused}"


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebooks_are_thin(file):
    notebook = nbformat.read(file, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    tagged = [c for c in code if "parameters" in c.metadata.get("tags", [])]
    assert tagged == code[:1] and tagged[0].source.startswith('name = "synthetic"')
    assert notebook.metadata.kernelspec.name == "python3"
    for cell in code:
        lines = cell.source.splitlines()
        assert len(lines) <= 12 and all(len(line) <= 100 for line in lines), cell.source
        source = re.sub(r"^%.*$", "", cell.source, flags=re.M)
        for node in ast.walk(ast.parse(source)):
            assert not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.While)


PROSE_NUMBERS = re.compile(
    r"FCN-\d+s|\b1×1|\b3×3|(19|20)\d\d|arXiv\s\d+\.\d+|375 × 1242|\d_\w+|95 (%|of 100)|100 %|10⁹"
)
WORDS = sorted((ROOT / "roadseg/report").rglob("*.py"))  # modules with sentences in f-strings
WORDS = [file for file in WORDS if file.stem not in ("page", "notebooks", "style", "pictures", "charts")]


def in_f_strings(source: str):
    """Yield what is typed, and not computed, in the f-strings of some Python code."""
    tree = ast.parse(re.sub(r"^%.*$", "", source, flags=re.M))
    formats = {id(node.format_spec) for node in ast.walk(tree) if isinstance(node, ast.FormattedValue)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr) and id(node) not in formats:
            yield from (part.value for part in node.values if isinstance(part, ast.Constant))


@pytest.mark.parametrize("file", [*NOTEBOOKS, *WORDS], ids=lambda p: p.stem)
def test_no_number_is_typed_in_prose(file):
    """Names, years, kernel sizes and citations aside, prose holds no digit, nor do its templates."""
    if file.suffix == ".py":
        texts = [*in_f_strings(file.read_text())]
    else:
        cells = nbformat.read(file, as_version=4).cells
        texts = [cell.source for cell in cells if cell.cell_type == "markdown"]
        texts = [text for text in texts if not text.startswith("# References")]
        texts += [t for cell in cells if cell.cell_type == "code" for t in in_f_strings(cell.source)]
    for text in texts:
        rest = PROSE_NUMBERS.sub("", text)
        assert not re.search(r"\d", rest), rest


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def locked() -> dict[str, Requirement]:
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    requirements = {}
    for line in lines:
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate({"python_version": "3.11",
           "python_full_version": "3.11.9", "sys_platform": "linux"}):  # fmt: skip
            requirements[normal(requirement.name)] = requirement
    return requirements


def test_the_lock_satisfies_pyproject_and_conda_installs_the_lock():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lock = locked()
    for line in project["dependencies"] + project["optional-dependencies"]["test"]:
        expected = Requirement(line)
        (pin,) = lock[normal(expected.name)].specifier
        assert pin.operator == "==" and expected.specifier.contains(pin.version), line
    conda = YAML(typ="safe").load((ROOT / "environment.yml").read_text())["dependencies"]
    assert {"pip": ["-r requirements.txt", "-e ."]} in conda
    assert "python=3.11" in conda and project["requires-python"] == ">=3.11"


def test_the_lock_is_complete_and_names_no_index():
    """What is installed here and needed by the project is in the lock, at that version."""
    from importlib.metadata import distribution, version

    text = (ROOT / "requirements.txt").read_text()
    assert "://" not in text and "index" not in text
    lock, queue, seen = locked(), ["roadseg"], set()
    while queue:
        name = queue.pop()
        if name in seen:
            continue
        seen.add(name)
        if name != "roadseg":
            (pin,) = lock[name].specifier
            assert pin.version == version(name), name
        for line in distribution(name).requires or []:
            needed = Requirement(line)
            if needed.marker is None or needed.marker.evaluate({"extra": ""}):
                queue.append(normal(needed.name))


def test_every_check_before_a_commit_passes():
    """Style, notebooks without outputs, file sizes: `.pre-commit-config.yaml` lists them."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    result = subprocess.run(
        [sys.executable, "-m", "pre_commit", "run", "--all-files"], cwd=ROOT, capture_output=True,
        text=True, env={**os.environ, "PATH": path},
    )  # fmt: skip
    assert result.returncode == 0, result.stdout
