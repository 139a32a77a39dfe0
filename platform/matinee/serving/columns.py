"""What pages and lists of titles alike read of a version's titles, computed once when it is loaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from matinee.models.base import Model, Query, Scores
from matinee.models.bundle import Bundle
from matinee.models.content import attribute_matrix, relations
from matinee.serving.availability import Mask
from matinee.serving.rank import Titles
from matinee.serving.scores import ordered
from matinee.serving.sketch import Sketch
from matinee.serving.vector_index import VectorIndex

Vectors = npt.NDArray[np.float32]
Positions = npt.NDArray[np.intp]

NEIGHBOURS = 200
"""Titles alike that are kept of a title, before rules leave some out."""

CANDIDATES = 1_000
"""Titles that an index offers as neighbours, of which those are kept."""

REMEMBERED = 4_096
"""Titles whose neighbours stay in memory."""

UNKNOWN_DAY = int(np.iinfo(np.int32).min)


@runtime_checkable
class Embedded(Protocol):
    """A model that places titles so that those alike lie near each other."""

    def embeddings(self) -> Scores:
        """Vectors of length 1, float32 [titles, d]."""
        ...


class Columns:
    """A version's titles, t of them, in columns. Safe between threads.

    Args:
        bundle: the version's.
        titles: its catalogue.
        indexed: neighbours by embeddings are found by an index.

    Attributes:
        genre_names: g genres, in the order of `genres`' columns.
        genres: float32 [t, g]: a title's genres as a vector of length 1; zeros where it has none. A product
            of two is the cosine of their genres.
        has_genre: bool [t, g].
        heads: JSON of each title as an item of a row begins, up to its place.
        released: int32 [t]: days since the epoch; `UNKNOWN_DAY` where unknown.
        latest: positions of the titles whose day is known, the last one first.
        alike_by: what `neighbours` goes by: "embeddings", "watches" or "content".
    """

    def __init__(self, bundle: Bundle, titles: Titles, *, indexed: bool = False) -> None:
        self.genre_names = list(titles.genres)
        has = np.array(list(titles.genres.values()), dtype=np.float32).reshape(-1, len(titles)).T
        self.has_genre: Mask = np.ascontiguousarray(has > 0)
        self.genres: Vectors = np.ascontiguousarray(has / np.maximum(np.linalg.norm(has, axis=1), 1)[:, None])
        days = bundle.catalogue.table["release_date"].cast(pa.int32())
        self.released = pc.fill_null(days, UNKNOWN_DAY).to_numpy().astype(np.int32)
        dated = np.flatnonzero(self.released > UNKNOWN_DAY)
        self.latest: Positions = dated[np.argsort(-self.released[dated], kind="stable")]
        self.heads = [_head(*each) for each in zip(titles.ids, titles.names, strict=True)]
        vectors = _embeddings(bundle)
        self.alike_by, self._alike = _alike(bundle, vectors)
        nearest = self._nearest
        if vectors is not None and indexed:
            nearest = _Near(vectors)
        self.neighbours: Callable[[int], Positions] = lru_cache(REMEMBERED)(nearest)

    def similarity(self, position: int) -> Scores:
        """How alike each title is to the one at `position`, float32 [t], higher is more."""
        return self._alike(position)

    def _nearest(self, position: int) -> Positions:
        """The titles most like the one at `position`, at most `NEIGHBOURS`, best first, without itself."""
        alike = self._alike(position).copy()
        alike[position] = -np.inf
        count = min(NEIGHBOURS, len(alike) - 1)
        found = np.argpartition(-alike, count - 1)[:count] if count else np.zeros(0, np.intp)
        return found[np.lexsort((found, -alike[found]))]


def _head(title_id: str, name: str) -> str:
    told = orjson.dumps({"title_id": title_id, "name": name}).decode()
    return told[:-1] + ',"position":'


class _Near:
    """As `Columns._nearest`, but for what an index misses.

    Args:
        vectors: of length 1, float32 [t, d].
    """

    def __init__(self, vectors: Vectors) -> None:
        self._vectors = vectors
        self._sketch = Sketch.of([vectors], [np.ones(vectors.shape[1], np.float32)], seed=0)
        self._index = VectorIndex(self._sketch.titles)

    def __call__(self, position: int) -> Positions:
        own = self._vectors[position]
        others = np.ones(len(self._vectors), dtype=bool)
        others[position] = False
        found, _ = self._index.largest(self._sketch.turned([own[None, :]])[0], CANDIDATES, others)
        return ordered(found, self._vectors[found] @ own)[:NEIGHBOURS]


def _members(bundle: Bundle) -> Mapping[str, Model]:
    found: Mapping[str, Model] = getattr(bundle.model, "members", {bundle.name: bundle.model})
    return found


def _embeddings(bundle: Bundle) -> Vectors | None:
    """Of the first model that has them."""
    embedded = [model for model in _members(bundle).values() if isinstance(model, Embedded)]
    return embedded[0].embeddings() if embedded else None


def _alike(bundle: Bundle, vectors: Vectors | None) -> tuple[str, Callable[[int], Scores]]:
    """The best similarity the version offers: learned vectors, what watching one leads to, attributes."""
    members = _members(bundle)
    if vectors is not None:
        return "embeddings", lambda position: vectors @ vectors[position]
    if "cf" in members:
        cf = members["cf"]
        return "watches", lambda position: cf.score(_watched(position)).ravel()
    attributes = attribute_matrix(relations(bundle.catalogue), len(bundle.catalogue))
    length = np.sqrt(np.maximum(np.asarray(attributes.sum(axis=1)).ravel(), 1)).astype(np.float32)

    def by_content(position: int) -> Scores:
        shared: Scores = (attributes @ attributes[position].T).toarray().ravel() / length
        return shared

    return "content", by_content


def _watched(position: int) -> Query:
    return Query(
        histories=[np.array([position], dtype=np.int32)],
        times=[np.zeros(1, dtype=np.int64)],
        now=np.ones(1, dtype=np.int64),
    )
