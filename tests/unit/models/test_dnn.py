from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from contracts.model_contract import START, TITLES, ModelContract, hit_rate, query, training_set

from matinee.errors import ConfigError
from matinee.models.base import Model, Query, Start
from matinee.models.dnn import SPEC
from matinee.models.dnn import config as presets
from matinee.models.dnn.model import TwoTower
from matinee.models.dnn.network import MemberTower
from matinee.models.dnn.steps import DRAWN, FULL_SOFTMAX, drawn_titles
from matinee.models.dnn.titles import take_over, title_tower
from matinee.models.popularity.config import PopularityConfig
from matinee.models.popularity.model import Popularity
from matinee.schema import Features

SMALL = {"width": 16, "length": 25, "epochs": 4, "batch": 64, "patience": None}


class TestDnn(ModelContract):
    def build(self) -> Model:
        return SPEC.model(SPEC.presets["test"])

    def test_beats_popularity(self) -> None:
        popularity = Popularity(PopularityConfig())
        popularity.fit(training_set(), seed=0)
        assert hit_rate(self.fitted(), training_set()) > 1.5 * hit_rate(popularity, training_set())

    def test_the_order_of_a_history_matters(self) -> None:
        titles, times = np.arange(5, dtype=np.int32), START + np.arange(5, dtype=np.int64)
        asked = Query(histories=[titles, titles[::-1]], times=[times, times], now=np.full(2, START + 9))
        scores = self.fitted().score(asked)
        assert not np.allclose(scores[0], scores[1])

    def test_features_are_read_by_name(self) -> None:
        asked = query(training_set(), members=5)
        given = asked.member_features
        assert given is not None
        turned = Features(names=given.names[::-1], values=given.values[:, ::-1])
        other = Query(histories=asked.histories, times=asked.times, now=asked.now, member_features=turned)
        np.testing.assert_array_equal(self.fitted().score(asked), self.fitted().score(other))


def test_a_state_sees_no_later_title() -> None:
    torch.manual_seed(0)
    tower = MemberTower(width=8, heads=2, layers=2, length=6, recency=3, dropout=0.5, features=0).eval()
    titles, known = torch.randn(1, 6, 8), torch.ones(1, 6, dtype=torch.bool)
    changed = titles.clone()
    changed[0, 4:] = torch.randn(2, 8)
    with torch.no_grad():
        before, after = tower.encode(titles, known), tower.encode(changed, known)
    torch.testing.assert_close(before[:, :5], after[:, :5])
    assert not torch.allclose(before[:, 5], after[:, 5])


class TestGsasrec(ModelContract):
    def build(self) -> Model:
        return TwoTower(replace(presets.gsasrec(), **SMALL, negatives=16))


@pytest.mark.parametrize(
    "changes",
    [{"loss": "bce"}, {"loss": "gbce", "negatives": 16}, {"negatives": 16}, {"identity_dropout": 0.3}],
    ids=str,
)
def test_every_loss_learns(changes: dict[str, object]) -> None:
    popularity = Popularity(PopularityConfig())
    popularity.fit(training_set(), seed=0)
    model = TwoTower(replace(presets.test(), **changes, epochs=16, learning_rate=0.02))
    model.fit(training_set(), seed=0)
    assert hit_rate(model, training_set()) > 1.2 * hit_rate(popularity, training_set())


def test_a_title_nobody_watched_is_its_content() -> None:
    data = training_set(features=False)
    model = TwoTower(replace(presets.test(), epochs=1))
    model.fit(data, seed=0)
    title, _, _ = title_tower(data.catalogue, None, np.zeros(TITLES, bool), width=16, content=True)
    title.load_state_dict(dict(model._known.weights))
    content, learned = title().detach(), model._titles
    torch.testing.assert_close(learned[-3:], content[-3:])
    assert not model._known.weights["identity"][-3:].any()
    assert not torch.isclose(learned[0], content[0]).all()
    assert len(model._bias[-3:].unique()) == 1


