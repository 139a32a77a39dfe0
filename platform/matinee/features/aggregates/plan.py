"""Which state tables a set of aggregate views needs, and which columns of them each aggregate reads.

Views are multiplexed: what they have in common (key, lateness, tile, column) is held and updated once. A
thousand aggregates of a few windows need a handful of tables, whose columns are the distinct partial values.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum
from functools import cached_property

import numpy as np
import pyarrow as pa

from matinee.features import exact
from matinee.schema import NUMERIC_COLUMNS, Aggregate, AggregateView, Function

LEAST = int(np.iinfo(np.int64).min)
GREATEST = int(np.iinfo(np.int64).max)
_MICROSECOND = timedelta(microseconds=1)


class Measure(StrEnum):
    """What a partial value holds of the events it stands for."""

    COUNT = "count"
    SUM = "sum"
    MIN = "min"
    MAX = "max"
    RANK = "rank"
    """Highest rank of a sketch's register."""
    LATEST = "latest"
    """Latest event time, microseconds."""


@dataclass(frozen=True, kw_only=True)
class Partial:
    """A column of partial values: integers that combine in any order.

    Args:
        column: only events where it is not null; empty: all.
        types: only events of these types, ascending; empty: all.
    """

    measure: Measure
    column: str = ""
    types: tuple[str, ...] = ()

    @cached_property
    def name(self) -> str:
        """Of its column in the state table."""
        return "|".join([self.measure, self.column, "+".join(self.types)])

    @property
    def combine(self) -> np.ufunc:
        """Of two partial values."""
        if self.measure in (Measure.COUNT, Measure.SUM):
            return np.add
        return np.minimum if self.measure is Measure.MIN else np.maximum

    @property
    def empty(self) -> int:
        """The value that stands for no events."""
        if self.measure is Measure.MIN:
            return GREATEST
        return LEAST if self.measure in (Measure.MAX, Measure.LATEST) else 0


class Kind(StrEnum):
    """What the rows of a state table stand for, next to partition and key."""

    TOTALS = "totals"
    """All events: one row a key, with the latest event times of the views."""
    TILES = "tiles"
    """The events of a tile."""
    ITEMS = "items"
    """The events of a tile with one value of `column`."""
    REGISTERS = "registers"
    """The events of a tile whose value of `column` falls into one register of a sketch."""
    LATEST = "latest"
    """One of the n latest events where `column` is not null; of a numeric column, of all."""
    LATEST_DISTINCT = "latest_distinct"
    """The latest event with one of the n values of `column` that came latest."""
    SESSIONS = "sessions"
    """A run of events of which none comes more than `hop` after the one before."""


TILED = (Kind.TILES, Kind.ITEMS, Kind.REGISTERS)


