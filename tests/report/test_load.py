"""Which chapters a study leaves empty, and why."""

import pytest
from test_findings import ended

from roadseg.config.study import load
from roadseg.errors import InputError
from roadseg.report import load as loading


def test_chapters_that_a_study_leaves_empty():
    study = load()
    assert loading.empty_chapters(study, ended(study)) == {}
    fcn = {arm for arm, recipe in study.arms.items() if recipe.network.startswith("fcn")}
    assert "**fcn\\-8s**" in loading.empty_chapters(study, ended(study, fcn))["3_fcn"]  # it failed
    left = study.without(fcn)
    assert "No question compares" in loading.empty_chapters(left, ended(left))["3_fcn"]
    others = study.without(study.arms.keys() - {study.baseline})
    assert set(loading.empty_chapters(others, ended(others))) == {"3_fcn", "4_tricks", "5_networks"}


def test_chapters_whose_questions_are_not_finished_say_so():
    study = load()
    tricks = [q.name for q in study.questions.values() if q.effects]
    missing = loading.empty_chapters(study, ended(study, unfinished=tricks))
    assert list(missing) == ["4_tricks"]
    assert f"{tricks[0]} (1 of 6 runs missing)" in missing["4_tricks"]


def test_an_empty_chapter_cannot_be_opened(monkeypatch):
    study = load()
    others = study.without(study.arms.keys() - {study.baseline})
    monkeypatch.setattr(loading, "load_resolved", lambda name: others)
    monkeypatch.setattr(loading.Results, "read", lambda study: ended(study))
    with pytest.raises(InputError, match="^4_tricks: No question tries a trick"):
        loading.load("synthetic", "4_tricks")
    assert loading.load("synthetic", "2_baseline")[0].arms.keys() == others.arms.keys()
