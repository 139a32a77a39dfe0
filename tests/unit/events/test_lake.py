from __future__ import annotations

import errno
import threading
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matinee.errors import StorageError, Unavailable
from matinee.events import lake
from matinee.schema import CATALOGUE_SCHEMA, LAKE_SCHEMA, Catalogue

NOON = 1_790_000_000_000_000


def rows(*places: tuple[int, int], **columns: Any) -> pa.Table:
    """Lake rows at (partition, offset); the event's id tells its place."""
    count = len(places)
    values: dict[str, list[Any]] = {
        "schema_version": [1] * count,
        "event_id": [f"{partition}:{offset}" for partition, offset in places],
        "type": ["play"] * count,
        "member_id": ["m"] * count,
        "title_id": ["t"] * count,
        "event_time": [offset for _, offset in places],
        "ingest_time": [NOON] * count,
        "partition": [partition for partition, _ in places],
        "offset": [offset for _, offset in places],
        **columns,
    }
    arrays = [pa.array(values.get(field.name, [None] * count), field.type) for field in LAKE_SCHEMA]
    return pa.Table.from_arrays(arrays, schema=LAKE_SCHEMA)


def ids(root: Path) -> list[str]:
    found: list[str] = lake.read_events(root, columns=["event_id"])["event_id"].to_pylist()
    return found


def test_parts_are_named_by_day_cluster_partition_and_offsets(tmp_path: Path) -> None:
    written = lake.write_part(tmp_path, rows((1, 7), (0, 3), (1, 5)), cluster="a.b/c")
    day = datetime.fromtimestamp(NOON / 1e6, tz=UTC)
    assert {path.parent for path in written} == {tmp_path / f"date={day:%Y-%m-%d}"}
    found = {(part.cluster, part.partition, part.first, part.last) for part in lake.parts(tmp_path)}
    assert found == {("a.b%2Fc", 0, 3, 3), ("a.b%2Fc", 1, 5, 7)}
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".parquet"]


def test_events_are_ordered_by_time_then_arrival(tmp_path: Path) -> None:
    table = rows((1, 0), (0, 9), (0, 2), (1, 1), event_time=[5, 5, 5, 1])
    lake.write_part(tmp_path, table, cluster="c")
    assert ids(tmp_path) == ["1:1", "0:2", "0:9", "1:0"]
    assert lake.count(tmp_path) == 4
    everything = lake.read_events(tmp_path)
    assert everything.schema.equals(LAKE_SCHEMA)
    assert lake.read_events(tmp_path, until=4).num_rows == 1
    assert lake.read_events(tmp_path, until=5).num_rows == 4


def test_an_empty_lake_has_no_rows(tmp_path: Path) -> None:
    missing = tmp_path / "none"
    assert lake.read_events(missing).schema.equals(LAKE_SCHEMA)
    assert lake.read_events(missing, columns=["event_id"]).column_names == ["event_id"]
    assert lake.count(missing) == 0
    assert lake.write_part(missing, rows(), cluster="c") == []


def test_discarding_leaves_other_clusters_and_partitions(tmp_path: Path) -> None:
    lake.write_part(tmp_path, rows((0, 0), (0, 1), (1, 0)), cluster="old")
    lake.write_part(tmp_path, rows((0, 0), (0, 1), (1, 0)), cluster="new")
    assert lake.discard_after(tmp_path, "new", {0: 1}) == 1
    assert lake.count(tmp_path) == 5
    assert {(part.cluster, part.partition, part.last) for part in lake.parts(tmp_path)} == {
        ("old", 0, 1),
        ("old", 1, 0),
        ("new", 0, 0),
        ("new", 1, 0),
    }


@settings(max_examples=60)
@given(st.data())
def test_each_event_is_held_once_whatever_crashes(data: st.DataObject) -> None:
    """Batches of any border, a crash after any part, a replay with other borders."""
    ends = {partition: data.draw(st.integers(0, 12)) for partition in range(2)}
    committed = dict.fromkeys(ends, 0)
    with TemporaryDirectory() as folder:
        root = Path(folder)
        for crashes in range(4):
            lake.discard_after(root, "c", committed)
            position = dict(committed)
            for _ in range(data.draw(st.integers(0, 3)) if crashes < 3 else 1):
                upto = {
                    partition: end if crashes == 3 else data.draw(st.integers(position[partition], end))
                    for partition, end in ends.items()
                }
                batch = [(p, offset) for p in ends for offset in range(position[p], upto[p])]
                lake.write_part(root, rows(*batch), cluster="c")
                position = upto
                if data.draw(st.booleans()):
                    committed = {p: data.draw(st.integers(committed[p], position[p])) for p in ends}
        assert sorted(ids(root)) == sorted(f"{p}:{o}" for p, end in ends.items() for o in range(end))


