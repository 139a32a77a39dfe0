"""Pages of a large catalogue: scores are those of a full pass, rules hold, and nothing good is missed."""

from __future__ import annotations

from functools import cache

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from matinee.models.base import Model, Query, Scores, TrainingSet
from matinee.models.bundle import Bundle
from matinee.models.cf.config import CfConfig
from matinee.models.cf.model import CollaborativeFiltering
from matinee.models.ensemble.config import EnsembleConfig
from matinee.models.ensemble.model import Ensemble
from matinee.models.ensemble.weights import SEGMENTS
from matinee.models.popularity.config import PopularityConfig
from matinee.models.popularity.model import Popularity
from matinee.schema import CATALOGUE_SCHEMA, Catalogue, Interactions
from matinee.serving import retrieval
from matinee.serving.columns import Columns
from matinee.serving.home import Layout, Member, compose
from matinee.serving.rank import Filters, Titles
from matinee.serving.recommender import Known, scored, scored_all
from matinee.serving.retrieval import Retrieved, Retriever, part_products
from matinee.serving.scores import EveryTitle
from matinee.serving.versions import Live

TITLES, MEMBERS, HOUR = 8_000, 300, 3_600_000_000
START = 1_700_000_000_000_000
NOW = START + 2_000 * HOUR
AGES = (0, 7, 12, 16, 18, None)
GENRES = tuple(f"Genre {i}" for i in range(12))