def test_training_stops_where_the_held_out_figure_no_longer_rises() -> None:
    seen: list[tuple[int, int, float]] = []
    model = TwoTower(replace(presets.test(), epochs=60, learning_rate=0.05, patience=2))
    model.fit(
        training_set(),
        seed=0,
        progress=lambda step, steps, figures: seen.append((step, steps, figures["validation"])),
    )
    figures = [figure for _, _, figure in seen]
    assert len(seen) < 60
    assert seen[-1][0] == seen[-1][1]
    assert max(figures[-2:]) <= max(figures[:-2])


def test_bfloat16_trains_too() -> None:
    model = TwoTower(replace(presets.test(), precision="bf16"))
    model.fit(training_set(), seed=0)
    popularity = Popularity(PopularityConfig())
    popularity.fit(training_set(), seed=0)
    assert hit_rate(model, training_set()) > hit_rate(popularity, training_set())


def test_a_fit_goes_on_from_an_earlier_model(tmp_path: Path) -> None:
    data = training_set()
    first = TwoTower(presets.test())
    first.fit(data, seed=0)
    first.save(tmp_path)
    start = Start(model=TwoTower.load(tmp_path), titles=np.arange(TITLES))
    brief = replace(presets.test(), epochs=1, learning_rate=1e-4)
    onward, anew = TwoTower(brief), TwoTower(brief)
    onward.fit(data, seed=0, start=start)
    anew.fit(data, seed=0)
    assert hit_rate(onward, data) > 0.9 * hit_rate(first, data) > hit_rate(anew, data)


def test_titles_keep_what_was_learned_in_another_order_and_new_ones_begin_from_content() -> None:
    data = training_set(features=False)
    first = TwoTower(presets.test())
    first.fit(data, seed=0)
    tower, attributes, scaling = title_tower(
        data.catalogue, None, np.ones(TITLES, bool), width=16, content=True
    )
    old = np.arange(TITLES)[::-1].copy()
    old[0] = -1
    take_over(tower, attributes, scaling, first._known, old)
    assert not tower.identity[0].any()
    torch.testing.assert_close(tower.identity[1:], first._known.weights["identity"].flip(0)[1:])
    assert tower.content is not None
    torch.testing.assert_close(tower.content.weight, first._known.weights["content.weight"])


@pytest.mark.parametrize(("name", "value"), [("width", 8), ("layers", 2), ("order", "position")])
def test_another_shape_is_refused(name: str, value: object) -> None:
    first = TwoTower(replace(presets.test(), epochs=0))
    first.fit(training_set(), seed=0)
    other = TwoTower(replace(presets.test(), **{name: value}))
    start = Start(model=first, titles=np.arange(TITLES))
    with pytest.raises(ConfigError, match=f"dnn.{name} is {value!r}, .* {getattr(presets.test(), name)!r}"):
        other.fit(training_set(), seed=0, start=start)


def test_other_member_features_are_refused() -> None:
    first = TwoTower(replace(presets.test(), epochs=0))
    first.fit(training_set(), seed=0)
    start = Start(model=first, titles=np.arange(TITLES))
    with pytest.raises(ConfigError, match=r"member features are \[\], .*plays_1h"):
        TwoTower(presets.test()).fit(training_set(features=False), seed=0, start=start)


def test_vectors_of_some_titles_are_those_among_all() -> None:
    data = training_set()
    tower, _, _ = title_tower(
        data.catalogue, data.title_features, np.arange(TITLES) % 2 > 0, width=8, content=True
    )
    at = torch.tensor([7, 0, 47, 7, 3])
    torch.testing.assert_close(tower(at), tower()[at])


def test_large_catalogues_are_drawn_from() -> None:
    assert drawn_titles(presets.test(), FULL_SOFTMAX) is None
    assert drawn_titles(presets.test(), FULL_SOFTMAX + 1) == DRAWN
    assert drawn_titles(replace(presets.test(), negatives=7), 100) == 7
    assert drawn_titles(replace(presets.test(), loss="bce"), 100) == 1
