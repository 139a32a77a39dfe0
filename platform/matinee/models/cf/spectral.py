"""A filter over the bipartite graph of members and titles, in closed form.

With R the watches (1 or 0), D_m and D_t the watches of each member and title, R~ = D_m^-a R D_t^-b divided by
its largest singular value, P = R~^T R~ and V the leading right singular vectors of R~, a history r (weights
of titles) scores

    r (P + v D_t^-b V V^T D_t^b) q(P),  q(x) = 1 - tx + (tx)^2/2 - (tx)^3/6 + (tx)^4/24

P looks two steps along the graph, V V^T lets the slow frequencies through, and q sharpens what both have
blurred: it is one Runge-Kutta step of length t along ds/dt = -s P. With a = b = 1/2 and t = 0 this is GF-CF
(Shen et al., "How powerful is graph convolution for recommendation?", CIKM 2021), with t > 0 the early-merge
BSPM (Choi et al., "Blurring-sharpening process models for collaborative filtering", SIGIR 2023). The
exponents of the two sides are those of Turbo-CF (Park et al., SIGIR 2024).

P q(P) would be dense. It is kept as c P + V (L q(L) - c L) V^T, L the eigenvalues of V: exact along V, and
with one share c = q(l / 2) for everything else, whose eigenvalues lie between 0 and the least of V's, l.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse
from torch import Tensor

from matinee.models.cf.config import CfConfig
from matinee.models.matrices import csr
from matinee.models.products import Product

Vectors = npt.NDArray[np.float32]

BLOCK = 16
"""Vectors that the search for singular vectors starts from and adds in each step."""
BASIS = 4
"""Vectors in the search's basis for each one wanted: Gowalla's leading 256 span the true space to 2e-6."""
BASIS_LEAST = 256
"""Vectors in the search's basis where few are wanted."""
SPARE = 32
"""Vectors that the search by few iterations carries beyond those wanted."""
PIECE = 1_024
"""Titles whose neighbours are found in one go; bounds memory."""
ROWS, COLUMNS = 8_192, 64
"""Titles and columns that neighbours' vectors are summed for in one go."""


Neighbours = Callable[[sparse.csr_matrix, sparse.csr_matrix, int], sparse.csr_matrix]
"""As `nearest`, wherever it is done."""


@dataclass(frozen=True, kw_only=True)
class Filter:
    """What scoring needs.

    Args:
        near: c P, float32 [titles, titles], at most `spectral_neighbours` in a row.
        into: float32 [titles, k], from a history to the singular vectors, weighed.
        out: float32 [titles, k], from there to the titles.
    """

    near: sparse.csr_matrix
    into: Vectors
    out: Vectors

    def score(self, rows: sparse.csr_matrix) -> Vectors:
        """Scores, float32 [m, titles], of rows of weights at watched titles, float32 [m, titles]."""
        scores: Vectors = (rows @ self.into) @ self.out.T
        linear = rows @ self.near
        scores[np.repeat(np.arange(len(scores)), np.diff(linear.indptr)), linear.indices] += linear.data
        return scores

    def title_vectors(self) -> Vectors:
        """`out`; what `product` needs beside is made ready."""
        _ = self.leans
        return self.out

    @cached_property
    def leans(self) -> Vectors:
        """near times `out`, float32 [titles, k]: a few columns at a time, so that they stay in the cache."""
        found = np.empty_like(self.out)
        for first in range(0, len(self.out), ROWS):
            rows = slice(first, first + ROWS)
            near = csr(self.near[rows])
            for column in range(0, self.out.shape[1], COLUMNS):
                columns = slice(column, column + COLUMNS)
                some = np.ascontiguousarray(self.out[:, columns])
                found[rows, columns] = (near @ torch.from_numpy(some)).numpy()
        return found

    def product(self, rows: sparse.csr_matrix) -> Product:
        """`score` as a product; what neighbours add is beside it."""
        return Product(
            vectors=rows @ self.into,
            offset=np.zeros(rows.shape[0], np.float32),
            extra=rows @ self.near,
            lean=rows @ self.leans,
        )

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """For saving."""
        near = {name: getattr(self.near, name) for name in ("data", "indices", "indptr")}
        return {"into": self.into, "out": self.out, **near}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        """What `arrays` returned."""
        near = tuple(arrays[name] for name in ("data", "indices", "indptr"))
        into, out = arrays["into"], arrays["out"]
        return cls(near=sparse.csr_matrix(near, shape=(len(into), len(into))), into=into, out=out)


