"""The kinds of state table: how events become rows, how rows combine, which rows may go.

`Totals` holds one row a slot, updated in place. `Log` holds many: rows are appended, and combined when a
slot's extent is full, so that an event costs the same however much a key holds. Combining is pure and may
happen at any moment: rows say the same before and after.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from matinee.features.aggregates.keyed import Arena, Columns, grown
from matinee.features.aggregates.plan import Kind, Partial, StateTable
from matinee.features.exact import Integers

Floor = Callable[[Integers], Integers]
"""Of slots, the first tile (of sessions, the first end) that is needed; LEAST where all are."""

_WIDEST = 1 << 62
_NAMES = ("partition", "key")
_SLOTS_AT_A_TIME = 1 << 16


class Totals:
    """One row a slot."""

    def __init__(self, table: StateTable) -> None:
        self.table = table
        self.held = np.zeros(0, np.bool_)
        """Which slots have a row."""
        self._columns: Columns = {}
        for each in table.partials:
            self._columns[each.name] = np.zeros(0, table.schema.field(each.name).type.to_pandas_dtype())

    @property
    def nbytes(self) -> int:
        """Memory held."""
        return int(self.held.nbytes) + sum(int(each.nbytes) for each in self._columns.values())

    def column(self, name: str, slots: Integers) -> npt.NDArray[Any]:
        """A partial's value of each slot; its empty value where there is no row."""
        self._cover(slots)
        return self._columns[name][slots]

    def fold(self, partial: Partial, slots: Integers, values: npt.NDArray[Any] | int) -> None:
        """Combine one value an event into the rows of their slots; a slot may come often."""
        self._cover(slots)
        self.held[slots] = True
        partial.combine.at(self._columns[partial.name], slots, values)

    def slots(self) -> Integers:
        """Those that have a row."""
        return np.flatnonzero(self.held)

    def gather(self, slots: Integers) -> tuple[Integers, Columns]:
        """Rows of slots: how many each has (0 or 1), and the columns."""
        self._cover(slots)
        counts = self.held[slots].astype(np.int64)
        slots = slots[self.held[slots]]
        return counts, {name: column[slots] for name, column in self._columns.items()}

    def replace(self, slots: Integers, counts: Integers, rows: Mapping[str, npt.NDArray[Any]]) -> None:
        """Make rows the ones of distinct slots; `counts` are all 1."""
        self._cover(slots)
        self.held[slots] = True
        for name, column in self._columns.items():
            column[slots] = rows[name]

    def _cover(self, slots: Integers) -> None:
        size = int(slots.max(initial=-1)) + 1
        if size > len(self.held):
            self.held = grown(self.held, size)
            for each in self.table.partials:
                self._columns[each.name] = grown(self._columns[each.name], size, fill=each.empty)


