"""Which versions are live: followed from the rows and the alias, never half a change."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
import served_home

from matinee.config import Settings, load_settings
from matinee.errors import Unavailable
from matinee.registry.mlflow import Registry
from matinee.serving import versions
from matinee.serving.availability import WINDOW_SCHEMA
from matinee.serving.licences import Licences
from matinee.serving.place import Arm, Shadow, Trial
from matinee.serving.rank import Filters
from matinee.serving.splits import Splits
from matinee.serving.versions import LiveVersions, Plan


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Versions 1 (the champion) and 2, and a version 3 that is no bundle."""
    settings = load_settings({"home": str(tmp_path_factory.mktemp("home"))}, environment={})
    served_home.register_versions(settings)
    folder = settings.home / "broken"
    folder.mkdir()
    (folder / "notes.txt").write_text("not a model")
    registry = Registry(settings)
    with registry.run("broken", config={}) as run:
        registry.register(settings.serving.model, folder, run_id=run.run_id, metrics={})
    return settings


@pytest.fixture
def splits(home: Settings) -> Iterator[Splits]:
    """The home's splits, back to none at the end."""
    found = Splits(home)
    yield found
    for surface in found.rules():
        found.set(surface, {}, who="test", why="clean up")
        found.set_trial(surface, None, who="test", why="clean up")
        found.set_shadow(surface, None, who="test", why="clean up")
        found.set_member(surface, "m1", None, who="test", why="clean up")
    found.close()


@pytest.fixture
def live(home: Settings) -> Iterator[LiveVersions]:
    found = LiveVersions(home)
    found.refresh()
    yield found
    found.close()


def follow(live: LiveVersions) -> Plan:
    for _ in range(versions.CHAMPION_POLLS):
        live.refresh()
    return live.plan


def test_without_a_split_the_champion_serves_and_only_it_is_held(live: LiveVersions) -> None:
    assert live.plan.weights("home") == {"1": 1.0}
    assert set(live.plan.live) == {"1"}
    cell, version = live.plan.version("m1", "home")
    assert (cell, version.name, len(version.titles)) == ("v1", "recommender/1", served_home.TITLES)


def test_the_setting_decides_from_how_many_titles_on_an_index_is_asked(
    live: LiveVersions, home: Settings
) -> None:
    assert not live.plan.live["1"].large
    few = load_settings(
        {"home": str(home.home), "serving.exact_titles": served_home.TITLES - 1}, environment={}
    )
    other = LiveVersions(few)
    other.refresh()
    version = other.plan.live["1"]
    other.close()
    assert version.large
    assert version.retriever is None  # popularity alone is no sum of products


def test_a_split_is_followed_and_left_again(live: LiveVersions, splits: Splits) -> None:
    splits.set("home", {"1": 1, "2": 1}, who="t", why="t")
    plan = follow(live)
    assert plan.weights("home") == {"1": 0.5, "2": 0.5}
    assert plan.weights("search") == {"1": 1.0}
    assert {plan.version(f"m{i}", "home")[0] for i in range(40)} == {"v1", "v2"}
    held = plan.live["1"]
    splits.set("home", {}, who="t", why="t")
    plan = follow(live)
    assert set(plan.live) == {"1"}
    assert plan.live["1"] is held


def test_the_alias_is_followed(live: LiveVersions, home: Settings) -> None:
    registry = Registry(home)
    registry.alias("recommender", "champion", "2")
    assert follow(live).champion == "2"
    registry.alias("recommender", "champion", "1")
    assert follow(live).champion == "1"


@pytest.mark.parametrize("version", ["3", "77"])
def test_a_version_that_does_not_load_takes_nobody(live: LiveVersions, splits: Splits, version: str) -> None:
    splits.set("home", {"1": 1, "2": 3}, who="t", why="t")
    before = follow(live).weights("home")
    splits.set("home", {"1": 1, version: 1}, who="t", why="t")
    splits.set("search", {version: 1}, who="t", why="t")
    plan = follow(live)
    assert plan.weights("home") == before
    assert plan.weights("search") == {"1": 1.0}
    splits.set("home", {"2": 1}, who="t", why="t")
    assert follow(live).weights("home") == {"2": 1.0}


