from __future__ import annotations

import numpy as np
from contracts.model_contract import DAY, START, ModelContract, catalogue, training_set, unknown

from matinee.models.base import Model, TrainingSet
from matinee.models.popularity import SPEC
from matinee.models.popularity.config import PopularityConfig
from matinee.models.popularity.model import Popularity
from matinee.schema import Interactions


class TestPopularity(ModelContract):
    def build(self) -> Model:
        return SPEC.model(SPEC.presets["test"])


def two_titles() -> TrainingSet:
    """Title 0 watched three times on day 0, title 1 twice on day 20."""
    day = START // DAY * DAY
    time = np.array([day, day + 1, day + 2, day + 20 * DAY, day + 20 * DAY + 1], dtype=np.int64)
    watched = Interactions(
        member_ids=[f"m{i}" for i in range(5)],
        title_ids=catalogue().title_ids,
        member=np.arange(5, dtype=np.int32),
        title=np.array([0, 0, 0, 1, 1], dtype=np.int32),
        time=time,
        value=np.full(5, np.nan, dtype=np.float32),
    )
    return TrainingSet(interactions=watched, catalogue=catalogue())


def test_the_plain_score_is_the_count() -> None:
    model = Popularity(PopularityConfig())
    data = training_set()
    model.fit(data, seed=0)
    np.testing.assert_array_equal(
        model.score(unknown(1))[0], np.bincount(data.interactions.title, minlength=len(data.catalogue))
    )


def test_decay_lets_the_recent_title_pass_the_old_one() -> None:
    plain, decayed = Popularity(PopularityConfig()), Popularity(PopularityConfig(half_life_days=5))
    for model in (plain, decayed):
        model.fit(two_titles(), seed=0)
    now = START // DAY * DAY + 21 * DAY
    assert plain.score(unknown(1, now=now))[0].argmax() == 0
    assert decayed.score(unknown(1, now=now))[0].argmax() == 1


def test_a_trend_sees_no_watch_of_its_own_day_or_later() -> None:
    model = Popularity(PopularityConfig())
    model.fit(two_titles(), seed=0)
    trend = model.signals(unknown(1, now=START // DAY * DAY + 20 * DAY))["trend"][0]
    assert trend[0] > 0
    assert trend[1] == 0


def test_years_after_the_last_watch_the_trend_stands_still() -> None:
    model = Popularity(PopularityConfig())
    model.fit(two_titles(), seed=0)
    soon, late = (model.signals(unknown(1, now=START + days * DAY))["trend"] for days in (22, 10_000))
    np.testing.assert_array_equal(soon, late)


def test_products_follow_the_day_and_know_no_earlier_one() -> None:
    model = Popularity(PopularityConfig())
    model.fit(two_titles(), seed=0)
    titles, last = model.title_vectors(), START // DAY + 20
    for day in (last, last + 1, last + 50):
        asked = unknown(2, now=day * DAY + 5)
        signals, products = model.signals(asked), model.products(asked)
        assert products is not None
        for name, product in products.items():
            np.testing.assert_allclose(product.at(titles, np.array([1, 0])), signals[name][:, [1, 0]])
    assert model.products(unknown(1, now=last * DAY - 1)) is None
