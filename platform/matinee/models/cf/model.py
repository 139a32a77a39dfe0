"""Collaborative filtering by one of three methods, all linear in the history or solved from it.

A member is not stored: what is known is the history in the query, whose late titles weigh more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
import numpy.typing as npt
from scipy import sparse

from matinee.errors import ConfigError
from matinee.models.base import Checkpoints, Model, Progress, Query, Scores, Start, TrainingSet
from matinee.models.cf import ease, ials, spectral
from matinee.models.cf.choose import Choice, choose
from matinee.models.cf.config import CfConfig
from matinee.models.histories import recency_weights
from matinee.models.products import Product
from matinee.models.storage import read_model, write_model

Vectors = npt.NDArray[np.float32]


class Scorer(Protocol):
    """What a method learned."""

    def score(self, rows: sparse.csr_matrix) -> Scores:
        """Scores, float32 [m, titles], of rows of weights at watched titles, float32 [m, titles]."""
        ...

    def arrays(self) -> Mapping[str, npt.NDArray[Any]]:
        """What `save` writes."""
        ...


@dataclass(frozen=True, kw_only=True)
class Factors:
    """iALS' title vectors, float32 [titles, factors], and their Gram matrix; members are solved for."""

    titles: Vectors
    gram: Vectors
    config: CfConfig

    def score(self, rows: sparse.csr_matrix) -> Scores:
        """Predicted preference, near 0 for no watch and 1 for a sure one."""
        scores: Scores = ials.fold_in(rows, self.titles, self.config, self.gram) @ self.titles.T
        return scores

    def title_vectors(self) -> Vectors:
        """`titles`."""
        return self.titles

    def product(self, rows: sparse.csr_matrix) -> Product:
        """`score` as a product."""
        members = ials.fold_in(rows, self.titles, self.config, self.gram)
        return Product(vectors=members, offset=np.zeros(len(members), np.float32))

    def arrays(self) -> Mapping[str, Vectors]:
        """For saving."""
        return {"titles": self.titles, "gram": self.gram}


@runtime_checkable
class Products(Protocol):
    """What a method learned, where its scores are products."""

    def title_vectors(self) -> Vectors:
        """As `base.Factored`."""
        ...

    def product(self, rows: sparse.csr_matrix) -> Product:
        """`score` as a product."""
        ...


class CollaborativeFiltering(Model):
    """Scores by the config's method, or by the one chosen for the shape of the data.

    Where iALS's blocks are solved and the filter's neighbours found, `place` and `neighbours` say before a
    fit; None: in this process.
    """

    def __init__(self, config: CfConfig) -> None:
        self.config = config
        self.choice: Choice | None = None
        self.place: ials.Place | None = None
        self.neighbours: spectral.Neighbours | None = None
        self._titles = 0
        self._scorer: Scorer

    def fit(
        self,
        data: TrainingSet,
        *,
        seed: int,
        progress: Progress | None = None,
        checkpoints: Checkpoints | None = None,
        start: Start | None = None,
    ) -> None:
        """Relate the titles."""
        config = self.config
        self._titles = len(data.catalogue)
        watched = _matrix(data.interactions.histories(), self._titles)
        self.choice = choose(config, titles=self._titles)
        match self.choice.method:
            case "ials":
                first = self._vectors_of(start)
                ials.fit(watched, config, seed, progress, start=first, publish=self._take, place=self.place)
            case "ease":
                self._scorer = ease.fit(watched, config)
            case "spectral":
                self._scorer = spectral.fit(watched, config, seed, self.neighbours)
        if progress and self.choice.method != "ials":
            progress(1, 1, {})

    def _take(self, titles: Vectors) -> None:
        """Score with these title vectors; they may be trained on."""
        self._scorer = Factors(titles=titles, gram=titles.T @ titles, config=self.config)

    def _vectors_of(self, start: Start | None) -> Vectors | None:
        """Vectors to go on from, NaN for new titles; None where the earlier model holds none.

        Raises:
            ConfigError: they are of another length.
        """
        earlier = getattr(start.model, "_scorer", None) if start else None
        if start is None or not isinstance(earlier, Factors):
            return None
        if earlier.titles.shape[1] != self.config.factors:
            raise ConfigError(
                f"cf.factors is {self.config.factors}, "
                f"that of the model to go on from {earlier.titles.shape[1]}"
            )
        return np.where(start.titles[:, None] >= 0, earlier.titles[start.titles], np.float32(np.nan))

    def score(self, query: Query) -> Scores:
        """Predicted preference from the recent history; zeros without one."""
        return self._from_history(query, self.config.recent_half_life)

    def signals(self, query: Query) -> Mapping[str, Scores]:
        """`recent`: the score. `whole`: the same with every watch of the history weighing alike."""
        return {"recent": self.score(query), "whole": self._from_history(query, None)}

    def title_vectors(self) -> Scores | None:
        """The method's, float32 [titles, d]; None: it relates titles pair by pair."""
        return self._scorer.title_vectors() if isinstance(self._scorer, Products) else None

    def products(self, query: Query) -> Mapping[str, Product] | None:
        """`signals` as products, where the method's are."""
        scorer = self._scorer
        if not isinstance(scorer, Products):
            return None
        lives = {"recent": self.config.recent_half_life, "whole": None}
        return {name: scorer.product(self._rows(query, half_life)) for name, half_life in lives.items()}

    def _from_history(self, query: Query, half_life: float | None) -> Scores:
        return self._scorer.score(self._rows(query, half_life))

    def _rows(self, query: Query, half_life: float | None) -> sparse.csr_matrix:
        weights = [recency_weights(len(history), half_life) for history in query.histories]
        return _matrix(query.histories, self._titles, weights)

    def save(self, folder: Path) -> None:
        """Write what the method learned, and why it was chosen."""
        assert self.choice is not None
        write_model(
            folder,
            config=self.config,
            arrays=self._scorer.arrays(),
            facts={"titles": self._titles, **asdict(self.choice)},
        )

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote."""
        config, arrays, facts = read_model(folder)
        model = cls(CfConfig(**config))
        model._titles, model.choice = facts["titles"], Choice(method=facts["method"], reason=facts["reason"])
        match model.choice.method:
            case "ials":
                model._scorer = Factors(**arrays, config=model.config)
            case "ease":
                model._scorer = ease.Linear(**arrays)
            case "spectral":
                model._scorer = spectral.Filter.from_arrays(arrays)
        return model


def _matrix(
    histories: Sequence[npt.NDArray[np.int32]], titles: int, weights: Sequence[Vectors] | None = None
) -> sparse.csr_matrix:
    """Rows of weights (1 where none are given) at the watched titles."""
    bounds = np.concatenate([[0], np.cumsum([len(history) for history in histories])]).astype(np.int64)
    empty = [np.zeros(0, dtype=np.int32)]
    columns = np.concatenate([*histories, *empty])
    values = np.concatenate([*weights, *empty]) if weights is not None else np.ones(len(columns))
    shape = (len(histories), titles)
    return sparse.csr_matrix((values.astype(np.float32), columns, bounds), shape=shape)