def test_what_is_on_offer_is_followed(live: LiveVersions, home: Settings) -> None:
    plan = live.plan
    titles, filters = plan.live["1"].titles, Filters(country="SE")
    licences = Licences(home)
    licences.set("t3", WINDOW_SCHEMA.empty_table(), who="t", why="t")
    assert titles.allowed(filters, 1).all()
    live.refresh()
    assert np.flatnonzero(~titles.allowed(filters, 1)).tolist() == [3]
    assert live.plan is not plan  # so that no page of before is given again
    assert live.plan == plan
    licences.clear("t3", who="t", why="t")
    live.refresh()
    assert titles.allowed(filters, 1).all()
    licences.close()


def test_it_follows_by_itself_within_a_second(home: Settings, splits: Splits) -> None:
    live = LiveVersions(home)
    live.start()
    splits.set("home", {"2": 1}, who="t", why="t")
    start = time.monotonic()
    while live.plan.weights("home") != {"2": 1.0}:
        assert time.monotonic() - start < 10
        time.sleep(0.01)
    splits.set("home", {"1": 1, "2": 1}, who="t", why="both are loaded")
    start = time.monotonic()
    while live.plan.weights("home") != {"1": 0.5, "2": 0.5}:
        assert time.monotonic() - start < 1
        time.sleep(0.01)
    live.close()


def test_a_plan_without_versions_says_so() -> None:
    with pytest.raises(Unavailable, match="no version of model recommender is live for surface home"):
        Plan(model="recommender").version("m1", "home")


def test_a_trial_is_followed_and_its_end_leaves_the_split(live: LiveVersions, splits: Splits) -> None:
    arms = {"r1-baseline": Arm(version="1", share=0.5), "r1-canary": Arm(version="2", share=0.5)}
    splits.set_trial("home", Trial(salt="r1", arms=arms), who="t", why="t")
    plan = follow(live)
    cells = {plan.version(f"m{i}", "home")[0]: plan.version(f"m{i}", "home")[1].name for i in range(40)}
    assert cells == {"r1-baseline": "recommender/1", "r1-canary": "recommender/2"}
    assert plan.weights("home") == {"1": 0.5, "2": 0.5}
    splits.set_trial("home", None, who="t", why="t")
    assert follow(live).version("m1", "home")[0] == "v1"


def test_a_shadow_or_an_override_that_does_not_load_keeps_no_rollback_waiting(
    live: LiveVersions, splits: Splits
) -> None:
    splits.set_trial("home", Trial(salt="r1", arms={"a": Arm(version="2", share=1.0)}), who="t", why="t")
    assert follow(live).version("m1", "home")[0] == "a"
    splits.set_shadow("home", Shadow(version="3", share=1.0), who="t", why="t")
    splits.set_member("home", "m1", "v77", who="t", why="t")
    splits.set_trial("home", None, who="t", why="roll back")
    live.refresh()
    assert live.plan.version("m1", "home")[0] == "v1"
    assert live.plan.shadow("home", "request") is None


def test_a_version_that_loads_for_long_keeps_no_change_waiting(
    live: LiveVersions, splits: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    loading, go = versions.load_live, threading.Event()
    monkeypatch.setattr(
        versions, "load_live", lambda *given, **named: go.wait(5) and loading(*given, **named)
    )
    splits.set("search", {"2": 1}, who="t", why="t")
    live.refresh(wait=False)
    splits.set("shelf", {"1": 1}, who="t", why="meanwhile")
    live.refresh(wait=False)
    assert live.plan.weights("shelf") == {"1": 1.0}
    assert live.plan.weights("search") == {"1": 1.0}
    assert "search" not in live.plan.rules
    go.set()
    live.refresh()
    assert live.plan.weights("search") == {"2": 1.0}
