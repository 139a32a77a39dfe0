"""Packed rows in SQLite and in Redis: the same contract."""

import random
import sqlite3
import threading
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
import redis
import redis_server

from matinee.errors import StorageError, Unavailable
from matinee.features import packed
from matinee.features.packed import Decoder, Layout
from matinee.features.rows import Gone, RedisRows, SqliteRows, guarded, translated

LAYOUT = Layout((("n", "int64"),))
DECODER = Decoder(LAYOUT, ["n"])


def row(number, time, layout=LAYOUT):
    table = pa.table({"n": [number]})
    return packed.encode(layout, table, time=np.array([time]), created=None)[0]


class RowsContract:
    """What any place for packed rows promises; `rows` and `another`, a second opening, are fixtures."""

    def put(self, rows, view, written):
        rows.put(view, [key for key, _, _ in written], [row(n, time) for _, n, time in written], LAYOUT)

    def read(self, rows, view, *keys):
        (found,) = rows.get([view], keys)
        return [None if value is None else DECODER.decode(value)[0] for value in found]

    def test_rows_come_back_by_view_and_key(self, rows):
        self.put(rows, "v", [(b"a", 1, 10), (b"b", 2, 10)])
        self.put(rows, "w", [(b"a", 3, 10)])
        assert self.read(rows, "v", b"b", b"no", b"a", b"b") == [2, None, 1, 2]
        found = rows.get(["w", "v", "x"], [b"a", b"b"])
        assert [[value and DECODER.decode(value)[0] for value in view] for view in found] == [
            [3, None],
            [1, 2],
            [None, None],
        ]
        assert rows.get(["w", "v"], [b"b"]) == [[None], [row(2, 10)]]

    def test_many_keys_come_back_in_their_order(self, rows):
        keys = [f"k{i}".encode() for i in range(3_000)]
        self.put(rows, "v", [(key, place, 0) for place, key in enumerate(keys)])
        order = random.Random(0).sample(range(3_000), 2_900)
        assert self.read(rows, "v", *(keys[place] for place in order)) == order

    @pytest.mark.parametrize("base", [0, -(2**62), 2**53, 2**63 - 10])
    def test_an_earlier_row_never_replaces_a_later_one(self, rows, base):
        self.put(rows, "v", [(b"a", 1, base + 5)])
        self.put(rows, "v", [(b"a", 2, base + 4), (b"b", 2, base + 4)])
        assert self.read(rows, "v", b"a", b"b") == [1, 2]
        self.put(rows, "v", [(b"a", 3, base + 5)])
        assert self.read(rows, "v", b"a") == [3]
        self.put(rows, "v", [(b"a", 4, base + 7), (b"a", 5, base + 7), (b"a", 6, base + 6)])
        assert self.read(rows, "v", b"a") == [5]

    def test_writers_at_the_same_time_leave_the_latest_row(self, rows, another):
        keys = [f"k{i}".encode() for i in range(40)]
        seen = []
        done = threading.Event()

        def write(seed):
            draw = random.Random(seed)
            for _ in range(25):
                written = []
                for key in draw.sample(keys, 20):
                    time = draw.randrange(1_000)
                    written.append((key, time, time))
                    times[seed].setdefault(key, []).append(time)
                self.put(rows if seed % 2 else another, "v", written)

        def watch():
            while not done.is_set():
                seen.append([value or -1 for value in self.read(rows, "v", *keys)])

        times = [{} for _ in range(4)]
        writers = [threading.Thread(target=write, args=(seed,)) for seed in range(4)]
        watcher = threading.Thread(target=watch)
        for thread in [watcher, *writers]:
            thread.start()
        for thread in writers:
            thread.join()
        done.set()
        watcher.join()
        latest = [max(time for each in times for time in each.get(key, [-1])) for key in keys]
        assert self.read(rows, "v", *keys) == latest
        for before, after in pairwise(seen):
            assert all(a >= b for b, a in zip(before, after, strict=True))

    def test_layouts_are_found_by_their_fingerprints(self, rows):
        self.put(rows, "v", [(b"a", 1, 1)])
        assert rows.layout(LAYOUT.fingerprint) == LAYOUT
        assert rows.layout(b"12345678") is None

    def test_a_dropped_view_takes_its_rows_alone(self, rows):
        for view in ("v", "v2", "w"):
            self.put(rows, view, [(b"a", 1, 1)])
        rows.drop("v")
        assert [self.read(rows, view, b"a") for view in ("v", "v2", "w")] == [[None], [1], [1]]

    def test_a_follower_reads_everything_once_and_then_what_changed(self, rows, another):
        keys = [b"a", b"b", b"c"]
        self.put(rows, "v", [(b"a", 1, 1), (b"b", 1, 1)])
        cursor, found, whole = another.changed("v", keys, None)
        assert (sorted(found), whole) == ([b"a", b"b"], True)
        cursor, found, whole = another.changed("v", keys, cursor)
        assert (found, whole) == ({}, False)
        self.put(rows, "v", [(b"b", 2, 2), (b"c", 2, 2)])
        self.put(rows, "w", [(b"a", 9, 9)])
        cursor, found, whole = another.changed("v", keys, cursor)
        assert ({key: DECODER.decode(value)[0] for key, value in found.items()}, whole) == (
            {b"b": 2, b"c": 2},
            False,
        )
        self.put(rows, "v", [(b"a", 0, 0)])  # too old: nothing changes
        cursor, found, whole = another.changed("v", keys, cursor)
        assert (found, whole) == ({}, False)
        rows.drop("v")
        self.put(rows, "v", [(b"c", 3, 1)])
        _, found, whole = another.changed("v", keys, cursor)
        assert (list(found), whole) == ([b"c"], True)

    def test_a_follower_may_begin_without_reading_anything(self, rows, another):
        self.put(rows, "v", [(b"a", 1, 1), (b"b", 1, 1)])
        cursor, found, whole = another.changed("v", [], None)
        assert (found, whole) == ({}, True)
        self.put(rows, "v", [(b"b", 2, 2)])
        _, found, whole = another.changed("v", [b"a", b"b"], cursor)
        assert (list(found), whole) == ([b"b"], False)

    def test_a_follower_misses_nothing_of_what_is_written_meanwhile(self, rows, another):
        keys = [f"k{i}".encode() for i in range(20)]
        held = {}
        cursor = None
        done = threading.Event()

        def write():
            for time in range(1, 120):
                self.put(rows, "v", [(keys[time % 20], time, time), (keys[time * 7 % 20], time, time)])
            done.set()

        thread = threading.Thread(target=write)
        thread.start()
        last = False
        while not last:
            last = done.is_set()
            cursor, found, whole = another.changed("v", keys, cursor)
            held = {**({} if whole else held), **found}
        thread.join()
        (now,) = rows.get(["v"], keys)
        assert [held.get(key) for key in keys] == now

    def test_a_store_that_lost_everything_has_another_generation(self, rows):
        self.put(rows, "v", [(b"a", 1, 1)])
        before = rows.generation()
        self.put(rows, "v", [(b"a", 2, 2)])
        assert rows.generation() == before is not None
        self.lose(rows)
        assert rows.generation() is None
        self.put(rows, "v", [(b"b", 1, 1)])
        assert rows.generation() not in (before, None)
        assert self.read(rows, "v", b"a", b"b") == [None, 1]

    def test_a_follower_of_a_store_that_lost_everything_is_told(self, rows):
        self.put(rows, "v", [(b"a", 1, 1)])
        cursor, _, _ = rows.changed("v", [b"a", b"b"], None)
        self.lose(rows)
        self.put(rows, "v", [(b"b", 1, 1)])
        _, found, whole = rows.changed("v", [b"a", b"b"], cursor)
        assert (list(found), whole) == ([b"b"], True)

    def lose(self, rows):
        rows.clear()


