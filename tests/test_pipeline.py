"""The whole way at smoke size, in a clone: settings, pipeline, notebooks, report."""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import psutil
import pytest
from browser import browsing
from conftest import call, ran, replace, snapshot
from PIL import Image

from roadseg.__main__ import main
from roadseg.config import paths
from roadseg.errors import InputError
from roadseg.report import notebooks

ARMS = {"baseline", "fcn-32s", "fcn-8s", "with-augmentation", "with-transfer", "with-adamw-poly",
        "with-multi-scale-testing", "baseline-batch-norm", "baseline-networks",
        "dabnet-half-networks", "fcn-8s-2-steps", "fcn-8s-augmentation-2-steps"}  # fmt: skip
RUNS = {f"{arm}-s0" for arm in ARMS} | {"fcn-8s-s1"}
QUESTIONS = ("fcn", "ladder", "networks", "baseline-variants", "noise", "length")


def trained(result: subprocess.CompletedProcess) -> dict[str, str]:
    """What each train stage that ran says of its runs: question -> '3 runs: 1 trained, ...'."""
    assert result.returncode == 0, result.stdout + result.stderr
    summaries = re.findall(
        r"Running stage '(?:[^':]*:)?train@([^']+)'.*?^(\d+ runs: [^\n]*)", result.stdout, re.M | re.S
    )
    assert {f"train@{question}" for question, _ in summaries} == {
        stage for stage in ran(result) if stage.startswith("train@")
    }
    return dict(summaries)


@contextmanager
def edited(file: Path, *changes: tuple[str, str]):
    """Change a file, and put it back at the end."""
    before = file.read_text()
    for old, new in changes:
        replace(file, old, new)
    yield
    file.write_text(before)


@pytest.fixture(scope="module")
def reproduced(clone) -> Path:
    """The clone after `dvc repro`."""
    planned = call(clone, "roadseg", "plan")
    assert planned.returncode == 0, planned.stderr
    assert "6 questions ask for 13 runs; 0 of them are in the run store." in planned.stdout
    assert not (clone / "work").exists()
    result = call(clone, "dvc", "repro")
    assert set(trained(result)) == set(QUESTIONS)
    assert re.search(
        r"fcn-8s-s0  epoch +2/2 +step +4/4 +loss \d\.\d+ .* val mIoU \d\.\d+", result.stdout
    )
    assert "13 of them are in the run store" in call(clone, "roadseg", "plan").stdout
    return clone


def test_the_tables_hold_every_run(reproduced):
    runs = pd.read_csv(reproduced / "results/synthetic/tables/runs.csv")
    assert set(runs.run) == RUNS
    assert runs.test_miou.between(0, 1).all() and (runs.seconds > 0).all()
    comparisons = pd.read_csv(reproduced / "results/synthetic/tables/comparisons.csv")
    # all pairs of three networks, and of two; four rungs, and the ladder's ends; one trick alone;
    # one at two lengths
    assert len(comparisons) == 3 + 1 + 5 + 1 + 2
    networks = pd.read_csv(reproduced / "results/synthetic/tables/networks.csv")
    assert set(networks.network) == {*runs.network, "baseline:0.05+batch_norm"}
    alike = runs.set_index("arm").weights_of[["with-adamw-poly", "with-multi-scale-testing"]]
    assert list(alike.fillna("")) == ["", "with-adamw-poly-s0"]
    searches = pd.read_csv(reproduced / "results/synthetic/tables/searches.csv")
    assert list(searches.arm) == ["baseline-networks"] * 2 + ["dabnet-half-networks"] * 2
    used = runs.set_index("arm").lr_used
    for arm, trials in searches.groupby("arm"):
        assert trials.chosen.sum() == 1 and used[arm] == trials.lr[trials.chosen].iloc[0]
    noise = pd.read_csv(reproduced / "results/synthetic/tables/noise.csv")
    assert list(noise.seeds) == [2]
    headline = json.loads((reproduced / "results/synthetic/metrics.json").read_text())
    assert headline["baseline"]["test_miou"] == pytest.approx(
        runs.set_index("run").test_miou["baseline-s0"], abs=1e-4
    )


