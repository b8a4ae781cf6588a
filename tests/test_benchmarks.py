"""What the benchmarks stand on; no test asserts a time."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import torch

from roadseg.analysis import results
from roadseg.config import paths
from roadseg.config.paths import ROOT
from roadseg.config.study import load
from roadseg.training.store import Record

sys.path.insert(0, str(ROOT / "benchmarks"))

import accuracy  # noqa: E402
import camvid_verdicts  # noqa: E402
import page  # noqa: E402
import reliability  # noqa: E402
import speed  # noqa: E402
import start  # noqa: E402
import thousand  # noqa: E402
import turns  # noqa: E402

MARK = re.compile(r"<!-- (\w+): written by a benchmark -->\n(.*?)<!-- \1: end -->", re.DOTALL)
PAGES = {
    "performance": {"training", "testing", "start", "grouped", "scale", "runs", "accuracy"},
    "reliability": {"tried", "fuzz", "gpu"},
    "statistics": {"coverage"},
    "camvid": {"verdicts"},
    "weights": {"own", "fine", "networks"},
}


def text_of(name: str) -> str:
    return (ROOT / f"docs/{name}.md").read_text()


@pytest.mark.parametrize("name", PAGES)
def test_every_section_is_written_by_a_benchmark_and_filled(name):
    files = [*(ROOT / "benchmarks").glob("*.py"), ROOT / "tests/data/fuzz.py"]
    code = "".join(file.read_text() for file in files)
    sections = dict(MARK.findall(text_of(name)))
    assert set(sections) == PAGES[name]
    for section, content in sections.items():
        assert re.search(rf'section\(\s*"{section}"', code), section
        assert "torch" in content or name == "camvid", f"{section}: run its benchmark"
        assert "|" in content or "Not measured" in content, section


@pytest.mark.parametrize("name", sorted(PAGES.keys() - {"camvid"}))  # whose protocol has numbers of its own
def test_no_figure_stands_outside_the_sections_without_a_date(name):
    prose, dated = [], False
    for paragraph in MARK.sub("", text_of(name)).split("\n\n"):
        dated = bool(re.search(r"\b20\d\d-\d\d-\d\d\b", paragraph)) or dated and paragraph.startswith("|")
        prose += [] if dated else [re.sub(r"`[^`]*`|\b(fp32|bf16)\b|\b(19|20)\d\d\b", "", paragraph)]
    assert len(prose) > 2
    assert not [paragraph for paragraph in prose if re.search(r"\d", paragraph)]


def test_nothing_failed_when_the_page_was_written():
    assert "FAILED" not in text_of("reliability")


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


def test_a_section_is_replaced_and_the_rest_stays(tmp_path, monkeypatch):
    file = tmp_path / "page.md"
    file.write_text("# a\n<!-- one: written by a benchmark -->\nold\n<!-- one: end -->\nb\n")
    monkeypatch.setattr(page, "PAGE", file)
    for text in ("first", "second"):
        page.section("one", text)
        assert file.read_text() == (
            f"# a\n<!-- one: written by a benchmark -->\n\n{text}\n\n<!-- one: end -->\nb\n"
        )
    with pytest.raises(SystemExit, match="has no section 'two'"):
        page.section("two", "text")


def test_contenders_take_turns_and_may_time_themselves():
    called = []
    seconds = turns.timed({"a": lambda: called.append("a"), "b": lambda: called.append("b") or 7.0}, 3)
    assert called == ["a", "b"] * 4  # the first round is not counted
    assert (seconds["b"] == 7).all() and (seconds["a"] < 7).all() and len(seconds["a"]) == 3
    assert turns.spread(np.array([1.0, 2, 3, 4, 5]), 1) == "3.0 (2.0–4.0)"


@pytest.fixture
def small(tmp_path, monkeypatch):
    monkeypatch.setattr(speed, "SCENES", 2)
    return speed.draw_scenes(tmp_path, (48, 64))


def test_all_contenders_see_the_same_scenes(small, tmp_path):
    file = speed.Files(tmp_path, (48, 64), 4)
    file.change = lambda image, labels: (image, labels)
    for index in range(4):
        image, labels = file[index]
        np.testing.assert_array_equal(image, small.images[index % 2])
        np.testing.assert_array_equal(labels, small.labels[index % 2])
    assert (speed.repeated(small, 5).labels[4] == small.labels[0]).all()


def test_each_contender_trains(small, tmp_path):
    recipe = speed.BASE.changed({"network": "baseline:0.05", "batch_size": 2})
    assert 0 < speed.epoch_seconds(recipe, speed.repeated(small, 4)) < 60
    assert speed.loop.evaluate is speed.evaluate
    for contender in (
        speed.Fixed(recipe, small), speed.Usual(recipe, tmp_path, (48, 64), autocast=False)
    ):  # fmt: skip
        before = [p.detach().clone() for p in contender.network.parameters()]
        contender(1)
        after = contender.network.parameters()
        assert not all(map(torch.equal, before, after))


DVC = """#!/bin/sh
test -e work/done && { echo "Data and pipelines are up to date."; exit; }
mkdir -p work/runs/a work/runs/b work/runs/c work/done
for name in a b; do echo '{"about": {"seconds": 1.5}}' > work/runs/$name/training.json; done
echo '{"why": "not finite"}' > work/runs/c/failed.json
for stage in code train@fcn train@ladder results; do echo "Running stage '$stage':"; sleep 0.2; done
"""


def test_the_pipeline_s_time_is_reported_by_stage_and_against_its_training(tmp_path, monkeypatch):
    program = tmp_path / "dvc"
    program.write_text(DVC)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    rows = [[cell.strip() for cell in line.strip("|").split("|")]
            for line in start.measure(tmp_path, workers=2).splitlines() if "|" in line]  # fmt: skip
    cells = {row[0]: row[1] for row in rows}
    assert [name for name in cells if "@" in name] == ["train@fcn", "train@ladder"]
    assert 0.1 < float(cells["results"]) < 5
    assert cells["training steps, seconds of one thread"] == "3.0"
    trained = float(cells["train@fcn"]) + float(cells["train@ladder"])
    ratio = float(cells["train stages / (training steps / processes)"])
    assert ratio == pytest.approx(trained * 2 / 3, abs=0.1)
    assert float(cells["`dvc repro` with nothing to do, median of 5, s"]) < 5


def test_a_pipeline_that_fails_is_shown(tmp_path, monkeypatch):
    program = tmp_path / "dvc"
    program.write_text("#!/bin/sh\necho no room; exit 3\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(SystemExit, match="no room\n\ndvc repro failed"):
        start.repro(tmp_path)


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
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks/scale.py", prepared, "0"], capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True,
    )  # fmt: skip
    most, before = map(int, done.stdout.split())
    assert most >= before > 0


def test_camvid_s_frozen_comparisons_are_judged_again():
    table = camvid_verdicts.judged_again()
    np.testing.assert_allclose(table.new_difference, table.difference, atol=1e-6)
    assert (table.new_low < table.new_difference).all() and (table.new_p_corrected >= table.new_p).all()
    flip = table[table.trick == "flip-testing"]
    assert len(flip) == 2 and (flip.verdict == "no effect seen").all() and (flip.new_verdict == "helps").all()


def test_rows_of_tests_that_are_run_again_take_the_place_of_theirs():
    row = {"area": "Resume", "tried": "a kill", "times": "1", "outcome": "goes on"}
    failed = {"area": "FAILED", "tried": "`tests.test_x.test_stop[3]`", "times": "1", "outcome": "no"}
    other = failed | {"tried": "`tests.test_x.test_other`"}
    text = f"<!-- tried: written by a benchmark -->\n\n{page.table([failed, other, row])}\n<!-- tried: end -->"
    before = reliability.table_rows(text)
    assert before == [failed, other, row]
    again = [row | {"times": "2"}, row | {"tried": "a stop"}]
    assert reliability.merged(before, again, ["tests/test_x.py::test_stop"]) == [other, *again]
