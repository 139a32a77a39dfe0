"""Settings of the popularity model."""

from __future__ import annotations

from dataclasses import dataclass

from matinee.models.space import Choice, Space


@dataclass(frozen=True, kw_only=True)
class PopularityConfig:
    """What counts as popular."""

    half_life_days: float | None = None
    """Days after which a watch counts half in `score`; None: every watch counts one, for ever."""
    trend_half_life_days: float = 7.0
    """Days after which a watch counts half in the `trend` signal, seen from the moment of the query."""


def default() -> PopularityConfig:
    """The plain count of all time."""
    return PopularityConfig()


def test() -> PopularityConfig:
    """As `default`: there is nothing to shrink."""
    return default()


def space() -> Space:
    """What tuning may set."""
    return {"half_life_days": Choice((None, 365.0, 180.0, 90.0, 30.0, 14.0, 7.0, 3.0, 1.0))}
