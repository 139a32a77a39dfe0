"""Zeros of many functions, each to its tolerance."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from matinee.canary.judge.brent import zeros

TOLERANCE = 1e-4


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=8), st.floats(0.2, 5))
def test_every_zero_is_found(roots: list[float], power: float) -> None:
    wanted = np.array(roots)

    def falling(points: np.ndarray, which: np.ndarray) -> np.ndarray:
        off = wanted[which] - points
        return np.sign(off) * np.abs(off) ** power

    found = zeros(falling, wanted - 7.0, wanted + 50.0, TOLERANCE)
    assert np.abs(found - wanted).max() <= TOLERANCE


def test_without_a_change_of_sign_the_nearer_end_stands() -> None:
    found = zeros(lambda points, _: -points, np.array([1.0, -3.0]), np.array([2.0, -1.0]), TOLERANCE)
    assert found.tolist() == [1.0, -1.0]


def test_no_functions_have_no_zeros() -> None:
    assert len(zeros(lambda points, _: points, np.zeros(0), np.zeros(0), TOLERANCE)) == 0