class TestSqliteRows(RowsContract):
    @pytest.fixture
    def path(self, tmp_path):
        return tmp_path / "new" / "online.db"

    @pytest.fixture
    def rows(self, path):
        made = SqliteRows(path)
        made.declare(["v"])
        return made

    @pytest.fixture
    def another(self, rows, path):
        return SqliteRows(path)

    def test_a_file_that_is_gone_cannot_be_read_and_is_made_by_a_write(self, rows, path):
        self.put(rows, "v", [(b"a", 1, 1)])
        path.unlink()
        with pytest.raises(Gone, match="gone"):
            rows.get(["v"], [b"a"])
        assert not path.exists()
        self.put(rows, "v", [(b"b", 1, 1)])
        assert self.read(rows, "v", b"a", b"b") == [None, 1]

    def test_another_file_at_the_same_place_is_noticed(self, rows, another):
        self.put(rows, "v", [(b"a", 1, 1)])
        another.clear()
        self.put(another, "v", [(b"b", 2, 0)])
        assert self.read(rows, "v", b"a", b"b") == [None, 2]

    def test_a_write_that_fails_leaves_nothing(self, rows):
        with pytest.raises(sqlite3.Error):
            rows.put("v", [b"a", b"b"], [row(1, 1), object()], LAYOUT)
        assert self.read(rows, "v", b"a") == [None]
        self.put(rows, "v", [(b"a", 1, 1)])


@pytest.fixture(scope="module")
def port(tmp_path_factory):
    with redis_server.running(tmp_path_factory.mktemp("redis")) as port:
        yield port


@redis_server.needs_redis
class TestRedisRows(RowsContract):
    @pytest.fixture
    def rows(self, port):
        with redis.Redis(port=port) as client:
            client.flushall()
            made = RedisRows(lambda: redis.Redis(port=port), "p")
            yield made
            made.close()

    @pytest.fixture
    def another(self, rows, port):
        made = RedisRows(lambda: redis.Redis(port=port), "p")
        yield made
        made.close()

    def test_projects_do_not_see_each_other(self, rows, port):
        other = RedisRows(lambda: redis.Redis(port=port), "q")
        self.put(rows, "v", [(b"a", 1, 1)])
        assert self.read(other, "v", b"a") == [None]
        other.clear()
        assert self.read(rows, "v", b"a") == [1]
        other.close()

    def test_a_follower_that_lags_too_far_reads_everything(self, rows, port):
        self.put(rows, "v", [(b"a", 1, 1), (b"b", 1, 1)])
        cursor, _, _ = rows.changed("v", [b"a", b"b"], None)
        self.put(rows, "v", [(b"a", 2, 2)])
        with redis.Redis(port=port) as client:
            client.delete("matinee:p:log:v")
        _, found, whole = rows.changed("v", [b"a", b"b"], cursor)
        assert (sorted(found), whole) == ([b"a", b"b"], True)


def test_a_full_disk_a_silent_store_and_our_own_bugs_are_told_apart():
    redis = pytest.importorskip("redis")
    full = translated(sqlite3.OperationalError("database or disk is full"), "here")
    assert type(full) is StorageError
    for failure in (sqlite3.OperationalError("database is locked"), redis.ConnectionError("refused")):
        found = translated(failure, "here")
        assert type(found) is Unavailable
        assert "feature store here" in str(found)
    assert translated(ValueError("ours"), "here") is None
    with pytest.raises(ValueError, match="ours"), guarded("here"):
        raise ValueError("ours")
    with pytest.raises(StorageError, match="full"), guarded("here"):
        raise sqlite3.OperationalError("database or disk is full")
