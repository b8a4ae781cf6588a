"""What the benchmarks stand on; no test asserts a time."""

import json
import re
import sys

import numpy as np
import pytest

from roadseg.analysis import results
from roadseg.config import paths
from roadseg.config.paths import ROOT
from roadseg.config.study import load
from roadseg.training.store import Record

sys.path.insert(0, str(ROOT / "benchmarks"))

import accuracy  # noqa: E402
import camvid_verdicts  # noqa: E402
import reliability  # noqa: E402
import start  # noqa: E402
import thousand  # noqa: E402

MARK = re.compile(r"<!-- (\w+): written by a benchmark -->\n(.*?)<!-- \1: end -->", re.DOTALL)
PAGES = ("performance", "reliability", "statistics", "camvid", "weights")


@pytest.mark.parametrize("name", PAGES)
def test_figures_stand_in_sections_that_a_benchmark_writes_or_have_a_date(name):
    text = (ROOT / f"docs/{name}.md").read_text()
    sections = MARK.findall(text)
    assert sections and all("|" in content or "Not measured" in content for _, content in sections)
    assert "FAILED" not in text
    if name == "camvid":  # its protocol has numbers of its own
        return
    dated = False
    for paragraph in MARK.sub("", text).split("\n\n"):
        dated = bool(re.search(r"\b20\d\d-\d\d-\d\d\b", paragraph)) or dated and paragraph.startswith("|")
        rest = re.sub(r"`[^`]*`|\b(fp32|bf16)\b|\b(19|20)\d\d\b", "", paragraph)
        assert dated or not re.search(r"\d", rest), paragraph


def test_what_tests_tell_becomes_rows(tmp_path):
    property_line = '<property name="tried" value="[&quot;A&quot;, &quot;what&quot;, {}, &quot;fine&quot;]" />'
    (tmp_path / "tried.xml").write_text(f"""<testsuites><testsuite>
        <testcase classname="t" name="one"><properties>{property_line.format(3)}</properties></testcase>
        <testcase classname="t" name="two"><properties>{property_line.format(1200)}</properties></testcase>
        <testcase classname="t" name="bad"><failure message="no" /></testcase>
        <testcase classname="t" name="left"><skipped message="no disk" /></testcase>
        <testcase classname="t" name="silent" /></testsuite></testsuites>""")
    assert reliability.tried(tmp_path / "tried.xml") == [
        {"area": "A", "tried": "what", "times": "1,203", "outcome": "fine"},
        {"area": "FAILED", "tried": "`t.bad`", "times": "1", "outcome": "did not come out as it should"},
        {"area": "not tried", "tried": "`t.left`", "times": "0", "outcome": "no disk"},
    ]  # fmt: skip


def test_the_copy_has_what_git_has_and_nothing_that_is_made(tmp_path):
    copy = start.copy_project(tmp_path)
    assert (copy / "params.yaml").is_file() and (copy / "roadseg/__main__.py").is_file()
    for name in ("dvc.lock", "results", "reports", "work", "build", ".dvc/cache", "data/prepared"):
        assert not (copy / name).exists(), name


def test_simulated_studies_are_of_the_size_asked_for_and_finished(tmp_path, prepared, monkeypatch):
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    for name, content in thousand.settings(families=1).items():
        (tmp_path / f"{name}.yaml").write_text(json.dumps(content))
    (tmp_path / "remarks.md").write_text("- Made up.\n")
    (tmp_path / "data/prepared").mkdir(parents=True)
    (tmp_path / "data/prepared/synthetic").symlink_to(prepared)
    study = load()
    assert len(study.runs) == thousand.RUNS_OF_A_FAMILY + thousand.OTHER_RUNS
    thousand.write_records(study)
    assert results.finished(study)[1] == []
    results._check_recipes(study)
    assert thousand.growth([10, 20, 40], [20.0, 30.0, 50.0]) == "1.0"


def test_what_runs_in_processes_of_its_own_runs(tmp_path, prepared):
    recipe = {"network": "baseline:0.05", "steps": 2, "batch_size": 2, "precision": "fp32"}
    accuracy.train(ROOT, [recipe, 2, str(prepared), str(tmp_path / "runs")])
    assert Record.read(tmp_path / "runs/arm/s1").recipe.seed == 1


def test_camvid_s_frozen_comparisons_are_judged_again():
    table = camvid_verdicts.judged_again()
    np.testing.assert_allclose(table.new_difference, table.difference, atol=1e-6)
    assert (table.new_low < table.new_difference).all() and (table.new_p_corrected >= table.new_p).all()
    flip = table[table.trick == "flip-testing"]
    assert len(flip) == 2 and (flip.verdict == "no effect seen").all() and (flip.new_verdict == "helps").all()