def test_the_report_is_whole_and_loads_nothing(reproduced):
    html = (reproduced / "reports/synthetic/report.html").read_text()
    assert not re.search(r"""(?:src|(?<!<a )href)\s*=\s*["'](?!data:|#)""", html)
    assert html.count("<script") == 1 and not re.search(r"@import|url\((?!#)", html)
    text = re.sub(r"<(style|script).*?</\1>|<[^>]+>|base64,[^\"]+", " ", html, flags=re.S)
    assert not re.search(r"\b(nan|inf|None)\b", text)
    assert html.count("data:image/png") > 15
    runs = pd.read_csv(reproduced / "results/synthetic/tables/runs.csv")
    device = runs.device[0].rpartition(", ")[0]
    for fact in (runs.data_digest[0][:16], device, runs.torch[0], runs.digest[0]):
        assert str(fact) in html
    anchors = re.findall(r'<a href="#([^"]+)"', html)
    assert len(anchors) > 25 and all(f'id="{anchor}"' in html for anchor in anchors)


def test_the_report_in_a_browser(reproduced):
    file = reproduced / "reports/synthetic/report.html"
    assert file.stat().st_size < 8_000_000
    with browsing(offline=True) as (page, wrong):
        spent = []  # ms; the best of some, since other tests run meanwhile
        for _ in range(4):
            page.goto(file.as_uri())
            spent.append(page.evaluate("performance.getEntriesByType('navigation')[0].duration"))
        assert min(spent) < 1000
        for width in (375, 1200):
            page.set_viewport_size({"width": width, "height": 800})
            assert page.evaluate("document.documentElement.scrollWidth") <= width
        pictures = page.locator("main img").evaluate_all("all => all.map(i => [i.alt, i.naturalWidth])")
        assert len(pictures) > 30 and all(len(alt) > 3 and wide for alt, wide in pictures)

        page.locator("main details").evaluate_all("all => all.forEach(each => { each.open = true })")
        head = page.locator("th button", has_text="test mIoU %").first
        column = (
            "head => { const cell = head.parentElement;"
            " return [...cell.closest('table').tBodies[0].rows].map(r => +r.cells[cell.cellIndex].innerText) }"
        )
        for sort in (sorted, lambda values: sorted(values, reverse=True)):
            head.click()
            shown = head.evaluate(column)
            assert len(set(shown)) > 1 and shown == sort(shown)

        picture = page.locator(".compare").first
        picture.locator("input[type=range]").fill("20")
        covered = picture.locator(".truth").evaluate("i => getComputedStyle(i).clipPath")
        assert "80%" in covered
        assert picture.locator(".image").is_visible()
        picture.get_by_text("truth on the left").click()
        assert not picture.locator(".image").is_visible()
        assert not picture.locator("img.errors").is_visible()
        picture.get_by_text("errors in red on the right").click()
        assert picture.locator("img.errors").is_visible()

        code = page.locator(".input").first
        assert not code.is_visible()
        page.locator("label.code").click()
        assert code.is_visible()
        page.emulate_media(color_scheme="dark")
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(25, 25, 25)"
        page.emulate_media(media="print")
        assert not page.locator("nav").is_visible()
        assert not wrong, wrong


def test_a_page_obeys_no_script_but_its_own(reproduced, tmp_path):
    html = (reproduced / "reports/synthetic/report.html").read_text()
    planted = tmp_path / "planted.html"
    planted.write_text(html.replace("</main>", "<script>document.title = 'obeyed'</script></main>"))
    with browsing(offline=True) as (page, wrong):
        page.goto(planted.as_uri())
        assert page.title() != "obeyed"
        assert any("Content Security Policy" in line for line in wrong)


