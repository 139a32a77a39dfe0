"""The rows of an aggregate view, computed from all its events at once: the batch's side of a definition.

Pure functions on Arrow tables. Every window is a range of a key's events in the order of time, so counts,
sums and means are differences of prefix sums, minima and maxima are looked up in tables of doubling
length, and a distinct value is counted by the stretches of time in which it is in the window. Where a day's
or the latest rows are asked for, the events of a tile are added up first and the ranges run over tiles.
Only top-k, last-n-distinct and decay look at a window's contents row by row, in chunks.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from matinee.features import exact
from matinee.schema import (
    LAKE_SCHEMA,
    NUMERIC_COLUMNS,
    TEXT_COLUMNS,
    TIMESTAMP,
    UNIT,
    Aggregate,
    AggregateView,
    Function,
    Window,
)

Times = Literal["events", "days", "latest"]
"""Which rows: one for each distinct event time of a key; one for each UTC day, as of the key's last event
of the day; or one a key, as of its latest event."""

Integers = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

DAY = 86_400_000_000
AT_ONCE = 1_000_000
"""Events of whole keys that one thread computes in one go."""
CHUNK = 4_000_000
"""Elements of windows that are looked at row by row in one go."""

_HALF = 1 << 20
_LARGEST = np.iinfo(np.int64).max
_TEXT = (Function.COUNT_DISTINCT, Function.APPROX_DISTINCT, Function.TOP_K)
_LAST = (Function.LAST_N, Function.LAST_N_DISTINCT)
_DECAYED = (Function.DECAYED_COUNT, Function.DECAYED_SUM)


def columns_of(view: AggregateView) -> list[str]:
    """The columns of `LAKE_SCHEMA` that `history_rows` needs, in the schema's order."""
    named = {each.column for each in view.aggregates if each.column}
    typed = {"type"} if view.types or any(each.types for each in view.aggregates) else set()
    late = set() if view.lateness is None else {"late_by"}
    ordered = {"partition", "offset"} if any(each.function in _LAST for each in view.aggregates) else set()
    wanted = {view.key, "event_time"} | named | typed | late | ordered
    return [name for name in LAKE_SCHEMA.names if name in wanted]


def history_rows(
    view: AggregateView, events: pa.Table, *, times: Times = "events", since: int | None = None
) -> pa.Table:
    """The rows of `view`, exact to the bit.

    Args:
        events: rows with `columns_of(view)`, each event once, in any order; text columns may be
            dictionaries. They hold every event of the windows of the rows asked for.
        since: leave out rows of earlier times (int microseconds); None: none.

    Returns:
        Rows of `view.schema`, ordered by key and time.
    """
    columns = _Columns(events)
    wanted = columns_of(view)
    with ThreadPoolExecutor(pa.cpu_count()) as threads:
        list(threads.map(columns.fetch, wanted))

        def computed(places: Integers | None) -> pa.Table:
            return _rows(view, _Source(columns, view.key, places), times, since)

        return pa.concat_tables([view.schema.empty_table(), *threads.map(computed, columns.counted(view))])


def _rows(view: AggregateView, source: _Source, times: Times, since: int | None) -> pa.Table:
    """The rows of some keys."""
    if times == "events":
        source = source.ordered
        items, rows = _items_of_events(source)
    else:
        items, rows = _items_of_tiles(source, view.aggregates, times)
    if since is not None:
        rows = rows.take(np.flatnonzero(rows.time >= since))
    if not len(rows.time):
        return view.schema.empty_table()
    values = [_column(each, source, items, rows) for each in view.aggregates]
    keys = source.keys.take(pa.array(rows.key))
    return pa.table([keys, *values, pa.array(rows.time).cast(TIMESTAMP)], schema=view.schema)


@dataclass(frozen=True)
class _Rows:
    """The rows asked for, ordered: key codes and times."""

    key: Integers
    time: Integers

    def take(self, places: Integers) -> _Rows:
        return _Rows(self.key[places], self.time[places])


