"""The best titles of a large catalogue without a pass over all of it.

A version whose score is a sum of products is one product of long vectors. Its titles are kept in a sketch of
few dimensions, and an index over the sketch offers candidates; these, and any other title a page asks about,
are scored exactly. Where rules leave few titles, all of those are scored.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from matinee.models.base import Factored, Model, Query, Scores
from matinee.models.products import Product
from matinee.serving.availability import Mask
from matinee.serving.scores import Positions, Values, ordered
from matinee.serving.sketch import Sketch
from matinee.serving.vector_index import VectorIndex

FEW = 5_000
"""Where no more titles are allowed, each is scored: that takes no longer than asking the index."""
MORE = 0.5
"""Candidates beyond those wanted, as a share of them: the sketch's order is not quite the scores'."""
LEAST_MORE = 400
SCORED = 256
"""Titles that are scored at a time: their vectors stay in the cache."""

PROBES = 256
"""Members that stand for all where the sketch is made: their histories are drawn by what nobody in particular
would be shown."""
LONGEST = 50
"""Titles of the longest of these histories."""
HOUR_US = 3_600_000_000


class PartProducts(Protocol):
    """A score as a sum of parts, each a product with title vectors."""

    @property
    def titles(self) -> Mapping[str, Scores]:
        """Title vectors by part, float32 [titles, d] each."""

    def products(self, query: Query) -> Mapping[str, Product] | None:
        """By part; None: not of this query."""


@runtime_checkable
class Summed(Protocol):
    """A model whose score may be such a sum."""

    def factored_parts(self) -> PartProducts | None:
        """The sum; None: as it is, its score is none."""


class Lone:
    """A factored model alone, whose score is its first signal."""

    def __init__(self, name: str, model: Factored, titles: Scores) -> None:
        self.titles: Mapping[str, Scores] = {name: titles}
        self._name, self._model = name, model

    def products(self, query: Query) -> Mapping[str, Product] | None:
        """The score's."""
        found = self._model.products(query)
        return found and {self._name: next(iter(found.values()))}


def part_products(name: str, model: Model) -> PartProducts | None:
    """A model's score as a sum of products; None where it is none."""
    if isinstance(model, Summed):
        return model.factored_parts()
    if not isinstance(model, Factored):
        return None
    someone = _query([np.zeros(1, np.int32)])
    if not np.array_equal(model.score(someone), next(iter(model.signals(someone).values()))):
        return None
    titles = model.title_vectors()
    return None if titles is None else Lone(name, model, titles)


class Retriever:
    """Finds the best titles of one version. Safe between threads.

    Args:
        parts: the version's score.
        cold: its scores for somebody unknown, float32 [titles].
        seed: of the sketch and the index.
    """

    def __init__(self, parts: PartProducts, cold: Scores, *, seed: int = 0) -> None:
        self.parts = parts
        self.sketch = Sketch.of(list(parts.titles.values()), _energies(parts, cold, seed), seed=seed)
        self.index = VectorIndex(self.sketch.titles, seed=seed)

    def ask(self, query: Query) -> Mapping[str, Product]:
        """The products by part, of all members of the query; empty where the model cannot say them."""
        return self.parts.products(query) or {}

    def found(self, products: Mapping[str, Product]) -> Retrieved:
        """One member's scores.

        Args:
            products: of this member, as `ask` gave them.
        """
        return Retrieved(self, products)


