"""Masks and the best k, against the plain sort they stand for."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from matinee.schema import CATALOGUE_SCHEMA, Catalogue
from matinee.serving.rank import Filters, Titles, candidates, top_k

NOW = 1_700_000_000_000_000
ROWS = [
    ("t0", "Alpha", ["Drama"], "en", 18),
    ("t1", "Beta", ["Drama", "Comedy"], "fr", 7),
    ("t2", "Gamma", [], None, None),
    ("t3", "Delta", ["Comedy"], "en", 0),
]


@pytest.fixture
def titles() -> Titles:
    rows = [
        {
            "title_id": title_id,
            "name": name,
            "genres": genres,
            "release_date": None,
            "language": language,
            "maturity": maturity,
            "cast": [],
            "keywords": [],
        }
        for title_id, name, genres, language, maturity in ROWS
    ]
    return Titles(Catalogue(table=pa.Table.from_pylist(rows, schema=CATALOGUE_SCHEMA)))


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        (Filters(), [0, 1, 2, 3]),
        (Filters(max_maturity=17), [1, 3]),
        (Filters(max_maturity=18), [0, 1, 3]),
        (Filters(languages=["en"]), [0, 3]),
        (Filters(languages=["en", "fr"]), [0, 1, 3]),
        (Filters(genres=["Comedy"]), [1, 3]),
        (Filters(genres=["Comedy", "Drama"], languages=["fr"]), [1]),
        (Filters(genres=["Opera"]), []),
    ],
)
def test_a_title_must_pass_every_filter(titles: Titles, filters: Filters, expected: list[int]) -> None:
    assert np.flatnonzero(titles.allowed(filters, NOW)).tolist() == expected


def test_a_mask_is_the_callers_to_change(titles: Titles) -> None:
    titles.allowed(Filters(genres=["Comedy"]), NOW)[:] = False
    assert titles.allowed(Filters(genres=["Comedy"]), NOW).sum() == 2


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=1, max_size=60), st.integers(1, 70))
def test_top_k_is_a_stable_sort_of_what_is_allowed(rows: list[tuple[int, bool]], k: int) -> None:
    scores = np.array([score for score, _ in rows], dtype=np.float32)
    allowed = np.array([good for _, good in rows])
    plain = sorted(np.flatnonzero(allowed), key=lambda position: (-scores[position], position))[:k]
    assert top_k(scores, allowed, k).tolist() == plain


def test_candidates_carry_score_and_parts(titles: Titles) -> None:
    scores = np.array([0, 3, 1, 2], dtype=np.float32)
    parts = {"cf": scores * 0.25, "dnn": scores * 0.75}
    order = np.array([1, 3])
    shares = {name: values[order] for name, values in parts.items()}
    found = candidates(titles, order, scores[order], shares)
    assert [candidate.title_id for candidate in found] == ["t1", "t3"]
    assert found[0].score == sum(found[0].contributions.values()) == 3.0
    assert found[1].contributions == {"cf": 0.5, "dnn": 1.5}
