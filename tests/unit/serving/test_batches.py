"""Batches: what a request gets does not depend on who waits with it."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest

from matinee.models.base import Query, Scores
from matinee.schema import Features
from matinee.serving.batches import MOST, Batches, _Waiting, joined

TITLES = 7


def query(title: int, *, feature: float | None = None) -> Query:
    return Query(
        histories=[np.array([title], dtype=np.int32)],
        times=[np.array([1], dtype=np.int64)],
        now=np.array([title], dtype=np.int64),
        member_features=None
        if feature is None
        else Features(names=["f"], values=np.full((1, 1), feature, np.float32)),
    )


class Counting:
    """Scores 1 at the title watched; notes the size of each pass and may be held up."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.open = threading.Event()
        self.open.set()

    def __call__(self, asked: Query) -> Mapping[str, Scores]:
        self.open.wait(10)
        self.sizes.append(len(asked))
        if any(history[0] == 0 for history in asked.histories):
            raise ValueError("title 0")
        scores = np.zeros((len(asked), TITLES), np.float32)
        for row, history in enumerate(asked.histories):
            scores[row, history] = 1
        return {"part": scores}


def test_a_lone_request_is_scored_alone() -> None:
    model = Counting()
    assert Batches(model).score(query(3))["part"].argmax() == 3
    assert model.sizes == [1]


def test_those_that_wait_together_are_scored_at_once_and_each_gets_its_own() -> None:
    model = Counting()
    batches = Batches(model)
    model.open.clear()
    with ThreadPoolExecutor(50) as pool:
        asked = [1 + i % (TITLES - 1) for i in range(50)]
        futures = [pool.submit(batches.score, query(title)) for title in asked]
        while len(batches._waiting) < 49:  # one is being scored
            threading.Event().wait(0.01)
        model.open.set()
        found = [future.result(10)["part"].argmax() for future in futures]
    assert found == asked
    assert model.sizes == [1, MOST, 49 - MOST]


def test_a_query_that_fails_fails_alone() -> None:
    model = Counting()
    batches = Batches(model)
    model.open.clear()
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(batches.score, query(1))
        while batches._leader is None or batches._waiting:
            threading.Event().wait(0.01)
        others = [pool.submit(batches.score, query(title)) for title in (0, 2, 3)]
        while len(batches._waiting) < 3:
            threading.Event().wait(0.01)
        model.open.set()
        assert first.result(10)["part"].argmax() == 1
        with pytest.raises(ValueError, match="title 0"):
            others[0].result(10)
        assert [other.result(10)["part"].argmax() for other in others[1:]] == [2, 3]
    assert batches.score(query(4))["part"].argmax() == 4


def test_a_pass_that_hangs_holds_nobody_else_for_good(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("matinee.serving.batches.STUCK_S", 0.1)
    hanging = threading.Event()

    def score(asked: Query) -> Mapping[str, Scores]:
        if asked.histories[0][0] == 0:
            hanging.wait(10)
        return Counting()(asked)

    batches = Batches(score)
    with ThreadPoolExecutor(2) as pool:
        stuck = pool.submit(batches.score, query(0))
        while batches._leader is None or batches._waiting:
            threading.Event().wait(0.01)
        assert batches.score(query(2))["part"].argmax() == 2
        hanging.set()
        with pytest.raises(ValueError, match="title 0"):
            stuck.result(10)
    assert batches.score(query(5))["part"].argmax() == 5


def test_those_who_waited_too_long_for_a_stuck_pass_are_scored_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("matinee.serving.batches.STUCK_S", 0.2)
    hanging = threading.Event()
    model = Counting()

    def score(asked: Query) -> Mapping[str, Scores]:
        if asked.histories[0][0] == 1:
            hanging.wait(10)
        return model(asked)

    batches = Batches(score)
    with ThreadPoolExecutor(4) as pool:
        stuck = pool.submit(batches.score, query(1))
        while batches._leader is None or batches._waiting:
            threading.Event().wait(0.01)
        others = [pool.submit(batches.score, query(title)) for title in (2, 3, 4)]
        assert [other.result(10)["part"].argmax() for other in others] == [2, 3, 4]
        assert batches.score(query(5))["part"].argmax() == 5  # at once: the stuck pass leads no more
        hanging.set()
        assert stuck.result(10)["part"].argmax() == 1
    assert sum(model.sizes) == 5
    assert model.sizes[-2:] == [1, 1]
    assert batches._leader is None


def test_a_leader_whose_wait_ends_as_it_is_woken_still_leads(monkeypatch: pytest.MonkeyPatch) -> None:
    class Late(threading.Event):
        """Its first wait ends as what is waited for comes, and says that it did not."""

        told = False

        def wait(self, timeout: float | None = None) -> bool:
            told, self.told = self.told, True
            return super().wait(timeout) and told

    waiting = partial(_Waiting, woken=Late())
    monkeypatch.setattr("matinee.serving.batches._Waiting", waiting)
    batches = Batches(Counting())
    assert batches.score(query(3))["part"].argmax() == 3
    assert batches._leader is None  # else whoever comes next waits for nobody


def test_members_without_features_have_unknown_ones_among_others() -> None:
    together = joined([query(1), query(2, feature=4.0)])
    assert together.member_features is not None
    np.testing.assert_array_equal(together.member_features.values, [[np.nan], [4.0]])
    assert joined([query(1), query(2)]).member_features is None
