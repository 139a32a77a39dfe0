"""A micro-batch as the state tables see it: columns as arrays, each computed once, and the rows they add."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from matinee.features import exact
from matinee.features.aggregates.keyed import Columns, Slots, Texts
from matinee.features.aggregates.plan import TILED, Kind, Measure, Partial, StateTable
from matinee.features.exact import Hashes, Integers

Mask = npt.NDArray[np.bool_]

_WIDEST = 1 << 62


class Batch:
    """Events and what is derived from them.

    Args:
        events: rows of LAKE_SCHEMA; columns that nothing asks for may be missing, and text columns may be
            dictionaries.
    """

    def __init__(self, events: pa.Table) -> None:
        self._events = events
        self.time = self.integers("event_time")
        self._texts: dict[str, tuple[Integers, Mask | None, pa.Array, Hashes]] = {}
        self._units: dict[str, Integers] = {}
        self._masks: dict[tuple[str, tuple[str, ...]], Mask | None] = {}

    def __len__(self) -> int:
        return len(self.time)

    def integers(self, name: str) -> Integers:
        """An integer or time column; 0 for null."""
        column = _flat(self._events[name]).cast(pa.int64())
        return np.asarray((column.fill_null(0) if column.null_count else column).to_numpy())

    def units(self, name: str) -> Integers:
        """A numeric column in millionths; 0 for null."""
        if name not in self._units:
            column = _flat(self._events[name]).cast(pa.float64())
            filled = column.fill_null(0.0) if column.null_count else column
            self._units[name] = exact.units(filled.to_numpy())
        return self._units[name]

    def text(self, name: str) -> tuple[Integers, Mask | None, pa.Array, Hashes]:
        """A text column: of each event a position among the distinct texts (0 for null), which events have
        one (None: all), the texts, their hashes.
        """
        if name not in self._texts:
            column = _flat(self._events[name])
            if pa.types.is_dictionary(column.type) and len(column.dictionary.unique()) < len(
                column.dictionary
            ):
                column = column.dictionary_decode()
            if not pa.types.is_dictionary(column.type):
                column = column.dictionary_encode()
            places = column.indices
            valid = np.asarray(places.is_valid()) if places.null_count else None
            if valid is not None:
                places = places.fill_null(0)
            texts = column.dictionary
            self._texts[name] = (
                places.to_numpy().astype(np.int64),
                valid,
                texts,
                exact.stable_hash(texts),
            )
        return self._texts[name]

    def mask(self, column: str, types: tuple[str, ...]) -> Mask | None:
        """Which events have these types (empty: any) and a column that is not null; None: all."""
        found = (column, types)
        if found not in self._masks:
            mask = None
            if column:
                valid = self._events[column].is_valid()
                mask = None if self._events[column].null_count == 0 else np.asarray(valid.to_numpy())
            if types:
                places, _, texts, _ = self.text("type")
                of_type = np.array([each in types for each in texts.to_pylist()], np.bool_)[places]
                mask = of_type if mask is None else mask & of_type
            self._masks[found] = None if mask is None or mask.all() else mask
        return self._masks[found]

    def any_of(self, wanted: Collection[tuple[str, tuple[str, ...]]]) -> Mask | None:
        """Which events at least one of these masks names; None: all."""
        masks = [self.mask(*each) for each in wanted]
        found = np.zeros(len(self), np.bool_)
        for mask in masks:
            if mask is None:
                return None
            found |= mask
        return found


class Keyed:
    """The events of a batch by their key: slots of (partition, key) pairs.

    Attributes:
        slots: those of the batch, distinct.
        place: of each event the position in `slots`; 0 where the key is null.
        valid: which events have a key; None: all.
    """

    def __init__(self, batch: Batch, column: str, slots: Slots, texts: Texts) -> None:
        places, self.valid, keys, hashes = batch.text(column)
        partition = batch.integers("partition")
        if self.valid is not None:
            places, partition = places[self.valid], partition[self.valid]
        least, most = int(partition.min(initial=0)), int(partition.max(initial=0))
        self.place, first = grouped([(places, len(keys)), (partition - least, most - least + 1)])
        if self.valid is not None:
            place = np.zeros(len(batch), np.int64)
            place[self.valid] = self.place
            self.place = place
        key, of_partition = places[first], partition[first]
        self.slots = slots.find(hashes[key], of_partition)
        new = np.flatnonzero(self.slots < 0)
        if len(new):
            distinct, inverse = np.unique(key[new], return_inverse=True)
            codes = texts.add(hashes[distinct], keys.take(pa.array(distinct)))[inverse]
            self.slots[new] = slots.add(hashes[key[new]], of_partition[new], codes)


def grouped(columns: Sequence[tuple[Integers, int]]) -> tuple[Integers, Integers]:
    """Number the distinct rows of columns, ascending.

    Args:
        columns: values from 0 to a bound, and the bound, most significant first.

    Returns:
        The number of each row, and of each number a row that has it.
    """
    packed, width = columns[0]
    for column, bound in columns[1:]:
        if width * bound >= _WIDEST:
            packed, width = _ranks(packed)
            if width * bound >= _WIDEST:
                column, bound = _ranks(column)
        packed, width = packed * bound + column, width * bound
    if width <= 4 * len(packed) + 1024:
        one = np.full(width, -1, np.int64)
        one[packed] = np.arange(len(packed))
        used = one >= 0
        return (np.cumsum(used) - 1)[packed], one[used]
    order = np.argsort(packed)
    ordered = packed[order]
    new = np.ones(len(order), np.bool_)
    new[1:] = ordered[1:] != ordered[:-1]
    number = np.empty(len(order), np.int64)
    number[order] = np.cumsum(new) - 1
    return number, order[new]


def partials(
    table: StateTable, batch: Batch, place: Integers, places: int, chosen: Integers | None
) -> tuple[Integers, Columns]:
    """What events add to a state table, but for totals.

    Args:
        place: of each chosen event the position of its slot: 0 to `places` - 1.
        chosen: rows of the batch that count; None: all.

    Returns:
        The place of each state row, ascending, and the rows.
    """
    if table.kind in TILED:
        return _tiled(table, batch, place, places, chosen)
    return _listed(table, batch, place, chosen)


def measured(each: Partial, batch: Batch, rows: Integers | Mask | None) -> Integers | int:
    """What each event adds to a partial."""
    if each.measure is Measure.COUNT:
        return 1
    held = batch.time if each.measure is Measure.LATEST else batch.units(each.column)
    return held if rows is None else held[rows]


def both(one: Mask | None, other: Mask | None) -> Mask | None:
    """The events that both masks name; None: all."""
    if one is None or other is None:
        return other if one is None else one
    return one & other


def _tiled(
    table: StateTable, batch: Batch, place: Integers, places: int, chosen: Integers | None
) -> tuple[Integers, Columns]:
    """Rows of a batch for a table of tiles, by place; and their places."""
    tile = exact.tiles(batch.time if chosen is None else batch.time[chosen], table.hop)
    least = int(tile.min())
    columns = [(place, places), (tile - least, int(tile.max()) - least + 1)]
    item: npt.NDArray[Any] | None = None
    ranks: npt.NDArray[np.uint8] | None = None
    if table.kind is not Kind.TILES:
        at, _, _, hashes = batch.text(table.column)
        at = at if chosen is None else at[chosen]
        if table.kind is Kind.ITEMS:
            item = hashes
            columns.append((at, len(hashes)))
        else:
            register, rank = exact.registers(hashes)
            item, ranks = register, rank.astype(np.uint8)
            columns.append((register[at], 1 << exact.REGISTER_BITS))
    number, first = grouped(columns)
    rows: Columns = {"tile": tile[first]}
    if item is not None:
        rows["item"] = item[at[first]]
    for each in table.partials:
        dtype = np.uint8 if each.measure is Measure.RANK else np.int64
        found = np.full(len(first), each.empty, dtype)
        mask = batch.mask(each.column, each.types)
        if mask is not None and chosen is not None:
            mask = mask[chosen]
        at_number = number if mask is None else number[mask]
        if each.measure is Measure.RANK:
            assert ranks is not None
            values: npt.NDArray[Any] | int = ranks[at if mask is None else at[mask]]
        else:
            values = measured(each, batch, _rows(chosen, mask))
        if each.measure is Measure.COUNT:
            found = np.bincount(at_number, minlength=len(first))
        else:
            each.combine.at(found, at_number, values)
        rows[each.name] = found
    return place[first], rows


def _listed(
    table: StateTable, batch: Batch, place: Integers, chosen: Integers | None
) -> tuple[Integers, Columns]:
    """Rows of a batch for a table of events or sessions, one an event, by place; and their places."""
    time = batch.time if chosen is None else batch.time[chosen]
    order = np.argsort(place)
    rows: Columns = {}
    if table.kind is Kind.SESSIONS:
        rows["start"] = rows["end"] = time[order]
        for each in table.partials:
            values = measured(each, batch, chosen)
            rows[each.name] = np.full(len(order), values) if isinstance(values, int) else values[order]
        return place[order], rows
    offset = batch.integers("offset")
    rows["time"] = time[order]
    rows["offset"] = (offset if chosen is None else offset[chosen])[order]
    if table.lists_numbers:
        items = batch.units(table.column).view(np.uint64)
    else:
        at, _, _, hashes = batch.text(table.column)
        items = hashes[at]
    rows["item"] = (items if chosen is None else items[chosen])[order]
    return place[order], rows


def _rows(chosen: Integers | None, mask: Mask | None) -> Integers | Mask | None:
    """Rows of the batch: those of `chosen` that `mask` names."""
    if chosen is None or mask is None:
        return mask if chosen is None else chosen
    return chosen[mask]


def _ranks(column: Integers) -> tuple[Integers, int]:
    values, rank = np.unique(column, return_inverse=True)
    return rank.astype(np.int64), len(values)


def _flat(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if isinstance(column, pa.ChunkedArray):
        column = column.chunk(0) if column.num_chunks else pa.array([], column.type)
    return column
