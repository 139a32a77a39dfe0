"""What every model promises. A model's test inherits `ModelContract` and says how it is built."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pytest

from matinee.models.base import Factored, Model, Query, TrainingSet
from matinee.models.products import Moments
from matinee.schema import CATALOGUE_SCHEMA, Catalogue, Features, Interactions

HOUR = 3_600_000_000
DAY = 24 * HOUR
START = 900_000_000_000_000
GENRES = ("Action", "Comedy", "Drama", "Horror")
TITLES = 48
MEMBERS = 90
LENGTH = 14
MEMBER_FEATURES = ("plays_1h", "affinity[Action]", "affinity[Comedy]")
TITLE_FEATURES = ("plays_7d", "rating_mean_all")


def catalogue(titles: int = TITLES) -> Catalogue:
    """Title i has genre i modulo the genres; every third row has nulls and empty lists."""
    rows = [
        {
            "title_id": f"t{i}",
            "name": f"Title {i}",
            "genres": [GENRES[i % len(GENRES)]] if i % 7 else [],
            "release_date": date(1960 + i, 1, 1) if i % 3 else None,
            "language": "en" if i % 3 else None,
            "maturity": 12 if i % 3 else None,
            "cast": ["A. Player"] if i % 5 == 1 else [],
            "keywords": [],
        }
        for i in range(titles)
    ]
    return Catalogue(table=pa.Table.from_pylist(rows, schema=CATALOGUE_SCHEMA))


def walks(*, seed: int = 0, members: int = MEMBERS, length: int = LENGTH) -> list[list[int]]:
    """Histories with structure: a member stays in a quarter of the titles and walks along it.

    The last three titles of the catalogue are never watched.
    """
    generator = np.random.default_rng(seed)
    quarter = (TITLES - 4) // 4
    return [
        [
            member % 4 * quarter + int(place) % quarter
            for place in generator.integers(quarter) + np.cumsum(generator.choice([1, 1, 1, 2], length))
        ]
        for member in range(members)
    ]


def training_set(*, features: bool = True, seed: int = 0) -> TrainingSet:
    """All but the last two distinct titles of each walk, one a minute, members an hour apart."""
    rows = []
    for member, walk in enumerate(walks(seed=seed)):
        known = list(dict.fromkeys(walk))[:-2]
        # Two sittings for every third member.
        gap = [0 if place < 6 or member % 3 else DAY for place in range(len(known))]
        rows += [
            (START + member * HOUR + place * 60_000_000 + gap[place], member, title)
            for place, title in enumerate(known)
        ]
    rows.sort()
    time, member_column, title = (np.array(column) for column in zip(*rows, strict=True))
    generator = np.random.default_rng(seed)
    interactions = Interactions(
        member_ids=[f"m{i}" for i in range(MEMBERS)],
        title_ids=[f"t{i}" for i in range(TITLES)],
        member=member_column.astype(np.int32),
        title=title.astype(np.int32),
        time=time.astype(np.int64),
        value=np.full(len(rows), np.nan, dtype=np.float32),
    )
    if not features:
        return TrainingSet(interactions=interactions, catalogue=catalogue())
    member_values = generator.gamma(2, 3, (len(rows), len(MEMBER_FEATURES))).astype(np.float32)
    member_values[::5] = np.nan
    title_values = generator.gamma(2, 3, (TITLES, len(TITLE_FEATURES))).astype(np.float32)
    title_values[-3:] = np.nan
    return TrainingSet(
        interactions=interactions,
        catalogue=catalogue(),
        member_features=Features(names=MEMBER_FEATURES, values=member_values),
        title_features=Features(names=TITLE_FEATURES, values=title_values),
    )


def query(data: TrainingSet, *, features: bool = True, members: int = MEMBERS) -> Query:
    """Each member's whole training history, asked a minute after its end."""
    histories = data.interactions.histories()[:members]
    times = [np.sort(data.interactions.time[data.interactions.member == i]) for i in range(members)]
    values = np.random.default_rng(1).gamma(2, 3, (members, len(MEMBER_FEATURES))).astype(np.float32)
    return Query(
        histories=histories,
        times=times,
        now=np.array([moments[-1] + 60_000_000 for moments in times], dtype=np.int64),
        member_features=Features(names=MEMBER_FEATURES, values=values) if features else None,
    )


def unknown(members: int, *, now: int = START + 400 * HOUR) -> Query:
    """Members nothing is known of."""
    return Query(
        histories=[np.zeros(0, dtype=np.int32)] * members,
        times=[np.zeros(0, dtype=np.int64)] * members,
        now=np.full(members, now, dtype=np.int64),
    )


def answers(data: TrainingSet, *, seed: int = 0) -> list[set[int]]:
    """The titles each walk went on to after its training part."""
    known = data.interactions.histories()
    return [set(walk) - set(known[i].tolist()) for i, walk in enumerate(walks(seed=seed))]


def hit_rate(model: Model, data: TrainingSet, k: int = 3) -> float:
    """Share of members with one of their answers among the first k titles not watched."""
    asked = query(data)
    scores = model.score(asked).copy()
    for row, history in enumerate(asked.histories):
        scores[row, history] = -np.inf
    top = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return float(
        np.mean([bool(set(row.tolist()) & right) for row, right in zip(top, answers(data), strict=True)])
    )


