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
    for part in (
        "The question", "The answer", "What could change these results", "Background", "The data",
        "The baseline network", "How it differs from FCN", "FCN against the baseline", "Training tricks",
        "Networks and their cost", "Where the networks fail", "Limits", "Conclusion", "Reproduction",
    ):  # fmt: skip
        assert re.search(f"<h[12][^>]*>[^<]*{part}", html), part
    assert not re.search(r"""(?:src|href)\s*=\s*["'](?!data:|#)""", html)
    assert html.count("<script") == 1 and "@import" not in html and "url(" not in html
    text = re.sub(r"<(style|script).*?</\1>|<[^>]+>|base64,[^\"]+", " ", html, flags=re.S)
    assert not re.search(r"\b(nan|inf|None)\b", text)
    assert html.count("data:image/png") > 15
    runs = pd.read_csv(reproduced / "results/synthetic/tables/runs.csv")
    for fact in (runs.data_digest[0], runs.device[0], runs.torch[0], runs.digest[0]):
        assert str(fact) in html
    anchors = re.findall(r'<a class="level\d" href="#([^"]+)"', html)
    assert len(anchors) > 15 and all(f'id="{anchor}"' in html for anchor in anchors)


def test_the_report_in_a_browser(reproduced):
    file = reproduced / "reports/synthetic/report.html"
    assert file.stat().st_size < 8_000_000
    with browsing(offline=True) as (page, wrong):
        spent = []  # ms; the best of some, since other tests run meanwhile
        for _ in range(4):
            page.goto(file.as_uri())
            spent.append(page.evaluate("performance.getEntriesByType('navigation')[0].duration"))
        assert min(spent) < 1000
        for width in (375, 768, 1200, 1440):
            page.set_viewport_size({"width": width, "height": 800})
            assert page.evaluate("document.documentElement.scrollWidth") <= width
        pictures = page.locator("main img").evaluate_all("all => all.map(i => [i.alt, i.naturalWidth])")
        assert len(pictures) > 30 and all(len(alt) > 5 and wide for alt, wide in pictures)

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
        picture.get_by_text("errors on the right").click()
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
        expect(page.get_by_text("no.png: cannot be read as an image")).to_be_visible(timeout=20_000)
        choose(picture)
        expect(page.get_by_text("mine.png: ")).to_be_visible(timeout=20_000)
        expect(page.get_by_text(re.compile(r"mine.png: .*\d %"))).to_be_visible()
        drawn = images.nth(6).evaluate("i => [i.naturalWidth, i.naturalHeight]")
        assert drawn == [96, 48]  # the study's size


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


def test_a_second_repro_does_nothing(reproduced):
    result = call(reproduced, "dvc", "repro")
    assert result.returncode == 0 and ran(result) == set()
    assert "Data and pipelines are up to date." in result.stdout


def test_what_git_must_not_see_is_ignored(reproduced):
    status = subprocess.run(
        ["git", "status", "--porcelain", "-uall"], cwd=reproduced, capture_output=True, text=True
    ).stdout
    for name in ("build/", "data/prepared/", ".venv"):
        assert name not in status
    assert "results/synthetic/tables/runs.csv" in status and "reports/synthetic/report.html" in status


def test_what_changes_no_result_trains_nothing(reproduced):
    """Edits of outputs, comments, layout, docstrings, messages and texts; and what is computed."""
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

    # moved to a question of its own, and taken from the first one
    moved = ("      - baseline\n      - fcn-32s\n", "      - baseline\n"), (
        "\n  ladder:\n", "\n  coarse:\n    asks: How good is the coarsest?\n    networks:\n      - fcn-32s\n\n  ladder:\n"
    )  # fmt: skip
    with edited(params, *moved):
        assert trained(call(reproduced, "dvc", "repro", "train")) == {
            "fcn": "2 runs: 2 from the store", "coarse": "1 runs: 1 from the store",
        }  # fmt: skip
    assert trained(call(reproduced, "dvc", "repro", "train")) == {}  # removed ...
    assert not (reproduced / "build/synthetic/runs/coarse").exists()
    with edited(params, moved[1]):  # ... and asked again
        assert set(trained(call(reproduced, "dvc", "repro", "train")).values()) <= {
            "1 runs: 1 from the store"
        }

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
    queued = call(reproduced, "dvc", "exp", "run", "--queue", "-S", "base.lr=0.002,0.003")
    assert queued.returncode == 0, queued.stderr
    result = call(reproduced, "dvc", "queue", "start", **identity)  # in the background
    assert result.returncode == 0, result.stderr
    deadline = time.monotonic() + 900
    while (states := call(reproduced, "dvc", "queue", "status").stdout).count("Success") < 2:
        assert "Failed" not in states and time.monotonic() < deadline, states
        time.sleep(2)
    shown = call(reproduced, "dvc", "exp", "show", "--only-changed", "--csv")
    assert shown.returncode == 0 and {"0.002", "0.003"} <= set(re.findall(r"0\.00\d", shown.stdout))
    assert call(reproduced, "dvc", "metrics", "diff").returncode == 0


