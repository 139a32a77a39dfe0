"""From state rows to feature values: pure functions on arrays.

Rows belong to groups: a group is a key as of its latest event, or a key and a window that closes.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from matinee.features import exact
from matinee.features.aggregates.keyed import Columns, Texts
from matinee.features.aggregates.plan import Kind, Measure, Partial, Source, StateTable
from matinee.features.aggregates.tables import groups, latest, sessions
from matinee.features.exact import Integers
from matinee.schema import UNIT, Aggregate, Function

_EXACT = float(1 << 62)


class Rows:
    """State rows of a table beside the groups they count in.

    Args:
        group: of each row: 0 to len(times) - 1.
        partition: of each row.
        times: of each group, the time its values are as of.
    """

    def __init__(
        self, table: StateTable, group: Integers, partition: Integers, columns: Columns, times: Integers
    ) -> None:
        self.table = table
        self.group = group
        self.partition = partition
        self.columns = columns
        self.times = times

    def only(self, kept: npt.NDArray[np.bool_]) -> Rows:
        """Some of the rows."""
        if kept.all():
            return self
        columns = {name: each[kept] for name, each in self.columns.items()}
        return Rows(self.table, self.group[kept], self.partition[kept], columns, self.times)

    def within(self, aggregate: Aggregate) -> Rows:
        """The rows inside the aggregate's window."""
        window = aggregate.window
        if window.kind not in ("sliding", "tumbling"):
            return self
        first = exact.first_tile(self.times, window)
        if "tile" in self.columns:
            return self.only(self.columns["tile"] >= first[self.group])
        return self.only(self.columns["time"] >= (first * exact.hop_us(window))[self.group])


def values(aggregate: Aggregate, source: Source, rows: Rows, texts: Texts) -> pa.Array:
    """An aggregate's value of each group.

    Args:
        rows: of the aggregate's state table, inside its window (`Rows.within`).
    """
    function = aggregate.function
    if function in (Function.LAST_N, Function.LAST_N_DISTINCT):
        return _lists(aggregate, rows, texts)
    if function is Function.TOP_K:
        return _top(aggregate, source, rows, texts)
    if function is Function.COUNT_DISTINCT:
        seen = rows.only(rows.columns[source.partials[0].name] > 0)
        order, starts = groups([seen.group, seen.columns["item"]])
        return pa.array(np.bincount(seen.group[order[starts]], minlength=len(rows.times)).astype(np.int64))
    if function is Function.APPROX_DISTINCT:
        (rank,) = source.partials
        seen = rows.only(rows.columns[rank.name] > 0)
        order, starts = groups([seen.group, seen.columns["item"]])
        if not len(order):
            return pa.array(np.zeros(len(rows.times), np.int64))
        highest = np.maximum.reduceat(seen.columns[rank.name][order], starts).astype(np.int64)
        return pa.array(exact.cardinality(highest, seen.group[order[starts]], len(rows.times)))
    if function in (Function.DECAYED_COUNT, Function.DECAYED_SUM):
        return _decayed(aggregate, source, rows)
    if rows.table.kind is Kind.SESSIONS:
        rows = _going_on(rows)
    return _numeric(function, [_combined(each, rows) for each in source.partials])


def _combined(partial: Partial, rows: Rows) -> Integers:
    found = np.full(len(rows.times), partial.empty, np.int64)
    partial.combine.at(found, rows.group, rows.columns[partial.name])
    return found


def _numeric(function: Function, partials: list[Integers]) -> pa.Array:
    if function is Function.COUNT:
        return pa.array(partials[0])
    if function is Function.SUM:
        return pa.array(exact.from_units(partials[0]))
    if function is Function.MEAN:
        return pa.array(exact.mean(*partials), mask=partials[1] == 0)
    empty = Partial(measure=_MEASURES[function]).empty
    return pa.array(exact.from_units(partials[0]), mask=partials[0] == empty)


