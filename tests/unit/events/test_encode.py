from __future__ import annotations

import orjson
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matinee.errors import InvalidInput
from matinee.events.encode import encode, encode_event, rfc3339
from matinee.events.validate import Validator
from matinee.schema import EVENT_SCHEMA, Event, EventType

NOW = 1_790_000_000_000_000
VALIDATOR = Validator(titles=None, future_tolerance_s=0, max_bytes=1 << 20)

texts = st.text(st.characters(codec="utf-8"), max_size=20)
ids = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
times = st.integers(0, NOW)
scalars = st.one_of(st.none(), st.booleans(), st.integers(-(2**53), 2**53), texts)


@st.composite
def events(draw: st.DrawFn) -> Event:
    kind = draw(st.sampled_from(list(EventType)))
    value: float | None = draw(st.none() | st.floats(0, 1e9))
    if kind is EventType.RATE:
        value = draw(st.floats(0.5, 10))
    return Event(
        event_id=draw(ids),
        type=kind,
        member_id=draw(ids),
        event_time=draw(times),
        title_id=draw(ids) if kind is not EventType.SEARCH else draw(st.none() | ids),
        ingest_time=draw(times),
        session=draw(st.none() | texts),
        surface=draw(st.none() | texts),
        position=draw(st.none() | st.integers(0, 2**31 - 1)),
        value=value,
        request_id=draw(st.none() | texts),
        model_version=draw(st.none() | texts),
        cell=draw(st.none() | texts),
        context=draw(st.dictionaries(texts, scalars | st.lists(scalars, max_size=2), max_size=3)),
    )


def rows(batch: list[Event]) -> pa.Table:
    records = [
        {
            **{name: getattr(event, name) for name in EVENT_SCHEMA.names},
            "type": str(event.type),
            "context": orjson.dumps(event.context).decode() if event.context else None,
        }
        for event in batch
    ]
    return pa.Table.from_pylist(records, schema=EVENT_SCHEMA)


@settings(max_examples=80)
@given(st.lists(events(), max_size=5))
def test_what_is_written_is_read_back(batch: list[Event]) -> None:
    table = rows(batch)
    for payloads in (encode(table), [encode_event(event) for event in batch]):
        parsed = VALIDATOR.parse(payloads, now=NOW)
        assert not parsed.rejected, parsed.rejected
        assert parsed.events.equals(table)


def test_the_wire_form() -> None:
    event = Event(event_id="e", type=EventType.PLAY, member_id="m", event_time=1, title_id="t")
    assert orjson.loads(encode_event(event)) == {
        "schema_version": 1,
        "event_id": "e",
        "type": "play",
        "member_id": "m",
        "title_id": "t",
        "event_time": "1970-01-01T00:00:00.000001Z",
    }


def test_the_years_of_the_wire_form() -> None:
    assert rfc3339(-62_135_596_800_000_000) == "0001-01-01T00:00:00.000000Z"
    assert rfc3339(253_402_300_799_999_999) == "9999-12-31T23:59:59.999999Z"
    with pytest.raises(InvalidInput, match="253402300800000000"):
        rfc3339(253_402_300_800_000_000)


def test_a_context_json_cannot_hold_is_refused() -> None:
    event = Event(event_id="e", type=EventType.SEARCH, member_id="m", event_time=1, context={"a": object()})
    with pytest.raises(InvalidInput, match="'e'"):
        encode_event(event)
