"""What a replica asks the online store about members: here, whose features were written."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
import served_home

from matinee.config import Settings, load_settings
from matinee.features.online import OnlineReader
from matinee.features.rows import UNTOLD
from matinee.features.store import FeatureStore
from matinee.features.transforms import MEMBER_ACTIVITY
from matinee.schema import TIMESTAMP


@pytest.fixture
def home(tmp_path: Path) -> Settings:
    settings = load_settings({"home": str(tmp_path)}, environment={})
    served_home.catalogue().write(settings.paths.catalogue)
    FeatureStore(settings).apply()
    return settings


def write(home: Settings, *members: str) -> None:
    columns = [pa.nulls(len(members), field.type) for field in MEMBER_ACTIVITY]
    table = pa.table(columns, schema=MEMBER_ACTIVITY)
    place = table.schema.get_field_index
    table = table.set_column(place("member_id"), "member_id", pa.array(members))
    stamps = pa.array([served_home.START] * len(members)).cast(TIMESTAMP)
    table = table.set_column(place("event_timestamp"), MEMBER_ACTIVITY.field("event_timestamp"), stamps)
    FeatureStore(home).write_online("member_activity", table)


def test_members_written_to_are_told_once_and_only_those_asked_about(home: Settings) -> None:
    reader = OnlineReader(home)
    write(home, "a", "b")
    since, found = reader.written(["a", "b"], {})
    assert found is None
    write(home, "b", "c")
    since, found = reader.written(["a", "b"], since)
    assert found == {"b"}
    since, found = reader.written(["a", "b"], since)
    assert found == set()


def test_a_store_that_lost_everything_cannot_tell(home: Settings) -> None:
    reader = OnlineReader(home)
    write(home, "a")
    since, _ = reader.written([], {})
    for file in (home.paths.feast).glob("online.db*"):
        file.unlink()
    write(home, "b")
    assert reader.written(["a", "b"], since)[1] is None


def test_a_store_of_feasts_own_is_not_followed(home: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = OnlineReader(home)
    monkeypatch.setattr(reader._store, "generation", lambda: UNTOLD)
    since, found = reader.written(["a"], {})
    assert (since, found) == ({}, None)
    assert reader.written(["a"], since) == ({}, None)
