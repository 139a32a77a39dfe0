"""iALS: alternating ridge regressions over watched pairs and, by their Gram matrix, all others.

Hu, Koren, Volinsky, "Collaborative filtering for implicit feedback datasets", 2008; Rendle, Krichene,
Zhang, Koren, "Revisiting the performance of iALS on item recommendation benchmarks", 2021. A member's
vector is not stored: it is solved from the history in the query (fold-in), late titles weighing more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
from scipy import sparse

from matinee.models.base import Checkpoints, Model, Progress, Query, Scores, Start, TrainingSet
from matinee.models.cf.config import CfConfig
from matinee.models.histories import recency_weights
from matinee.models.storage import read_model, write_model

Vectors = npt.NDArray[np.float32]


class CollaborativeFiltering(Model):
    """Title vectors from training, member vectors from the query's history."""

    def __init__(self, config: CfConfig) -> None:
        self.config = config
        self._titles: Vectors = np.zeros((0, config.factors), dtype=np.float32)
        self._gram: Vectors = np.zeros((config.factors, config.factors), dtype=np.float32)

    def fit(
        self,
        data: TrainingSet,
        *,
        seed: int,
        progress: Progress | None = None,
        checkpoints: Checkpoints | None = None,
        start: Start | None = None,
    ) -> None:
        """Alternate exact solves of rows and titles for `sweeps` rounds."""
        config = self.config
        watched = _matrix(data.interactions.histories(), len(data.catalogue))
        watchers = watched.T.tocsr()
        scale = config.init_scale / np.sqrt(config.factors)
        titles = np.random.default_rng(seed).normal(0, scale, (len(data.catalogue), config.factors))
        self._titles = titles.astype(np.float32)
        for sweep in range(config.sweeps):
            rows = solve(watched, self._titles, config)
            self._titles = solve(watchers, rows, config)
            self._gram = self._titles.T @ self._titles
            if progress:
                progress(sweep + 1, config.sweeps, {})

    def score(self, query: Query) -> Scores:
        """Predicted preference, near 0 for no watch and 1 for a sure one, from the recent history."""
        return self._folded(query, self.config.recent_half_life)

    def signals(self, query: Query) -> Mapping[str, Scores]:
        """`recent`: the score. `whole`: the same with every watch of the history weighing alike."""
        return {"recent": self.score(query), "whole": self._folded(query, None)}

    def _folded(self, query: Query, half_life: float | None) -> Scores:
        weights = [recency_weights(len(history), half_life) for history in query.histories]
        rows = _matrix(query.histories, len(self._titles), weights)
        members = solve(rows, self._titles, self.config, gram=self._gram)
        return np.asarray(members @ self._titles.T, dtype=np.float32)

    def save(self, folder: Path) -> None:
        """Write the title vectors."""
        write_model(folder, config=self.config, arrays={"titles": self._titles, "gram": self._gram})

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read the title vectors."""
        config, arrays, _ = read_model(folder)
        model = cls(CfConfig(**config))
        model._titles, model._gram = arrays["titles"], arrays["gram"]
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


def solve(rows: sparse.csr_matrix, other: Vectors, config: CfConfig, gram: Vectors | None = None) -> Vectors:
    """The vectors that fit `rows` best given the other side's, float32 [rows, factors].

    Args:
        rows: weights of watched pairs, [rows, len(other)].
        other: float32 [columns, factors].
        gram: `other.T @ other` where it is at hand.
    """
    gram = other.T @ other if gram is None else gram
    counts = np.diff(rows.indptr)
    order = np.argsort(counts, kind="stable")
    result = np.zeros((rows.shape[0], other.shape[1]), dtype=np.float32)
    start = int(np.searchsorted(counts[order], 1))
    while start < len(order):
        # Rows of like length go together: blocks are padded to their longest row.
        longest = min(counts[order[min(start + config.block, len(order)) - 1]], 2 * counts[order[start]] + 8)
        stop = min(int(np.searchsorted(counts[order], longest, side="right")), start + config.block)
        chosen = order[start:stop]
        result[chosen] = _solve_block(rows, chosen, other, gram, config)
        start = stop
    return result


def _solve_block(
    rows: sparse.csr_matrix,
    chosen: npt.NDArray[np.intp],
    other: Vectors,
    gram: Vectors,
    config: CfConfig,
) -> Vectors:
    counts = np.diff(rows.indptr)[chosen]
    slots = np.arange(counts.max())
    held = slots[None, :] < counts[:, None]
    places = np.where(held, rows.indptr[chosen][:, None] + slots[None, :], 0)
    vectors = other[rows.indices[places]]
    weights = np.where(held, rows.data[places], 0).astype(np.float32)
    weighted = vectors * weights[:, :, None]
    frequency = weights.sum(1) + config.unobserved * len(other)
    ridge = config.regularisation * frequency**config.frequency_exponent
    system = weighted.transpose(0, 2, 1) @ vectors + config.unobserved * gram
    diagonal = np.arange(other.shape[1])
    system[:, diagonal, diagonal] += ridge[:, None]
    solution: Vectors = np.linalg.solve(system, weighted.sum(1)[:, :, None])[:, :, 0]
    return solution
