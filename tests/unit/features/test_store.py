"""The Feast door on SQLite: what is written is what is read, now and as of any time."""

import re
import shutil
import sqlite3
import threading
import time

import pyarrow as pa
import pytest
import redis_server

from matinee.config import load_settings
from matinee.errors import InvalidInput, NotFound, Unavailable
from matinee.features.store import FeatureStore
from matinee.features.store.store import _online
from matinee.features.transforms import TITLE_CONTENT, VIEWS
from matinee.schema import TIMESTAMP

ACTIVITY = VIEWS["member_activity"].schema


@pytest.fixture
def store(settings):
    opened = FeatureStore(settings)
    opened.apply()
    return opened


def activity(member, plays, titles, time):
    row = {
        **dict.fromkeys(("plays_1h", "plays_24h", "plays_7d"), plays),
        "member_id": member,
        "last_title_ids": titles,
        "last_event_time": time,
    }
    columns = [pa.array([row[name]], ACTIVITY.field(name).type) for name in ACTIVITY.names[:-1]]
    return pa.table([*columns, pa.array([time]).cast(TIMESTAMP)], schema=ACTIVITY)


def test_the_declared_views_are_those_the_transforms_compute(store):
    assert set(store.features("serving")) == {
        "member_activity",
        "member_watched",
        "member_affinity",
        "member_progress",
    }
    assert set(store.features("gnn")) == {"title_popularity", "title_content"}
    schemas = {name: view.schema for name, view in VIEWS.items()} | {"title_content": TITLE_CONTENT}
    for name, schema in schemas.items():
        key = schema.names[0]
        declared = store.schema(name)
        assert declared == {
            field.name: field.type for field in schema if field.name not in (key, "event_timestamp")
        }


def test_online_values_come_back_in_the_order_of_the_keys(store):
    store.write_online("member_activity", activity("m1", 3, ["a", "b"], 10))
    store.write_online("member_activity", activity("m2", 1, [], 20))
    got = store.read_online(
        ["member_activity:plays_7d", "member_activity:last_title_ids"], ["m2", "no", "m1"]
    )
    assert got["plays_7d"].to_pylist() == [1, None, 3]
    assert got["last_title_ids"].to_pylist() == [[], None, ["a", "b"]]


def test_a_row_of_the_same_time_replaces_the_one_before(store):
    store.write_online("member_activity", activity("m1", 3, ["a"], 10))
    store.write_online("member_activity", activity("m1", 4, ["b", "a"], 10))
    assert store.read_rows("member_activity", ["m1"])[0]["last_title_ids"] == ["b", "a"]


def test_nulls_stay_nulls(store):
    schema = VIEWS["title_popularity"].schema
    row = dict.fromkeys(schema.names, 1) | {"title_id": "t", "rating_mean_30d": None, "rating_mean_all": 3.7}
    columns = [pa.array([row[f.name]], f.type) for f in schema if f.name != "event_timestamp"]
    store.write_online("title_popularity", pa.table([*columns, pa.array([5]).cast(TIMESTAMP)], schema=schema))
    (held,) = store.read_rows("title_popularity", ["t"])
    assert (held["rating_mean_30d"], held["rating_mean_all"]) == (None, 3.7)


def test_historical_rows_keep_order_and_repeats_and_see_no_future(store):
    store.write_offline("member_activity", activity("m1", 1, ["a"], 10))
    store.write_offline("member_activity", activity("m1", 2, ["a", "b"], 20))
    times = [20, 9, 19, 20]
    asked = pa.table({"member_id": ["m1"] * 4, "event_timestamp": pa.array(times).cast(TIMESTAMP)})
    got = store.historical(["member_activity:plays_7d", "member_activity:last_title_ids"], asked)
    assert got["plays_7d"].to_pylist() == [2, None, 1, 2]
    assert got["last_title_ids"].to_pylist() == [["a", "b"], None, ["a"], ["a", "b"]]
    assert got["event_timestamp"].cast(pa.int64()).to_pylist() == times


def test_unknown_names_are_refused_with_the_known_ones(store):
    with pytest.raises(NotFound, match=r"known: .*dnn, .*serving"):
        store.features("nothing")
    with pytest.raises(NotFound, match=r"known: .*member_activity"):
        store.read_rows("nothing", ["m"])
    with pytest.raises(NotFound, match="plays_1h"):
        store.read_online(["member_activity:nothing"], ["m"])


def test_a_store_that_is_gone_or_not_there_yet_is_unavailable(settings, store):
    store.write_online("member_activity", activity("m1", 3, ["a"], 10))
    (settings.paths.feast / "online.db").unlink()
    with pytest.raises(Unavailable, match="gone"):
        store.read_rows("member_activity", ["m1"])
    shutil.rmtree(settings.paths.feast)
    with pytest.raises(Unavailable, match="not applied"):
        FeatureStore(settings).read_rows("member_activity", ["m1"])


def test_readers_are_not_locked_out_by_the_writer(settings, store):
    journal = sqlite3.connect(settings.paths.feast / "online.db").execute("PRAGMA journal_mode").fetchone()
    assert journal == ("wal",)
    writing = threading.Event()
    table = pa.concat_tables([activity(f"m{i}", i, ["a"], i) for i in range(300)])

    def write():
        while not writing.is_set():
            store.write_online("member_activity", table)

    thread = threading.Thread(target=write)
    store.write_online("member_activity", table)
    thread.start()
    try:
        reader = FeatureStore(settings)
        for _ in range(300):
            assert reader.read_rows("member_activity", ["m7"])[0]["plays_7d"] == 7
    finally:
        writing.set()
        thread.join()


