"""What the catalogue says of titles, as relations from titles to attribute values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from matinee.schema import Catalogue, Features

Sums = npt.NDArray[Any]

RELATIONS = ("genre", "language", "maturity", "decade", "cast", "keyword")


@dataclass(frozen=True, kw_only=True)
class Relation:
    """Pairs of titles and values of one attribute.

    Args:
        name: one of `RELATIONS`.
        values: the attribute's values, sorted.
        title: int64 [pairs], positions in the catalogue.
        value: int64 [pairs], positions in `values`.
    """

    name: str
    values: Sequence[str]
    title: npt.NDArray[np.int64]
    value: npt.NDArray[np.int64]


def relations(catalogue: Catalogue) -> list[Relation]:
    """The relations that hold at least one pair, in the order of `RELATIONS`; nulls make no pair."""
    found = (_relation(name, _values(catalogue, name)) for name in RELATIONS)
    return [relation for relation in found if len(relation.title)]


def attribute_matrix(found: Sequence[Relation], titles: int) -> sparse.csr_matrix:
    """Which title has which attribute value: 0 or 1, float32 [titles, values of all relations]."""
    blocks = [
        sparse.csr_matrix(
            (np.ones(len(relation.title), np.float32), (relation.title, relation.value)),
            shape=(titles, len(relation.values)),
        )
        for relation in found
    ]
    return sparse.csr_matrix(sparse.hstack([sparse.csr_matrix((titles, 0), dtype=np.float32), *blocks]))


def _values(catalogue: Catalogue, name: str) -> list[list[str]]:
    table = catalogue.table
    if name in ("genre", "cast", "keyword"):
        column = {"genre": "genres", "cast": "cast", "keyword": "keywords"}[name]
        return [sorted(set(values or ())) for values in table[column].to_pylist()]
    if name == "decade":
        return [[f"{day.year // 10}0s"] if day else [] for day in table["release_date"].to_pylist()]
    return [[] if value is None else [str(value)] for value in table[name].to_pylist()]


def _relation(name: str, rows: list[list[str]]) -> Relation:
    values = sorted({value for row in rows for value in row})
    position = {value: place for place, value in enumerate(values)}
    pairs = [(title, position[value]) for title, row in enumerate(rows) for value in row]
    columns = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    return Relation(name=name, values=values, title=columns[:, 0], value=columns[:, 1])


@dataclass(frozen=True, kw_only=True)
class Scaling:
    """Maps raw feature values to a network's input: signed log, standardised, unknown as zero.

    Args:
        names: feature names in the order the network was trained with.
        mean: float32 [f], of the logs.
        spread: float32 [f], standard deviation of the logs, 1 where they do not vary.
    """

    names: Sequence[str]
    mean: npt.NDArray[np.float32]
    spread: npt.NDArray[np.float32]

    @classmethod
    def measure(
        cls, features: Features | None, *, total: Callable[[Sums], Sums] = lambda sums: sums
    ) -> Scaling:
        """The scaling of the known values; no names where there are no features.

        Args:
            total: of sums over these rows makes those over all rows, where others hold the rest.
        """
        if features is None:
            return cls(names=(), mean=np.zeros(0, np.float32), spread=np.ones(0, np.float32))
        logs = _signed_log(features.values)
        known = np.isfinite(logs)
        count = np.maximum(total(known.sum(0)), 1)
        mean = total(np.where(known, logs, 0).sum(0)) / count
        spread = np.sqrt(total((np.where(known, logs - mean, 0) ** 2).sum(0)) / count)
        spread = np.where(spread > 1e-6, spread, 1)
        return cls(
            names=tuple(features.names), mean=mean.astype(np.float32), spread=spread.astype(np.float32)
        )

    def apply(self, features: Features | None, rows: int) -> npt.NDArray[np.float32]:
        """Scaled values float32 [rows, f] in the order of `names`; names not given count as unknown."""
        result = np.zeros((rows, len(self.names)), dtype=np.float32)
        if features is None:
            return result
        place = {name: column for column, name in enumerate(features.names)}
        for column, name in enumerate(self.names):
            if name in place:
                logs = _signed_log(features.values[:, place[name]])
                scaled = (logs - self.mean[column]) / self.spread[column]
                result[:, column] = np.clip(np.nan_to_num(scaled, nan=0.0), -5, 5)
        return result


def _signed_log(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    logs: npt.NDArray[np.float32] = np.sign(values) * np.log1p(np.abs(values))
    return logs
