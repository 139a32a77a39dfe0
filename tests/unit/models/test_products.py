"""A few titles of a standardised product score as they do among all."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from matinee.models.ensemble.weights import standardised
from matinee.models.products import Moments, Product, silent

MEMBERS, TITLES, WIDTH = 3, 60, 5


def drawn(seed: int, titles: np.ndarray, *, extra: bool) -> Product:
    draw = np.random.default_rng(seed)
    beside = None
    if extra:
        beside = sparse.random(MEMBERS, TITLES, 0.2, "csr", rng=draw, data_rvs=draw.standard_normal)
        beside = sparse.csr_matrix(beside, dtype=np.float32)
    return Product(
        vectors=draw.normal(size=(MEMBERS, WIDTH)).astype(np.float32),
        offset=draw.normal(size=MEMBERS).astype(np.float32),
        extra=beside,
        lean=None if beside is None else beside @ titles,
    )


def vectors(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(1, 2, (TITLES, WIDTH)).astype(np.float32)


def full(product: Product, titles: np.ndarray) -> np.ndarray:
    found = product.vectors @ titles.T + product.offset[:, None]
    return found if product.extra is None else found + product.extra.toarray()


@given(st.integers(0, 2**32 - 1), st.booleans(), st.lists(st.integers(0, TITLES - 1), max_size=9))
def test_standardised_titles_score_as_in_a_full_pass(seed: int, extra: bool, some: list[int]) -> None:
    titles = vectors(seed)
    product = drawn(seed, titles, extra=extra)
    weight = np.array([0.5, 2, 0], np.float32)
    positions = np.array(some, dtype=np.intp)
    found = Moments.of(titles).standardised(product, weight).at(titles, positions)
    expected = standardised(full(product, titles)) * weight[:, None]
    np.testing.assert_allclose(found, expected[:, positions], atol=2e-4)


@given(st.integers(0, 2**32 - 1), st.booleans(), st.booleans())
def test_sums_and_members_of_products_are_those_of_signals(seed: int, extra: bool, other: bool) -> None:
    titles = vectors(seed)
    one, two = drawn(seed, titles, extra=extra), drawn(seed + 1, titles, extra=other)
    everything = np.arange(TITLES)
    both = one + two
    np.testing.assert_allclose(both.at(titles, everything), full(one, titles) + full(two, titles), atol=1e-4)
    np.testing.assert_allclose(both[1].at(titles, everything)[0], both.at(titles, everything)[1], atol=1e-5)
    if both.extra is not None:
        np.testing.assert_allclose(both.lean, both.extra @ titles, atol=1e-4)


def test_what_does_not_vary_is_zero() -> None:
    titles = vectors(0)
    product = silent(MEMBERS, WIDTH)
    constant = product.scaled(np.ones(MEMBERS, np.float32), np.full(MEMBERS, 7, np.float32))
    found = Moments.of(titles).standardised(constant, np.ones(MEMBERS, np.float32))
    assert not found.at(titles, np.arange(TITLES)).any()


def test_moments_of_many_blocks_are_those_of_all() -> None:
    titles = np.random.default_rng(0).normal(3, 1, (40_000, 4)).astype(np.float32)
    moments = Moments.of(titles)
    np.testing.assert_allclose(moments.mean, titles.mean(0), atol=1e-4)
    np.testing.assert_allclose(moments.covariance, np.cov(titles.T, bias=True), atol=1e-3)