def test_an_earlier_row_never_replaces_a_later_one(store):
    store.write_online("member_activity", activity("m1", 3, ["a"], 10))
    store.write_online("member_activity", activity("m1", 2, ["b"], 9))
    assert store.read_rows("member_activity", ["m1"])[0]["plays_7d"] == 3


def test_one_key_is_read_with_all_its_views_at_once(store):
    assert store.read_one("serving", "m1") == {}
    store.write_online("member_activity", activity("m1", 3, ["a"], 10))
    (row,) = store.read_rows("member_activity", ["m1"])
    assert store.read_one("serving", "m1") == row
    found = {each.view: each for each in store.read_views("serving", ["no", "m1"])}
    assert set(found) == set(store.features("serving"))
    assert found["member_activity"].statuses == ["NOT_FOUND", "PRESENT"]
    assert found["member_activity"].times == [None, 10]
    assert found["member_activity"].columns()[0] == [None, 3]
    assert found["member_watched"].columns() == [[None, None], [None, None]]


def test_features_of_several_entities_are_not_one_question(store):
    with pytest.raises(InvalidInput, match="title_popularity by title_id"):
        store.read_online(["member_activity:plays_7d", "title_popularity:plays_7d"], ["x"])
    with pytest.raises(InvalidInput, match="no feature"):
        store.read_online([], ["x"])


LIVES_A_MINUTE = """
from datetime import timedelta
from feast import Entity, FeatureView, Field, FileSource, ValueType
from feast.types import Bool, Int64, UnixTimestamp
thing = Entity(name="thing", join_keys=["thing_id"], value_type=ValueType.STRING)
short = FeatureView(
    name="short", entities=[thing], ttl=timedelta(minutes=1),
    schema=[Field(name="n", dtype=Int64), Field(name="b", dtype=Bool), Field(name="t", dtype=UnixTimestamp)],
    source=FileSource(name="short", path="short", timestamp_field="event_timestamp"),
)
"""


def test_a_row_past_its_time_to_live_reads_as_missing(tmp_path):
    (tmp_path / "definitions").mkdir()
    (tmp_path / "definitions" / "short.py").write_text(LIVES_A_MINUTE)
    flags = {"home": str(tmp_path / "home"), "features.repository": str(tmp_path / "definitions")}
    opened = FeatureStore(load_settings(flags, environment={}))
    opened.apply()
    now = time.time_ns() // 1000
    times = [now - 61_000_000, now - 1_000_000]
    moments = pa.array(times).cast(TIMESTAMP)
    columns = {"thing_id": ["old", "new"], "n": [1, 2], "b": [True, False], "t": moments}
    opened.write_online("short", pa.table({**columns, "event_timestamp": moments}))
    assert opened.read_rows("short", ["old", "new"]) == [None, {"n": 2, "b": False, "t": times[1]}]
    assert opened.read_one(["short:n"], "old") == {}
    (found,) = opened.read_views(["short:n"], ["old", "new", "no"])
    assert found.statuses == ["OUTSIDE_MAX_AGE", "PRESENT", "NOT_FOUND"]
    assert found.times == [*times, None]
    assert opened.read_online(["short:t", "short:b"], ["old", "new"]).to_pydict() == {
        "thing_id": ["old", "new"],
        "t": [None, moments[1].as_py()],
        "b": [None, False],
    }


def test_a_store_that_was_lost_is_another_one(settings, store):
    before = store.generation()
    store.write_online("member_activity", activity("m1", 3, ["a"], 10))
    assert FeatureStore(settings).generation() == before is not None
    (settings.paths.feast / "online.db").unlink()
    assert store.generation() is None
    store.write_online("member_activity", activity("m2", 3, ["a"], 10))
    assert store.generation() not in (before, None)
    assert store.read_rows("member_activity", ["m1", "m2"])[0] is None


@redis_server.needs_redis
def test_redis_serves_the_same_and_takes_a_late_row(tmp_path):
    with redis_server.running(tmp_path) as port:
        values = {"features.online_store": "redis", "features.redis": f"127.0.0.1:{port}"}
        opened = FeatureStore(load_settings({"home": str(tmp_path), **values}, environment={}))
        opened.apply()
        assert opened.generation() is None
        opened.write_online("member_activity", activity("m1", 3, ["a"], 10))
        opened.write_online("member_activity", activity("m1", 4, [], 10))
        opened.write_online("member_activity", activity("m1", 5, [], 9))
        assert opened.read_rows("member_activity", ["m1", "no"])[1] is None
        assert opened.read_one("serving", "m1")["plays_7d"] == 4
        assert opened.generation() is not None


def test_feasts_own_stores_take_their_settings_as_they_are(tmp_path):
    options = {"region": "eu-west-1", "endpoint_url": "http://127.0.0.1:1"}
    values = {"features.online_store": "dynamodb", "features.online_options": options}
    configured, where = _online(load_settings({"home": str(tmp_path), **values}, environment={}))
    assert (configured, where) == ({"type": "dynamodb", **options}, "dynamodb")


def test_redis_that_does_not_answer_is_unavailable(tmp_path):
    values = {"home": str(tmp_path), "features.online_store": "redis", "features.redis": "127.0.0.1:1"}
    opened = FeatureStore(load_settings(values, environment={}))
    opened.apply()
    with pytest.raises(Unavailable, match=re.escape("127.0.0.1:1")):
        opened.write_online("member_activity", activity("m1", 3, ["a"], 10))
