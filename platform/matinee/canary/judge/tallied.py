"""Two samples of each row compared by how often each value occurs: whole numbers need no sort."""

from __future__ import annotations

import numpy as np

from matinee.canary.judge.pooled import Counted
from matinee.canary.judge.rows import Bools, Floats

MOST = 2.0**31
"""Values are below this, on either side of zero."""


def tallies(x: Floats, y: Floats) -> Bools:
    """Which rows `tally` can count: of whole numbers, no more of them between least and greatest than values.

    Args:
        x: float64 [rows, n], without NaN; `y`: [rows, m].

    Returns:
        bool [rows].
    """
    fit = _whole(x[:, :1]) & _whole(y[:, :1])
    if fit.any():
        least, most = _bounds(x, y)
        fit &= (least > -MOST) & (most < MOST)
        fit &= most - np.where(fit, least, 0.0) < x.shape[1] + y.shape[1]
    if fit.any():
        fit &= _whole(x) & _whole(y)
    return fit


def tally(x: Floats, y: Floats) -> Counted:
    """As `pooled.count`, of rows that fit, and of any `off` below a half: it parts no more than ties."""
    least, most = _bounds(x, y)
    values = int((most - least).max(initial=0)) + 1
    of_x, of_y = (_occurrences(side, least, values) for side in (x, y))
    size = of_x + of_y
    tied = np.einsum("rv,rv->r", of_x, of_y)
    u = np.einsum("rv,rv->r", of_x, np.cumsum(of_y, axis=1)) - tied / 2
    ties = np.einsum("rv,rv,rv->r", size, size, size) - x.shape[1] - y.shape[1]
    return Counted(u, ties, np.ones(len(x), np.bool_), u - tied / 2, u + tied / 2)


def _whole(values: Floats) -> Bools:
    return np.asarray((np.rint(values) == values).all(axis=1))


def _bounds(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    return np.minimum(x.min(axis=1), y.min(axis=1)), np.maximum(x.max(axis=1), y.max(axis=1))


def _occurrences(side: Floats, least: Floats, values: int) -> Floats:
    """How often a row has each value from its least on, float64 [rows, values]."""
    starts = np.arange(len(side)) * values - least
    places = (side + starts[:, None]).astype(np.intp).ravel()
    return np.bincount(places, minlength=len(side) * values).reshape(-1, values).astype(np.float64)
