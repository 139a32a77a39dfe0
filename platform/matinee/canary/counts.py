"""What is counted of a side: of every exposure, and of each member's first alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from matinee.canary.early import Evidence, Histogram, Moments, Rate

FIGURES = ("play_rate", "click_rate", "watch_s", "cold_rate", "fallback_rate", "latency_mean_ms")
"""Rates and means of exposures: plays, clicks and seconds watched of each, cold starts, answers for which
something stood in, latency."""
OF_EXPOSURES = (*FIGURES, "latency_ms")
MEMBER = "member."
EVIDENCE = (*OF_EXPOSURES, *(MEMBER + name for name in OF_EXPOSURES))
"""What limits may name: rates, the means watch_s and latency_mean_ms, and latency_ms for quantiles; of all
exposures, or of each member's first alone. Where members come often and differ, what they do at one exposure
tells what they do at the next: then only the latter are the independent observations that tests ask for."""

EDGES_MS: npt.NDArray[np.float64] = np.concatenate([[0.0], np.geomspace(0.1, 120_000.0, 475)])
"""Edges of the latency histogram: 3% apart."""


@dataclass
class Mean:
    """A running mean and sum of squared deviations (Welford, 1962)."""

    n: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def add(self, value: float) -> None:
        """Take a value in."""
        self.n += 1
        delta = value - self.mean
        self.mean += delta / self.n
        self.squares += delta * (value - self.mean)

    @property
    def moments(self) -> Moments:
        """As evidence."""
        return Moments(n=self.n, mean=self.mean, variance=self.squares / self.n if self.n else 0.0)


@dataclass
class Shown:
    """An exposure that is not settled: which side (0 baseline, 1 canary), when, whether it is its member's
    first, and what came of it."""

    side: int
    time: int
    first: bool
    cold: bool
    fallback: bool
    latency_ms: float
    clicked: bool = False
    played: bool = False
    watched_s: dict[str, float] = field(default_factory=dict)


@dataclass
class Counts:
    """Figures of some exposures."""

    exposures: int = 0
    cold: int = 0
    fallback: int = 0
    latency: Mean = field(default_factory=Mean)
    histogram: list[int] = field(default_factory=lambda: [0] * (len(EDGES_MS) - 1))
    settled: int = 0
    clicked: int = 0
    played: int = 0
    watched: Mean = field(default_factory=Mean)

    def meet(self, shown: Shown) -> None:
        """Count what is known of an exposure when it is met."""
        self.exposures += 1
        self.cold += shown.cold
        self.fallback += shown.fallback
        self.latency.add(shown.latency_ms)
        place = int(np.searchsorted(EDGES_MS, shown.latency_ms, side="right")) - 1
        self.histogram[min(max(place, 0), len(self.histogram) - 1)] += 1

    def settle(self, shown: Shown) -> None:
        """Count what came of it."""
        self.settled += 1
        self.clicked += shown.clicked
        self.played += shown.played
        self.watched.add(sum(shown.watched_s.values()))

    def evidence(self) -> dict[str, Evidence]:
        """By the names of `OF_EXPOSURES`."""
        return {
            "play_rate": Rate(successes=self.played, trials=self.settled),
            "click_rate": Rate(successes=self.clicked, trials=self.settled),
            "watch_s": self.watched.moments,
            "cold_rate": Rate(successes=self.cold, trials=self.exposures),
            "fallback_rate": Rate(successes=self.fallback, trials=self.exposures),
            "latency_mean_ms": self.latency.moments,
            "latency_ms": Histogram(edges=EDGES_MS, counts=np.array(self.histogram)),
        }

    @classmethod
    def from_json(cls, held: Mapping[str, Any]) -> Self:
        """What `asdict` gave."""
        return cls(**{**held, **{name: Mean(**held[name]) for name in ("latency", "watched")}})


@dataclass
class Side:
    """Everything seen of a side: its members, the figures of every exposure and of each member's first, and
    how many settled in this step."""

    members: set[str] = field(default_factory=set)
    every: Counts = field(default_factory=Counts)
    first: Counts = field(default_factory=Counts)
    settled_here: int = 0

    def counts(self, shown: Shown) -> list[Counts]:
        """Those that an exposure counts in."""
        return [self.every, self.first] if shown.first else [self.every]

    def evidence(self) -> dict[str, Evidence]:
        """By the names of `EVIDENCE`."""
        first = {MEMBER + name: each for name, each in self.first.evidence().items()}
        return self.every.evidence() | first

    def to_json(self) -> dict[str, Any]:
        """Everything, as JSON holds it."""
        return {**asdict(self), "members": sorted(self.members)}

    @classmethod
    def from_json(cls, held: Mapping[str, Any]) -> Self:
        """What `to_json` gave."""
        return cls(
            members=set(held["members"]),
            every=Counts.from_json(held["every"]),
            first=Counts.from_json(held["first"]),
            settled_here=held["settled_here"],
        )
