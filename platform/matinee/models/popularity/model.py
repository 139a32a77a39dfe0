"""Counts of watches: of all time, and decayed as of any moment from counts by day."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from matinee.models.base import Checkpoints, Model, Progress, Query, Scores, Start, TrainingSet
from matinee.models.popularity.config import PopularityConfig
from matinee.models.storage import read_model, write_model

DAY_US = 86_400_000_000


class Popularity(Model):
    """Scores a title by its watches. `signals` holds the log count and the log trend as of the query."""

    def __init__(self, config: PopularityConfig) -> None:
        self.config = config
        self._counts = np.zeros(0, dtype=np.float32)
        self._days = np.zeros(0, dtype=np.int64)
        self._by_day = np.zeros((0, 0), dtype=np.float32)

    def fit(
        self,
        data: TrainingSet,
        *,
        seed: int,
        progress: Progress | None = None,
        checkpoints: Checkpoints | None = None,
        start: Start | None = None,
    ) -> None:
        """Count watches in all and by UTC day."""
        watched = data.interactions
        titles = len(data.catalogue)
        self._counts = np.bincount(watched.title, minlength=titles).astype(np.float32)
        self._days, rows = np.unique(watched.time // DAY_US, return_inverse=True)
        self._by_day = np.zeros((len(self._days), titles), dtype=np.float32)
        np.add.at(self._by_day, (rows, watched.title), 1)
        if progress:
            progress(1, 1, {})

    def score(self, query: Query) -> Scores:
        """The count, the same for every member; with a half life, the count decayed to the query's moment."""
        if self.config.half_life_days is not None:
            return self._decayed(query.now, self.config.half_life_days)
        return np.tile(self._counts, (len(query), 1))

    def signals(self, query: Query) -> Mapping[str, Scores]:
        """`all`: log of one plus the count. `trend`: the same of the count decayed to the query's moment."""
        trend = self._decayed(query.now, self.config.trend_half_life_days)
        return {"all": np.log1p(self.score(query)), "trend": np.log1p(trend)}

    def _decayed(self, now: npt.NDArray[np.int64], half_life_days: float) -> Scores:
        """Counts of whole days before `now`, decayed; past the last known day nothing decays further."""
        if not len(self._days):
            return np.zeros((len(now), len(self._counts)), dtype=np.float32)
        today = np.minimum(now // DAY_US, self._days[-1] + 1)
        moments, rows = np.unique(today, return_inverse=True)
        age = moments[:, None] - self._days[None, :]
        weights = np.where(age > 0, np.exp2(-np.maximum(age - 1, 0) / half_life_days), 0).astype(np.float32)
        decayed: Scores = (weights @ self._by_day)[rows]
        return decayed

    def save(self, folder: Path) -> None:
        """Write the counts."""
        arrays: dict[str, npt.NDArray[Any]] = {
            "counts": self._counts,
            "days": self._days,
            "by_day": self._by_day,
        }
        write_model(folder, config=self.config, arrays=arrays)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read the counts."""
        config, arrays, _ = read_model(folder)
        model = cls(PopularityConfig(**config))
        model._counts, model._days, model._by_day = arrays["counts"], arrays["days"], arrays["by_day"]
        return model
