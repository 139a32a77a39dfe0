from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from matinee.models.cf import spectral
from matinee.models.cf.config import CfConfig, gfcf

SMALL = replace(gfcf(), spectral_rank=5)


def watched(seed: int, members: int = 40, titles: int = 25) -> sparse.csr_matrix:
    """The last title is never watched, nor does the last member watch."""
    x = (np.random.default_rng(seed).random((members, titles)) < 0.25).astype(np.float32)
    x[:, -1] = x[-1] = 0
    return sparse.csr_matrix(x)


def dense(x: sparse.csr_matrix, config: CfConfig) -> np.ndarray:
    """The filter by a full eigendecomposition, float64 [members, titles]."""
    r = x.toarray().astype(np.float64)

    def power(counts: np.ndarray, exponent: float) -> np.ndarray:
        return np.array([count**exponent if count else 0.0 for count in counts])

    by_title = r.sum(0)
    normalised = (
        power(r.sum(1), -config.spectral_member_exponent)[:, None]
        * r
        * power(by_title, -config.spectral_title_exponent)
    )
    gram = normalised.T @ normalised
    squares, vectors = np.linalg.eigh(gram)
    squares, vectors = squares[::-1][: config.spectral_rank], vectors[:, ::-1][:, : config.spectral_rank]
    shares = np.sqrt(squares / squares[0]) ** config.spectral_smoothness
    low = (vectors * shares) @ vectors.T
    b = config.spectral_title_exponent
    low = power(by_title, -b)[:, None] * low * power(by_title, b)
    both = config.spectral_linear * gram + config.spectral_ideal * low
    return r @ both * power(by_title, config.spectral_post_exponent)


@pytest.mark.parametrize("shape", [(40, 25), (25, 40)])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"spectral_linear": 0.0},
        {"spectral_ideal": 0.0},
        {"spectral_member_exponent": 0.8, "spectral_title_exponent": 0.3, "spectral_post_exponent": -0.2},
        {"spectral_smoothness": 1.5, "spectral_ideal": 2.0},
    ],
)
def test_filters_as_a_full_eigendecomposition_does(shape: tuple[int, int], changes: dict[str, float]) -> None:
    config = replace(SMALL, **changes)
    x = watched(0, *shape)
    np.testing.assert_allclose(
        spectral.fit(x, config, 0).score(x), dense(x, config), rtol=1e-3, atol=2e-4 * dense(x, config).max()
    )


def test_leading_singular_vectors_of_a_larger_graph() -> None:
    matrix = sparse.random(700, 900, density=0.02, format="csr", dtype=np.float32, random_state=0)
    values, vectors = spectral.leading(matrix, 20, seed=0)
    _, expected, right = np.linalg.svd(matrix.toarray())
    np.testing.assert_allclose(values, expected[:20], rtol=2e-3)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(20), atol=1e-4)
    assert np.square(right[:10] @ vectors).sum() > 9.99


def test_fewer_vectors_where_the_graph_has_no_more() -> None:
    twice = sparse.csr_matrix(np.tile(np.eye(3, dtype=np.float32), (4, 2)))
    values, vectors = spectral.leading(twice, 5, seed=0)
    np.testing.assert_allclose(values, np.sqrt([8, 8, 8]), rtol=1e-5)
    assert vectors.shape == (6, 3)


def test_a_title_keeps_its_nearest_neighbours() -> None:
    x = watched(1)
    every = spectral.fit(x, SMALL, 0).near.toarray()
    some = spectral.fit(x, replace(SMALL, spectral_neighbours=4), 0).near.toarray()
    for whole, kept in zip(every, some, strict=True):
        expected = np.where(whole >= np.sort(whole)[-4], whole, 0)
        np.testing.assert_allclose(kept.sum(), np.sort(whole)[-4:].sum(), rtol=1e-6)
        assert np.isin(np.flatnonzero(kept), np.flatnonzero(expected)).all()


def test_no_watches_give_no_scores() -> None:
    nothing = sparse.csr_matrix((0, 6), dtype=np.float32)
    rows = sparse.csr_matrix(np.ones((2, 6), dtype=np.float32))
    assert not spectral.fit(nothing, SMALL, 0).score(rows).any()


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), order=st.permutations(range(25)))
def test_titles_in_another_order_score_the_same(seed: int, order: list[int]) -> None:
    x = watched(seed)
    config = replace(SMALL, spectral_ideal=0.0)
    scores = spectral.fit(x, config, 0).score(x)
    moved = spectral.fit(x[:, order], config, 0).score(x[:, order])
    np.testing.assert_allclose(moved, scores[:, order], rtol=1e-4, atol=1e-6)


@given(seed=st.integers(0, 10_000), scale=st.floats(0.1, 10))
@settings(max_examples=20, deadline=None)
def test_scores_are_linear_in_the_history(seed: int, scale: float) -> None:
    x = watched(seed)
    found = spectral.fit(x, SMALL, 0)
    summed = found.score(x[:1] * scale + x[1:2])
    np.testing.assert_allclose(
        summed, scale * found.score(x[:1]) + found.score(x[1:2]), rtol=1e-3, atol=1e-4 * (1 + scale)
    )


def test_many_iterations_reach_the_exact_vectors_and_few_stay_orthonormal() -> None:
    normalised = sparse.csr_matrix(watched(3, members=120, titles=80))
    values, vectors = spectral.leading(normalised, 6, seed=0)
    again, found = spectral.nearly_leading(normalised, 6, iterations=60, seed=0)
    np.testing.assert_allclose(again, values, rtol=1e-4)
    np.testing.assert_allclose(found @ found.T, vectors @ vectors.T, atol=1e-3)
    _, rough = spectral.nearly_leading(normalised, 6, iterations=1, seed=0)
    np.testing.assert_allclose(rough.T @ rough, np.eye(6), atol=1e-4)


def test_the_default_filter_takes_few_iterations() -> None:
    x = watched(5, members=300, titles=200)
    config = replace(CfConfig(method="spectral"), spectral_rank=20)
    rough = spectral.fit(x, config, 0)
    exact = spectral.fit(x, replace(config, spectral_iterations=0), 0)
    assert rough.into.shape == exact.into.shape
    assert not np.allclose(rough.into @ rough.out.T, exact.into @ exact.out.T, atol=1e-3)


def test_balanced_filters_weigh_alike_for_every_member() -> None:
    x = watched(7, members=60, titles=50)
    config = replace(CfConfig(method="spectral"), spectral_rank=8, spectral_ideal=0.5, spectral_iterations=0)
    both = spectral.fit(x, config, 0).score(x)
    linear = spectral.fit(x, replace(config, spectral_ideal=0.0), 0).score(x)
    low = spectral.fit(x, replace(config, spectral_linear=0.0), 0).score(x)

    def scaled(part: np.ndarray) -> np.ndarray:
        size = np.sqrt((part**2).mean(1, keepdims=True))
        return np.divide(part, size, out=np.zeros_like(part), where=size > 0)

    np.testing.assert_allclose(both, scaled(linear) + 0.5 * scaled(low), atol=1e-3)
    assert not both[-1].any()