class ModelContract:
    """Inherit and give `build`; `fit` runs once a class for each set of arguments."""

    scores_while_fitting: ClassVar[bool] = True
    """False for a model that combines others."""
    factored: ClassVar[bool] = True
    """False for a model whose signals are no products with title vectors."""

    _cache: ClassVar[dict[tuple[type, bool], Model]] = {}

    def build(self) -> Model:
        """A new model with a tiny config."""
        raise AssertionError(f"{type(self).__name__} does not say how its model is built")

    def fitted(self, *, features: bool = True) -> Model:
        key = (type(self), features)
        if key not in self._cache:
            model = self.build()
            model.fit(training_set(features=features), seed=3)
            self._cache[key] = model
        return self._cache[key]

    def test_scores_are_finite_float32_of_every_title(self) -> None:
        scores = self.fitted().score(query(training_set()))
        assert scores.shape == (MEMBERS, TITLES)
        assert scores.dtype == np.float32
        assert np.isfinite(scores).all()

    def test_signals_have_the_shape_of_scores(self) -> None:
        for signal in self.fitted().signals(query(training_set(), members=4)).values():
            assert signal.shape == (4, TITLES)
            assert np.isfinite(signal).all()

    def test_the_first_signal_orders_titles_as_the_score(self) -> None:
        model, asked = self.fitted(), query(training_set(), members=4)
        scores, signal = model.score(asked), next(iter(model.signals(asked).values()))
        for score, told in zip(scores, signal, strict=True):
            np.testing.assert_array_equal(np.argsort(score, kind="stable"), np.argsort(told, kind="stable"))

    def test_a_member_scores_alike_alone_and_among_others(self) -> None:
        model, data = self.fitted(), training_set()
        np.testing.assert_allclose(
            model.score(query(data, members=1, features=False))[0],
            model.score(query(data, features=False))[0],
            rtol=1e-4,
            atol=1e-4,
        )

    def test_scores_without_member_features(self) -> None:
        assert np.isfinite(self.fitted().score(query(training_set(), features=False))).all()

    def test_learns_without_any_features(self) -> None:
        data = training_set(features=False)
        assert np.isfinite(self.fitted(features=False).score(query(data, features=False))).all()

    def test_unknown_members_score_finite_and_alike(self) -> None:
        scores = self.fitted().score(unknown(3))
        assert np.isfinite(scores).all()
        # Matrix kernels round rows of a batch differently in the last bit.
        np.testing.assert_allclose(scores[0], scores[2], rtol=1e-5)

    def test_no_members_asked(self) -> None:
        assert self.fitted().score(unknown(0)).shape == (0, TITLES)

    def test_history_of_a_title_nobody_watched(self) -> None:
        lone = Query(
            histories=[np.array([TITLES - 1], dtype=np.int32)],
            times=[np.array([START], dtype=np.int64)],
            now=np.array([START + HOUR], dtype=np.int64),
        )
        assert np.isfinite(self.fitted().score(lone)).all()

    def test_history_longer_than_any_in_training(self) -> None:
        titles = np.tile(np.arange(TITLES, dtype=np.int32), 4)
        long = Query(
            histories=[titles],
            times=[START + np.arange(len(titles), dtype=np.int64)],
            now=np.array([START + HOUR], dtype=np.int64),
        )
        assert np.isfinite(self.fitted().score(long)).all()

    def test_products_are_the_signals_of_any_titles(self) -> None:
        model = self.fitted()
        titles = model.title_vectors() if isinstance(model, Factored) else None
        assert (titles is not None) == self.factored
        if titles is None:
            pytest.skip("its signals are no products with title vectors")
        data = training_set()
        later = data.interactions.time.max() + 9 * DAY
        nobody = unknown(2, now=later)
        known = replace(query(data, members=5), now=np.full(5, later))
        some = np.array([7, 0, TITLES - 1, 7])
        for asked in (known, replace(known, member_features=None), nobody):
            signals, products = model.signals(asked), model.products(asked)
            assert products is not None
            assert list(products) == list(signals)
            for name, product in products.items():
                np.testing.assert_allclose(product.at(titles, some), signals[name][:, some], atol=1e-4)
                if product.extra is not None:
                    np.testing.assert_allclose(product.lean, product.extra @ titles, atol=1e-4)
        assert titles.dtype == np.float32
        assert Moments.of(titles).mean.shape == (titles.shape[1],)

    def test_same_seed_gives_the_same_scores(self) -> None:
        again = self.build()
        again.fit(training_set(), seed=3)
        asked = query(training_set())
        np.testing.assert_array_equal(again.score(asked), self.fitted().score(asked))

    def test_a_loaded_model_scores_as_the_saved_one(self, tmp_path: Path) -> None:
        model = self.fitted()
        model.save(tmp_path)
        loaded = type(model).load(tmp_path)
        asked = query(training_set())
        np.testing.assert_array_equal(loaded.score(asked), model.score(asked))
        np.testing.assert_array_equal(loaded.score(unknown(2)), model.score(unknown(2)))
        assert not list(tmp_path.rglob("*.pkl"))

    def test_reports_progress_to_the_end(self) -> None:
        seen: list[tuple[int, int]] = []
        self.build().fit(
            training_set(), seed=0, progress=lambda step, steps, figures: seen.append((step, steps))
        )
        assert seen[-1][0] == seen[-1][1]

    def test_scores_as_it_stands_while_it_reports(self) -> None:
        if not self.scores_while_fitting:
            pytest.skip("combines others: it knows nothing before its end")
        model, asked, seen = self.build(), query(training_set(), members=4), []
        model.fit(training_set(), seed=3, progress=lambda *_: seen.append(model.score(asked).copy()))
        assert all(np.isfinite(scores).all() for scores in seen)
        np.testing.assert_array_equal(seen[-1], model.score(asked))
        np.testing.assert_array_equal(seen[-1], self.fitted().score(asked))
