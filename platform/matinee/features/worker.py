"""A worker of the stream: from its partitions of the log to the keeper, the lake and the dead letters.

Order of a commit: lake parts, dead letters, then the commit file. A step that fails is tried again before
anything more is read. After a crash the stream goes on from the offsets committed before: lake parts past
them are discarded, dead letters carry their offset so that readers see them once, and the keeper recognises
events that it has.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from matinee.config import Settings
from matinee.errors import Unavailable
from matinee.events import lake
from matinee.events.dead_letters import DeadLetters
from matinee.events.kafka import EventProducer, Message, PartitionConsumer, cluster_id
from matinee.events.validate import Rejected, Validator
from matinee.features import commits
from matinee.features.titles import read_catalogue
from matinee.schema import LAKE_SCHEMA

logger = logging.getLogger(__name__)

COMMIT_S = 1.0
"""Longest time an event that is online waits to be committed."""
COMMIT_EVENTS = 50_000
"""Most events that wait to be committed."""
RETRY_S = 1.0
"""Pause after a failure before it is tried again."""
SAMPLES = 2_000
"""Most events over which freshness is measured: the latest ones."""
SAMPLES_S = 60.0
"""Events that went online longer ago are left out of freshness."""
FLUSH_S = 10.0
ANSWER_S = 2.0
"""Longest that a question about the log waits for the reading thread, which alone may use the consumer."""


class Acceptor(Protocol):
    """What a worker hands events to (`keeper.Keeper`)."""

    def add(self, events: pa.Table, log: str) -> npt.NDArray[np.bool_]:
        """See `keeper.Keeper.add`."""


@dataclass
class _Pending:
    """What is online, or refused, and not committed. `since`: monotonic seconds of the first; 0: nothing."""

    events: list[pa.Table] = field(default_factory=list)
    rejected: list[tuple[Rejected, tuple[int, int]]] = field(default_factory=list)
    duplicates: int = 0
    last_event_time: int = 0
    messages: int = 0
    since: float = 0.0

    @property
    def rows(self) -> int:
        """Accepted events."""
        return sum(table.num_rows for table in self.events)


class Worker:
    """Reads some partitions of the events topic.

    Args:
        name: of its commit file; one live worker has it at a time.
        partitions: those it reads.
        keeper: takes what is accepted.
    """

    def __init__(
        self, settings: Settings, bootstrap: str, *, name: str, partitions: Sequence[int], keeper: Acceptor
    ) -> None:
        self.name = name
        self._settings = settings
        self._bootstrap = bootstrap
        self._partitions = list(partitions)
        self._keeper = keeper
        self._validator = Validator(
            titles=read_catalogue(settings).title_ids,
            future_tolerance_s=settings.serving.future_tolerance_s,
            max_bytes=settings.serving.max_body_bytes,
        )
        self._producer = EventProducer(settings.kafka, bootstrap)
        self._dead_letters = DeadLetters(self._producer, settings.kafka.dead_letters_topic)
        self._consumer: PartitionConsumer | None = None
        self._cluster = ""
        self._positions: dict[int, int] = {}
        self._owed = False
        self._done = commits.Commit()
        self._pending = _Pending()
        self._samples: deque[tuple[float, float]] = deque(maxlen=SAMPLES)
        self._state, self._reason = "starting", ""
        self._lag = 0
        self._turned_at = time.monotonic()
        self._stopping = threading.Event()
        self._questions: queue.SimpleQueue[Future[bool]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Work in a thread until `stop`."""
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)
        self._thread.start()

    def turn(self) -> int:
        """Read one micro-batch, put it online, commit where it is time; returns the messages read.

        Raises:
            Unavailable: the broker or the online store does not answer.
            StorageError: the lake, the commit or the online store cannot be written.
        """
        if self._owed:
            self.commit()
        consumer = self._opened()
        stream = self._settings.stream
        messages = consumer.poll(stream.batch_events, stream.linger_ms)
        if consumer.cluster_id != self._cluster:
            self.commit()
            self._cluster = consumer.cluster_id
            self._positions = dict.fromkeys(self._partitions, 0)
        if messages:
            self._take(messages)
        pending = self._pending
        waited = time.monotonic() - pending.since if pending.since else 0.0
        if waited >= COMMIT_S or pending.messages >= COMMIT_EVENTS:
            self.commit()
        self._answer(consumer)
        self._turned_at = time.monotonic()
        return len(messages)

    def commit(self) -> None:
        """Make everything read so far durable.

        Raises:
            StorageError: no room; nothing is committed.
            Unavailable: dead letters are not taken; nothing is committed.
        """
        pending = self._pending
        if not pending.since:
            return
        self._owed = True
        if pending.events:
            lake.write_part(
                self._settings.paths.events, pa.concat_tables(pending.events), cluster=self._cluster
            )
        if pending.rejected:
            self._dead_letters.send(
                [rejected for rejected, _ in pending.rejected],
                source="stream",
                positions=[place for _, place in pending.rejected],
            )
            self._producer.flush(FLUSH_S)
        done = self._done
        committed = commits.Commit(
            offsets={**done.offsets, self._cluster: dict(self._positions)},
            events=done.events + pending.rows,
            duplicates=done.duplicates + pending.duplicates,
            dead_letters=done.dead_letters + len(pending.rejected),
            last_event_time=max(done.last_event_time, pending.last_event_time),
        )
        commits.write(self._settings.paths.stream, self.name, committed)
        self._done = committed
        self._owed = False
        self._pending = _Pending()

    def caught_up(self) -> bool:
        """Whether everything in the log now is online and committed; commits where that is all it lacks.

        False where it cannot be known: before the first micro-batch, in the middle of a long one, and
        while something fails.
        """
        if self._thread is None or self._stopping.is_set():
            return False
        question: Future[bool] = Future()
        self._questions.put(question)
        try:
            return question.result(ANSWER_S)
        except TimeoutError:
            return False

    def status(self) -> dict[str, Any]:
        """Figures of this worker: counts (committed and not), lag, state and reason, freshness samples."""
        self.caught_up()
        done, pending = self._done, self._pending
        recent = time.monotonic() - SAMPLES_S
        return {
            "name": self.name,
            "state": self._state,
            "reason": self._reason,
            "events": done.events + pending.rows,
            "committed": done.events,
            "duplicates": done.duplicates + pending.duplicates,
            "dead_letters": done.dead_letters + len(pending.rejected),
            "last_event_time": max(done.last_event_time, pending.last_event_time),
            "lag": self._lag,
            "since_turn_s": time.monotonic() - self._turned_at,
            "freshness_s": [age for online_at, age in list(self._samples) if online_at >= recent],
            "pid": os.getpid(),
        }

    def stop(self) -> None:
        """Finish the micro-batch, commit, and close. What cannot be committed is read again next time."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
        try:
            self.commit()
        except (OSError, RuntimeError) as failure:
            logger.warning("%s ends without its last commit: %s", self.name, failure)
        self._close()
        self._producer.close()
        self._state = "stopped"

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self.turn()
                self._state, self._reason = "running", ""
            except Exception as failure:
                if self._state != "failed":
                    logger.warning("%s: %s; trying again", self.name, failure)
                self._state, self._reason = "failed", str(failure)
                self._turned_at = time.monotonic()
                self._close()
                while not self._questions.empty():
                    self._questions.get().set_result(False)
                self._stopping.wait(RETRY_S)

    def _opened(self) -> PartitionConsumer:
        """The consumer. The first one starts at the committed offsets, with the lake cut back to them."""
        if self._consumer is not None:
            return self._consumer
        settings = self._settings
        cluster = cluster_id(settings.kafka, self._bootstrap)
        if cluster != self._cluster:
            self.commit()
            stored = commits.read(settings.paths.stream)
            furthest = commits.offsets(stored, cluster)
            positions = {partition: furthest.get(partition, 0) for partition in self._partitions}
            lake.discard_after(settings.paths.events, cluster, positions)
            self._done = stored.get(self.name, commits.Commit())
            self._cluster, self._positions = cluster, positions
        consumer = PartitionConsumer(
            settings.kafka, self._bootstrap, settings.kafka.events_topic, self._partitions, self._positions
        )
        if consumer.cluster_id != cluster:
            consumer.close()
            raise Unavailable(f"Kafka at {self._bootstrap} became another cluster while it was opened")
        self._consumer = consumer
        return consumer

    def _answer(self, consumer: PartitionConsumer) -> None:
        """Compare the log's end with what is read, for those who asked `caught_up`."""
        asked = [self._questions.get() for _ in range(self._questions.qsize())]
        if not asked:
            return
        try:
            ends = consumer.end_offsets()
        except Unavailable:
            ends = {}
        known = bool(ends) and consumer.cluster_id == self._cluster
        if known:
            self._lag = sum(max(0, end - self._positions.get(place, 0)) for place, end in ends.items())
            if not self._lag:
                self.commit()
        for question in asked:
            question.set_result(known and not self._lag)

    def _take(self, messages: Sequence[Message]) -> None:
        parsed = self._validator.parse([message.value for message in messages], now=time.time_ns() // 1000)
        places = np.array([(message.partition, message.offset) for message in messages], dtype=np.int64)
        good = places[parsed.rows]
        events = pa.table(
            [
                *parsed.events.columns,
                pa.array(good[:, 0], pa.int32()),
                pa.array(good[:, 1]),
                pa.nulls(len(good), pa.int64()),
            ],
            schema=LAKE_SCHEMA,
        )
        pending = self._pending
        if events.num_rows:
            accepted = self._keeper.add(events, self._cluster)
            now = time.time_ns() // 1000
            pending.duplicates += int((~accepted).sum())
            kept = events.filter(pa.array(accepted))
            if kept.num_rows:
                pending.events.append(kept)
                latest = int(kept["event_time"].cast(pa.int64()).to_numpy().max())
                pending.last_event_time = max(pending.last_event_time, latest)
                ingested = kept["ingest_time"].cast(pa.int64()).to_numpy()[-SAMPLES:]
                online_at = time.monotonic()
                self._samples.extend((online_at, age) for age in ((now - ingested) / 1e6).tolist())
        for rejected in parsed.rejected:
            partition, offset = places[rejected.row].tolist()
            pending.rejected.append((rejected, (partition, offset)))
        for partition, offset in places.tolist():
            self._positions[partition] = max(self._positions.get(partition, 0), offset + 1)
        pending.messages += len(messages)
        pending.since = pending.since or time.monotonic()

    def _close(self) -> None:
        if self._consumer is not None:
            self._consumer.close()
            self._consumer = None