class _Columns:
    """Columns of a table of events in NumPy, each converted once. Safe in many threads after `fetch`."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table
        self._texts: dict[str, tuple[Integers, pa.Array]] = {}
        self._numbers: dict[str, npt.NDArray[Any]] = {}
        self._valid: dict[str, Mask | None] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._valid

    def fetch(self, name: str) -> None:
        """Convert a column."""
        column = self._table[name]
        self._valid[name] = column.is_valid().to_numpy() if column.null_count else None
        if name in TEXT_COLUMNS:
            self._texts[name] = _encode(column)
        elif name in NUMERIC_COLUMNS:
            self._numbers[name] = column.cast(pa.float64()).to_numpy()
        elif name == "event_time":
            self._numbers[name] = _integers(column.cast(TIMESTAMP).cast(pa.int64()))
        else:
            self._numbers[name] = _integers(column)

    def text(self, name: str) -> tuple[Integers, pa.Array]:
        """Codes of a text column, -1 for null, and the texts in their order."""
        return self._texts[name]

    def number(self, name: str) -> npt.NDArray[Any]:
        """Microseconds, partition, offset: int64, 0 for null; value, position: float64, NaN for null."""
        return self._numbers[name]

    def valid(self, name: str) -> Mask | None:
        """Where a column is not null; None: everywhere."""
        return self._valid[name]

    def counted(self, view: AggregateView) -> list[Integers | None]:
        """Places of the view's counted events, in groups of whole keys that ascend from group to group,
        of about AT_ONCE events; None: all.
        """
        key, keys = self.text(view.key)
        counted = key >= 0
        if view.types:
            counted &= _among(*self.text("type"), view.types)
        if view.lateness is not None:
            counted &= self.number("late_by") <= view.lateness // timedelta(microseconds=1)
        whole = bool(counted.all())
        places = np.flatnonzero(counted)
        if not len(places):
            return []
        if len(places) <= AT_ONCE:
            return [None if whole else places]
        held = np.cumsum(np.bincount(key if whole else key[places], minlength=len(keys)))
        group = ((held - 1) // AT_ONCE).astype(np.int16)[key if whole else key[places]]
        order = np.argsort(group, kind="stable")
        ends = np.cumsum(np.bincount(group))
        ordered = order if whole else places[order]
        return [part for part in np.split(ordered, ends[:-1]) if len(part)]


class _Source:
    """Counted events of a view: columns in NumPy, in the order of `places` into the table; None: all."""

    def __init__(self, columns: _Columns, key: str, places: Integers | None) -> None:
        self._columns = columns
        self._key = key
        self._places = places
        self._selected: dict[tuple[Any, str], Mask | None] = {}
        codes, self.keys = columns.text(key)
        self.key = self._taken(codes)
        self.time = self._taken(columns.number("event_time"))

    @cached_property
    def ordered(self) -> _Source:
        """The same events in the order of key, time, partition, offset."""
        by = {"key": self.key, "time": self.time}
        for name in ("partition", "offset"):
            if name in self._columns:
                by[name] = self._taken(self._columns.number(name))
        if _is_sorted(list(by.values())):
            return self
        order = _order(**by)
        return _Source(self._columns, self._key, order if self._places is None else self._places[order])

    def text(self, column: str) -> tuple[Integers, pa.Array]:
        """Codes of a text column, -1 for null, and the texts in their order."""
        codes, texts = self._columns.text(column)
        return self._taken(codes), texts

    def units(self, column: str) -> Integers:
        """A numeric column in millionths; 0 for null."""
        return exact.units(self._taken(self._columns.number(column)))

    def selected(self, aggregate: Aggregate) -> Mask | None:
        """Which events an aggregate sees; None: all."""
        selection = _selection(aggregate)
        if selection not in self._selected:
            mask: Mask | None = None
            if aggregate.types:
                mask = _among(*self.text("type"), aggregate.types)
            _, column = selection
            valid = self._columns.valid(column) if column else None
            if valid is not None:
                valid = self._taken(valid)
                mask = valid if mask is None else mask & valid
            self._selected[selection] = None if mask is None or mask.all() else mask
        return self._selected[selection]

    def _taken(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return values if self._places is None else values[self._places]


class _Index:
    """Positions among items that are ordered by key and time."""

    def __init__(self, key: Integers, time: Integers) -> None:
        self._times: Integers | None = None
        low, high = (int(time.min()), int(time.max())) if len(time) else (0, 0)
        keys = int(key[-1]) + 1 if len(key) else 1
        if keys * (high - low + 2) < _LARGEST // 2:
            self._low, self._span = low, high - low + 2
            place = time - low + 1
        else:
            self._times = np.unique(time)
            self._low, self._span = 0, len(self._times) + 1
            place = np.asarray(np.searchsorted(self._times, time) + 1, np.int64)
        self._keys = keys
        self._packed = key * self._span + place

    def first(self, key: Integers) -> Integers:
        """Position of a key's first item."""
        return self._search(key, np.zeros_like(key))

    def after(self, key: Integers, time: Integers) -> Integers:
        """Position after a key's last item at or before a time."""
        if self._times is not None:
            return self._search(key, np.searchsorted(self._times, time, "right"))
        return self._search(key, np.clip(time - self._low + 1, 0, self._span - 1))

    def before(self, key: Integers, time: Integers) -> Integers:
        """Position of a key's first item at or after a time."""
        return self.after(key, time - 1)

    def _search(self, key: Integers, place: Integers) -> Integers:
        return np.asarray(np.searchsorted(self._packed, key * self._span + place, "right"), np.int64)


