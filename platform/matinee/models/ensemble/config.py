"""Settings of the ensemble."""

from __future__ import annotations

from dataclasses import dataclass


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
