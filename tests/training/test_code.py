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
        say("scaled", end="")
        rule(1, "one")
        return 2 * x + math.pi


def empty():
    """Nothing is done here."""
'''
# What stands there, what shall stand there.
NO_CHANGE = [
    ("import math\n", "\n\nimport math  # for pi\n"),
    ('"""What this is for."""', '"""What that is for.\n\nAt length.\n"""'),
    ('"""What this is for."""\n', ""),
    ('    """A scale."""\n', ""),
    ('        """Return x, scaled."""\n', ""),
    ('"""Nothing is done here."""', "pass"),
    ("        return 2", "\n        return \\\n            2"),
    ("2 * x + math.pi", "((2 * x) + math.pi)"),
    ('unit = "m"', "unit = 'm'"),
    ('"below zero"', '"less "\n                "than zero"'),
    ('f"{x} is above nine"', 'f"nine is less than {x:g}"'),
    ('f"{x} is above nine"', '"too large"'),
    ('say("scaled", end="")', 'say(f"times {2}", end="")'),
    ('rule(1, "one")', 'rule(1, "uno")'),
]
CHANGE = [
    ("2 * x", "3 * x"),
    ("2 * x", "2 / x"),
    ("unit", "units"),
    ('"m"', '"km"'),
    ("import math", "import cmath as math"),
    ("x: float", "x: int"),
    ("x < 0", "x <= 0"),
    ('ValueError("below zero")', 'TypeError("below zero")'),
    ('ValueError("below zero")', 'ValueError("below zero", x)'),
    ('ValueError("below zero")', "ValueError(0)"),
    ("        return 2", "        x += 0\n        return 2"),
    ("    def of", "    @property\n    def of"),
    ("import math\n\n\nclass Scale", "x = 1\nimport math\n\n\nclass Scale"),
    ("import math", 'import math\n\n"""text"""'),
    ('end=""', 'end="."'),
    ('rule(1, "one")', 'rule(2, "one")'),
    ('rule(1, "one")', 'rule("one", "one")'),
]


@pytest.fixture(autouse=True)
def anew():
    """Other files, and another package: what was found of them before does not count."""
    forget()
    yield
    forget()


def forget():
    for function in (code.digest, code.file_imports, code.file_digest):
        function.cache_clear()


@pytest.mark.parametrize(
    ("old", "new", "same"), [(*pair, True) for pair in NO_CHANGE] + [(*pair, False) for pair in CHANGE]
)
def test_which_edits_are_other_code(tmp_path, old, new, same):
    """Comments, docstrings, layout and messages are not."""
    assert BEFORE.count(old) == 1
    files = [tmp_path / "before.py", tmp_path / "after.py"]
    for file, text in zip(files, (BEFORE, BEFORE.replace(old, new)), strict=True):
        file.write_text(text)
        compile(text, str(file), "exec")
    before, after = map(code.file_digest, files)
    assert (before == after) == same


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
        forget()
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


def test_what_decides_a_training_and_what_its_scores():
    training, scoring = (set(code.closure(*m)) for m in (code.TRAINING, code.EVALUATION))
    packages = {"roadseg.models.build", "roadseg.config.recipe", "roadseg.data.scenes"}
    assert packages | {"roadseg.training.loop", "roadseg.training.warm_start"} <= training
    for name in ("analysis", "report", "config.study", "data.prepare", "training.run"):
        assert not [module for module in training if module.startswith(f"roadseg.{name}")]
    # the curve counts by the same code; boundary IoU and calibration are for the scores
    assert scoring - training == {"roadseg.training.score"}


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
               "def f():\n    import roadseg.report.findings as t\n")  # fmt: skip
    _, names = notebook(tmp_path / "n.ipynb", *sources)
    assert names == ["roadseg.analysis", "roadseg.analysis.tables", "roadseg.report.findings"]
    _, names = notebook(tmp_path / "n.ipynb", *sources, kind="markdown")
    assert names == []
