"""Load shedding: work that would wait too long is refused at once, the least urgent first.

The rule is that of controlled delay (Nichols and Jacobson, "Controlling queue delay", 2012; with the two
bounds of Maurer, "Fail at scale", 2015): a queue that most found empty may hold a burst, a queue that
stands may not.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Literal

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


@dataclass(frozen=True, kw_only=True, slots=True)
class Queue:
    """The requests that are worked on at a moment, whether they wait or run.

    Args:
        length: how many.
        standing: share of the latest requests that found others.
        pace_s: time from one answer to the next while there is work.
    """

    length: int
    standing: float
    pace_s: float


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
    expected = queue.length * queue.pace_s
    bound = most_s * PATIENCE[traffic] * (BURST if queue.standing < STANDING else 1.0)
    if expected <= bound:
        return ADMIT
    return Decision(
        admit=False,
        reason=f"overloaded: {traffic} work would wait {expected * 1e3:.0f} ms, "
        f"at most {bound * 1e3:.0f} ms are accepted",
    )


class Flights:
    """The requests that share a resource, and their pace. Call it from the event loop.

    The pace is that of answers, so work that is done several at a time counts for what it is.
    """

    def __init__(self) -> None:
        self._length = 0
        self._standing = 0.0
        self._pace_s = 0.0
        self._last = 0.0

    def admit(self, traffic: Traffic, most_s: float) -> Decision:
        """Decide about a request that comes now; call it once for each."""
        self._standing += MEMORY * ((self._length > 0) - self._standing)
        return decide(self.queue(), traffic, most_s)

    def queue(self) -> Queue:
        """The queue now."""
        return Queue(length=self._length, standing=self._standing, pace_s=self._pace_s)

    def begin(self) -> None:
        """An admitted request has all it needs, and is worked on."""
        if not self._length:
            self._last = time.perf_counter()
        self._length += 1

    def end(self) -> None:
        """It is answered."""
        self._length -= 1
        now = time.perf_counter()
        self._pace_s += SMOOTHING * (now - self._last - self._pace_s)
        self._last = now


class Flight:
    """One admitted request. It counts from `begin` to the end of the block, so never while its body comes.

    Who sends a body slowly would otherwise stand in the way of all others.
    """

    def __init__(self, flights: Flights) -> None:
        self._flights = flights
        self._begun = False

    def __enter__(self) -> Flight:
        return self

    def __exit__(self, *failure: object) -> None:
        if self._begun:
            self._flights.end()

    def begin(self) -> None:
        """From now on it counts."""
        if not self._begun:
            self._begun = True
            self._flights.begin()
