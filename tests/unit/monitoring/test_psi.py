from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from matinee.monitoring.psi import psi

samples = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=80).map(np.array)


@given(samples, samples)
def test_is_never_negative_and_always_finite(reference: np.ndarray, current: np.ndarray) -> None:
    value = psi(reference, current)
    assert np.isfinite(value)
    assert value >= 0


@given(samples, st.integers(1, 4))
def test_depends_on_shares_and_not_on_order(reference: np.ndarray, seed: int) -> None:
    shuffled = np.random.default_rng(seed).permutation(reference)
    assert psi(reference, shuffled) == pytest.approx(0, abs=1e-12)


def test_equals_the_formula_by_hand() -> None:
    reference = np.repeat([0.0, 1.0], [75, 25])
    current = np.repeat([0.0, 1.0], [25, 75])
    p = (np.array([75, 25, 0]) + 0.5) / 101.5
    q = (np.array([25, 75, 0]) + 0.5) / 101.5
    assert psi(reference, current) == pytest.approx(np.sum((q - p) * np.log(q / p)))


def test_of_one_distribution_stays_where_theory_puts_it() -> None:
    generator = np.random.default_rng(0)
    values = [psi(generator.normal(size=1000), generator.normal(size=500)) for _ in range(200)]
    assert np.mean(values) == pytest.approx(9 * (1 / 1000 + 1 / 500), rel=0.15)


def test_one_outlier_does_not_hide_a_shift() -> None:
    generator = np.random.default_rng(0)
    shifted = generator.normal(1, size=500)
    shifted[0] = 1e12
    assert psi(generator.normal(size=5000), shifted) > 0.5


def test_a_value_never_seen_counts() -> None:
    assert psi(np.zeros(500), np.ones(500)) > 5
    assert psi(np.zeros(500), np.zeros(500)) == pytest.approx(0)


def test_a_reference_mostly_of_one_value_still_tells() -> None:
    mostly = np.concatenate([np.zeros(900), np.arange(1, 101)])
    assert psi(mostly, mostly.copy()) == pytest.approx(0)
    assert psi(mostly, np.arange(1.0, 101)) > 1
