"""The state of aggregate views: events in, latest rows out, and everything it holds as Arrow tables.

State rows carry the partition their events came from. What a key has in several partitions stands side by
side and is combined when values are computed, so the state of a partition can move, and that of several
workers be united, without counting anything twice.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from matinee.errors import InvalidInput
from matinee.features import exact
from matinee.features.aggregates import values
from matinee.features.aggregates.batch import Batch, Keyed, Mask, both, grouped, measured, partials
from matinee.features.aggregates.keyed import Columns, Slots, Texts, distinct, grown, spread
from matinee.features.aggregates.plan import (
    GREATEST,
    LEAST,
    Kind,
    StateTable,
    ViewPlan,
    compile_views,
)
from matinee.features.aggregates.tables import Log, Totals
from matinee.features.exact import Integers
from matinee.schema import TIMESTAMP, AggregateView

TEXTS = "texts"
"""Name of the table of texts beside the state tables: hash, text."""
CHUNK = 1 << 20
"""Events folded at a time by `latest`."""
_EXPANDED = 4_000_000
"""Most (row, window) pairs that `AggregateState.closed` holds at a time, about."""


@dataclass(frozen=True)
class Applied:
    """What a micro-batch did.

    Args:
        touched: by view, the keys whose latest row may differ; computed when read.
        late: by view, events refused as late, of those its types name and whose key is not null.
        late_rows: by view with the policy "dead_letter", which events were refused: bool [events].
    """

    touched: Mapping[str, list[str]]
    late: Mapping[str, int]
    late_rows: Mapping[str, npt.NDArray[np.bool_]]


class AggregateState:
    """Holds what the views' latest rows need. Not safe between threads.

    Args:
        views: with distinct names.
        closed: names of views whose closed windows will be asked for: their state keeps the tiles of
            windows that are still to close.

    Raises:
        ValueError: two views have one name.
        InvalidInput: a view named in `closed` is unknown or its windows do not close (see `closed`).
    """

    def __init__(self, views: Sequence[AggregateView], *, closed: Collection[str] = ()) -> None:
        _check_closed(views, closed)
        self._plan = compile_views(views, closed)
        self._texts = Texts()
        self._slots: dict[str, Slots] = {view.key: Slots() for view in views}
        self._totals = {
            name: Totals(table) for name, table in self._plan.tables.items() if table.kind is Kind.TOTALS
        }
        self._logs = {
            name: Log(table) for name, table in self._plan.tables.items() if table.kind is not Kind.TOTALS
        }
        self._changed = {name: np.zeros(0, np.bool_) for name in self._plan.tables}
        """By state table, the slots that the next `changes` gives."""
        self._exported_texts = 0
        self._watermark = LEAST
        self._emitted: dict[str, int] = {}
        """By view, the last tile of the last window that `closed` gave."""
        self._closing: dict[str, list[tuple[str, int]]] = {}
        for name in closed:
            plan = self._plan.views[name]
            window = plan.view.aggregates[0].window
            for table in {each.table for each in (*plan.sources.values(), plan.presence) if each is not None}:
                self._closing.setdefault(table, []).append((name, window.size // window.hop))

    @property
    def nbytes(self) -> int:
        """Memory that the state holds, about."""
        held = [self._held(name).nbytes for name in self._plan.tables]
        return self._texts.nbytes + sum(each.nbytes for each in self._slots.values()) + sum(held)

    def tables(self) -> Mapping[str, str]:
        """State-table names and the digests of their definitions."""
        return {name: table.digest for name, table in self._plan.tables.items()}

    def apply(self, events: pa.Table) -> Applied:
        """Fold events into the state.

        Args:
            events: rows of LAKE_SCHEMA in any order, from any partitions, none of which was applied before.
                Columns that no view reads may be missing; text columns may be dictionaries.
        """
        batch = Batch(events)
        if not len(batch):
            names = self._plan.views
            none = np.zeros(0, np.bool_)
            dead = {name: none for name, plan in names.items() if plan.view.late == "dead_letter"}
            return Applied({name: [] for name in names}, dict.fromkeys(names, 0), dead)
        keyed = self._keyed(batch)
        late_by = batch.integers("late_by")
        self._fold(batch, keyed, late_by, self._plan.tables)
        return self._applied(batch, keyed, late_by)

    def apply_to(self, events: pa.Table, tables: Collection[str]) -> None:
        """Back-fill: fold events into these state tables only.

        Every table starts empty here, so a table is complete once all events were folded into it, in any
        pieces. Back-fill before `apply` goes on, and before rows are read.
        """
        batch = Batch(events)
        if len(batch):
            self._fold(batch, self._keyed(batch), batch.integers("late_by"), tables)

    def rows(self, view: str, keys: Collection[str] | None = None) -> pa.Table:
        """The latest row of each key that has one.

        Args:
            keys: only these; None: all.

        Returns:
            Rows of `view.schema`, ascending by key.
        """
        plan = self._plan.views[view]
        slots = self._slots[plan.view.key]
        if keys is None:
            chosen = np.arange(len(slots))
        else:
            asked = pa.array(sorted(set(keys)), pa.string())
            codes = self._texts.find(exact.stable_hash(asked))
            chosen = slots.of(codes[codes >= 0])
        time = self._totals[plan.latest.table].column(plan.latest.partials[0].name, chosen)
        chosen, time = chosen[time > LEAST], time[time > LEAST]
        codes, group = np.unique(slots.code[chosen].astype(np.int64), return_inverse=True)
        times = np.full(len(codes), LEAST)
        np.maximum.at(times, group, time)
        held: dict[str, values.Rows] = {}
        for name in {each.table for each in plan.sources.values()}:
            table = self._plan.tables[name]
            counts, columns = self._held(name).gather(chosen)
            partition = np.repeat(slots.partition[chosen].astype(np.int64), counts)
            held[name] = values.Rows(table, np.repeat(group, counts), partition, columns, times)
        rows = pa.table(
            [self._texts.take(codes), *self._features(plan, held), pa.array(times).cast(TIMESTAMP)],
            schema=plan.view.schema,
        )
        return rows.take(pc.sort_indices(rows[plan.view.key]))

    def closed(self, view: str, until: int) -> pa.Table:
        """Windows that closed since the last call, with the values they closed with.

        Args:
            view: one named at construction.
            until: microseconds; windows that end at or before it have closed. Events that come later for
                them are not seen again here.

        Returns:
            key, window_start, window_end (timestamps) and the aggregates as of one microsecond before the
            end: one row for each key and window that holds a counted event, in no set order.
        """
        plan = self._plan.views[view]
        if plan.presence is None:
            raise InvalidInput(f"view {view}: its closed windows were not asked for at construction")
        window = plan.view.aggregates[0].window
        hop = exact.hop_us(window)
        last = until // hop - 1
        names = {plan.presence.table, *(each.table for each in plan.sources.values())}
        held = {name: self._tiles(name) for name in names}
        present, _, _ = held[plan.presence.table]
        first = self._emitted.get(view, LEAST) + 1
        if view not in self._emitted:
            first = int(present["tile"].min(initial=GREATEST))
        parts = []
        step = max(1, _EXPANDED // max(1, *(len(columns["tile"]) for columns, _, _ in held.values())))
        for start in range(min(first, last + 1), last + 1, step):
            parts.append(self._closed(plan, held, start, min(start + step - 1, last)))
        self._emitted[view] = max(last, self._emitted.get(view, LEAST))
        fields = [field for field in plan.view.schema if field.name not in (plan.view.key, "event_timestamp")]
        start_and_end = [("window_start", TIMESTAMP), ("window_end", TIMESTAMP)]
        schema = pa.schema([(plan.view.key, pa.string()), *start_and_end, *fields])
        return pa.concat_tables([schema.empty_table(), *(part.cast(schema) for part in parts)])

    def changes(self) -> dict[str, pa.Table]:
        """What differs from the last call: all rows of each (partition, key) touched by `apply` or
        `apply_to`, by state table, and under `TEXTS` the texts that are new.

        Two tables that stand for the same state may differ in their rows: some may not be combined yet.
        """
        found = {}
        for name, changed in self._changed.items():
            slots = np.flatnonzero(changed)
            found[name] = self._exported(name, slots)
            changed[slots] = False
        found[TEXTS] = self._exported_since(self._exported_texts)
        self._exported_texts = len(self._texts)
        return found

    def snapshot(self) -> dict[str, pa.Table]:
        """All rows of all state tables, and all texts."""
        found = {name: self._exported(name, self._held(name).slots()) for name in self._plan.tables}
        found[TEXTS] = self._exported_since(0)
        return found

    def restore(self, tables: Mapping[str, pa.Table], *, partitions: Collection[int] | None = None) -> None:
        """Take what `snapshot` or `changes` gave, here or elsewhere.

        The rows given of a (state table, partition, key) replace those held, so a base and then its deltas
        may come in that order, more than once, and beside those of other workers. What comes this way is
        not in `changes`. Tables of no view are left out.

        Args:
            partitions: only rows of these; None: all.

        Raises:
            InvalidInput: a table's columns are not those of its definition, or a key's text is missing.
        """
        texts = tables.get(TEXTS)
        if texts is not None and texts.num_rows:
            hashes = np.asarray(texts["hash"].to_numpy())
            distinct, first = np.unique(hashes, return_index=True)
            nothing_new = self._exported_texts == len(self._texts)
            self._texts.add(distinct, texts["text"].combine_chunks().take(pa.array(first)))
            if nothing_new:
                self._exported_texts = len(self._texts)
        for name, rows in tables.items():
            if name not in self._plan.tables:
                continue
            if rows.schema.names != self._plan.tables[name].schema.names:
                raise InvalidInput(
                    f"state table {name}: columns {rows.schema.names}; "
                    f"{self._plan.tables[name].schema.names} are expected: back-fill it"
                )
            if partitions is not None:
                chosen = pa.array(list(partitions), pa.int32())
                rows = rows.filter(pc.is_in(rows["partition"], value_set=chosen))
            if rows.num_rows:
                self._restore(name, rows)

    def touched_by(self, tables: Mapping[str, pa.Table]) -> dict[str, list[str]]:
        """By view, the keys whose latest row may differ after `restore(tables)`. A view without any is left
        out.
        """
        found = {}
        keys: dict[str, npt.NDArray[np.uint64]] = {
            name: distinct(rows["key"].to_numpy())
            for name, rows in tables.items()
            if name in self._plan.tables and rows.num_rows
        }
        new = tables.get(TEXTS)
        known: dict[frozenset[str], list[str]] = {}
        for view, plan in self._plan.views.items():
            used = plan.tables.intersection(keys)
            if not used:
                continue
            if used not in known:
                hashes = distinct(np.concatenate([keys[name] for name in used]))
                codes = self._texts.find(hashes)
                names = self._texts.take(codes[codes >= 0]).to_pylist()
                if new is not None and (codes < 0).any():
                    missing = pc.is_in(new["hash"], value_set=pa.array(hashes[codes < 0]))
                    names += new["text"].filter(missing).to_pylist()
                known[used] = sorted(set(names))
            found[view] = known[used]
        return found

    def prune(self, watermark: int) -> None:
        """Drop state that no row needs any more, and combine the rest.

        The latest row of each key stays as it is, and so do all later ones. Tiles older than the longest
        window as of the key's own latest event go, whatever the lateness, because no row as of that time
        or later counts them; `apply` drops them as well when it needs the room. Of a member, whose events
        lie in one partition, sessions that no event can reach any more go, but for the last. Sessions of
        titles, parts of which may be held elsewhere, and those of views without a lateness are kept.

        Args:
            watermark: microseconds; no event before it will come that is not late for every view that has
                a lateness.
        """
        self._watermark = max(self._watermark, watermark)
        for name, log in self._logs.items():
            log.combine(self._floor(name))

    def _keyed(self, batch: Batch) -> dict[str, Keyed]:
        return {column: Keyed(batch, column, slots, self._texts) for column, slots in self._slots.items()}

    def _held(self, name: str) -> Totals | Log:
        return self._totals[name] if name in self._totals else self._logs[name]

    def _fold(
        self, batch: Batch, keyed: Mapping[str, Keyed], late_by: Integers, tables: Collection[str]
    ) -> None:
        populations: dict[tuple[str, int | None], Mask | None] = {}
        # Totals first: they say what the other tables may drop.
        for name in sorted(tables, key=lambda each: each not in self._totals):
            table = self._plan.tables[name]
            if not len(keyed[table.key].slots):
                continue
            population = (table.key, table.lateness)
            if population not in populations:
                populations[population] = _in_time(keyed[table.key], late_by, table.lateness)
            if table.kind is Kind.TOTALS:
                self._fold_totals(table, batch, keyed[table.key], populations[population])
            else:
                self._fold_log(table, batch, keyed[table.key], populations[population])

    def _mark(self, name: str, slots: Integers) -> None:
        changed = grown(self._changed[name], int(slots.max(initial=-1)) + 1)
        changed[slots] = True
        self._changed[name] = changed

    def _fold_totals(self, table: StateTable, batch: Batch, keyed: Keyed, counted: Mask | None) -> None:
        totals = self._totals[table.name]
        slots = keyed.slots[keyed.place]
        touched = np.zeros(len(keyed.slots), np.bool_)
        for each in table.partials:
            mask = both(counted, batch.mask(each.column, each.types))
            mine = slots if mask is None else slots[mask]
            totals.fold(each, mine, measured(each, batch, mask))
            touched[keyed.place if mask is None else keyed.place[mask]] = True
        self._mark(table.name, keyed.slots[touched])

    def _fold_log(self, table: StateTable, batch: Batch, keyed: Keyed, counted: Mask | None) -> None:
        wanted = {(each.column, each.types) for each in table.partials} or {("", table.types)}
        mask = both(counted, batch.any_of(wanted))
        if table.column and not table.lists_numbers:
            mask = both(mask, batch.mask(table.column, ()))
        if mask is not None and not mask.any():
            return
        chosen = None if mask is None else np.flatnonzero(mask)
        place = keyed.place if chosen is None else keyed.place[chosen]
        if table.kind in (Kind.ITEMS, Kind.LATEST, Kind.LATEST_DISTINCT) and not table.lists_numbers:
            _, _, texts, hashes = batch.text(table.column)
            self._texts.add(hashes, texts)
        place, rows = partials(table, batch, place, len(keyed.slots), chosen)
        counts = np.bincount(place, minlength=len(keyed.slots))
        slots, counts = keyed.slots[counts > 0], counts[counts > 0]
        self._logs[table.name].fold(slots, counts, rows, self._floor(table.name))
        self._mark(table.name, slots)

    def _floor(self, name: str) -> partial[Integers]:
        return partial(self._first_needed, self._plan.tables[name])

    def _first_needed(self, table: StateTable, slots: Integers) -> Integers:
        """See `tables.Floor`."""
        if table.kind is Kind.SESSIONS:
            floor = np.full(len(slots), LEAST)
            if table.key == "member_id" and table.lateness is not None and self._watermark > LEAST:
                # A member's events lie in one partition: alone, the slot's sessions are all there are.
                floor[self._slots[table.key].alone(slots)] = self._watermark - table.hop
            return floor
        floor = np.full(len(slots), GREATEST)
        totals = self._totals.get(StateTable(kind=Kind.TOTALS, key=table.key, lateness=table.lateness).name)
        assert totals is not None
        for latest, tiles in table.reaches:
            time = totals.column(latest, slots)
            np.minimum(floor, time // table.hop - (tiles - 1), out=floor, where=time > LEAST)
        for view, tiles in self._closing.get(table.name, ()):
            np.minimum(floor, self._emitted.get(view, LEAST + tiles) + 2 - tiles, out=floor)
        return np.where(floor == GREATEST, LEAST, floor)

    def _applied(self, batch: Batch, keyed: Mapping[str, Keyed], late_by: Integers) -> Applied:
        late, late_rows = {}, {}
        known: dict[tuple[str, int | None, tuple[str, ...]], tuple[Integers, int, Mask | None]] = {}
        touched = {}
        for name, plan in self._plan.views.items():
            same = (plan.view.key, plan.lateness, plan.types)
            if same not in known:
                mine = keyed[plan.view.key]
                of_types = both(mine.valid, batch.mask("", plan.types))
                on_time = _in_time(mine, late_by, plan.lateness)
                counted = both(of_types, on_time)
                refused = None
                if plan.lateness is not None and (late_by > plan.lateness).any():
                    refused = late_by > plan.lateness
                    refused = refused if of_types is None else refused & of_types
                found = np.zeros(len(mine.slots), np.bool_)
                found[mine.place if counted is None else mine.place[counted]] = True
                count = 0 if refused is None else int(refused.sum())
                known[same] = (mine.slots[found], count, refused)
            slots, count, refused = known[same]
            touched[name] = slots
            late[name] = count
            if plan.view.late == "dead_letter":
                late_rows[name] = np.zeros(len(batch), np.bool_) if refused is None else refused
        return Applied(_Touched(self, touched), late, late_rows)

    def _names_of(self, view: str, slots: Integers) -> list[str]:
        codes = distinct(self._slots[self._plan.views[view].view.key].code[slots].astype(np.int64))
        names: list[str] = self._texts.take(codes).to_pylist()
        return names

    def _features(self, plan: ViewPlan, held: Mapping[str, values.Rows]) -> list[pa.Array]:
        """The aggregates' values; rows inside a window are picked once for all that share it."""
        inside: dict[tuple[str, object], values.Rows] = {}
        found = []
        for each in plan.view.aggregates:
            source = plan.sources[each.name]
            same = (source.table, each.window)
            if same not in inside:
                inside[same] = held[source.table].within(each)
            found.append(values.values(each, source, inside[same], self._texts))
        return found

    def _tiles(self, name: str) -> tuple[Columns, Integers, Integers]:
        """All rows of a table of tiles, with the code of the key and the partition of each."""
        log = self._logs[name]
        slots = self._slots[log.table.key]
        having = log.slots()
        counts, columns = log.gather(having)
        code = np.repeat(slots.code[having].astype(np.int64), counts)
        return columns, code, np.repeat(slots.partition[having].astype(np.int64), counts)

    def _closed(
        self,
        plan: ViewPlan,
        held: Mapping[str, tuple[Columns, Integers, Integers]],
        first: int,
        last: int,
    ) -> pa.Table:
        """The windows whose last tile is one of `first` to `last`."""
        assert plan.presence is not None
        window = plan.view.aggregates[0].window
        hop, width = exact.hop_us(window), window.size // window.hop
        spans = last - first + 1
        expanded = {name: _windows(*each, first, last, width) for name, each in held.items()}
        columns, code, _, end = expanded[plan.presence.table]
        present = np.flatnonzero(columns[plan.presence.partials[0].name] > 0)
        number, one = grouped([(code[present], len(self._texts)), (end[present] - first, spans)])
        of_group, times = code[present][one], (end[present][one] + 1) * hop - 1
        pairs = of_group * spans + end[present][one] - first
        rows = {}
        for name, (columns, code, partition, end) in expanded.items():
            table = self._plan.tables[name]
            if name == plan.presence.table:
                group, kept = number, present
            else:
                pair = code * spans + end - first
                group = np.searchsorted(pairs, pair)
                kept = (
                    np.flatnonzero(pairs[np.minimum(group, len(pairs) - 1)] == pair)
                    if len(pairs)
                    else pair[:0]
                )
                group = group[kept]
            columns = {field: each[kept] for field, each in columns.items()}
            rows[name] = values.Rows(table, group, partition[kept], columns, times)
        ends = times + 1
        starts = ends - width * hop
        return pa.table(
            [
                self._texts.take(of_group),
                pa.array(starts).cast(TIMESTAMP),
                pa.array(ends).cast(TIMESTAMP),
                *self._features(plan, rows),
            ],
            names=[plan.view.key, "window_start", "window_end", *(a.name for a in plan.view.aggregates)],
        )

    def _exported(self, name: str, slots: Integers) -> pa.Table:
        table = self._plan.tables[name]
        if name in self._logs:
            self._logs[name].tidy(slots, self._floor(name))
        counts, columns = self._held(name).gather(slots)
        own = self._slots[table.key]
        of_row = np.repeat(slots, counts)
        columns["partition"] = own.partition[of_row]
        columns["key"] = self._texts.hashes(own.code[of_row].astype(np.int64))
        return pa.table(
            [pa.array(columns[each.name], each.type) for each in table.schema], schema=table.schema
        )

    def _exported_since(self, start: int) -> pa.Table:
        codes = np.arange(start, len(self._texts))
        return pa.table(
            [pa.array(self._texts.hashes(codes)), self._texts.take(codes)], names=["hash", "text"]
        )

    def _restore(self, name: str, rows: pa.Table) -> None:
        table = self._plan.tables[name]
        columns: Columns = {field: np.asarray(rows[field].to_numpy()) for field in rows.schema.names}
        partition, key = columns.pop("partition").astype(np.int64), columns.pop("key")
        heads = np.flatnonzero(np.insert((key[1:] != key[:-1]) | (partition[1:] != partition[:-1]), 0, True))
        slots = self._slots_of(table, key[heads], partition[heads])
        of_row = np.repeat(slots, np.diff(np.append(heads, len(key))))
        order = np.argsort(of_row, kind="stable")
        each_slot, counts = np.unique(of_row, return_counts=True)
        ordered = {field: each[order] for field, each in columns.items()}
        self._held(name).replace(each_slot, counts, ordered)

    def _slots_of(self, table: StateTable, key: npt.NDArray[np.uint64], partition: Integers) -> Integers:
        """The slots of pairs that may repeat, new ones where there are none."""
        own = self._slots[table.key]
        slots = own.find(key, partition)
        missing = np.flatnonzero(slots < 0)
        if len(missing):
            codes = self._texts.find(key[missing])
            if (codes < 0).any():
                raise InvalidInput(f"state table {table.name}: {(codes < 0).sum()} keys without a text")
            pair = np.stack([codes, partition[missing]])
            once, first, inverse = np.unique(pair, axis=1, return_index=True, return_inverse=True)
            added = own.add(key[missing[first]], once[1], once[0])
            slots[missing] = added[inverse.reshape(-1)]
        return slots


