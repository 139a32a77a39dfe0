"""A worker of the stream: from its partitions of the log to features, the lake and the dead letters.

A micro-batch is folded into the state, then published: titles through the keeper, members into the online
store. What cannot be published, or committed, is tried again before anything more is read, so a slow part
slows the reading down instead of filling memory. Order of a commit: lake parts, dead letters, state,
then the commit file. After a crash the stream goes on from there: lake parts past it are discarded, dead
letters carry their offset so that readers see them once, and the log is read again.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from collections import Counter, deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from matinee.config import Settings
from matinee.errors import MatineeError, Unavailable
from matinee.events import lake
from matinee.events.dead_letters import DeadLetters
from matinee.events.kafka import Batch, EventProducer, PartitionConsumer, cluster_id
from matinee.events.validate import Rejected, Validator
from matinee.features.commits import Commit, Commits, FencedError, StateTables, add_counts
from matinee.features.group import PartitionGroup, Push, Taken, Views, newest_event
from matinee.features.online_writer import Online, online_writer
from matinee.features.restore import restore
from matinee.features.titles import genres_of, read_catalogue
from matinee.features.trust.expectations import Violations
from matinee.schema import LAKE_SCHEMA

logger = logging.getLogger(__name__)

COMMIT_S = 1.0
"""Longest time an event that is online waits to be committed."""
COMMIT_EVENTS = 100_000
"""Most events that wait to be committed."""
COMPACT_S = 60.0
"""How often the lake's small parts of these partitions are joined."""
RETRY_S = 0.5
"""Pause after a failure before it is tried again."""
SAMPLES = 2_000
"""Most events over which a view's freshness is measured: the latest ones."""
SAMPLES_A_BATCH = 200
"""Most events of one micro-batch among them."""
SAMPLES_S = 60.0
"""Events that went online longer ago are left out of freshness."""
FLUSH_S = 10.0
ANSWER_S = 2.0
"""Longest that a question about the log waits for the reading thread, which alone may use the consumer."""


class Titles(Protocol):
    """What a worker tells of titles (`keeper.Keeper`)."""

    def push(self, push: Push) -> dict[str, int]:
        """See `keeper.Keeper.push`."""


@dataclass
class _Pending:
    """What is not committed. `since`: monotonic seconds of the first message; 0: there is nothing."""

    events: list[pa.Table] = field(default_factory=list)
    rejected: list[tuple[Rejected, tuple[int, int]]] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    last_event_time: int = 0
    messages: int = 0
    since: float = 0.0


@dataclass
class _Written:
    """What was published of a view.

    Args:
        at: microseconds of the last write.
        newest: the latest event time among the rows, microseconds.
        ages: of the latest events: monotonic seconds of the write, and seconds from ingest to it.
    """

    at: int = 0
    newest: int = 0
    ages: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=SAMPLES))


