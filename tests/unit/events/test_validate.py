from __future__ import annotations

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matinee.events.validate import Validator
from matinee.schema import EVENT_SCHEMA

NOW = 1_790_000_000_000_000
VALIDATOR = Validator(titles={"t1", "t2"}, future_tolerance_s=300.0, max_bytes=4096)
GOOD = {
    "event_id": "e1",
    "type": "play",
    "member_id": "m1",
    "title_id": "t1",
    "event_time": "2026-09-21T12:00:00Z",
}


def payload(**changes: object) -> bytes:
    record = {**GOOD, **changes}
    return orjson.dumps({name: value for name, value in record.items() if value is not ...})


def row(**changes: object) -> dict[str, object]:
    parsed = VALIDATOR.parse([payload(**changes)], now=NOW)
    assert not parsed.rejected, parsed.rejected
    (found,) = parsed.events.to_pylist()
    return found


def reason(body: bytes) -> str:
    parsed = VALIDATOR.parse([body], now=NOW)
    assert parsed.events.num_rows == 0
    (rejected,) = parsed.rejected
    assert (rejected.row, rejected.payload) == (0, body)
    return rejected.reason


def test_a_good_event_gets_defaults() -> None:
    found = row()
    assert found["schema_version"] == 1
    assert found["ingest_time"].timestamp() == NOW / 1e6
    assert found["context"] is None


@pytest.mark.parametrize(
    ("given", "microseconds"),
    [
        (1_700_000_000_123_456, 1_700_000_000_123_456),
        (0, 0),
        ("2023-11-14T22:13:20.123456Z", 1_700_000_000_123_456),
        ("2023-11-14t22:13:20.123456789z", 1_700_000_000_123_456),
        ("2023-11-15T00:43:20.5+02:30", 1_700_000_000_500_000),
        ("2023-11-14 17:13:20-05:00", 1_700_000_000_000_000),
        ("2026-09-21T14:18:20Z", NOW + 300_000_000),
    ],
)
def test_times_are_read_in_every_accepted_form(given: object, microseconds: int) -> None:
    parsed = VALIDATOR.parse([payload(event_time=given, ingest_time=given)], now=NOW)
    assert not parsed.rejected, parsed.rejected
    for name in ("event_time", "ingest_time"):
        assert parsed.events[name].cast("int64").to_pylist() == [microseconds]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"event_id": ...}, ["event_id is missing", "1 to 256 characters"]),
        ({"event_id": ""}, ['event_id is ""', "1 to 256"]),
        ({"event_id": 7}, ["event_id is 7", "text"]),
        ({"member_id": "x" * 257}, ["member_id is", "257 characters", "1 to 256"]),
        ({"member_id": None}, ["member_id is missing"]),
        ({"type": "watch"}, ['type is "watch"', "impression, click, play, stop, rate, search, add_to_list"]),
        ({"type": ["play"]}, ['type is ["play"]', "accepted"]),
        ({"type": ...}, ["type is null", "accepted"]),
        ({"title_id": ...}, ["title_id is missing", "play"]),
        ({"title_id": "t9"}, ['title_id is "t9"', "2 titles are accepted"]),
        ({"title_id": ""}, ["title_id is ''"]),
        ({"type": "search", "title_id": "t9"}, ['title_id is "t9"']),
        ({"event_time": ...}, ["event_time is null", "RFC 3339"]),
        ({"event_time": "2026-09-21"}, ['event_time is "2026-09-21"', "RFC 3339"]),
        ({"event_time": "2026-09-21T12:00:00"}, ["offset"]),
        ({"event_time": "2026-13-21T12:00:00Z"}, ["month"]),
        ({"event_time": "2026-W38-1T12:00:00Z"}, ["RFC 3339"]),
        ({"event_time": 1.5e15}, ["event_time is 1500000000000000.0", "int microseconds"]),
        ({"event_time": True}, ["event_time is true"]),
        ({"event_time": -1}, ["event_time is -1", "since 1970"]),
        ({"event_time": "1969-12-31T23:59:59Z"}, ["since 1970"]),
        ({"event_time": NOW + 300_000_001}, ["in the future", "300 s ahead", "2026-09-21T"]),
        ({"event_time": 2**63}, ["in the future"]),
        ({"ingest_time": 2**64 - 1}, ["ingest_time is 18446744073709551615", "in the future"]),
        ({"value": "4"}, ['value is "4"', "seconds"]),
        ({"value": -0.1}, ["value is -0.1", "seconds from 0 up"]),
        ({"value": True}, ["value is true"]),
        ({"type": "rate"}, ["value is missing", "stars above 0 and up to 10"]),
        ({"type": "rate", "value": 0}, ["value is 0", "stars"]),
        ({"type": "rate", "value": 10.5}, ["value is 10.5", "stars"]),
        ({"position": -1}, ["position is -1", "0 to 2147483647"]),
        ({"position": 2**31}, ["position is 2147483648"]),
        ({"position": 1.0}, ["position is 1.0"]),
        ({"schema_version": 2}, ["schema_version is 2", "1 is accepted"]),
        ({"schema_version": True}, ["schema_version is true"]),
        ({"context": "text"}, ['context is "text"', "JSON object"]),
        ({"session": 4}, ["session is 4", "at most 256"]),
        ({"surface": "s" * 257}, ["surface is", "257 characters"]),
        ({"extra": 1}, ['field "extra" is unknown', "event_id"]),
    ],
)
def test_a_bad_event_is_told_field_value_and_what_is_accepted(
    changes: dict[str, object], said: list[str]
) -> None:
    given = reason(payload(**changes))
    assert all(part in given for part in said), given


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"[]", "payload is []"),
        (b"3", "payload is 3"),
        (b"{}{}", "not JSON"),
        (b'{"a":NaN}', "not JSON"),
        (b'{"event_id":"\xff"}', "not UTF-8: byte 13 is 0xff"),
        (b'{"event_id":"\\ud800"}', "not JSON"),
        (b"[" * 2000, "not JSON"),
        (b" " * 4097, "4097 bytes; at most 4096"),
        (payload(context=...)[:-1] + b',"context":' + b'{"a":' * 400 + b"1" + b"}" * 401, "nests too deep"),
    ],
)
def test_a_payload_that_is_no_json_object_is_told_so(body: bytes, said: str) -> None:
    assert said in reason(body)


