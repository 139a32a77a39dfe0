"""What a simulated service is made of: every number that shapes it, and presets."""

from __future__ import annotations

from dataclasses import dataclass, fields

from matinee.errors import ConfigError

DEFAULT_START = 1_735_689_600_000_000
"""2025-01-01 00:00 UTC, in microseconds since the epoch."""


@dataclass(frozen=True, kw_only=True)
class Shift:
    """A sudden change: some members' tastes turn to something else at one moment."""

    day: float
    """When, in days after the world's start."""
    share: float = 1.0
    """Share of members whose tastes turn, 0 to 1."""
    strength: float = 1.0
    """How much of the old taste is replaced, 0 to 1."""


@dataclass(frozen=True, kw_only=True)
class WorldConfig:
    """How a simulated service looks and how its members behave."""

    members: int = 2_000
    """Members who subscribe, all from the first day."""
    titles: int = 800
    """Titles in the catalogue, those released later among them."""
    start: int = DEFAULT_START
    """When the simulation begins: int microseconds since the epoch, UTC."""
    cold_share: float = 0.1
    """Share of titles released after the start."""
    cold_days: float = 60.0
    """Days after the start over which those are released, evenly."""
    child_share: float = 0.12
    """Share of members who are children: they watch only what is suitable at their age."""
    style_axes: int = 8
    """Axes of taste that no genre names; cast and synopsis words tell something of them."""
    mainstream: float = 0.45
    """Mean weight of a title's quality, which all see alike, against the member's own taste, 0 to 1."""
    sessions_per_week: float = 5.0
    """Mean visits of a member; members differ widely."""
    page_size: int = 20
    """Titles of one page."""
    seen_depth: float = 12.0
    """Mean number of a page's titles that come on screen."""
    position_bias: float = 0.5
    """A title at position p (from 0) on screen is looked at with probability (1 + p) ** -position_bias."""
    perception_noise: float = 0.8
    """How far a poster misleads: standard deviation added to the liking when a member decides to click."""
    click_threshold: float = 1.8
    """The liking (with noise) at which a title that is looked at is clicked half the time."""
    rewatch_penalty: float = 2.5
    """Liking lost by a title the member has already watched."""
    search_share: float = 0.15
    """Share of sessions that begin with a search for a title the member has in mind."""
    rate_share: float = 0.2
    """Share of plays watched for more than a third that are rated."""
    drift_days: float | None = None
    """Days in which every member's taste moves evenly halfway to another; None: tastes stand still."""
    shifts: tuple[Shift, ...] = ()
    """Sudden changes of taste."""
    incumbent_skill: float = 0.3
    """How much of true liking the pages of `history` know, against 1 for popularity; 0: popularity only."""

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            ConfigError: names the field, its value and the range.
        """
        shares = ("cold_share", "child_share", "mainstream", "search_share", "rate_share")
        for name in shares:
            _within(name, getattr(self, name), 0.0, 1.0)
        for name in ("members", "titles", "page_size", "style_axes"):
            _within(name, getattr(self, name), 1, 10_000_000)
        _within("page_size", self.page_size, 1, self.titles)
        for name in ("sessions_per_week", "seen_depth"):
            _within(name, getattr(self, name), 1e-9, 1_000.0)
        for index, shift in enumerate(self.shifts):
            for field in fields(shift):
                top = 1e6 if field.name == "day" else 1.0
                _within(f"shifts[{index}].{field.name}", getattr(shift, field.name), 0.0, top)
        if self.drift_days is not None:
            _within("drift_days", self.drift_days, 1e-9, 1e6)


def small() -> WorldConfig:
    """A service for tests: 300 members, 200 titles."""
    return WorldConfig(members=300, titles=200)


def default() -> WorldConfig:
    """A service with some 16,000 events a day: 2,000 members, 800 titles."""
    return WorldConfig()


def _within(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ConfigError(f"world setting {name} is {value}; accepted: {low:g} to {high:g}")
