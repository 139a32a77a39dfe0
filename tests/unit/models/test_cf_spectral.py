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
    squares, vectors = np.linalg.eigh(gram / np.linalg.eigvalsh(gram)[-1])
    vectors, b = vectors[:, ::-1], config.spectral_title_exponent
    low = vectors[:, : config.spectral_rank] @ vectors[:, : config.spectral_rank].T
    low = power(by_title, -b)[:, None] * low * power(by_title, b)
    step = (vectors * sharpened(squares[::-1], config.spectral_sharpening)) @ vectors.T
    return r @ (gram / np.linalg.eigvalsh(gram)[-1] + config.spectral_ideal * low) @ step


def sharpened(eigenvalues: np.ndarray, length: float) -> np.ndarray:
    x = -length * eigenvalues
    return 1 + x + x**2 / 2 + x**3 / 6 + x**4 / 24


@pytest.mark.parametrize("shape", [(40, 25), (25, 40)])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"spectral_ideal": 0.0},
        {"spectral_member_exponent": 0.8, "spectral_title_exponent": 0.3},
        {"spectral_rank": 25, "spectral_sharpening": 2.5, "spectral_ideal": 2.0},
    ],
)
def test_filters_as_a_full_eigendecomposition_does(shape: tuple[int, int], changes: dict[str, float]) -> None:
    config = replace(SMALL, **changes)
    x = watched(0, *shape)
    np.testing.assert_allclose(
        spectral.fit(x, config, 0).score(x), dense(x, config), rtol=1e-3, atol=2e-4 * dense(x, config).max()
    )


def test_what_lies_beyond_the_vectors_is_sharpened_by_one_share() -> None:
    x, config = watched(0), replace(SMALL, spectral_sharpening=2.0, spectral_ideal=0.0)
    whole, found = dense(x, config), spectral.fit(x, config, 0).score(x)
    plain = dense(x, replace(config, spectral_sharpening=0.0))
    assert np.abs(found - whole).mean() < 0.2 * np.abs(plain - whole).mean()


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


@settings(max_examples=20)
@given(seed=st.integers(0, 10_000), order=st.permutations(range(25)))
def test_titles_in_another_order_score_the_same(seed: int, order: list[int]) -> None:
    x = watched(seed)
    config = replace(SMALL, spectral_ideal=0.0)
    scores = spectral.fit(x, config, 0).score(x)
    moved = spectral.fit(x[:, order], config, 0).score(x[:, order])
    np.testing.assert_allclose(moved, scores[:, order], rtol=1e-4, atol=1e-6)


@given(seed=st.integers(0, 10_000), scale=st.floats(0.1, 10))
@settings(max_examples=20)
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
    config = replace(CfConfig(method="spectral"), spectral_share=0.1)
    rough = spectral.fit(x, config, 0)
    exact = spectral.fit(x, replace(config, spectral_iterations=0), 0)
    assert rough.into.shape == exact.into.shape
    assert not np.allclose(rough.into @ rough.out.T, exact.into @ exact.out.T, atol=1e-3)


def test_a_small_graph_lends_no_more_vectors_than_its_share() -> None:
    config = replace(SMALL, spectral_share=0.1)
    assert spectral.fit(watched(1), config, 0).into.shape == (25, 3)