def test_search_needs_no_title_and_any_title_goes_without_a_catalogue() -> None:
    assert row(type="search", title_id=...)["title_id"] is None
    anything = Validator(titles=None, future_tolerance_s=0, max_bytes=4096)
    assert anything.parse([payload(title_id="t9")], now=NOW).events.num_rows == 1


def test_numbers_and_context_are_kept() -> None:
    found = row(type="rate", value=4, position=0, context={"a": {"b": [1, None]}}, session="")
    assert (found["value"], found["position"], found["session"]) == (4.0, 0, "")
    assert found["context"] == '{"a":{"b":[1,null]}}'


def test_an_empty_batch_is_an_empty_table() -> None:
    parsed = VALIDATOR.parse([], now=NOW)
    assert parsed.events.schema.equals(EVENT_SCHEMA)
    assert parsed.rows.dtype == np.int64
    assert not parsed.rejected


SCRAPS = st.one_of(
    st.binary(max_size=60),
    st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(), st.text()),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=5,
    ).map(orjson.dumps),
    st.dictionaries(
        st.sampled_from(EVENT_SCHEMA.names),
        st.one_of(st.none(), st.integers(-5, 2**64 - 1), st.floats(), st.text(max_size=4)),
    ).map(lambda changes: payload(**changes)),
)


@settings(max_examples=400)
@given(st.lists(st.one_of(st.just(None), SCRAPS), max_size=8))
def test_no_bytes_crash_it_and_good_neighbours_stay(batch: list[bytes | None]) -> None:
    bodies = [payload(event_id=f"good-{i}") if body is None else body for i, body in enumerate(batch)]
    parsed = VALIDATOR.parse(bodies, now=NOW)
    refused = [item.row for item in parsed.rejected]
    assert sorted([*parsed.rows.tolist(), *refused]) == list(range(len(bodies)))
    assert parsed.rows.tolist() == sorted(parsed.rows.tolist())
    assert refused == sorted(refused)
    assert all(item.reason and item.payload == bodies[item.row] for item in parsed.rejected)
    ids = dict(zip(parsed.rows.tolist(), parsed.events["event_id"].to_pylist(), strict=True))
    assert all(ids[i] == f"good-{i}" for i, body in enumerate(batch) if body is None)
    assert parsed.events["member_id"].null_count == parsed.events["event_time"].null_count == 0
