from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from contracts.model_contract import (
    DAY,
    ModelContract,
    hit_rate,
    query,
    training_set,
    unknown,
)

from matinee.errors import ConfigError
from matinee.models import discover
from matinee.models.base import Model, Query, Scores
from matinee.models.ensemble.config import EnsembleConfig
from matinee.models.ensemble.holdout import inner_set, split_holdout
from matinee.models.ensemble.model import Ensemble, fit_ensemble
from matinee.models.ensemble.weights import SEGMENTS, segments, standardised
from matinee.models.popularity.config import PopularityConfig
from matinee.models.popularity.model import Popularity


def members() -> dict[str, Model]:
    specs = discover()
    return {name: specs[name].model(specs[name].presets["test"]) for name in ("popularity", "cf", "gnn")}


class TestEnsemble(ModelContract):
    scores_while_fitting = False
    factored = False

    def build(self) -> Model:
        return Ensemble(EnsembleConfig()).with_members(members())

    def test_parts_sum_to_the_score(self) -> None:
        model, asked = self.fitted(), query(training_set())
        assert isinstance(model, Ensemble)
        parts = model.score_parts(asked)
        assert list(parts) == ["popularity", "cf", "gnn"]
        np.testing.assert_allclose(sum(parts.values()), model.score(asked), atol=1e-5)

    def test_beats_popularity(self) -> None:
        popularity = Popularity(PopularityConfig())
        popularity.fit(training_set(), seed=0)
        assert hit_rate(self.fitted(), training_set()) > 1.5 * hit_rate(popularity, training_set())

    def test_popularity_alone_speaks_for_unknown_members(self) -> None:
        model = self.fitted()
        assert isinstance(model, Ensemble)
        parts = model.score_parts(unknown(1))
        assert parts["popularity"].std() > 0
        assert parts["cf"].std() == 0

    def test_a_member_that_no_rows_weights_name_is_not_asked(self, monkeypatch: pytest.MonkeyPatch) -> None:
        model, asked = self.fitted(), []
        assert isinstance(model, Ensemble)
        for name, member in model.members.items():

            def noted(query: Query, name: str = name, member: Model = member) -> Mapping[str, Scores]:
                asked.append(name)
                return type(member).signals(member, query)

            monkeypatch.setattr(member, "signals", noted)
        silent = model.score_parts(unknown(2))
        assert asked == ["popularity"]
        assert not np.any([silent["cf"], silent["gnn"]])
        weighed = model.with_members(model.members)
        weighed._weights = np.ones_like(model._weights)
        weighed.score_parts(unknown(2))
        assert asked[1:] == ["popularity", "cf", "gnn"]

    def test_probabilities_sum_to_1_over_titles_not_watched_in_the_order_of_scores(self) -> None:
        model, asked = self.fitted(), query(training_set())
        assert isinstance(model, Ensemble)
        chances, scores = model.probabilities(asked), model.score(asked)
        np.testing.assert_allclose(chances.sum(1), 1, rtol=1e-4)
        for row, history in enumerate(asked.histories):
            assert (chances[row, history] == 0).all()
            left = np.setdiff1d(np.arange(scores.shape[1]), history)
            assert (np.diff(chances[row, left[np.argsort(scores[row, left])]]) >= 0).all()

    def test_a_loaded_ensemble_knows_its_validation(self, tmp_path: Path) -> None:
        model = self.fitted()
        assert isinstance(model, Ensemble)
        assert model.validation is not None
        model.save(tmp_path)
        assert Ensemble.load(tmp_path).validation == model.validation

    def test_by_parts_equals_fit(self) -> None:
        data = training_set()
        holdout = split_holdout(data, seed=3)
        inner = members()
        for model in inner.values():
            model.fit(inner_set(data, holdout), seed=3)
        final = members()
        for model in final.values():
            model.fit(data, seed=3)
        ensemble = fit_ensemble(inner, holdout, config=EnsembleConfig(), seed=3).with_members(final)
        np.testing.assert_array_equal(ensemble.score(query(data)), self.fitted().score(query(data)))


def test_fit_without_members_says_so() -> None:
    with pytest.raises(ConfigError, match="with_members"):
        Ensemble(EnsembleConfig()).fit(training_set(), seed=0)


def test_weights_belong_to_the_members_they_were_learned_for() -> None:
    ensemble = Ensemble(EnsembleConfig()).with_members({"popularity": Popularity(PopularityConfig())})
    ensemble.fit(training_set(), seed=0)
    with pytest.raises(ConfigError, match="popularity"):
        ensemble.with_members(members())


