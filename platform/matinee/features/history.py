"""The watch history of members or of titles, for the views that are computed from all of it.

Rows are recomputed from the whole history of the keys a batch touched, so an event that comes late, in
another batch or in another order leaves the same values behind. It is held in memory and knows nothing of
disks: the lake is its durable form.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import polars as pl
import pyarrow as pa

from matinee.features.transforms import ROW_SCHEMA, WATCH_SCHEMA, Genres, View, watches_of

_MOST_CHUNKS = 64
"""Appended frames after which the history is made contiguous again."""


@dataclass(frozen=True, kw_only=True)
class Added:
    """What one batch of events changed.

    Args:
        keys: those with a new event.
        watched: those with a new watch.
    """

    keys: Collection[str]
    watched: Collection[str]

    def touched(self, view: View) -> Collection[str]:
        """Keys whose row of `view` changed."""
        return self.watched if view.watches_only else self.keys


class History:
    """Watches by key, grown by `add`.

    Args:
        key: "member_id" or "title_id".
    """

    def __init__(self, key: str) -> None:
        self._key = key
        self._latest: dict[str, int] = {}
        self._latest_watch: dict[str, int] = {}
        self._rows: dict[str, list[int]] = {}
        self._watches = pl.DataFrame(pl.from_arrow(WATCH_SCHEMA.empty_table()))

    def __len__(self) -> int:
        """Watches held."""
        return self._watches.height

    @property
    def all(self) -> Added:
        """Every key, as if it had changed."""
        return Added(keys=self._latest.keys(), watched=self._rows.keys())

    def add(self, events: pa.Table) -> Added:
        """Take new events (at least `transforms.WATCH_COLUMNS`), each once."""
        return Added(keys=self._note(events), watched=self.add_watches(watches_of(events)))

    def add_watches(self, watches: pa.Table) -> Collection[str]:
        """Take new watches (`transforms.WATCH_SCHEMA`), each once; returns their keys."""
        if not watches.num_rows:
            return ()
        frame = pl.DataFrame(pl.from_arrow(watches))
        begin = self._watches.height
        grouped = (
            frame.select(key=self._key, time="time", row=pl.int_range(begin, begin + pl.len()))
            .group_by("key")
            .agg(pl.col("row"), pl.col("time").max())
        )
        keys: list[str] = grouped["key"].to_list()
        for key, rows in zip(keys, grouped["row"].to_list(), strict=True):
            self._rows.setdefault(key, []).extend(rows)
        _keep_latest(self._latest_watch, keys, grouped["time"].to_list())
        self._watches = self._watches.vstack(frame)
        if self._watches.n_chunks() > _MOST_CHUNKS:
            self._watches = self._watches.rechunk()
        return keys

    def latest(self, view: View, keys: Collection[str], genres: Genres) -> pa.Table:
        """The latest row of `view` for each of `keys` that has one, by key."""
        times: Mapping[str, int] = self._latest_watch if view.watches_only else self._latest
        known = sorted(key for key in keys if key in times)
        rows = pa.table(
            [pa.array(known, pa.string()), pa.array([times[key] for key in known], pa.int64())],
            schema=ROW_SCHEMA,
        )
        found = [row for key in known for row in self._rows.get(key, ())]
        watches = self._watches[found].to_arrow().cast(WATCH_SCHEMA)
        return view.transform(watches, rows, genres)

    def _note(self, events: pa.Table) -> Collection[str]:
        frame = pl.DataFrame(pl.from_arrow(events.select([self._key, "event_time"])))
        grouped = (
            frame.select(key=self._key, time=pl.col("event_time").dt.epoch("us"))
            .drop_nulls("key")
            .group_by("key")
            .agg(pl.col("time").max())
        )
        keys: list[str] = grouped["key"].to_list()
        _keep_latest(self._latest, keys, grouped["time"].to_list())
        return keys


def _keep_latest(held: dict[str, int], keys: Sequence[str], times: Sequence[int]) -> None:
    for key, time in zip(keys, times, strict=True):
        if time > held.get(key, -1):
            held[key] = time