def fit(
    watched: sparse.csr_matrix, config: CfConfig, seed: int, neighbours: Neighbours | None = None
) -> Filter:
    """The filter of a graph; singular vectors are found and sharpened on `config.device`.

    Args:
        watched: float32 [members, titles], 1 where watched.
        seed: of the start of the search for singular vectors.
        neighbours: finds the titles' neighbours; None: `nearest`, in this process.
    """
    by_member, by_title = (np.asarray(watched.sum(axis), dtype=np.float64).ravel() for axis in (1, 0))
    normalised = (
        _diagonal(by_member, -config.spectral_member_exponent)
        @ watched
        @ _diagonal(by_title, -config.spectral_title_exponent)
    ).astype(np.float32)
    rank = min(config.spectral_rank, math.ceil(config.spectral_share * min(watched.shape)))
    length = config.spectral_sharpening
    if rounds := config.spectral_iterations:
        values, vectors = nearly_leading(normalised, rank, iterations=rounds, seed=seed, device=config.device)
    else:
        values, vectors = leading(normalised, rank, seed=seed, device=config.device)
    largest = values.max(initial=1e-12)
    normalised /= largest
    slow = np.square(values / largest, dtype=np.float64)
    rest = sharpened(slow.min(initial=0) / 2, length)
    scale = _power(by_title, config.spectral_title_exponent)[:, None]
    into: list[npt.NDArray[Any]] = [
        config.spectral_ideal * _power(by_title, -config.spectral_title_exponent)[:, None] * vectors
    ]
    out: list[npt.NDArray[Any]] = [scale * vectors]
    if length:
        out = [_sharpen(out[0], normalised, length, config.device), vectors]
        into.append(vectors * slow * (sharpened(slow, length) - rest))
    near = (neighbours or nearest)(normalised.T.tocsr(), normalised, config.spectral_neighbours)
    near.data *= np.float32(rest)
    return Filter(near=near, into=np.hstack(into).astype(np.float32), out=np.hstack(out).astype(np.float32))


def sharpened(eigenvalues: npt.ArrayLike, length: float) -> npt.NDArray[np.float64]:
    """q of the module's formula: what a step of `length` leaves of components of these eigenvalues."""
    x = -length * np.asarray(eigenvalues, dtype=np.float64)
    share: npt.NDArray[np.float64] = 1 + x * (1 + x / 2 * (1 + x / 3 * (1 + x / 4)))
    return share


def _sharpen(columns: npt.NDArray[Any], normalised: sparse.csr_matrix, length: float, device: str) -> Vectors:
    """q(P) times columns, float32 [titles, k]; by Horner's rule, P never formed."""
    along, across = csr(normalised, device), csr(normalised.T.tocsr(), device)
    whole = torch.from_numpy(columns.astype(np.float32)).to(device)
    found = whole
    for order in (4, 3, 2, 1):
        found = whole - length / order * (across @ (along @ found))
    return _array(found)


