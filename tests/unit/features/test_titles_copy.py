"""The columnar copy of title features follows the store: what changes, what expires, what is lost."""

import time

import numpy as np
import pyarrow as pa
import pytest

from matinee.errors import NotFound, Unavailable
from matinee.features.packed import Decoder, Layout, encode
from matinee.features.rows import SqliteRows
from matinee.features.titles_copy import TitleCopy
from matinee.schema import TIMESTAMP

IDS = ["t0", "t1", "t2", "t3"]
LAYOUT = Layout((("plays", "int64"), ("mean", "float64"), ("genres", "list:string"), ("seen", "timestamp")))


class Store:
    """`FeatureStore`, as far as the copy needs it, over a file."""

    def __init__(self, path, ttl_us=0):
        self.rows = SqliteRows(path)
        self.rows.declare(["titles"])
        self.ttl = ttl_us
        self.answers = True

    def decoder(self, view):
        assert view == "titles"
        return Decoder(LAYOUT, LAYOUT.names, find=self.rows.layout)

    def ttl_us(self, view):
        return self.ttl

    def changed(self, view, keys, since):
        if not self.answers:
            raise Unavailable("the store is asleep")
        stored = [key.encode() for key in keys]
        cursor, rows, whole = self.rows.changed(view, stored, since)
        return cursor, {stored.index(key): row for key, row in rows.items() if key in stored}, whole

    def write(self, *rows, at=1):
        """Rows of (id, plays, mean, genres)."""
        ids, plays, means, genres = zip(*rows, strict=True)
        seen = pa.array([each and 7 for each in plays], pa.int64()).cast(TIMESTAMP)
        columns = {"plays": pa.array(plays, pa.int64()), "mean": pa.array(means, pa.float64())}
        lists = pa.array(genres, pa.list_(pa.string()))
        table = pa.table({**columns, "genres": lists, "seen": seen})
        times = np.full(len(rows), at, np.int64)
        values = encode(LAYOUT, table, time=times, created=None)
        self.rows.put("titles", [each.encode() for each in ids], values, LAYOUT)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "online.db")


def test_columns_follow_the_catalogue(store):
    store.write(("t2", 5, None, ["a", "b"]), ("t0", None, 0.5, []), ("elsewhere", 1, 1.0, []))
    copy = TitleCopy(store, "titles", IDS)
    assert not copy.values.present.any()
    assert copy.age_s == float("inf")
    copy.refresh()
    held = copy.values
    assert held.present.tolist() == [True, False, True, False]
    np.testing.assert_array_equal(held.numbers("plays"), [np.nan, np.nan, 5.0, np.nan])
    assert held.values["plays"].dtype == np.int64
    assert held.table().to_pydict() == {
        "title_id": IDS,
        "event_timestamp": pa.array([1, None, 1, None]).cast(TIMESTAMP).to_pylist(),
        "plays": [None, None, 5, None],
        "mean": [0.5, None, None, None],
        "genres": [[], None, ["a", "b"], None],
        "seen": pa.array([None, None, 7, None], pa.int64()).cast(TIMESTAMP).to_pylist(),
    }
    with pytest.raises(NotFound, match="the copy has plays, mean"):
        held.numbers("nothing")


def test_a_refresh_reads_what_changed_and_leaves_earlier_values_alone(store):
    store.write(("t0", 1, 1.0, []), ("t1", 1, 1.0, []))
    copy = TitleCopy(store, "titles", IDS)
    assert copy.refresh() == 2
    before = copy.values
    assert copy.refresh() == 0
    assert copy.values is before
    store.write(("t1", 2, 2.0, ["x"]), ("t3", 3, 3.0, []), at=2)
    assert copy.refresh() == 2
    assert copy.values.column("plays").to_pylist() == [1, 2, None, 3]
    assert copy.values.column("genres").to_pylist() == [[], ["x"], None, []]
    assert copy.values.event_time[[0, 1, 3]].tolist() == [1, 2, 2]
    assert before.column("plays").to_pylist() == [1, 1, None, None]


def test_rows_that_the_store_lost_are_not_kept(store):
    store.write(("t0", 1, 1.0, []))
    copy = TitleCopy(store, "titles", IDS)
    copy.refresh()
    store.rows.clear()
    store.write(("t1", 1, 1.0, []))
    copy.refresh()
    assert copy.values.present.tolist() == [False, True, False, False]
    store.rows.drop("titles")
    copy.refresh()
    assert not copy.values.present.any()


def test_rows_past_their_time_are_missing(tmp_path):
    now = time.time_ns() // 1000
    store = Store(tmp_path / "online.db", ttl_us=60_000_000)
    store.write(("t0", 1, 1.0, []), at=now - 61_000_000)
    store.write(("t1", 1, 1.0, []), at=now)
    copy = TitleCopy(store, "titles", IDS)
    copy.refresh()
    assert copy.values.present.tolist() == [False, True, False, False]
    assert copy.values.column("plays").to_pylist() == [None, 1, None, None]


def test_a_silent_store_lets_the_copy_age(store):
    store.write(("t0", 1, 1.0, []))
    copy = TitleCopy(store, "titles", IDS)
    copy.refresh()
    held = copy.values
    store.answers = False
    time.sleep(0.02)
    with pytest.raises(Unavailable):
        copy.refresh()
    assert copy.values is held
    assert copy.age_s >= 0.02
    store.answers = True
    before = copy.age_s
    copy.refresh()
    assert copy.age_s < before


def test_following_goes_on_after_the_store_was_silent(store):
    copy = TitleCopy(store, "titles", IDS)
    store.answers = False
    copy.start(0.005)
    try:
        time.sleep(0.02)
        store.write(("t2", 4, 1.0, []))
        store.answers = True
        deadline = time.monotonic() + 10
        while not copy.values.present[2]:
            assert time.monotonic() < deadline
            time.sleep(0.005)
    finally:
        copy.close()
    assert copy.values.numbers("plays")[2] == 4