@cache
def catalogue() -> Catalogue:
    draw = np.random.default_rng(3)
    columns = {
        "title_id": [f"t{i}" for i in range(TITLES)],
        "name": [f"Title {i}" for i in range(TITLES)],
        "genres": [[GENRES[g] for g in draw.choice(12, 2, replace=False)] for _ in range(TITLES)],
        "release_date": pa.array(draw.integers(12_000, 19_000, TITLES), pa.int32()).cast(pa.date32()),
        "language": [("en", "fr")[i // 6 % 2] for i in range(TITLES)],
        "maturity": [AGES[i % 6] for i in range(TITLES)],
        "cast": [[]] * TITLES,
        "keywords": [[]] * TITLES,
    }
    return Catalogue(table=pa.table(columns).cast(CATALOGUE_SCHEMA))


@cache
def histories() -> list[np.ndarray]:
    """Each member stays within a twentieth of the titles, low ones more often."""
    draw = np.random.default_rng(5)
    part = TITLES // 20
    return [
        np.unique((draw.beta(0.6, 2, 30) * part).astype(np.int32) + member % 20 * part)
        for member in range(MEMBERS)
    ]


@cache
def ensemble() -> Ensemble:
    watched = histories()
    lengths = [len(history) for history in watched]
    order = np.argsort(np.concatenate([np.arange(length) for length in lengths]), kind="stable")
    data = TrainingSet(
        interactions=Interactions(
            member_ids=[f"m{i}" for i in range(MEMBERS)],
            title_ids=catalogue().title_ids,
            member=np.repeat(np.arange(MEMBERS, dtype=np.int32), lengths)[order],
            title=np.concatenate(watched)[order],
            time=START + np.arange(len(order)) * HOUR // 10,
            value=np.full(len(order), np.nan, np.float32),
        ),
        catalogue=catalogue(),
    )
    members: dict[str, Model] = {
        "popularity": Popularity(PopularityConfig()),
        "cf": CollaborativeFiltering(CfConfig(method="spectral", spectral_rank=32, spectral_share=1.0)),
    }
    for model in members.values():
        model.fit(data, seed=0)
    found = Ensemble(EnsembleConfig()).with_members(members)
    found._signals = [("popularity", "all"), ("popularity", "trend"), ("cf", "recent"), ("cf", "whole")]
    found._weights = np.tile([0.2, 0.1, 0.5, 0.4], (len(SEGMENTS), 1))
    return found


def query(member: int) -> Query:
    history = histories()[member]
    return Query(
        histories=[history],
        times=[START + np.arange(len(history), dtype=np.int64) * HOUR],
        now=np.array([NOW]),
    )


@cache
def retriever() -> Retriever:
    parts = part_products("ensemble", ensemble())
    assert parts is not None
    return Retriever(parts, ensemble().score(query(0)).ravel())


def retrieved(member: int) -> Retrieved:
    products = retriever().ask(query(member))
    return retriever().found({name: product[0] for name, product in products.items()})


def every(member: int) -> EveryTitle:
    parts = {name: part[0] for name, part in ensemble().score_parts(query(member)).items()}
    return EveryTitle(values=np.sum(list(parts.values()), axis=0, dtype=np.float32), parts=parts)


def live(*, exact_titles: int | None = None) -> Live:
    positions = {title_id: place for place, title_id in enumerate(catalogue().title_ids)}
    bundle = Bundle(name="ensemble", model=ensemble(), catalogue=catalogue(), positions=positions)
    titles = Titles(catalogue())
    return Live(name="recommender/1", bundle=bundle, titles=titles, exact_titles=exact_titles)


@cache
def columns() -> Columns:
    return live().columns


def known(version: Live, member: int, now: int = NOW) -> Known:
    asked = query(member)
    return Known(
        request_id="r",
        member_id=f"m{member}",
        surface="home",
        cell="v1",
        version=version,
        state=None,
        reason=None,
        query=Query(histories=asked.histories, times=asked.times, now=np.array([now])),
        watched=histories()[member],
        time=now,
    )


@given(st.integers(0, MEMBERS - 1), st.lists(st.integers(0, TITLES - 1), min_size=1, max_size=30))
def test_titles_score_as_in_a_full_pass(member: int, some: list[int]) -> None:
    found, whole, positions = retrieved(member), every(member), np.array(some)
    np.testing.assert_allclose(found.at(positions), whole.at(positions), atol=1e-3)
    np.testing.assert_allclose(found.at(positions), whole.at(positions), atol=1e-3)
    for name, part in found.parts_at(positions).items():
        np.testing.assert_allclose(part, whole.parts_at(positions)[name], atol=1e-3)


def test_hardly_any_of_the_best_are_missed() -> None:
    allowed = np.ones(TITLES, dtype=bool)
    thirds = np.arange(0, TITLES, 3)
    missed = {"best": [], "ranked": []}
    for member in range(0, MEMBERS, 10):
        found, whole = retrieved(member), every(member)
        best = found.best(allowed, 200)
        assert len(best) == 200
        missed["best"].append(1 - np.isin(whole.best(allowed, 200), best).mean())
        missed["ranked"].append(1 - np.isin(whole.ranked(thirds, 20), found.ranked(thirds, 20)).mean())
    assert np.mean(missed["best"]) < 0.02
    assert np.mean(missed["ranked"]) < 0.02


@given(
    member=st.integers(0, MEMBERS - 1),
    age=st.sampled_from([None, 0, 7, 12, 18]),
    languages=st.sampled_from([(), ("fr",)]),
    few=st.sampled_from([0, retrieval.FEW]),
    per_row=st.integers(1, 40),
)
def test_pages_hold_rules_and_are_full(
    member: int, age: int | None, languages: tuple[str, ...], few: int, per_row: int
) -> None:
    """Whether the index is asked or, where few titles are allowed, all of those are scored."""
    allowed = live().titles.allowed(Filters(max_maturity=age, languages=languages), NOW)
    layout = Layout(rows=12, per_row=per_row)
    whole = compose(
        every(member), allowed, Member(watched=histories()[member]), columns(), layout, today=19_500
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retrieval, "FEW", few)
        page = compose(
            retrieved(member), allowed, Member(watched=histories()[member]), columns(), layout, today=19_500
        )
    shown = [position for row in page for position in row.titles.tolist()]
    assert len(page) == len(whole) > 5
    assert len(shown) == len(set(shown))
    assert len(shown) >= 0.95 * sum(len(row.titles) for row in whole)
    assert not set(shown) & set(histories()[member].tolist())
    for position in [*shown, *(row.because for row in page if row.because is not None)]:
        assert age is None or (AGES[position % 6] is not None and AGES[position % 6] <= age)
        assert not languages or position // 6 % 2


def test_of_few_allowed_titles_none_is_missed() -> None:
    """Nor where the index finds too few: then all that are allowed are scored."""
    allowed = np.random.default_rng(0).random(TITLES) < 0.1
    best = every(7).best(allowed, 300)
    with pytest.MonkeyPatch.context() as patch:
        patch.delattr(retriever().index.__class__, "largest")  # it is not even asked
        assert retrieved(7).best(allowed, 300).tolist() == best.tolist()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retrieval, "FEW", 0)
        nothing = np.zeros(0, np.intp), np.zeros(0, np.float32)
        patch.setattr(retriever().index, "largest", lambda *_: nothing)
        whole = np.ones(TITLES, dtype=bool)
        np.testing.assert_allclose(
            every(7).at(retrieved(7).best(whole, 2_000)),
            every(7).at(every(7).best(whole, 2_000)),
            atol=1e-3,
        )


def test_the_size_of_the_catalogue_decides() -> None:
    assert live(exact_titles=TITLES).retriever is None
    assert live().retriever is None
    large = live(exact_titles=TITLES - 1)
    assert large.retriever is not None
    assert isinstance(scored(known(large, 1)).scores, Retrieved)
    assert isinstance(scored(known(live(), 1)).scores, EveryTitle)


def test_members_together_are_answered_as_alone() -> None:
    large = live(exact_titles=0)
    members = [known(large, member) for member in (1, 40, 299)]
    everything = np.arange(TITLES)
    for alone, together in zip(map(scored, members), scored_all(members), strict=True):
        assert isinstance(together.scores, Retrieved)
        np.testing.assert_allclose(alone.scores.at(everything), together.scores.at(everything), atol=1e-3)


def test_what_the_model_cannot_say_as_products_is_scored_in_full() -> None:
    large = live(exact_titles=0)
    past = known(large, 1, now=START - 48 * HOUR)
    assert isinstance(scored(past).scores, EveryTitle)
    assert all(isinstance(each.scores, EveryTitle) for each in scored_all([past, past]))


def test_a_model_alone_is_retrieved_by_its_score() -> None:
    model = ensemble().members["cf"]
    parts = part_products("cf", model)
    assert parts is not None
    alone = Retriever(parts, model.score(query(0)).ravel())
    found = alone.found({name: product[0] for name, product in alone.ask(query(5)).items()})
    np.testing.assert_allclose(found.at(np.arange(TITLES)), model.score(query(5))[0], atol=1e-4)


def test_a_model_whose_first_signal_is_not_its_score_is_not_retrieved() -> None:
    """Popularity alone scores by counts, its signal is their logarithm."""
    assert part_products("popularity", ensemble().members["popularity"]) is None


def test_neighbours_by_an_index_are_those_of_all() -> None:
    vectors = np.random.default_rng(0).normal(size=(TITLES, 96)).astype(np.float32)
    vectors[:, :8] *= 4
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)

    class Placed(CollaborativeFiltering):
        def embeddings(self) -> Scores:
            return vectors

    bundle = Bundle(name="cf", model=Placed(CfConfig()), catalogue=catalogue(), positions={})
    titles = Titles(catalogue())
    whole, indexed = Columns(bundle, titles), Columns(bundle, titles, indexed=True)
    for position in (0, 17, 4_000):
        near, found = whole.neighbours(position), indexed.neighbours(position)
        assert len(found) == len(near)
        assert position not in found
        assert np.isin(near, found).mean() > 0.95
        assert found[:5].tolist() == near[:5].tolist()
