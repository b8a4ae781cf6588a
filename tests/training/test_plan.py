"""What a study asks for, what of it is there, and how long the rest takes."""

import shutil

import pytest
import torch
from toys import CPU, SMALLEST, TINY, done, quiet, toy_study

from roadseg.config import study as studies
from roadseg.errors import InputError
from roadseg.training import plan as planning
from roadseg.training import store
from roadseg.training.loop import Diverged
from roadseg.training.plan import RequestedRuns, plan, prune, step_seconds
from roadseg.training.question import train_question
from roadseg.training.run import Run, load_splits
from roadseg.training.store import all_trainings, training_of
from roadseg.training.warm_start import synthetic_scenes

QUESTIONS = """\
heads: {asks: 'Which?', networks: [baseline, fcn]}
ladder: {asks: 'What helps?', start: fcn, ladder: [start, flip, mirror]}
"""
TRICKS = """\
flip: {set: {flip: 0.5}}
mirror: {set: {test_flip: true}}
start: {set: {pretrained: "scenes:4", pretrain_steps: 2}}
search: {set: {lr_search: [0.5, 2.0], lr_search_steps: 2}}
wild: {set: {lr: 1.0e+30}}
"""


@pytest.fixture(autouse=True)
def on_a_cpu(monkeypatch):
    monkeypatch.setattr(planning, "default_device", lambda: CPU)


@pytest.fixture
def asking(root, prepared):
    def make(questions=QUESTIONS, seeds=(0, 1)):
        return toy_study(root, prepared, questions, TRICKS, seeds)

    return make


