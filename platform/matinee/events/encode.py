"""Events to their wire form: one JSON object an event, fields named as in `EVENT_SCHEMA`, nulls left out."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from matinee.errors import InvalidInput
from matinee.schema import Event

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TIMES = ("event_time", "ingest_time")


def encode(table: pa.Table) -> list[bytes]:
    """One JSON object a row of `EVENT_SCHEMA`, in row order.

    Times become RFC 3339 UTC text with microseconds; `context` text becomes a JSON object.
    """
    for name in _TIMES:
        column = table.schema.get_field_index(name)
        text = pc.replace_substring(table[name].cast(pa.string()), " ", "T")
        table = table.set_column(column, name, text)
    payloads = []
    for row in table.to_pylist():
        if row["context"] is not None:
            row["context"] = orjson.Fragment(row["context"])
        payloads.append(orjson.dumps({name: value for name, value in row.items() if value is not None}))
    return payloads


def encode_event(event: Event) -> bytes:
    """One event as JSON; an empty context is left out.

    Raises:
        InvalidInput: the context holds what JSON cannot, or a time is outside the years 1 to 9999.
    """
    record: dict[str, object] = {
        "schema_version": event.schema_version,
        "event_id": event.event_id,
        "type": event.type,
        "member_id": event.member_id,
        "title_id": event.title_id,
        "event_time": rfc3339(event.event_time),
        "ingest_time": None if event.ingest_time is None else rfc3339(event.ingest_time),
        "session": event.session,
        "surface": event.surface,
        "position": event.position,
        "value": event.value,
        "request_id": event.request_id,
        "model_version": event.model_version,
        "cell": event.cell,
        "context": dict(event.context) or None,
    }
    try:
        return orjson.dumps({name: value for name, value in record.items() if value is not None})
    except orjson.JSONEncodeError as failure:
        raise InvalidInput(f"event {event.event_id!r} cannot be written as JSON: {failure}") from None


def rfc3339(time: int) -> str:
    """UTC text with microseconds, ending in Z, of int microseconds since the epoch.

    Raises:
        InvalidInput: the time is outside the years 1 to 9999.
    """
    try:
        moment = _EPOCH + timedelta(microseconds=time)
    except OverflowError:
        raise InvalidInput(f"time {time} is outside the years 1 to 9999") from None
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")
