"""Every answer becomes an exposure event, off the request's path: a request never waits for Kafka."""

from __future__ import annotations

import logging
import math
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import orjson

from matinee.errors import MatineeError, Unavailable
from matinee.serving.pages import HomeAnswer
from matinee.serving.recommender import Answer

CAPACITY = 20_000
"""Most answers waiting for the broker; later ones are dropped and counted."""

BATCH = 500
GATHER_S = 0.01
"""How long the first answer after a pause waits for others: waking a thread for each costs too much."""
SEND_TIMEOUT_S = 5.0
FIRST_RETRY_S = 0.5
LAST_RETRY_S = 5.0
"""Waits between attempts double from the first to the last: every attempt may arrive after all."""

logger = logging.getLogger(__name__)


class Sender(Protocol):
    """Delivers messages or raises Unavailable."""

    def send_wait(self, topic: str, keys: Sequence[str], payloads: Sequence[bytes], timeout_s: float) -> None:
        """Return once every message is acknowledged."""


class PageExposure:
    """What all exposures of one page to one member tell alike, put into words once.

    Args:
        answer: the first that showed it.
    """

    def __init__(self, answer: HomeAnswer) -> None:
        self._member_id = answer.page.member_id
        self._answer: HomeAnswer | None = answer
        self._told = b""

    def message(self, request_id: str, time: int, latency_ms: float) -> tuple[str, bytes]:
        """As `exposures.message`, of one answer. Call it from one thread at a time."""
        if self._answer is not None:
            facts = _of_page(self._answer) | _of_any(self._answer)
            self._told, self._answer = orjson.dumps(facts)[1:], None
        head = f'{{"exposure_id":"{request_id}","time":{time},"latency_ms":{latency_ms!r},'
        return self._member_id, head.encode() + self._told


class Again(NamedTuple):
    """A page that was given once more.

    Args:
        time: microseconds.
    """

    exposure: PageExposure
    request_id: str
    time: int


Shown = Answer | HomeAnswer | Again


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
        self._capacity = capacity
        self._waiting: deque[tuple[Shown, float]] = deque()
        self._awake = threading.Event()
        self._counting = threading.Lock()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="exposures", daemon=True)
        self._thread.start()

    def put(self, answer: Shown, *, latency_ms: float) -> None:
        """Hand an answer over; returns at once, whatever the broker does."""
        if len(self._waiting) >= self._capacity:
            self._drop(1)
            return
        self._waiting.append((answer, latency_ms))
        if not self._awake.is_set():
            self._awake.set()

    def close(self) -> None:
        """Send what waits, once; what the broker does not take is dropped."""
        self._closing.set()
        self._awake.set()
        self._thread.join()

    def _run(self) -> None:
        while True:
            self._awake.wait()
            self._closing.wait(GATHER_S)
            self._awake.clear()  # before the queue is read: what comes from now on wakes it again
            while batch := self._take():
                if not self._deliver([message(*item) for item in batch]):
                    self._drop(len(batch) + len(self._waiting))
                    return
            if self._closing.is_set():
                return

    def _take(self) -> list[tuple[Shown, float]]:
        count = min(BATCH, len(self._waiting))
        return [self._waiting.popleft() for _ in range(count)]

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


def message(answer: Shown, latency_ms: float) -> tuple[str, bytes]:
    """Key and JSON of an answer's exposure. Times in microseconds; an unknown feature is null.

    `titles` are in columns, in the order of their positions from 0, and scores in the digits that a float32
    has: a broker's work grows with the bytes.
    `rows` are those of a home page, each with the position of its first title and how many it has.
    """
    if isinstance(answer, HomeAnswer):
        answer = Again(PageExposure(answer), answer.request_id, answer.time)
    if isinstance(answer, Again):
        return answer.exposure.message(answer.request_id, answer.time, latency_ms)
    value = _of_ranking(answer) | _of_any(answer)
    return value["member_id"], orjson.dumps(value | {"time": answer.time, "latency_ms": latency_ms})


def _of_any(answer: Answer | HomeAnswer) -> dict[str, Any]:
    return {"fallback": answer.fallback, "features": _finite(answer.features)}


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
        "titles": _titles([(candidate.title_id, candidate.score) for candidate in ranking.candidates]),
        "shadow_of": answer.shadow_of,
    }


def _of_page(answer: HomeAnswer) -> dict[str, Any]:
    page = answer.page
    rows = orjson.loads(page.rows)
    shown = [item for row in rows for item in row["items"]]
    return {
        "member_id": page.member_id,
        "surface": page.surface,
        "model_version": page.model_version,
        "cell": page.cell,
        "answer": page.answer,
        "made_at": page.made_at,
        "titles": _titles([(item["title_id"], item["score"]) for item in shown]),
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


def _titles(shown: Sequence[tuple[str, float]]) -> dict[str, Any]:
    scores = np.array([score for _, score in shown], np.float32)
    short = orjson.Fragment(orjson.dumps(scores, option=orjson.OPT_SERIALIZE_NUMPY))
    return {"title_id": [title_id for title_id, _ in shown], "score": short}


def _finite(features: Mapping[str, float]) -> dict[str, float | None]:
    return {
        name: float(value) if value is not None and math.isfinite(value) else None
        for name, value in features.items()
    }
