"""Studies that lack something still become a report, which says what is missing."""

import re
import shutil

import broken
import pandas as pd
import pytest
from browser import browsing
from conftest import call

pytestmark = pytest.mark.slow

LONE = """\
study: lone
title: One network, one seed, one class and no test images
root: ../..
folder: studies/lone
data: {source: folder, path: data/raw/lone, size: [40, 60], block: 1}
seeds: [0]
base: {network: "smp:unet:tu-test_resnet", steps: 3, batch_size: 2}
questions:
  one: {asks: "What does it score?", networks: {unet: "smp:unet:tu-test_resnet"}}
"""

FAILING = """\
study: failing
title: Arms that do not come to their end
root: ../..
folder: studies/failing
data: {source: synthetic, path: roadseg/data/synthetic.py, size: [48, 96], seed: 3, block: 1,
       counts: {train: 4, val: 2, test: 4}}
seeds: [0, 1]
base: {network: "baseline:0.05", steps: 3, batch_size: 2}
questions:
  sizes: {asks: "Which?", networks: {narrow: "baseline:0.05", wide: "baseline:0.1"}}
  wilder: {asks: "Which of these?", tricks: [wild], networks: {narrow: "baseline:0.05", wide: "baseline:0.1"}}
  ladder: {asks: "What helps?", start: narrow, ladder: [flip, wild, smooth]}
  each: {asks: "What helps alone?", start: narrow, alone: [wild, smooth]}
  luck: {asks: "How much is luck?", start: narrow-wild, noise: [0, 1, 2]}
"""

TRICKS = """\
flip: {set: {flip: 0.5}}
wild: {set: {lr: 1.0e+30}}
smooth: {set: {label_smoothing: 0.1}}
"""


def made(clone, name, params, tricks="# none of its own\n"):
    """Write a study, run its pipeline, and return its report as text without tags."""
    folder = clone / "studies" / name
    folder.mkdir()
    (folder / "params.yaml").write_text(params)
    (folder / "tricks.yaml").write_text(tricks)
    for beside in ("remarks.md", "networks.yaml"):
        (folder / beside).write_text("")
    shutil.copy(clone / "dvc.yaml", folder)
    result = call(clone, "dvc", "repro", f"studies/{name}/dvc.yaml")
    assert result.returncode == 0, result.stdout + result.stderr
    report = clone / f"reports/{name}/report.html"
    with browsing(offline=True) as (page, wrong):
        page.goto(report.as_uri())
        assert page.locator("main figure").count() > 5 and not wrong
    text = re.sub(r"<(style|script).*?</\1>|<[^>]+>|base64,[^\"]+", " ", report.read_text(), flags=re.S)
    text = re.sub(r"\s+", " ", text)
    assert not re.search(r"\b(nan|inf|None|Traceback)\b", text)
    return text


@pytest.fixture(scope="module")
def lone(clone) -> str:
    data = broken.good(clone / "data/raw/lone")
    for name in broken.NAMES:
        labels = broken.get(data, name)
        labels[labels > 0] = 255
        broken.put(data, name, labels)
    (data / broken.DESCRIPTION).write_text(
        broken.GOOD.replace("[road, building, sky]", "[road]").replace("test: [west]", "test: none")
    )
    return made(clone, "lone", LONE)


def test_one_network_one_seed_one_class_and_no_test_images(clone, lone):
    assert "100.0 %" in lone and "val" in lone
    prepared = clone / "data/prepared/lone"
    for kind in ("images", "labels"):
        val, test = ((prepared / f"{name}_{kind}.npy").read_bytes() for name in ("val", "test"))
        assert val == test
    comparisons = pd.read_csv(clone / "results/lone/tables/comparisons.csv")
    assert not len(comparisons)


def test_arms_that_fail_are_named_and_the_rest_is_compared(clone):
    text = made(clone, "failing", FAILING, TRICKS)
    tables = {
        name: pd.read_csv(clone / f"results/failing/tables/{name}.csv")
        for name in ("outcomes", "arms", "comparisons", "noise")
    }
    failed = tables["outcomes"].set_index("arm").failed
    assert failed.to_dict() == {
        "narrow": 0, "wide": 0, "narrow-wilder": 3, "wide-wilder": 2, "with-flip": 0, "with-wild": 2,
        "with-smooth": 2, "narrow-smooth": 0,
    }  # fmt: skip
    assert set(tables["arms"].arm) == set(failed.index[failed == 0])
    pairs = set(zip(tables["comparisons"].arm, tables["comparisons"].against, strict=True))
    assert pairs == {("wide", "narrow"), ("with-flip", "narrow"), ("narrow-smooth", "narrow")}
    assert not len(tables["noise"])
    assert "with-wild" in text and "arms failed" in text
