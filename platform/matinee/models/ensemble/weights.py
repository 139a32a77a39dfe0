"""Segments of queries, one scale for all signals, and the regression that weighs them. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from matinee.models.base import Query, Scores
from matinee.models.ensemble.cases import Cases, Rows, Values
from matinee.models.ensemble.regression import Regression
from matinee.models.histories import in_sitting

SEGMENTS = ("cold", "short, back", "short, in sitting", "long, back", "long, in sitting")
"""By history length, and by whether the last watch was in the sitting the ranking is asked in."""


def segments(query: Query, short_history: int) -> npt.NDArray[np.int64]:
    """Position in `SEGMENTS` of each member of the query."""
    lengths = np.array([len(history) for history in query.histories], dtype=np.int64)
    here = in_sitting(query.times, query.now)
    known = np.where(lengths < short_history, 1, 3) + here
    return np.where(lengths == 0, 0, known)


def standardised(signal: Scores) -> Scores:
    """Each row with mean 0 and standard deviation 1 over titles; zeros where a row does not vary."""
    centred = signal - signal.mean(axis=1, keepdims=True, dtype=np.float64).astype(np.float32)
    spread = np.sqrt(np.einsum("ij,ij->i", centred, centred) / centred.shape[1])[:, None]
    centred *= np.where(spread > 1e-6, 1 / np.maximum(spread, 1e-6), 0).astype(np.float32)
    found: Scores = centred
    return found


def learn(
    cases: Cases,
    rows: Rows,
    shrinkage: float,
    *,
    without: str | None = None,
    start: Values | None = None,
) -> Values:
    """Weights of each segment, float64 [segments, signals], none negative.

    Softmax regression: a case's answers should be likely among the titles not watched. Every segment is
    pulled towards the weights of its group (known members in a sitting, known members back), and those
    towards the weights of all known members; the cold segment stands alone.

    Args:
        rows: the cases to learn from.
        shrinkage: strength of the pull, in cases.
        without: name of a member model whose signals get no weight.
        start: weights from like cases, from which the search is shorter.
    """
    heard = np.array([member != without for member, _ in cases.names])
    none = heard / max(heard.sum(), 1)
    weights = np.tile(none, (len(SEGMENTS), 1))

    def fitted(places: Sequence[int], towards: Values) -> Values:
        begin = towards if start is None else start[list(places)].mean(0) * heard
        chosen = rows & np.isin(cases.segment, places)
        return _regress(cases, chosen, heard, towards, shrinkage, begin)

    weights[0] = fitted([0], none)
    everyone = fitted([1, 2, 3, 4], none)
    for group in ((1, 3), (2, 4)):
        together = fitted(group, everyone)
        for place in group:
            weights[place] = fitted([place], together)
    return weights


def _regress(
    cases: Cases, rows: Rows, heard: Rows, towards: Values, shrinkage: float, begin: Values
) -> Values:
    if not rows.any() or not heard.any():
        return towards
    regression = Regression(cases.signals, cases.watched, cases.answers, heard=heard, rows=rows)
    weights = np.zeros(len(heard))
    # A signal that is silent in every case taught nothing: it gets no say.
    weights[heard] = regression.varied * regression.solve(towards[heard], shrinkage, begin[heard])
    return weights
