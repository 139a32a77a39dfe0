"""What both sides of a rollout did so far: from exposures and outcomes to evidence and samples.

Pure, and kept as JSON. Latency and cold starts of an exposure count when it is met. What came of it counts
once it is settled, `settle_us` later, with what had come of it by then: a click a week later changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from matinee.canary.counts import FIGURES, Shown, Side
from matinee.canary.judge import Samples
from matinee.errors import InvalidInput
from matinee.monitoring.window import COLD_START
from matinee.schema import EventType

METRICS = (*FIGURES, "latency_p95_ms", "latency_p99_ms")
"""What the judge may be asked about, a value an interval: plays, clicks and seconds watched per exposure (one
that led to several counts once, its seconds together), the share of cold starts, that of answers for which
something stood in because the version did not answer, latency."""


@dataclass(frozen=True, slots=True)
class Series:
    """A metric over time: a value an interval, on both sides.

    Args:
        begins: int64 [n], microseconds since the epoch: where each interval begins.
        length_us: of every interval.
    """

    begins: npt.NDArray[np.int64]
    length_us: int
    samples: Samples

    def within(self, begin: int, end: int) -> Samples:
        """The values of the intervals that lie whole between two moments, microseconds since the epoch."""
        inside = (self.begins >= begin) & (self.begins + self.length_us <= end)
        return Samples(self.samples.control[inside], self.samples.experiment[inside])


class Tally:
    """The two sides of a rollout.

    Args:
        cells: baseline's and canary's.
        start: microseconds since the epoch: where the first interval begins.
        interval_us: length of an interval.
        settle_us: how long what comes of an exposure counts.

    Attributes:
        sides: baseline and canary.
        step_began: microseconds since the epoch: from when on exposures count for the step.
    """

    def __init__(self, cells: tuple[str, str], *, start: int, interval_us: int, settle_us: int) -> None:
        self.cells = cells
        self.sides = (Side(), Side())
        self.start = start
        self.interval_us = interval_us
        self._settle_us = settle_us
        self._until = start
        self.step_began = start
        self._pending: dict[str, Shown] = {}
        self._early: dict[str, list[tuple[int, Mapping[str, Any]]]] = {}
        self._open: dict[int, tuple[list[Shown], list[Shown]]] = {}
        self._closed: list[tuple[int, list[list[float]]]] = []

    @property
    def members(self) -> tuple[int, int]:
        """Members met on each side."""
        return len(self.sides[0].members), len(self.sides[1].members)

    @property
    def settled(self) -> tuple[int, int]:
        """Settled exposures of each side in this step."""
        return self.sides[0].settled_here, self.sides[1].settled_here

    @property
    def settled_until(self) -> int:
        """Microseconds since the epoch: what was shown before is settled."""
        return self._until - self._settle_us

    @property
    def intervals(self) -> int:
        """How many intervals are over and settled."""
        return max(0, self.settled_until - self.start) // self.interval_us

    def next_step(self, began: int) -> None:
        """A step begins; microseconds since the epoch."""
        self.step_began = began
        for side in self.sides:
            side.settled_here = 0

    def exposure(self, message: Mapping[str, Any]) -> bool:
        """Take an exposure (a message of the topic); False where it is of no side, or was met before.

        Raises:
            InvalidInput: it is of a side and lacks a field.
        """
        cell = message.get("cell")
        if cell not in self.cells:
            return False
        try:
            side = self.sides[self.cells.index(cell)]
            name, member_id = str(message["exposure_id"]), str(message["member_id"])
            shown = Shown(
                side=self.cells.index(cell),
                time=int(message["time"]),
                first=member_id not in side.members,
                cold=message["answer"] == COLD_START,
                fallback=message.get("fallback") is not None,
                latency_ms=float(message["latency_ms"]),
            )
        except (KeyError, TypeError, ValueError) as failure:
            raise InvalidInput(f"exposure: {type(failure).__name__} {failure}") from None
        if name in self._pending or shown.time + self._settle_us <= self._until:
            return False
        self._pending[name] = shown
        side.members.add(member_id)
        for counts in side.counts(shown):
            counts.meet(shown)
        for at, event in self._early.pop(name, ()):
            self._happened(shown, event, at)
        return True

    def outcome(self, message: Mapping[str, Any], at: int) -> None:
        """Take an event (a message of the topic); one of no exposure here is kept a while and forgotten.

        Args:
            at: microseconds since the epoch: when it came into the topic.
        """
        request_id, cell = message.get("request_id"), message.get("cell")
        if not isinstance(request_id, str) or (cell is not None and cell not in self.cells):
            return
        if shown := self._pending.get(request_id):
            self._happened(shown, message, at)
        elif message.get("type") in (EventType.CLICK, EventType.PLAY, EventType.STOP):
            self._early.setdefault(request_id, []).append((at, message))

    def settle(self, now: int) -> None:
        """Count what came of the exposures that are old enough, and close the intervals they fill.

        Args:
            now: microseconds since the epoch up to which both topics are read.
        """
        self._until = max(self._until, now)
        limit = self.settled_until
        for name, shown in list(self._pending.items()):
            if shown.time > limit:
                continue
            del self._pending[name]
            side = self.sides[shown.side]
            side.settled_here += shown.time >= self.step_began
            for counts in side.counts(shown):
                counts.settle(shown)
            index = max(0, shown.time - self.start) // self.interval_us
            self._open.setdefault(index, ([], []))[shown.side].append(shown)
        for index in sorted(self._open):
            if self.start + (index + 1) * self.interval_us <= limit:
                self._closed.append((index, [_interval(side) for side in self._open.pop(index)]))
        waited = self._until - max(self._settle_us, self.interval_us)
        self._early = {name: held for name, held in self._early.items() if held[0][0] > waited}

    def series(self) -> dict[str, Series]:
        """Each metric of `METRICS`, a value for each closed interval that had an exposure on any side."""
        values = np.array([sides for _, sides in self._closed], np.float64).reshape(-1, 2, len(METRICS))
        begins = self.begins(np.array([index for index, _ in self._closed], np.int64))
        return {
            name: Series(begins, self.interval_us, Samples(values[:, 0, column], values[:, 1, column]))
            for column, name in enumerate(METRICS)
        }

    def begins(self, indices: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Where intervals begin, microseconds since the epoch; the first is number 0."""
        return self.start + indices * self.interval_us

    def _happened(self, shown: Shown, event: Mapping[str, Any], at: int) -> None:
        kind, seconds = event.get("type"), event.get("value")
        if at > shown.time + self._settle_us:
            return
        shown.clicked |= kind == EventType.CLICK
        shown.played |= kind == EventType.PLAY
        if kind == EventType.STOP and isinstance(seconds, int | float):
            title = str(event.get("title_id"))
            shown.watched_s[title] = max(shown.watched_s.get(title, 0.0), float(seconds))

    def to_json(self) -> dict[str, Any]:
        """Everything, as JSON holds it."""
        return {
            "cells": self.cells,
            "times": [self.start, self.interval_us, self._settle_us, self._until, self.step_began],
            "sides": [side.to_json() for side in self.sides],
            "pending": {name: asdict(shown) for name, shown in self._pending.items()},
            "open": [
                [index, [list(map(asdict, side)) for side in sides]] for index, sides in self._open.items()
            ],
            "closed": [
                [index, [[_json(v) for v in side] for side in sides]] for index, sides in self._closed
            ],
        }

    @classmethod
    def from_json(cls, held: Mapping[str, Any]) -> Self:
        """What `to_json` gave; events that waited for their exposure are forgotten."""
        start, interval_us, settle_us, until, step_began = held["times"]
        tally = cls(tuple(held["cells"]), start=start, interval_us=interval_us, settle_us=settle_us)
        tally._until, tally.step_began = until, step_began
        baseline, canary = (Side.from_json(side) for side in held["sides"])
        tally.sides = (baseline, canary)
        tally._pending = {name: Shown(**shown) for name, shown in held["pending"].items()}
        for index, (left, right) in held["open"]:
            tally._open[index] = ([Shown(**each) for each in left], [Shown(**each) for each in right])
        tally._closed = [
            (index, [[np.nan if value is None else value for value in side] for side in sides])
            for index, sides in held["closed"]
        ]
        return tally


def _interval(shown: list[Shown]) -> list[float]:
    """The values of `METRICS` over the exposures of an interval; NaN where there is none."""
    if not shown:
        return [np.nan] * len(METRICS)
    latency = np.array([each.latency_ms for each in shown])
    return [
        float(np.mean([each.played for each in shown])),
        float(np.mean([each.clicked for each in shown])),
        float(np.mean([sum(each.watched_s.values()) for each in shown])),
        float(np.mean([each.cold for each in shown])),
        float(np.mean([each.fallback for each in shown])),
        float(latency.mean()),
        float(np.quantile(latency, 0.95)),
        float(np.quantile(latency, 0.99)),
    ]


def _json(value: float) -> float | None:
    return None if np.isnan(value) else value
