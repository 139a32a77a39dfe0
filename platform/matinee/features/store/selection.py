"""A question to the online store, worked out once: which rows to read and how to read them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from matinee.features import packed
from matinee.features.entity_keys import entity_prefix, text_key
from matinee.features.packed import Decoder, Layout, Reading
from matinee.features.rows import Rows

PRESENT = "PRESENT"
NOT_FOUND = "NOT_FOUND"
OUTSIDE_MAX_AGE = "OUTSIDE_MAX_AGE"


class ViewRows(NamedTuple):
    """What the store holds of some keys in one view, in the order of the keys.

    Args:
        names: the features asked for.
        statuses: of each key: PRESENT, NOT_FOUND, or OUTSIDE_MAX_AGE where the view's time to live is over.
        times: event times in microseconds; None where NOT_FOUND.
        rows: values in the order of `names`; None where the status isn't PRESENT.
    """

    view: str
    names: Sequence[str]
    statuses: Sequence[str]
    times: Sequence[int | None]
    rows: Sequence[Sequence[Any] | None]

    def columns(self) -> list[list[Any]]:
        """A list for each feature, aligned with the keys; None where there is no value."""
        nothing = [None] * len(self.names)
        return [list(column) for column in zip(*(row or nothing for row in self.rows), strict=True)]


@dataclass(frozen=True, kw_only=True)
class ViewPart:
    """One view of a selection.

    Args:
        view: its name.
        stored: the name under which its rows lie.
        layout: of the view's features.
        names: features to read.
        ttl_us: time to live, microseconds; 0 where it has none.
    """

    view: str
    stored: str
    layout: Layout
    names: Sequence[str]
    ttl_us: int


class Selection:
    """Reads the features of some views of one entity. Safe in many threads.

    Args:
        key: the entity's join key.
        parts: the views.
        rows: where rows lie.
        opaque: makes a value of a row's opaque bytes.
        clock: microseconds since the epoch.
    """

    def __init__(
        self,
        *,
        key: str,
        parts: Sequence[ViewPart],
        rows: Rows,
        opaque: Reading,
        clock: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        self.key = key
        self.parts = tuple(parts)
        self._rows = rows
        self._clock = clock
        self._prefix = entity_prefix(key)
        self._stored = tuple(part.stored for part in parts)
        self._decoders = [Decoder(part.layout, part.names, find=rows.layout, opaque=opaque) for part in parts]
        self._one = [
            (decoder, decoder.wanted, part.ttl_us)
            for decoder, part in zip(self._decoders, parts, strict=True)
        ]
        self._timed = any(part.ttl_us for part in parts)

    def keys(self, values: Sequence[str]) -> list[bytes]:
        """Entity keys of key values."""
        return [text_key(self._prefix, value) for value in values]

    def one(self, value: str) -> dict[str, Any]:
        """Features of one key by name, in one read; those of a view without a row are left out."""
        held = self._rows.get(self._stored, (text_key(self._prefix, value),))
        now = self._clock() if self._timed else 0
        found: dict[str, Any] = {}
        for (decoder, names, ttl), (row,) in zip(self._one, held, strict=True):
            if row is not None and (not ttl or now - packed.event_time(row) <= ttl):
                found.update(zip(names, decoder.decode(row), strict=True))
        return found

    def read(self, values: Sequence[str]) -> list[ViewRows]:
        """Rows of every view, in one read where the keys are few."""
        if not values:
            return [ViewRows(part.view, part.names, [], [], []) for part in self.parts]
        held = self._rows.get(self._stored, self.keys(values))
        now = self._clock()
        return [
            _view_rows(part, decoder, rows, now)
            for part, decoder, rows in zip(self.parts, self._decoders, held, strict=True)
        ]

    def as_mappings(self, values: Sequence[str]) -> list[dict[str, Any] | None]:
        """Rows of the one view by name; None where there is none or its time is over."""
        (found,) = self.read(values)
        names = found.names
        return [None if row is None else dict(zip(names, row, strict=True)) for row in found.rows]


def _view_rows(part: ViewPart, decoder: Decoder, rows: Sequence[bytes | None], now: int) -> ViewRows:
    times = [None if row is None else packed.event_time(row) for row in rows]
    decode = decoder.decode
    if not part.ttl_us:
        statuses = [NOT_FOUND if row is None else PRESENT for row in rows]
        decoded = [None if row is None else decode(row) for row in rows]
        return ViewRows(part.view, part.names, statuses, times, decoded)
    first = now - part.ttl_us
    statuses = [
        NOT_FOUND if each is None else PRESENT if each >= first else OUTSIDE_MAX_AGE for each in times
    ]
    decoded = [
        decode(row) if row is not None and status == PRESENT else None
        for row, status in zip(rows, statuses, strict=True)
    ]
    return ViewRows(part.view, part.names, statuses, times, decoded)
