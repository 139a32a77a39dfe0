from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from contracts.model_contract import training_set

from matinee.errors import InvalidInput
from matinee.models.base import Model, ModelSpec, Query
from matinee.models.ensemble.holdout import Holdout
from matinee.training import rehearsal
from matinee.training.pipeline import SPLITS
from matinee.training.rehearsal import Rehearsal, attempt, known, quality

DATA = training_set()
MATERIAL = SimpleNamespace(everything=DATA, interactions=DATA.interactions, catalogue=DATA.catalogue)
NOW = np.array([1, 1])
EXAM = Holdout(
    inner=np.ones(0, np.bool_),
    query=Query(
        histories=[np.array([3], np.int32), np.zeros(0, np.int32)], times=[NOW[:1], NOW[:0]], now=NOW
    ),
    answers=[np.array([30, 31], np.int32), np.array([40], np.int32)],
    members=np.arange(2, dtype=np.int32),
)


def pairs(interactions) -> set[tuple[int, int]]:
    return set(zip(interactions.member.tolist(), interactions.title.tolist(), strict=True))


def test_no_tested_watch_is_known():
    part = known(MATERIAL)
    tested = set().union(*(pairs(divide(DATA.interactions).test) for divide in SPLITS.values()))
    assert tested
    assert pairs(part.interactions) == pairs(DATA.interactions) - tested
    assert (np.diff(part.interactions.time) >= 0).all()
    assert len(part.member_features.values) == len(part.interactions)


class Known(Model):
    """Scores the titles it is told first, and learns in `steps` steps to do so."""

    def __init__(self, config: SimpleNamespace) -> None:
        self.config, self.right = config, False

    def fit(self, data, *, seed, progress=None, checkpoints=None, start=None) -> None:
        for step in range(1, self.config.steps + 1):
            self.right = step > self.config.steps / 2
            progress(step, self.config.steps, {})
        self.right = True

    def score(self, query: Query):
        scores = np.zeros((len(query), 48), np.float32)
        if self.right:
            for row, answers in enumerate(EXAM.answers):
                scores[row, answers] = 1
        return scores

    def save(self, folder) -> None:
        raise AssertionError("trials keep no model")

    load = save


SPEC = ModelSpec(name="known", model=Known, presets={})


def reports(steps: int) -> list[tuple[float, float]]:
    seen: list[tuple[float, float]] = []
    given = Rehearsal(data=DATA, exam=EXAM)
    attempt(
        SimpleNamespace(steps=steps), SPEC, given, 0, lambda percent, value: seen.append((percent, value))
    )
    return seen


def test_a_trial_is_judged_at_each_rung_and_when_the_fit_is_over():
    assert [percent for percent, _ in reports(8)] == [12.5, 25, 50, 100]
    assert [percent for percent, _ in reports(3)] == [pytest.approx(100 / 3), pytest.approx(200 / 3), 100]
    assert [percent for percent, _ in reports(1)] == [100]
    assert [percent for percent, _ in reports(0)] == [100]


def test_a_trial_is_judged_as_the_model_stands():
    assert [value for _, value in reports(8)] == [0, 0, 0, 1]


def test_quality_is_the_mean_ndcg_over_titles_not_watched():
    model = Known(SimpleNamespace(steps=1))
    assert quality(model, EXAM, 48) == 0
    model.right = True
    assert quality(model, EXAM, 48) == pytest.approx(1)
    # A watched title in front takes no place: it is left out.
    score = model.score
    model.score = lambda query: score(query) + 2 * np.eye(48, dtype=np.float32)[[3, 41]]
    second = 1 / np.log2(3)
    assert quality(model, EXAM, 48) == pytest.approx((1 + second) / 2)


def test_a_large_exam_is_sampled_alike_each_time(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(rehearsal, "CASES", 7)
    spec = replace(SPEC, members=())
    drawn = [rehearsal.rehearse(SimpleNamespace(seed=5), spec, MATERIAL, {}).exam for _ in range(2)]
    assert len(drawn[0].query) == len(drawn[0].answers) == 7
    assert [a.tolist() for a in drawn[0].answers] == [a.tolist() for a in drawn[1].answers]


def test_members_without_a_past_cannot_be_tuned_on():
    nothing = replace(DATA, interactions=DATA.interactions.take(np.zeros(0, np.int64)))
    nothing = replace(nothing, member_features=None)
    empty = SimpleNamespace(everything=nothing, interactions=nothing.interactions, catalogue=DATA.catalogue)
    with pytest.raises(InvalidInput, match="nothing to tune on"):
        rehearsal.rehearse(SimpleNamespace(seed=0), SPEC, empty, {})
