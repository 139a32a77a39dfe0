"""What the doors refused, kept with its reason: a topic of JSON messages.

A message holds `reason`, `source`, `received_at` (RFC 3339), `payload_base64`, `payload_bytes`,
`partition`, `offset`. Its key names where the payload stood (source, partition, offset), so that a
payload refused again after a restart is recognised as the same one.
"""

from __future__ import annotations

import base64
import time
import uuid
from collections.abc import Sequence
from typing import Any

import orjson

from matinee.config import Kafka
from matinee.errors import InvalidInput
from matinee.events import kafka as door
from matinee.events.encode import rfc3339
from matinee.events.validate import Rejected

MAX_KEPT_BYTES = 600_000
"""Most payload bytes kept: with base64 a message stays under Kafka's default limit of one megabyte.
`payload_bytes` says how many there were."""


class DeadLetters:
    """Writes refused payloads to their topic.

    Args:
        producer: the door to Kafka; its owner flushes and closes it.
        topic: the dead-letter topic.
    """

    def __init__(self, producer: door.EventProducer, topic: str) -> None:
        self._producer = producer
        self._topic = topic

    def send(
        self,
        rejected: Sequence[Rejected],
        *,
        source: str,
        positions: Sequence[tuple[int, int]] | None = None,
        timeout_s: float | None = None,
    ) -> None:
        """Write refused payloads, in order.

        Args:
            rejected: what the validator refused.
            source: which door refused it: "http", "stream", ...
            positions: (partition, offset) of each, where they came from a topic.
            timeout_s: wait until they are in the log; without it the producer's `flush` says so.

        Raises:
            Unavailable: the broker does not take them.
        """
        if not rejected:
            return
        if positions is not None and len(positions) != len(rejected):
            raise InvalidInput(f"{len(positions)} positions for {len(rejected)} refused payloads")
        received_at = rfc3339(time.time_ns() // 1000)
        keys, payloads = [], []
        for number, item in enumerate(rejected):
            partition, offset = positions[number] if positions is not None else (None, None)
            keys.append(f"{source}:{uuid.uuid4() if positions is None else f'{partition}:{offset}'}")
            payloads.append(
                orjson.dumps(
                    {
                        "reason": item.reason,
                        "source": source,
                        "received_at": received_at,
                        "payload_base64": base64.b64encode(item.payload[:MAX_KEPT_BYTES]).decode(),
                        "payload_bytes": len(item.payload),
                        "partition": partition,
                        "offset": offset,
                    }
                )
            )
        if timeout_s is None:
            self._producer.send_many(self._topic, keys, payloads)
        else:
            self._producer.send_wait(self._topic, keys, payloads, timeout_s)


def read_all(kafka: Kafka, bootstrap: str) -> list[dict[str, Any]]:
    """Every dead letter in the topic now, repeats left out, in topic order by partition.

    Raises:
        Unavailable: the broker does not answer, or has no such topic.
    """
    topic = kafka.dead_letters_topic
    count = door.partitions(kafka, bootstrap, topic)
    consumer = door.PartitionConsumer(kafka, bootstrap, topic, range(count), {})
    letters: dict[tuple[int, str | None], dict[str, Any]] = {}
    try:
        left = {partition: end for partition, end in consumer.end_offsets().items() if end > 0}
        quiet_until = time.monotonic() + door.TIMEOUT_S
        while left and time.monotonic() < quiet_until:
            for message in consumer.poll(10_000, 50):
                quiet_until = time.monotonic() + door.TIMEOUT_S
                letters.setdefault((message.partition, message.key), orjson.loads(message.value))
                if message.offset + 1 >= left.get(message.partition, 0):
                    left.pop(message.partition, None)
    finally:
        consumer.close()
    return [letter for _, letter in sorted(letters.items(), key=lambda item: item[0][0])]
