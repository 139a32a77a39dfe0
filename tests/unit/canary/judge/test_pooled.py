"""Counts of one sort beside counts of every pair."""

from __future__ import annotations

import numpy as np
import pytest
from every_pair import by_pairs, by_values
from hypothesis import given, settings
from hypothesis import strategies as st

from matinee.canary.judge.pooled import Counted, count

NEXT = float(np.nextafter(1.0, 2.0))
"""One and this differ by the bit that is given up."""
VALUES = st.sampled_from([-2.0, -1.0, -0.0, 0.0, 5e-324, 0.5, 1.0, NEXT, 1.1, 2.0])
SAMPLES = st.lists(VALUES, min_size=1, max_size=9)


def counted(x: list[float], y: list[float], off: float | None = None) -> Counted:
    return count(np.array([x]), np.array([y]), None if off is None else np.array([off]))


@settings(max_examples=300)
@given(SAMPLES, SAMPLES)
def test_what_is_called_exact_is(x: list[float], y: list[float]) -> None:
    found = counted(x, y)
    if found.exact[0]:
        assert (found.u[0], found.ties[0]) == (by_pairs(x, y), by_values(x + y))


@settings(max_examples=300)
@given(SAMPLES, SAMPLES, st.sampled_from([1e-4, 0.3, 1.0]), st.floats(-1, 1))
def test_no_shift_within_reach_goes_beyond_the_bounds(
    x: list[float], y: list[float], off: float, share: float
) -> None:
    found = counted(x, y, off)
    if found.exact[0]:
        assert found.least[0] <= by_pairs(x, y, share * off) <= found.most[0]


@pytest.mark.parametrize(
    ("x", "y", "exact"),
    [
        ([1.0, 2.0], [2.0, 3.0], True),
        ([-1.0, -2.0], [-2.0, -3.0], True),
        ([0.0], [-0.0], True),
        ([0.1, 0.7], [0.2, 0.3], True),
        ([1.0], [NEXT], False),
        ([NEXT], [NEXT], False),
    ],
)
def test_a_lost_bit_is_told(x: list[float], y: list[float], exact: bool) -> None:
    assert bool(counted(x, y).exact[0]) is exact


def test_whole_numbers_and_continuous_values_are_exact_row_by_row() -> None:
    draw = np.random.default_rng(0)
    whole = draw.poisson(5, (2, 4, 50)) - 3.0
    free = draw.normal(size=(2, 4, 50))
    found = count(*np.concatenate([whole, free], axis=1))
    assert found.exact.all()
    for row, (x, y) in enumerate(zip(*np.concatenate([whole, free], axis=1), strict=True)):
        assert found.u[row] == by_pairs(x.tolist(), y.tolist())
        assert found.ties[row] == by_values([*x.tolist(), *y.tolist()])