class _Items:
    """What windows are ranges of: events, or tiles of added-up events, ordered by key and time.

    Args:
        ends: per row, the position after its last item.
        tile: microseconds of an item that is a tile, timed by its start; 0: items are events.
        parts: arrays by (selection, name) as `_partials` names them.
    """

    def __init__(
        self,
        key: Integers,
        time: Integers,
        *,
        tile: int,
        parts: Mapping[tuple[Any, str], Integers],
        source: _Source | None = None,
    ) -> None:
        self.key = key
        self.time = time
        self.tile = tile
        self.index = _Index(key, time)
        self._parts: dict[tuple[Any, str], Integers] = dict(parts)
        self._source = source
        self._ranges: dict[Window, tuple[Integers, Integers]] = {}

    def part(self, aggregate: Aggregate, name: str) -> Integers:
        """What an aggregate sees of each item: "n" events, their "sum", "min" or "max" in millionths."""
        wanted = (_selection(aggregate), name)
        if wanted not in self._parts:
            assert self._source is not None
            self._parts[wanted] = _part(self._source, aggregate, name)
        return self._parts[wanted]

    def range(self, window: Window, rows: _Rows) -> tuple[Integers, Integers]:
        """Per row the first item of its window and the one after the last."""
        if window not in self._ranges:
            end = self.index.after(rows.key, rows.time)
            if window.kind == "unbounded":
                begin = self.index.first(rows.key)
            else:
                begin = self.index.before(rows.key, _begin(rows.time, window))
            self._ranges[window] = begin, end
        return self._ranges[window]


def _selection(aggregate: Aggregate) -> tuple[Any, str]:
    """The types an aggregate sees, and the column that must not be null."""
    lists_numbers = aggregate.function is Function.LAST_N and aggregate.column in NUMERIC_COLUMNS
    return frozenset(aggregate.types), "" if lists_numbers else aggregate.column


def _part(source: _Source, aggregate: Aggregate, name: str) -> Integers:
    mask = source.selected(aggregate)
    if name == "n":
        return np.ones(len(source.time), np.int64) if mask is None else mask.astype(np.int64)
    units = source.units(aggregate.column)
    nothing = {"sum": 0, "min": _LARGEST, "max": -_LARGEST}[name]
    return units if mask is None else np.where(mask, units, nothing)


def _items_of_events(source: _Source) -> tuple[_Items, _Rows]:
    """Every event an item, every distinct time a row. The source is ordered."""
    key, time = source.key, source.time
    last = np.append((key[1:] != key[:-1]) | (time[1:] != time[:-1]), True)
    return _Items(key, time, tile=0, parts={}, source=source), _Rows(key[last], time[last])


