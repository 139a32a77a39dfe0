"""What every source gives: a catalogue, events in the order to send them, and who the members are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from matinee.errors import InvalidInput
from matinee.schema import CATALOGUE_SCHEMA, EVENT_SCHEMA, TIMESTAMP, TITLE_TYPES, Catalogue, EventType

MEMBER_SCHEMA = pa.schema(
    [
        pa.field("member_id", pa.string(), nullable=False),
        pa.field("age", pa.int16()),
        pa.field("gender", pa.string()),
        pa.field("occupation", pa.string()),
    ]
)
"""One member a row: what the source states of them, null where it does not. `age` in years."""


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Titles, events and members of one source. It does not know how events travel.

    Args:
        name: what the source calls itself, for reports.
        catalogue: every title the events name.
        events: rows of `EVENT_SCHEMA` in the order to send them. `ingest_time` repeats `event_time`:
            history has not arrived yet (see `arriving`).
        members: `MEMBER_SCHEMA` and possibly more columns; None where the source says nothing of them.
        truth: float32 [members, titles], each member's true liking of each title when the events end
            (-inf where not on offer), rows as in `members`, columns as in the catalogue; None where the
            source is not a simulation.
    """

    name: str
    catalogue: Catalogue
    events: pa.Table
    members: pa.Table | None = None
    truth: npt.NDArray[np.float32] | None = None

    def arriving(self, now: int) -> pa.Table:
        """The events with `ingest_time` set to `now` (int microseconds since the epoch, UTC)."""
        times = pa.repeat(pa.scalar(now, TIMESTAMP), self.events.num_rows)
        column = self.events.schema.get_field_index("ingest_time")
        return self.events.set_column(column, EVENT_SCHEMA.field("ingest_time"), times)

    def validate(self) -> None:
        """Check schemas, unique ids, known types and titles.

        Raises:
            InvalidInput: names the first thing that is wrong, with a value that shows it.
        """
        table = self.catalogue.table
        _same_schema(f"{self.name}: catalogue", table.schema, CATALOGUE_SCHEMA)
        _same_schema(f"{self.name}: events", self.events.schema, EVENT_SCHEMA)
        for where, rows in (("catalogue", table), ("events", self.events)):
            for field in rows.schema:
                if not field.nullable and rows[field.name].null_count:
                    at = pc.index(pc.is_null(rows[field.name]), True).as_py()
                    raise InvalidInput(f"{self.name}: {where} column {field.name} is null in row {at}")
        _unique(f"{self.name}: catalogue title_id", table["title_id"])
        _unique(f"{self.name}: events event_id", self.events["event_id"])
        kinds = self.events["type"]
        self._known("event type", kinds, pa.array([kind.value for kind in EventType]))
        titled = pc.is_in(kinds, pa.array([kind.value for kind in TITLE_TYPES]))
        titles = self.events["title_id"]
        bare = pc.and_(titled, pc.is_null(titles))
        if pc.any(bare).as_py():
            event_id = self.events["event_id"][pc.index(bare, True).as_py()].as_py()
            raise InvalidInput(f"{self.name}: event {event_id} names no title; only search may leave it out")
        self._known("title", titles.drop_null(), table["title_id"].combine_chunks())
        if self.members is not None:
            if self.truth is not None and self.truth.shape != (self.members.num_rows, len(self.catalogue)):
                raise InvalidInput(f"{self.name}: truth has shape {self.truth.shape}, not members x titles")
            for field in MEMBER_SCHEMA:
                if self.members.schema.get_field_index(field.name) < 0:
                    raise InvalidInput(f"{self.name}: members lack the column {field.name}")
            _unique(f"{self.name}: members member_id", self.members["member_id"])
            self._known("member", self.events["member_id"], self.members["member_id"].combine_chunks())

    def _known(self, what: str, values: pa.ChunkedArray, accepted: pa.Array) -> None:
        known = pc.is_in(values, accepted)
        if not pc.all(known).as_py():
            value = values[pc.index(known, False).as_py()].as_py()
            raise InvalidInput(f"{self.name}: an event's {what} {value!r} is not among {len(accepted)} known")


def _same_schema(where: str, found: pa.Schema, wanted: pa.Schema) -> None:
    for field in wanted:
        at = found.get_field_index(field.name)
        if at < 0:
            raise InvalidInput(f"{where} lack the column {field.name} ({field.type})")
        if found.field(at).type != field.type:
            raise InvalidInput(f"{where} column {field.name} is {found.field(at).type}, not {field.type}")
    extra = [name for name in found.names if name not in wanted.names]
    if extra:
        raise InvalidInput(f"{where} have unknown columns: {', '.join(extra)}")


def _unique(where: str, values: pa.ChunkedArray) -> None:
    counts = pc.value_counts(values)
    repeated = counts.filter(pc.greater(counts.field("counts"), 1))
    if len(repeated):
        first = repeated[0].as_py()
        raise InvalidInput(f"{where} {first['values']!r} stands {first['counts']} times; it must be unique")
