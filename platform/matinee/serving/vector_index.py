"""The FAISS door: which vectors have the largest products with a query, about.

Vectors are held in a byte a dimension. Up to `SCANNED` of them a query passes over all; beyond, k-means divides
them into cells and a query looks into the most promising ones (an inverted file).
"""

from __future__ import annotations

import math

import faiss
import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]
Positions = npt.NDArray[np.intp]

SCANNED = 250_000
"""So many vectors are passed over in about the time that looking into cells takes, and none is missed."""
LOOKED_INTO = 0.25
"""Share of the cells that a query looks into where every vector is allowed."""
LEARNT_FROM = 64
"""Vectors a cell that k-means learns from."""
ROUNDS = 10
"""Of k-means."""


class VectorIndex:
    """Finds vectors of large products. Safe between threads; the same vectors and seed give the same index.

    Args:
        vectors: float32 [n, d], n at least 1.
        scanned: more vectors than this are divided into cells.
        seed: of k-means.
    """

    def __init__(self, vectors: Vectors, *, scanned: int = SCANNED, seed: int = 0) -> None:
        self._count, width = vectors.shape
        self._cells = cells(self._count) if self._count > scanned else 0
        byte, product = faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT
        faiss.omp_set_num_threads(1)
        if self._cells:
            self._centres = faiss.IndexFlatIP(width)
            self._index = faiss.IndexIVFScalarQuantizer(
                self._centres, width, self._cells, byte, product, False
            )
            self._index.cp.seed = seed
            self._index.cp.niter = ROUNDS
            self._index.cp.min_points_per_centroid = 1
        else:
            self._index = faiss.IndexScalarQuantizer(width, byte, product)
        order = np.random.default_rng(seed).permutation(self._count)
        self._index.train(vectors[np.sort(order[: LEARNT_FROM * max(self._cells, 512)])])
        self._index.add(np.ascontiguousarray(vectors))

    def largest(self, query: Vectors, k: int, allowed: npt.NDArray[np.bool_]) -> tuple[Positions, Vectors]:
        """Positions of about the k largest products, largest first, and these; fewer where fewer were met.

        Args:
            query: float32 [d].
            allowed: bool [n], which vectors may be found. The fewer there are, the more cells are looked
                into, so that as many of them are met.
        """
        selector = faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))
        if self._cells:
            share = LOOKED_INTO * self._count / max(int(np.count_nonzero(allowed)), 1)
            looked = min(math.ceil(share * self._cells), self._cells)
            asked = faiss.SearchParametersIVF(sel=selector, nprobe=looked)
        else:
            asked = faiss.SearchParameters(sel=selector)
        products, found = self._index.search(query[None, :], min(k, self._count), params=asked)
        met = found[0] >= 0
        return found[0][met].astype(np.intp), products[0][met]


def cells(count: int) -> int:
    """Into how many cells so many vectors are divided: about 1.6 times the square root, a power of two."""
    power = round(math.log2(1.6 * math.sqrt(count)))
    return max(1, min(1 << max(power, 0), count))
