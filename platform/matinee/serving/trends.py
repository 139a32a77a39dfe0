"""Which titles are watched lately, and for how long: from the title features that the replica holds."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from matinee.features.titles_copy import TitleValues
from matinee.serving.titles import TitleFeatures

if TYPE_CHECKING:
    from matinee.serving.versions import Live

Column = npt.NDArray[np.float32]

HALF_LIFE_DAYS = 7.0
"""In which a title's counts lose half: they are as of its last event, which may be long past."""
LEAST_STOPS = 3
"""With fewer stops the longest watch says little of how long a title is."""

_DAY_US = 86_400_000_000
_PER_DAY = {"plays_1d": 1.0, "plays_7d": 1 / 7, "plays_30d": 1 / 30}


class Trends:
    """Columns in the order of a version's titles; computed again when the copy of the features changes.

    Args:
        titles: the replica's copies.
    """

    def __init__(self, titles: TitleFeatures) -> None:
        self._titles = titles
        self._held: dict[tuple[str, str], tuple[TitleValues, Column]] = {}
        self._places: dict[str, npt.NDArray[np.int64]] = {}

    def trend(self, version: Live) -> Column | None:
        """How much each of the version's titles is watched lately, float32 [titles]; None: not known yet."""
        return self._column(version, "title_popularity", trend, missing=0.0)

    def longest(self, version: Live) -> Column | None:
        """The most seconds each title was watched, float32 [titles], NaN: unknown; None: not known yet."""
        return self._column(version, "title_progress", longest, missing=np.nan)

    def _column(
        self, version: Live, view: str, compute: Callable[[TitleValues], Column], *, missing: float
    ) -> Column | None:
        copy = self._titles.copies.get(view)
        if copy is None:
            return None
        values, key = copy.values, (version.name, view)
        held = self._held.get(key)
        if held is None or held[0] is not values:
            aligned = np.append(compute(values), np.float32(missing))[self._aligned(version, values)]
            held = self._held[key] = (values, aligned)
        return held[1]

    def _aligned(self, version: Live, values: TitleValues) -> npt.NDArray[np.int64]:
        """Of each of the version's titles its place in the copy, whose titles stay; -1 where it has none."""
        if version.name not in self._places:
            place = {title_id: at for at, title_id in enumerate(values.title_ids)}
            found = (place.get(title_id, -1) for title_id in version.titles.ids)
            self._places[version.name] = np.fromiter(found, np.int64, len(version.titles))
        return self._places[version.name]


def trend(values: TitleValues) -> Column:
    """Watches a day, over a day, a week and a month together, float32 [titles]; 0 without a row.

    Seen from the newest event of any title, so that a catalogue that rests keeps its order.
    """
    daily = sum(weight * values.numbers(name) for name, weight in _PER_DAY.items())
    newest = values.event_time[values.present].max(initial=0)
    age_days = np.where(values.present, newest - values.event_time, 0) / _DAY_US
    return np.nan_to_num(daily * np.exp2(-age_days / HALF_LIFE_DAYS)).astype(np.float32)


def longest(values: TitleValues) -> Column:
    """The most seconds anyone watched each title, float32 [titles]; NaN below `LEAST_STOPS` stops."""
    told = values.numbers("stops") >= LEAST_STOPS
    return np.where(told, values.numbers("longest_s"), np.nan).astype(np.float32)
