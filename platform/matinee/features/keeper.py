"""The one place that holds the stream's state and writes the online store.

Workers read partitions side by side and hand what they accept to the keeper, so windows over titles, which
span partitions, and event ids, which may come again anywhere, are exact with any number of workers. The
state is rebuilt from the lake; nothing here is written to disk but feature rows.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from matinee.config import Settings
from matinee.events.lake import read_events
from matinee.features.history import Added, History
from matinee.features.titles import genres_of, read_catalogue
from matinee.features.transforms import VIEWS, WATCH_COLUMNS, Genres, View

Publish = Callable[[str, pa.Table], None]
"""Called with a view's name and the latest rows of some of its keys."""

LAKE = "lake"
"""Names the log of events that were committed before the keeper began."""


class Keeper:
    """Folds events into the history and publishes the latest rows of what they touched. Safe between threads.

    Args:
        genres: of each title.
        publish: writes online; what it raises goes to the caller, and the rows are published again with
            the next events.
    """

    def __init__(self, *, genres: Genres, publish: Publish) -> None:
        self._genres = genres
        self._publish = publish
        self._history = History()
        self._lock = threading.Lock()
        self._due: dict[str, set[str]] = {view: set() for view in VIEWS}

    def __len__(self) -> int:
        """Distinct events held."""
        return len(self._history)

    def restore(self, events: pa.Table) -> None:
        """Take the events of the lake and publish every key: the store may hold less, or more."""
        with self._lock:
            self._fold(events, LAKE)
            self._flush()

    def add(self, events: pa.Table, log: str) -> npt.NDArray[np.bool_]:
        """Take events of `schema.LAKE_SCHEMA`, in order of arrival; they are online when this returns.

        Args:
            log: id of the cluster that partitions and offsets belong to.

        Returns:
            bool [events]: False for a repeated event id. An event replayed from its own offset is
            accepted again, counted once.
        """
        with self._lock:
            added = self._fold(events, log)
            self._flush()
        return added.accepted

    def _fold(self, events: pa.Table, log: str) -> Added:
        added = self._history.add(events, log=log)
        for view in VIEWS.values():
            self._due[view.name].update(_touched(view, added))
        return added

    def _flush(self) -> None:
        for name, due in self._due.items():
            if due:
                self._publish(name, self._history.latest(VIEWS[name], due, self._genres))
                due.clear()


class HomeKeeper(Keeper):
    """The keeper of a data home: genres from its catalogue, events from its lake, rows into Feast.

    Raises:
        NotFound: the home has no catalogue.
    """

    def __init__(self, settings: Settings) -> None:
        from matinee.features.store import FeatureStore

        store = FeatureStore(settings)
        store.prepare()
        super().__init__(genres=genres_of(read_catalogue(settings)), publish=store.write_online)
        self.restore(read_events(settings.paths.events, columns=WATCH_COLUMNS))

    def ready(self) -> dict[str, int]:
        """Answers once the state is rebuilt: events held, and this process's pid."""
        return {"events": len(self), "pid": os.getpid()}


def _touched(view: View, added: Added) -> set[str]:
    if view.key == "title_id":
        return set(added.titles)
    return set(added.watchers if view.watches_only else added.members)