def test_exploring_in_jupyterlab(reproduced, tmp_path):
    picture = tmp_path / "mine.png"
    Image.fromarray(np.full((90, 120, 3), 128, np.uint8)).save(picture)
    (tmp_path / "no.png").write_text("no image")
    with lab(reproduced) as address, browsing(local=True, viewport={"width": 1600, "height": 1400}) as (page, _):
        page.goto(f"{address}/lab/tree/notebooks/explore.ipynb")
        page.get_by_text("Python 3 (ipykernel) | Idle").wait_for(timeout=60_000)
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.locator(".lm-Menu-itemLabel", has_text=re.compile("^Run All Cells$")).click()
        images = page.locator(".jp-OutputArea img")
        expect = import_module("playwright.sync_api").expect
        expect(images).to_have_count(7, timeout=60_000)  # two of them wait for an image
        truth = images.nth(1).get_attribute("src")
        page.locator(".jp-OutputArea select").nth(2).select_option("road")
        expect(images.nth(1)).not_to_have_attribute("src", truth)
        expect(page.get_by_text("mIoU").first).to_be_visible()

        def choose(file: Path) -> None:
            with page.expect_file_chooser() as chooser:
                page.locator(".jp-OutputArea .widget-upload").click()
            chooser.value.set_files(str(file))

        choose(tmp_path / "no.png")
        expect(page.get_by_text("no.png: cannot be read")).to_be_visible(timeout=20_000)
        choose(picture)
        expect(page.get_by_text("mine.png: ")).to_be_visible(timeout=20_000)
        expect(page.get_by_text(re.compile(r"mine.png: .*\d %"))).to_be_visible()
        drawn = images.nth(6).evaluate("i => [i.naturalWidth, i.naturalHeight]")
        assert drawn == [120, 90]  # its own size


@contextmanager
def lab(folder: Path):
    """Run JupyterLab as `make lab` does, and give its address."""
    server = subprocess.Popen(
        [sys.executable, "-m", "jupyterlab", "--notebook-dir=.", "--no-browser", "--port=0",
         "--IdentityProvider.token=", "--allow-root", "--ServerApp.port_retries=0"],
        cwd=folder, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(folder)},
    )  # fmt: skip
    try:
        output = []
        for line in server.stderr:
            output.append(line)
            if address := re.search(r"http://(?:127.0.0.1|localhost):\d+", line):
                threading.Thread(target=server.stderr.read, daemon=True).start()
                yield address[0]
                return
        raise AssertionError("".join(output))
    finally:
        server.terminate()
        server.wait(20)


def test_what_changes_no_result_trains_nothing(reproduced):
    """Edits of outputs, comments, layout, docstrings, messages and texts; and what is computed."""
    assert ran(call(reproduced, "dvc", "repro")) == set()
    notebook = reproduced / "notebooks/train.ipynb"
    loop = reproduced / "roadseg/training/loop.py"
    saved = nbformat.read(notebook, as_version=4)
    saved.cells[1].outputs = [nbformat.v4.new_output("stream", text="left behind")]
    saved.cells[1].execution_count = 7
    before = notebook.read_bytes()
    with edited(
        loop,
        ("        losses.append(loss.detach())  # read once", "        # Kept.\n        losses.append(\n            loss.detach()\n        )  # read once"),
        ('"""The loss is not finite any more."""', '"""The loss is gone."""'),
        ("the loss is not finite at step {first}", "at step {first} the loss is not finite"),
    ):
        nbformat.write(saved, notebook)
        assert ran(call(reproduced, "dvc", "repro")) == {"code"}
        notebook.write_bytes(before)
    assert call(reproduced, "dvc", "repro", "code").returncode == 0
    with edited(
        reproduced / "tricks.yaml", ("the cheapest way to more of them", "a cheap way to more of them")
    ):
        assert ran(call(reproduced, "dvc", "repro", "train")) == {"resolve"}
        assert call(reproduced, "dvc", "repro", "chapters", "--dry").stdout.count("Running stage") == 1
    shutil.rmtree(reproduced / "work")
    result = call(reproduced, "dvc", "repro")
    assert not {s for s in ran(result) if s.startswith("train@")} and result.returncode == 0


