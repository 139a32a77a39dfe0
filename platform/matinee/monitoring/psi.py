"""Population stability index of two samples: pure, and steady on small and skewed ones.

The index is sum((q - p) * ln(q / p)) over bins, p the reference's shares and q the live ones
(Siddiqi, "Credit Risk Scorecards", 2005). Under no drift it is about (bins - 1) * (1/n + 1/m)
(Yurdakul & Naranjo, 2020), so few bins and a least number of rows keep it from crying wolf.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

BINS = 10
"""Bins of a continuous column: the reference's deciles, so that outliers take no bin of their own."""


def psi(reference: npt.NDArray[np.float64], current: npt.NDArray[np.float64]) -> float:
    """The index of `current` against `reference`; 0 where their shares are equal.

    A reference of at most `BINS` distinct values is binned by value (anything unseen is one bin more),
    otherwise by its deciles, outer bins open. Half a row is added to each bin, so that the value stays
    finite where a bin is empty on one side.

    Args:
        reference: float64 [n], finite, not empty.
        current: float64 [m], finite, not empty.
    """
    values = np.unique(reference)
    if len(values) <= BINS:
        before, after = _by_value(values, reference), _by_value(values, current)
    else:
        edges = np.unique(np.quantile(reference, np.linspace(0, 1, BINS + 1)[1:-1]))
        before, after = _by_edge(edges, reference), _by_edge(edges, current)
    p = (before + 0.5) / (before.sum() + 0.5 * len(before))
    q = (after + 0.5) / (after.sum() + 0.5 * len(after))
    return float(np.sum((q - p) * np.log(q / p)))


def _by_value(values: npt.NDArray[np.float64], sample: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    place = np.minimum(np.searchsorted(values, sample), len(values) - 1)
    place[values[place] != sample] = len(values)
    return np.bincount(place, minlength=len(values) + 1)


def _by_edge(edges: npt.NDArray[np.float64], sample: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    return np.bincount(np.searchsorted(edges, sample, side="left"), minlength=len(edges) + 1)
