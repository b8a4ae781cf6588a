"""A study below studies/, the whole way at smoke size: `make report STUDY=camvid`."""

import subprocess

import pytest
from conftest import make_camvid
from ruamel.yaml import YAML

from roadseg.config.paths import ROOT


def shrink(folder):
    """Bring the study of CamVid to smoke size."""
    yaml = YAML()
    params = yaml.load(folder / "params.yaml")
    params["data"]["size"] = [36, 48]
    params["seeds"] = [0]
    params["base"] |= {"steps": 3, "batch_size": 2}
    questions = params["questions"]
    for name in set(questions) - {"fcn", "tricks", "networks"}:  # which only train more of the same
        del questions[name]
    questions["fcn"]["networks"] = ["baseline", "fcn-8s"]
    questions["tricks"]["ladder"] = ["augmentation"]
    questions["networks"]["networks"] = ["baseline", "dabnet-half"]
    yaml.dump(params, folder / "params.yaml")
    tricks = yaml.load(folder / "tricks.yaml")
    tricks["adamw-poly"]["set"]["warmup_steps"] = 1
    tricks["lr-search"]["set"] = {"lr_search": [1.0, 4.0], "lr_search_steps": 2}
    yaml.dump(tricks, folder / "tricks.yaml")


@pytest.mark.skipif(not (ROOT / ".venv/ready").is_file(), reason="make needs its own environment")
def test_make_report_of_another_study_with_a_folder_from_the_environment(clone, tmp_path):
    shrink(clone / "studies/camvid")
    (clone / ".venv").symlink_to(ROOT / ".venv")

    def make(folder):
        command = ["make", "report", "STUDY=camvid", f"ROADSEG_CAMVID={folder}"]
        return subprocess.run(command, cwd=clone, capture_output=True, text=True)

    wrong = make(tmp_path / "nowhere")
    assert wrong.returncode != 0
    assert f"ROADSEG_CAMVID: {tmp_path}/nowhere does not exist or is no folder" in wrong.stderr
    assert not (clone / "data/raw").exists() and not (clone / "data/prepared/camvid").exists()
    right = make(make_camvid(tmp_path / "camvid"))
    assert right.returncode == 0, right.stdout + right.stderr
    report = clone / "reports/camvid/report.html"
    assert f"The report: {report}\n" in right.stdout
    html = report.read_text()
    assert "6 road scenes of 36 × 48 pixels" in html
    assert "All val images are from one sequence" in html  # as only CamVid's are
    runs = (clone / "results/camvid/tables/runs.csv").read_text().splitlines()
    assert len(runs) == 1 + 5
    unknown = subprocess.run(
        ["make", "report", "STUDY=camvit"], cwd=clone, capture_output=True, text=True
    )
    assert unknown.returncode != 0 and "known: synthetic camvid" in unknown.stdout