@pytest.mark.slow
def test_each_change_trains_exactly_what_it_must(reproduced):
    """In the store of this clone are the runs that these changes ask for, and no others."""
    shutil.rmtree(reproduced / "work", ignore_errors=True)
    params, tricks = reproduced / "params.yaml", reproduced / "tricks.yaml"
    again = call(reproduced, "dvc", "repro", "-f", "train")
    # each question alone; what several ask for is trained once
    assert trained(again)["ladder"].startswith("5 runs: ")
    records = (reproduced / "build/synthetic/runs").glob("*/*/s*/record.json")
    distinct = {json.loads(record.read_text())["about"]["training"] for record in records}
    assert sum(int(n) for n in re.findall(r"(\d+) trained", again.stdout)) == len(distinct)

    with edited(tricks, ("weight_decay: 0.01", "weight_decay: 0.02")):
        assert trained(call(reproduced, "dvc", "repro", "train")) == {
            "ladder": "5 runs: 1 trained, 1 scored anew, 3 from the store"
        }
    back = call(reproduced, "dvc", "repro", "train")
    assert trained(back) == {} and "Stage 'train@ladder' is cached - skipping run" in back.stdout

    folder = reproduced / "build/synthetic/runs/noise/fcn-8s"
    records = {seed: (folder / f"s{seed}/record.json").read_bytes() for seed in (0, 1)}
    with edited(params, ("    noise:\n      - 0\n      - 1\n", "    noise:\n      - 0\n      - 1\n      - 2\n")):
        assert trained(call(reproduced, "dvc", "repro", "train")) == {
            "noise": "3 runs: 1 trained, 2 from the store"
        }
        for seed, record in records.items():
            assert (folder / f"s{seed}/record.json").read_bytes() == record

    with edited(params, ("    test: 4\n", "    test: 5\n")):
        summaries = trained(call(reproduced, "dvc", "repro", "train"))
        assert set(summaries) == set(QUESTIONS) and not any("trained" in line for line in summaries.values())
        with np.load(reproduced / "build/synthetic/runs/fcn/fcn-8s/s0/counts.npz") as counts:
            assert len(counts["test"]) == 5 and len(counts["val"]) == 2
    assert trained(call(reproduced, "dvc", "repro", "train")) == {}


@pytest.mark.slow
def test_experiments_share_the_run_store(reproduced):
    """`dvc exp run` in place and in a copy; what one of them trained the other takes."""
    identity = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b.c",
                "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b.c"}  # fmt: skip
    for command in (["add", "-A"], ["commit", "-qm", "start"]):
        subprocess.run(["git", *command], cwd=reproduced, check=True, env={**os.environ, **identity})
    params = (reproduced / "params.yaml").read_text()

    def experiment(*options: str) -> set[str]:
        result = call(reproduced, "dvc", "exp", "run", *options, **identity)
        return set(trained(result).values())

    lines = experiment("-S", "base.lr=0.002")
    assert lines and all("trained" in line for line in lines)
    assert "lr: 0.002" in (reproduced / "params.yaml").read_text()
    for comment in re.findall("#.*", params):
        assert comment in (reproduced / "params.yaml").read_text()
    subprocess.run(["git", "checkout", "-q", "."], cwd=reproduced, check=True)
    assert not any("trained" in line for line in experiment("--temp", "-S", "base.lr=0.002"))
    assert (reproduced / "params.yaml").read_text() == params
    for arguments in (["exp", "run", "--queue", "-S", "base.lr=0.003"], ["queue", "start"]):
        result = call(reproduced, "dvc", *arguments, **identity)  # it runs in the background
        assert result.returncode == 0, result.stderr
    deadline = time.monotonic() + 900
    while "Success" not in (status := call(reproduced, "dvc", "queue", "status").stdout):
        assert "Failed" not in status and time.monotonic() < deadline, status
        time.sleep(2)
    shown = call(reproduced, "dvc", "exp", "show", "--only-changed", "--csv")
    assert shown.returncode == 0 and {"0.002", "0.003"} <= set(re.findall(r"0\.00\d", shown.stdout))


