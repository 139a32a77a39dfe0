"""Which data a version learned from: what the lake held, in figures and as one digest."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from matinee.config import Settings
from matinee.events import lake

COLUMNS = ("event_id", "type", "member_id", "title_id", "event_time", "value")
"""What of an event decides what is learned; where and when it arrived does not."""


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """The lake at one moment.

    Args:
        events: in the lake.
        first: microseconds, the earliest event time; 0 where there is none.
        last: microseconds, the latest event time; 0 where there is none.
        digest: SHA-256 of the events' COLUMNS, hexadecimal; the order of arrival does not change it.
    """

    events: int
    first: int
    last: int
    digest: str

    @property
    def name(self) -> str:
        """Short enough for a tag: events and the head of the digest."""
        return f"{self.events}-{self.digest[:16]}"


def snapshot(settings: Settings) -> Snapshot:
    """What the lake holds now."""
    return describe(lake.read_events(settings.paths.events, columns=list(COLUMNS)))


def describe(events: pa.Table) -> Snapshot:
    """The snapshot of a table with at least COLUMNS."""
    kept = events.select(list(COLUMNS))
    ordered = kept.sort_by([("event_time", "ascending"), ("event_id", "ascending")]).combine_chunks()
    times = ordered["event_time"].cast(pa.int64())
    return Snapshot(
        events=ordered.num_rows,
        first=pc.min(times).as_py() or 0,
        last=pc.max(times).as_py() or 0,
        digest=_digest(ordered),
    )


def _digest(table: pa.Table) -> str:
    """Over places of nulls, lengths of texts and values: chunks and buffers' slack don't count."""
    found = hashlib.sha256()
    for name in table.column_names:
        column = table[name]
        found.update(name.encode())
        found.update(column.is_null().to_numpy().tobytes())
        held = column.drop_null()
        if pa.types.is_string(held.type):
            found.update(pc.binary_length(held).to_numpy().tobytes())
            found.update("".join(held.to_pylist()).encode())
        else:
            plain = held.cast(pa.int64()) if pa.types.is_timestamp(held.type) else held
            found.update(plain.to_numpy().tobytes())
    return found.hexdigest()
