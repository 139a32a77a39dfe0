"""Softmax regression with few weights, none negative, by Newton's method. Pure.

The loss is convex and its curvature is known, so a handful of passes over the cases is enough. Each step goes
to the least of the local parabola among weights that are not negative: a non-negative least squares problem.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.linalg import cholesky, solve_triangular
from scipy.optimize import nnls

from matinee.models.base import Scores
from matinee.models.ensemble.cases import Rows, Values

BLOCK = 100_000
"""Values of signals worked on at a time: they stay in the processor's cache."""
STEPS = 30
STILL = 1e-5
"""Where no weight moves by more, the search is over."""
SHORTER = 0.25
"""What is left of a step that went too far."""
NOISE = 1e-6
"""Share of a loss that single precision does not tell."""
RIDGE = 1e-6
"""Added to the curvature, as a share of the signals' squares: it is a difference of such sums, in single
precision. Between signals that are alike, or where one title is all but certain, little else is left."""


@dataclass(frozen=True, kw_only=True)
class _Place:
    """Weights, the loss there, its gradient, float64 [s], its curvature, float64 [s, s], and its ridge."""

    weights: Values
    loss: float
    gradient: Values
    curvature: npt.NDArray[np.float64]
    ridge: float


class Regression:
    """Cases to learn from.

    Args:
        signals: float32 [signals, cases, titles].
        watched: bool [cases, titles], titles that are not ranked.
        answers: bool [cases, titles], one in each case at least: they should be likely among the others.
        heard: bool [signals], those that are weighed, s of them.
        rows: bool [cases], those that count.

    Attributes:
        varied: bool [s], which of the signals heard are not 0 everywhere.
    """

    def __init__(self, signals: Scores, watched: Rows, answers: Rows, *, heard: Rows, rows: Rows) -> None:
        chosen, places = np.flatnonzero(heard)[:, None], np.flatnonzero(rows)
        size = max(1, BLOCK // max(1, len(chosen) * signals.shape[2]))
        self.varied = np.zeros(len(chosen), dtype=bool)
        self._right = np.zeros(len(chosen))
        self._blocks: list[tuple[Scores, Rows]] = []
        for start in range(0, len(places), size):
            some = places[start : start + size]
            block, right = signals[chosen, some], answers[some]
            shares = right / right.sum(1, keepdims=True, dtype=np.float32)
            self.varied |= block.any(axis=(1, 2))
            self._right += block.reshape(len(chosen), -1) @ shares.ravel()
            self._blocks.append((block, watched[some]))

    def solve(self, towards: Values, strength: float, begin: Values) -> Values:
        """The likeliest weights, float64 [s]; `strength` pulls them `towards` others, by squares.

        Args:
            begin: where the search starts.
        """
        here = self._at(begin, towards, strength)
        for _ in range(STEPS):
            step = _least(here) - here.weights
            if np.abs(step).max(initial=0.0) < STILL:
                break
            there = self._at(here.weights + step, towards, strength)
            while there.loss > here.loss + NOISE * abs(here.loss) and np.abs(step).max() >= STILL:
                step = SHORTER * step
                there = self._at(here.weights + step, towards, strength)
            here = there
        return here.weights

    def _at(self, weights: Values, towards: Values, strength: float) -> _Place:
        pull = weights - towards
        loss = strength * float(pull @ pull) - float(self._right @ weights)
        gradient = 2 * strength * pull - self._right
        curvature = 2 * strength * np.eye(len(weights))
        squares = 1.0
        single = weights.astype(np.float32)
        for signals, watched in self._blocks:
            flat = signals.reshape(len(signals), -1)
            logits = (single @ flat).reshape(watched.shape)
            np.copyto(logits, -np.inf, where=watched)
            top = logits.max(axis=1, keepdims=True)
            logits -= top
            shares = np.exp(logits, out=logits)
            total = shares.sum(axis=1, keepdims=True)
            shares /= total
            loss += float((top + np.log(total)).sum(dtype=np.float64))
            weighed = signals * shares
            means = weighed.sum(axis=2)
            gradient += means.sum(axis=1, dtype=np.float64)
            products = weighed.reshape(flat.shape) @ flat.T
            squares += float(np.trace(products))
            curvature += products - means @ means.T
        return _Place(
            weights=weights, loss=loss, gradient=gradient, curvature=curvature, ridge=RIDGE * squares
        )


def _least(here: _Place) -> Values:
    """Where the parabola of a place is least, among weights that are not negative."""
    ridge = here.ridge * np.eye(len(here.weights))
    lower = cholesky((here.curvature + here.curvature.T) / 2 + ridge, lower=True)
    aim = here.curvature @ here.weights - here.gradient
    found: Values = nnls(lower.T, solve_triangular(lower, aim, lower=True))[0]
    return found