class Log:
    """Many rows a slot, not always combined."""

    def __init__(self, table: StateTable) -> None:
        self.table = table
        self._arena = Arena(
            {field.name: field.type.to_pandas_dtype() for field in table.schema if field.name not in _NAMES}
        )
        self._combined = np.zeros(0, np.int32)
        """How many rows each slot had when they were last combined."""

    @property
    def nbytes(self) -> int:
        """Memory held."""
        return self._arena.nbytes + int(self._combined.nbytes)

    def fold(self, slots: Integers, counts: Integers, rows: Columns, floor: Floor) -> None:
        """Add rows, given slot after slot, to distinct slots.

        Args:
            floor: what may be dropped on the way, see `combined`.
        """
        if self.table.kind is Kind.TILES:
            slots, counts, rows = self._fold_newest(slots, counts, rows)
        fits = self._arena.fits(slots, counts)
        if fits.all():
            self._arena.append(slots, counts, rows)
            return
        of_row = np.repeat(fits, counts)
        self._arena.append(slots[fits], counts[fits], {name: each[of_row] for name, each in rows.items()})
        full = ~fits
        self._combine(slots[full], counts[full], {name: each[~of_row] for name, each in rows.items()}, floor)

    def combine(self, floor: Floor) -> None:
        """Combine the rows of all slots that have new ones, or may have sessions to drop."""
        slots = self.slots()
        self._cover(slots)
        length = self._arena.length(slots)
        new = length > self._combined[slots]
        slots = slots[new | (length > 1) if self.table.kind is Kind.SESSIONS else new]
        for start in range(0, len(slots), _SLOTS_AT_A_TIME):
            self._combine_held(slots[start : start + _SLOTS_AT_A_TIME], floor)

    def tidy(self, slots: Integers, floor: Floor) -> None:
        """Combine the rows of those distinct slots that grew by a quarter since they were last combined."""
        self._cover(slots)
        self._combine_held(slots[4 * self._arena.length(slots) > 5 * self._combined[slots]], floor)

    def slots(self) -> Integers:
        """Those that have rows."""
        return self._arena.slots()

    def gather(self, slots: Integers) -> tuple[Integers, Columns]:
        """Rows of slots: how many each has, and the columns, slot after slot."""
        return self._arena.gather(slots)

    def replace(self, slots: Integers, counts: Integers, rows: Mapping[str, npt.NDArray[Any]]) -> None:
        """Make rows, given slot after slot, the only ones of distinct slots."""
        self._arena.replace(slots, counts, rows)
        self._cover(slots)
        self._combined[slots] = 0

    def _fold_newest(
        self, slots: Integers, counts: Integers, rows: Columns
    ) -> tuple[Integers, Integers, Columns]:
        """Fold what belongs to the tile of a slot's last row into that row; returns the others."""
        at = np.cumsum(counts) - counts
        some = np.flatnonzero(self._arena.length(slots) > 0)
        hit = some[self._arena.last(slots[some], "tile") == rows["tile"][at[some]]]
        if not len(hit):
            return slots, counts, rows
        for each in self.table.partials:
            self._arena.fold_last(slots[hit], each.name, each.combine, rows[each.name][at[hit]])
        other = np.ones(len(rows["tile"]), np.bool_)
        other[at[hit]] = False
        counts = counts.copy()
        counts[hit] -= 1
        left = counts > 0
        return slots[left], counts[left], {name: each[other] for name, each in rows.items()}

    def _combine_held(self, slots: Integers, floor: Floor) -> None:
        none = self._arena.gather(slots[:0])[1]
        self._combine(slots, np.zeros(len(slots), np.int64), none, floor)

    def _combine(self, slots: Integers, counts: Integers, rows: Columns, floor: Floor) -> None:
        held_counts, held = self._arena.gather(slots)
        places = np.arange(len(slots))
        owner = np.concatenate([np.repeat(places, held_counts), np.repeat(places, counts)])
        every = {name: np.concatenate([held[name], rows[name]]) for name in held}
        owner, every = combined(self.table, owner, every, floor(slots))
        self._arena.replace(slots, np.bincount(owner, minlength=len(slots)), every)
        self._cover(slots)
        self._combined[slots] = self._arena.length(slots)

    def _cover(self, slots: Integers) -> None:
        self._combined = grown(self._combined, int(slots.max(initial=-1)) + 1)


def combined(table: StateTable, owner: Integers, rows: Columns, floor: Integers) -> tuple[Integers, Columns]:
    """The fewest rows that say the same.

    Args:
        owner: of each row: 0 to n - 1.
        floor: of each owner: rows of tiles before it are dropped; of sessions, those that end before it,
            but for an owner's last.

    Returns:
        owner and columns of the rows, ascending by owner.
    """
    if not len(owner):
        return owner, rows
    if table.kind in (Kind.LATEST, Kind.LATEST_DISTINCT):
        return latest(owner, rows, table.n, distinct=table.kind is Kind.LATEST_DISTINCT)
    if table.kind is Kind.SESSIONS:
        owner, rows = sessions(table, owner, rows)
        last = np.append(owner[1:] != owner[:-1], True)
        return _only(last | (rows["end"] >= floor[owner]), owner, rows)
    owner, rows = _only(rows["tile"] >= floor[owner], owner, rows)
    identity = [rows["tile"], rows["item"]] if "item" in rows else [rows["tile"]]
    order, starts = groups([owner, *identity])
    found = {each.name: reduce(each, rows[each.name][order], starts) for each in table.partials}
    first = order[starts]
    for name in ("tile", "item"):
        if name in rows:
            found[name] = rows[name][first]
    return owner[first], found