def test_code_that_changes_results_is_seen(reproduced):
    """As CI does: digests first, then a dry run that must find nothing to do."""

    def stale() -> set[str]:
        for command in ("code", "resolve"):
            assert call(reproduced, "roadseg", command, "synthetic").returncode == 0
        return ran(call(reproduced, "dvc", "repro", "--allow-missing", "--dry"))

    call(reproduced, "dvc", "repro", "train")
    assert not {stage for stage in stale() if stage.startswith(("train@", "prepare"))}
    with edited(
        reproduced / "roadseg/training/loop.py",
        ("return (1 - done) ** recipe.poly_power", "return (1 - done) ** (2 * recipe.poly_power)"),
    ):
        assert {f"train@{question}" for question in QUESTIONS} <= stale()
    assert not {stage for stage in stale() if stage.startswith(("train@", "prepare"))}


def test_a_changed_figure_draws_the_chapters_alone(reproduced):
    assert call(reproduced, "dvc", "repro").returncode == 0
    with edited(
        reproduced / "roadseg/report/figures.py",
        ('"step", ylabel="loss (nats', '"steps", ylabel="loss (nats'),
    ):
        assert ran(call(reproduced, "dvc", "repro", "code")) == {"code"}
        # a dry run sees no further than what has changed already
        assert ran(call(reproduced, "dvc", "repro", "--dry")) == {"chapters"}
    assert ran(call(reproduced, "dvc", "repro")) <= {"code"}


def test_chapters_run_on_their_defaults(reproduced):
    """As in JupyterLab: nothing injected, from the notebooks' own folder."""
    code = (
        "import nbformat, nbclient, sys; n = nbformat.read(sys.argv[1], 4);"
        "nbclient.NotebookClient(n, kernel_name='python3',"
        " resources={'metadata': {'path': 'notebooks'}}).execute()"
    )
    environment = {**os.environ, "PYTHONPATH": str(reproduced)}
    running = {
        name: subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", code, f"notebooks/{name}.ipynb"],
            cwd=reproduced, stderr=subprocess.PIPE, text=True, env=environment,
        )
        for name in [*notebooks.CHAPTERS, "report"]
    }  # fmt: skip
    for name, process in running.items():
        _, errors = process.communicate()
        assert process.returncode == 0, name + errors[-2000:]


def test_train_by_hand_leaves_the_pipeline_s_results_alone(reproduced, tmp_path):
    before = (reproduced / "build/synthetic/runs/fcn/baseline/s0/record.json").read_bytes()
    code = (
        "from pathlib import Path; from roadseg.report.notebooks import execute;"
        "execute(Path('notebooks/train.ipynb'), Path('build/by-hand.ipynb'), {})"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=reproduced, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert (reproduced / "build/by-hand/runs/fcn/baseline/s0/record.json").is_file()
    assert (reproduced / "build/synthetic/runs/fcn/baseline/s0/record.json").read_bytes() == before


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("params.yaml", "seeds:", "sedes:", "sedes: "),
        ("networks.yaml", "network: fcn8s:tu-test_resnet", "network: fcn8:tu-test_resnet",
         "fcn-8s: network 'fcn8:tu-test_resnet': unknown. Did you mean 'fcn8s:ENCODER'?"),
        ("params.yaml", "source: synthetic", "source: sintetic",
         "data: source: 'sintetic'"),
        ("networks.yaml", "network: fcn8s:tu-test_resnet", "network: fcn8s:tu-test_resnt",
         "fcn-8s: network 'fcn8s:tu-test_resnt': unknown encoder 'tu-test_resnt'. Did you mean 'tu-test_resnet'?"),
        ("tricks.yaml", "    pretrained: scenes:4\n    pretrain_steps: 2\n", "    pretrained: file:gone.pt\n",
         "arm with-transfer: pretrained: file:gone.pt: no such file. Paths start at"),
        ("tricks.yaml", "    pretrained: scenes:4\n    pretrain_steps: 2\n",
         "    teacher: fcn8s:resnet19\n    distill_weight: 1.0\n",
         "arm with-transfer: teacher: network 'fcn8s:resnet19': unknown encoder 'resnet19'."),
        ("networks.yaml", "network: fcn8s:tu-test_resnet", "network: smp:linknet:mit_b0",
         "arm fcn-8s: network 'smp:linknet:mit_b0' cannot be built ("),
        ("tricks.yaml", "    flip: 0.5", "    filp: 0.5",
         "augmentation: set: filp: "),
    ],
)  # fmt: skip
def test_bad_settings_end_with_one_sentence_and_status_2(
    clone, file, old, new, message, monkeypatch, capsys
):
    monkeypatch.setattr(paths, "ROOT", clone)
    monkeypatch.chdir(clone)
    with edited(clone / file, (old, new)):
        before = snapshot(clone)
        for command, study in (("plan", "synthetic"), ("resolve", "synthetic"), ("check", "params.yaml")):
            assert main([command, study]) == 2
            output = capsys.readouterr().err
            assert re.sub(r"[a-z]+\.yaml:\d+: ", "", output).startswith(f"roadseg: {message}")
            assert output.count("\n") == 1
        assert snapshot(clone) == before


