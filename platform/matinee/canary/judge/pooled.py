"""Two samples of each row, ordered as one by a single sort of their values.

An order that also knows the sides costs more than twice a sort. So the lowest bit of each value's mantissa is
given up for its side, and whether anything was lost by that is told row by row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from matinee.canary.judge.rows import Bools, Floats, Ints


@dataclass(frozen=True)
class Counted:
    """How two samples lie to each other; one value a row.

    Args:
        u: float64, pairs in which the value of x is above that of y, ties counted half.
        ties: float64, the sum of t^3 - t over groups of t equal values.
        exact: bool, whether these are right; else two values that differ may have been taken for equal.
        least: float64, what `u` is at least when x is moved down by `off`; `most`: at most, when up.
    """

    u: Floats
    ties: Floats
    exact: Bools
    least: Floats
    most: Floats

    @classmethod
    def none(cls, rows: int) -> Self:
        """Of rows that are still to be counted: none is exact."""
        u, ties, least, most = np.zeros((4, rows))
        return cls(u, ties, np.zeros(rows, np.bool_), least, most)

    def put(self, rows: Ints, found: Counted) -> None:
        """What was counted of some of the rows."""
        for name, values in vars(found).items():
            getattr(self, name)[rows] = values


def count(x: Floats, y: Floats, off: Floats | None = None) -> Counted:
    """Count the pairs of each row.

    Args:
        x: float64 [rows, n], finite, in any order; `y`: [rows, m].
        off: float64 [rows], by how far x might be moved; none by default.
    """
    n, width = x.shape[1], x.shape[1] + y.shape[1]
    pooled: Floats = np.empty((len(x), width))
    np.add(x, 0.0, out=pooled[:, :n])  # a negative zero becomes a positive one
    np.add(y, 0.0, out=pooled[:, n:])
    bits = pooled.view(np.int64)
    bits[:, :n] |= 1
    bits[:, n:] &= ~1
    pooled.sort(axis=1)
    of_x = bits & 1
    order = of_x @ np.arange(width) - n * (n - 1) / 2
    tied, fully, ties = _runs((bits[:, 1:] ^ bits[:, :-1]).view(np.uint64) < 2, bits, of_x)
    exact = ties == 0
    if not exact.all():
        exact |= _even(x) & _even(y)
    u = order - fully + tied / 2
    slack = tied / 2
    if off is not None:
        # The lost bit is far below a thousandth of what counts as near.
        near, _, _ = _runs(np.diff(pooled, axis=1) <= 1.001 * off[:, None], bits, of_x)
        slack = near - slack
    return Counted(u, ties, exact, u - slack, u + slack)


def _even(values: Floats) -> Bools:
    """Whether the lowest bit of every value of a row is unset."""
    return np.asarray((np.bitwise_or.reduce(values.view(np.int64), axis=1) & 1) == 0)


def _runs(joined: Bools, bits: Ints, of_x: Ints) -> tuple[Floats, Floats, Floats]:
    """Sums over the runs of each row: of values joined to the one before.

    Args:
        joined: bool [rows, width - 1].
        bits: int64 [rows, width], the values as they are held; `of_x`: 1 where one is of x, else 0.

    Returns:
        float64 [rows]: pairs of x and y; those of them in which x comes after y, were the values equal (the
        bit of x makes a value above zero greater, one below it smaller); t^3 - t of the lengths.
    """
    rows, width = bits.shape
    held = np.zeros(rows * width + 1, np.bool_)
    held[:-1].reshape(rows, width)[:, 1:] = joined
    first = np.flatnonzero(~held[:-1] & held[1:])
    if not len(first):
        return np.zeros(rows), np.zeros(rows), np.zeros(rows)
    end = np.flatnonzero(held[:-1] & ~held[1:]) + 1
    ends = np.stack([first, end], axis=1).ravel()
    x = np.add.reduceat(of_x.ravel(), ends[:-1] if end[-1] == of_x.size else ends)[::2]
    size = (end - first).astype(np.float64)
    pairs = x * (size - x)
    row, after = first // width, bits.ravel()[first] >= 0
    sums = (np.bincount(row, each, rows) for each in (pairs, pairs * after, size**3 - size))
    found = [np.asarray(each, np.float64) for each in sums]
    return found[0], found[1], found[2]