class Retrieved:
    """As `TitleScores`: what is asked for is scored then, and kept. For one thread."""

    def __init__(self, retriever: Retriever, products: Mapping[str, Product]) -> None:
        self._titles = retriever.parts.titles
        self._index = retriever.index
        self._coarse = retriever.sketch.titles
        self._products = products
        self._direction = retriever.sketch.turned([each.vectors for each in products.values()])[0]
        count = len(self._coarse)
        self._held = np.full(count, np.nan, np.float32)
        self._beside = np.zeros(count, np.float32)
        self._places = np.zeros(0, np.intp)
        for product in products.values():
            for places, values in product.extras():
                self._beside[places] += values
                self._places = np.union1d(self._places, places) if len(self._places) else places

    def at(self, positions: Positions) -> Values:
        """As `TitleScores`."""
        found: Values = self._held[positions]
        missing = np.flatnonzero(np.isnan(found))
        if len(missing):
            found[missing] = self._held[positions[missing]] = self._scored(positions[missing])
        return found

    def parts_at(self, positions: Positions) -> Mapping[str, Values]:
        """As `TitleScores`."""
        return {name: each.at(self._titles[name], positions)[0] for name, each in self._products.items()}

    def best(self, allowed: Mask, k: int) -> Positions:
        """As `TitleScores`, but for what the index misses."""
        found = self._candidates(allowed, k) if np.count_nonzero(allowed) > max(FEW, k) else None
        if found is None or len(found) < k:
            found = np.flatnonzero(allowed)
        return ordered(found, self.at(found))[:k]

    def ranked(self, pool: Positions, k: int) -> Positions:
        """As `TitleScores`; of a large pool, the sketch says which titles are scored."""
        wanted = _wanted(k)
        if len(pool) > wanted:
            coarse = self._coarse[pool] @ self._direction + self._beside[pool]
            pool = pool[np.argpartition(-coarse, wanted)[:wanted]]
        return ordered(pool, self.at(pool))[:k]

    def _candidates(self, allowed: Mask, k: int) -> Positions:
        """Titles that are allowed, the best among them: the index's, and those with most beside."""
        wanted = _wanted(k)
        found, coarse = self._index.largest(self._direction, wanted, allowed)
        more = allowed.copy()
        more[found] = False
        beside = self._places[more[self._places]]
        if len(beside) > wanted:
            beside = beside[np.argpartition(-self._beside[beside], wanted)[:wanted]]
        both = np.concatenate([found, beside])
        if len(both) <= wanted:
            return both
        coarse = np.concatenate([coarse, self._coarse[beside] @ self._direction]) + self._beside[both]
        return both[np.argpartition(-coarse, wanted)[:wanted]]

    def _scored(self, positions: Positions) -> Values:
        found = self._beside[positions]
        for name, product in self._products.items():
            titles, vector = self._titles[name], product.vectors[0]
            found += product.offset[0]
            for start in range(0, len(positions), SCORED):
                some = slice(start, start + SCORED)
                found[some] += titles[positions[some]] @ vector
        return found


def _wanted(k: int) -> int:
    return k + max(int(MORE * k), LEAST_MORE)


def _energies(parts: PartProducts, cold: Scores, seed: int) -> list[Values]:
    """Mean squares of the columns of members' vectors by part, float32 [d], over drawn members.

    Columns of a part share their mean: drawn members tell how much parts weigh, hardly in which directions.
    """
    draw = np.random.default_rng(seed)
    lively = (cold - cold.max()) / max(float(cold.std()), 1e-6)
    chance = np.exp(lively.astype(np.float64))
    lengths = draw.integers(0, LONGEST, PROBES, endpoint=True)
    drawn = draw.choice(len(cold), int(lengths.sum()), p=chance / chance.sum())
    histories = [np.unique(each) for each in np.split(drawn.astype(np.int32), np.cumsum(lengths)[:-1])]
    products = parts.products(_query(histories)) or {}
    means = [float(np.square(each.vectors).mean()) for each in products.values()]
    widths = [each.shape[1] for each in parts.titles.values()]
    return [np.full(width, mean, np.float32) for width, mean in zip(widths, means, strict=True)]


def _query(histories: list[npt.NDArray[np.int32]]) -> Query:
    """Members who watched these titles, one an hour, every other one in a sitting now."""
    now = time.time_ns() // 1000
    last = [now - (0 if row % 2 else 24) * HOUR_US for row in range(len(histories))]
    times = [
        moment - np.arange(len(history) - 1, -1, -1, dtype=np.int64) * HOUR_US
        for moment, history in zip(last, histories, strict=True)
    ]
    return Query(histories=histories, times=times, now=np.full(len(histories), now, dtype=np.int64))
