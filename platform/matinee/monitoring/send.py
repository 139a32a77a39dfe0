"""Messages about the platform itself onto the signals topic."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from matinee.config import Settings
from matinee.errors import Unavailable

SEND_S = 10.0

logger = logging.getLogger(__name__)


def send_signals(settings: Settings, bootstrap: str, messages: Sequence[tuple[str, bytes]]) -> bool:
    """Put (key, message) pairs on the signals topic; False where the broker does not take them.

    Args:
        bootstrap: host:port of the Kafka brokers.
    """
    from matinee.events.kafka import EventProducer

    producer = EventProducer(settings.kafka, bootstrap)
    try:
        for key, message in messages:
            producer.send(settings.kafka.signals_topic, key, message)
        producer.flush(SEND_S)
    except Unavailable as failure:
        logger.warning("a signal waits for the broker: %s", failure)
        return False
    finally:
        producer.close()
    return True
