"""Reads the exposures topic without end: into the lake exactly once, and into the live window."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from matinee.config import Settings
from matinee.errors import InvalidInput, MatineeError, Unavailable
from matinee.monitoring.exposures import ExposureLake, Seen, parse
from matinee.monitoring.window import Window

if TYPE_CHECKING:
    from matinee.events.kafka import Message, PartitionConsumer

REPEATS = 50_000
"""Exposure ids remembered to tell repeats by: more than a sender has under way."""
POLL_EVENTS = 2_000
POLL_LINGER_MS = 200
PART_ROWS = 5_000
"""A part of the lake is written at this many rows, or at `PART_AGE_S`."""
PART_AGE_S = 2.0
"""Oldest a row in memory gets: a part each two seconds at most."""
LAG_S = 5.0
"""How often the broker is asked where the topic ends; that also tells whether it is there."""
RETRY_S = 2.0
DRAIN_S = 10.0
"""Longest that reading goes on after it is told to stop."""

logger = logging.getLogger(__name__)


class ExposureReader:
    """Follows the topic in `run`; everything else may be called from other threads meanwhile.

    Args:
        settings: topic, lake and window.
        bootstrap: host:port of the Kafka brokers.

    Attributes:
        consuming: whether it reads; where not, `problem` says why.
        kept: exposures in the lake.
        rejected: messages that are no exposure.
        repeated: exposures that were delivered again.
        lag: exposures in the topic not yet read, when the broker was last asked; None before.
    """

    def __init__(self, settings: Settings, bootstrap: str) -> None:
        self.consuming = False
        self.problem = ""
        self.kept = 0
        self.rejected = 0
        self.repeated = 0
        self.lag: int | None = None
        self._settings = settings
        self._bootstrap = bootstrap
        self._window = Window(settings.monitoring.window)
        self._seen = Seen(REPEATS)
        self._lock = threading.Lock()

    @property
    def window(self) -> Window:
        """The live window as it is now; later exposures do not move it."""
        with self._lock:
            return self._window.copy()

    def run(self, stopping: threading.Event) -> None:
        """Read until told to stop, then up to what the topic holds at that moment."""
        while not stopping.is_set():
            try:
                self._follow(stopping)
            except Exception as failure:
                self.problem = f"{type(failure).__name__}: {failure}"
                logger.warning("exposures: %s", self.problem, exc_info=not isinstance(failure, MatineeError))
                self.consuming = False
                stopping.wait(RETRY_S)
        self.consuming = False

    def _follow(self, stopping: threading.Event) -> None:
        """Read on from what the lake has; what is not committed when this ends is read again."""
        from matinee.events.kafka import PartitionConsumer, cluster_id, partitions

        kafka = self._settings.kafka
        topic = kafka.exposures_topic
        numbers = range(partitions(kafka, self._bootstrap, topic))
        lake = ExposureLake(self._settings.paths.exposures)
        self._remember(lake)
        cluster = cluster_id(kafka, self._bootstrap)
        offsets = dict.fromkeys(numbers, 0) | lake.offsets(cluster)
        consumer = PartitionConsumer(kafka, self._bootstrap, topic, numbers, offsets)
        try:
            self.consuming, self.problem = True, ""
            self._keep(consumer, _Part(lake, cluster, offsets), stopping)
        finally:
            consumer.close()

    def _remember(self, lake: ExposureLake) -> None:
        """Take count, window and ids from the lake: a restart does not forget what was served."""
        limit = self._settings.monitoring.window
        window, seen = Window(limit), Seen(REPEATS)
        tail = lake.tail(max(REPEATS, limit))
        for row in tail.slice(max(0, tail.num_rows - limit)).to_pylist():
            window.add(row)
        for exposure_id in tail["exposure_id"].to_pylist():
            seen.first(exposure_id)
        self._seen = seen
        self.kept = lake.total
        with self._lock:
            self._window = window

    def _keep(self, consumer: PartitionConsumer, part: _Part, stopping: threading.Event) -> None:
        asked = 0.0
        ends: Mapping[int, int] | None = None
        deadline = 0.0
        try:
            while ends is None or (part.behind(ends) and time.monotonic() < deadline):
                if stopping.is_set() and ends is None:
                    ends, deadline = consumer.end_offsets(), time.monotonic() + DRAIN_S
                elif time.monotonic() - asked > LAG_S:
                    self.lag = part.behind(consumer.end_offsets())
                    asked = time.monotonic()
                messages = consumer.poll(POLL_EVENTS, POLL_LINGER_MS)
                if consumer.cluster_id != part.cluster:
                    raise Unavailable(f"Kafka at {self._bootstrap} is another cluster than before")
                rows = self._rows(messages)
                part.add(rows, messages)
                with self._lock:
                    for row in rows:
                        self._window.add(row)
                if part.due:
                    self.kept = part.commit()
        except Unavailable:
            self.kept = part.commit()
            raise
        self.kept = part.commit()

    def _rows(self, messages: Sequence[Message]) -> list[dict[str, Any]]:
        rows = []
        for message in messages:
            try:
                row = parse(message.value)
            except InvalidInput as failure:
                self.rejected += 1
                logger.warning("%s (partition %d, offset %d)", failure, message.partition, message.offset)
                continue
            if self._seen.first(row["exposure_id"]):
                rows.append(row | {"partition": message.partition, "offset": message.offset})
            else:
                self.repeated += 1
        return rows


class _Part:
    """The part being filled: rows, and the offsets they end at."""

    def __init__(self, lake: ExposureLake, cluster: str, offsets: Mapping[int, int]) -> None:
        self.cluster = cluster
        self._lake = lake
        self._offsets = dict(offsets)
        self._rows: list[dict[str, Any]] = []
        self._since: float | None = None

    @property
    def due(self) -> bool:
        """Whether it is large or old enough to be written."""
        old = self._since is not None and time.monotonic() - self._since >= PART_AGE_S
        return old or len(self._rows) >= PART_ROWS

    def add(self, rows: Sequence[dict[str, Any]], messages: Sequence[Message]) -> None:
        """Take rows and move past the messages they came from."""
        if messages and self._since is None:
            self._since = time.monotonic()
        self._rows += rows
        self._offsets.update({message.partition: message.offset + 1 for message in messages})

    def behind(self, ends: Mapping[int, int]) -> int:
        """How many messages are left up to `ends`."""
        return sum(max(0, end - self._offsets.get(partition, 0)) for partition, end in ends.items())

    def commit(self) -> int:
        """Write it where anything was read; returns how many exposures the lake has."""
        if self._since is not None:
            self._lake.append(self._rows, cluster=self.cluster, offsets=self._offsets)
            self._rows, self._since = [], None
        return self._lake.total
