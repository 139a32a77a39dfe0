"""Brent and Dekker's zero finder for many functions at once.

R. P. Brent, Algorithms for Minimization without Derivatives, 1973, chapter 4, with the two habits of R's
`uniroot`: a bracket of one tolerance ends the search, and a step is compared with the last one taken.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from matinee.canary.judge.rows import Floats, Ints

_EPSILON = float(np.finfo(np.float64).eps)


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
    a, b, fa, fb = low[active], high[active], at_low[active], at_high[active]
    c, fc = a, fa
    while True:
        last = b - a
        swap = np.abs(fc) < np.abs(fb)
        a, b, c = np.where(swap, b, a), np.where(swap, c, b), np.where(swap, b, c)
        fa, fb, fc = np.where(swap, fb, fa), np.where(swap, fc, fb), np.where(swap, fb, fc)
        least = 2 * _EPSILON * np.abs(b) + tolerance / 2
        half = (c - b) / 2
        going = (np.abs(half) > least) & (fb != 0)
        found[active[~going]] = b[~going]
        if not going.any():
            return found
        active, a, b, c, fa, fb, fc, last, least, half = (
            each[going] for each in (active, a, b, c, fa, fb, fc, last, least, half)
        )
        step = _step(a, b, c, fa, fb, fc, last, least, half)
        a, fa = b, fb
        b = b + np.where(np.abs(step) > least, step, np.copysign(least, half))
        fb = function(b, active)
        same = np.sign(fb) == np.sign(fc)
        c, fc = np.where(same, a, c), np.where(same, fa, fc)


def _step(
    a: Floats,
    b: Floats,
    c: Floats,
    fa: Floats,
    fb: Floats,
    fc: Floats,
    last: Floats,
    least: Floats,
    half: Floats,
) -> Floats:
    """From `b`: by interpolation where that converges, else to the middle of the bracket."""
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
    return np.divide(p, q, out=half.copy(), where=useful)
