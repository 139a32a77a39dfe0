"""Decisions as rows: signed, or refused."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import sqlalchemy as sql

from matinee.config import Settings, load_settings
from matinee.errors import InvalidInput, Unavailable
from matinee.state import StateDatabase, decisions

TABLE = decisions("lunches", sql.Column("dish", sql.Text, nullable=False))


def test_a_decision_is_kept_with_who_why_and_when(settings: Settings) -> None:
    database = StateDatabase(settings, TABLE)
    before = time.time_ns() // 1000
    at = database.decide(TABLE, dish="soup", who="ana", why="it rains")
    assert before <= at <= time.time_ns() // 1000
    with database.connection() as connection:
        rows = connection.execute(sql.select(TABLE)).all()
    assert [tuple(row) for row in rows] == [(1, "soup", "ana", "it rains", at)]
    database.close()


@pytest.mark.parametrize(("who", "why", "told"), [(" ", "it rains", "who"), ("ana", "", "why")])
def test_an_unsigned_decision_is_none(settings: Settings, who: str, why: str, told: str) -> None:
    database = StateDatabase(settings, TABLE)
    with pytest.raises(InvalidInput, match=f"{told} of a decision is empty"):
        database.decide(TABLE, dish="soup", who=who, why=why)
    with database.connection() as connection:
        assert connection.execute(sql.select(sql.func.count()).select_from(TABLE)).scalar() == 0
    database.close()


def test_a_database_that_does_not_answer_is_named(settings: Settings, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}"  # a folder
    with pytest.raises(Unavailable, match=f"state database {url}: "):
        StateDatabase(load_settings({"home": str(settings.home), "database_url": url}, environment={}), TABLE)
