from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from matinee.models.gnn.cold import directions, from_content

GENERATOR = np.random.default_rng(0)
ATTRIBUTES = sparse.csr_matrix((GENERATOR.random((40, 12)) < 0.3).astype(np.float32))
VECTORS = GENERATOR.normal(size=(40, 3)).astype(np.float32)
WEIGHT = GENERATOR.gamma(2, 1, 40).astype(np.float32)


@given(ridge=st.floats(0.1, 1000))
def test_is_the_ridge_regression_in_closed_form(ridge: float) -> None:
    dense, weight = ATTRIBUTES.toarray().astype(np.float64), WEIGHT[:, None].astype(np.float64)
    mean = (weight * VECTORS).sum(0) / weight.sum()
    system = dense.T @ (weight * dense) + ridge * np.eye(12)
    expected = dense @ np.linalg.solve(system, dense.T @ (weight * (VECTORS - mean))) + mean
    np.testing.assert_allclose(from_content(ATTRIBUTES, VECTORS, WEIGHT, ridge), expected, atol=2e-3)


def test_titles_without_weight_teach_nothing() -> None:
    weight = np.where(np.arange(40) < 20, WEIGHT, 0).astype(np.float32)
    other = np.where(weight[:, None] > 0, VECTORS, 1e3).astype(np.float32)
    np.testing.assert_array_equal(
        from_content(ATTRIBUTES, VECTORS, weight, 1.0), from_content(ATTRIBUTES, other, weight, 1.0)
    )


def test_nothing_to_learn_from_gives_zeros() -> None:
    assert not from_content(ATTRIBUTES, VECTORS, np.zeros(40, np.float32), 1.0).any()


@pytest.mark.parametrize("count", [6, 12, 20])
def test_directions_are_those_of_the_exact_decomposition(count: int) -> None:
    found = directions(ATTRIBUTES, count, seed=0)
    assert found.shape == (40, count)
    rarity = np.log(40 / np.maximum(ATTRIBUTES.toarray().sum(0), 1))
    left, sizes, _ = np.linalg.svd(ATTRIBUTES.toarray() * rarity, full_matrices=False)
    kept = min(count, 12)
    expected = left[:, :kept] * sizes[:kept]
    np.testing.assert_allclose(found @ found.T, expected @ expected.T, atol=1e-2)


def test_a_catalogue_without_attributes_has_no_directions() -> None:
    assert not directions(sparse.csr_matrix((5, 0), dtype=np.float32), 3, seed=0).any()
