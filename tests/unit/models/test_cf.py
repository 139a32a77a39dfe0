from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from contracts.model_contract import START, ModelContract, hit_rate, training_set
from scipy import sparse

from matinee.models.base import Model, Query
from matinee.models.cf import SPEC
from matinee.models.cf.config import CfConfig
from matinee.models.cf.model import solve
from matinee.models.popularity.config import PopularityConfig
from matinee.models.popularity.model import Popularity


class TestCf(ModelContract):
    def build(self) -> Model:
        return SPEC.model(replace(SPEC.presets["test"], recent_half_life=1.0))

    def test_beats_popularity(self) -> None:
        popularity = Popularity(PopularityConfig())
        popularity.fit(training_set(), seed=0)
        assert hit_rate(self.fitted(), training_set()) > 1.5 * hit_rate(popularity, training_set())


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


def test_late_titles_of_a_history_weigh_more() -> None:
    model = TestCf().fitted()
    first, last = np.arange(3, dtype=np.int32), np.arange(22, 25, dtype=np.int32)
    asked = Query(
        histories=[np.concatenate([first, last]), np.concatenate([last, first])],
        times=[START + np.arange(6, dtype=np.int64)] * 2,
        now=np.full(2, START + 9, dtype=np.int64),
    )
    ends_late, ends_early = model.score(asked)[:, 25] - model.score(asked)[:, 3]
    assert ends_late > ends_early
    whole = model.signals(asked)["whole"]
    np.testing.assert_allclose(whole[0], whole[1], rtol=1e-3, atol=1e-5)
