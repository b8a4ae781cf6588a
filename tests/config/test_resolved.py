"""What a training stage depends on: recipes and seeds, and no text."""

import json

import pytest
from test_study import BELOW, below
from tiny import LISTED, MANY, TINY, appended, load, spoilt, write

from roadseg.__main__ import main
from roadseg.config import paths
from roadseg.config.recipe import Recipe
from roadseg.config.study import load_resolved
from roadseg.errors import InputError
from roadseg.training.question import read_question, resolved_question
from roadseg.training.resolve import resolve


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """Let the test's folder be the project's root, so that its catalogue is the only one."""
    monkeypatch.setattr(paths, "ROOT", tmp_path)


def all_resolved(folder, files) -> dict[str, dict]:
    study = load(folder, files)
    return {question: resolved_question(study, question) for question in study.questions}


def changed(folder, files, *changes: tuple[str, str]) -> set[str]:
    """Return the questions that a change of the files asks to train anew."""
    before, after = all_resolved(folder, files), all_resolved(folder, spoilt(files, *changes))
    return {name for name in before | after if before.get(name) != after.get(name)}


def test_a_question_s_recipes_are_their_differences_from_the_defaults(tmp_path):
    questions = all_resolved(tmp_path, spoilt(TINY, ("steps: 10", "steps: 10, lr: 3e-4")))
    assert questions["heads"] == {
        "baseline": {"seeds": [0, 1], "recipe": {"steps": 10}},  # the default lr leaves no trace
        "fcn-8s": {"seeds": [0, 1], "recipe": {"network": "fcn8s:resnet18", "steps": 10}},
    }
    assert questions["ladder"]["with-poly"]["recipe"] == {
        "network": "fcn8s:resnet18", "steps": 10, "flip": 0.5, "optimizer": "adamw",
        "weight_decay": 0.01, "schedule": "poly",
    }  # fmt: skip


def test_equal_recipes_are_equal_wherever_they_are_asked_for(tmp_path):
    questions = all_resolved(tmp_path, MANY)
    start = questions["heads"]["fcn-8s"]
    assert start == questions["ladder"]["fcn-8s"] == questions["each"]["fcn-8s"]
    assert questions["without"]["with-poly"] == questions["ladder"]["with-poly"]
    assert questions["spread"] == {"fcn-8s": {**start, "seeds": [0, 1, 2, 5]}}


@pytest.mark.parametrize(
    "change",
    [
        ("asks: Which?", "asks: Which one?"),
        ("title: A tiny study", "title: Another"),
        ("source: someone", "source: someone else, idea: mirrored"),
        ("study: tiny", "study: other"),
        ("block: 1", "block: 5"),
        ("seed: 0", "seed: 7"),  # the arrays of another seed have another digest
        ("steps: 10", "steps: 10, lr: 0.0003"),
        ("steps: 10}", "'steps': 10 }  # so many"),
        ('idea: i, source: s', 'idea: j'),
        ("[flip, adamw, poly]", "# in this order\n      [flip, adamw, poly]"),
        ('{network: "dabnet"}', '{network: "dabnet:0.5"}'),  # nobody asks for it
    ],
)  # fmt: skip
def test_what_decides_no_training_changes_nothing(tmp_path, change):
    files = appended(LISTED, tricks="idle: {set: {flip: 0.9}}\n")
    assert changed(tmp_path, files, change) == set()
    assert changed(tmp_path, files, ("flip: 0.9", "flip: 0.8")) == set()


@pytest.mark.parametrize(
    ("change", "questions"),
    [
        (("adamw, weight_decay: 0.01", "adamw, weight_decay: 0.02"), {"ladder", "without"}),
        (("{schedule: poly}", "{schedule: cosine}"), {"ladder", "without", "each"}),
        (("[0, 1, 2, 5]", "[0, 1, 2, 5, 6]"), {"spread"}),
        (("[0, 1, 2, 5]", "[0, 5, 1, 2]"), {"spread"}),  # whose runs then have another order
        (("[0, 1, 2, 5]", "[0, 1]"), {"spread"}),
        (("seeds: [0, 1]", "seeds: [0, 1, 2]"), {"heads", "ladder", "without", "each"}),
        (("{baseline: baseline", "{baseline: 'baseline:0.5'"), {"heads"}),
        (("steps: 10", "steps: 11"), {"heads", "ladder", "without", "each", "spread"}),
        (("[flip, adamw, poly]", "[flip, poly, adamw]"), {"ladder", "without"}),  # shared arms' names
        (("alone: [flip, poly]", "alone: [flip, poly, adamw]"), {"each"}),
    ],
)  # fmt: skip
def test_a_value_changes_the_questions_whose_arms_have_it(tmp_path, change, questions):
    assert changed(tmp_path, MANY, change) == questions