def _decayed(aggregate: Aggregate, source: Source, rows: Rows) -> pa.Array:
    (partial,) = source.partials
    hop = exact.hop_us(aggregate.window)
    weight = exact.decay((rows.times // hop)[rows.group] - rows.columns["tile"], aggregate)
    held = rows.columns[partial.name]
    total = np.zeros(len(rows.times), np.int64)
    np.add.at(total, rows.group, held * weight)
    found = total / exact.DECAY_UNIT
    bound = np.zeros(len(rows.times))
    np.add.at(bound, rows.group, np.abs(held.astype(np.float64)) * weight)
    large = np.flatnonzero(bound >= _EXACT)
    if len(large):
        # More than 64 bits hold: Python's integers for those groups.
        of_large = np.isin(rows.group, large)
        wide = np.zeros(len(rows.times), object)
        np.add.at(wide, rows.group[of_large], held[of_large].astype(object) * weight[of_large].astype(object))
        found[large] = [each / exact.DECAY_UNIT for each in wide[large]]
    return pa.array(found if aggregate.function is Function.DECAYED_COUNT else found / UNIT)


def _going_on(rows: Rows) -> Rows:
    """Of each group the session that goes on at its time."""
    if not len(rows.group):
        return rows
    group, columns = sessions(rows.table, rows.group, rows.columns)
    last = np.append(group[1:] != group[:-1], True)
    going = last & (rows.times[group] - columns["end"] <= rows.table.hop)
    return Rows(rows.table, group, np.zeros(len(group), np.int64), columns, rows.times).only(going)


def _lists(aggregate: Aggregate, rows: Rows, texts: Texts) -> pa.Array:
    distinct = aggregate.function is Function.LAST_N_DISTINCT
    group, columns = latest(rows.group, rows.columns, aggregate.n, distinct=distinct, ties=rows.partition)
    if rows.table.lists_numbers:
        numbers = exact.from_units(columns["item"].view(np.int64))
        return pa.ListArray.from_arrays(_offsets(group, len(rows.times)), pa.array(numbers))
    return _list_array(group, texts.find(columns["item"]), len(rows.times), texts)


def _top(aggregate: Aggregate, source: Source, rows: Rows, texts: Texts) -> pa.Array:
    (partial,) = source.partials
    seen = rows.only(rows.columns[partial.name] > 0)
    order, starts = groups([seen.group, seen.columns["item"]])
    if not len(order):
        return _list_array(order, order, len(rows.times), texts)
    group, item = seen.group[order[starts]], seen.columns["item"][order[starts]]
    count = np.add.reduceat(seen.columns[partial.name][order], starts)
    # Only items as frequent as the n-th of their group can be in it; ties among them go by text.
    by_count, _ = groups([group, -count])
    group, item, count = group[by_count], item[by_count], count[by_count]
    first = np.searchsorted(group, group)
    size = np.searchsorted(group, group, side="right") - first
    kept = count >= count[first + np.minimum(aggregate.n, size) - 1]
    group, count, code = group[kept], count[kept], texts.find(item[kept])
    distinct, inverse = np.unique(code, return_inverse=True)
    rank = np.empty(len(distinct), np.int64)
    rank[pc.sort_indices(texts.take(distinct)).to_numpy()] = np.arange(len(distinct))
    best, _ = groups([group, -count, rank[inverse]])
    group = group[best]
    within = np.arange(len(group)) - np.searchsorted(group, group) < aggregate.n
    return _list_array(group[within], code[best[within]], len(rows.times), texts)


def _list_array(group: Integers, codes: Integers, size: int, texts: Texts) -> pa.Array:
    """Lists of texts; `group` ascends."""
    return pa.ListArray.from_arrays(_offsets(group, size), texts.take(codes))


def _offsets(group: Integers, size: int) -> pa.Array:
    return pa.array(np.searchsorted(group, np.arange(size + 1)).astype(np.int32))


_MEASURES = {Function.MIN: Measure.MIN, Function.MAX: Measure.MAX}
