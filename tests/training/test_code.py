"""Which edits of code are other code, and which code decides a training."""

import json
import subprocess
import sys

import pytest

from roadseg import code
from roadseg.config.paths import ROOT

BEFORE = '''\
"""What this is for."""

import math


class Scale:
    """A scale."""

    unit = "m"

    def of(self, x: float) -> float:
        """Return x, scaled."""
        if x < 0:
            raise ValueError("below zero")
        if x > 9:
            raise ValueError(f"{x} is above nine")
        return 2 * x + math.pi


def empty():
    """Nothing is done here."""
'''
# What stands there, what shall stand there.
NO_CHANGE = {
    "a comment": ("import math\n", "import math  # for pi\n"),
    "a blank line": ("import math\n", "\n\nimport math\n"),
    "the module's docstring": ('"""What this is for."""', '"""What that is for.\n\nAt length.\n"""'),
    "no docstring of the module": ('"""What this is for."""\n', ""),
    "a class's docstring": ('"""A scale."""', '"""Another scale."""'),
    "no docstring of a class": ('    """A scale."""\n', ""),
    "a function's docstring": ("Return x, scaled.", "Scale x."),
    "no docstring of a function": ('        """Return x, scaled."""\n', ""),
    "a docstring alone in its function": ('"""Nothing is done here."""', "pass"),
    "an indentation": ("        return 2", "\n        return \\\n            2"),
    "brackets": ("2 * x + math.pi", "((2 * x) + math.pi)"),
    "quotes": ('unit = "m"', "unit = 'm'"),
    "a text that is raised": ('"below zero"', '"less than zero"'),
    "a text with a value that is raised": ('f"{x} is above nine"', 'f"nine is less than {x:g}"'),
    "a text that is raised in two parts": ('"below zero"', '"below "\n                "zero"'),
    "a text instead of one with a value": ('f"{x} is above nine"', '"too large"'),
}  # fmt: skip
CHANGE = {
    "a number": ("2 * x", "3 * x"),
    "an operator": ("2 * x", "2 / x"),
    "a name": ("unit", "units"),
    "a text that is not raised": ('"m"', '"km"'),
    "an import": ("import math", "import cmath as math"),
    "an annotation": ("x: float", "x: int"),
    "a condition": ("x < 0", "x <= 0"),
    "what is raised": ('ValueError("below zero")', 'TypeError("below zero")'),
    "what else is raised": ('ValueError("below zero")', 'ValueError("below zero", x)'),
    "a number that is raised": ('ValueError("below zero")', "ValueError(0)"),
    "a statement more": ("        return 2", "        x += 0\n        return 2"),
    "a decorator": ("    def of", "    @property\n    def of"),
    "another order": ("import math\n\n\nclass Scale", "x = 1\nimport math\n\n\nclass Scale"),
    "a text that does not stand first": ("import math", 'import math\n\n"""text"""'),
}


@pytest.fixture(autouse=True)
def anew():
    """Other files, and another package: what was found of them before does not count."""
    cached_functions = (code.digest, code.file_imports, code.file_digest)
    for function in cached_functions:
        function.cache_clear()
    yield
    for function in cached_functions:
        function.cache_clear()


def digests(tmp_path, before, after):
    files = [tmp_path / "before.py", tmp_path / "after.py"]
    for file, text in zip(files, (before, after), strict=True):
        file.write_text(text)
        compile(text, str(file), "exec")
    return [code.file_digest(file) for file in files]


@pytest.mark.parametrize("name", NO_CHANGE)
def test_the_same_code(tmp_path, name):
    old, new = NO_CHANGE[name]
    assert BEFORE.count(old) == 1
    before, after = digests(tmp_path, BEFORE, BEFORE.replace(old, new))
    assert before == after


@pytest.mark.parametrize("name", CHANGE)
def test_other_code(tmp_path, name):
    old, new = CHANGE[name]
    assert BEFORE.count(old) == 1
    before, after = digests(tmp_path, BEFORE, BEFORE.replace(old, new))
    assert before != after


TOY = {
    "__init__.py": "",
    "first.py": "import math\nimport toy.second\nfrom toy.deep import third\n",
    "second.py": "def late():\n    from toy import fourth\n    return fourth\n",
    "fourth.py": "import toy.first  # in a circle\n",
    "alone.py": "import toy.fourth\n",
    "gone.py": "import toy.none, toys.second\nfrom toy.second import late\n",
    "deep/__init__.py": "from toy.deep.inner import x\n",
    "deep/third.py": "",
    "deep/inner.py": "x = 1\n",
}
ALL = ["toy", "toy.deep", "toy.deep.inner", "toy.deep.third", "toy.first", "toy.fourth", "toy.second"]


@pytest.fixture
def toy(tmp_path, monkeypatch):
    package = tmp_path / "toy"
    for name, text in TOY.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text)
    monkeypatch.setattr(code, "PACKAGE", package)
    return package


@pytest.mark.parametrize(
    ("modules", "expected"),
    [
        (["toy.first"], ALL),
        (["toy.second"], ALL),
        (["toy.alone"], [*ALL, "toy.alone"]),
        (["toy.deep"], ["toy", "toy.deep", "toy.deep.inner"]),
        (["toy.deep.third"], ["toy", "toy.deep", "toy.deep.inner", "toy.deep.third"]),
        (["toy.deep.inner"], ["toy", "toy.deep", "toy.deep.inner"]),
        (["toy.gone"], [*ALL, "toy.gone"]),
        (["toy.deep.inner", "toy.alone"], [*ALL, "toy.alone"]),
        (["toy.none", "numpy"], []),
    ],
)
def test_a_module_s_code_is_all_that_it_imports_from_the_project(toy, modules, expected):
    """Within functions too, in circles too, and the packages that it lies in."""
    assert list(code.closure(*modules)) == sorted(expected)


