"""Segments of queries, calibration of signals, and the regression that weighs them. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from matinee.models.base import Query, Scores
from matinee.models.histories import in_sitting

SEGMENTS = ("cold", "short, back", "short, in sitting", "long, back", "long, in sitting")
"""By history length, and by whether the last watch was in the sitting the ranking is asked in."""

Weights = npt.NDArray[np.float64]


def segments(query: Query, short_history: int) -> npt.NDArray[np.int64]:
    """Position in `SEGMENTS` of each member of the query."""
    lengths = np.array([len(history) for history in query.histories], dtype=np.int64)
    here = in_sitting(query.times, query.now)
    known = np.where(lengths < short_history, 1, 3) + here
    return np.where(lengths == 0, 0, known)


def calibrate(signal: Scores) -> Scores:
    """Each row with mean 0 and standard deviation 1 over titles; zeros where a row does not vary."""
    centred = signal - signal.mean(axis=1, keepdims=True, dtype=np.float64).astype(np.float32)
    spread = np.sqrt(np.mean(np.square(centred, dtype=np.float64), axis=1, keepdims=True))
    scale = np.where(spread > 1e-6, 1 / np.maximum(spread, 1e-6), 0)
    calibrated: Scores = (centred * scale).astype(np.float32)
    return calibrated


def learn(
    signals: Scores,
    watched: npt.NDArray[np.bool_],
    answers: Scores,
    segment: npt.NDArray[np.int64],
    shrinkage: float,
) -> Weights:
    """Weights of each segment, float64 [segments, signals], none negative.

    Softmax regression: a case's answers should be likely among the titles not watched. Every segment is
    pulled towards the weights of its group (known members in a sitting, known members back), and those
    towards the weights of all known members; the cold segment stands alone.

    Args:
        signals: calibrated, float32 [cases, signals, titles].
        watched: bool [cases, titles], left out of the softmax.
        answers: float32 [cases, titles], rows that sum to 1.
        segment: position in `SEGMENTS` by case.
        shrinkage: strength of the pull, in cases.
    """
    count = signals.shape[1]
    none = np.full(count, 1.0 / count)
    weights = np.tile(none, (len(SEGMENTS), 1))

    def fitted(chosen: npt.NDArray[np.bool_], towards: Weights) -> Weights:
        return _regress(signals[chosen], watched[chosen], answers[chosen], towards, shrinkage)

    weights[0] = fitted(segment == 0, none)
    everyone = fitted(segment > 0, none)
    for group in ((1, 3), (2, 4)):
        together = fitted(np.isin(segment, group), everyone)
        for place in group:
            weights[place] = fitted(segment == place, together)
    return weights


def _regress(
    signals: Scores,
    watched: npt.NDArray[np.bool_],
    answers: Scores,
    towards: Weights,
    shrinkage: float,
) -> Weights:
    if not len(signals):
        return towards
    right = np.einsum("cst,ct->cs", signals, answers)

    def loss(weights: Weights) -> tuple[float, Weights]:
        logits = np.einsum("cst,s->ct", signals, weights.astype(np.float32), optimize=True)
        logits[watched] = -np.inf
        top = logits.max(axis=1, keepdims=True)
        shares = np.exp(logits - top)
        total = shares.sum(axis=1, keepdims=True)
        expected = np.einsum("cst,ct->cs", signals, shares / total, optimize=True)
        value = (top + np.log(total)).sum() - (right @ weights).sum()
        pull = weights - towards
        gradient = (expected - right).sum(0) + 2 * shrinkage * pull
        return float(value + shrinkage * pull @ pull), gradient.astype(np.float64)

    bounds: Sequence[tuple[float, None]] = [(0.0, None)] * len(towards)
    found = minimize(loss, towards, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 60})
    # A signal that is silent in every case taught nothing: it gets no say.
    return np.where(np.abs(signals).any(axis=(0, 2)), found.x, 0.0)
