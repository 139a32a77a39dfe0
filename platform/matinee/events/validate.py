"""The rules an event must keep to, at every door. Pure: bytes in, good events and reasons out.

Nothing is repaired and nothing is dropped in silence: a payload is either a row of `Parsed.events` or an
item of `Parsed.rejected`, and one bad payload never costs its neighbours.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa

from matinee.events.columnar import parse_plain
from matinee.schema import EVENT_SCHEMA, EVENT_SCHEMA_VERSION, TITLE_TYPES, EventType

MAX_TEXT = 256
"""Most characters of an id or of any other text field."""
MAX_RATING = 10.0
MAX_POSITION = 2**31 - 1

_CHUNKS = (8_192, 512)
"""Payloads that are looked at together. Where one is odd its chunk is cut smaller, then each is looked at."""

_FIELDS = frozenset(EVENT_SCHEMA.names)
_TYPES = frozenset(str(kind) for kind in EventType)
_TITLE_TYPES = frozenset(str(kind) for kind in TITLE_TYPES)
_DURATION_TYPES = frozenset({"play", "stop"})
_REQUIRED_TEXTS = ("event_id", "member_id")
_OPTIONAL_TEXTS = ("title_id", "session", "surface", "request_id", "model_version", "cell")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII).fullmatch
_TIME_FORMS = "RFC 3339 text with an offset or int microseconds since 1970 are accepted"


@dataclass(frozen=True, kw_only=True, slots=True)
class Rejected:
    """A payload that is no event.

    Args:
        row: its position in the batch that was parsed.
        reason: the field, its value, and what is accepted.
        payload: the bytes as they came.
    """

    row: int
    reason: str
    payload: bytes


@dataclass(frozen=True, kw_only=True)
class Parsed:
    """What a batch held.

    Args:
        events: rows of `EVENT_SCHEMA`, in batch order.
        rows: int64 [events.num_rows], positions of the good payloads in the batch, ascending.
        rejected: the others, in batch order.
    """

    events: pa.Table
    rows: npt.NDArray[np.int64]
    rejected: list[Rejected]


class _BadEventError(Exception):
    """Carries the reason why one payload is rejected."""


class Validator:
    """Parses payloads and says of each bad one what is wrong with it.

    Args:
        titles: ids of the titles the service offers; None accepts any.
        future_tolerance_s: seconds an event may lie ahead of our clock.
        max_bytes: largest payload accepted.
    """

    def __init__(self, *, titles: Collection[str] | None, future_tolerance_s: float, max_bytes: int) -> None:
        self._titles = None if titles is None else frozenset(titles)
        self._tolerance_us = round(future_tolerance_s * 1e6)
        self._tolerance_s = future_tolerance_s
        self._max_bytes = max_bytes

    def parse(self, payloads: Sequence[bytes], *, now: int) -> Parsed:
        """Sort payloads into events and rejects; never raises on their content.

        Args:
            payloads: one JSON object each, as on the wire.
            now: int microseconds since the epoch, UTC: the ingest time of events that carry none, and
                the moment the future begins.
        """
        tables: list[pa.Table] = []
        rows: list[npt.NDArray[np.int64]] = []
        rejected: list[Rejected] = []
        for begin, end in _cut(0, len(payloads), _CHUNKS[0]):
            whole = self._plain(payloads[begin:end], now)
            if whole is not None:
                tables.append(whole)
                rows.append(np.arange(begin, end))
                continue
            for first, last in _cut(begin, end, _CHUNKS[1]):
                events, good, bad = self._chunk(payloads[first:last], now, first)
                tables.append(events)
                rows.append(good)
                rejected.extend(bad)
        return Parsed(
            events=pa.concat_tables(tables).combine_chunks() if tables else EVENT_SCHEMA.empty_table(),
            rows=np.concatenate(rows) if rows else np.empty(0, dtype=np.int64),
            rejected=rejected,
        )

    def _plain(self, payloads: Sequence[bytes], now: int) -> pa.Table | None:
        return parse_plain(
            payloads,
            now=now,
            latest=now + self._tolerance_us,
            titles=self._titles,
            max_bytes=self._max_bytes,
            max_text=MAX_TEXT,
            max_rating=MAX_RATING,
        )

    def _chunk(
        self, payloads: Sequence[bytes], now: int, begin: int
    ) -> tuple[pa.Table, npt.NDArray[np.int64], list[Rejected]]:
        plain = self._plain(payloads, now)
        if plain is not None:
            return plain, np.arange(begin, begin + len(payloads)), []
        return self._each(payloads, now, begin)

    def _each(
        self, payloads: Sequence[bytes], now: int, begin: int
    ) -> tuple[pa.Table, npt.NDArray[np.int64], list[Rejected]]:
        records: list[dict[str, Any]] = []
        rows: list[int] = []
        rejected: list[Rejected] = []
        for row, payload in enumerate(payloads, start=begin):
            try:
                records.append(self._record(payload, now))
                rows.append(row)
            except _BadEventError as failure:
                rejected.append(Rejected(row=row, reason=str(failure), payload=payload))
        columns = [
            pa.array([record.get(name) for record in records], type=kind)
            for name, kind in zip(EVENT_SCHEMA.names, EVENT_SCHEMA.types, strict=True)
        ]
        table = pa.Table.from_arrays(columns, schema=EVENT_SCHEMA)
        return table, np.array(rows, dtype=np.int64), rejected

    def _record(self, payload: bytes, now: int) -> dict[str, Any]:
        if len(payload) > self._max_bytes:
            raise _BadEventError(f"payload has {len(payload)} bytes; at most {self._max_bytes} are accepted")
        record = _json_object(payload)
        if not _FIELDS.issuperset(record):
            unknown = next(name for name in record if name not in _FIELDS)
            raise _BadEventError(
                f"field {_shown(unknown)} is unknown; accepted are {', '.join(EVENT_SCHEMA.names)}"
            )
        _check_version(record)
        for name in _REQUIRED_TEXTS:
            text = record.get(name)
            if type(text) is not str or not 0 < len(text) <= MAX_TEXT:
                _reject_id(name, text)
        for name in _OPTIONAL_TEXTS:
            text = record.get(name)
            if text is not None and (type(text) is not str or len(text) > MAX_TEXT):
                _reject_text(name, text)
        self._check_type_and_title(record)
        record["event_time"] = self._time("event_time", record.get("event_time"), now)
        ingest = record.get("ingest_time")
        record["ingest_time"] = now if ingest is None else self._time("ingest_time", ingest, now)
        position = record.get("position")
        if position is not None and (type(position) is not int or not 0 <= position <= MAX_POSITION):
            raise _BadEventError(
                f"position is {_shown(position)}; an integer from 0 to {MAX_POSITION} is accepted"
            )
        if record.get("value") is not None or record["type"] == "rate":
            record["value"] = _value(record["type"], record.get("value"))
        if record.get("context") is not None:
            record["context"] = _context(record["context"])
        return record

    def _check_type_and_title(self, record: dict[str, Any]) -> None:
        kind = record.get("type")
        if type(kind) is not str or kind not in _TYPES:
            raise _BadEventError(f"type is {_shown(kind)}; accepted are {', '.join(EventType)}")
        title = record.get("title_id")
        if title is None:
            if kind in _TITLE_TYPES:
                raise _BadEventError(f"title_id is missing; an event of type {kind} must name a title")
        elif not title:
            raise _BadEventError("title_id is ''; a title's id is accepted")
        elif self._titles is not None and title not in self._titles:
            raise _BadEventError(
                f"title_id is {_shown(title)}; no title of the catalogue has this id "
                f"({len(self._titles)} titles are accepted)"
            )

    def _time(self, name: str, given: object, now: int) -> int:
        if type(given) is str:
            time = _from_rfc3339(name, given)
        elif type(given) is int:
            time = given
        else:
            raise _BadEventError(f"{name} is {_shown(given)}; {_TIME_FORMS}")
        if time < 0:
            raise _BadEventError(f"{name} is {_shown(given)}; times since 1970 are accepted")
        if time > now + self._tolerance_us:
            raise _BadEventError(
                f"{name} is {_shown(given)}, in the future; at most {self._tolerance_s:g} s ahead of our "
                f"clock ({_utc(now)}) are accepted"
            )
        return time


def _cut(begin: int, end: int, size: int) -> list[tuple[int, int]]:
    return [(first, min(first + size, end)) for first in range(begin, end, size)]


def _json_object(payload: bytes) -> dict[str, Any]:
    try:
        record = orjson.loads(payload)
    except orjson.JSONDecodeError as failure:
        try:
            payload.decode()
        except UnicodeDecodeError as undecodable:
            raise _BadEventError(
                f"payload is not UTF-8: byte {undecodable.start} is 0x{payload[undecodable.start]:02x}; "
                "a JSON object is accepted"
            ) from None
        raise _BadEventError(f"payload is not JSON: {failure}; a JSON object is accepted") from None
    if type(record) is not dict:
        raise _BadEventError(f"payload is {_shown(record)}; a JSON object is accepted")
    return record


def _check_version(record: dict[str, Any]) -> None:
    version = record.get("schema_version")
    if version is None:
        record["schema_version"] = EVENT_SCHEMA_VERSION
    elif type(version) is not int or version != EVENT_SCHEMA_VERSION:
        raise _BadEventError(f"schema_version is {_shown(version)}; {EVENT_SCHEMA_VERSION} is accepted")


def _reject_id(name: str, text: object) -> None:
    given = "missing" if text is None else f"{_shown(text)}{_length(text)}"
    raise _BadEventError(f"{name} is {given}; text of 1 to {MAX_TEXT} characters is accepted")


def _reject_text(name: str, text: object) -> None:
    raise _BadEventError(
        f"{name} is {_shown(text)}{_length(text)}; text of at most {MAX_TEXT} characters is accepted"
    )


def _value(kind: str, value: object) -> float:
    if kind == "rate":
        accepted = f"stars above 0 and up to {MAX_RATING:g} are accepted"
    elif kind in _DURATION_TYPES:
        accepted = "seconds from 0 up are accepted"
    else:
        accepted = "a finite number is accepted"
    if value is None:
        raise _BadEventError(f"value is missing; {accepted}")
    if type(value) is not float and type(value) is not int:
        raise _BadEventError(f"value is {_shown(value)}; {accepted}")
    number = float(value)
    out_of_range = (kind == "rate" and not 0 < number <= MAX_RATING) or (
        kind in _DURATION_TYPES and number < 0
    )
    if out_of_range or not math.isfinite(number):
        raise _BadEventError(f"value is {_shown(value)}; {accepted}")
    return number


def _context(context: object) -> str:
    if type(context) is not dict:
        raise _BadEventError(f"context is {_shown(context)}; a JSON object is accepted")
    try:
        return orjson.dumps(context).decode()
    except orjson.JSONEncodeError:
        raise _BadEventError("context nests too deep; at most 250 levels are accepted") from None


def _from_rfc3339(name: str, text: str) -> int:
    try:
        return _microseconds(text)
    except (ValueError, OverflowError) as failure:
        detail = f": {failure}" if _RFC3339(text) else ""
        raise _BadEventError(f"{name} is {_shown(text)}{detail}; {_TIME_FORMS}") from None


@lru_cache(maxsize=8192)
def _microseconds(text: str) -> int:
    if not _RFC3339(text):
        raise ValueError(text)
    return (datetime.fromisoformat(text.upper()) - _EPOCH) // _MICROSECOND


def _utc(time: int) -> str:
    return (_EPOCH + time * _MICROSECOND).isoformat(timespec="seconds").replace("+00:00", "Z")


def _length(text: object) -> str:
    return f" ({len(text)} characters)" if isinstance(text, str) else ""


def _shown(value: object) -> str:
    """The value as JSON, cut to a readable length."""
    try:
        text = orjson.dumps(value).decode()
    except orjson.JSONEncodeError:
        text = "a JSON value nested too deep"
    return text if len(text) <= 80 else f"{text[:77]}..."
