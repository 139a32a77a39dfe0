"""The plain case of validation answers what the validator answers, or nothing."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matinee.events.validate import Validator

NOW = 1_780_000_000_000_000
VALIDATOR = Validator(titles=["t1", "t2"], future_tolerance_s=300, max_bytes=2_000)

GOOD = {
    "event_id": "e1",
    "type": "play",
    "member_id": "m1",
    "title_id": "t1",
    "event_time": "2026-05-01T10:00:00.123456Z",
    "value": 12.5,
}
ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 5),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(max_size=5),
    st.sampled_from(
        ["rate", "search", "t2", "2026-05-01T10:00:00Z", "2026-02-30T10:00:00Z", "2026-05-01 10:00:00+02:00"]
    ),
    st.just("x" * 300),
    st.just({}),
    st.just(["a"]),
    st.just(NOW - 5),
    st.just(NOW + 10**12),
)
FIELDS = st.sampled_from(
    [
        *GOOD,
        "schema_version",
        "ingest_time",
        "session",
        "surface",
        "position",
        "request_id",
        "cell",
        "context",
        "unknown",
    ]
)
RECORD = st.dictionaries(FIELDS, ODD, max_size=2).map(lambda changed: {**GOOD, **changed})
PAYLOAD = st.one_of(
    RECORD.map(lambda record: json.dumps(record).encode()),
    RECORD.map(lambda record: json.dumps(record, ensure_ascii=False).encode()),
    st.just(json.dumps(GOOD).encode()),
)
BROKEN = st.one_of(
    st.binary(max_size=20),
    st.sampled_from(
        [
            b"",
            b"{}",
            b"[]",
            b'{"event_id":"a",\n"type":"play"}',
            json.dumps(GOOD).encode() + b"\n" + json.dumps(GOOD).encode(),
            json.dumps(GOOD).encode() + b",{}",
            json.dumps(GOOD).encode()[:-1] + b', "event_id": "e2"}',
            json.dumps(GOOD).encode()[:-1] + b', "value": NaN}',
            json.dumps(GOOD).encode().replace(b"12.5", b"1e999"),
            json.dumps(GOOD).encode().replace(b"12.5", b"Infinity"),
            json.dumps(GOOD).encode().replace(b"m1", b"\xff\xfe"),
            json.dumps(GOOD).encode().replace(b"m1", b"\xed\xa0\x80"),
            json.dumps(GOOD).encode().replace(b"m1", rb"\ud800"),
            json.dumps(GOOD).encode().replace(b"m1", b"m\t1"),
            b" " + json.dumps(GOOD).encode() + b" ",
            b"\xef\xbb\xbf" + json.dumps(GOOD).encode(),
            b"x" * 3_000,
        ]
    ),
)


@settings(max_examples=400)
@given(st.lists(st.one_of(PAYLOAD, PAYLOAD, BROKEN), min_size=1, max_size=6))
def test_what_it_accepts_is_what_the_validator_reads(payloads):
    plain = VALIDATOR._plain(payloads, NOW)
    events, rows, rejected = VALIDATOR._each(payloads, NOW, 0)
    if plain is not None:
        assert not rejected
        assert plain.equals(events)
    parsed = VALIDATOR.parse(payloads, now=NOW)
    assert parsed.events.equals(events)
    assert parsed.rows.tolist() == rows.tolist()
    assert parsed.rejected == rejected


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"event_time": NOW - 1, "ingest_time": None},
        {"event_time": "2026-05-01T10:00:00Z", "ingest_time": "2026-05-01T10:00:01.500Z"},
        {"type": "rate", "value": 4, "position": 7, "session": "s", "schema_version": 1},
        {"type": "search", "title_id": None, "value": None, "member_id": "mémbre"},
    ],
)
def test_plain_events_take_the_fast_way(changed):
    payload = json.dumps({**GOOD, **changed}, ensure_ascii=False).encode()
    plain = VALIDATOR._plain([payload] * 3, NOW)
    assert plain is not None
    assert plain.equals(VALIDATOR._each([payload] * 3, NOW, 0)[0])


@pytest.mark.parametrize(
    "changed",
    [
        {"event_id": ""},
        {"event_id": "x" * 257},
        {"member_id": None},
        {"type": "dance"},
        {"title_id": "t3"},
        {"title_id": ""},
        {"title_id": None},
        {"event_time": NOW + 301_000_000},
        {"event_time": -1},
        {"event_time": "2026-05-01T10:00:00"},
        {"ingest_time": NOW + 301_000_000},
        {"schema_version": 2},
        {"position": -1},
        {"position": 2**31},
        {"type": "rate", "value": None},
        {"type": "rate", "value": 0},
        {"type": "rate", "value": 10.5},
        {"type": "stop", "value": -0.5},
        {"surface": "x" * 257},
        {"colour": "red"},
    ],
    ids=str,
)
def test_what_a_rule_refuses_is_not_plain(changed):
    good, bad = (json.dumps(record).encode() for record in (GOOD, {**GOOD, **changed}))
    assert VALIDATOR._plain([good, bad], NOW) is None
    (rejected,) = VALIDATOR.parse([good, bad], now=NOW).rejected
    assert rejected.row == 1


def test_a_bad_payload_costs_its_neighbours_nothing():
    good = json.dumps(GOOD).encode()
    parsed = VALIDATOR.parse([good] * 9_500 + [b"{"] + [good] * 10, now=NOW)
    assert [rejected.row for rejected in parsed.rejected] == [9_500]
    assert parsed.rows.tolist() == [*range(9_500), *range(9_501, 9_511)]
    assert parsed.events.num_rows == 9_510
