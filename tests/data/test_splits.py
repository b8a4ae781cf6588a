"""Other splits of a public data set than its own, by `data: splits` in params.yaml."""

import pytest
from conftest import make_camvid, replace

from roadseg.config import paths
from roadseg.config.study import load
from roadseg.data.datasets import find_source
from roadseg.errors import InputError

PARAMS = """\
study: synthetic
title: t
root: .
folder: .
data:
  source: camvid
  path: camvid
  size: [36, 48]
  splits: {splits}
  block: 2
seeds: [0]
base: {{network: baseline}}
questions:
  heads: {{asks: "Which?", networks: {{baseline: baseline}}}}
"""


@pytest.fixture
def asking(tmp_path, monkeypatch):
    camvid = make_camvid(tmp_path / "camvid")
    for file in [*camvid.glob("*.txt"), *camvid.glob("*/*.png")]:
        if file.suffix == ".png":  # no two of one name, as in the real set
            file.rename(file.with_name(f"{file.parent.name.removesuffix('annot')}-{file.name}"))
        else:
            file.unlink()
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    (tmp_path / "data/splits").mkdir(parents=True)
    for name in ("tricks.yaml", "networks.yaml", "remarks.md"):
        (tmp_path / name).touch()

    def ask(splits):
        (tmp_path / "params.yaml").write_text(PARAMS.format(splits=splits))
        return load()

    return ask


def all_names(folder):
    return sorted(f.stem for split in ("train", "val", "test") for f in (folder / split).glob("*.png"))


def test_lists_take_from_all_of_the_set_and_need_not_name_all(asking, tmp_path):
    names = all_names(tmp_path / "camvid")
    (tmp_path / "data/splits/val.txt").write_text(f"{names[-1]}\n{names[0]}\n")
    study = asking(f"{{train: [{names[1]}], val: data/splits/val.txt, test: none}}")
    source = find_source(study.data, tmp_path)
    splits = {split: {item.name for item in items} for split, items in source.splits.items()}
    assert splits == {"train": {names[1]}, "val": {names[0], names[-1]}}
    assert not source.findings
    assert f"{len(names) - 3} of {len(names)} images are in no split." in source.notes


def test_an_edited_list_is_another_data_set(asking, tmp_path):
    names = all_names(tmp_path / "camvid")
    (tmp_path / "data/splits/val.txt").write_text(f"{names[0]}\n")
    study = asking("{val: data/splits/val.txt, test: none}")
    before = study.arrays
    assert before == study.arrays and before["lists"]
    (tmp_path / "data/splits/val.txt").write_text(f"{names[1]}\n")
    assert study.arrays != before
    assert "lists" not in asking(f"{{val: [{names[0]}], test: none}}").arrays


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ("{val: data/splits/no.txt, test: none}", r"params.yaml, data, splits: val.*no file data/splits/no.txt"),
        ("{val: val.txt, test: none}", r"params.yaml:9: data: splits: val: 'val.txt' is not in data/splits/"),
        ("{val: [seqX], test: none}", r"seqX"),
        ("{val: 0.2, test: 20 %}", r"params.yaml:9: data: splits: test: '20 %'.*0 and 1"),
        ("{val: 0.5, test: 0.5}", r"params.yaml:9: data: splits: the fractions add up to 1"),
        ("{val: 0.2, tset: 0.2}", r"params.yaml:9: data: splits: tset: no such setting.*test"),
    ],
)
def test_what_cannot_be_is_named(asking, tmp_path, splits, message):
    with pytest.raises(InputError, match=message):
        study = asking(splits)
        source = find_source(study.data, tmp_path)
        raise InputError(" ".join(map(str, source.findings)))


def test_no_key_is_recommended_that_the_file_has_not(asking, tmp_path):
    study = asking("{val: 0.2, test: none}")
    source = find_source(study.data | {"splits": {"val": 0.9, "test": 1.0}}, tmp_path)
    empty = [f for f in source.findings if "whole sequences are shared out" in f.finding]
    assert empty and {f.remedy for f in empty} == {"list images or videos"}


@pytest.mark.parametrize("source", ["folder", "synthetic"])
def test_sources_with_splits_of_their_own_say_where(asking, tmp_path, source):
    asking("{val: 0.2, test: 0.2}")
    counts = "synthetic\n  seed: 0\n  counts: {train: 1, val: 1, test: 1}" if source == "synthetic" else source
    replace(tmp_path / "params.yaml", "source: camvid", f"source: {counts}")
    with pytest.raises(InputError, match=rf"^params.yaml:\d+: data: splits: {source}"):
        load()