def leading(
    matrix: sparse.csr_matrix, rank: int, *, seed: int, device: str = "cpu"
) -> tuple[Vectors, Vectors]:
    """The largest singular values, float32 [k], falling, and their right vectors, float32 [columns, k].

    Randomised block Krylov iteration (Musco and Musco, NeurIPS 2015) on the smaller side, every block made
    orthogonal to all before it; k is `rank`, or the matrix's own rank where that is less.
    """
    flat = matrix.shape[0] <= matrix.shape[1]
    tall, wide = (csr(each, device) for each in (matrix, matrix.T.tocsr())[:: 1 if flat else -1])
    side, other = tall.shape
    size = min(side, max(BASIS * rank, BASIS_LEAST)) if rank else 0
    basis, image = (torch.zeros(rows, size, device=device) for rows in (side, other))
    block = _drawn(side, min(BLOCK, size), seed, device)
    for start in range(0, size, BLOCK):
        block = block[:, : size - start]
        for _ in range(2):  # Once is not enough in single precision.
            block = block - basis[:, :start] @ (basis[:, :start].T @ block)
            block = torch.linalg.qr(block)[0]
        basis[:, start : start + block.shape[1]] = block
        image[:, start : start + block.shape[1]] = wide @ block
        block = tall @ image[:, start : start + block.shape[1]].contiguous()
    values, mix = _principal(image, rank)
    return _array(values), _array(image @ (mix / values) if flat else basis @ mix)


def nearly_leading(
    matrix: sparse.csr_matrix, rank: int, *, iterations: int, seed: int, device: str = "cpu"
) -> tuple[Vectors, Vectors]:
    """As `leading`, by so many rounds of randomised subspace iteration (Halko et al. 2011).

    The vectors found then hold something of those just beyond `rank`: as a filter their span lets the
    largest singular values through whole and those around the edge in part.
    """
    tall, wide = csr(matrix, device), csr(matrix.T.tocsr(), device)
    basis = _drawn(matrix.shape[1], min(rank + SPARE, *matrix.shape) if rank else 0, seed, device)
    for _ in range(iterations):
        basis = torch.linalg.qr(wide @ (tall @ basis))[0]
    values, mix = _principal(tall @ basis, rank)
    return _array(values), _array(basis @ mix)


def _drawn(rows: int, columns: int, seed: int, device: str) -> Tensor:
    drawn = np.random.default_rng(seed).normal(size=(rows, columns))
    return torch.from_numpy(drawn.astype(np.float32)).to(device)


def _principal(image: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The largest singular values of `image`, falling, at most `rank`, and their right vectors as columns."""
    squares, mix = torch.linalg.eigh(image.T @ image)
    kept = squares.flip(0)[:rank]
    kept = kept[kept > 1e-6 * squares[-1:]]
    return kept.sqrt(), mix.flip(1)[:, : len(kept)]


def _array(values: Tensor) -> Vectors:
    found: Vectors = values.contiguous().cpu().numpy()
    return found


def nearest(across: sparse.csr_matrix, normalised: sparse.csr_matrix, most: int) -> sparse.csr_matrix:
    """The `most` largest entries of each row of `across` times `normalised`, each row by itself.

    Args:
        across: R~^T, or some of its rows.
    """
    starts = range(0, across.shape[0], PIECE)
    pieces = [_largest(across[first : first + PIECE] @ normalised, most) for first in starts]
    return sparse.csr_matrix(sparse.vstack(pieces, format="csr"))


def _largest(rows: sparse.csr_matrix, most: int) -> sparse.csr_matrix:
    bounds = rows.indptr
    kept = [
        np.arange(start, end)
        if end - start <= most
        else start + np.sort(np.argpartition(rows.data[start:end], -most)[-most:])
        for start, end in itertools.pairwise(bounds.tolist())
    ]
    chosen = np.concatenate(kept)
    ends = np.concatenate([[0], np.cumsum([len(each) for each in kept])])
    return sparse.csr_matrix((rows.data[chosen], rows.indices[chosen], ends), shape=rows.shape)


def _power(counts: npt.NDArray[np.float64], exponent: float) -> npt.NDArray[np.float64]:
    """0 where nothing was counted."""
    return np.where(counts > 0, np.maximum(counts, 1) ** exponent, 0)


def _diagonal(counts: npt.NDArray[np.float64], exponent: float) -> sparse.dia_array:
    return sparse.diags_array(_power(counts, exponent))
