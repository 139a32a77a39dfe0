"""What content says of a title: the vector its attributes lead to, and where it lies among attributes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import sparse

Vectors = npt.NDArray[np.float32]

TURNS = 60
"""Most conjugate-gradient steps; the figures settle well before."""
TOLERANCE = 1e-4
"""Residual, relative to the right side, at which the steps stop."""
SPARE = 16
"""Directions computed beyond those that are kept."""


def from_content(attributes: sparse.csr_matrix, vectors: Vectors, weight: Vectors, ridge: float) -> Vectors:
    """The vectors that titles' attributes lead to, float32 as `vectors`.

    Ridge regression from attributes to vectors: Gantner et al., "Learning attribute-to-feature mappings for
    cold-start recommendations", 2010. A value that few titles have is thereby shrunk to nothing, one that
    many have counts in full.

    Args:
        attributes: [titles, values].
        vectors: float32 [titles, d], learned from watches.
        weight: float32 [titles], how far each vector is trusted; 0: not learned from.
        ridge: the penalty.
    """
    weight = weight[:, None]
    mean = (weight * vectors).sum(0) / max(float(weight.sum()), 1.0)
    transposed = attributes.T.tocsr()
    right = transposed @ (weight * (vectors - mean))
    # Conjugate gradients, a column of the answer for each dimension of the vectors.
    found = np.zeros_like(right)
    rest, step = right.copy(), right.copy()
    size = (rest**2).sum(0)
    enough = TOLERANCE**2 * size
    for _ in range(TURNS):
        if (size <= enough).all():
            break
        along = transposed @ (weight * (attributes @ step)) + ridge * step
        length = size / np.maximum((step * along).sum(0), 1e-30)
        found += length * step
        rest -= length * along
        before, size = size, (rest**2).sum(0)
        step = rest + size / np.maximum(before, 1e-30) * step
    predicted: Vectors = (attributes @ found + mean).astype(np.float32)
    return predicted


def directions(attributes: sparse.csr_matrix, count: int, *, seed: int) -> Vectors:
    """Titles in the `count` main directions of their attributes, float32 [titles, count], zeros to fill up.

    A randomised singular value decomposition (Halko et al. 2011) of the attributes weighed by rarity.
    """
    titles, values = attributes.shape
    rarity = np.log(titles / np.maximum(np.asarray(attributes.sum(axis=0)).ravel(), 1))
    weighed = attributes @ sparse.diags(rarity.astype(np.float32))
    kept = min(count, titles, values)
    result = np.zeros((titles, count), dtype=np.float32)
    if kept:
        drawn = np.random.default_rng(seed).normal(size=(values, min(kept + SPARE, titles, values)))
        basis = weighed @ drawn.astype(np.float32)
        for _ in range(2):
            basis = weighed @ (weighed.T @ np.linalg.qr(basis)[0])
        basis = np.linalg.qr(basis)[0]
        seen = weighed.T @ basis
        squares, left = np.linalg.eigh(seen.T @ seen)
        found = basis @ left[:, ::-1] * np.sqrt(np.maximum(squares[::-1], 0))
        result[:, : found.shape[1]] = found[:, :count]
    return result
