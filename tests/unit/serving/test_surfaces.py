"""Answers of every surface while models sleep, hang and raise: always there, and they say what they are."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pytest
import served_home

from matinee.config import Settings, load_settings
from matinee.errors import InvalidInput, NotFound, Unavailable
from matinee.features.online import MemberState
from matinee.models.base import Model, Progress, Query, Scores, TrainingSet
from matinee.models.bundle import Bundle
from matinee.serving.availability import WINDOW_SCHEMA, Listed
from matinee.serving.page_cache import PageCache
from matinee.serving.page_memory import Held
from matinee.serving.page_stores import SqlitePages
from matinee.serving.pages import HomeRequest
from matinee.serving.place import Rules, Shadow
from matinee.serving.rank import Filters, Titles
from matinee.serving.recommender import Recommender, Request
from matinee.serving.similar import SimilarRequest
from matinee.serving.surfaces import Surfaces
from matinee.serving.versions import Live, Plan

ALL = tuple(range(served_home.TITLES))


class Part(Model):
    """Scores a title by its position, times a factor."""

    def __init__(self, config: float = 1.0) -> None:
        self._factor = config

    def fit(self, data: TrainingSet, *, seed: int, progress: Progress | None = None) -> None: ...

    def score(self, query: Query) -> Scores:
        return np.tile(np.arange(served_home.TITLES, dtype=np.float32) * self._factor, (len(query), 1))

    def save(self, folder: Path) -> None: ...

    @classmethod
    def load(cls, folder: Path) -> Self:
        return cls()


class Whole(Part):
    """Two parts; `trouble` happens before it scores."""

    def __init__(self, config: float = 1.0) -> None:
        self.members = {"cf": Part(-1.0), "popularity": Part(0.5)}
        self.trouble: Callable[[], object] = int

    def score(self, query: Query) -> Scores:
        return np.sum(list(self.score_parts(query).values()), axis=0, dtype=np.float32)

    def score_parts(self, query: Query) -> dict[str, Scores]:
        self.trouble()
        return {name: model.score(query) for name, model in self.members.items()}


class Exposed:
    """Keeps what was shown."""

    def __init__(self) -> None:
        self.answers: list[Any] = []

    def put(self, answer: Any, *, latency_ms: float) -> None:
        assert latency_ms > 0
        self.answers.append(answer)


@pytest.fixture
def model() -> Whole:
    return Whole()


@pytest.fixture
def exposed() -> Exposed:
    return Exposed()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    values = {"home": str(tmp_path_factory.mktemp("home")), "serving.deadline_ms": 150.0}
    return load_settings(values, environment={})


@pytest.fixture
def surfaces(
    home: Settings, tmp_path: Path, model: Whole, exposed: Exposed, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Surfaces]:
    """Version 1 is the model, and the feature store says at once that it does not answer."""
    catalogue = served_home.catalogue()
    listed = Listed(number=1, windows=pa.table([["t59"], ["SE"], [None], [None]], schema=WINDOW_SCHEMA))
    positions = {title_id: place for place, title_id in enumerate(catalogue.title_ids)}
    bundle = Bundle(name="whole", model=model, catalogue=catalogue, positions=positions)
    live = Live(name="recommender/1", bundle=bundle, titles=Titles(catalogue, lambda: listed))
    assert live.cold is not None
    assert live.columns is not None
    assert set(live.parts) == {"cf", "popularity"}
    recommender = Recommender(home)
    monkeypatch.setattr(recommender, "_state", lambda *_: (None, "features_unavailable"))
    monkeypatch.setattr(recommender, "written", lambda *_: ({"v": None}, set()))
    recommender._versions.plan = Plan(model="recommender", champion="1", live={"1": live})
    cache = PageCache(SqlitePages(tmp_path / "pages.db", keep_s=60), ttl_s=60)
    made = Surfaces(home, recommender, exposed, threads=2, cache=cache)  # type: ignore[arg-type]
    yield made
    made.close()
    recommender.close()


def test_without_trouble_the_version_answers(surfaces: Surfaces, exposed: Exposed) -> None:
    answer = asyncio.run(surfaces.recommend(Request(member_id="m", k=3)))
    assert answer.fallback is None
    assert answer.reason == "features_unavailable"
    page = asyncio.run(surfaces.home(HomeRequest(member_id="m")))
    assert (page.fallback, page.page.cell) == (None, "v1")
    assert exposed.answers == [answer, page]
    assert surfaces.ladder.answered == {"live": 2}


def test_a_defect_of_ours_is_not_held_against_the_version(
    surfaces: Surfaces, monkeypatch: pytest.MonkeyPatch
) -> None:
    def defect(*_: object) -> object:
        raise KeyError("ours")

    with monkeypatch.context() as patched:
        patched.setattr("matinee.serving.surfaces.page_of", defect)
        for _ in range(5):
            with pytest.raises(Unavailable):
                asyncio.run(surfaces.home(HomeRequest(member_id="m")))
    assert asyncio.run(surfaces.home(HomeRequest(member_id="m"))).fallback is None


@pytest.mark.parametrize(("country", "shown"), [("SE", True), ("FR", False), (None, False)])
def test_a_title_is_shown_only_where_it_is_on_offer(
    surfaces: Surfaces, country: str | None, shown: bool
) -> None:
    filters = Filters(country=country)
    answer = asyncio.run(surfaces.recommend(Request(member_id="m", k=60, filters=filters)))
    assert ("t59" in [candidate.title_id for candidate in answer.ranking.candidates]) == shown
    page = asyncio.run(surfaces.home(HomeRequest(member_id="m", filters=filters))).page
    assert (b'"t59"' in page.rows) == shown
    similar = asyncio.run(surfaces.similar(SimilarRequest(title_id="t1", k=60, filters=filters)))
    assert ("t59" in [title_id for title_id, *_ in similar.titles]) == shown
    assert b'"t59"' not in asyncio.run(surfaces.home(HomeRequest(member_id="m"))).page.rows


def test_a_model_that_raises_gives_way_to_its_parts(surfaces: Surfaces, model: Whole) -> None:
    def broken() -> None:
        raise RuntimeError("broken")

    model.trouble = broken
    for _ in range(6):
        answer = asyncio.run(surfaces.recommend(Request(member_id="m", k=3)))
        assert answer.fallback in ("part:cf", "part:popularity")
        part = answer.fallback.removeprefix("part:")
        assert list(answer.ranking.candidates[0].contributions) == [part]
        first = {"cf": "t0", "popularity": "t58"}[part]
        assert answer.ranking.candidates[0].title_id == first
    page = asyncio.run(surfaces.home(HomeRequest(member_id="m")))
    assert page.fallback == page.page.fallback == answer.fallback


def test_when_every_model_hangs_popular_titles_come_by_the_deadline(
    surfaces: Surfaces, model: Whole, exposed: Exposed
) -> None:
    release = threading.Event()
    hang = lambda *_: release.wait(20)  # noqa: E731
    model.trouble = hang
    for part in model.members.values():
        part.score = hang  # type: ignore[method-assign, assignment]

    async def many() -> list[Any]:
        asks = [surfaces.recommend(Request(member_id=f"m{i}", k=5)) for i in range(20)]
        pages = [
            surfaces.home(HomeRequest(member_id=f"m{i}", filters=Filters(max_maturity=7))) for i in range(20)
        ]
        return await asyncio.gather(*asks, *pages)

    start = time.monotonic()
    answers = asyncio.run(many())
    assert time.monotonic() - start < 1.0
    assert {answer.fallback for answer in answers} == {"popular"}
    assert [c.title_id for c in answers[0].ranking.candidates] == ["t0", "t1", "t2", "t3", "t4"]
    assert answers[0].ranking.answer == "cold_start"
    assert len(exposed.answers) == 40
    deadline = start + 5
    while time.monotonic() - start > 0.05:
        assert start < deadline, "the breaker does not skip what hangs"
        start = time.monotonic()
        asyncio.run(surfaces.recommend(Request(member_id="m")))
    release.set()


def test_a_feature_store_that_hangs_is_gone_without(
    surfaces: Surfaces, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = threading.Event()
    monkeypatch.setattr(surfaces._recommender, "_state", lambda *_: (None, str(release.wait(20))))
    for _ in range(5):
        answer = asyncio.run(surfaces.recommend(Request(member_id="m", k=3)))
        assert answer.reason == "features_unavailable"
        assert answer.fallback != "popular"
    assert answer.fallback is None, "the store alone is left alone, not the version"
    release.set()


def test_titles_like_a_title(surfaces: Surfaces) -> None:
    found = asyncio.run(surfaces.similar(SimilarRequest(title_id="t4", k=5)))
    assert (found.by, found.fallback, len(found.titles)) == ("watches", None, 5)
    assert "t4" not in [title_id for title_id, _, _ in found.titles]
    child = asyncio.run(
        surfaces.similar(SimilarRequest(title_id="t4", k=60, filters=Filters(max_maturity=7)))
    )
    assert {int(title_id[1:]) % 5 for title_id, _, _ in child.titles} == {0, 1}
    with pytest.raises(NotFound, match="'t999'"):
        asyncio.run(surfaces.similar(SimilarRequest(title_id="t999")))
    with pytest.raises(InvalidInput, match="k is 0"):
        asyncio.run(surfaces.similar(SimilarRequest(title_id="t4", k=0)))


def test_likeness_that_hangs_gives_way_to_popular_titles(surfaces: Surfaces, model: Whole) -> None:
    release = threading.Event()
    model.members["cf"].score = lambda _: release.wait(20)  # type: ignore[method-assign, assignment, return-value]
    found = asyncio.run(surfaces.similar(SimilarRequest(title_id="t4", k=5)))
    assert (found.by, found.fallback, len(found.titles)) == ("popularity", "popular", 5)
    release.set()


@pytest.fixture
def known(surfaces: Surfaces, monkeypatch: pytest.MonkeyPatch) -> dict[str, MemberState]:
    """What the feature store holds; members are put in by the test."""
    held: dict[str, MemberState] = {}

    def state(member_id: str, _: str) -> tuple[MemberState | None, str | None]:
        found = held.get(member_id)
        return found, None if found else "unknown_member"

    monkeypatch.setattr(surfaces._recommender, "_state", state)
    return held


def member(*titles: int, event_time: int = 99) -> MemberState:
    return MemberState(
        member_id="m",
        watched_title_ids=[f"t{title}" for title in titles],
        watched_times=list(range(len(titles))),
        features={"affinity[Drama]": 1.0},
        event_time=event_time,
    )


def ask(surfaces: Surfaces, **given: Any) -> Any:
    return asyncio.run(surfaces.home(HomeRequest(member_id="m", **given)))


def kept(surfaces: Surfaces, **given: Any) -> Any:
    """A first page, once it is kept."""
    first = ask(surfaces, **given)
    deadline = time.monotonic() + 5
    while ask(surfaces, **given).page.made_at != first.page.made_at:
        first = ask(surfaces, **given)
        assert time.monotonic() < deadline
    return first


def test_a_page_is_shown_again_until_the_member_does_something(
    surfaces: Surfaces, known: dict[str, MemberState], exposed: Exposed
) -> None:
    known["m"] = member(3, 4)
    first = kept(surfaces)
    again = ask(surfaces)
    assert (again.page, again.fallback) == (first.page, None)
    assert again.time > again.page.made_at
    assert again.request_id != first.request_id
    assert exposed.answers[-1] is again
    assert ask(surfaces, filters=Filters(max_maturity=7)).page.rows != first.page.rows
    known["m"] = member(3, 4, 5, event_time=100)
    newer = ask(surfaces)
    assert newer.page.features_time == 100
    assert newer.page.made_at > first.page.made_at
    kept(surfaces)
    surfaces.touch(["m"])
    assert ask(surfaces).page.made_at > newer.page.made_at


def at_hand(surfaces: Surfaces, asked: str = "/m") -> Held:
    """The page that answered `asked`, once it is at hand."""
    asyncio.run(surfaces.home(HomeRequest(member_id="m"), asked))
    deadline = time.monotonic() + 5
    while (held := surfaces.at_hand(asked)) is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
        asyncio.run(surfaces.home(HomeRequest(member_id="m"), asked))
    return held


def test_a_page_at_hand_is_given_as_the_first_time(
    surfaces: Surfaces, known: dict[str, MemberState], exposed: Exposed
) -> None:
    known["m"] = member(3, 4)
    held = at_hand(surfaces)
    assert surfaces.at_hand("/other") is None
    whole = exposed.answers[-1]
    counted = surfaces.ladder.answered["live"]
    given = json.loads(surfaces.give(held))
    expected = json.loads(whole.json())
    for name in ("request_id", "age_s"):
        assert given.pop(name) != expected.pop(name)
    assert given == expected
    assert surfaces.ladder.answered["live"] == counted + 1
    again = exposed.answers[-1]
    assert (again.exposure, again.time > whole.time) == (held.exposure, True)


def test_a_page_is_not_at_hand_once_something_happened(
    surfaces: Surfaces, known: dict[str, MemberState]
) -> None:
    known["m"] = member(3, 4)
    at_hand(surfaces)
    surfaces.touch(["other", "m"])
    assert surfaces.at_hand("/m") is None
    at_hand(surfaces)
    versions = surfaces._recommender._versions
    versions.plan = replace(versions.plan)
    assert surfaces.at_hand("/m") is None
    at_hand(surfaces)


def test_a_page_is_not_at_hand_where_something_happened_while_it_was_made(
    surfaces: Surfaces, known: dict[str, MemberState], model: Whole
) -> None:
    known["m"] = member(3, 4)
    model.trouble = lambda: surfaces.touch(["m"])
    for _ in range(10):  # a page that comes while the store is asked is not taken either
        assert asyncio.run(surfaces.home(HomeRequest(member_id="m"), "/m")).fallback is None
        assert surfaces.at_hand("/m") is None
        time.sleep(0.03)


def test_what_stands_in_is_never_at_hand(
    surfaces: Surfaces, known: dict[str, MemberState], model: Whole
) -> None:
    def broken(*_: object) -> Any:
        raise RuntimeError("broken")

    known["m"] = member(3, 4)
    model.trouble = broken
    for _ in range(3):
        assert asyncio.run(surfaces.home(HomeRequest(member_id="m"), "/m")).fallback
    assert not surfaces._pages._pages


def test_a_shadow_answers_for_pages_at_hand_too(
    surfaces: Surfaces, known: dict[str, MemberState], monkeypatch: pytest.MonkeyPatch
) -> None:
    known["m"] = member(3, 4)
    versions = surfaces._recommender._versions
    rules = Rules(shadow=Shadow(version="1", share=1.0))
    versions.plan = replace(versions.plan, rules={"home": rules})
    held = at_hand(surfaces)
    seen: list[Any] = []
    monkeypatch.setattr(surfaces._recommender, "shadow", lambda *given: seen.append(given))
    surfaces.give(held)
    ((request, request_id),) = seen
    assert (request.member_id, request.k, len(request_id)) == ("m", 20, 36)


def test_a_kept_page_stands_in_for_models_that_raise(
    surfaces: Surfaces, known: dict[str, MemberState], model: Whole
) -> None:
    known["m"] = member(3, 4)
    first = kept(surfaces)

    def broken(*_: object) -> Any:
        raise RuntimeError("broken")

    model.trouble = broken
    for part in model.members.values():
        part.score = broken  # type: ignore[method-assign]
    known["m"] = member(3, 4, 5, event_time=100)
    page = ask(surfaces)
    assert (page.page, page.fallback) == (first.page, "cached")
    answer = asyncio.run(surfaces.recommend(Request(member_id="m", k=4)))
    assert answer.fallback == "cached"
    assert answer.made_at == first.page.made_at
    scores = [candidate.score for candidate in answer.ranking.candidates]
    assert scores == sorted(scores, reverse=True)
    assert len(scores) == 4
    other = asyncio.run(surfaces.recommend(Request(member_id="n", k=4)))
    assert other.fallback == "popular"


def test_a_kept_page_stands_in_where_the_feature_store_is_gone(
    surfaces: Surfaces, known: dict[str, MemberState], monkeypatch: pytest.MonkeyPatch
) -> None:
    known["m"] = member(3, 4)
    first = kept(surfaces)
    gone = (None, "features_unavailable")
    monkeypatch.setattr(surfaces._recommender, "_state", lambda *_: gone)
    page = ask(surfaces)
    assert (page.page, page.fallback) == (first.page, "cached")