class _Touched(Mapping[str, list[str]]):
    """Keys by view, looked up when they are read."""

    def __init__(self, state: AggregateState, slots: Mapping[str, Integers]) -> None:
        self._state = state
        self._slots = slots
        self._found: dict[int, list[str]] = {}
        """By identity of the slots: views of one key, lateness and types share theirs."""

    def __getitem__(self, view: str) -> list[str]:
        slots = self._slots[view]
        if id(slots) not in self._found:
            self._found[id(slots)] = self._state._names_of(view, slots)
        return self._found[id(slots)]

    def __iter__(self) -> Iterator[str]:
        return iter(self._slots)

    def __len__(self) -> int:
        return len(self._slots)


def latest(view: AggregateView, events: pa.Table) -> pa.Table:
    """The latest row of each key over `events` (rows of LAKE_SCHEMA, each once): rows of `view.schema`."""
    state = AggregateState([view])
    for start in range(0, events.num_rows, CHUNK):
        state.apply(events.slice(start, CHUNK))
    return state.rows(view.name)


def _check_closed(views: Sequence[AggregateView], closed: Collection[str]) -> None:
    named = {view.name: view for view in views}
    for name in closed:
        if name not in named:
            raise InvalidInput(f"view {name!r} is unknown; {', '.join(named)} are known")
        windows = {each.window for each in named[name].aggregates}
        lists = [each.name for each in named[name].aggregates if each.function.startswith("last_n")]
        if len(windows) != 1 or next(iter(windows)).kind not in ("sliding", "tumbling") or lists:
            raise InvalidInput(
                f"view {name}: windows close where all aggregates have one sliding or tumbling window "
                "and none is a list of latest values"
            )


def _in_time(keyed: Keyed, late_by: Integers, lateness: int | None) -> Mask | None:
    """Which events a population counts: those with a key that are not late. None: all."""
    if lateness is None or not (late_by > lateness).any():
        return keyed.valid
    return both(keyed.valid, late_by <= lateness)


def _windows(
    columns: Columns, code: Integers, partition: Integers, first: int, last: int, width: int
) -> tuple[Columns, Integers, Integers, Integers]:
    """Rows once for each window they lie in, of those whose last tile is one of `first` to `last`; with
    that tile.
    """
    tile = columns["tile"]
    if first == last:
        at = np.flatnonzero((tile > last - width) & (tile <= last))
        end = np.full(len(at), last)
    else:
        low = np.maximum(tile, first)
        counts = np.maximum(np.minimum(tile + width - 1, last) - low + 1, 0)
        at = np.repeat(np.arange(len(tile)), counts)
        end = spread(low, counts)
    return {name: each[at] for name, each in columns.items()}, code[at], partition[at], end
