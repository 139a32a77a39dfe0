"""A value that lives elsewhere: read again as it ages, kept while its source fails."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

from matinee.errors import Unavailable

T = TypeVar("T")

logger = logging.getLogger(__name__)


class Refreshed(Generic[T]):
    """A copy of what `fetch` gives. Nobody waits for a refresh but those who come before the first value.

    Args:
        fetch: reads the source; runs on a thread of its own. What it raises is logged.
        name: what it is, for messages.
        refresh_s: age at which it is read again.
        retry_s: least time between two reads.
        stale_s: age above which it no longer serves.

    Attributes:
        version: changes with the value.
    """

    def __init__(
        self, fetch: Callable[[], T], *, name: str, refresh_s: float, retry_s: float, stale_s: float
    ) -> None:
        self._fetch = fetch
        self._name = name
        self._refresh = refresh_s
        self._retry = retry_s
        self._stale = stale_s
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="refresh")
        self._value: T | None = None
        self._read = self._tried = float("-inf")
        self._running: Future[None] | None = None
        self.version = 0

    async def get(self) -> T:
        """The value.

        Raises:
            Unavailable: it was never read, or not for longer than `stale_s`.
        """
        age = time.monotonic() - self._read
        if self._value is None or age > self._stale:
            await self._read_again()
        elif age > self._refresh:
            self._start()
        if self._value is None or time.monotonic() - self._read > self._stale:
            raise Unavailable(f"{self._name} cannot be read", retry_after_s=self._retry)
        return self._value

    async def newer(self) -> T:
        """The value after one more read, for who misses something in it; too soon it is the same."""
        await self._read_again()
        return await self.get()

    def close(self) -> None:
        """End the thread."""
        self._pool.shutdown(cancel_futures=True)

    async def _read_again(self) -> None:
        if running := self._start():
            await asyncio.shield(asyncio.wrap_future(running))

    def _start(self) -> Future[None] | None:
        """The read that runs or starts now; None where the last one is too recent."""
        if self._running is None or self._running.done():
            if time.monotonic() - self._tried < self._retry:
                return None
            self._tried = time.monotonic()
            self._running = self._pool.submit(self._run)
        return self._running

    def _run(self) -> None:
        try:
            value = self._fetch()
        except Exception as failure:
            logger.warning("%s cannot be read: %s: %s", self._name, type(failure).__name__, failure)
            return
        if value != self._value:
            self.version += 1
        self._value, self._read = value, time.monotonic()
