"""Every answer becomes an exposure event, off the request's path: a request never waits for Kafka."""

from __future__ import annotations

import logging
import math
import queue
import threading
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import orjson

from matinee.errors import MatineeError, Unavailable
from matinee.serving.pages import HomeAnswer
from matinee.serving.recommender import Answer

CAPACITY = 20_000
"""Most answers waiting for the broker; later ones are dropped and counted."""

BATCH = 500
SEND_TIMEOUT_S = 5.0
FIRST_RETRY_S = 0.5
LAST_RETRY_S = 5.0
"""Waits between attempts double from the first to the last: every attempt may arrive after all."""

logger = logging.getLogger(__name__)


class Sender(Protocol):
    """Delivers messages or raises Unavailable."""

    def send_wait(self, topic: str, keys: Sequence[str], payloads: Sequence[bytes], timeout_s: float) -> None:
        """Return once every message is acknowledged."""


class ExposureLog:
    """A bounded queue and the thread that empties it into a topic.

    A batch that may not have been delivered is sent again: readers tell repeats by `exposure_id`.

    Args:
        sender: the Kafka door.
        topic: where exposures go.
        capacity: most answers held while the broker does not answer.

    Attributes:
        sent: acknowledged so far.
        dropped: lost because the queue was full, or not delivered at close.
    """

    def __init__(self, sender: Sender, topic: str, *, capacity: int = CAPACITY) -> None:
        self.sent = 0
        self.dropped = 0
        self._sender = sender
        self._topic = topic
        self._waiting: queue.Queue[tuple[Answer | HomeAnswer, float] | None] = queue.Queue(capacity)
        self._counting = threading.Lock()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="exposures", daemon=True)
        self._thread.start()

    def put(self, answer: Answer | HomeAnswer, *, latency_ms: float) -> None:
        """Hand an answer over; returns at once, whatever the broker does."""
        try:
            self._waiting.put_nowait((answer, latency_ms))
        except queue.Full:
            self._drop(1)

    def close(self) -> None:
        """Send what waits, once; what the broker does not take is dropped."""
        self._closing.set()
        try:
            self._waiting.put_nowait(None)
        except queue.Full:
            logger.debug("the queue is full, so its reader is awake")
        self._thread.join()

    def _run(self) -> None:
        while not (self._closing.is_set() and self._waiting.empty()):
            batch = self._take()
            if batch and not self._deliver([message(*item) for item in batch]):
                self._drop(len(batch) + self._waiting.qsize())
                return

    def _take(self) -> list[tuple[Answer | HomeAnswer, float]]:
        items = [self._waiting.get()]
        while len(items) < BATCH:
            try:
                items.append(self._waiting.get_nowait())
            except queue.Empty:
                break
        return [item for item in items if item is not None]

    def _deliver(self, messages: list[tuple[str, bytes]]) -> bool:
        keys = [key for key, _ in messages]
        payloads = [payload for _, payload in messages]
        pause = FIRST_RETRY_S
        while True:
            try:
                self._sender.send_wait(self._topic, keys, payloads, SEND_TIMEOUT_S)
            except Unavailable as failure:
                if pause == FIRST_RETRY_S:
                    logger.warning("exposures wait for the broker: %s", failure)
                if self._closing.wait(pause):
                    return False
                pause = min(2 * pause, LAST_RETRY_S)
            except MatineeError as failure:
                logger.warning("%d exposures are dropped: %s", len(messages), failure)
                self._drop(len(messages))
                return True
            else:
                self.sent += len(messages)
                return True

    def _drop(self, count: int) -> None:
        with self._counting:
            self.dropped += count


def message(answer: Answer | HomeAnswer, latency_ms: float) -> tuple[str, bytes]:
    """Key and JSON of an answer's exposure. Times in microseconds; an unknown feature is null.

    `rows` are those of a home page, each with the position of its first title and how many it has.
    """
    value = _of_page(answer) if isinstance(answer, HomeAnswer) else _of_ranking(answer)
    value |= {
        "time": answer.time,
        "fallback": answer.fallback,
        "features": _finite(answer.features),
        "latency_ms": latency_ms,
    }
    return value["member_id"], orjson.dumps(value)


def _of_ranking(answer: Answer) -> dict[str, Any]:
    ranking = answer.ranking
    return {
        "exposure_id": ranking.request_id,
        "member_id": ranking.member_id,
        "surface": ranking.surface,
        "model_version": ranking.model_version,
        "cell": ranking.cell,
        "answer": ranking.answer,
        "made_at": answer.time if answer.made_at is None else answer.made_at,
        "titles": [
            {"title_id": candidate.title_id, "position": position, "score": candidate.score}
            for position, candidate in enumerate(ranking.candidates)
        ],
        "shadow_of": answer.shadow_of,
    }


def _of_page(answer: HomeAnswer) -> dict[str, Any]:
    page = answer.page
    rows = orjson.loads(page.rows)
    shown = [item for row in rows for item in row["items"]]
    return {
        "exposure_id": answer.request_id,
        "member_id": page.member_id,
        "surface": page.surface,
        "model_version": page.model_version,
        "cell": page.cell,
        "answer": page.answer,
        "made_at": page.made_at,
        "titles": [{name: item[name] for name in ("title_id", "position", "score")} for item in shown],
        "rows": [
            {
                "kind": row["kind"],
                "because": row["reason"]["title_id"] or row["reason"]["genre"],
                "first": row["items"][0]["position"],
                "count": len(row["items"]),
            }
            for row in rows
        ],
    }


def _finite(features: Mapping[str, float]) -> dict[str, float | None]:
    return {
        name: float(value) if value is not None and math.isfinite(value) else None
        for name, value in features.items()
    }
