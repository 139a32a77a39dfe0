from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from contracts.model_contract import training_set

from matinee.events.outcomes import outcomes
from matinee.models.base import Query, Start, TrainingSet
from matinee.models.dnn import SPEC
from matinee.models.dnn import model as model_module
from matinee.models.dnn.batches import runs
from matinee.models.dnn.exposures import Exposures
from matinee.models.dnn.model import TwoTower
from matinee.models.positions import Positions, positions
from matinee.schema import Interactions, Outcomes
from matinee.sources.world import World, WorldConfig


@cache
def world() -> tuple[TrainingSet, Outcomes, int]:
    """What a simulated service knows at a moment, what is shown after it, and the moment."""
    config = WorldConfig(
        members=200,
        titles=60,
        cold_share=0.0,
        perception_noise=0.2,
        position_bias=0.0,
        click_threshold=1.0,
        mainstream=0.7,
        page_size=8,
    )
    dataset = World(config, seed=0).history(30)
    events, title_ids = dataset.events, dataset.catalogue.title_ids
    member_ids = sorted(pc.unique(events["member_id"]).to_pylist())
    shown = outcomes(events, dataset.catalogue, member_ids)
    plays = events.filter(pc.equal(events["type"], "play"))
    member = pc.index_in(plays["member_id"], pa.array(member_ids)).to_numpy()
    title = pc.index_in(plays["title_id"], pa.array(title_ids)).to_numpy()
    time = plays["event_time"].cast(pa.int64()).to_numpy()
    first = np.sort(np.unique(member.astype(np.int64) * 1000 + title, return_index=True)[1])
    watched = Interactions(
        member_ids=member_ids,
        title_ids=title_ids,
        member=member[first],
        title=title[first],
        time=time[first],
        value=np.full(len(first), np.nan, np.float32),
    )
    cut = int(np.quantile(shown.time, 0.8))
    known = TrainingSet(
        interactions=watched.take(watched.time < cut),
        catalogue=dataset.catalogue,
        outcomes=shown.take(shown.time < cut),
    )
    return known, shown.take(shown.time >= cut), cut


@cache
def fitted() -> TwoTower:
    model = TwoTower(replace(SPEC.presets["test"], epochs=15, learning_rate=0.03))
    model.fit(world()[0], seed=0)
    return model


def asked() -> Query:
    data, _, now = world()
    watched = data.interactions
    members = range(len(watched.member_ids))
    times = [watched.time[watched.member == member] for member in members]
    return Query(histories=watched.histories(), times=times, now=np.full(len(members), now))


def area(scores: npt.NDArray[np.float32], came: npt.NDArray[np.bool_]) -> float:
    """Under the ROC curve."""
    ranks = np.argsort(np.argsort(scores)) + 1
    count = came.sum()
    return float((ranks[came].sum() - count * (count + 1) / 2) / (count * (~came).sum()))


def test_clicks_and_plays_to_come_are_foreseen() -> None:
    signals, (_, later, _) = fitted().signals(asked()), world()
    for name, least in (("click", 0.6), ("play", 0.62)):
        label = getattr(later, name)
        known = np.isfinite(label)
        foreseen = signals[name][later.member[known], later.title[known]]
        assert area(foreseen, label[known] > 0.5) > least


def test_what_comes_as_often_as_foreseen() -> None:
    """Mean probability against the share of clicks after the cut."""
    signals, (_, later, _) = fitted().signals(asked()), world()
    chance = 1 / (1 + np.exp(-signals["click"][later.member, later.title]))
    assert abs(np.nanmean(chance) - np.nanmean(later.click)) < 0.05


def test_without_outcomes_there_are_no_heads() -> None:
    model = TwoTower(replace(SPEC.presets["test"], epochs=1))
    model.fit(training_set(), seed=0)
    assert list(model.signals(asked_of_nobody())) == ["score"]


def test_an_outcome_that_is_never_known_gets_no_head() -> None:
    data = world()[0]
    assert data.outcomes is not None
    silent = replace(data.outcomes, completion=np.full(len(data.outcomes), np.nan, np.float32))
    model = TwoTower(replace(SPEC.presets["test"], epochs=1))
    model.fit(replace(data, outcomes=silent), seed=0)
    assert list(model.signals(asked_of_nobody())) == ["score", "click", "play"]


def asked_of_nobody() -> Query:
    return Query(histories=[], times=[], now=np.zeros(0, np.int64))


