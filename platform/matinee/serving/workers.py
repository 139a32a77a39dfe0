"""Threads for work that may never end: one that hangs is given up and replaced."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")


class Workers:
    """A number of threads that take work in turn. Safe between threads.

    Args:
        count: threads that work; those given up come on top until their work ends.
        name: prefix of their names.
    """

    def __init__(self, count: int, name: str) -> None:
        self._name = name
        self._count = count
        self._waiting: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._running: set[Future[Any]] = set()
        self._lost: set[Future[Any]] = set()
        for _ in range(count):
            self._start()

    @property
    def lost(self) -> int:
        """Threads given up whose work goes on."""
        return len(self._lost)

    def submit(self, work: Callable[[], T]) -> Future[T]:
        """Have `work` done by the next free thread."""
        future: Future[T] = Future()
        self._waiting.put((future, work))
        return future

    def abandon(self, future: Future[Any]) -> bool:
        """Give work up: what has not begun never will, and a thread that is on it is replaced.

        Returns:
            Whether a thread was on it.
        """
        if future.cancel():
            return False
        with self._lock:
            if future not in self._running:
                return False
            self._running.remove(future)
            self._lost.add(future)
        self._start()
        return True

    def close(self) -> None:
        """End every thread that is free, and the others with their work; hanging ones keep no process up."""
        for _ in range(self._count):
            self._waiting.put(None)

    def _start(self) -> None:
        threading.Thread(target=self._run, name=self._name, daemon=True).start()

    def _run(self) -> None:
        while (item := self._waiting.get()) is not None:
            future, work = item
            if not future.set_running_or_notify_cancel():
                continue
            with self._lock:
                self._running.add(future)
            result, failure = None, None
            try:
                result = work()
            except BaseException as raised:
                failure = raised
            with self._lock:
                replaced = future in self._lost
                self._running.discard(future)
                self._lost.discard(future)
            if failure is None:
                future.set_result(result)
            else:
                future.set_exception(failure)
            if replaced:
                return
