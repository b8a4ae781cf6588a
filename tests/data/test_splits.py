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
    ("splits", "key"),
    [
        ("{val: val.txt, test: none}", ": val"),
        ("{val: 0.2, test: 20 %}", ": test"),
        ("{val: 0.5, test: 0.5}", ""),
        ("{val: 0.2, tset: 0.2}", ": tset"),
    ],
)
def test_mistakes_are_named_with_their_line(asking, splits, key):
    with pytest.raises(InputError, match=f"^params.yaml:9: data: splits{key}: "):
        asking(splits)


@pytest.mark.parametrize(
    ("splits", "code"),
    [("{val: data/splits/no.txt, test: none}", "no-list"), ("{val: [seqX], test: none}", "unknown-name")],
)
def test_what_is_not_there_is_a_finding(asking, tmp_path, splits, code):
    (finding,) = find_source(asking(splits).data, tmp_path).findings
    assert (finding.file, finding.code) == ("params.yaml, data, splits: val", code)


def test_no_key_is_recommended_that_the_file_has_not(asking, tmp_path):
    study = asking("{val: 0.2, test: none}")
    source = find_source(study.data | {"splits": {"val": 0.9, "test": 1.0}}, tmp_path)
    empty = [f for f in source.findings if f.code == "no-sequence-left"]
    assert empty and {f.remedy for f in empty} == {"list images or videos"}


@pytest.mark.parametrize("source", ["folder", "synthetic"])
def test_sources_with_splits_of_their_own_say_where(asking, tmp_path, source):
    asking("{val: 0.2, test: 0.2}")
    counts = "synthetic\n  seed: 0\n  counts: {train: 1, val: 1, test: 1}" if source == "synthetic" else source
    replace(tmp_path / "params.yaml", "source: camvid", f"source: {counts}")
    with pytest.raises(InputError, match=rf"^params.yaml:\d+: data: splits: {source}"):
        load()
