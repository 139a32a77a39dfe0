"""Title vectors in few dimensions, in which products with members' vectors are nearly what they were. Pure.

The dimensions are the principal ones of the title vectors after every column was scaled by how much members'
vectors have of it: of all projections that one loses least of the products, where columns of members' vectors
vary independently.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]

SAMPLE = 20_000
"""Titles from which the principal dimensions are found."""
WIDTH = 128
BLOCK = 16_384
"""Titles that are projected at a time."""


@dataclass(frozen=True, kw_only=True)
class Sketch:
    """Vectors in few dimensions.

    Args:
        titles: float32 [titles, r].
        turns: from members' vectors, float32 [d, r] for each block of columns.
    """

    titles: Vectors
    turns: Sequence[Vectors]

    @classmethod
    def of(
        cls, blocks: Sequence[Vectors], energies: Sequence[Vectors], *, width: int = WIDTH, seed: int
    ) -> Self:
        """The sketch of title vectors.

        Args:
            blocks: the title vectors' columns, float32 [titles, d] each.
            energies: mean squares of the columns of members' vectors, float32 [d] for each block.
            width: most dimensions.
            seed: of the sample of titles.
        """
        titles = len(blocks[0])
        scales = [np.sqrt(energy).astype(np.float32) for energy in energies]
        chosen = np.sort(np.random.default_rng(seed).permutation(titles)[:SAMPLE])
        scaled = [block[chosen] * scale for block, scale in zip(blocks, scales, strict=True)]
        sample = np.concatenate(scaled, axis=1)
        mean = sample.mean(axis=0)
        sample -= mean
        _, vectors = np.linalg.eigh(sample.T @ sample)
        kept = vectors[:, ::-1][:, :width].astype(np.float32)
        turned = np.split(kept, np.cumsum([len(scale) for scale in scales])[:-1])
        into = [scale[:, None] * turn for scale, turn in zip(scales, turned, strict=True)]
        found = np.empty((titles, kept.shape[1]), np.float32)
        for start in range(0, titles, BLOCK):
            rows = slice(start, start + BLOCK)
            parts = [block[rows] @ each for block, each in zip(blocks, into, strict=True)]
            found[rows] = np.sum(parts, axis=0) - mean @ kept
        turns = [_inverse(scale)[:, None] * turn for scale, turn in zip(scales, turned, strict=True)]
        return cls(titles=found, turns=turns)

    def turned(self, vectors: Sequence[Vectors]) -> Vectors:
        """Members' vectors, float32 [m, d] for each block, in the sketch's dimensions: float32 [m, r]."""
        parts = [each @ turn for each, turn in zip(vectors, self.turns, strict=True)]
        found: Vectors = np.sum(parts, axis=0, dtype=np.float32)
        return found


def _inverse(scale: Vectors) -> Vectors:
    """0 where a column is never used."""
    found: Vectors = np.where(scale > 0, 1 / np.where(scale > 0, scale, 1), 0).astype(np.float32)
    return found
