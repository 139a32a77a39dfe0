"""The Kafka door: the one module that speaks to a Kafka client library.

Nothing here knows what a message means. Delivery is at least once: what was accepted by `send` reaches
the log unless `flush` or `send_wait` says otherwise, and after such an error it may still arrive. Readers
recognise repeats by the event's id.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from confluent_kafka import (
    Consumer,
    KafkaError,
    KafkaException,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, NewTopic

from matinee.config import Kafka
from matinee.errors import InvalidInput, Unavailable

logger = logging.getLogger(__name__)

TIMEOUT_S = 10.0
"""Longest wait for an answer about topics, partitions and offsets."""
DELIVERY_S = 30.0
"""How long an undelivered message is tried before it counts as failed."""
DOWN_S = 0.8
"""How long a caller waits for a broker that is known to be down."""


class Message(NamedTuple):
    """One record of a partition's log.

    Args:
        offset: its position in the partition.
        key: the key's text; None where it has none or it is not UTF-8.
        value: the payload; empty where the record has none.
        timestamp_us: when it was produced, int microseconds since the epoch, UTC.
    """

    partition: int
    offset: int
    key: str | None
    value: bytes
    timestamp_us: int


class Batch(NamedTuple):
    """Records as columns, in the order in which they were read.

    Args:
        partition: int64 [n].
        offset: int64 [n], positions in the partition.
        values: payloads [n]; empty where a record has none.
    """

    partition: npt.NDArray[np.int64]
    offset: npt.NDArray[np.int64]
    values: list[bytes]


def client_config(kafka: Kafka, bootstrap: str) -> dict[str, Any]:
    """What every client is given: address, TLS, SASL, and reconnection quick enough for callers to retry.

    Args:
        kafka: the security settings.
        bootstrap: host:port[,host:port].
    """
    config: dict[str, Any] = {
        "bootstrap.servers": bootstrap,
        "client.id": "matinee",
        "security.protocol": kafka.security_protocol,
        "socket.nagle.disable": True,
        "socket.keepalive.enable": True,
        "reconnect.backoff.ms": 50,
        "reconnect.backoff.max.ms": 250,
        "log_level": 2,
    }
    given = {
        "sasl.mechanism": kafka.sasl_mechanism,
        "sasl.username": kafka.sasl_username,
        "sasl.password": kafka.sasl_password.get_secret_value(),
        "ssl.ca.location": kafka.ssl_ca_location,
    }
    return config | {name: value for name, value in given.items() if value}


def ensure_topics(kafka: Kafka, bootstrap: str) -> None:
    """Create the topics of the settings that do not exist; existing ones keep their partitions.

    Raises:
        Unavailable: the broker does not answer, or refuses.
    """
    names = {kafka.events_topic, kafka.exposures_topic, kafka.dead_letters_topic, kafka.signals_topic}
    admin = _admin(kafka, bootstrap)
    with _unavailable(bootstrap):
        missing = sorted(names - set(admin.list_topics(timeout=TIMEOUT_S).topics))
        if not missing:
            return
        wanted = [NewTopic(name, num_partitions=kafka.partitions, replication_factor=-1) for name in missing]
        for created in admin.create_topics(wanted, operation_timeout=TIMEOUT_S).values():
            try:
                created.result(TIMEOUT_S)
            except KafkaException as failure:
                if failure.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                    raise


def partitions(kafka: Kafka, bootstrap: str, topic: str) -> int:
    """How many partitions the topic has.

    Raises:
        Unavailable: the broker does not answer, or has no such topic.
    """
    admin = _admin(kafka, bootstrap)
    with _unavailable(bootstrap):
        found = admin.list_topics(timeout=TIMEOUT_S).topics.get(topic)
    if found is None:
        raise Unavailable(f"Kafka at {bootstrap} has no topic {topic!r}")
    return len(found.partitions)


def cluster_id(kafka: Kafka, bootstrap: str, *, timeout_s: float = TIMEOUT_S) -> str:
    """Which log this is: offsets hold for one cluster id only.

    Raises:
        Unavailable: the broker does not answer.
    """
    admin = _admin(kafka, bootstrap)
    with _unavailable(bootstrap):
        return str(admin.list_topics(timeout=timeout_s).cluster_id)


class EventProducer:
    """Writes to topics, keyed: one key always goes to the same partition, in the order it was sent.

    Keys are placed as Java's and kafka-python's default partitioners place them. Safe to share between
    threads.

    Args:
        kafka: the security settings.
        bootstrap: host:port[,host:port].
    """

    def __init__(self, kafka: Kafka, bootstrap: str) -> None:
        self._bootstrap = bootstrap
        self._lock = threading.Lock()
        self._failed = 0
        self._failure: object = None
        self._down_since: float | None = None
        config = client_config(kafka, bootstrap) | {
            "acks": "all",
            "linger.ms": 5,
            "partitioner": "murmur2_random",
            "max.in.flight": 1,
            "message.timeout.ms": int(DELIVERY_S * 1000),
            "queue.buffering.max.messages": 500_000,
            "topic.metadata.propagation.max.ms": 5000,
            "error_cb": self._on_error,
        }
        self._producer = Producer(config)
        self._open = True
        self._poller = threading.Thread(target=self._poll, name="kafka-producer", daemon=True)
        self._poller.start()

    def send(self, topic: str, key: str, payload: bytes) -> None:
        """Queue one message; `flush` says whether it was delivered.

        Raises:
            Unavailable: the queue is full and the broker takes nothing.
            InvalidInput: the message is larger than the client's limit.
        """
        self._queue(topic, key, payload, self._on_delivery, time.monotonic() + DELIVERY_S)

    def send_many(self, topic: str, keys: Sequence[str], payloads: Sequence[bytes]) -> None:
        """Queue many messages in order; `flush` says whether they were delivered.

        Raises:
            Unavailable: the queue stays full because the broker takes nothing.
            InvalidInput: a message is larger than the client's limit.
        """
        for key, payload in zip(keys, payloads, strict=True):
            self.send(topic, key, payload)

    def send_wait(self, topic: str, keys: Sequence[str], payloads: Sequence[bytes], timeout_s: float) -> None:
        """Send and return once all are in the log.

        Raises:
            Unavailable: not delivered within `timeout_s`, or within about a second where the broker is
                known to be down. Messages may still arrive later: sending them again is right, the
                event's id makes repeats harmless.
            InvalidInput: a message is larger than the client's limit.
        """
        receipt = _Receipt(len(payloads))
        started = time.monotonic()
        for key, payload in zip(keys, payloads, strict=True):
            self._queue(topic, key, payload, receipt.on_delivery, started + timeout_s)
        while not receipt.done.wait(0.05):
            waited = time.monotonic() - started
            if waited >= timeout_s or (self._down_since is not None and waited >= DOWN_S):
                raise self._unavailable(f"{receipt.pending} messages not taken within {waited:.1f} s")
        if receipt.failure is not None:
            raise self._unavailable(receipt.failure)
        self._down_since = None

    def flush(self, timeout_s: float) -> None:
        """Return once everything queued by `send` and `send_many` is in the log.

        Raises:
            Unavailable: something was not delivered since the last flush, or is still queued.
        """
        left = self._producer.flush(timeout_s)
        with self._lock:
            failed, failure = self._failed, self._failure
            self._failed, self._failure = 0, None
        if failed:
            raise self._unavailable(f"{failed} messages not delivered: {failure}")
        if left:
            raise self._unavailable(f"{left} messages not delivered within {timeout_s:g} s")

    def close(self) -> None:
        """Stop; what is undelivered gets one more second and is then dropped: `flush` first."""
        if not self._open:
            return
        self._open = False
        self._poller.join()
        self._producer.flush(1.0)
        self._producer.purge()
        self._producer.close()

    def _queue(
        self, topic: str, key: str, payload: bytes, on_delivery: Callable[[Any, Any], None], deadline: float
    ) -> None:
        while True:
            try:
                self._producer.produce(topic, payload, key, on_delivery=on_delivery)
                return
            except BufferError:
                if time.monotonic() > deadline:
                    raise self._unavailable("the send queue is full") from None
                time.sleep(0.005)
            except KafkaException as failure:
                if failure.args[0].code() == KafkaError.MSG_SIZE_TOO_LARGE:
                    raise InvalidInput(
                        f"message of {len(payload)} bytes for topic {topic} is too large for Kafka"
                    ) from None
                raise self._unavailable(failure.args[0].str()) from None

    def _poll(self) -> None:
        while self._open:
            self._producer.poll(0.1)

    def _on_delivery(self, error: Any, message: Any) -> None:
        if error is not None:
            with self._lock:
                self._failed += 1
                self._failure = error.str()

    def _on_error(self, error: Any) -> None:
        if error.code() == KafkaError._ALL_BROKERS_DOWN:
            if self._down_since is None:
                logger.warning("Kafka at %s does not answer: %s", self._bootstrap, error.str())
            self._down_since = time.monotonic()

    def _unavailable(self, reason: str) -> Unavailable:
        return Unavailable(f"Kafka at {self._bootstrap}: {reason}", retry_after_s=2.0)


class _Receipt:
    """Counts the deliveries of one `send_wait`."""

    def __init__(self, pending: int) -> None:
        self.pending = pending
        self.failure: str | None = None
        self.done = threading.Event()
        if not pending:
            self.done.set()

    def on_delivery(self, error: Any, message: Any) -> None:
        """Called by the polling thread alone."""
        if error is not None:
            self.failure = error.str()
        self.pending -= 1
        if not self.pending:
            self.done.set()


class PartitionConsumer:
    """Reads given partitions from given offsets; who reads and what is committed is the caller's affair.

    It outlives a broker that goes away and comes back. Where another log comes back (a new cluster id),
    reading goes on at its beginning and `cluster_id` changes: everything a `poll` returned belongs to the
    `cluster_id` seen after that call.

    Args:
        kafka: the security settings.
        bootstrap: host:port[,host:port].
        topic: the topic.
        partitions: the partitions to read.
        offsets: the next offset to read of each partition; 0 where a partition is not named.

    Raises:
        Unavailable: the broker does not answer.
    """

    def __init__(
        self,
        kafka: Kafka,
        bootstrap: str,
        topic: str,
        partitions: Sequence[int],
        offsets: Mapping[int, int],
    ) -> None:
        self._bootstrap = bootstrap
        self._topic = topic
        self._partitions = list(partitions)
        self._suspect = False
        config = client_config(kafka, bootstrap) | {
            "group.id": "matinee",
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "earliest",
            "fetch.wait.max.ms": 10,
            "fetch.error.backoff.ms": 50,
            "queued.max.messages.kbytes": 32 * 1024,
            "error_cb": self._on_error,
        }
        self._consumer = Consumer(config)
        try:
            self.cluster_id = self._ask_cluster_id(TIMEOUT_S)
        except Unavailable:
            self._consumer.close()
            raise
        self._assign(offsets)

    def poll(self, max_events: int, linger_ms: int) -> list[Message]:
        """Up to `max_events` messages; waits up to `linger_ms` for that many. Empty while none come."""
        return [
            Message(
                record.partition(),
                record.offset(),
                _text(record.key()),
                record.value() or b"",
                record.timestamp()[1] * 1000,
            )
            for record in self._records(max_events, linger_ms)
        ]

    def poll_batch(self, max_events: int, linger_ms: int) -> Batch:
        """The same messages as columns, for those who read many."""
        records = self._records(max_events, linger_ms)
        return Batch(
            np.fromiter((record.partition() for record in records), np.int64, len(records)),
            np.fromiter((record.offset() for record in records), np.int64, len(records)),
            [record.value() or b"" for record in records],
        )

    def _records(self, max_events: int, linger_ms: int) -> list[Any]:
        if self._suspect and not self._settle(linger_ms / 1000):
            return []
        records = self._consumer.consume(max_events, linger_ms / 1000)
        if self._suspect and not self._settle(0.2):
            return []
        good = []
        for record in records:
            error = record.error()
            if error is None:
                good.append(record)
            else:
                logger.warning("Kafka at %s, topic %s: %s", self._bootstrap, self._topic, error.str())
                self._suspect = True
        return good

    def end_offsets(self) -> dict[int, int]:
        """Per partition, the offset the next message produced will have.

        Never too high, and above the reading position wherever something is unread; while far behind it
        may miss the newest batch.

        Raises:
            Unavailable: the broker does not answer.
        """
        return {partition: self._end_offset(partition) for partition in self._partitions}

    def _end_offset(self, partition: int) -> int:
        """The larger of two answers: some brokers list only the start of the last batch, plus one."""
        place = TopicPartition(self._topic, partition)
        deadline = time.monotonic() + TIMEOUT_S
        with _unavailable(self._bootstrap):
            listed: int = self._consumer.get_watermark_offsets(place, timeout=TIMEOUT_S)[1]
            fetched: int = self._consumer.get_watermark_offsets(place, cached=True)[1]
            while fetched < 0 and time.monotonic() < deadline:
                time.sleep(0.005)
                fetched = self._consumer.get_watermark_offsets(place, cached=True)[1]
        return max(listed, fetched)

    def close(self) -> None:
        """Stop reading."""
        self._consumer.close()

    def _assign(self, offsets: Mapping[int, int]) -> None:
        self._consumer.assign(
            [
                TopicPartition(self._topic, partition, offsets.get(partition, 0))
                for partition in self._partitions
            ]
        )

    def _settle(self, timeout_s: float) -> bool:
        """After a broken connection: is this still the log we read? False where unknown, or where not."""
        try:
            found = self._ask_cluster_id(max(timeout_s, 0.05))
        except Unavailable:
            return False
        self._suspect = False
        if found == self.cluster_id:
            return True
        logger.warning(
            "Kafka at %s has a new log: cluster %s instead of %s; reading it from its beginning",
            self._bootstrap,
            found,
            self.cluster_id,
        )
        self.cluster_id = found
        self._assign({})
        return False

    def _ask_cluster_id(self, timeout_s: float) -> str:
        with _unavailable(self._bootstrap):
            return str(self._consumer.list_topics(self._topic, timeout=timeout_s).cluster_id)

    def _on_error(self, error: Any) -> None:
        if error.code() in (KafkaError._ALL_BROKERS_DOWN, KafkaError._TRANSPORT):
            self._suspect = True


def _admin(kafka: Kafka, bootstrap: str) -> AdminClient:
    return AdminClient(client_config(kafka, bootstrap))


@contextmanager
def _unavailable(bootstrap: str) -> Iterator[None]:
    try:
        yield
    except KafkaException as failure:
        raise Unavailable(f"Kafka at {bootstrap}: {failure.args[0].str()}", retry_after_s=2.0) from None


def _text(key: bytes | None) -> str | None:
    try:
        return None if key is None else key.decode()
    except UnicodeDecodeError:
        return None
