"""A filter over the bipartite graph of members and titles, in closed form.

With R the watches (1 or 0), D_m and D_t the watches of each member and title, and R~ = D_m^-a R D_t^-b, a
history r (weights of titles) scores

    (w r R~^T R~ + v r D_t^-b V f(S) V^T D_t^b) D_t^p

where V are the leading right singular vectors of R~, S their singular values over the largest, and
f(s) = s^q. With a = b = 1/2, p = q = 0 it is GF-CF: Shen et al., "How powerful is graph convolution for
recommendation?", CIKM 2021. The exponents of the two sides are those of Turbo-CF (Park et al., SIGIR 2024)
and of SGFCF (Peng et al., KDD 2024), of which the latter also weighs the singular values smoothly. With
`spectral_balanced` both parts of a member's scores are brought to the same mean square before w and v weigh
them: how they compare then does not depend on how much the member has watched.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from scipy import sparse

from matinee.models.cf.config import CfConfig

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


@dataclass(frozen=True, kw_only=True)
class Filter:
    """What scoring needs.

    Args:
        near: the linear filter, float32 [titles, titles], at most `spectral_neighbours` in a row.
        into: float32 [titles, k], from a history to the leading singular vectors, weighed.
        out: float32 [titles, k], from there to the titles.
        ideal: the low-pass filter's weight over the linear one's where a member's scores of both are first
            brought to mean square 1; None: `near` and `into` hold the weights.
    """

    near: sparse.csr_matrix
    into: Vectors
    out: Vectors
    ideal: float | None = None

    def score(self, rows: sparse.csr_matrix) -> Vectors:
        """Scores, float32 [m, titles], of rows of weights at watched titles, float32 [m, titles]."""
        scores: Vectors = (rows @ self.into) @ self.out.T
        linear = rows @ self.near
        if self.ideal is not None:
            titles = scores.shape[1]
            scores *= self.ideal * _inverse_root(np.einsum("mt,mt->m", scores, scores) / titles)[:, None]
            squares = np.asarray(linear.power(2).sum(axis=1)).ravel()
            linear = sparse.diags_array(_inverse_root(squares / titles)) @ linear
        scores[np.repeat(np.arange(len(scores)), np.diff(linear.indptr)), linear.indices] += linear.data
        return scores

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """For saving."""
        near = {name: getattr(self.near, name) for name in ("data", "indices", "indptr")}
        ideal = np.array([] if self.ideal is None else [self.ideal])
        return {"into": self.into, "out": self.out, "ideal": ideal, **near}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        """What `arrays` returned."""
        near = tuple(arrays[name] for name in ("data", "indices", "indptr"))
        into, out = arrays["into"], arrays["out"]
        return cls(
            near=sparse.csr_matrix(near, shape=(len(into), len(into))),
            into=into,
            out=out,
            ideal=next(iter(arrays["ideal"].tolist()), None),
        )


def fit(watched: sparse.csr_matrix, config: CfConfig, seed: int) -> Filter:
    """The filter of a graph.

    Args:
        watched: float32 [members, titles], 1 where watched.
        seed: of the start of the search for singular vectors.
    """
    by_member, by_title = (np.asarray(watched.sum(axis), dtype=np.float64).ravel() for axis in (1, 0))
    normalised = (
        _diagonal(by_member, -config.spectral_member_exponent)
        @ watched
        @ _diagonal(by_title, -config.spectral_title_exponent)
    ).astype(np.float32)
    lift = _power(by_title, config.spectral_post_exponent)
    balanced = config.spectral_balanced and config.spectral_linear > 0 and config.spectral_ideal > 0
    near = _near(normalised, (1 if balanced else config.spectral_linear) * lift, config.spectral_neighbours)
    rank = config.spectral_rank if config.spectral_ideal else 0
    if config.spectral_iterations:
        values, vectors = nearly_leading(normalised, rank, iterations=config.spectral_iterations, seed=seed)
    else:
        values, vectors = leading(normalised, rank, seed=seed)
    shares = (1 if balanced else config.spectral_ideal) * (
        values / values.max(initial=1e-12)
    ) ** config.spectral_smoothness
    scale = _power(by_title, config.spectral_title_exponent)
    inverse = _power(by_title, -config.spectral_title_exponent)
    return Filter(
        near=near,
        into=(inverse[:, None] * vectors * shares).astype(np.float32),
        out=((scale * lift)[:, None] * vectors).astype(np.float32),
        ideal=config.spectral_ideal / config.spectral_linear if balanced else None,
    )


def leading(matrix: sparse.csr_matrix, rank: int, *, seed: int) -> tuple[Vectors, Vectors]:
    """The largest singular values, float32 [k], falling, and their right vectors, float32 [columns, k].

    Randomised block Krylov iteration (Musco and Musco, NeurIPS 2015) on the smaller side, every block made
    orthogonal to all before it; k is `rank`, or the matrix's own rank where that is less.
    """
    tall = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T.tocsr()
    wide = tall.T.tocsr()
    side = tall.shape[0]
    size = min(side, max(BASIS * rank, BASIS_LEAST)) if rank else 0
    basis = np.zeros((side, size), dtype=np.float32)
    image = np.zeros((tall.shape[1], size), dtype=np.float32)
    block = np.random.default_rng(seed).normal(size=(side, min(BLOCK, size))).astype(np.float32)
    for start in range(0, size, BLOCK):
        block = block[:, : size - start]
        for _ in range(2):  # Once is not enough in single precision.
            block -= basis[:, :start] @ (basis[:, :start].T @ block)
            block = np.linalg.qr(block)[0]
        basis[:, start : start + block.shape[1]] = block
        image[:, start : start + block.shape[1]] = wide @ block
        block = tall @ image[:, start : start + block.shape[1]]
    squares, mix = np.linalg.eigh(image.T @ image)
    kept = np.argsort(-squares)[:rank]
    kept = kept[squares[kept] > 1e-6 * max(squares.max(initial=0), 0)]
    values = np.sqrt(squares[kept])
    right = image @ (mix[:, kept] / values)
    if tall is not matrix:
        right = basis @ mix[:, kept]
    return values.astype(np.float32), np.ascontiguousarray(right)


def nearly_leading(
    matrix: sparse.csr_matrix, rank: int, *, iterations: int, seed: int
) -> tuple[Vectors, Vectors]:
    """As `leading`, by so many rounds of randomised subspace iteration (Halko et al. 2011).

    The vectors found then hold something of those just beyond `rank`: as a filter their span lets the
    largest singular values through whole and those around the edge in part.
    """
    wide = matrix.T.tocsr()
    titles = matrix.shape[1]
    size = min(rank + SPARE, *matrix.shape) if rank else 0
    basis = np.random.default_rng(seed).normal(size=(titles, size)).astype(np.float32)
    for _ in range(iterations):
        basis = np.linalg.qr(wide @ (matrix @ basis))[0]
    image = matrix @ basis
    squares, mix = np.linalg.eigh(image.T @ image)
    kept = np.argsort(-squares)[:rank]
    kept = kept[squares[kept] > 1e-6 * max(squares.max(initial=0), 0)]
    return np.sqrt(squares[kept]).astype(np.float32), np.ascontiguousarray(basis @ mix[:, kept])


def _near(normalised: sparse.csr_matrix, lift: npt.NDArray[np.float64], most: int) -> sparse.csr_matrix:
    """The `most` largest entries of each row of R~^T R~, columns multiplied by `lift`."""
    titles = normalised.shape[1]
    if not lift.any():
        return sparse.csr_matrix((titles, titles), dtype=np.float32)
    across = normalised.T.tocsr()
    lifted = (normalised @ sparse.diags_array(lift)).astype(np.float32).tocsr()
    pieces = [_largest(across[i : i + PIECE] @ lifted, most) for i in range(0, titles, PIECE)]
    return sparse.csr_matrix(sparse.vstack(pieces, format="csr"))


def _largest(rows: sparse.csr_matrix, most: int) -> sparse.csr_matrix:
    counts = np.diff(rows.indptr)
    owner = np.repeat(np.arange(len(counts)), counts)
    if counts.max(initial=0) <= most:
        return rows
    order = np.lexsort((rows.indices, -rows.data, owner))
    place = np.arange(len(order)) - np.repeat(rows.indptr[:-1], counts)
    kept = order[place < most]
    bounds = np.concatenate([[0], np.cumsum(np.minimum(counts, most))])
    return sparse.csr_matrix((rows.data[kept], rows.indices[kept], bounds), shape=rows.shape)


def _inverse_root(squares: Vectors) -> Vectors:
    """float32; 0 where nothing was scored."""
    found: Vectors = np.where(squares > 0, 1 / np.sqrt(np.maximum(squares, 1e-30)), 0).astype(np.float32)
    return found


def _power(counts: npt.NDArray[np.float64], exponent: float) -> npt.NDArray[np.float64]:
    """0 where nothing was counted."""
    return np.where(counts > 0, np.maximum(counts, 1) ** exponent, 0)


def _diagonal(counts: npt.NDArray[np.float64], exponent: float) -> sparse.dia_array:
    return sparse.diags_array(_power(counts, exponent))
