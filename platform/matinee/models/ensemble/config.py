"""Settings of the ensemble."""

from __future__ import annotations

from dataclasses import dataclass

from matinee.models.space import Real, Space, Whole


@dataclass(frozen=True, kw_only=True)
class EnsembleConfig:
    """Whom the weights differ between, and how freely."""

    short_history: int = 10
    """Histories of fewer titles count as short."""
    shrinkage: float = 10.0
    """Held-out cases' worth of pull of a segment's weights towards those of all like segments."""


def default() -> EnsembleConfig:
    """The tuned settings."""
    return EnsembleConfig()


def test() -> EnsembleConfig:
    """As `default`: there is nothing to shrink."""
    return default()


def space() -> Space:
    """What tuning may set."""
    return {"short_history": Whole(3, 40, log=True), "shrinkage": Real(0.3, 1000.0, log=True)}