def latest(
    owner: Integers, rows: Columns, n: int, *, distinct: bool, ties: Integers | None = None
) -> tuple[Integers, Columns]:
    """The n latest rows of each owner by (time, `ties`, offset), oldest first.

    The n latest of a union are among the n latest of each part, so this may be applied to parts, in any
    order, and late events find their place.

    Args:
        distinct: of rows with one item, only the latest.
        ties: the partition of each row, where an owner has several.
    """
    if not len(owner):
        return owner, rows
    by_time = [rows["time"], *([] if ties is None else [ties]), rows["offset"]]
    if distinct:
        order, starts = groups([owner, rows["item"], *by_time], identity=2)
        order = order[np.append(starts[1:], len(order)) - 1]
        owner, rows = owner[order], {name: each[order] for name, each in rows.items()}
        by_time = [each[order] for each in by_time]
    order, _ = groups([owner, *by_time])
    owner = owner[order]
    ends = np.searchsorted(owner, owner, side="right")
    kept = ends - np.arange(len(owner)) <= n
    return owner[kept], {name: each[order[kept]] for name, each in rows.items()}


def sessions(table: StateTable, owner: Integers, rows: Columns) -> tuple[Integers, Columns]:
    """Runs of each owner, ascending: intervals no more than the gap apart become one.

    A set of events falls into the same runs whether its intervals are merged at once or part by part.
    """
    order, _ = groups([owner, rows["start"]])
    owner, start, end = owner[order], rows["start"][order], rows["end"][order]
    # The highest end so far within each owner, by ranks, so that owners do not reach into each other.
    ascending = np.argsort(end)
    rank = np.empty(len(end), np.int64)
    rank[ascending] = np.arange(len(end))
    highest = np.maximum.accumulate(owner * len(end) + rank)
    reached = end[ascending[highest - owner * len(end)]]
    new = np.ones(len(owner), np.bool_)
    new[1:] = (owner[1:] != owner[:-1]) | (start[1:] - reached[:-1] > table.hop)
    starts = np.flatnonzero(new)
    found = {each.name: reduce(each, rows[each.name][order], starts) for each in table.partials}
    found["start"] = start[starts]
    found["end"] = np.maximum.reduceat(end, starts)
    return owner[starts], found


def reduce(partial: Partial, values: npt.NDArray[Any], starts: Integers) -> npt.NDArray[Any]:
    """Combine runs of values that begin at `starts`."""
    found: npt.NDArray[Any] = partial.combine.reduceat(values, starts) if len(starts) else values[:0]
    return found


def groups(columns: list[npt.NDArray[Any]], identity: int | None = None) -> tuple[Integers, Integers]:
    """The order of rows by columns, and where in it runs of equal rows begin.

    Args:
        columns: integers; uint64 in some order of its own.
        identity: how many of the columns tell runs apart; None: all.
    """
    identity = len(columns) if identity is None else identity
    packed, width = np.zeros(len(columns[0]), np.int64), 1
    of_run, run_width = packed, 1
    for place, column in enumerate(columns):
        column = column.view(np.int64) if column.dtype == np.uint64 else column.astype(np.int64)
        packed, width = _pack(packed, width, column)
        if place + 1 == identity:
            of_run, run_width = packed, width
    order = np.argsort(packed)
    ordered = (packed if run_width == width else of_run)[order]
    if not len(ordered):
        return order, order
    return order, np.flatnonzero(np.insert(ordered[1:] != ordered[:-1], 0, True))


def _pack(packed: Integers, width: int, column: Integers) -> tuple[Integers, int]:
    """One integer for two that sorts as they do; and a bound of it."""
    if not len(column):
        return packed, width
    least, range_ = int(column.min()), int(column.max()) - int(column.min()) + 1
    if width * range_ >= _WIDEST:
        packed, width = _ranks(packed)
        if width * range_ >= _WIDEST:
            column, range_ = _ranks(column)
            least = 0
    return packed * range_ + (column - least), width * range_


def _ranks(column: Integers) -> tuple[Integers, int]:
    values, rank = np.unique(column, return_inverse=True)
    return rank.astype(np.int64), len(values)


def _only(kept: npt.NDArray[np.bool_], owner: Integers, rows: Columns) -> tuple[Integers, Columns]:
    if kept.all():
        return owner, rows
    return owner[kept], {name: each[kept] for name, each in rows.items()}