class Worker:
    """Reads some partitions of the events topic.

    Args:
        name: of its commits; one live worker of an epoch has it.
        partitions: those it reads.
        views: what it computes.
        keeper: is told of titles.
        online: takes members' rows; None: the home's feature store.
        epoch: the placement that it belongs to.
    """

    def __init__(
        self,
        settings: Settings,
        bootstrap: str,
        *,
        name: str,
        partitions: Sequence[int],
        views: Views,
        keeper: Titles,
        online: Online | None = None,
        epoch: int = 0,
    ) -> None:
        self.name = name
        self._settings = settings
        self._bootstrap = bootstrap
        self._partitions = list(partitions)
        self._views = views
        self._keeper = keeper
        self._online = online or online_writer(settings, views)
        self._commits = Commits(settings.stream_state)
        self._validator = Validator(
            titles=read_catalogue(settings).title_ids,
            future_tolerance_s=settings.serving.future_tolerance_s,
            max_bytes=settings.serving.max_body_bytes,
        )
        self._producer = EventProducer(settings.kafka, bootstrap)
        self._dead_letters = DeadLetters(self._producer, settings.kafka.dead_letters_topic)
        self._consumer: PartitionConsumer | None = None
        self._group: PartitionGroup | None = None
        self._cluster = ""
        self._positions: dict[int, int] = {}
        self._done = Commit(name=name, epoch=epoch, partitions=self._partitions)
        self._pending = _Pending()
        self._changes: list[StateTables] = []
        self._owed: Push | None = None
        self._arrived: list[npt.NDArray[np.int64]] = []
        self._commit_owed = False
        self._generation: str | None = None
        self._compacted_at = time.monotonic()
        self._written: dict[str, _Written] = {}
        self._violations = Violations()
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
            Unavailable: the broker, the keeper or the online store does not answer.
            StorageError: the lake, the commit or the online store cannot be written.
            FencedError: the partitions were placed anew.
        """
        self._publish()
        if self._commit_owed:
            self.commit()
        consumer = self._opened()
        stream = self._settings.stream
        batch = consumer.poll_batch(stream.batch_events, stream.linger_ms)
        if consumer.cluster_id != self._cluster:
            self.commit()
            self._cluster = consumer.cluster_id
            self._positions = dict.fromkeys(self._partitions, 0)
        if batch.values:
            self._take(batch)
            self._publish()
        pending = self._pending
        waited = time.monotonic() - pending.since if pending.since else 0.0
        if waited >= COMMIT_S or pending.messages >= COMMIT_EVENTS:
            self.commit()
        self._answer(consumer)
        self._turned_at = time.monotonic()
        return len(batch.values)

    def commit(self) -> None:
        """Make everything read so far durable.

        Raises:
            StorageError: no room; nothing is committed.
            Unavailable: dead letters are not taken; nothing is committed.
            FencedError: the partitions were placed anew; nothing is committed.
        """
        pending = self._pending
        if not pending.since:
            return
        self._commit_owed = True
        self._commits.check(self._done.epoch)
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
        assert self._group is not None
        self._write_commit(self._group, whole=self._commits.outgrown(self._done))
        self._commit_owed = False
        self._pending = _Pending()
        self._refill()
        if time.monotonic() - self._compacted_at > COMPACT_S:
            lake.compact(self._settings.paths.events, self._cluster, self._positions)
            self._compacted_at = time.monotonic()

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
        """Figures of this worker.

        Returns:
            name, state and reason, counts (of this epoch, committed and not), committed (events),
            last_event_time, lag (messages not read), since_turn_s, restored (whether it goes on from the
            commit), views (per view written: last_write and newest_event, microseconds, and freshness_s,
            samples in seconds), violations (`Violations.status`), state_bytes, pid.
        """
        self.caught_up()
        done, pending, group = self._done, self._pending, self._group
        recent = time.monotonic() - SAMPLES_S
        return {
            "name": self.name,
            "state": self._state,
            "reason": self._reason,
            "counts": dict(Counter(done.counts) + pending.counts),
            "committed": done.counts.get("events", 0),
            "last_event_time": max(done.last_event_time, pending.last_event_time),
            "lag": self._lag,
            "since_turn_s": time.monotonic() - self._turned_at,
            "restored": group is not None,
            "views": {
                view: {
                    "last_write": written.at,
                    "newest_event": written.newest,
                    "freshness_s": [age for at, age in list(written.ages) if at >= recent],
                }
                for view, written in list(self._written.items())
            },
            "violations": self._violations.status(),
            "state_bytes": group.nbytes if group is not None else 0,
            "pid": os.getpid(),
        }

    def stop(self) -> None:
        """Finish the micro-batch, commit, and close. What cannot be committed is read again next time."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
        try:
            self._publish()
            self.commit()
        except (MatineeError, OSError, RuntimeError) as failure:
            logger.warning("%s ends without its last commit: %s", self.name, failure)
        self._close()
        self._producer.close()
        self._state = "stopped"

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self.turn()
                self._state, self._reason = "running", ""
            except FencedError as failure:
                logger.warning("%s ends: %s", self.name, failure)
                self._state, self._reason = "fenced", str(failure)
                break
            except Exception as failure:
                if self._state != "failed":
                    logger.warning("%s: %s; trying again", self.name, failure)
                self._state, self._reason = "failed", str(failure)
                self._turned_at = time.monotonic()
                self._close()
                self._refuse_questions()
                self._stopping.wait(RETRY_S)
        self._refuse_questions()

    def _opened(self) -> PartitionConsumer:
        """The consumer. The first one starts at the committed offsets, with state and lake as they were."""
        if self._consumer is not None:
            return self._consumer
        settings = self._settings
        cluster = cluster_id(settings.kafka, self._bootstrap)
        if self._group is None:
            self._restore(cluster)
        elif cluster != self._cluster:
            self.commit()
            self._cluster, self._positions = cluster, dict.fromkeys(self._partitions, 0)
        consumer = PartitionConsumer(
            settings.kafka, self._bootstrap, settings.kafka.events_topic, self._partitions, self._positions
        )
        if consumer.cluster_id != cluster:
            consumer.close()
            raise Unavailable(f"Kafka at {self._bootstrap} became another cluster while it was opened")
        self._consumer = consumer
        return consumer

    def _restore(self, cluster: str) -> None:
        restored = restore(
            self._commits,
            self._settings.paths.events,
            partitions=self._partitions,
            cluster=cluster,
            views=self._views,
            genres=genres_of(read_catalogue(self._settings)),
        )
        epoch = self._done.epoch
        own = next((c for c in self._commits.read() if (c.epoch, c.name) == (epoch, self.name)), self._done)
        counts = add_counts([own.counts, {"events": restored.events}])
        self._done = replace(own, partitions=self._partitions, offsets=restored.offsets, counts=counts)
        self._positions = restored.positions
        self._cluster = cluster
        self._write_commit(restored.group, whole=True)
        self._owed = restored.group.push(cluster, self._positions, whole=True)
        self._group = restored.group
        self._publish()

    def _write_commit(self, group: PartitionGroup, *, whole: bool) -> None:
        done, pending = self._done, self._pending
        if whole:
            group.prune()
            self._changes = group.snapshot()
        else:
            self._changes.extend(group.changes())
        committed = replace(
            done,
            offsets={**done.offsets, self._cluster: dict(self._positions)},
            counts=add_counts([done.counts, pending.counts]),
            last_event_time=max(done.last_event_time, pending.last_event_time),
            tables=group.tables,
        )
        self._done = self._commits.write(committed, self._changes, whole=whole)
        self._changes = []

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

    def _take(self, batch: Batch) -> None:
        group, pending = self._group, self._pending
        assert group is not None
        parsed = self._validator.parse(batch.values, now=time.time_ns() // 1000)
        rows = parsed.rows
        events = pa.table(
            [
                *parsed.events.columns,
                pa.array(batch.partition[rows], pa.int32()),
                pa.array(batch.offset[rows]),
                pa.nulls(len(rows), pa.int64()),
            ],
            schema=LAKE_SCHEMA,
        )
        taken = group.take(events)
        pending.since = pending.since or time.monotonic()
        pending.messages += len(batch.values)
        for rejected in parsed.rejected:
            place = (int(batch.partition[rejected.row]), int(batch.offset[rejected.row]))
            pending.rejected.append((rejected, place))
        pending.counts["dead_letters"] += len(parsed.rejected)
        self._note_late(batch, rows, taken)
        pending.counts["events"] += taken.events.num_rows
        pending.counts["duplicates"] += taken.duplicates
        if taken.events.num_rows:
            pending.events.append(taken.events)
            times = taken.events["event_time"].cast(pa.int64()).to_numpy()
            pending.last_event_time = max(pending.last_event_time, int(times.max()))
            self._arrived.append(taken.events["ingest_time"].cast(pa.int64()).to_numpy())
        for partition in np.unique(batch.partition).tolist():
            self._positions[partition] = int(batch.offset[batch.partition == partition].max()) + 1
        self._owed = group.push(self._cluster, self._positions)

    def _note_late(self, batch: Batch, rows: npt.NDArray[np.int64], taken: Taken) -> None:
        """Count what is late for a view, and send it to the dead letters where the view wants that."""
        for view, count in taken.late.items():
            self._pending.counts[f"late/{view}"] += count
        kept = rows[taken.new]
        for view, late in taken.letters.items():
            for row in kept[late].tolist():
                reason = f"late for feature view {view}: more than its lateness behind its partition"
                rejected = Rejected(row=row, reason=reason, payload=batch.values[row])
                self._pending.rejected.append((rejected, (int(batch.partition[row]), int(batch.offset[row]))))

    def _publish(self) -> None:
        """Put online what is folded in: titles, then members, in the views' order."""
        group = self._group
        if group is None:
            return
        arrived = np.concatenate([np.empty(0, np.int64), *self._arrived])[-SAMPLES_A_BATCH:]
        if self._owed is not None:
            for view, newest in self._keeper.push(self._owed).items():
                self._note(view, newest, arrived)
            self._owed = None
        for view, due in group.due.items():
            if due:
                rows = group.rows(view)
                self._online.write_online(view, rows)
                due.clear()
                self._views.check(self._violations, view, rows)
                self._note(view, newest_event(rows), arrived)
        self._arrived.clear()

    def _note(self, view: str, newest: int, arrived: npt.NDArray[np.int64]) -> None:
        now, at = time.time_ns() // 1000, time.monotonic()
        written = self._written.setdefault(view, _Written())
        written.at, written.newest = now, max(newest, written.newest)
        written.ages.extend((at, age) for age in ((now - arrived) / 1e6).tolist())

    def _refill(self) -> None:
        """Publish everything again where the online store lost what it held."""
        generation = self._online.generation()
        if self._generation is not None and generation != self._generation:
            logger.warning("%s: the online store lost its values; publishing all of them", self.name)
            if self._group is not None:
                self._group.publish_all()
        self._generation = generation

    def _refuse_questions(self) -> None:
        while not self._questions.empty():
            self._questions.get().set_result(False)

    def _close(self) -> None:
        if self._consumer is not None:
            self._consumer.close()
            self._consumer = None