def test_loaded_heads_foresee_alike(tmp_path: Path) -> None:
    fitted().save(tmp_path)
    loaded = TwoTower.load(tmp_path)
    before, after = fitted().signals(asked()), loaded.signals(asked())
    assert list(before) == list(after)
    for name, values in before.items():
        np.testing.assert_array_equal(values, after[name])


def test_a_shown_title_belongs_to_the_state_before_the_next_watch() -> None:
    data = world()[0]
    watched, shown = data.interactions, data.outcomes
    assert shown is not None
    places = positions(watched)
    exposures = Exposures(shown, watched, places)
    cut = runs(places, 25, 1)
    run, column, rows = exposures._of(cut)
    begin = cut[run, 0]
    member = places.member[begin]
    at = begin + column - places.start[begin]
    # By hand: how many titles the member had watched before it was shown.
    watches = [np.sort(watched.time[watched.member == m]) for m in range(len(watched.member_ids))]
    place_of = sorted(range(len(shown)), key=lambda i: (shown.member[i], shown.time[i]))
    counted: dict[tuple[int, int], list[int]] = {}
    for i in place_of:
        known = int(np.searchsorted(watches[shown.member[i]], shown.time[i]))
        counted.setdefault((int(shown.member[i]), known), []).append(int(shown.title[i]))
    found: dict[tuple[int, int], list[int]] = {}
    for m, known, title in zip(member.tolist(), at.tolist(), exposures._title[rows].tolist(), strict=True):
        found.setdefault((m, known), []).append(title)
    present = {int(m) for m in watched.member}
    expected = {key: sorted(titles) for key, titles in counted.items() if key[0] in present}
    assert {key: sorted(titles) for key, titles in found.items()} == expected


def test_a_fit_that_goes_on_keeps_the_heads() -> None:
    data = world()[0]
    start = Start(model=fitted(), titles=np.arange(len(data.catalogue)))
    onward = TwoTower(replace(SPEC.presets["test"], epochs=0))
    onward.fit(data, seed=1, start=start)
    before, after = fitted()._heads.state_dict(), onward._heads.state_dict()
    assert before.keys() == after.keys()
    assert all(bool((before[name] == after[name]).all()) for name in before)


def test_a_title_shown_within_an_hour_of_the_last_watch_is_shown_in_the_sitting() -> None:
    minute = 60_000_000
    whole = training_set().interactions
    watched = replace(
        whole,
        member_ids=["m0", "m1"],
        member=np.array([0, 0, 1], np.int32),
        title=np.array([3, 4, 5], np.int32),
        time=np.array([0, 100, 200]) * minute,
        value=np.full(3, np.nan, np.float32),
    )
    # Before any watch; within the hour, twice; past it; and before the other member's first.
    shown_at = np.array([-5, 30, 150, 161, 190]) * minute
    known = np.ones(5, np.float32)
    shown = Outcomes(
        member=np.array([0, 0, 0, 0, 1], np.int32),
        title=np.arange(5, dtype=np.int32),
        time=shown_at,
        ended=shown_at,
        click=known,
        play=known,
        completion=known,
    )
    exposures = Exposures(shown, watched, positions(watched))
    sitting = dict(zip(exposures._title.tolist(), exposures._sitting.tolist(), strict=True))
    assert sitting == {0: 0, 1: 1, 2: 1, 3: 0, 4: 0}


def test_watches_that_tell_when_to_stop_teach_the_heads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    data = world()[0]
    seen: list[tuple[Outcomes, Interactions]] = []

    def watched(told: Outcomes, kept: Interactions, places: Positions) -> Exposures:
        seen.append((told, kept))
        return Exposures(told, kept, places)

    monkeypatch.setattr(model_module, "Exposures", watched)
    TwoTower(replace(SPEC.presets["test"], epochs=1, patience=1)).fit(data, seed=0)
    told, kept = seen[0]
    last = np.zeros(len(kept.member_ids), np.int64)
    np.maximum.at(last, kept.member, kept.time)
    assert len(kept) < len(data.interactions)
    assert len(told) > 0
    assert (told.ended <= last[told.member]).all()


def test_heads_are_products_with_title_vectors() -> None:
    model, query = fitted(), asked()
    signals, products, titles = model.signals(query), model.products(query), model.title_vectors()
    assert list(products) == list(signals)
    assert len(products) > 1
    some = np.array([3, 1, 1])
    for name, product in products.items():
        np.testing.assert_allclose(product.at(titles, some), signals[name][:, some], atol=1e-4)
