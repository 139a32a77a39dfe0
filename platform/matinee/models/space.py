"""Search spaces: what a field of a model's config may be, for whatever searches. Pure.

A dimension maps its values to places in [0, 1] and back; a space is dimensions by field name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Real:
    """A number from `low` to `high`, both included; with `log`, equal factors are equally far apart."""

    low: float
    high: float
    log: bool = False

    def at(self, place: float) -> float:
        """The value at a place in [0, 1]."""
        if self.log:
            value = self.low * (self.high / self.low) ** place
        else:
            value = self.low + (self.high - self.low) * place
        return self.nearest(value)

    def place(self, value: float) -> float:
        """Where a value stands, in [0, 1]; one outside stands at the nearer end."""
        value = self.nearest(value)
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def nearest(self, value: float) -> float:
        """The value itself, or the nearer end."""
        return min(max(value, self.low), self.high)


@dataclass(frozen=True)
class Whole:
    """A whole number from `low` to `high`, both included; `log` as in `Real`."""

    low: int
    high: int
    log: bool = False

    def at(self, place: float) -> int:
        """The value at a place in [0, 1]."""
        return round(Real(self.low, self.high, self.log).at(place))

    def place(self, value: float) -> float:
        """Where a value stands, in [0, 1]; one outside stands at the nearer end."""
        return Real(self.low, self.high, self.log).place(value)

    def nearest(self, value: float) -> int:
        """The value itself, rounded, or the nearer end."""
        return min(max(round(value), self.low), self.high)


@dataclass(frozen=True)
class Choice:
    """One of some values, at least two, which are None, bool, int, float or str."""

    values: Sequence[Any]

    def at(self, place: float) -> Any:
        """The value at a place in [0, 1]."""
        return self.values[round(place * (len(self.values) - 1))]

    def place(self, value: Any) -> float:
        """Where a value stands, in [0, 1]; one that is no choice stands at the first."""
        return self.values.index(self.nearest(value)) / (len(self.values) - 1)

    def nearest(self, value: Any) -> Any:
        """The value itself, or the first."""
        return value if value in self.values else self.values[0]


Dimension = Real | Whole | Choice
Space = Mapping[str, Dimension]


def nearest(space: Space, config: Any) -> dict[str, Any]:
    """The point of a space that is nearest to a config: the config's own values where they lie inside."""
    return {name: dimension.nearest(getattr(config, name)) for name, dimension in space.items()}
