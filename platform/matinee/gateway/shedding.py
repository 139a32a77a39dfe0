"""Load shedding: work that would wait too long is refused at once, the least urgent first.

The rule is that of controlled delay (Nichols and Jacobson, "Controlling queue delay", 2012; with the two
bounds of Maurer, "Fail at scale", 2015): a queue that most found empty may hold a burst, a queue that
stands may not.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, TypeVar

Traffic = Literal["page", "event", "batch", "control"]

PATIENCE: dict[Traffic, float] = {"page": 1.0, "event": 40.0, "batch": 0.25, "control": float("inf")}
"""Of the longest accepted wait, how much each traffic may wait. Events wait for the broker's threads, not
for a core; control (splits, health, metrics) is what an operator needs in an overload."""

BURST = 4.0
"""How much longer the wait may be where the queue does not stand."""

STANDING = 0.8
"""A queue stands that so large a share of the latest requests found with work in it."""

MEMORY = 0.02
"""Weight of one request in that share: it looks back over about fifty."""

RETRY_AFTER_S = 1.0
SMOOTHING = 0.05

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Queue:
    """A pool's queue at a moment.

    Args:
        length: work that waits.
        oldest_s: how long the first of it does.
        standing: share of the latest requests that found work waiting.
        run_s: what a piece of work takes on average.
        threads: how many are done at a time.
    """

    length: int
    oldest_s: float
    standing: float
    run_s: float
    threads: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """Whether a request goes on, and why not."""

    admit: bool
    reason: str = ""


ADMIT = Decision(admit=True)


def decide(queue: Queue, traffic: Traffic, most_s: float) -> Decision:
    """Admit a request where its work would begin soon enough.

    Args:
        most_s: the longest wait that is accepted for a page while the queue stands.
    """
    if not queue.length:
        return ADMIT
    expected = max(queue.oldest_s, queue.length * queue.run_s / queue.threads)
    bound = most_s * PATIENCE[traffic] * (BURST if queue.standing < STANDING else 1.0)
    if expected <= bound:
        return ADMIT
    return Decision(
        admit=False,
        reason=f"overloaded: {traffic} work would wait {expected * 1e3:.0f} ms, "
        f"at most {bound * 1e3:.0f} ms are accepted",
    )


class _Ticket:
    __slots__ = ("gone", "time")

    def __init__(self, now: float) -> None:
        self.time = now
        self.gone = False


class Pool:
    """Threads that do what would hold up the event loop, and the measure of their queue.

    Args:
        threads: how many.
        name: of the threads.
    """

    def __init__(self, threads: int, name: str) -> None:
        self._threads = threads
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._tickets: deque[_Ticket] = deque()
        self._standing = 0.0
        self._run_s = 0.0

    async def run(self, work: Callable[[], T]) -> T:
        """Do `work` on a thread; call it from the event loop."""
        ticket = _Ticket(time.perf_counter())
        self._tickets.append(ticket)

        def timed() -> T:
            ticket.gone = True
            start = time.perf_counter()
            try:
                return work()
            finally:
                self._run_s += SMOOTHING * (time.perf_counter() - start - self._run_s)

        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, timed)
        finally:
            ticket.gone = True

    def admit(self, traffic: Traffic, most_s: float) -> Decision:
        """Decide about a request that comes now; call it once for each, from the event loop."""
        queue = self.queue()
        self._standing += MEMORY * ((queue.length > 0) - self._standing)
        return decide(queue, traffic, most_s)

    def queue(self) -> Queue:
        """The queue now; call it from the event loop."""
        tickets = self._tickets
        while tickets and tickets[0].gone:
            tickets.popleft()
        return Queue(
            length=len(tickets),
            oldest_s=time.perf_counter() - tickets[0].time if tickets else 0.0,
            standing=self._standing,
            run_s=self._run_s,
            threads=self._threads,
        )

    def shutdown(self) -> None:
        """Wait for what runs, and end the threads."""
        self._executor.shutdown()
