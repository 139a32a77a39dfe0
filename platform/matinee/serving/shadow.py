"""Shadow traffic: answers of a version that nobody sees, made off the request's path and logged."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from matinee.serving.recommender import Answer

CAPACITY = 64
"""Most requests waiting to be scored; later ones are dropped and counted."""

CLOSE_S = 2.0

logger = logging.getLogger(__name__)


class Put(Protocol):
    """Takes an answer and how long it took."""

    def __call__(self, answer: Answer, *, latency_ms: float) -> None:
        """Hand it over."""


class Shadows:
    """A bounded queue and the one thread that works through it.

    Args:
        put: takes what was made.
        capacity: most requests that wait.

    Attributes:
        made: answers handed over.
        dropped: requests that were not scored because it was behind, or failed to be.
    """

    def __init__(self, put: Put, *, capacity: int = CAPACITY) -> None:
        self.made = 0
        self.dropped = 0
        self._put = put
        self._counting = threading.Lock()
        self._waiting: queue.Queue[Callable[[], Answer] | None] = queue.Queue(capacity)
        self._thread = threading.Thread(target=self._run, name="shadows", daemon=True)
        self._thread.start()

    def offer(self, make: Callable[[], Answer]) -> None:
        """Let `make` be called soon; returns at once."""
        try:
            self._waiting.put_nowait(make)
        except queue.Full:
            self._drop()

    def close(self) -> None:
        """Make what waits, then end; a model that hangs is not waited for."""
        with suppress(queue.Full):
            self._waiting.put(None, timeout=CLOSE_S)
        self._thread.join(CLOSE_S)

    def _run(self) -> None:
        while make := self._waiting.get():
            start = time.perf_counter()
            try:
                self._put(make(), latency_ms=(time.perf_counter() - start) * 1e3)
                self.made += 1
            except Exception:
                logger.exception("a shadow answer failed")
                self._drop()

    def _drop(self) -> None:
        with self._counting:
            self.dropped += 1
