"""What the ensemble's scores say of how likely a title is the next watch. Pure.

A score s, which varies around 0 over the titles of a row, becomes `scale * asinh(bend * s) / bend`: its
softmax over the titles not watched is the probability. Temperature scaling (Guo et al. 2017) with a bend,
because scores that are no logits have few titles far ahead. The map is increasing: no order changes.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar

from matinee.models.base import Scores
from matinee.models.ensemble.cases import Cases, Rows
from matinee.models.ensemble.weights import SEGMENTS

BENDS = (0.01, 0.3, 1.0, 3.0)
SCALES = (1e-2, 1e2)
LEAST_CASES = 50
"""Segments with fewer cases share what all cases tell."""

Calibration = npt.NDArray[np.float64]
"""Scale and bend, float64 [segments, 2]."""


def chances(scores: Scores, watched: Rows, calibration: Calibration) -> Scores:
    """Probabilities of the titles not watched, float32 [m, titles]; 0 for those watched.

    Args:
        calibration: of each row's segment, float64 [m, 2].
    """
    if not len(scores):
        return scores
    scale, bend = calibration.astype(np.float32).T[:, :, None]
    shares = _shares(scale * np.arcsinh(bend * scores) / bend, watched)
    found: Scores = shares / shares.sum(axis=1, keepdims=True)
    return found


def calibrate(cases: Cases, scores: Scores, rows: Rows) -> Calibration:
    """Scale and bend of each segment under which the next watches of the marked cases are likeliest."""
    found = np.tile(_likeliest(cases, scores, rows), (len(SEGMENTS), 1))
    for place in range(len(SEGMENTS)):
        own = rows & (cases.segment == place)
        if own.sum() >= LEAST_CASES:
            found[place] = _likeliest(cases, scores, own)
    return found


def _likeliest(cases: Cases, scores: Scores, rows: Rows) -> tuple[float, float]:
    if not rows.any():
        return 1.0, BENDS[0]
    watched, right = cases.watched[rows], cases.following[rows][:, None]

    def searched(bend: float) -> tuple[float, float, float]:
        bent = np.arcsinh(np.float32(bend) * scores[rows]) / np.float32(bend)

        def loss(power: float) -> float:
            logits = np.float32(np.exp(power)) * bent
            shares = _shares(logits, watched)
            chance = np.take_along_axis(shares, right, 1)[:, 0] / shares.sum(axis=1)
            return float(-np.log(np.maximum(chance, 1e-30)).mean(dtype=np.float64))

        best = minimize_scalar(loss, bounds=np.log(SCALES), method="bounded", options={"xatol": 0.03})
        return float(best.fun), float(np.exp(best.x)), bend

    return min(searched(bend) for bend in BENDS)[1:]


def _shares(logits: Scores, watched: Rows) -> Scores:
    masked = np.where(watched, np.float32(-np.inf), logits)
    found: Scores = np.exp(masked - masked.max(axis=1, keepdims=True))
    return found