@pytest.mark.parametrize(
    ("file", "old", "new", "named"),
    [
        ("params.yaml", "seeds:", "sedes:", "'seeds'"),
        ("params.yaml", "source: synthetic", "source: sintetic", "'synthetic'"),
        ("networks.yaml", "network: fcn8s:tu-test_resnet", "network: fcn8s:tu-test_resnt", "'tu-test_resnet'"),
        ("networks.yaml", "network: fcn8s:tu-test_resnet", "network: smp:linknet:mit_b0", "smp:linknet:mit_b0"),
        ("tricks.yaml", "    pretrained: scenes:4\n    pretrain_steps: 2\n", "    pretrained: file:gone.pt\n", "file:gone.pt"),
        ("tricks.yaml", "    flip: 0.5", "    filp: 0.5", "'flip'"),
    ],
)  # fmt: skip
def test_bad_settings_end_with_one_sentence_and_status_2(
    clone, file, old, new, named, monkeypatch, capsys
):
    """It names what is wrong or the nearest known name, and nothing is written."""
    monkeypatch.setattr(paths, "ROOT", clone)
    monkeypatch.chdir(clone)
    with edited(clone / file, (old, new)):
        before = snapshot(clone)
        for command, study in (("plan", "synthetic"), ("resolve", "synthetic"), ("check", "params.yaml")):
            assert main([command, study]) == 2
            output = capsys.readouterr().err
            assert output.startswith("roadseg: ") and named in output and output.count("\n") == 1
        assert snapshot(clone) == before


def test_a_chapter_runs_on_its_defaults(reproduced):
    """As in JupyterLab: nothing injected, from the notebooks' own folder."""
    code = (
        "import nbformat, nbclient; n = nbformat.read('notebooks/2_baseline.ipynb', 4);"
        "nbclient.NotebookClient(n, kernel_name='python3',"
        " resources={'metadata': {'path': 'notebooks'}}).execute()"
    )
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], cwd=reproduced, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(reproduced)},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-2000:]


def write_notebook(file: Path, *cells: str) -> None:
    made = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(text) for text in cells],
        metadata={"kernelspec": {"name": "python3", "display_name": "p", "language": "python"}},
    )
    made.cells[0].metadata["tags"] = ["parameters"]
    nbformat.write(made, file)


def test_the_runner_refuses_what_papermill_lets_pass(tmp_path):
    source, target = tmp_path / "a.ipynb", tmp_path / "out/a.ipynb"
    write_notebook(source, "steps = 1", "print(steps)")
    with pytest.raises(InputError, match="'stesp'.*'steps'"):
        notebooks.execute(source, target, {"stesp": 2})
    untagged = nbformat.read(source, as_version=4)
    untagged.cells[0].metadata["tags"] = []
    nbformat.write(untagged, source)
    for missing in (source, tmp_path / "b.ipynb"):
        with pytest.raises(InputError, match=missing.name):
            notebooks.execute(missing, target, {"steps": 2})
    assert not target.parent.exists()


def test_the_runner_names_the_failing_cell_and_gives_equal_bytes(tmp_path):
    source, target = tmp_path / "a.ipynb", tmp_path / "out/a.ipynb"
    write_notebook(source, "steps = 1", "print(10 // steps, get_ipython().history_manager.hist_file)")
    notebooks.execute(source, target, {"steps": 2})
    first = target.read_bytes()
    assert b'"5 :memory:\\n"' in first  # not written into the user's history
    notebooks.execute(source, target, {"steps": 2})
    assert target.read_bytes() == first
    with pytest.raises(InputError, match=r"a.ipynb, cell 3: ZeroDivisionError(?s:.*)a.failed.ipynb"):
        notebooks.execute(source, target, {"steps": 0})
    assert target.read_bytes() == first  # the last good one is kept


def test_a_kernel_that_dies_is_noticed_and_none_is_left(tmp_path):
    source, target = tmp_path / "a.ipynb", tmp_path / "out/a.ipynb"
    write_notebook(source, "steps = 1", "import os", "os.kill(os.getpid(), 9 if steps > 1 else 0)")
    with pytest.raises(InputError, match=r"a.ipynb(?s:.*)a.failed.ipynb"):
        notebooks.execute(source, target, {"steps": 2})
    assert not target.exists() and (tmp_path / "out/a.failed.ipynb").exists()
    notebooks.execute(source, target, {"steps": 1})
    assert target.exists()
    kernels = [c for c in psutil.Process().children() if "ipykernel" in " ".join(c.cmdline())]
    assert not kernels
