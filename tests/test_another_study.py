"""A study below studies/, the whole way at smoke size: `make report STUDY=camvid`."""

import re
import subprocess

import pytest
from conftest import call, make_camvid

from roadseg.config.study import ROOT

CAMVID_SMOKE = {
    "size: [180, 240]": "size: [36, 48]",
    "\nseeds: [0, 1, 2, 3, 4]": "\nseeds: [0]",
    "  steps: 500 ": "  steps: 3 ",
    "batch_size: 4": "batch_size: 2",
    "baseline:0.25": "baseline:0.05",
    "networks: [baseline, fcn-32s, fcn-16s, fcn-8s]": "networks: [baseline, fcn-8s]",
    "ladder: [transfer, adamw-poly, class-balanced, ohem, auxiliary-head, augmentation, flip-testing]":
        "ladder: [augmentation]",
    "warmup_steps: 25": "warmup_steps: 1",
    "ohem_kept: 3000": "ohem_kept: 300",
    "lr_search: [0.25, 1.0], lr_search_steps: 100": "lr_search: [1.0, 4.0], lr_search_steps: 2",
    "[baseline, fcn-8s, pspnet-light, deeplabv3plus-light, dabnet-half]":
        "[baseline, dabnet-half]",
}  # fmt: skip


@pytest.mark.skipif(not (ROOT / ".venv/ready").is_file(), reason="make needs its own environment")
def test_make_report_of_another_study_with_a_folder_from_the_environment(clone, tmp_path):
    params = clone / "studies/camvid/params.yaml"
    text = params.read_text()
    for old, new in CAMVID_SMOKE.items():
        assert old in text, old
        text = text.replace(old, new)
    for name in ("needed", "budget", "final", "parts", "seeds"):  # which only train more of the same
        text = re.sub(rf"  {name}:\n(    .*\n)+", "", text)
    params.write_text(text)
    assert call(clone, "roadseg", "plan", "studies/camvid/params.yaml").returncode == 0
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
    top = html[: html.index('id="The-answer"')]
    assert "5 runs of 3 steps, batch\n2, on 6 training images of\n36 × 48" in top
    assert "All val images come from a sequence" in html
    unknown = subprocess.run(
        ["make", "report", "STUDY=camvit"], cwd=clone, capture_output=True, text=True
    )
    assert unknown.returncode != 0 and "known: synthetic camvid" in unknown.stdout
