from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from matinee.serving.vector_index import VectorIndex, cells

DRAW = np.random.default_rng(0)
CENTRES = DRAW.normal(size=(40, 16)).astype(np.float32)
VECTORS = (CENTRES[DRAW.integers(0, 40, 6_000)] + DRAW.normal(0, 0.4, (6_000, 16))).astype(np.float32)
PASSING, CELLED = VectorIndex(VECTORS), VectorIndex(VECTORS, scanned=0)


@pytest.mark.parametrize("index", [PASSING, CELLED], ids=["passing over all", "cells"])
def test_it_finds_nearly_all_of_the_largest(index: VectorIndex) -> None:
    queries = VECTORS[::600] + DRAW.normal(0, 0.3, (10, 16)).astype(np.float32)
    for query in queries:
        found, products = index.largest(query, 100, np.ones(6_000, dtype=bool))
        best = np.argsort(-(VECTORS @ query))[:50]
        assert np.isin(best, found).mean() >= 0.9
        assert (np.diff(products) <= 0).all()
        np.testing.assert_allclose(products, VECTORS[found] @ query, atol=0.5)


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.001, 0.02, 0.3, 0.9]), st.booleans())
def test_nothing_is_found_that_is_not_allowed(seed: int, share: float, celled: bool) -> None:
    draw = np.random.default_rng(seed)
    allowed = draw.random(6_000) < share
    found, _ = (CELLED if celled else PASSING).largest(draw.normal(size=16).astype(np.float32), 200, allowed)
    assert allowed[found].all()
    assert len(set(found.tolist())) == len(found)


def test_of_few_allowed_all_are_met() -> None:
    allowed = np.zeros(6_000, dtype=bool)
    allowed[::100] = True
    for index in (PASSING, CELLED):
        found, _ = index.largest(CENTRES[0], 100, allowed)
        assert sorted(found.tolist()) == np.flatnonzero(allowed).tolist()


def test_the_same_seed_gives_the_same_index() -> None:
    again = VectorIndex(VECTORS, scanned=0)
    everything = np.ones(6_000, dtype=bool)
    for query in CENTRES[:5]:
        assert (
            again.largest(query, 50, everything)[0].tolist()
            == CELLED.largest(query, 50, everything)[0].tolist()
        )


def test_cells_grow_with_the_square_root() -> None:
    assert [cells(count) for count in (1, 2, 100, 100_000, 400_000, 1_000_000)] == [1, 2, 16, 512, 1024, 2048]
