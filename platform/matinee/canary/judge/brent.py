"""Brent and Dekker's zero finder for many functions at once.

R. P. Brent, Algorithms for Minimization without Derivatives, 1973, chapter 4, with the two habits of R's
`uniroot`: a bracket of one tolerance ends the search, and a step is compared with the last one taken.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from matinee.canary.judge.rows import Floats, Ints

_EPSILON = float(np.finfo(np.float64).eps)
_SWAPPED = np.array([[1], [2], [1]])


def zeros(function: Callable[[Floats, Ints], Floats], low: Floats, high: Floats, tolerance: float) -> Floats:
    """Where falling functions cross zero, each to `tolerance`.

    Args:
        function: values at points of the functions named by position.
        low: float64 [k], where each search starts; `high`: where it ends.

    Returns:
        float64 [k]; the nearer end where a function does not change its sign in between.
    """
    every = np.arange(len(low))
    at_low, at_high = function(low, every), function(high, every)
    found = np.where(at_low > 0, high, low)
    active = np.flatnonzero((at_low > 0) & (at_high < 0))
    points = np.stack([low, high, low])[:, active]
    values = np.stack([at_low, at_high, at_low])[:, active]
    while True:
        last = points[1] - points[0]
        swap = np.flatnonzero(np.abs(values[2]) < np.abs(values[1]))
        points[:, swap], values[:, swap] = points[_SWAPPED, swap], values[_SWAPPED, swap]
        _, b, c = points
        least = 2 * _EPSILON * np.abs(b) + tolerance / 2
        half = (c - b) / 2
        going = (np.abs(half) > least) & (values[1] != 0)
        if not going.all():
            found[active[~going]] = b[~going]
            active, last, least, half = active[going], last[going], least[going], half[going]
            points, values = points[:, going], values[:, going]
        if not len(active):
            return found
        step = _step(points, values, last, least, half)
        step = np.where(np.abs(step) > least, step, np.copysign(least, half))
        points[0], values[0] = points[1], values[1]
        points[1] += step
        values[1] = function(points[1], active)
        same = np.flatnonzero((values[1] > 0) == (values[2] > 0))
        points[2, same], values[2, same] = points[0, same], values[0, same]


def _step(points: Floats, values: Floats, last: Floats, least: Floats, half: Floats) -> Floats:
    """From the middle of the three points: by interpolation where that converges, else half the bracket."""
    (a, b, c), (fa, fb, fc) = points, values
    s, q, r = fb / fa, fa / fc, fb / fc
    linear = a == c
    p = np.where(linear, 2 * half * s, s * (2 * half * q * (q - r) - (b - a) * (r - 1)))
    q = np.where(linear, 1 - s, (q - 1) * (r - 1) * (s - 1))
    q = np.where(p > 0, -q, q)
    p = np.abs(p)
    useful = (
        (np.abs(last) >= least)
        & (np.abs(fa) > np.abs(fb))
        & (p < 1.5 * half * q - np.abs(least * q) / 2)
        & (p < np.abs(last * q) / 2)
    )
    return np.asarray(np.divide(p, q, out=half.copy(), where=useful))
