"""The FAISS door: which vectors have the largest products with a query, about.

Vectors are held in a byte a dimension. Up to `SCANNED` of them a query passes over all; beyond, k-means
divides them into cells and a query looks into the most promising ones (an inverted file).
"""

from __future__ import annotations

import math

import faiss
import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]
Positions = npt.NDArray[np.intp]

SCANNED = 50_000
"""So many vectors are passed over in about the time that looking into cells takes, and none is missed."""
LOOKED_INTO = 0.25
"""Share of the cells that a query looks into where every vector is allowed."""
BYTE = faiss.ScalarQuantizer.QT_8bit
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
        faiss.omp_set_num_threads(1)
        self._count, width = vectors.shape
        self._cells = cells(self._count) if self._count > scanned else 0
        order = np.random.default_rng(seed).permutation(self._count)
        sample = vectors[np.sort(order[: LEARNT_FROM * max(self._cells, 512)])]
        if self._cells:
            self._index = self._divided(width, sample, vectors, seed)
        else:
            self._index = faiss.IndexScalarQuantizer(width, BYTE, faiss.METRIC_INNER_PRODUCT)
            self._index.train(sample)
            self._index.add(np.ascontiguousarray(vectors))

    def _divided(self, width: int, sample: Vectors, vectors: Vectors, seed: int) -> faiss.Index:
        """Cells by distance, which are looked into by the product with their mean: large vectors gather."""
        means = faiss.IndexFlatL2(width)
        index = faiss.IndexIVFScalarQuantizer(
            means, width, self._cells, BYTE, faiss.METRIC_INNER_PRODUCT, False
        )
        index.cp.spherical = False
        index.cp.seed = seed
        index.cp.niter = ROUNDS
        index.cp.min_points_per_centroid = 1
        index.train(sample)
        index.add(np.ascontiguousarray(vectors))
        self._promise = faiss.IndexFlatIP(width)
        self._promise.add(means.reconstruct_n(0, self._cells))
        index.quantizer = self._promise
        return index

    def largest(self, query: Vectors, k: int, allowed: npt.NDArray[np.bool_]) -> tuple[Positions, Vectors]:
        """Positions of about the k largest products, largest first, and these; fewer where fewer are allowed.

        Args:
            query: float32 [d].
            allowed: bool [n], which vectors may be found. The fewer there are, the more cells are looked
                into, so that as many of them are met.
        """
        selector = faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))
        count = min(k, self._count)
        if not self._cells:
            return _met(self._index.search(query[None], count, params=faiss.SearchParameters(sel=selector)))
        open_ = int(np.count_nonzero(allowed))
        looked = min(math.ceil(LOOKED_INTO * self._cells * self._count / max(open_, 1)), self._cells)
        while True:
            asked = faiss.SearchParametersIVF(sel=selector, nprobe=looked)
            found = _met(self._index.search(query[None], count, params=asked))
            if len(found[0]) == min(count, open_) or looked == self._cells:
                return found
            looked = min(2 * looked, self._cells)


def _met(answer: tuple[Vectors, npt.NDArray[np.int64]]) -> tuple[Positions, Vectors]:
    products, found = answer[0][0], answer[1][0]
    return found[found >= 0].astype(np.intp), products[found >= 0]


def cells(count: int) -> int:
    """Into how many cells so many vectors are divided: about 1.6 times the square root, a power of two."""
    power = round(math.log2(1.6 * math.sqrt(count)))
    return max(1, min(1 << max(power, 0), count))
