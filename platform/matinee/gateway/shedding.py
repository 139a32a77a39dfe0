"""Load shedding: as many requests at a time as are answered soon; those beyond are refused at once.

How many that is, is found while serving: the number in flight is moved after each answer so that one in
twenty takes longer than it should (the stochastic approximation of a quantile, Robbins and Monro, "A
stochastic approximation method", 1951). What an answer should take is twice what it takes where hardly
anybody else asks, so neither threads, batches nor models need to be known.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Traffic = Literal["page", "event", "batch", "control"]

SHARES: dict[Traffic, float] = {"page": 1.0, "event": 1.0, "batch": 0.5, "control": math.inf}
"""Of the requests that may be in flight, those that each traffic may add to. Control (splits, health,
metrics) is what an operator needs in an overload."""

LEAST, MOST = 4.0, 64.0
"""Requests in flight that are always and at most let in."""

SLOW = 0.05
"""The share of answers that may take longer than they should."""

GAIN = 0.03
"""How far one answer moves the limit, as a share of it."""

CALM_GAIN = 0.05
CALM = 2
"""Requests in flight, a new one included, of which each goes as if alone."""

TIMES = 2.0
"""What an answer may take, in times of what 95% take in calm."""

RETRY_AFTER_S = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """Whether a request goes on, and why not."""

    admit: bool
    reason: str = ""


ADMIT = Decision(admit=True)


def decide(length: int, limit: float, traffic: Traffic) -> Decision:
    """Admit a request where fewer are in flight than may be.

    Args:
        length: requests in flight.
        limit: how many pages may be.
    """
    bound = limit * SHARES[traffic]
    if length < bound:
        return ADMIT
    return Decision(
        admit=False,
        reason=f"overloaded: {length} requests are worked on, {bound:.0f} {traffic} requests may be",
    )


def moved(quantile: float, *, above: bool, gain: float) -> float:
    """A positive number, moved to where a share `SLOW` of what is seen lies above it."""
    return quantile * math.exp(gain * (above - SLOW))


class Flights:
    """The requests that share a resource. Call it from the event loop.

    Args:
        quick_s: what takes no longer is never too slow.
        clock: seconds, from anywhere.

    Attributes:
        length: requests in flight.
        limit: how many may be.
    """

    def __init__(self, quick_s: float, clock: Callable[[], float] = time.perf_counter) -> None:
        self.length = 0
        self.limit = MOST
        self._quick_s = quick_s
        self._calm_s = 0.0
        self._clock = clock

    def admit(self, traffic: Traffic) -> Decision:
        """Decide about a request that comes now."""
        return decide(self.length, self.limit, traffic)

    def begin(self) -> tuple[float, bool]:
        """An admitted request has all it needs, and is worked on; returns what `end` asks for."""
        self.length += 1
        return self._clock(), self.length <= CALM

    def end(self, began: tuple[float, bool]) -> None:
        """It is answered."""
        self.length -= 1
        start, calm = began
        seconds = self._clock() - start
        if calm:
            held = self._calm_s or seconds
            self._calm_s = moved(held, above=seconds > held, gain=CALM_GAIN)
        slow = seconds > max(self._quick_s, TIMES * self._calm_s)
        self.limit = min(MOST, max(LEAST, self.limit / moved(1.0, above=slow, gain=GAIN)))


class Flight:
    """One admitted request. It counts from `begin` to the end of the block, so never while its body comes.

    Who sends a body slowly would otherwise stand in the way of all others.
    """

    def __init__(self, flights: Flights) -> None:
        self._flights = flights
        self._began: tuple[float, bool] | None = None

    def __enter__(self) -> Flight:
        return self

    def __exit__(self, *failure: object) -> None:
        if self._began is not None:
            self._flights.end(self._began)

    def begin(self) -> None:
        """From now on it counts."""
        if self._began is None:
            self._began = self._flights.begin()
