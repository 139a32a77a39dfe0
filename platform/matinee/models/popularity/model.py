"""Counts of watches: of all time, and decayed as of any moment from counts by day."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from matinee.models.base import Checkpoints, Model, Progress, Query, Scores, Start, TrainingSet
from matinee.models.popularity.config import PopularityConfig
from matinee.models.products import Product
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

    def title_vectors(self) -> Scores:
        """Both signals as of the last known day and as of any later one: float32 [titles, 4]."""
        last = int(self._days[-1]) if len(self._days) else 0
        days = np.array([last, last + 1])
        nobody = [np.zeros(0, np.int32)] * 2
        query = Query(histories=nobody, times=[np.zeros(0, np.int64)] * 2, now=days * DAY_US)
        return np.ascontiguousarray(np.concatenate(list(self.signals(query).values())).T)

    def products(self, query: Query) -> Mapping[str, Product] | None:
        """`signals` as products; None where a query is from before the last known day."""
        last = int(self._days[-1]) if len(self._days) else 0
        later = query.now // DAY_US - last
        if (later < 0).any():
            return None
        offset = np.zeros(len(query), np.float32)
        chosen = np.eye(2, dtype=np.float32)[np.minimum(later, 1)]
        return {
            "all": Product(vectors=np.pad(chosen, ((0, 0), (0, 2))), offset=offset),
            "trend": Product(vectors=np.pad(chosen, ((0, 0), (2, 0))), offset=offset),
        }

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
