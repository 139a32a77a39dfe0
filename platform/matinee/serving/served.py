"""A sample of what rankings read of the feature store goes into the served log, off the request's path.

A request hands its reads over and goes on; a thread gathers them and writes Parquet now and then. Nothing
here may make a request wait or fail: what cannot be kept is dropped and counted.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa

from matinee.errors import MatineeError
from matinee.features.online import Reads
from matinee.features.trust import served
from matinee.features.trust.served import Served

CAPACITY = 20_000
"""Most requests waiting to be written; later ones are dropped and counted."""
PART_S = 5.0
"""Oldest that a read in memory gets."""
PART_READS = 5_000
"""A part is written early at this many requests."""

_DAY_US = 86_400_000_000

logger = logging.getLogger(__name__)


class ServedLog:
    """A bounded queue and the thread that empties it into the served log.

    Args:
        root: the log's folder.
        views: by view its join key and the types of its features; reads of other views are left out.
        share: of the requests that are kept, in [0, 1]; a request is kept or left out by its id.
        keep_days: older days are deleted.
        part_s: seconds between parts.

    Attributes:
        kept: requests written so far.
        dropped: requests lost because the queue was full or the folder could not be written.
    """

    def __init__(
        self,
        root: Path,
        views: Mapping[str, tuple[str, Mapping[str, pa.DataType]]],
        *,
        share: float,
        keep_days: int,
        capacity: int = CAPACITY,
        part_s: float = PART_S,
    ) -> None:
        self.kept = 0
        self.dropped = 0
        self._root = root
        self._views = dict(views)
        for key, features in self._views.values():
            served.schema(key, features)
        self._limit = int(share * (1 << 32))
        self._keep_us = keep_days * _DAY_US
        self._part_s = part_s
        self._pruned = 0.0
        self._waiting: queue.Queue[tuple[str, str, int, Reads]] = queue.Queue(capacity)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="served", daemon=True)
        self._thread.start()

    def takes(self, request_id: str) -> bool:
        """Whether a request is in the sample: by the first 32 bits of its id, a UUID."""
        return int(request_id[:8], 16) < self._limit

    def put(self, request_id: str, key: str, read_time: int, reads: Reads) -> None:
        """Hand over what a request read, if it is in the sample; returns at once.

        Args:
            key: the entity's, as the member's id.
            read_time: microseconds, when the read had ended.
        """
        if not self.takes(request_id):
            return
        try:
            self._waiting.put_nowait((request_id, key, read_time, reads))
        except queue.Full:
            self.dropped += 1

    def close(self) -> None:
        """Write what waits, and end."""
        self._closing.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._closing.wait(self._part_s):
            self._write()
        self._write()

    def _write(self) -> None:
        while batch := self._take():
            rows: dict[str, list[Served]] = {}
            for request_id, key, read_time, reads in batch:
                for view, (stamp, values) in reads.items():
                    row = Served(
                        request_id=request_id,
                        view=view,
                        key=key,
                        read_time=read_time,
                        event_timestamp=stamp,
                        values=values,
                    )
                    rows.setdefault(view, []).append(row)
            try:
                for view in rows.keys() & self._views.keys():
                    served.write(self._root, view, served.table(rows[view], *self._views[view]))
                self.kept += len(batch)
            except Exception as failure:
                self.dropped += len(batch)
                known = isinstance(failure, MatineeError)
                logger.warning(
                    "%d reads of features are not logged: %s", len(batch), failure, exc_info=not known
                )
            self._prune()

    def _take(self) -> list[tuple[str, str, int, Reads]]:
        items: list[tuple[str, str, int, Reads]] = []
        while len(items) < PART_READS:
            try:
                items.append(self._waiting.get_nowait())
            except queue.Empty:
                break
        return items

    def _prune(self) -> None:
        if time.monotonic() - self._pruned > 3600 or not self._pruned:
            self._pruned = time.monotonic()
            served.prune(self._root, time.time_ns() // 1000 - self._keep_us)