def test_the_digest_of_code_is_that_of_all_its_files(toy):
    def digest(*modules):
        for function in (code.digest, code.file_imports, code.file_digest):
            function.cache_clear()
        return code.digest(*modules)

    before = {name: digest(f"toy.{name}") for name in ("first", "deep", "alone")}
    assert len(set(before.values())) == 3
    assert digest("toy.first") == before["first"]
    (toy / "alone.py").write_text(TOY["alone.py"] + "x = 1\n")
    assert digest("toy.first") == before["first"] and digest("toy.alone") != before["alone"]
    (toy / "deep/inner.py").write_text("x = 2\n")
    assert digest("toy.first") != before["first"] and digest("toy.deep") != before["deep"]
    (toy / "deep/inner.py").write_text("# one\nx = 1\n")
    assert digest("toy.first") == before["first"]
    (toy / "fourth.py").rename(toy / "fifth.py")  # the same text under another name
    assert digest("toy.first") != before["first"]


def test_a_process_goes_on_with_the_code_that_it_began_with(toy):
    before = code.digest("toy.deep")
    (toy / "deep/inner.py").write_text("x = 2\n")
    assert code.digest("toy.deep") == before


def test_what_decides_a_training():
    files = code.closure(*code.TRAINING)
    models = {f"roadseg.models.{f.stem}" for f in (ROOT / "roadseg/models").glob("*.py")}
    decides = ("loop", "losses", "augment", "batches", "warm_start", "metrics", "evaluate")
    expected = {f"roadseg.training.{name}" for name in decides} | models
    expected |= {"roadseg.config.recipe", "roadseg.data.scenes", "roadseg.data.synthetic"}
    assert expected - {"roadseg.models.__init__"} <= set(files)
    free = ("store", "question", "workers", "run", "plan", "adopt", "resolve", "lr_search", "energy")
    assert not set(files) & {f"roadseg.training.{name}" for name in free}
    outside = ("analysis", "report", "explore", "config.study", "config.questions", "config.params",
               "config.yaml", "data.prepare", "__main__")  # fmt: skip
    assert not [name for name in files if name.startswith(tuple(f"roadseg.{o}" for o in outside))]
    assert all(file.is_file() for file in files.values())


def test_what_scores_alone_need_is_no_part_of_what_decides_a_training():
    """The curve counts by the same code; boundary IoU and calibration are for the scores."""
    training, scoring = code.closure(*code.TRAINING), code.closure(*code.EVALUATION)
    shared = {"roadseg.training.evaluate", "roadseg.training.metrics"}
    assert shared <= set(scoring) & set(training)
    assert set(scoring) - set(training) == {"roadseg.training.score"}
    assert "roadseg.training.loop" not in scoring


def test_the_closure_is_what_python_imports():
    """No module of the project is loaded by a training that its closure does not name."""
    text = "import sys, roadseg.training.loop, roadseg.training.warm_start; print(*sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", text], cwd=ROOT, capture_output=True, text=True, check=True
    )
    loaded = {name for name in result.stdout.split() if name.partition(".")[0] == "roadseg"}
    assert loaded <= set(code.closure(*code.TRAINING))


def test_templates_and_scripts_beside_modules_count_too(toy):
    """By their bytes; those of other folders, and in the project's own, do not."""
    for name in ("deep/page.html.j2", "deep/page.js", "deep/notes.txt", "page.css"):
        (toy / name).write_text(name)
    before = code.asset_digests("toy.deep.inner")
    assert list(before) == ["deep/page.html.j2", "deep/page.js"] and code.asset_digests("toy.second") == before
    (toy / "deep/page.js").write_text("x")
    after = code.asset_digests("toy.deep.inner")
    assert [name for name in after if after[name] != before[name]] == ["deep/page.js"]


# Notebooks -----------------------------------------------------------------------------------------


def notebook(file, *sources, outputs=(), tags=(), count=None, kind="code"):
    cells = [
        {"cell_type": kind, "metadata": {"tags": list(tags)}, "source": source.splitlines(True),
         "outputs": list(outputs), "execution_count": count}
        for source in sources
    ]  # fmt: skip
    file.write_text(json.dumps({"cells": cells, "metadata": {"x": len(outputs)}}))
    return code.notebook_digest(file)


def test_a_notebook_is_the_same_with_and_without_outputs(tmp_path):
    file, source = tmp_path / "n.ipynb", "%config x = 1\nimport os\nx = 1"
    before = notebook(file, source)
    shown = [{"output_type": "stream", "name": "stdout", "text": ["1\n"]}]
    assert notebook(file, source, outputs=shown, count=7) == before
    others = [
        notebook(file, source + "\ny = 2"), notebook(file, source, source),
        notebook(file, source, tags=["parameters"]), notebook(file, source, kind="markdown"),
    ]  # fmt: skip
    assert len({digest for digest, _ in [before, *others]}) == 5


def test_a_notebook_s_imports_from_the_project(tmp_path):
    sources = ("%matplotlib inline\n!ls\nfrom roadseg.analysis import tables\nimport numpy",
               "def f():\n    import roadseg.report.text as t\n")  # fmt: skip
    _, names = notebook(tmp_path / "n.ipynb", *sources)
    assert names == ["roadseg.analysis", "roadseg.analysis.tables", "roadseg.report.text"]
    _, names = notebook(tmp_path / "n.ipynb", *sources, kind="markdown")
    assert names == []
