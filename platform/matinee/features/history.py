"""The stream's state: every watch so far, found by member and by title, and every event id seen.

Rows are recomputed from the whole history of the keys a batch touched, so an event that comes late, in
another batch or in another order leaves the same values behind. It is held in memory (about half a
kilobyte an event) and knows nothing of disks: the lake is its durable form.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from matinee.features.transforms import ROW_SCHEMA, WATCH_SCHEMA, Genres, View, watches_of

_MOST_CHUNKS = 64
"""Appended frames after which the history is made contiguous again."""


@dataclass(frozen=True, kw_only=True)
class Added:
    """What one batch of events changed.

    Args:
        accepted: bool [events], False where another event with the same id was seen before. An event
            that is replayed from its own place in the log is accepted again and changes nothing.
        members: members with a new event.
        watchers: members with a new watch.
        titles: titles with a new watch.
    """

    accepted: npt.NDArray[np.bool_]
    members: Collection[str]
    watchers: Collection[str]
    titles: Collection[str]


class History:
    """Watches and seen event ids, grown by `add`."""

    def __init__(self) -> None:
        self._places: dict[str, tuple[str, int, int]] = {}
        self._latest: dict[str, int] = {}
        self._latest_watch: dict[str, dict[str, int]] = {"member_id": {}, "title_id": {}}
        self._rows: dict[str, dict[str, list[int]]] = {"member_id": {}, "title_id": {}}
        self._watches = pl.DataFrame(pl.from_arrow(WATCH_SCHEMA.empty_table()))

    def __len__(self) -> int:
        """Distinct events seen."""
        return len(self._places)

    @property
    def members(self) -> Collection[str]:
        """Every member with an event."""
        return self._latest.keys()

    @property
    def watchers(self) -> Collection[str]:
        """Every member with a watch."""
        return self._rows["member_id"].keys()

    @property
    def titles(self) -> Collection[str]:
        """Every title with a watch."""
        return self._rows["title_id"].keys()

    def add(self, events: pa.Table, *, log: str) -> Added:
        """Take events (at least `transforms.WATCH_COLUMNS`) in the order of arrival.

        Args:
            log: names the log that the events' partition and offset belong to.
        """
        accepted = np.ones(events.num_rows, dtype=bool)
        new = np.ones(events.num_rows, dtype=bool)
        ids = events["event_id"].to_pylist()
        places = zip(events["partition"].to_pylist(), events["offset"].to_pylist(), strict=True)
        for i, (event_id, (partition, offset)) in enumerate(zip(ids, places, strict=True)):
            place = (log, partition, offset)
            held = self._places.setdefault(event_id, place)
            if held is not place:
                new[i] = False
                accepted[i] = held == place
        fresh = events if new.all() else events.filter(pa.array(new))
        members = fresh["member_id"].to_pylist()
        for member, time in zip(members, fresh["event_time"].cast(pa.int64()).to_pylist(), strict=True):
            if time > self._latest.get(member, -1):
                self._latest[member] = time
        watches = watches_of(fresh)
        self._append(watches)
        return Added(
            accepted=accepted,
            members=set(members),
            watchers=set(watches["member_id"].to_pylist()),
            titles=set(watches["title_id"].to_pylist()),
        )

    def _append(self, watches: pa.Table) -> None:
        if not watches.num_rows:
            return
        times = watches["time"].to_pylist()
        for column, rows in self._rows.items():
            latest = self._latest_watch[column]
            keys = watches[column].to_pylist()
            for row, (key, time) in enumerate(zip(keys, times, strict=True), start=self._watches.height):
                rows.setdefault(key, []).append(row)
                if time > latest.get(key, -1):
                    latest[key] = time
        self._watches = self._watches.vstack(pl.DataFrame(pl.from_arrow(watches)))
        if self._watches.n_chunks() > _MOST_CHUNKS:
            self._watches = self._watches.rechunk()

    def latest(self, view: View, keys: Collection[str], genres: Genres) -> pa.Table:
        """The latest row of `view` for each of `keys` that has one, by key."""
        times = self._latest_watch[view.key] if view.watches_only else self._latest
        known = sorted(key for key in keys if key in times)
        rows = pa.table(
            [pa.array(known, pa.string()), pa.array([times[key] for key in known], pa.int64())],
            schema=ROW_SCHEMA,
        )
        index = self._rows[view.key]
        found = [row for key in known for row in index.get(key, ())]
        watches = self._watches[found].to_arrow().cast(WATCH_SCHEMA)
        return view.transform(watches, rows, genres)