def test_the_holdout_hides_answers_from_the_inner_part() -> None:
    data = training_set()
    holdout = split_holdout(data, seed=0)
    inner = inner_set(data, holdout)
    assert 0.5 < holdout.inner.mean() < 0.95
    assert len(inner.interactions) == holdout.inner.sum()
    assert inner.member_features is not None
    assert len(inner.member_features.values) == len(inner.interactions)
    left = {tuple(history.tolist()) for history in inner.interactions.histories()}
    for history, answer in zip(holdout.query.histories, holdout.answers, strict=True):
        assert len(answer)
        assert not set(history.tolist()) & set(answer.tolist())
        assert tuple(history.tolist()) in left or len(history) < 10


def test_the_holdout_has_cold_short_and_returning_cases() -> None:
    holdout = split_holdout(training_set(), seed=0)
    found = {SEGMENTS[place] for place in segments(holdout.query, 6)}
    assert {"cold", "short, in sitting", "long, in sitting"} <= found
    assert any(segment.endswith("back") for segment in found)


def test_cases_are_asked_before_their_answers() -> None:
    query_ = split_holdout(training_set(), seed=0).query
    for times, now in zip(query_.times, query_.now, strict=True):
        assert not len(times) or times[-1] <= now


def test_segments_by_length_and_break() -> None:
    times = [np.zeros(0, np.int64), np.arange(3), np.arange(3), np.arange(12), np.arange(12)]
    asked = Query(
        histories=[moments.astype(np.int32) for moments in times],
        times=times,
        now=np.array([0, DAY, 10, DAY, 20]),
    )
    assert [SEGMENTS[place] for place in segments(asked, 10)] == [
        "cold",
        "short, back",
        "short, in sitting",
        "long, back",
        "long, in sitting",
    ]


def test_standardised_rows_have_mean_0_and_deviation_1_and_flat_ones_are_0() -> None:
    found = standardised(np.array([[1, 2, 3, 10], [7, 7, 7, 7]], dtype=np.float32))
    np.testing.assert_allclose([found[0].mean(), found[0].std()], [0, 1], atol=1e-6)
    np.testing.assert_array_equal(found[1], 0)


def test_describe_names_every_segment_and_signal() -> None:
    ensemble = Ensemble(EnsembleConfig()).with_members({"popularity": Popularity(PopularityConfig())})
    ensemble.fit(training_set(), seed=0)
    described = ensemble.describe()
    assert list(described) == list(SEGMENTS)
    assert set(described["cold"]) == {"popularity.all", "popularity.trend"}


def asked_later() -> Query:
    """The members and one nobody knows, days after the last watch."""
    asked = query(training_set(), members=6)
    return Query(
        histories=[*asked.histories, np.zeros(0, np.int32)],
        times=[*asked.times, np.zeros(0, np.int64)],
        now=np.full(7, asked.now.max() + 9 * DAY),
    )


def factored(method: str) -> Ensemble:
    specs = discover()
    inner = {name: specs[name].model(specs[name].presets["test"]) for name in ("popularity", "gnn")}
    inner["cf"] = specs["cf"].model(replace(specs["cf"].presets["test"], method=method))
    ensemble = Ensemble(EnsembleConfig()).with_members(inner)
    ensemble.fit(training_set(), seed=0)
    return ensemble


@pytest.mark.parametrize("method", ["spectral", "ials"])
def test_parts_as_products_are_the_parts(method: str) -> None:
    ensemble, asked = factored(method), asked_later()
    # Every signal is heard, each by another weight.
    ensemble._weights = np.linspace(0.1, 1, ensemble._weights.size).reshape(ensemble._weights.shape)
    parts = ensemble.factored_parts()
    assert parts is not None
    found = parts.products(asked)
    assert found is not None
    some = np.array([5, 0, 40])
    for name, whole in ensemble.score_parts(asked).items():
        np.testing.assert_allclose(found[name].at(parts.titles[name], some), whole[:, some], atol=3e-4)


def test_a_member_without_weight_adds_zeros_as_products_too() -> None:
    ensemble, asked = factored("spectral"), asked_later()
    ensemble._weights[:, [member == "gnn" for member, _ in ensemble._signals]] = 0
    parts = ensemble.factored_parts()
    assert parts is not None
    found = parts.products(asked)
    assert found is not None
    assert not found["gnn"].at(parts.titles["gnn"], np.arange(9)).any()


def test_an_ensemble_with_a_member_that_is_not_factored_is_not() -> None:
    assert factored("ease").factored_parts() is None


def test_what_a_member_cannot_say_as_products_nor_can_the_ensemble() -> None:
    parts = factored("spectral").factored_parts()
    assert parts is not None
    assert parts.products(unknown(1, now=0)) is None