def test_a_wrong_folder_ends_with_one_sentence_and_status_2(clone):
    changes = ("source: synthetic", "source: camvid"), ("roadseg/data/synthetic.py", "data/raw/nowhere")
    with edited(clone / "params.yaml", *changes):
        for command, study in (("resolve", "synthetic"), ("check", "params.yaml")):
            result = call(clone, "roadseg", command, study)
            assert result.returncode == 2 and result.stderr.startswith(
                "roadseg: data/raw/nowhere: no such folder"
            )
        (clone / "data/raw/nowhere").mkdir(parents=True)
        result = call(clone, "roadseg", "resolve", "synthetic")
        assert result.returncode == 2 and "data/raw/nowhere/train: no such folder." in result.stderr
        shutil.rmtree(clone / "data/raw")


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
    with pytest.raises(InputError, match="takes no parameter 'stesp'. Did you mean 'steps'?"):
        notebooks.execute(source, target, {"stesp": 2})
    untagged = nbformat.read(source, as_version=4)
    untagged.cells[0].metadata["tags"] = []
    nbformat.write(untagged, source)
    with pytest.raises(InputError, match="has 0 cells tagged 'parameters'; it needs exactly one."):
        notebooks.execute(source, target, {"steps": 2})
    with pytest.raises(InputError, match="no such notebook"):
        notebooks.execute(tmp_path / "b.ipynb", target, {})
    assert not target.parent.exists()


def test_the_runner_names_the_failing_cell_and_gives_equal_bytes(tmp_path):
    source, target = tmp_path / "a.ipynb", tmp_path / "out/a.ipynb"
    write_notebook(source, "steps = 1", "print(10 // steps)")
    notebooks.execute(source, target, {"steps": 2})
    first = target.read_bytes()
    assert b'"5\\n"' in first
    notebooks.execute(source, target, {"steps": 2})
    assert target.read_bytes() == first
    with pytest.raises(InputError) as caught:
        notebooks.execute(source, target, {"steps": 0})
    assert "a.ipynb, cell 3: ZeroDivisionError" in str(caught.value)
    assert str(tmp_path / "out/a.failed.ipynb") in str(caught.value)
    assert target.read_bytes() == first  # the last good one is kept


def test_a_kernel_that_dies_is_noticed_and_none_is_left(tmp_path):
    source, target = tmp_path / "a.ipynb", tmp_path / "out/a.ipynb"
    write_notebook(source, "steps = 1", "import os", "os.kill(os.getpid(), 9 if steps > 1 else 0)")
    with pytest.raises(InputError, match=r"a.ipynb: its kernel died, .*\n.*a.failed.ipynb"):
        notebooks.execute(source, target, {"steps": 2})
    assert not target.exists() and (tmp_path / "out/a.failed.ipynb").exists()
    notebooks.execute(source, target, {"steps": 1})
    assert target.exists()
    kernels = [c for c in psutil.Process().children() if "ipykernel" in " ".join(c.cmdline())]
    assert not kernels


def test_a_notebook_is_not_written_into_the_user_s_history(tmp_path):
    source, target = tmp_path / "a.ipynb", tmp_path / "out/a.ipynb"
    write_notebook(source, "steps = 1", "print(get_ipython().history_manager.hist_file)")
    notebooks.execute(source, target, {})
    assert ":memory:" in target.read_text()


def test_unknown_commands_and_runs(clone):
    assert call(clone, "roadseg", "trian").returncode == 2
    result = call(clone, "roadseg", "train", "synthetic", "lader")
    assert result.returncode == 2 and "'lader' is no question of params.yaml" in result.stderr
    result = call(clone, "roadseg", "plan", "sinthetic")
    assert result.returncode == 2 and "Did you mean 'synthetic'?" in result.stderr
