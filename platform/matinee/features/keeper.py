"""The one place that knows titles as a whole: it unites what the workers' partitions contribute.

Workers tell it absolute values (`group.Push`), with the offsets up to which they hold: what is told twice, or
again by a worker that was restarted from an earlier commit, changes nothing. It writes the titles' rows to
the online store, and nothing else to any disk.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from matinee.config import Settings
from matinee.events import lake
from matinee.features.aggregates import AggregateState
from matinee.features.group import Push, Views, newest_event
from matinee.features.history import History
from matinee.features.online_writer import Online, online_writer
from matinee.features.titles import genres_of, read_catalogue
from matinee.features.transforms import WATCH_COLUMNS, Genres, watches_of
from matinee.features.trust.expectations import Violations

logger = logging.getLogger(__name__)

PRUNE_S = 30.0
"""How often state that no title needs any more is dropped."""


class Keeper:
    """Unites the state of titles and publishes the latest rows of what changed. Safe between threads.

    Args:
        views: of titles.
        genres: of each title.
        online: takes the rows; what it raises goes to the caller, and the rows are published again with
            the next push.
    """

    def __init__(self, *, views: Views, genres: Genres, online: Online) -> None:
        self._views = views
        self._genres = genres
        self._online = online
        self._state = AggregateState(views.aggregates)
        self._history = History("title_id")
        self._histories = {view.name: view for view in views.histories}
        self._watched: dict[tuple[str, int], int] = {}
        self._held: dict[int, tuple[str, int]] = {}
        self._newest: dict[int, int] = {}
        self._lock = threading.Lock()
        self._due: dict[str, set[str]] = {name: set() for name in views.names}
        self._generation: str | None = None
        self._violations = Violations()
        self._pruned_at = time.monotonic()

    def restore(self, events: pa.Table, upto: Mapping[tuple[str, int], int]) -> None:
        """Take the watches of the lake; aggregates come from the workers.

        Args:
            events: at least WATCH_COLUMNS.
            upto: per cluster and partition, the offset after the last event held.
        """
        with self._lock:
            self._history.add_watches(watches_of(events))
            self._watched.update(upto)
            self._all_due()
            self._flush()

    def push(self, push: Push) -> dict[str, int]:
        """Take what a worker tells; the titles' rows are online when this returns.

        Returns:
            Per view written now, the latest event time among its rows, microseconds.
        """
        with self._lock:
            self._unite(push)
            if not self._views.names:
                return {}
            self._refill()
            return self._flush()

    def violations(self) -> list[dict[str, Any]]:
        """Where titles' rows were not what is expected of them (`Violations.status`)."""
        with self._lock:
            return self._violations.status()

    def _refill(self) -> None:
        generation = self._online.generation()
        if self._generation is not None and generation != self._generation:
            logger.warning("the online store lost its values; publishing every title's")
            self._all_due()
        self._generation = generation

    def _all_due(self) -> None:
        for view in self._views.aggregates:
            self._due[view.name].update(self._state.rows(view.name)[view.key].to_pylist())
        for name, history in self._histories.items():
            self._due[name].update(self._history.all.touched(history))

    def _unite(self, push: Push) -> None:
        fresh = set()
        for partition, position in push.positions.items():
            cluster, held = self._held.get(partition, ("", -1))
            if cluster != push.cluster or position >= held:
                fresh.add(partition)
                self._held[partition] = (push.cluster, position)
        for tables in push.state:
            self._state.restore(tables, partitions=fresh)
            for view, keys in self._state.touched_by(tables).items():
                self._due[view].update(keys)
        self._newest.update(push.newest)
        if time.monotonic() - self._pruned_at > PRUNE_S and self._newest:
            self._state.prune(min(self._newest.values()) - self._views.lateness)
            self._pruned_at = time.monotonic()
        watches = self._new_watches(push)
        if watches.num_rows:
            added = self._history.add_watches(watches)
            for name in self._histories:
                self._due[name].update(added)

    def _new_watches(self, push: Push) -> pa.Table:
        watches = push.watches
        partition = watches["partition"].to_numpy()
        offset = watches["offset"].to_numpy()
        new = np.ones(len(offset), dtype=bool)
        for place in np.unique(partition).tolist():
            mine = partition == place
            new &= ~mine | (offset >= self._watched.get((push.cluster, place), 0))
        for place, position in push.positions.items():
            key = (push.cluster, place)
            self._watched[key] = max(position, self._watched.get(key, 0))
        return watches if new.all() else watches.filter(pa.array(new))

    def _flush(self) -> dict[str, int]:
        written = {}
        for name in self._views.names:
            due = self._due[name]
            if not due:
                continue
            if name in self._histories:
                rows = self._history.latest(self._histories[name], due, self._genres)
            else:
                rows = self._state.rows(name, due)
            self._online.write_online(name, rows)
            due.clear()
            self._views.check(self._violations, name, rows)
            written[name] = newest_event(rows)
        return written


class HomeKeeper(Keeper):
    """The keeper of a data home: genres from its catalogue, watches from its lake.

    Raises:
        NotFound: the home has no catalogue.
    """

    def __init__(self, settings: Settings, views: Views) -> None:
        super().__init__(
            views=views.of("title_id"),
            genres=genres_of(read_catalogue(settings)),
            online=online_writer(settings, views),
        )
        if self._histories:
            upto = lake.ends(settings.paths.events)
            self.restore(lake.read_events(settings.paths.events, columns=WATCH_COLUMNS), upto)

    def ready(self) -> int:
        """Answers once the state is rebuilt: this process's pid."""
        return os.getpid()