def test_a_trick_that_a_study_overrides_is_the_study_s_alone(tmp_path):
    def resolved_with(*changes):
        study = below(tmp_path, *changes)
        return {question: resolved_question(study, question) for question in study.questions}

    before = resolved_with()
    assert before["ladder"]["with-flip"]["recipe"]["flip"] == 0.5
    assert resolved_with(("flip: 0.25", "flip: 0.75")) == before  # the project's
    after = resolved_with(("{flip: 0.5}", "{flip: 0.75}"))
    assert after["ladder"]["with-flip"]["recipe"]["flip"] == 0.75 and after["heads"] == before["heads"]


def test_a_file_of_weights_is_part_of_it_by_content(tmp_path):
    files = spoilt(appended(TINY, tricks="start: {set: {pretrained: 'file:w.pt'}}\n"),
                   ("[flip, adamw, poly]", "[start]"))  # fmt: skip
    study = load(tmp_path, files)
    assert resolved_question(study, "heads") == resolved_question(load(tmp_path), "heads")
    study = load(tmp_path, files)
    with pytest.raises(InputError, match="file:w.pt: no such file"):
        resolved_question(study, "ladder")
    (tmp_path / "w.pt").write_bytes(b"one")
    first = resolved_question(study, "ladder")
    assert "starts_from" not in first["fcn-8s"]
    digests = first["with-start"]["starts_from"]
    assert len(digests) == 2 and len(set(digests)) == 1  # one of each seed
    (tmp_path / "w.pt").write_bytes(b"two")
    second = resolved_question(study, "ladder")
    assert second != first and {**second, "with-start": 0} == {**first, "with-start": 0}
    (tmp_path / "w.pt").write_bytes(b"one")
    assert resolved_question(study, "ladder") == first


def test_another_study_s_weights_are_part_of_it_by_seed(tmp_path):
    files = spoilt(appended(TINY, tricks="start: {set: {pretrained: 'study:other/arm'}}\n"),
                   ("[flip, adamw, poly]", "[start]"))  # fmt: skip
    study = load(tmp_path, files)
    with pytest.raises(InputError, match="study:other/arm: .* Run 'make report STUDY=other' first."):
        resolved_question(study, "ladder")
    for seed in (0, 1):
        folder = tmp_path / f"build/other/runs/question/arm/s{seed}"
        folder.mkdir(parents=True)
        (folder / "weights.pt").write_bytes(bytes([seed]))
    first = resolved_question(study, "ladder")["with-start"]["starts_from"]
    (folder / "weights.pt").write_bytes(b"other")
    second = resolved_question(study, "ladder")["with-start"]["starts_from"]
    assert first[0] == second[0] and first[1] != second[1] and len(set(first)) == 2


@pytest.mark.parametrize("lr", ["0.00012345678901234", "1e-13", "3", "0.1", "1e-5"])
def test_what_is_written_reads_back_with_every_digit(tmp_path, lr):
    files = spoilt(MANY, ("steps: 10", f"steps: 10, lr: {lr}"),
                   ("{schedule: poly}", "{test_scales: [1, 0.75], test_flip: true}"))  # fmt: skip
    study = load(tmp_path, files)
    resolve(study)
    for name, question in study.questions.items():
        read = read_question("tiny", name)
        assert list(read) == list(question.arms)
        for arm, runs in read.items():
            seeds = study.question_seeds(question)
            assert [run.recipe for run in runs] == [
                question.arms[arm].changed({"seed": seed}) for seed in seeds
            ]
            assert all(run.recipe.lr == float(lr) for run in runs)
            assert {run.search_seed for run in runs} == {0}
    with pytest.raises(InputError) as caught:
        read_question("tiny", "heds")
    assert str(caught.value) == (
        "heds: is no question of tiny that is ready to be trained. Did you mean 'heads'? Known: each, "
        "heads, ladder, spread, without."
    )
    with pytest.raises(InputError, match="to be trained. Run: python -m roadseg resolve other$"):
        read_question("other", "heads")


def test_odd_names_of_arms_and_questions_read_back(tmp_path):
    odd = ["010", "1e3", "2024-01-01", "true", "null", "7"]
    for name in odd:
        files = spoilt(TINY, ("{baseline: baseline,", f'{{"{name}": baseline,'), ("  heads:", f'  "{name}":'))
        resolve(load(tmp_path, files))
        assert read_question("tiny", name)[name][1].recipe == Recipe(steps=10, seed=1)


