"""What a rank test counts, counted over every pair of values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence


def by_pairs(x: Sequence[float], y: Sequence[float], shift: float = 0.0) -> float:
    """Pairs in which the value of x, less the shift, is above that of y, ties counted half."""
    return sum((a - shift > b) + 0.5 * (a - shift == b) for a in x for b in y)


def by_values(values: Sequence[float]) -> float:
    """The sum of t^3 - t over groups of t equal values."""
    return float(sum(size**3 - size for size in Counter(values).values()))
