from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from matinee.errors import InvalidInput, StorageError
from matinee.monitoring import exposures
from matinee.monitoring.exposures import EXPOSURE_SCHEMA, ExposureLake, Seen, parse

Message = Callable[..., bytes]


def rows(message: Message, offsets: range, partition: int = 0) -> list[dict[str, Any]]:
    return [parse(message(offset)) | {"partition": partition, "offset": offset} for offset in offsets]


def test_parse_keeps_everything(message: Message, tmp_path: Path) -> None:
    lake = ExposureLake(tmp_path)
    lake.append(rows(message, range(1)), cluster="c", offsets={0: 1})
    (row,) = lake.read().to_pylist()
    assert row["exposure_id"] == "r0"
    assert row["features"] == [("plays_1h", 3.0), ("affinity[Drama]", None)]
    assert [title["score"] for title in row["titles"]] == [2.0, 1.0]
    assert row["time"].timestamp() == 1_700_000_000
    assert lake.read().schema.equals(EXPOSURE_SCHEMA)


def test_rows_of_a_page_are_kept_beside_exposures_that_have_none(message: Message, tmp_path: Path) -> None:
    """Parts that an earlier release wrote, without these columns, are read as well."""
    page = {"rows": [{"kind": "genre", "because": "Drama", "first": 0, "count": 2}], "fallback": "cached"}
    earlier = EXPOSURE_SCHEMA
    for name in ("fallback", "made_at", "rows"):
        earlier = earlier.remove(earlier.get_field_index(name))
    lake = ExposureLake(tmp_path)
    lake.append(rows(message, range(1)), cluster="c", offsets={0: 1})
    (path,) = tmp_path.rglob("*.parquet")
    old = pq.read_table(path, schema=earlier)
    pq.write_table(old.replace_schema_metadata(pq.read_schema(path).metadata), path)
    found = parse(message(1, made_at=1_600_000_000_000_000, **page)) | {"partition": 0, "offset": 1}
    lake.append([found], cluster="c", offsets={0: 2})
    old, new = ExposureLake(tmp_path).read().to_pylist()
    assert (old["fallback"], old["made_at"], old["rows"]) == (None, None, None)
    assert {name: new[name] for name in page} == page
    assert new["made_at"].timestamp() == 1_600_000_000


def test_titles_of_earlier_releases_are_read_one_by_one(message: Message) -> None:
    told = [{"title_id": "t1", "position": 0, "score": 2.0}, {"title_id": "t2", "position": 1, "score": None}]
    assert parse(message(titles=told))["titles"] == told
    columns = {"title_id": ["t1", "t2"], "score": [2.0, None]}
    assert parse(message(titles=columns))["titles"] == told


@pytest.mark.parametrize(
    "change",
    [
        {"fallback": 3},
        {"rows": [{"kind": "genre"}]},
        {"member_id": 7},
        {"time": "yesterday"},
        {"titles": None},
        {"titles": [{"title_id": "t"}]},
        {"titles": {"title_id": ["t"]}},
        {"titles": {"title_id": ["t", "u"], "score": [1.0]}},
        {"titles": {"title_id": ["t"], "score": ["high"]}},
        {"features": []},
        {"features": {"a": "high"}},
        {"features": {"a": True}},
        {"latency_ms": "slow"},
    ],
)
def test_parse_refuses(message: Message, change: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match="exposure"):
        parse(message(**change))


@given(st.binary(max_size=30) | st.sampled_from([b"[]", b"null", b"3", b'"x"', b"{}", b"\xff"]))
def test_parse_refuses_anything_else_without_another_error(payload: bytes) -> None:
    with pytest.raises(InvalidInput):
        parse(payload)


def test_offsets_come_back_with_the_rows(message: Message, tmp_path: Path) -> None:
    lake = ExposureLake(tmp_path)
    assert lake.offsets("c") == {}
    lake.append(rows(message, range(3)), cluster="c", offsets={0: 3, 1: 0})
    lake.append([], cluster="c", offsets={0: 3, 1: 9})
    again = ExposureLake(tmp_path)
    assert again.offsets("c") == {0: 3, 1: 9}
    assert again.total == again.read().num_rows == 3


def test_another_cluster_starts_anew_and_adds(message: Message, tmp_path: Path) -> None:
    lake = ExposureLake(tmp_path)
    lake.append(rows(message, range(3)), cluster="first", offsets={0: 3})
    lake = ExposureLake(tmp_path)
    assert lake.offsets("second") == {}
    lake.append(rows(message, range(2)), cluster="second", offsets={0: 2})
    assert ExposureLake(tmp_path).offsets("second") == {0: 2}
    assert ExposureLake(tmp_path).total == 5


def test_a_writer_that_died_before_its_commit_left_nothing(
    message: Message, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = ExposureLake(tmp_path)
    lake.append(rows(message, range(3)), cluster="c", offsets={0: 3})

    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(exposures.Path, "hardlink_to", die)
        patch.setattr(exposures.Path, "unlink", lambda *_: None)
        with pytest.raises(KeyboardInterrupt):
            lake.append(rows(message, range(3, 6)), cluster="c", offsets={0: 6})
    again = ExposureLake(tmp_path)
    assert again.offsets("c") == {0: 3}
    again.append(rows(message, range(3, 6)), cluster="c", offsets={0: 6})
    assert again.read()["offset"].to_pylist() == [0, 1, 2, 3, 4, 5]


def test_of_two_writers_one_is_refused(message: Message, tmp_path: Path) -> None:
    first, second = ExposureLake(tmp_path), ExposureLake(tmp_path)
    first.append(rows(message, range(3)), cluster="c", offsets={0: 3})
    with pytest.raises(StorageError, match="another monitor"):
        second.append(rows(message, range(3)), cluster="c", offsets={0: 3})
    assert ExposureLake(tmp_path).total == 3
    assert not list(tmp_path.rglob("*.draft"))


def test_tail_and_order_over_folders(
    message: Message, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exposures, "PARTS_A_FOLDER", 2)
    lake = ExposureLake(tmp_path)
    for start in range(0, 10, 2):
        lake.append(rows(message, range(start, start + 2)), cluster="c", offsets={0: start + 2})
    again = ExposureLake(tmp_path)
    assert again.read()["offset"].to_pylist() == list(range(10))
    assert again.tail(3)["offset"].to_pylist() == [6, 7, 8, 9]
    monkeypatch.setattr(exposures, "TAIL_PARTS", 3)
    assert again.tail(100)["offset"].to_pylist() == list(range(4, 10))
    assert len(list(tmp_path.iterdir())) == 3


def test_no_room_is_said(message: Message, tmp_path: Path) -> None:
    (tmp_path / "lake").write_text("in the way")
    with pytest.raises(StorageError, match="exposures part"):
        ExposureLake(tmp_path / "lake").append(rows(message, range(1)), cluster="c", offsets={0: 1})


def test_the_wire_form_may_carry_more(message: Message) -> None:
    assert parse(message(region="eu"))["exposure_id"] == "r0"
    assert orjson.loads(message())["answer"] == "personal"


def test_seen_forgets_only_the_oldest() -> None:
    seen = Seen(3)
    assert [seen.first(name) for name in "abca"] == [True, True, True, False]
    assert seen.first("d")
    assert not seen.first("c")
    assert seen.first("a")
