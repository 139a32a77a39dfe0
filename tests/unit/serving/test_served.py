"""Reads of features leave the request's path at once and end up as rows, or are counted as lost."""

from __future__ import annotations

import threading
import uuid
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from matinee.errors import InvalidInput, StorageError
from matinee.features.trust import served
from matinee.serving.served import ServedLog

NOW = 1_700_000_000_000_000
DAY = 86_400_000_000
VIEWS = {
    "activity": ("member_id", {"plays": pa.int64(), "titles": pa.list_(pa.string())}),
    "affinity": ("member_id", {"weight": pa.float64()}),
}
READS = {"activity": (NOW, {"plays": 3, "titles": ["t1"]}), "affinity": (None, {})}


def log(root: Path, **given: Any) -> ServedLog:
    return ServedLog(root, VIEWS, **({"share": 1.0, "keep_days": 100_000, "part_s": 60.0} | given))


def test_a_request_becomes_a_row_of_each_view_it_read(tmp_path: Path) -> None:
    one = log(tmp_path)
    one.put("0" * 32, "m1", NOW + 5, READS)
    one.put("1" * 32, "m2", NOW + 4, READS | {"unknown": (NOW, {"x": 1})})
    one.close()
    assert (one.kept, one.dropped) == (2, 0)
    assert served.views(tmp_path) == ["activity", "affinity"]
    activity = served.read(tmp_path, "activity", rows=10)
    assert activity is not None
    assert activity.drop_columns(["read_time", "event_timestamp"]).to_pylist() == [
        {"request_id": "1" * 32, "member_id": "m2", "plays": 3, "titles": ["t1"]},
        {"request_id": "0" * 32, "member_id": "m1", "plays": 3, "titles": ["t1"]},
    ]
    affinity = served.read(tmp_path, "affinity", rows=1)
    assert affinity is not None
    assert affinity["event_timestamp"].to_pylist() == [None]
    assert affinity["weight"].to_pylist() == [None]


def test_the_sample_is_the_share_asked_for_and_goes_by_the_request(tmp_path: Path) -> None:
    odd = 0x9E3779B97F4A7C15F39CC0605CEDC835
    ids = [str(uuid.UUID(int=number * odd % (1 << 128))) for number in range(4000)]
    tenth, all_of_them, none = log(tmp_path, share=0.1), log(tmp_path), log(tmp_path, share=0.0)
    kept = [request_id for request_id in ids if tenth.takes(request_id)]
    assert 300 < len(kept) < 500
    assert kept == [request_id for request_id in ids if tenth.takes(request_id)]
    assert all(all_of_them.takes(request_id) for request_id in ids)
    assert not any(none.takes(request_id) for request_id in ids)
    for each in (tenth, all_of_them, none):
        each.close()


def test_a_full_queue_drops_and_counts(tmp_path: Path) -> None:
    one = log(tmp_path, capacity=2)
    for _ in range(5):
        one.put("0" * 32, "m1", NOW, READS)
    assert one.dropped == 3
    one.close()
    assert one.kept == 2


def test_a_folder_that_cannot_be_written_costs_the_reads_alone(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    one = log(tmp_path / "file")
    one.put("0" * 32, "m1", NOW, READS)
    one.close()
    assert (one.kept, one.dropped) == (0, 1)
    with pytest.raises(StorageError, match="served features"):
        served.write(tmp_path / "file", "activity", rows_of(1))


def rows_of(count: int, at: int = NOW, plays: Any = 1, kind: pa.DataType | None = None) -> pa.Table:
    rows = [
        served.Served(
            request_id=str(number),
            view="activity",
            key=f"m{number}",
            read_time=at + number,
            event_timestamp=at,
            values={"plays": plays},
        )
        for number in range(count)
    ]
    return served.table(rows, "member_id", {"plays": kind or pa.int64()})


def test_the_last_rows_are_read_in_the_order_of_the_reads(tmp_path: Path) -> None:
    for start in (200, 0, 100):
        served.write(tmp_path, "activity", rows_of(10, NOW + start))
    last = served.read(tmp_path, "activity", rows=15)
    assert last is not None
    times = [value - NOW for value in last["read_time"].cast(pa.int64()).to_pylist()]
    assert times == [*range(105, 110), *range(200, 210)]
    before = served.read(tmp_path, "activity", rows=3, until=NOW + 102)
    assert before is not None
    assert [value - NOW for value in before["read_time"].cast(pa.int64()).to_pylist()] == [100, 101, 102]
    assert served.read(tmp_path, "activity", rows=3, until=NOW - 1) is None
    assert served.read(tmp_path, "nothing", rows=3) is None


def test_parts_of_another_type_are_not_mixed_with_the_newest(tmp_path: Path) -> None:
    served.write(tmp_path, "activity", rows_of(2, NOW, "many", pa.string()))
    served.write(tmp_path, "activity", rows_of(3, NOW + 100))
    found = served.read(tmp_path, "activity", rows=100)
    assert found is not None
    assert found["plays"].to_pylist() == [1, 1, 1]


def test_old_days_go(tmp_path: Path) -> None:
    served.write(tmp_path, "activity", rows_of(1, NOW))
    served.write(tmp_path, "activity", rows_of(1, NOW + 3 * DAY))
    assert served.prune(tmp_path, NOW + 2 * DAY) == 1
    kept = served.read(tmp_path, "activity", rows=10)
    assert kept is not None
    assert kept.num_rows == 1


def test_a_feature_may_not_be_called_like_a_column_of_the_log(tmp_path: Path) -> None:
    before = threading.enumerate()
    with pytest.raises(InvalidInput, match="read_time"):
        ServedLog(tmp_path, {"v": ("member_id", {"read_time": pa.int64()})}, share=1, keep_days=1)
    assert threading.enumerate() == before
