"""Signals that are products of a member's vector with title vectors, plus a little of some titles.

Of such a signal any few titles are scored without the others, exactly as a full pass would: also where the
signal is standardised over all titles, because the mean and the variance of products follow from the mean
and the covariance of the title vectors. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Self

import numpy as np
import numpy.typing as npt
from scipy import sparse

Vectors = npt.NDArray[np.float32]
Positions = npt.NDArray[np.intp]

BLOCK = 16_384
"""Title vectors that are taken at a time where moments are summed."""
STILL = 1e-6
"""A signal of a smaller standard deviation does not vary."""


@dataclass(frozen=True, kw_only=True)
class Product:
    """A signal of m members: `vectors @ titles.T + offset[:, None] + extra`, titles float32 [t, d].

    Args:
        vectors: float32 [m, d].
        offset: float32 [m].
        extra: float32 [m, t], what few titles have beside; None: nothing.
        lean: float32 [m, d], `extra @ titles`, given with `extra`.
    """

    vectors: Vectors
    offset: Vectors
    extra: sparse.csr_matrix | None = None
    lean: Vectors | None = None

    def __getitem__(self, row: int) -> Self:
        """That of one member."""
        kept = slice(row, row + 1)
        return type(self)(
            vectors=self.vectors[kept],
            offset=self.offset[kept],
            extra=None if self.extra is None else self.extra[kept],
            lean=None if self.lean is None else self.lean[kept],
        )

    def at(self, titles: Vectors, positions: Positions) -> Vectors:
        """The signal at some titles, float32 [m, n].

        Args:
            titles: float32 [t, d], all title vectors.
        """
        found: Vectors = self.vectors @ titles[positions].T
        found += self.offset[:, None]
        for row, (places, values) in enumerate(self.extras()):
            beside = np.zeros(len(titles), np.float32)
            beside[places] = values
            found[row] += beside[positions]
        return found

    def extras(self) -> Iterator[tuple[Positions, Vectors]]:
        """Per member, positions of the titles that have something beside the product, and what."""
        if self.extra is not None:
            bounds = self.extra.indptr
            for start, end in pairwise(bounds.tolist()):
                yield self.extra.indices[start:end], self.extra.data[start:end]

    def scaled(self, scale: Vectors, shift: Vectors) -> Self:
        """`scale` times the signal plus `shift`, both float32 [m]."""
        extra = self.extra
        if extra is not None:
            data = extra.data * np.repeat(scale, np.diff(extra.indptr))
            extra = sparse.csr_matrix((data, extra.indices, extra.indptr), shape=extra.shape)
        return type(self)(
            vectors=self.vectors * scale[:, None],
            offset=self.offset * scale + shift,
            extra=extra,
            lean=None if self.lean is None else self.lean * scale[:, None],
        )

    def __add__(self, other: Product) -> Self:
        """The sum of two signals with the same title vectors."""
        return type(self)(
            vectors=self.vectors + other.vectors,
            offset=self.offset + other.offset,
            extra=other.extra if self.extra is None else _beside(self.extra, other.extra),
            lean=other.lean if self.lean is None else self.lean + (0 if other.lean is None else other.lean),
        )


@dataclass(frozen=True, kw_only=True)
class Moments:
    """Of all title vectors: mean, float32 [d], and covariance, float32 [d, d]."""

    mean: Vectors
    covariance: Vectors
    titles: int

    @classmethod
    def of(cls, titles: Vectors) -> Self:
        """Those of float32 [t, d]."""
        mean = titles.mean(axis=0, dtype=np.float64).astype(np.float32)
        total = np.zeros((titles.shape[1],) * 2, dtype=np.float64)
        for start in range(0, len(titles), BLOCK):
            centred = titles[start : start + BLOCK] - mean
            total += centred.T @ centred
        covariance = (total / max(len(titles), 1)).astype(np.float32)
        return cls(mean=mean, covariance=covariance, titles=len(titles))

    def standardised(self, product: Product, weight: Vectors) -> Product:
        """The signal with mean 0 and standard deviation `weight`, float32 [m], over all titles.

        Zeros where it does not vary.
        """
        mean = product.vectors @ self.mean
        variance = np.einsum("ij,ij->i", product.vectors @ self.covariance, product.vectors)
        if product.extra is not None and product.lean is not None:
            rows = [values for _, values in product.extras()]
            beside = np.array([values.sum() for values in rows], np.float32) / self.titles
            squares = np.array([values @ values for values in rows], np.float32) / self.titles
            along = np.einsum("ij,ij->i", product.lean, product.vectors) / self.titles
            variance += 2 * (along - mean * beside) + squares - np.square(beside)
            mean = mean + beside
        spread = np.sqrt(np.maximum(variance, 0))
        scale = np.where(spread > STILL, weight / np.maximum(spread, STILL), 0).astype(np.float32)
        return product.scaled(scale, -scale * (mean + product.offset))


def silent(members: int, width: int) -> Product:
    """A signal of zeros over title vectors of this width."""
    return Product(vectors=np.zeros((members, width), np.float32), offset=np.zeros(members, np.float32))


def _beside(one: sparse.csr_matrix, other: sparse.csr_matrix | None) -> sparse.csr_matrix:
    return one if other is None else sparse.csr_matrix(one + other)