@pytest.fixture
def tenth(monkeypatch):
    """Each step takes 0.1 s, on two cores; kept is which were timed."""
    timed = []
    monkeypatch.setattr(planning, "step_seconds", lambda recipe, *_: timed.append(recipe) or 0.1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    return timed


def train_all(study, names=None):
    for question in study.questions.values():
        arms = {
            arm: [Run(recipe.changed({"seed": s}), study.seeds[0]) for s in study.seeds]
            for arm, recipe in question.arms.items() if names is None or arm in names or question.name in names
        }  # fmt: skip
        train_question(arms, study.prepared, study.build / question.name, device=CPU, say=quiet)


def test_shared_trainings_count_once(asking, tenth):
    """Five arms: four trainings of 3 steps and a pre-training of 2, two seeds each."""
    study = asking()
    requested = RequestedRuns(study, CPU)
    assert len(requested.runs) == 10
    steps = sorted(recipe.steps for recipe, _ in requested.trainings)
    assert steps == [2] * 2 + [3] * 8 and len(requested.missing) == 10
    text = plan(study)
    assert "10 runs; 0 of them are in the run store" in text and "10 trainings are to be done" in text
    assert "about 1 s on " in text  # 28 steps on two cores: 1.4 s
    assert len(tenth) == 4  # two networks, the pre-training, the flip; others are as long as these
    tenth.clear()
    assert plan(study) == text and not tenth  # kept


def test_a_search_counts_once_for_all_seeds(asking):
    """Two trials of 2 steps, and for each seed the training; its rate is not known before them."""
    question = "heads: {asks: 'Which?', tricks: [search], networks: [fcn]}\n"
    requested = RequestedRuns(asking(question), CPU)
    trainings = [(recipe.steps, recipe.lr, recipe.seed) for recipe, _ in requested.trainings]
    assert sorted(trainings) == [(2, 0.0005, 0), (2, 0.002, 0), (3, 0.001, 0), (3, 0.001, 1)]
    train_all(requested.study)
    requested = RequestedRuns(requested.study, CPU)
    assert not requested.missing and len(requested.stored) == 2 and len(requested.trainings) == 4
    assert {place.key for _, place in requested.trainings} == {t.key for t in all_trainings()}


def test_equal_recipes_on_other_data_are_other_trainings(asking, root):
    """Pre-trainings on few and many scenes, and an arm that is the same recipe on the study's."""
    tricks = TRICKS + "more: {set: {pretrained: 'scenes:5', pretrain_steps: 2}}\n"
    tricks += "short: {set: {steps: 2, schedule: poly}}\n"
    questions = "alone: {asks: 'Which?', start: fcn, alone: [start, more, short]}\n"
    asking(QUESTIONS)
    (root / "tricks.yaml").write_text(tricks)
    text = (root / "params.yaml").read_text()
    (root / "params.yaml").write_text(text.replace("  ladder:", f"  {questions}  ladder:"))
    study = studies.load()
    for n in (4, 5):
        synthetic_scenes(n, (48, 96))
    requested = RequestedRuns(study, CPU)
    two = [(recipe, place) for recipe, place in requested.trainings if recipe.steps == 2 and not recipe.seed]
    assert len(two) == 3 and len({recipe for recipe, _ in two}) == 1
    assert len({place.key for _, place in two}) == 3


def test_what_is_trained_is_there_until_something_changes(asking, tenth, monkeypatch):
    study = asking()
    train_all(study, ["baseline", "fcn"])
    text = plan(study)
    assert "10 runs; 4 of them are in the run store" in text and "6 trainings are to be done" in text
    train_all(study)
    assert plan(study).endswith("10 of them are in the run store.")
    assert not RequestedRuns(study, CPU).missing

    with monkeypatch.context() as patch:
        patch.setattr("roadseg.training.store.TRAINING_CODE", "other")
        assert len(RequestedRuns(study, CPU).missing) == 10 and not RequestedRuns(study, CPU).stored
        assert "10 trainings are in the store, made by other training code" in plan(study)
    with monkeypatch.context() as patch:
        patch.setattr("roadseg.training.store.EVALUATION_CODE", "other")
        assert not RequestedRuns(study, CPU).missing and not RequestedRuns(study, CPU).stored
        assert len(RequestedRuns(study, CPU).unscored) == 10
        assert "10 are to be scored anew" in plan(study) and "to be done" not in plan(study)
    more = asking(seeds=(0, 1, 2))
    assert {recipe.seed for recipe in RequestedRuns(more, CPU).missing} == {2}
    training = training_of(study.arms["fcn"], load_splits(study.prepared), CPU)
    (training.folder / "training.json").write_text("{")
    assert len(RequestedRuns(study, CPU).missing) == 1


def test_pruning_keeps_what_is_asked_for_and_what_it_started_from(asking):
    study = asking()
    train_all(study)
    expected = {training.key for training in all_trainings()}
    assert len(expected) == 10
    for recipe in (TINY.changed({"lr": 0.5}), SMALLEST.changed({"seed": 7})):
        done(recipe, study.prepared)
    with pytest.raises(Diverged):
        done(SMALLEST.changed({"lr": 1e30}), study.prepared)
    assert prune().startswith("3 trainings")
    assert {training.key for training in all_trainings()} == expected
    asking(QUESTIONS.splitlines()[0])
    assert prune().startswith("6 trainings")  # all but those of the first question
    assert len(list(all_trainings())) == 4


def another_study(root, old, new):
    """A second study in the root, with one setting of the first changed."""
    folder = root / "studies/other"
    folder.mkdir(parents=True, exist_ok=True)
    text = (root / "params.yaml").read_text()
    for each in (("study: synthetic", "study: other"), ("root: .", "root: ../.."),
                 ("folder: .", "folder: studies/other"), (old, new)):  # fmt: skip
        assert each[0] in text
        text = text.replace(*each)
    (folder / "params.yaml").write_text(text)
    for name in ("tricks.yaml", "networks.yaml", "remarks.md"):
        (folder / name).touch()
    return folder


def test_pruning_leaves_what_may_be_another_study_s(asking, root):
    """One whose data are not prepared, so that nobody can tell."""
    study = asking()
    train_all(study, ["baseline"])
    other = another_study(root, "size: [48, 96]", "size: [64, 96]")
    theirs = load_splits(study.prepared)
    foreign = training_of(SMALLEST, theirs, CPU).decided_by | {"train": "f" * 64}
    place = planning.Training(foreign)
    place.keep_failure(SMALLEST, "theirs")
    done(TINY.changed({"lr": 0.5}), study.prepared)
    assert len(list(all_trainings())) == 4
    summary = prune()
    assert summary.startswith("1 trainings") and "other" in summary
    assert len(list(all_trainings())) == 3 and place.folder.is_dir()
    another_study(root, "seed: 3", "seed: 4")  # maybe the same images: whose runs are whose?
    with pytest.raises(InputError, match="other"):
        prune()
    another_study(root, "seed: 3", "sedes: 3")
    with pytest.raises(InputError, match="sedes"):
        prune()
    assert len(list(all_trainings())) == 3
    shutil.rmtree(other)
    assert prune().startswith("1 trainings") and not place.folder.exists()


def test_pruning_leaves_what_other_code_trained_until_it_is_trained_anew(asking, monkeypatch):
    study = asking(QUESTIONS.splitlines()[0])
    train_all(study, ["heads"])
    before = len(list(all_trainings()))
    monkeypatch.setattr(store, "TRAINING_CODE", "edited")
    assert prune().startswith("0 trainings")
    train_all(study, ["heads"])
    assert len(list(all_trainings())) == 2 * before
    assert prune().startswith(f"{before} trainings")


def test_pruning_leaves_what_a_search_of_other_code_chose(asking, root, monkeypatch):
    """Its learning rate is known by its trials alone, which are of that code as well."""
    study = asking("heads: {asks: 'Which?', tricks: [search], networks: [baseline]}\n", seeds=(0,))
    train_all(study)
    before = {training.key for training in all_trainings()}
    assert len(before) == 3
    (root / "tricks.yaml").write_text(TRICKS.replace("[0.5, 2.0]", "[0.5, 2.0, 4.0]"))
    prune()  # the search may choose what it chose before
    assert {training.key for training in all_trainings()} == before
    (root / "tricks.yaml").write_text(TRICKS)
    monkeypatch.setattr(store, "TRAINING_CODE", "edited")
    assert prune().startswith("0 trainings")
    assert {training.key for training in all_trainings()} == before


def test_pruning_on_another_device_keeps_what_a_gpu_trained(asking, root):
    study = asking("heads: {asks: 'Which?', networks: [baseline]}\n", seeds=(0,))
    splits = load_splits(study.prepared)
    decided_by = training_of(study.runs["baseline-s0"], splits, CPU).decided_by
    for precision in ("bf16", "fp32"):
        planning.Training(decided_by | {"precision": precision}).keep_failure(SMALLEST, "by hand")
    assert prune().startswith("0 trainings")


def test_pruning_keeps_the_scores_that_each_study_wants(asking, root):
    """Two studies share the trainings, and test them each in its own way."""
    study = asking("heads: {asks: 'Which?', networks: [baseline]}\n", seeds=(0,))
    train_all(study)
    another_study(root, "networks: [baseline]", "tricks: [mirror], networks: [baseline]")
    shutil.copytree(study.prepared, study.prepared.with_name("other"))
    train_all(studies.load("other"))
    (training,) = all_trainings()
    assert len(list(training.folder.glob("scores/*"))) == 2
    assert prune().startswith("0 trainings")
    assert len(list(training.folder.glob("scores/*"))) == 2


def test_a_step_is_measured_beside_another(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    recipe = TINY.changed({"teacher": "baseline:0.05", "distill_weight": 1.0})
    assert 0 < step_seconds(recipe, (48, 96), 19, 2) < 10


def test_a_large_step_is_told_from_a_small_one(root, monkeypatch):
    monkeypatch.setattr(planning, "MAX_PIXELS", 2 * 128 * 128)
    timed = []
    monkeypatch.setattr(planning, "train", lambda recipe, scenes, *_, **__: (
        timed.append(scenes.images.shape) or (0, 0, 0.1 * recipe.steps)
    ))  # fmt: skip
    monkeypatch.setattr(planning, "values_of", lambda jobs, _: {n: job() for n, job in jobs.items()})
    seconds = step_seconds(TINY.changed({"batch_size": 8}), (128, 128), 19, 1)
    assert {shape[2:] for shape in timed} == {(128, 128)}
    assert seconds == pytest.approx(0.1 * 4)  # four times the images
    timed.clear()
    seconds = step_seconds(TINY.changed({"batch_size": 8}), (384, 384), 19, 1)
    assert {shape[2:] for shape in timed} == {(128, 128)}
    assert seconds == pytest.approx(0.1 * 4 * 9)  # four times the images, nine times the pixels
