from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from contracts.model_contract import TITLES, query, training_set
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from matinee.models.content import attribute_matrix, relations
from matinee.models.gnn import SPEC
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


def test_content_stands_for_titles_without_watches_and_for_no_other() -> None:
    data = training_set()
    watched = np.bincount(data.interactions.title, minlength=len(data.catalogue)) > 0
    asked = query(data)
    scores = []
    for ridge in (1.0, 1e9):
        model = SPEC.model(replace(SPEC.presets["test"], steps=5, content_ridge=ridge, content_watches=0.0))
        model.fit(data, seed=0)
        scores.append(model.score(asked))
    # The members' vectors come of watched titles, so these score alike whatever content says.
    np.testing.assert_allclose(scores[0][:, watched], scores[1][:, watched], rtol=1e-5, atol=1e-6)
    assert not np.allclose(scores[0][:, ~watched], scores[1][:, ~watched], atol=1e-4)


def test_only_titles_with_attributes_are_pulled_to_where_those_lead() -> None:
    data = training_set()
    told = np.diff(attribute_matrix(relations(data.catalogue), TITLES).indptr) > 0
    vectors = []
    for watches in (0.0, 1e9):
        model = SPEC.model(replace(SPEC.presets["test"], steps=5, embedding=16, content_watches=watches))
        model.fit(data, seed=0)
        vectors.append(model.embeddings())
    watched = np.bincount(data.interactions.title, minlength=TITLES) > 0
    assert (watched & ~told).any()
    moved = (vectors[0] != vectors[1]).any(axis=1)
    np.testing.assert_array_equal(moved, watched & told)
