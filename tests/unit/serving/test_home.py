"""Pages hold their laws whatever the scores: nothing twice, nothing that rules forbid, rows with reasons."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import served_home
from hypothesis import given
from hypothesis import strategies as st

from matinee.models import popularity
from matinee.models.base import Scores
from matinee.models.bundle import Bundle
from matinee.schema import CATALOGUE_SCHEMA, Catalogue
from matinee.serving import home
from matinee.serving.columns import Columns
from matinee.serving.home import Layout, Member, compose, diversified, intra_list_diversity
from matinee.serving.rank import Filters, Titles
from matinee.serving.scores import EveryTitle

GENRES = ("Action", "Comedy", "Drama", "Horror", "Romance")
TODAY = 20_000
NOW = TODAY * 86_400_000_000


def catalogue(count: int) -> Catalogue:
    """Titles of one to three genres, maturity 0, 7, 16, 18 or unknown, one released a day."""
    rows = [
        {
            "title_id": f"t{i}",
            "name": f"Title {i}",
            "genres": [GENRES[j % 5] for j in range(i, i + 1 + i % 3)],
            "release_date": TODAY - count + i,
            "language": ("en", "fr")[i % 2],
            "maturity": (0, 7, 16, 18, None)[i // 2 % 5],
            "cast": [],
            "keywords": [],
        }
        for i in range(count)
    ]
    columns = {name: [row[name] for row in rows] for name in CATALOGUE_SCHEMA.names}
    columns["release_date"] = pa.array(columns["release_date"], pa.int32()).cast(pa.date32())
    return Catalogue(table=pa.table(columns).cast(CATALOGUE_SCHEMA))


def made(catalogue: Catalogue) -> tuple[Titles, Columns]:
    model = popularity.SPEC.model(popularity.SPEC.presets["default"])
    bundle = Bundle(name="popularity", model=model, catalogue=catalogue, positions={})
    titles = Titles(catalogue)
    return titles, Columns(bundle, titles)


TITLES, COLUMNS = made(catalogue(300))


def shown(rows: list[home.Row]) -> list[int]:
    return [position for row in rows for position in row.titles.tolist()]


@given(
    st.integers(0, 2**32 - 1),
    st.one_of(st.none(), st.integers(0, 20)),
    st.sampled_from([(), ("en",), ("fr", "en")]),
    st.lists(st.integers(0, 299), unique=True, max_size=80),
    st.integers(1, 14),
    st.integers(1, 30),
    st.floats(0, 1),
)
def test_no_profile_sees_what_its_rules_forbid_and_nothing_stands_twice(
    seed: int,
    age: int | None,
    languages: tuple[str, ...],
    watched: list[int],
    rows: int,
    per_row: int,
    diversity: float,
) -> None:
    """Maturity that is unknown fails: a children's page shows only what somebody rated for it."""
    random = np.random.default_rng(seed)
    scores = random.normal(size=300).astype(np.float32)
    member = Member(
        watched=np.array(watched, dtype=np.int32),
        begun=watched[::3],
        affinity=dict(zip(GENRES, random.random(5).tolist(), strict=True)),
    )
    page = compose(
        EveryTitle(values=scores),
        TITLES.allowed(Filters(max_maturity=age, languages=languages), NOW),
        member,
        COLUMNS,
        Layout(rows=rows, per_row=per_row, diversity=diversity),
        today=TODAY,
        trend=random.random(300).astype(np.float32),
    )
    found = shown(page)
    assert len(found) == len(set(found))
    assert len(page) <= rows
    told = found + [row.because for row in page if row.because is not None]
    for position in told:
        maturity = (0, 7, 16, 18, None)[position // 2 % 5]
        assert age is None or (maturity is not None and maturity <= age)
        assert not languages or ("en", "fr")[position % 2] in languages
    for row in page:
        assert 0 < len(row.titles) <= per_row
        assert row.diversity == pytest.approx(plain_diversity(row.titles), abs=1e-5)
        if row.kind == home.CONTINUE:
            assert set(row.titles.tolist()) <= set(watched)
            continue
        assert not set(row.titles.tolist()) & set(watched)
        assert scores[row.titles].tolist() == sorted(scores[row.titles].tolist(), reverse=True)
        if row.kind == home.GENRE:
            assert (COLUMNS.genres[row.titles, COLUMNS.genre_names.index(str(row.genre))] > 0).all()


def plain_diversity(titles: home.Positions) -> float:
    pairs = [
        1 - float(COLUMNS.genres[a] @ COLUMNS.genres[b])
        for i, a in enumerate(titles)
        for b in titles[i + 1 :]
    ]
    return float(np.mean(pairs)) if pairs else 0.0


def test_every_kind_of_row_is_there_with_its_reason() -> None:
    random = np.random.default_rng(0)
    page = compose(
        EveryTitle(values=random.normal(size=300).astype(np.float32)),
        TITLES.allowed(Filters(), NOW),
        Member(watched=np.array([5, 9, 2], np.int32), begun=[2], affinity={"Horror": 9.0, "Drama": 1.0}),
        COLUMNS,
        Layout(rows=9, per_row=6),
        today=TODAY,
        trend=np.arange(300, dtype=np.float32),
    )
    assert [row.kind for row in page] == [
        home.CONTINUE,
        home.TOP,
        *[home.BECAUSE] * 3,
        *[home.GENRE] * 2,
        home.NEW,
        home.TRENDING,
    ]
    assert page[0].titles.tolist() == [2]
    assert [row.because for row in page[2:5]] == [2, 9, 5]
    assert page[5].genre == "Horror"
    assert min(page[-2].titles) >= 285
    assert min(page[-1].titles) >= 250


def test_a_title_that_is_not_out_yet_is_not_new() -> None:
    page = compose(
        EveryTitle(values=np.zeros(300, np.float32)),
        TITLES.allowed(Filters(), NOW),
        Member(watched=np.zeros(0, np.int32)),
        COLUMNS,
        Layout(rows=30, per_row=3),
        today=TODAY - 100,
    )
    (new,) = [row for row in page if row.kind == home.NEW]
    assert max(new.titles) <= 200


@given(st.integers(0, 2**32 - 1), st.integers(2, 40), st.integers(1, 50))
def test_a_row_takes_each_title_once_and_the_best_first(seed: int, n: int, k: int) -> None:
    random = np.random.default_rng(seed)
    scores = -np.sort(-random.normal(size=n)).astype(np.float32)
    for weight in (0.0, 0.3, 1.0):
        taken = diversified(scores, COLUMNS.genres[random.choice(300, n)], k, weight).tolist()
        assert taken == sorted(set(taken))
        assert len(taken) == min(n, k)
        assert taken[0] == 0
        assert weight or taken == list(range(min(n, k)))


def test_more_weight_makes_rows_more_diverse_at_a_cost_in_score() -> None:
    """Means over 200 rows: each step of the weight adds diversity and takes score."""
    random = np.random.default_rng(1)
    found = []
    for weight in (0.0, 0.2, 0.5, 0.8):
        rows = []
        for _ in range(200):
            scores = -np.sort(-random.normal(size=60)).astype(np.float32)
            genres = COLUMNS.genres[random.choice(300, 60, replace=False)]
            taken = diversified(scores, genres, 15, weight)
            rows.append((intra_list_diversity(genres[taken]), scores[taken].mean()))
        found.append(np.mean(rows, axis=0))
    diversity, score = np.array(found).T
    assert (np.diff(diversity) > 0).all()
    assert (np.diff(score) < 0).all()


def test_neighbours_by_content_share_genres() -> None:
    assert COLUMNS.alike_by == "content"
    near = COLUMNS.neighbours(7)
    assert 7 not in near
    assert (COLUMNS.genres[near[:10]] @ COLUMNS.genres[7] > 0.5).all()
    alike = COLUMNS.similarity(7)[near]
    assert (np.diff(alike) <= 0).all()


def test_alike_by_watches_and_by_embeddings() -> None:
    from matinee.models import cf
    from matinee.models.base import TrainingSet

    model = cf.SPEC.model(cf.SPEC.presets["default"])
    data = TrainingSet(interactions=served_home.interactions(), catalogue=served_home.catalogue())
    model.fit(data, seed=0)

    class Placed(type(model)):  # type: ignore[misc]
        def embeddings(self) -> Scores:
            return np.eye(served_home.TITLES, dtype=np.float32)

    titles = Titles(data.catalogue)
    bundle = Bundle(name="cf", model=model, catalogue=data.catalogue, positions={})
    by_watches = Columns(bundle, titles)
    assert by_watches.alike_by == "watches"
    assert len(set(by_watches.neighbours(0).tolist()) - {0}) == served_home.TITLES - 1
    model.__class__ = Placed
    by_vectors = Columns(bundle, titles)
    assert by_vectors.alike_by == "embeddings"
    assert by_vectors.similarity(3)[3] == 1


@given(st.lists(st.integers(0, 299), max_size=300), st.integers(TODAY - 310, TODAY))
def test_the_newest_are_the_latest_releases_that_are_free(taken: list[int], today: int) -> None:
    free = np.ones(300, dtype=bool)
    free[taken] = False
    out = free & (COLUMNS.released <= today)
    expected = sorted(np.flatnonzero(out), key=lambda position: (-COLUMNS.released[position], position))[:15]
    assert home._newest(COLUMNS, free, today).tolist() == expected