@dataclass(frozen=True, kw_only=True)
class StateTable:
    """The definition of a state table.

    Args:
        lateness: microseconds; later events are left out; None: none is.
        hop: microseconds of a tile, 0 for a single one; of SESSIONS the gap.
        column: of ITEMS, REGISTERS, LATEST, LATEST_DISTINCT, SESSIONS.
        types: event types of LATEST, LATEST_DISTINCT, SESSIONS.
        n: rows kept of LATEST, LATEST_DISTINCT.
        reaches: how far back views look: (name of the view's LATEST partial, tiles). It decides what may be
            dropped, not what the rows mean.
    """

    kind: Kind
    key: str
    lateness: int | None
    hop: int = 0
    column: str = ""
    types: tuple[str, ...] = ()
    n: int = 0
    partials: tuple[Partial, ...] = ()
    reaches: tuple[tuple[str, int], ...] = ()

    @cached_property
    def name(self) -> str:
        """Stable between processes, unique within a plan, fit for a file name."""
        late = "any" if self.lateness is None else str(self.lateness)
        parts = [self.kind, self.key, late, str(self.hop), self.column, "+".join(self.types)]
        return "-".join(parts).rstrip("-")

    @property
    def digest(self) -> str:
        """Of everything that decides which rows given events leave: 16 hex digits."""
        columns = [each.name for each in self.partials]
        text = json.dumps([1, self.name, self.n, columns])
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def lists_numbers(self) -> bool:
        """Whether its items are numbers in millionths, held as their bits, and not hashes of texts."""
        return self.kind is Kind.LATEST and self.column in NUMERIC_COLUMNS

    @cached_property
    def schema(self) -> pa.Schema:
        """Of its rows: partition, key (`exact.stable_hash` of it), what else the kind has, the partials."""
        own: dict[Kind, list[tuple[str, pa.DataType]]] = {
            Kind.TOTALS: [],
            Kind.TILES: [("tile", pa.int64())],
            Kind.ITEMS: [("tile", pa.int64()), ("item", pa.uint64())],
            Kind.REGISTERS: [("tile", pa.int64()), ("item", pa.int16())],
            Kind.LATEST: [("time", pa.int64()), ("offset", pa.int64()), ("item", pa.uint64())],
            Kind.SESSIONS: [("start", pa.int64()), ("end", pa.int64())],
        }
        own[Kind.LATEST_DISTINCT] = own[Kind.LATEST]
        partials = [
            (each.name, pa.uint8() if each.measure is Measure.RANK else pa.int64()) for each in self.partials
        ]
        return pa.schema([("partition", pa.int32()), ("key", pa.uint64()), *own[self.kind], *partials])


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where an aggregate's values come from: a state table and partials of it, in the order it uses them."""

    table: str
    partials: tuple[Partial, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ViewPlan:
    """Where a view's values come from.

    Args:
        latest: the time of each key's latest row.
        sources: by aggregate name.
        presence: of a view whose closed windows are asked for, the events of each tile.
    """

    view: AggregateView
    types: tuple[str, ...]
    lateness: int | None
    latest: Source
    sources: Mapping[str, Source]
    presence: Source | None = None

    @property
    def tables(self) -> frozenset[str]:
        """Names of all state tables it reads."""
        return frozenset([self.latest.table, *(each.table for each in self.sources.values())])


@dataclass(frozen=True, kw_only=True)
class Plan:
    """State tables by name, and views by name."""

    tables: Mapping[str, StateTable]
    views: Mapping[str, ViewPlan]


def compile_views(views: Sequence[AggregateView], closed: Collection[str] = ()) -> Plan:
    """The plan of `views`; `closed` names those whose closed windows will be asked for.

    Raises:
        ValueError: two views have one name.
    """
    if len({view.name for view in views}) < len(views):
        raise ValueError(f"views {', '.join(view.name for view in views)}: a name stands twice")
    tables: dict[str, StateTable] = {}
    plans = {}
    for view in views:
        types, lateness = _sorted(view.types), _microseconds(view.lateness)
        own = StateTable(kind=Kind.TOTALS, key=view.key, lateness=lateness)
        last = Partial(measure=Measure.LATEST, types=types)
        latest = _source(tables, own, [last])
        sources = {}
        for each in view.aggregates:
            table, partials = _needs(view, lateness, each)
            if table.kind in TILED and table.hop:
                reach = (last.name, each.window.size // each.window.hop)
                table = replace(table, reaches=(reach,))
            sources[each.name] = _source(tables, table, partials)
        presence = None
        if view.name in closed:
            hop = exact.hop_us(view.aggregates[0].window)
            tiles = StateTable(kind=Kind.TILES, key=view.key, lateness=lateness, hop=hop)
            presence = _source(tables, tiles, [Partial(measure=Measure.COUNT, types=types)])
        plans[view.name] = ViewPlan(
            view=view, types=types, lateness=lateness, latest=latest, sources=sources, presence=presence
        )
    return Plan(tables=tables, views=plans)


def _source(tables: dict[str, StateTable], table: StateTable, partials: Sequence[Partial]) -> Source:
    """Add what an aggregate needs to `tables`: partials and reaches side by side, the greater n."""
    held = tables.get(table.name, table)
    every = {each.name: each for each in (*held.partials, *partials)}
    reach = dict(held.reaches)
    for name, tiles in table.reaches:
        reach[name] = max(tiles, reach.get(name, 0))
    tables[table.name] = replace(
        held,
        partials=tuple(every[name] for name in sorted(every)),
        reaches=tuple(sorted(reach.items())),
        n=max(held.n, table.n),
    )
    return Source(table=table.name, partials=tuple(partials))


def _needs(
    view: AggregateView, lateness: int | None, aggregate: Aggregate
) -> tuple[StateTable, list[Partial]]:
    function, window, column = aggregate.function, aggregate.window, aggregate.column
    types = _sorted(aggregate.types)
    table = StateTable(kind=Kind.TILES, key=view.key, lateness=lateness, hop=exact.hop_us(window))
    if function in (Function.COUNT_DISTINCT, Function.TOP_K):
        table = replace(table, kind=Kind.ITEMS, column=column)
        return table, [Partial(measure=Measure.COUNT, types=types)]
    if function is Function.APPROX_DISTINCT:
        table = replace(table, kind=Kind.REGISTERS, column=column)
        return table, [Partial(measure=Measure.RANK, types=types)]
    if function in (Function.LAST_N, Function.LAST_N_DISTINCT):
        kind = Kind.LATEST if function is Function.LAST_N else Kind.LATEST_DISTINCT
        return replace(table, kind=kind, hop=0, column=column, types=types, n=aggregate.n), []
    measures = {
        Function.COUNT: [Measure.COUNT],
        Function.DECAYED_COUNT: [Measure.COUNT],
        Function.SUM: [Measure.SUM],
        Function.DECAYED_SUM: [Measure.SUM],
        Function.MEAN: [Measure.SUM, Measure.COUNT],
        Function.MIN: [Measure.MIN],
        Function.MAX: [Measure.MAX],
    }[function]
    partials = [Partial(measure=measure, column=column, types=types) for measure in measures]
    if window.kind == "unbounded":
        table = replace(table, kind=Kind.TOTALS)
    if window.kind == "session":
        gap = window.gap // _MICROSECOND
        table = replace(table, kind=Kind.SESSIONS, hop=gap, column=column, types=types)
    return table, partials


def _sorted(types: Collection[str]) -> tuple[str, ...]:
    return tuple(sorted(str(each) for each in types))


def _microseconds(time: timedelta | None) -> int | None:
    return None if time is None else time // _MICROSECOND
