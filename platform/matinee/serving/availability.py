"""Which titles are on offer, where and when. Pure.

A title that no window names is on offer everywhere, at any time; one that has windows only in them. Who asks
from nowhere known sees no title that is on offer in some countries only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from matinee.errors import InvalidInput
from matinee.schema import TIMESTAMP

Mask = npt.NDArray[np.bool_]

WINDOW_SCHEMA = pa.schema(
    [
        pa.field("title_id", pa.string(), nullable=False),
        pa.field("country", pa.string()),
        pa.field("available_from", TIMESTAMP),
        pa.field("available_until", TIMESTAMP),
    ]
)
"""One window a row. `country`: ISO 3166-1 alpha-2; null: everywhere. Null times: no beginning, no end."""

EVERYWHERE = ""
"""Stands for the country of windows without one."""
NEVER = 0
"""Microseconds: the end of the window of a title that is on offer nowhere."""

_FIRST, _LAST = np.iinfo(np.int64).min, np.iinfo(np.int64).max
_COUNTRY = "^[A-Z]{2}$"


@dataclass(frozen=True, kw_only=True)
class Listed:
    """Every window, as decided.

    Args:
        number: of the newest change; 0 where nothing was ever decided.
        windows: rows of `WINDOW_SCHEMA`.
    """

    number: int = 0
    windows: pa.Table = field(default_factory=WINDOW_SCHEMA.empty_table)


ANYTHING = Listed()
"""Nothing was decided, so everything is on offer."""


@dataclass(frozen=True, kw_only=True)
class Offer:
    """What a country is offered from one opening or closing of a window there to the next.

    Args:
        mask: bool [t]; not to be changed.
        key: another one for every other offer of the same catalogue.
        since: microseconds: when it began.
        until: when it ends.
    """

    mask: Mask
    key: str
    since: int
    until: int


class Offers:
    """The windows of one catalogue, ready for masks. Safe between threads.

    Args:
        title_ids: of the catalogue, t; windows of other titles count for nothing.
    """

    def __init__(self, listed: Listed, title_ids: Sequence[str]) -> None:
        self.listed = listed
        table = listed.windows
        known = pc.index_in(table["title_id"], pa.array(title_ids, pa.string()))
        position = pc.fill_null(known, -1).to_numpy()
        rows = np.flatnonzero(position >= 0)
        country = np.array(pc.fill_null(table["country"], EVERYWHERE).to_pylist(), object)
        self._position = position[rows]
        self._country = country[rows]
        self._from = _times(table["available_from"], _FIRST)[rows]
        self._until = _times(table["available_until"], _LAST)[rows]
        self._free = np.ones(len(title_ids), dtype=bool)
        self._free[self._position] = False
        self._named = frozenset(self._country.tolist())
        self._now: dict[str, Offer] = {}

    def at(self, country: str | None, now: int) -> Offer:
        """What is on offer.

        Args:
            country: as in `WINDOW_SCHEMA`; None: not known.
            now: microseconds.
        """
        place = country if country in self._named else EVERYWHERE
        assert place is not None
        found = self._now.get(place)
        if found is None or not found.since <= now < found.until:
            found = self._now[place] = self._made(place, now)
        return found

    def _made(self, place: str, now: int) -> Offer:
        rows = np.flatnonzero((self._country == place) | (self._country == EVERYWHERE))
        opens, closes = self._from[rows], self._until[rows]
        mask = self._free.copy()
        mask[self._position[rows][(opens <= now) & (now < closes)]] = True
        turns = np.concatenate([opens, closes])
        since = int(turns[turns <= now].max(initial=_FIRST))
        until = int(turns[turns > now].min(initial=_LAST))
        return Offer(mask=mask, key=f"{self.listed.number}/{place}/{since}", since=since, until=until)


def checked(windows: pa.Table) -> pa.Table:
    """Windows as rows of `WINDOW_SCHEMA`.

    Args:
        windows: columns of the schema; those that may be null may be missing.

    Raises:
        InvalidInput: a column is missing, unknown or of another type, a country is no code, or a window ends
            before it begins.
    """
    names = WINDOW_SCHEMA.names
    unknown = [name for name in windows.column_names if name not in names]
    if unknown or "title_id" not in windows.column_names:
        raise InvalidInput(f"columns {windows.column_names} of the windows; accepted: {names}")
    columns = {}
    for column in WINDOW_SCHEMA:
        if column.name not in windows.column_names:
            columns[column.name] = pa.nulls(len(windows), column.type)
            continue
        try:
            columns[column.name] = windows[column.name].cast(column.type)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as failure:
            raise InvalidInput(f"{column.name} of the windows: {failure}") from None
    found = pa.table(columns, schema=WINDOW_SCHEMA)
    if found["title_id"].null_count or pc.any(pc.equal(found["title_id"], "")).as_py():
        raise InvalidInput("a window names no title")
    wrong = found.filter(pc.invert(pc.match_substring_regex(found["country"], _COUNTRY)))
    if len(wrong):
        raise InvalidInput(f"country {wrong['country'][0].as_py()!r}; accepted: two capital letters, as SE")
    turned = found.filter(pc.greater_equal(found["available_from"], found["available_until"]))
    if len(turned):
        row = turned.slice(0, 1).to_pylist()[0]
        raise InvalidInput(
            f"window of title {row['title_id']!r} begins {row['available_from']} and ends "
            f"{row['available_until']}; it must end after it begins"
        )
    return found


def country_of(context: Mapping[str, str]) -> str | None:
    """The country that a request's context names ("country"), if it is a code."""
    named = context.get("country")
    return named if named and re.match(_COUNTRY, named) else None


def time_of(text: str | None) -> datetime | None:
    """A moment from a date or a time, ISO 8601, UTC where it names no zone; None stays None.

    Raises:
        InvalidInput: it is none.
    """
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidInput(f"time {text!r}; accepted: 2026-01-31 or 2026-01-31T20:15:00Z") from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _times(column: pa.ChunkedArray, default: int) -> npt.NDArray[np.int64]:
    found: npt.NDArray[np.int64] = pc.fill_null(column.cast(pa.int64()), default).to_numpy()
    return found
