"""What the stream knows of a group of partitions: all state of one worker, and none of its I/O.

Members live in one partition, so their rows are computed here. Titles span partitions: here is the part of
their state that these partitions contribute, and `keeper.Keeper` unites the parts. Everything follows from
the partitions' logs alone: the same log leaves the same state behind, however it was cut into batches and
whichever worker read it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from matinee.features.aggregates import AggregateState
from matinee.features.commits import StateTables
from matinee.features.exact import Integers
from matinee.features.history import History
from matinee.features.seen import SeenIds
from matinee.features.transforms import VIEWS, WATCH_SCHEMA, Genres, View, watches_of
from matinee.features.trust.expectations import ViewExpectations, Violations
from matinee.schema import AggregateView

_MEMBER, _TITLE = "member/", "title/"


@dataclass(frozen=True, kw_only=True)
class Views:
    """The views a stream computes.

    Args:
        aggregates: declared as aggregates over windows.
        histories: computed from the whole history of a key (`transforms.VIEWS`).
        expectations: by view, what its values are expected to be.
        objectives: by view, seconds from an event's arrival to its values being readable.
    """

    aggregates: Sequence[AggregateView]
    histories: Sequence[View] = tuple(VIEWS.values())
    expectations: Mapping[str, ViewExpectations] = field(default_factory=dict)
    objectives: Mapping[str, float] = field(default_factory=dict)

    def of(self, key: str) -> Views:
        """Those of members or those of titles."""
        return replace(
            self,
            aggregates=[view for view in self.aggregates if view.key == key],
            histories=[view for view in self.histories if view.key == key],
        )

    def check(self, violations: Violations, name: str, rows: pa.Table) -> None:
        """Count where rows of a view are not what is expected of them."""
        if name in self.expectations:
            violations.add(self.expectations[name], rows)

    @property
    def names(self) -> list[str]:
        """In the order in which they are published: who sees an event in the last one sees it in all."""
        return [*(view.name for view in self.aggregates), *(view.name for view in self.histories)]

    @property
    def lateness(self) -> int:
        """Microseconds after which an event is late for every view that has a lateness."""
        held = [view.lateness for view in self.aggregates if view.lateness is not None]
        return max(held, default=timedelta(0)) // timedelta(microseconds=1)

    @property
    def bounded(self) -> bool:
        """Whether every view has a lateness, so that older events change nothing any more."""
        return not self.histories and all(view.lateness is not None for view in self.aggregates)


@dataclass(frozen=True, kw_only=True)
class Taken:
    """What became of a batch.

    Args:
        new: bool, of each event of the batch, whether its id was new.
        events: the new ones, with `late_by` (LAKE_SCHEMA).
        late: per view, events refused as late.
        letters: per view that sends late events to the dead letters, whether each of `events` is one.
    """

    new: npt.NDArray[np.bool_]
    events: pa.Table
    late: Mapping[str, int]
    letters: Mapping[str, npt.NDArray[np.bool_]]

    @property
    def duplicates(self) -> int:
        """Events whose id was known."""
        return int((~self.new).sum())


@dataclass(frozen=True, kw_only=True)
class Push:
    """What a worker tells the keeper of titles: absolute values, so that telling twice changes nothing.

    Args:
        cluster: id of the cluster that the positions count.
        positions: per partition, the offset up to which the values hold.
        newest: per partition, the latest event time, microseconds.
        state: state tables of the titles that changed, in order.
        watches: new watches, for the views that need every one (WATCH_SCHEMA).
    """

    cluster: str
    positions: Mapping[int, int]
    newest: Mapping[int, int]
    state: Sequence[StateTables]
    watches: pa.Table


@dataclass
class PartitionGroup:
    """State of some partitions.

    Args:
        views: what is computed.
        genres: of each title.
    """

    views: Views
    genres: Genres
    newest: dict[int, int] = field(default_factory=dict)
    """Per partition the latest event time, microseconds."""
    due: dict[str, set[str]] = field(default_factory=dict)
    """Per member view, the keys whose rows are to be published."""

    def __post_init__(self) -> None:
        members, titles = self.views.of("member_id"), self.views.of("title_id")
        self._members = AggregateState(members.aggregates)
        self._titles = AggregateState(titles.aggregates)
        self._history = History("member_id")
        self._histories = {view.name: view for view in members.histories}
        self._keeps_watches = bool(titles.histories)
        self._seen = SeenIds()
        self._unpushed: list[StateTables] = []
        self._uncommitted: list[StateTables] = []
        self._watches: list[pa.Table] = []
        self.due = {name: set() for name in members.names}

    def take(self, events: pa.Table) -> Taken:
        """Fold a batch in.

        Args:
            events: LAKE_SCHEMA, in the order of arrival; `late_by` is filled in here.
        """
        partition = events["partition"].to_numpy().astype(np.int64)
        time = events["event_time"].cast(pa.int64()).to_numpy()
        late_by = self._late_by(partition, time)
        new = self._seen.add(events["event_id"].combine_chunks(), partition, time + late_by)
        column = events.schema.get_field_index("late_by")
        kept = events.set_column(column, events.schema.field(column), pa.array(late_by))
        kept = kept if new.all() else kept.filter(pa.array(new))
        late: dict[str, int] = {}
        letters: dict[str, npt.NDArray[np.bool_]] = {}
        for state in (self._members, self._titles):
            applied = state.apply(kept)
            late.update(applied.late)
            letters.update(applied.late_rows)
            if state is self._members:
                for view, keys in applied.touched.items():
                    self.due[view].update(keys)
        self._note_history(kept)
        return Taken(new=new, events=kept, late=late, letters=letters)

    def restore(self, tables: StateTables, partitions: Collection[int]) -> None:
        """Take committed state of these partitions; `fold` gives what else the lake knows."""
        for prefix, state in ((_MEMBER, self._members), (_TITLE, self._titles)):
            mine = {
                name.removeprefix(prefix): table for name, table in tables.items() if name.startswith(prefix)
            }
            if mine:
                state.restore(mine, partitions=partitions)

    def remember(self, events: pa.Table) -> None:
        """Take what the lake says of events whose aggregates were restored: ids, times, watches."""
        if not events.num_rows:
            return
        partition = events["partition"].to_numpy().astype(np.int64)
        time = events["event_time"].cast(pa.int64()).to_numpy()
        late_by = pc.fill_null(events["late_by"], 0).to_numpy()
        self._seen.add(events["event_id"].combine_chunks(), partition, time + late_by)
        self._late_by(partition, time)
        self._note_history(events, watches=False)

    def fold(self, events: pa.Table, tables: Collection[str]) -> None:
        """Fold events of the lake into some state tables only: those that are new, or behind the lake."""
        for prefix, state in ((_MEMBER, self._members), (_TITLE, self._titles)):
            mine = [name.removeprefix(prefix) for name in tables if name.startswith(prefix)]
            if mine and events.num_rows:
                state.apply_to(events, mine)

    @property
    def tables(self) -> dict[str, str]:
        """State tables and the digests of their definitions."""
        return {
            f"{prefix}{name}": digest
            for prefix, state in ((_MEMBER, self._members), (_TITLE, self._titles))
            for name, digest in state.tables().items()
        }

    def publish_all(self) -> None:
        """Every member's rows are due: the online store may hold less, or more."""
        for view in self.views.of("member_id").aggregates:
            self.due[view.name].update(self._members.rows(view.name)["member_id"].to_pylist())
        for name, history in self._histories.items():
            self.due[name].update(self._history.all.touched(history))

    def rows(self, view: str) -> pa.Table:
        """The latest rows of a member view that are due."""
        if view in self._histories:
            return self._history.latest(self._histories[view], self.due[view], self.genres)
        return self._members.rows(view, self.due[view])

    def push(self, cluster: str, positions: Mapping[int, int], *, whole: bool = False) -> Push:
        """What changed for titles since the push before; `whole`: everything but watches."""
        self._collect_titles()
        state = [self._titles.snapshot()] if whole else self._unpushed
        watches = pa.concat_tables([WATCH_SCHEMA.empty_table(), *self._watches])
        self._unpushed, self._watches = [], []
        return Push(
            cluster=cluster,
            positions=dict(positions),
            newest=dict(self.newest),
            state=state,
            watches=watches,
        )

    def changes(self) -> list[StateTables]:
        """State tables that changed since the call before, in order, for a commit."""
        self._collect_titles()
        changed, self._uncommitted = self._uncommitted, []
        if members := _filled(self._members.changes()):
            changed.append(_named(_MEMBER, members))
        return changed

    def snapshot(self) -> list[StateTables]:
        """All state tables, for a commit."""
        self.changes()
        return [_named(_MEMBER, self._members.snapshot()), _named(_TITLE, self._titles.snapshot())]

    def prune(self) -> None:
        """Drop state that no event to come can need."""
        if not self.newest:
            return
        watermark = min(self.newest.values()) - self.views.lateness
        self._members.prune(watermark)
        self._titles.prune(watermark)
        if self.views.bounded:
            self._seen.forget(watermark)

    @property
    def nbytes(self) -> int:
        """Bytes that aggregates hold."""
        return self._members.nbytes + self._titles.nbytes

    def _late_by(self, partition: Integers, time: Integers) -> Integers:
        """How far each event is behind the latest before it in its partition, microseconds."""
        late_by = np.zeros(len(time), np.int64)
        for place in np.unique(partition).tolist():
            at = np.flatnonzero(partition == place)
            newest = np.maximum.accumulate(np.concatenate([[self.newest.get(place, -1)], time[at]]))
            late_by[at] = np.maximum(newest[:-1] - time[at], 0)
            self.newest[place] = int(newest[-1])
        return late_by

    def _note_history(self, events: pa.Table, *, watches: bool = True) -> None:
        if self._histories:
            added = self._history.add(events)
            for name, view in self._histories.items():
                self.due[name].update(added.touched(view))
        if watches and self._keeps_watches:
            self._watches.append(watches_of(events))

    def _collect_titles(self) -> None:
        if titles := _filled(self._titles.changes()):
            self._unpushed.append(titles)
            self._uncommitted.append(_named(_TITLE, titles))


def _filled(tables: StateTables) -> StateTables:
    return {name: table for name, table in tables.items() if table.num_rows}


def _named(prefix: str, tables: StateTables) -> StateTables:
    return {f"{prefix}{name}": table for name, table in tables.items()}


def of_partitions(events: pa.Table, partitions: Collection[int]) -> pa.Table:
    """The events of some partitions."""
    return events.filter(pc.is_in(events["partition"], pa.array(sorted(partitions), pa.int32())))


def newest_event(rows: pa.Table) -> int:
    """The latest event_timestamp of a view's rows, microseconds; 0 where there are none."""
    return int(rows["event_timestamp"].cast(pa.int64()).to_numpy().max(initial=0))
