from __future__ import annotations

import numpy as np
from contracts.model_contract import catalogue

from matinee.models.content import Scaling, relations
from matinee.schema import Features


def test_relations_leave_nulls_out() -> None:
    found = {relation.name: relation for relation in relations(catalogue())}
    assert set(found) == {"genre", "language", "maturity", "decade", "cast"}
    assert not set(found["language"].title.tolist()) & set(range(0, 48, 3))
    assert found["decade"].values[0] == "1960s"


def test_scaling_centres_known_values_and_puts_unknown_at_zero() -> None:
    values = np.array([[1, 5], [3, np.nan], [9, 5]], dtype=np.float32)
    features = Features(names=["a", "b"], values=values)
    scaled = Scaling.measure(features).apply(features, 3)
    np.testing.assert_allclose(scaled[:, 0].mean(), 0, atol=1e-6)
    np.testing.assert_array_equal(scaled[:, 1], 0)


def test_scaling_of_no_features_is_zero_in_every_name() -> None:
    scaling = Scaling.measure(Features(names=["a"], values=np.array([[1], [2]], dtype=np.float32)))
    np.testing.assert_array_equal(scaling.apply(None, 4), np.zeros((4, 1)))