def test_a_crash_between_rewriting_and_renaming_is_repaired(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake.write_part(tmp_path, rows((0, 0), (0, 1), (0, 2)), cluster="c")

    def killed(self: Path, target: Path) -> Path:
        raise KeyboardInterrupt

    with monkeypatch.context() as crashed:
        crashed.setattr(Path, "rename", killed)
        with pytest.raises(KeyboardInterrupt):
            lake.discard_after(tmp_path, "c", {0: 2})
    assert lake.discard_after(tmp_path, "c", {0: 2}) == 0
    lake.write_part(tmp_path, rows((0, 2)), cluster="c")
    assert lake.discard_after(tmp_path, "c", {0: 3}) == 0
    assert ids(tmp_path) == ["0:0", "0:1", "0:2"]


def test_reading_beside_writers_sees_whole_parts(tmp_path: Path) -> None:
    lake.write_part(tmp_path, rows(*[(0, offset) for offset in range(10)]), cluster="c")
    done = threading.Event()
    failures: list[BaseException] = []

    def write() -> None:
        try:
            for start in range(40):
                lake.write_part(tmp_path, rows(*[(1, start * 5 + i) for i in range(5)]), cluster="c")
                if start % 3 == 2:
                    lake.discard_after(tmp_path, "c", {1: (start - 1) * 5})
        except BaseException as failure:
            failures.append(failure)
        finally:
            done.set()

    writer = threading.Thread(target=write)
    writer.start()
    reads = 0
    while not done.is_set() or not reads:
        found = ids(tmp_path)
        assert len(found) == len(set(found))
        assert len(found) % 5 == 0
        assert {f"0:{offset}" for offset in range(10)} <= set(found)
        reads += 1
    writer.join()
    assert not failures


def test_parts_that_always_vanish_are_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lake.write_part(tmp_path, rows((0, 0)), cluster="c")
    ghost = lake.parts(tmp_path)
    ghost[0].path.unlink()
    monkeypatch.setattr(lake, "parts", lambda root: ghost)
    with pytest.raises(Unavailable, match=str(tmp_path)):
        lake.read_events(tmp_path)


@pytest.mark.parametrize("place", ["write", "replace", "mkdir"])
def test_no_space_left_names_the_path_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    full = OSError(errno.ENOSPC, "No space left on device")

    def fail(*args: Any, **options: Any) -> None:
        raise full

    target: tuple[Any, str] = {"write": (pq, "write_table"), "replace": (Path, "replace")}.get(
        place, (Path, "mkdir")
    )
    with monkeypatch.context() as disk:
        disk.setattr(*target, fail)
        with pytest.raises(StorageError, match="no space left") as caught:
            lake.write_part(tmp_path, rows((0, 0)), cluster="c")
    assert str(tmp_path) in str(caught.value)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_folder_that_is_a_file_is_reported(tmp_path: Path) -> None:
    root = tmp_path / "lake"
    root.write_text("")
    with pytest.raises(StorageError, match=str(root)):
        lake.write_part(root, rows((0, 0)), cluster="c")


def test_interactions_are_first_watches_in_time_order(tmp_path: Path) -> None:
    catalogue = Catalogue(
        table=pa.Table.from_pylist(
            [
                {"title_id": title, "name": title, "genres": [], "cast": [], "keywords": []}
                for title in ("t2", "t1")
            ],
            schema=CATALOGUE_SCHEMA,
        )
    )
    history = [
        ("b", "t1", "click", 1, None),
        ("b", "t1", "rate", 3, 4.0),
        ("a", "t2", "play", 3, 60.0),
        ("b", "t1", "rate", 9, 1.0),
        ("a", "t1", "rate", 2, 5.0),
        ("a", "gone", "play", 2, None),
        ("a", None, "search", 2, None),
    ]
    members, titles, types, times, values = zip(*history, strict=True)
    table = rows(
        *[(0, offset) for offset in range(len(history))],
        member_id=members,
        title_id=titles,
        type=types,
        event_time=times,
        value=values,
    )
    lake.write_part(tmp_path, table, cluster="c")
    found = lake.read_interactions(tmp_path, catalogue)
    assert (list(found.member_ids), list(found.title_ids)) == (["a", "b"], ["t2", "t1"])
    assert found.member.tolist() == [0, 1, 0]
    assert found.title.tolist() == [1, 1, 0]
    assert found.time.tolist() == [2, 3, 3]
    np.testing.assert_array_equal(found.value, np.array([5, 4, np.nan], dtype=np.float32))
    kinds = (found.member.dtype, found.title.dtype, found.time.dtype, found.value.dtype)
    assert kinds == (np.int32, np.int32, np.int64, np.float32)
    assert len(lake.read_interactions(tmp_path / "none", catalogue)) == 0


def test_small_parts_are_joined_and_nothing_is_read_twice(tmp_path: Path) -> None:
    for offset in range(lake.LEAST_RUN + 3):
        lake.write_part(tmp_path, rows((0, offset), (1, offset)), cluster="c")
    lake.write_part(tmp_path, rows((0, 1)), cluster="other")
    before = sorted(ids(tmp_path))
    kept = next(part.path for part in lake.parts(tmp_path) if (part.cluster, part.partition) == ("c", 0))
    copy = kept.read_bytes()
    assert lake.compact(tmp_path, "c", {0: lake.LEAST_RUN, 1: 5}) == lake.LEAST_RUN - 1
    assert sorted(ids(tmp_path)) == before
    kept.write_bytes(copy)
    assert sorted(ids(tmp_path)) == before
    assert len([part for part in lake.parts(tmp_path) if part.partition == 0]) == 1 + 3 + 1
    assert lake.discard_after(tmp_path, "c", {0: 7}) == lake.LEAST_RUN - 7 + 3


def test_large_parts_end_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lake, "LARGE_OFFSETS", 40)
    for offset in range(100):
        lake.write_part(tmp_path, rows((0, offset)), cluster="c")
    assert lake.compact(tmp_path, "c", {0: 100}) == 2 * 39
    assert [(part.first, part.last) for part in lake.parts(tmp_path)][:3] == [(0, 39), (40, 79), (80, 80)]
    assert lake.compact(tmp_path, "c", {0: 100}) == 0
