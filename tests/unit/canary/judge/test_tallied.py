"""Occurrences beside counts of every pair, and which rows they are right for."""

from __future__ import annotations

import numpy as np
import pytest
from every_pair import by_pairs, by_values
from hypothesis import given, settings
from hypothesis import strategies as st

from matinee.canary.judge.ranks import Ranks
from matinee.canary.judge.rows import Rows
from matinee.canary.judge.tallied import tallies, tally

WHOLE = st.lists(st.integers(-4, 4), min_size=5, max_size=9)


def row(*values: float) -> np.ndarray:
    return np.array([values], np.float64)


@settings(max_examples=300)
@given(WHOLE, WHOLE, st.sampled_from([0, -7, 2**31 - 8, 8 - 2**31]), st.floats(-0.49, 0.49))
def test_a_tally_is_every_pair(x: list[int], y: list[int], start: int, shift: float) -> None:
    left, right = ([float(start + value) for value in side] for side in (x, y))
    assert tallies(row(*left), row(*right)).all()
    found = tally(row(*left), row(*right))
    assert (found.u[0], found.ties[0]) == (by_pairs(left, right), by_values(left + right))
    assert found.least[0] <= by_pairs(left, right, shift) <= found.most[0]


@pytest.mark.parametrize(
    ("x", "y", "fit"),
    [
        ((0, 1, 2), (3, 4, 5), True),
        ((0, 1, 2), (3, 4, 6), False),
        ((-0.0, 1, 2), (0, -1, 2), True),
        ((0, 1, 2), (0, 1, 1.5), False),
        ((0, 1, 2 + 2**-51), (0, 1, 2), False),
        ((0.5, 1, 2), (0, 1, 2), False),
        ((2**31, 2**31, 2**31), (2**31, 2**31, 2**31), False),
        ((np.inf, 1, 2), (0, 1, 2), False),
        ((np.inf, np.inf, np.inf), (np.inf, np.inf, np.inf), False),
        ((-np.inf, 1, 2), (np.inf, 1, 2), False),
    ],
)
def test_rows_that_a_tally_is_right_for(x: tuple[float, ...], y: tuple[float, ...], fit: bool) -> None:
    assert tallies(row(*x), row(*y)).tolist() == [fit]


def test_rows_of_every_kind_side_by_side() -> None:
    draw = np.random.default_rng(0)
    few, many = draw.poisson(5, (2, 3, 40)) - 7.0, draw.integers(0, 10**6, (2, 3, 40)).astype(float)
    experiment, control = np.concatenate([few, draw.normal(size=(2, 3, 40)), many], axis=1)
    order = draw.permutation(len(control))
    found = Ranks(Rows(experiment[order]), Rows(control[order])).superiority()
    pairs = [by_pairs(experiment[place].tolist(), control[place].tolist()) for place in order]
    assert found.tolist() == (np.array(pairs) / 40**2).tolist()
