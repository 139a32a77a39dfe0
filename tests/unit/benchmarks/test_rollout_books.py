"""The books find what they are there to find: lost exposures, cells that no row gives, members that moved."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
import served_home
from benchmarks.rollout_books import FOLLOWED_S, Given, back_within_s, books, moved

from matinee.canary.plan import canary
from matinee.canary.store import Decided, Rollout
from matinee.config import Settings
from matinee.events.broker import LocalBroker
from matinee.events.kafka import EventProducer, ensure_topics
from matinee.serving.place import Rules, place

S = 1_000_000


def given(member: str, cell: str, at_s: float, version: str = "1") -> Given:
    at = int(at_s * S)
    return Given(
        request_id=f"{member}-{at}", member_id=member, version=version, cell=cell, at=at, done=at + 10
    )


def rollout(end_s: float) -> Rollout:
    told = {"step": 0, "reason": "", "evidence": {}, "report": "", "who": "test"}
    decisions = [
        Decided(id=i, action=action, time=int(at * S), **told)
        for i, (action, at) in enumerate((("start", 1.0), ("roll_back", end_s)))
    ]
    return Rollout(
        id=7, surface="home", model="recommender", baseline="1", candidate="2", plan=canary(), who="test",
        why="test", time=0, live=False, decisions=decisions,
    )  # fmt: skip


def test_a_member_who_leaves_a_cell_before_the_end_moved() -> None:
    over = rollout(end_s=10)
    baseline, treated = over.cells
    answers = [given(member, treated, 2) for member in ("stays", "moves", "leaves", "is free")]
    answers += [given("stays", treated, 9), given("moves", baseline, 3), given("leaves", "v1", 4)]
    answers += [given("is free", "v1", 11), given("joins", "v1", 3), given("joins", baseline, 5)]
    assert moved(over, answers) == 2


def test_the_last_answer_of_a_cell_tells_how_long_the_end_took() -> None:
    over = rollout(end_s=10)
    answers = [given("a", over.cells[1], 9), given("a", "v1", 14)]
    assert back_within_s(over, answers) == 0
    assert back_within_s(over, [*answers, given("b", over.cells[0], 11.5)]) == pytest.approx(1.5)


def test_answers_without_one_exposure_or_a_row_are_counted(settings: Settings, tmp_path: Path) -> None:
    served_home.register_versions(settings)
    placed = place("m1", Rules(), model=settings.serving.model, champion="1")
    assert placed is not None
    cell, version = placed
    fine, lost, twice = (given("m1", cell, FOLLOWED_S + i, version) for i in range(3))
    odd = given("m1", cell, 9, "2")
    with LocalBroker(tmp_path / "broker.log") as broker:
        ensure_topics(settings.kafka, broker.bootstrap)
        producer = EventProducer(settings.kafka, broker.bootstrap)
        told = [
            {
                "exposure_id": answer.request_id,
                "member_id": answer.member_id,
                "cell": answer.cell,
                "model_version": f"recommender/{answer.version}",
            }
            for answer in (fine, twice, twice, odd)
        ]
        producer.send_many(settings.kafka.exposures_topic, ["m1"] * 4, list(map(orjson.dumps, told)))
        producer.flush(10)
        producer.close()
        found = books(settings, broker.bootstrap, [fine, lost, twice, odd])
    assert found == {
        "answers": 4,
        "exposures": 4,
        "not_one_exposure": 2,
        "not_implied_by_the_split": 1,
    }
