"""Served rows against the lake: late arrivals, doubt, missing rows, and rows that nothing explains."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from matinee.features.trust import served
from matinee.features.trust.consistency import ROWS, Recomputer, agreement, compare, equal
from matinee.schema import TIMESTAMP

SETTLE = 5
FEATURES = {"events": pa.int64(), "sum": pa.float64(), "values": pa.list_(pa.string())}
EVENTS = pa.schema(
    [
        ("member_id", pa.string()),
        ("event_time", TIMESTAMP),
        ("ingest_time", TIMESTAMP),
        ("partition", pa.int32()),
        ("offset", pa.int64()),
        ("value", pa.float64()),
    ]
)


def rows(events: pa.Table, asked: pa.Table) -> pa.Table:
    """Count, sum and list of a key's values with event time up to the row's, one row at a time."""
    answer = []
    held = [(e["member_id"], int(e["event_time"].timestamp() * 1e6), e["value"]) for e in events.to_pylist()]
    for row in asked.to_pylist():
        values = sorted(v for key, at, v in held if key == row["key"] and at <= row["time"])
        answer.append(
            {
                "member_id": row["key"],
                "events": len(values),
                "sum": float(sum(values)),
                "values": [str(value) for value in values],
                "event_timestamp": row["time"],
            }
        )
    schema = pa.schema([("member_id", pa.string()), *FEATURES.items(), ("event_timestamp", pa.int64())])
    table = pa.Table.from_pylist(answer, schema=schema)
    return table.set_column(4, "event_timestamp", table["event_timestamp"].cast(TIMESTAMP))


RECOMPUTER = Recomputer(
    view="test",
    key="member_id",
    features=list(FEATURES),
    columns=["value"],
    counted=lambda events: events,
    rows=rows,
)


def lake(*events: tuple[str, int, int, float]) -> pa.Table:
    """Events (member, event time, ingest time, value) of one partition, in the order of their offsets."""
    columns = list(zip(*events, strict=True)) or [(), (), (), ()]
    return pa.table(
        [
            pa.array(columns[0], pa.string()),
            pa.array(columns[1], pa.int64()).cast(TIMESTAMP),
            pa.array(columns[2], pa.int64()).cast(TIMESTAMP),
            pa.array(np.zeros(len(columns[0])), pa.int32()),
            pa.array(np.arange(len(columns[0])), pa.int64()),
            pa.array(columns[3], pa.float64()),
        ],
        schema=EVENTS,
    )


def read(key: str, at: int, time: int | None, values: list[float]) -> served.Served:
    held: dict[str, Any] = {}
    if time is not None:
        held = {"events": len(values), "sum": float(sum(values)), "values": [str(v) for v in sorted(values)]}
    return served.Served(
        request_id=f"{key}@{at}", view="test", key=key, read_time=at, event_timestamp=time, values=held
    )


def compared(reads: list[served.Served], events: pa.Table) -> Any:
    return compare(
        RECOMPUTER, served.table(reads, "member_id", FEATURES), events, settle_us=SETTLE, examples=3
    )


def shares(found: Any) -> list[float | None]:
    answer: list[float | None] = found.agreement["share"].to_pylist()
    return answer


def test_what_was_served_as_of_the_row_agrees() -> None:
    events = lake(("a", 10, 11, 1.0), ("b", 12, 13, 2.0), ("a", 20, 21, 3.0))
    found = compared([read("a", 50, 20, [1.0, 3.0]), read("b", 50, 12, [2.0])], events)
    assert (found.rows, found.compared, found.unsettled, found.behind) == (2, 2, 0, 0)
    assert shares(found) == [1.0, 1.0, 1.0]


def test_a_wrong_value_is_found_and_shown() -> None:
    events = lake(("a", 10, 11, 1.0), ("a", 20, 21, 3.0))
    wrong = read("a", 50, 20, [1.0, 4.0])
    found = compared([wrong, read("a", 60, 20, [1.0, 3.0])], events)
    assert found.agreement["compared"].to_pylist() == [2, 2, 2]
    assert shares(found) == [1.0, 0.5, 0.5]
    (example,) = json.loads(found.agreement["examples"][1].as_py())
    assert example == {
        "request_id": "a@50",
        "key": "a",
        "read_time": 50,
        "event_timestamp": 20,
        "served": 5.0,
        "recomputed": 4.0,
        "row": "there",
    }


def test_an_event_that_came_after_the_read_with_an_earlier_time_is_left_out() -> None:
    events = lake(("a", 10, 11, 1.0), ("a", 20, 21, 3.0), ("a", 15, 55, 7.0))
    before, after = read("a", 50, 20, [1.0, 3.0]), read("a", 70, 20, [1.0, 3.0, 7.0])
    found = compared([before, after], events)
    assert found.compared == 2
    assert shares(found) == [1.0, 1.0, 1.0]
    stuck = compared([read("a", 70, 20, [1.0, 3.0])], events)
    assert shares(stuck) == [0.0, 0.0, 0.0]


def test_an_event_that_had_just_come_leaves_doubt_unless_a_later_one_was_applied() -> None:
    events = lake(("a", 20, 21, 3.0), ("a", 15, 48, 7.0))
    doubtful = compared([read("a", 50, 20, [3.0])], events)
    assert (doubtful.compared, doubtful.unsettled) == (0, 1)
    events = lake(("a", 15, 48, 7.0), ("a", 20, 49, 3.0))
    proven = compared([read("a", 50, 20, [3.0])], events)
    assert (proven.compared, proven.unsettled) == (1, 0)
    assert shares(proven) == [0.0, 0.0, 0.0]


def test_an_old_row_is_behind_not_wrong() -> None:
    events = lake(("a", 10, 11, 1.0), ("a", 20, 21, 3.0))
    found = compared([read("a", 50, 10, [1.0]), read("a", 23, 10, [1.0])], events)
    assert (found.compared, found.behind) == (2, 1)
    assert shares(found) == [1.0, 1.0, 1.0]


def test_a_row_that_is_missing_is_wrong_only_where_events_were_there() -> None:
    events = lake(("a", 10, 11, 1.0), ("b", 48, 49, 1.0), ("c", 60, 61, 1.0))
    reads = [read(key, 50, None, []) for key in "abcd"]
    found = compared(reads, events)
    assert (found.compared, found.unsettled, found.empty) == (1, 1, 2)
    assert shares(found) == [0.0, 0.0, 0.0]
    assert json.loads(found.agreement["examples"][0].as_py())[0]["row"] == "missing"


def test_a_row_of_a_time_that_no_event_has_is_wrong() -> None:
    found = compared([read("a", 50, 12, [1.0]), read("x", 50, 3, [])], lake(("a", 10, 11, 1.0)))
    assert (found.compared, shares(found)) == (2, [0.0, 0.0, 0.0])
    assert json.loads(found.agreement["examples"][0].as_py())[0]["row"] == "unexplained"


def test_nothing_served_and_nothing_in_the_lake() -> None:
    assert shares(compared([], lake())) == [None, None, None]
    assert compared([read("a", 50, None, [])], lake()).empty == 1


events_of_some_keys = st.lists(
    st.tuples(st.sampled_from("ab"), st.integers(0, 40), st.integers(0, 60), st.integers(-3, 3)), max_size=14
)


@given(events_of_some_keys, st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 80)), max_size=8))
def test_a_store_that_applies_events_as_they_come_never_disagrees(
    drawn: list[tuple[str, int, int, int]], asked: list[tuple[str, int]]
) -> None:
    """Whatever order events come in, and however many of the last `SETTLE` a read does not see yet."""
    drawn = sorted(drawn, key=lambda event: event[2])
    events = lake(*((key, at, came, float(value)) for key, at, came, value in drawn))
    reads = []
    for number, (key, at) in enumerate(asked):
        known = [e for e in drawn if e[0] == key and e[2] <= at - (number % (SETTLE + 1))]
        time = max((e[1] for e in known), default=None)
        reads.append(read(key, at, time, [float(e[3]) for e in known]))
    found = compared(reads, events)
    assert found.compared + found.unsettled + found.empty == len(reads)
    assert found.agreement["equal"].to_pylist() == [found.compared] * 3


@pytest.mark.parametrize(
    ("left", "right", "kind", "expected"),
    [
        ([1.0, None, float("nan"), 2.0], [1.0, None, None, 2.5], pa.float64(), [True, True, True, False]),
        ([["a"], None, ["a", "b"], []], [["a"], [], ["a", "c"], ["x"]], pa.list_(pa.string()), [1, 1, 0, 0]),
        ([[1.0, None], [2.0]], [[1.0, float("nan")], [3.0]], pa.list_(pa.float64()), [True, False]),
        (["x", None], ["x", "y"], pa.string(), [True, False]),
    ],
)
def test_equality_is_to_the_bit_and_knows_nulls(left: Any, right: Any, kind: Any, expected: Any) -> None:
    a, b = pa.chunked_array([left], kind), pa.chunked_array([right], kind)
    assert equal(a, b).tolist() == [bool(each) for each in expected]
    assert equal(a.slice(1), b.slice(1)).tolist() == [bool(each) for each in expected[1:]]


def test_agreement_of_a_long_list_shows_its_end() -> None:
    reads = served.table([read("a", 5, 1, [])], "member_id", {"values": pa.list_(pa.string())})
    reads = reads.set_column(4, "values", pa.array([[str(i) for i in range(30)]], pa.list_(pa.string())))
    other = pa.table({"values": pa.array([["0"]], pa.list_(pa.string()))})
    (row,) = agreement(reads, other, ["values"], key="member_id").to_pylist()
    (example,) = json.loads(row["examples"])
    assert example["served"][0] == "…"
    assert example["served"][-1] == "29"


def test_rows_asked_for_are_distinct() -> None:
    asked: list[pa.Table] = []

    def seen(events: pa.Table, wanted: pa.Table) -> pa.Table:
        asked.append(wanted)
        return rows(events, wanted)

    recomputer = Recomputer(
        view="test",
        key="member_id",
        features=list(FEATURES),
        columns=[],
        counted=lambda events: events,
        rows=seen,
    )
    reads = served.table([read("a", at, 10, [1.0]) for at in (50, 51, 52)], "member_id", FEATURES)
    compare(recomputer, reads, lake(("a", 10, 11, 1.0)), settle_us=SETTLE)
    assert [table.num_rows for table in asked] == [1]
    assert asked[0].schema == ROWS
