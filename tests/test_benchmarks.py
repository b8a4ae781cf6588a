"""What the benchmarks stand on; no test asserts a time."""

import re
import sys

import numpy as np
import pytest
import torch

from roadseg.config.study import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))

import page  # noqa: E402
import reliability  # noqa: E402
import speed  # noqa: E402
import turns  # noqa: E402

MARK = re.compile(r"<!-- (\w+): written by a benchmark -->\n(.*?)<!-- \1: end -->", re.DOTALL)
PAGES = {
    "performance": {"training", "testing", "start", "means", "scale", "runs", "accuracy"},
    "reliability": {"tried", "fuzz", "gpu"},
}


def text_of(name: str) -> str:
    return (ROOT / f"docs/{name}.md").read_text()


@pytest.mark.parametrize("name", PAGES)
def test_every_section_is_written_by_a_benchmark_and_filled(name):
    files = [*(ROOT / "benchmarks").glob("*.py"), ROOT / "tests/fuzz.py"]
    code = "".join(file.read_text() for file in files)
    sections = dict(MARK.findall(text_of(name)))
    assert set(sections) == PAGES[name]
    for section, content in sections.items():
        assert re.search(rf'section\(\s*"{section}"', code), section
        assert "torch" in content, f"{section}: run its benchmark"
        assert "|" in content or "Not measured" in content, section


@pytest.mark.parametrize("name", PAGES)
def test_no_figure_stands_outside_the_sections(name):
    prose = re.sub(r"`[^`]*`|\b(fp32|bf16)\b", "", MARK.sub("", text_of(name)))
    assert not re.search(r"\d", prose), re.findall(r".*\d.*", prose)


def test_nothing_failed_when_the_page_was_written():
    assert "FAILED" not in text_of("reliability")


def test_what_tests_tell_becomes_rows(tmp_path):
    told = '<property name="tried" value="[&quot;A&quot;, &quot;what&quot;, {}, &quot;fine&quot;]" />'
    (tmp_path / "tried.xml").write_text(f"""<testsuites><testsuite>
        <testcase classname="t" name="one"><properties>{told.format(3)}</properties></testcase>
        <testcase classname="t" name="two"><properties>{told.format(1200)}</properties></testcase>
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
    found = turns.timed({"a": lambda: called.append("a"), "b": lambda: called.append("b") or 7.0}, 3)
    assert called == ["a", "b"] * 4  # the first round is not counted
    assert (found["b"] == 7).all() and (found["a"] < 7).all() and len(found["a"]) == 3
    assert turns.spread(np.array([1.0, 2, 3, 4, 5]), 1) == "3.0 (2.0–4.0)"


@pytest.fixture
def small(tmp_path, monkeypatch):
    monkeypatch.setattr(speed, "DRAWN", 2)
    return speed.drawn(tmp_path, (48, 64))


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
    scoring = speed.train.evaluate
    assert 0 < speed.ours(recipe, speed.repeated(small, 4)) < 60
    assert speed.train.evaluate is scoring
    for contender in (
        speed.Fixed(recipe, small), speed.Usual(recipe, tmp_path, (48, 64), autocast=False)
    ):  # fmt: skip
        before = [p.detach().clone() for p in contender.network.parameters()]
        contender(1)
        after = contender.network.parameters()
        assert not all(map(torch.equal, before, after))
