from __future__ import annotations

import numpy as np
from benchmarks.cold_titles import Cases, Content, bootstrap, cold_cases, session_cases, split
from contracts.model_contract import TITLES, training_set

from matinee.models.base import Query
from matinee.models.content import relations


def query(*histories: list[int]) -> Query:
    return Query(
        histories=[np.array(history, np.int32) for history in histories],
        times=[np.arange(len(history), dtype=np.int64) for history in histories],
        now=np.full(len(histories), 99, np.int64),
    )


def test_a_split_shows_models_neither_cold_titles_nor_new_members() -> None:
    held = split(training_set(), np.arange(TITLES) < 40, seed=0)
    train = held.train.interactions
    assert held.cold.sum() == 8
    assert held.new.any()
    assert not held.cold[train.title].any()
    assert not held.new[train.member].any()
    for case, titles in ((cold_cases(held, offered=held.cold), True), (session_cases(held, 3), False)):
        assert len(case.query)
        assert (held.cold[np.concatenate(case.relevant)] == titles).all()


def test_content_ranks_the_offered_titles_that_share_most_with_the_history() -> None:
    attributes = relations(training_set().catalogue)
    offered = np.isin(np.arange(TITLES), [9, 11, 12])
    content = Content(weights={each.name: float(each.name == "genre") for each in attributes})
    # Genres go round by four: 9 has that of 1 and 5, 11 that of 3, 12 that of 4.
    scores = content.score(attributes, query([1, 5, 3], [4]), offered)
    assert scores[0].argsort()[::-1][:2].tolist() == [9, 11]
    assert scores[1].argmax() == 12
    assert not scores[:, ~offered].any()


def test_titles_that_are_not_offered_or_were_seen_take_no_place() -> None:
    offered = np.array([True, False, True, True])
    cases = Cases(query=query([2]), relevant=[np.array([3], np.int32)], offered=offered)
    judged = cases.judge(np.array([[1, 9, 8, 2]], np.float32))
    assert judged["ndcg@20"].tolist() == [1]


def test_the_interval_is_that_of_the_ratio() -> None:
    generator = np.random.default_rng(0)
    theirs = generator.random(500)
    found = {("ours", "q"): {"ndcg@20": 2 * theirs}, ("content", "q"): {"ndcg@20": theirs}}
    assert bootstrap([found], "content", "q", "ndcg@20") == [2.0, 2.0]