def stamps(folder) -> dict[str, int]:
    files = (file for file in folder.rglob("*") if file.is_file())
    return {str(file.relative_to(folder)): file.stat().st_mtime_ns for file in files}


def test_only_files_whose_content_changed_are_written(tmp_path):
    """What DVC sees as unchanged makes no stage stale, and its links are left alone."""
    resolve(load(tmp_path, MANY))
    build = tmp_path / "build/tiny"
    before = stamps(build)
    questions = {f"questions/{name}.json" for name in ("heads", "ladder", "without", "each", "spread")}
    assert set(before) == {"data.json", "tables.json", "study.json", *questions}

    def written(*changes) -> set[str]:
        old = stamps(build)
        resolve(load(tmp_path, spoilt(MANY, *changes)))
        new = stamps(build)
        resolve(load(tmp_path, MANY))
        return {name for name in old | new if old.get(name) != new.get(name)}

    assert written() == set()
    assert written(("asks: Which?", "asks: Which one?")) == {"study.json"}
    assert written(("title: A tiny study", "title: Another")) == {"study.json"}
    assert written(("source: someone", "idea: mirrored")) == {"study.json"}
    assert written(("block: 1", "block: 2")) == {"tables.json", "study.json"}
    assert written(("seed: 0", "seed: 1")) == {"data.json", "study.json"}
    assert written(("[0, 1, 2, 5]", "[0, 1, 2, 5, 6]")) == {
        "questions/spread.json", "study.json", "tables.json"
    }  # fmt: skip
    assert written(("weight_decay: 0.01", "weight_decay: 0.02")) == {
        "questions/ladder.json", "questions/without.json", "study.json"
    }  # fmt: skip
    (tmp_path / "remarks.md").write_text("- Nothing was tuned.\n")
    assert written() == {"study.json"}
    assert json.loads((build / "study.json").read_text())["remarks"] == ["Nothing was tuned."]


def test_stages_after_it_see_the_study_as_it_was_resolved(tmp_path):
    """An edit while a study trains is for the next call: tables are of what was trained."""
    files = spoilt(MANY, ("study: tiny", "study: synthetic"))
    resolve(load(tmp_path, files))
    edited = load(tmp_path, spoilt(files, ("weight_decay: 0.01", "weight_decay: 0.02"),
                                   ("title: A tiny study", "title: Another")))  # fmt: skip
    resolved = load_resolved("synthetic")
    assert resolved.title == "A tiny study" and edited.title == "Another"
    assert resolved == load(tmp_path, files) and resolved.arms == load(tmp_path, files).arms
    load(tmp_path, spoilt(files, ("title: A tiny study", "title: Another")))
    (tmp_path / "remarks.md").touch()
    file = tmp_path / "build/synthetic/study.json"
    earlier = {"params": "params.yaml", "content": {"studies": 1}, "remarks": []}
    for content in (json.dumps(earlier), None):
        file.unlink() if content is None else file.write_text(content)
        assert load_resolved("synthetic").title == "Another"


def test_questions_that_are_gone_leave_nothing(tmp_path):
    resolve(load(tmp_path, MANY))
    build = tmp_path / "build/tiny"
    for name in ("each", "spread", "spread.partial", "heads"):
        (build / "runs" / name / "fcn-8s/s0").mkdir(parents=True)
    resolve(load(tmp_path, {**MANY, "params.yaml": MANY["params.yaml"].partition("  spread:")[0]}))
    assert {file.stem for file in (build / "questions").iterdir()} == {"heads", "ladder", "without", "each"}
    assert {folder.name for folder in (build / "runs").iterdir()} == {"each", "heads"}


def test_what_is_wrong_is_written_nowhere(tmp_path, capsys):
    write(tmp_path, {**BELOW, "studies/tiny/tricks.yaml": "flip: {set: {filp: 0.5}}\n"})
    before = stamps(tmp_path)
    for command in ("plan", "resolve"):
        assert main([command, "tiny"]) == 2
        output = capsys.readouterr()
        assert output.out == "" and output.err.startswith("roadseg: studies/tiny/tricks.yaml:1: flip: set: filp: ")
    assert stamps(tmp_path) == before
    write(tmp_path, BELOW)
    assert main(["resolve", "tiny"]) == 0
    assert json.loads((tmp_path / "build/tiny/data.json").read_text())["source"] == "synthetic"
