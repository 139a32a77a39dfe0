from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from matinee.models.cf.config import CfConfig
from matinee.models.cf.ials import solve


@pytest.mark.parametrize("block", [1, 3, 512])
def test_a_solve_is_the_ridge_regression_of_each_row(block: int) -> None:
    generator = np.random.default_rng(0)
    other = generator.normal(size=(30, 4)).astype(np.float32)
    rows = sparse.random(17, 30, density=0.3, random_state=1, format="csr", dtype=np.float32)
    config = CfConfig(factors=4, block=block, unobserved=0.2, regularisation=0.1)
    found = solve(rows, other, config)
    for row in range(17):
        weight = rows[row].toarray()[0]
        ridge = config.regularisation * (weight.sum() + config.unobserved * 30)
        system = (other.T * weight) @ other + config.unobserved * other.T @ other + ridge * np.eye(4)
        expected = np.linalg.solve(system, other.T @ weight) if weight.any() else np.zeros(4)
        np.testing.assert_allclose(found[row], expected, rtol=2e-3, atol=1e-4)