def _items_of_tiles(source: _Source, aggregates: Sequence[Aggregate], times: Times) -> tuple[_Items, _Rows]:
    """Every tile of a key that holds an event an item; rows as of the last event of a day, or of all.

    Tiles are so small that every window begins with one, and every row ends one.
    """
    hops = [exact.hop_us(each.window) for each in aggregates if exact.hop_us(each.window)]
    tile = math.gcd(*hops, DAY) if times == "days" else math.gcd(*hops) or DAY
    packed = _Packed.of(source.key, source.time // tile)
    groups = _Groups.of(packed.codes)
    parts: dict[tuple[Any, str], Integers] = {}
    for each in aggregates:
        for name in _partials(each):
            wanted = (_selection(each), name)
            if wanted not in parts and name == "n" and source.selected(each) is None:
                parts[wanted] = groups.count
            elif wanted not in parts:
                parts[wanted] = groups.combined(_part(source, each, name), name)
    key, number = packed.unpacked(groups.codes)
    start = number * tile
    ended = key[1:] != key[:-1]
    if times == "days":
        ended |= start[1:] // DAY != start[:-1] // DAY
    last = np.flatnonzero(np.append(ended, True))
    latest = groups.combined(source.time, "max")
    return _Items(key, start, tile=tile, parts=parts), _Rows(key[last], latest[last])


class _Groups:
    """Events with equal codes, added up.

    Args:
        codes: distinct, ascending.
        count: events of each.
    """

    def __init__(self, codes: Integers, count: Integers, group: Integers, order: Integers | None) -> None:
        self.codes = codes
        self.count = count
        self._group = group
        self._order = order

    @classmethod
    def of(cls, codes: Integers) -> _Groups:
        """Groups by counting where the codes lie densely, else by sorting."""
        low, high = int(codes.min()), int(codes.max())
        if high - low < 4 * len(codes):
            group = codes - low
            count = np.bincount(group)
            held = np.flatnonzero(count)
            return cls(held + low, count[held], group, None)
        order = np.argsort(codes)
        ordered = codes[order]
        starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
        return cls(ordered[starts], np.diff(np.append(starts, len(codes))), starts, order)

    def combined(self, values: Integers, how: str) -> Integers:
        """The sum, least or greatest value of each group; "n" adds up too."""
        combine = {"min": np.minimum, "max": np.maximum}.get(how, np.add)
        if self._order is not None:
            return np.asarray(combine.reduceat(values[self._order], self._group))
        held = self.codes - self.codes[0]
        nothing = {"min": _LARGEST, "max": -_LARGEST}.get(how, 0)
        found: Integers = np.full(int(held[-1]) + 1, nothing, np.int64)
        combine.at(found, self._group, values)
        return np.asarray(found[held])


def _partials(aggregate: Aggregate) -> tuple[str, ...]:
    """What a tile must know of its events for an aggregate."""
    if aggregate.window.kind == "session":
        return ()
    return {
        Function.COUNT: ("n",),
        Function.SUM: ("sum",),
        Function.MEAN: ("n", "sum"),
        Function.MIN: ("n", "min"),
        Function.MAX: ("n", "max"),
        Function.DECAYED_COUNT: ("n",),
        Function.DECAYED_SUM: ("sum",),
    }.get(aggregate.function, ())


def _column(aggregate: Aggregate, source: _Source, items: _Items, rows: _Rows) -> pa.Array:
    if aggregate.function in _LAST:
        return _last_values(aggregate, source.ordered, rows)
    if aggregate.function in _TEXT:
        if aggregate.function is Function.COUNT_DISTINCT and items.tile:
            found = _distinct_of_tile(aggregate, source, items.tile, rows)
            if found is not None:
                return pa.array(found)
        entries = _Entries.of(source, aggregate, items.tile)
        if aggregate.function is Function.COUNT_DISTINCT:
            return pa.array(_distinct(entries, aggregate.window, rows))
        if aggregate.function is Function.APPROX_DISTINCT:
            return pa.array(_approx_distinct(entries, aggregate.window, rows))
        return _top(entries, aggregate, rows)
    if aggregate.function in _DECAYED:
        return pa.array(_decayed(aggregate, items, rows))
    if aggregate.window.kind == "session":
        items, begin, end = _session(aggregate, source.ordered, rows)
    else:
        begin, end = items.range(aggregate.window, rows)
    return _summary(aggregate, items, begin, end)


def _summary(aggregate: Aggregate, items: _Items, begin: Integers, end: Integers) -> pa.Array:
    """Count, sum, mean, minimum or maximum over the items [begin, end) of each row."""
    function = aggregate.function
    if function is Function.SUM:
        return pa.array(exact.from_units(_sums(items.part(aggregate, "sum"), begin, end)))
    count = _sums(items.part(aggregate, "n"), begin, end)
    if function is Function.COUNT:
        return pa.array(count)
    if function is Function.MEAN:
        value = exact.mean(_sums(items.part(aggregate, "sum"), begin, end), count)
    elif function is Function.MIN:
        value = exact.from_units(_extreme(items.part(aggregate, "min"), begin, end, np.minimum))
    else:
        value = exact.from_units(_extreme(items.part(aggregate, "max"), begin, end, np.maximum))
    return pa.array(value, mask=count == 0)


def _sums(values: Integers, begin: Integers, end: Integers) -> Integers:
    total = np.concatenate([[0], np.cumsum(values)])
    return np.asarray(total[end] - total[begin])


def _extreme(values: Integers, begin: Integers, end: Integers, which: np.ufunc) -> Integers:
    """The least or greatest of each range, 0 where it is empty.

    Tables of doubling length, one after the other: a range is covered by two of the longest that fits.
    """
    found = np.zeros(len(begin), np.int64)
    length = end - begin
    level = np.frexp(length.astype(np.float64))[1] - 1
    table = values
    for k in range(int(level.max(initial=-1)) + 1):
        at = np.flatnonzero(level == k)
        found[at] = which(table[begin[at]], table[end[at] - (1 << k)])
        half = 1 << k
        table = which(table[:-half], table[half:])
    return found


def _begin(times: Integers, window: Window) -> Integers:
    """When the sliding window as of each time begins, microseconds."""
    return exact.first_tile(times, window) * exact.hop_us(window)


def _session(aggregate: Aggregate, source: _Source, rows: _Rows) -> tuple[_Items, Integers, Integers]:
    """The events an aggregate sees, and per row the range of the session that goes on."""
    mask = source.selected(aggregate)
    seen = slice(None) if mask is None else np.flatnonzero(mask)
    key, time = source.key[seen], source.time[seen]
    parts = {
        (_selection(aggregate), name): _part(source, aggregate, name)[seen]
        for name in ("n", "sum", "min", "max")
        if name == "n" or aggregate.column
        if name == "n" or aggregate.function is not Function.COUNT
    }
    items = _Items(key, time, tile=0, parts=parts)
    if not len(key):
        nothing = np.zeros(len(rows.key), np.int64)
        return items, nothing, nothing
    gap = aggregate.window.gap // timedelta(microseconds=1)
    begins = np.append(True, (key[1:] != key[:-1]) | (time[1:] - time[:-1] > gap))
    run = np.maximum.accumulate(np.where(begins, np.arange(len(key)), 0))
    end = items.index.after(rows.key, rows.time)
    last = np.maximum(end - 1, 0)
    going = (end > 0) & (key[last] == rows.key) & (rows.time - time[last] <= gap)
    return items, np.where(going, run[last], end), end


def _decayed(aggregate: Aggregate, items: _Items, rows: _Rows) -> npt.NDArray[np.float64]:
    """Tiles weighted by their age: the row's own by difference of prefix sums, older ones in chunks."""
    hop = exact.hop_us(aggregate.window)
    counted = aggregate.function is Function.DECAYED_COUNT
    values = items.part(aggregate, "n" if counted else "sum")
    total = np.concatenate([[0], np.cumsum(values)])
    begin, end = items.range(aggregate.window, rows)
    own = items.index.before(rows.key, rows.time // hop * hop)
    newest = exact.decay(np.zeros(1, np.int64), aggregate)
    found = np.stack(_products(total[end] - total[own], newest))
    number = items.time // hop
    starts = np.append(True, (items.key[1:] != items.key[:-1]) | (number[1:] != number[:-1]))
    run = np.flatnonzero(starts)
    held, number = np.diff(total[np.append(run, len(values))]), number[run]
    begin, own = np.searchsorted(run, begin), np.searchsorted(run, own)
    for part, row, place in _expanded(begin, own):
        age = rows.time[part][row] // hop - number[place]
        bounds = np.searchsorted(row, np.arange(part.stop - part.start + 1))
        for half, products in enumerate(_products(held[place], exact.decay(age, aggregate))):
            found[half, part] += _sums(products, bounds[:-1], bounds[1:])
    decayed = np.asarray((found[0] * float(_HALF) + found[1]) / exact.DECAY_UNIT, np.float64)
    return decayed if counted else decayed / UNIT


def _products(values: Integers, weights: Integers) -> tuple[Integers, Integers]:
    """Products in two halves, first * _HALF + second: whole ones don't fit 64 bits."""
    first = values // _HALF
    return first * weights, (values - first * _HALF) * weights


@dataclass(frozen=True)
class _Entries:
    """Which texts a key had when and how often, ordered by key, text and time. Times are tiles' starts
    where events are added up.
    """

    key: Integers
    text: Integers
    time: Integers
    count: Integers
    texts: pa.Array

    @classmethod
    def of(cls, source: _Source, aggregate: Aggregate, tile: int) -> _Entries:
        key, text, time, texts = _seen(source, aggregate)
        if tile and len(key):
            pair = _Packed.of(key, text)
            packed = _Packed.of(pair.codes, time // tile)
            codes = np.sort(packed.codes)
            starts = np.flatnonzero(np.append(True, codes[1:] != codes[:-1]))
            pairs, number = packed.unpacked(codes[starts])
            key, text = pair.unpacked(pairs)
            return cls(key, text, number * tile, np.diff(np.append(starts, len(codes))), texts)
        order = _order(key=key, text=text, time=time)
        return cls(key[order], text[order], time[order], np.ones(len(order), np.int64), texts)


def _distinct(entries: _Entries, window: Window, rows: _Rows) -> Integers:
    """Texts in each row's window: those whose stretch in the window has begun, less those that ended."""
    key, text, time = entries.key, entries.text, entries.time
    same = (key[1:] == key[:-1]) & (text[1:] == text[:-1])
    if window.kind == "unbounded":
        begun = np.append(True, ~same)[: len(key)]
        return _until(key[begun], time[begun], rows)
    if window.size == window.hop:
        hop = exact.hop_us(window)
        same &= time[1:] // hop == time[:-1] // hop
        begun = np.append(True, ~same)[: len(key)]
        return _until(key[begun], time[begun], rows, since=_begin(rows.time, window))
    over = _leaves(time, window)
    same &= over[:-1] > time[1:]
    begun, ended = np.append(True, ~same)[: len(key)], np.append(~same, True)[: len(key)]
    return _until(key[begun], time[begun], rows) - _until(key[ended], over[ended], rows)


def _distinct_of_tile(aggregate: Aggregate, source: _Source, tile: int, rows: _Rows) -> Integers | None:
    """Texts in each row's tile, where that is the whole window and rows end tiles; else None."""
    if aggregate.window.kind == "unbounded" or not exact.hop_us(aggregate.window) == tile == _size(aggregate):
        return None
    key, text, time, _ = _seen(source, aggregate)
    cells = _Packed.of(key, time // tile)
    packed = _Packed.of(cells.codes, text)
    if cells.firsts is not None or not len(key):
        return None
    codes = np.sort(packed.codes)
    held, _ = packed.unpacked(codes[np.append(True, codes[1:] != codes[:-1])])
    asked = (rows.key << cells.bits) + (rows.time // tile - cells.low)
    within = (rows.time // tile >= cells.low) & (rows.time // tile < cells.low + (1 << cells.bits))
    found = np.searchsorted(held, asked, "right") - np.searchsorted(held, asked, "left")
    return np.where(within, found, 0)


def _size(aggregate: Aggregate) -> int:
    return aggregate.window.size // timedelta(microseconds=1)


def _seen(source: _Source, aggregate: Aggregate) -> tuple[Integers, Integers, Integers, pa.Array]:
    """Key, text and time of the events that an aggregate of a text column sees, and the texts.

    Of a numeric column the numbers stand for the texts, one an event.
    """
    mask = source.selected(aggregate)
    if aggregate.column in NUMERIC_COLUMNS:
        texts = pa.array(exact.from_units(source.units(aggregate.column)))
        text = np.arange(len(texts))
    else:
        text, texts = source.text(aggregate.column)
    if mask is None:
        return source.key, text, source.time, texts
    return source.key[mask], text[mask], source.time[mask], texts


def _leaves(time: Integers, window: Window) -> Integers:
    """From when on an event of each time is in no sliding window, microseconds."""
    return (time // exact.hop_us(window) + window.size // window.hop) * exact.hop_us(window)


def _until(key: Integers, time: Integers, rows: _Rows, since: Integers | None = None) -> Integers:
    """How many of the moments (key, time) lie up to each row's time, or from `since` on up to it."""
    packed = _Packed.of(key, time)
    index = _Index(*packed.unpacked(np.sort(packed.codes)))
    begin = index.first(rows.key) if since is None else index.before(rows.key, since)
    return index.after(rows.key, rows.time) - begin


def _approx_distinct(entries: _Entries, window: Window, rows: _Rows) -> Integers:
    """A sketch a row, from when to when each event holds its register: from its time, or from when the
    last greater rank before it leaves the window; until it leaves itself, or an equal or greater comes.
    """
    register, rank = exact.registers(exact.stable_hash(entries.texts))
    register, rank = register[entries.text], rank[entries.text]
    order = _order(key=entries.key, register=register, time=entries.time)
    key, register, rank, time = entries.key[order], register[order], rank[order], entries.time[order]
    places = np.arange(len(key))
    same = (key[1:] == key[:-1]) & (register[1:] == register[:-1])
    begins = np.append(True, ~same)[: len(key)]
    group = np.cumsum(begins)
    leaves = np.full(len(key), _LARGEST) if window.kind == "unbounded" else _leaves(time, window)
    since, until = time.copy(), leaves.copy()
    ranks = np.unique(rank)
    for each in ranks.tolist():
        at = np.flatnonzero(rank == each)
        greater = places[rank > each]
        if len(greater):
            before = greater[np.maximum(np.searchsorted(greater, at) - 1, 0)]
            held = (before < at) & (group[before] == group[at])
            since[at] = np.where(held, np.maximum(since[at], leaves[before]), since[at])
        rival = places[rank >= each]
        after = rival[np.minimum(np.searchsorted(rival, at, "right"), len(rival) - 1)]
        taken = (after > at) & (group[after] == group[at])
        until[at] = np.where(taken, np.minimum(until[at], time[after]), until[at])
    holds = since < until
    counts = np.zeros((len(rows.key), len(ranks)), np.int64)
    for column, each in enumerate(ranks.tolist()):
        at = np.flatnonzero(holds & (rank == each))
        gone = at[until[at] < _LARGEST]
        counts[:, column] = _until(key[at], since[at], rows) - _until(key[gone], until[gone], rows)
    found = np.zeros(len(rows.key), np.int64)
    for part in _chunks(counts.sum(axis=1)):
        held = counts[part]
        size = len(held)
        seen = np.repeat(np.tile(ranks, size), held.ravel())
        sketch = np.repeat(np.repeat(np.arange(size), len(ranks)), held.ravel())
        found[part] = exact.cardinality(seen, sketch, size)
    return found


def _top(entries: _Entries, aggregate: Aggregate, rows: _Rows) -> pa.Array:
    """Per row the texts that came most often: the counts of all texts of its key, in chunks."""
    key, text, time = entries.key, entries.text, entries.time
    same = (key[1:] == key[:-1]) & (text[1:] == text[:-1])
    begins = np.append(True, ~same)[: len(key)]
    pair = np.cumsum(begins) - 1
    first = np.flatnonzero(begins)
    total = np.concatenate([[0], np.cumsum(entries.count)])
    index = _Index(pair, time)
    begin = np.searchsorted(key[first], rows.key, "left")
    end = np.searchsorted(key[first], rows.key, "right")
    kept_rows, kept_texts = [], []
    for part, row, wanted in _expanded(begin, end):
        asked = rows.time[part][row]
        upto = index.after(wanted, asked)
        if aggregate.window.kind == "unbounded":
            since = index.first(wanted)
        else:
            since = index.before(wanted, _begin(asked, aggregate.window))
        count = total[upto] - total[since]
        some = np.flatnonzero(count > 0)
        row, wanted, count = row[some], wanted[some], count[some]
        texts = text[first[wanted]]
        order = _order(row=row, fewer=-count, text=texts)
        row, texts = row[order], texts[order]
        place = np.arange(len(row)) - np.searchsorted(row, row, "left")
        best = place < aggregate.n
        kept_rows.append(row[best] + part.start)
        kept_texts.append(texts[best])
    return _lists(_joined(kept_rows), _joined(kept_texts), entries.texts, len(rows.key))


def _last_values(aggregate: Aggregate, source: _Source, rows: _Rows) -> pa.Array:
    """Per row the latest values of its window, oldest first. The source is ordered."""
    key, text, time, texts = _seen(source, aggregate)
    begin, end = _Items(key, time, tile=0, parts={}).range(aggregate.window, rows)
    kept_rows, kept_texts = [], []
    if aggregate.function is Function.LAST_N:
        for part, row, place in _expanded(np.maximum(begin, end - aggregate.n), end):
            kept_rows.append(row + part.start)
            kept_texts.append(text[place])
        return _lists(_joined(kept_rows), _joined(kept_texts), texts, len(rows.key))
    following = _following(key, text)
    asked, reach = np.arange(len(end)), 2 * aggregate.n
    while len(asked):
        start = np.maximum(begin[asked], end[asked] - reach)
        left = []
        for part, row, place in _expanded(start, end[asked]):
            mine = asked[part]
            latest = following[place] >= end[mine][row]
            row, place = row[latest], place[latest]
            bounds = np.searchsorted(row, np.arange(len(mine) + 1))
            held = np.diff(bounds)
            done = (held >= aggregate.n) | (start[part] == begin[mine])
            kept = (bounds[1:][row] - np.arange(len(row)) <= aggregate.n) & done[row]
            kept_rows.append(mine[row[kept]])
            kept_texts.append(text[place[kept]])
            left.append(mine[~done])
        asked, reach = _joined(left), 4 * reach
    row, values = _joined(kept_rows), _joined(kept_texts)
    order = np.argsort(row, kind="stable")
    return _lists(row[order], values[order], texts, len(rows.key))


def _following(key: Integers, text: Integers) -> Integers:
    """Per event, the position of its key's next event of the same text; beyond all where there is none."""
    order = _order(key=key, text=text, place=np.arange(len(key)))
    same = (key[order][1:] == key[order][:-1]) & (text[order][1:] == text[order][:-1])
    following = np.full(len(key), _LARGEST)
    following[order[:-1][same]] = order[1:][same]
    return following


@dataclass(frozen=True)
class _Packed:
    """Pairs of integers as one, in the order of the pairs.

    Args:
        codes: one a pair: the first member, shifted by `bits`, and the second's distance from `low`.
        firsts, seconds: where the pairs don't fit 63 bits, distinct members; packed is their place.
    """

    codes: Integers
    bits: int
    low: int
    firsts: Integers | None = None
    seconds: Integers | None = None

    @classmethod
    def of(cls, first: Integers, second: Integers) -> _Packed:
        if not len(first):
            return cls(np.zeros(0, np.int64), 0, 0)
        low, high = int(second.min()), int(second.max())
        bits = (high - low).bit_length()
        if int(first.max()).bit_length() + bits < 63:
            return cls((first << bits) + (second - low), bits, low)
        firsts, one = np.unique(first, return_inverse=True)
        seconds, other = np.unique(second, return_inverse=True)
        bits = len(seconds).bit_length()
        assert len(firsts).bit_length() + bits < 63
        return cls((one << bits) + other, bits, 0, firsts, seconds)

    def unpacked(self, codes: Integers) -> tuple[Integers, Integers]:
        first, second = codes >> self.bits, codes & ((1 << self.bits) - 1)
        if self.firsts is not None and self.seconds is not None:
            return self.firsts[first], self.seconds[second]
        return first, second + self.low


def _expanded(begin: Integers, end: Integers) -> Iterator[tuple[slice, Integers, Integers]]:
    """All positions of the ranges, in chunks of whole ranges.

    Yields:
        The chunk's ranges; per position the range it is of, counted from the chunk's first; the positions.
    """
    length = end - begin
    for part in _chunks(length):
        held = length[part]
        row = np.repeat(np.arange(len(held)), held)
        offset = np.cumsum(held) - held
        yield part, row, np.arange(len(row)) + np.repeat(begin[part] - offset, held)


def _chunks(length: Integers) -> Iterator[slice]:
    """Slices of rows with at most CHUNK elements each, or one row."""
    total = np.cumsum(length + 1)
    start = 0
    while start < len(length):
        done = int(total[start - 1]) if start else 0
        stop = max(int(np.searchsorted(total, done + CHUNK, "right")), start + 1)
        yield slice(start, stop)
        start = stop


def _lists(row: Integers, codes: Integers, texts: pa.Array, rows: int) -> pa.Array:
    """Lists of texts, one for each of `rows`; `row` ascends."""
    offsets = np.searchsorted(row, np.arange(rows + 1))
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), texts.take(pa.array(codes)))


def _joined(parts: Sequence[Integers]) -> Integers:
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)


def _order(**columns: Integers) -> Integers:
    """The places of rows in the order of their columns; of rows equal in all, in any."""
    if not len(next(iter(columns.values()))):
        return np.zeros(0, np.int64)
    packed, width = np.zeros(1, np.int64), 0
    for column in columns.values():
        low = int(column.min())
        bits = (int(column.max()) - low).bit_length()
        width += bits
        if width > 62:
            places = pl.DataFrame(columns).select(pl.arg_sort_by(list(columns)))
            return places.to_series().to_numpy().astype(np.int64)
        packed = (packed << bits) + (column - low)
    return np.argsort(packed)


def _is_sorted(columns: Sequence[Integers]) -> bool:
    equal = np.ones(max(len(columns[0]) - 1, 0), bool)
    for column in columns:
        if (equal & (column[1:] < column[:-1])).any():
            return False
        equal &= column[1:] == column[:-1]
    return True


def _among(codes: Integers, texts: pa.Array, accepted: Sequence[str]) -> Mask:
    """Which codes are of accepted texts; code -1 is of none."""
    named = pc.is_in(texts, pa.array(list(map(str, accepted)), pa.string())).to_numpy(zero_copy_only=False)
    return np.asarray(np.append(named, False)[codes])


def _encode(column: pa.ChunkedArray) -> tuple[Integers, pa.Array]:
    """Codes in the order of the texts, -1 for null, and the texts."""
    if not len(column):
        return np.zeros(0, np.int64), pa.array([], pa.string())
    if pa.types.is_dictionary(column.type):
        column = column.unify_dictionaries()
        chunks = [chunk.indices for chunk in column.chunks]
        texts = column.chunk(0).dictionary.cast(pa.string())
        held = np.arange(len(texts))
    else:
        chunks, held, texts = _categories(column)
    order = pc.sort_indices(texts).to_numpy()
    place = np.full(int(held.max(initial=-1)) + 2, -1)
    place[held[order]] = np.arange(len(texts))
    codes = np.empty(len(column), np.int64)
    start = 0
    for chunk in chunks:
        found = chunk.fill_null(-1) if chunk.null_count else chunk
        np.take(place, found.to_numpy(), out=codes[start : start + len(chunk)], mode="wrap")
        start += len(chunk)
    return codes, texts.take(pa.array(order))


def _categories(column: pa.ChunkedArray) -> tuple[list[pa.Array], Integers, pa.Array]:
    """Numbers for texts, chunk by chunk; the distinct numbers, and their texts."""
    kind = pl.Categorical(pl.Categories.random())
    values = pl.Series(pl.from_arrow(column))

    def coded(start: int) -> pl.Series:
        return values.slice(start, AT_ONCE).cast(kind)

    with ThreadPoolExecutor(pa.cpu_count()) as threads:
        series = list(threads.map(coded, range(0, len(values), AT_ONCE)))
    distinct = pl.concat(series).drop_nulls().unique()
    numbers = distinct.to_physical().to_numpy().astype(np.int64)
    chunks = [each.to_physical().to_arrow().cast(pa.int64()) for each in series]
    return chunks, numbers, distinct.cast(pl.String).to_arrow().cast(pa.string())


def _integers(column: pa.ChunkedArray) -> Integers:
    return np.asarray((column.fill_null(0) if column.null_count else column).to_numpy(), dtype=np.int64)
