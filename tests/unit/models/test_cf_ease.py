from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from matinee.models.cf import ease
from matinee.models.cf.config import CfConfig


def watched(seed: int, members: int = 40, titles: int = 12) -> sparse.csr_matrix:
    return sparse.csr_matrix((np.random.default_rng(seed).random((members, titles)) < 0.3).astype(np.float32))


@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_weights_are_each_titles_ridge_regression_on_the_others(dropout: float) -> None:
    config = CfConfig(ease_regularisation=3.0, ease_dropout=dropout)
    x = watched(0).toarray().astype(np.float64)
    found = ease.fit(sparse.csr_matrix(x, dtype=np.float32), config).weights
    assert not found.diagonal().any()
    penalty = 3.0 + dropout / (1 - dropout) * (x * x).sum(0)
    for title in range(12):
        others = np.delete(np.arange(12), title)
        system = x[:, others].T @ x[:, others] + np.diag(penalty[others])
        expected = np.linalg.solve(system, x[:, others].T @ x[:, title])
        np.testing.assert_allclose(found[others, title], expected, rtol=1e-5, atol=1e-7)


@settings(max_examples=20)
@given(seed=st.integers(0, 10_000), order=st.permutations(range(12)))
def test_titles_in_another_order_score_the_same(seed: int, order: list[int]) -> None:
    x = watched(seed)
    scores = ease.fit(x, CfConfig()).score(x)
    moved = ease.fit(x[:, order], CfConfig()).score(x[:, order])
    np.testing.assert_allclose(moved, scores[:, order], rtol=1e-4, atol=1e-6)
