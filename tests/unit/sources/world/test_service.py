import json
from collections.abc import Callable, Mapping

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from matinee.errors import InvalidInput, NotFound
from matinee.schema import EVENT_SCHEMA, Candidate, Ranking
from matinee.sources.dataset import Dataset
from matinee.sources.world import Recommend, Shift, World, WorldConfig, small


@pytest.fixture(scope="module")
def history() -> Dataset:
    return World(small(), 5).history(21)


@pytest.fixture(scope="module")
def events(history: Dataset) -> pl.DataFrame:
    frame = pl.from_arrow(history.events)
    assert isinstance(frame, pl.DataFrame)
    return frame


def at_random(world: World) -> Recommend:
    rng = np.random.default_rng(0)
    title_ids = world.catalogue.title_ids
    return lambda member_id, k, context: [title_ids[i] for i in rng.choice(len(title_ids), k, replace=False)]


def watched_hours(make: Callable[[World], Recommend], *, seed: int, slots: int = 20) -> float:
    world = World(small(), seed)
    recommend = make(world)
    log = pa.concat_tables([world.step(recommend) for _ in range(slots)])
    stops = pl.from_arrow(log).filter(pl.col("type") == "stop")  # type: ignore[union-attr]
    return float(stops["value"].sum()) / 3600


def test_history_is_valid_ordered_and_of_every_kind(history: Dataset, events: pl.DataFrame) -> None:
    history.validate()
    assert history.events.schema == EVENT_SCHEMA
    assert events["event_time"].is_sorted()
    assert set(events["type"]) == {"impression", "click", "play", "stop", "rate", "search", "add_to_list"}
    assert history.truth is not None
    assert history.truth.shape == (300, 200)


def test_each_thing_done_refers_to_what_led_to_it(events: pl.DataFrame) -> None:
    rows = {row["event_id"]: row for row in events.to_dicts()}
    causes = {
        "click": {"impression"},
        "add_to_list": {"click"},
        "play": {"click"},
        "stop": {"play"},
        "rate": {"play"},
    }
    for row in rows.values():
        context = json.loads(row["context"]) if row["context"] else {}
        if row["type"] == "search":
            assert context["query"]
        elif row["type"] == "impression":
            assert (row["surface"] == "search") == ("from" in context)
        else:
            cause = rows[context["from"]]
            assert cause["type"] in causes[row["type"]]
            assert cause["event_time"] <= row["event_time"]
            for same in ("member_id", "title_id", "session", "surface", "request_id", "model_version"):
                assert cause[same] == row[same]
        assert (row["request_id"] is not None) == (row["surface"] == "home")


def test_sessions_of_a_member_do_not_overlap(events: pl.DataFrame) -> None:
    spans = (
        events.group_by("member_id", "session")
        .agg(first=pl.col("event_time").min(), last=pl.col("event_time").max())
        .sort("member_id", "first")
        .with_columns(before=pl.col("last").shift(1).over("member_id"))
    )
    assert spans.filter(pl.col("first") <= pl.col("before")).height == 0
    assert spans["member_id"].n_unique() > 250


def test_nobody_plays_what_is_unsuitable_or_unreleased(history: Dataset, events: pl.DataFrame) -> None:
    titles = pl.from_arrow(history.catalogue.table.select(["title_id", "maturity", "release_date"]))
    members = pl.from_arrow(history.members.select(["member_id", "age"]))  # type: ignore[union-attr]
    played = (
        events.filter(pl.col("type").is_in(["impression", "play"]))
        .join(titles, on="title_id")  # type: ignore[arg-type]
        .join(members, on="member_id")  # type: ignore[arg-type]
    )
    assert played.filter(pl.col("age") < 13).height > 100
    assert played.filter(pl.col("maturity") > pl.col("age")).height == 0
    assert played.filter(pl.col("event_time").dt.date() < pl.col("release_date")).height == 0
    later = played.filter(pl.col("release_date") > events["event_time"].min().date())  # type: ignore[union-attr]
    assert later.filter(pl.col("type") == "play").height > 0


def test_a_child_shown_everything_watches_only_what_is_suitable() -> None:
    world = World(WorldConfig(members=200, titles=100, child_share=1.0, page_size=100, seen_depth=900.0), 1)
    log = pl.from_arrow(pa.concat_tables([world.step(at_random(world)) for _ in range(12)]))
    assert isinstance(log, pl.DataFrame)
    titles = pl.from_arrow(world.catalogue.table.select(["title_id", "maturity"]))
    shown = log.join(titles, on="title_id").join(pl.from_arrow(world.members), on="member_id")  # type: ignore[arg-type]
    unsuitable = pl.col("maturity") > pl.col("age")
    assert shown.filter(unsuitable & (pl.col("type") == "impression")).height > 100
    assert shown.filter(unsuitable & (pl.col("type") != "impression")).height == 0
    assert shown.filter(pl.col("type") == "play").height > 50


def test_higher_places_get_more_clicks(events: pl.DataFrame) -> None:
    home = events.filter(pl.col("surface") == "home")
    shown, clicked = (home.filter(pl.col("type") == kind) for kind in ("impression", "click"))
    first, last = (
        clicked.filter(pl.col("position").is_between(low, high)).height
        / shown.filter(pl.col("position").is_between(low, high)).height
        for low, high in ((0, 2), (10, 19))
    )
    assert first > 2 * last


def test_the_same_seed_gives_the_same_events() -> None:
    one, same, other = (World(small(), seed).history(2).events for seed in (8, 8, 9))
    assert one == same
    assert one.drop_columns(["event_id", "session"]) != other.drop_columns(["event_id", "session"])


def test_history_in_two_parts_is_history_in_one() -> None:
    world = World(small(), 8)
    parts = pa.concat_tables([world.history(1).events, world.history(1).events])
    whole = World(small(), 8).history(2).events
    assert parts.sort_by("event_id") == whole.sort_by("event_id")


@pytest.mark.parametrize("seed", [1, 2])
def test_a_better_recommender_gets_more_watch_time(seed: int) -> None:
    def half(world: World) -> Recommend:
        random = at_random(world)

        def page(member_id: str, k: int, context: Mapping[str, object]) -> list[str]:
            good = world.oracle(member_id, k // 4)
            return (good + [one for one in random(member_id, k, context) if one not in good])[:k]  # type: ignore[union-attr,operator]

        return page

    lowest = watched_hours(at_random, seed=seed)
    middle = watched_hours(half, seed=seed)
    highest = watched_hours(lambda world: world.oracle, seed=seed)
    assert highest > middle > 1.2 * lowest
    assert highest > 1.8 * lowest


def test_recommenders_meet_the_same_visitors() -> None:
    one, other = World(small(), 3), World(small(), 3)
    first, second = one.step(one.oracle), other.step(at_random(other))
    assert set(first["session"].to_pylist()) == set(second["session"].to_pylist())


def test_after_a_shift_the_old_favourites_please_less() -> None:
    world = World(WorldConfig(members=300, titles=200, cold_share=0.0, shifts=(Shift(day=5),)), 2)
    who = world.members["member_id"].to_pylist()
    before = world.utility(who)
    world.history(5)
    after = world.utility(who)
    favourites = np.argsort(-before, axis=1)[:, :10]
    old, new = (np.take_along_axis(u, favourites, axis=1).mean() for u in (before, after))
    assert new < old - 0.5
    assert np.array_equal(before, world.utility(who, at=world.config.start))


def test_a_ranking_names_its_request_version_and_cell_in_every_event() -> None:
    world = World(small(), 4)
    asked: list[tuple[str, int, Mapping[str, object]]] = []

    def recommend(member_id: str, k: int, context: Mapping[str, object]) -> Ranking:
        asked.append((member_id, k, context))
        page = [Candidate(title_id=one, score=1.0) for one in world.oracle(member_id, k)]
        return Ranking(
            request_id=f"r-{member_id}",
            member_id=member_id,
            surface="home",
            model_version="7",
            cell="b",
            answer="personal",
            candidates=page,
        )

    log = pl.from_arrow(pa.concat_tables([world.step(recommend, k=5) for _ in range(4)]))
    assert isinstance(log, pl.DataFrame)
    home = log.filter(pl.col("surface") == "home")
    assert home.select("model_version", "cell").unique().rows() == [("7", "b")]
    assert (home["request_id"] == "r-" + home["member_id"]).all()
    assert log.filter(pl.col("surface") == "search")["request_id"].null_count() > 0
    assert home["position"].max() == 4
    assert {k for _, k, _ in asked} == {5}
    assert asked[0][2]["surface"] == "home"
    assert asked[0][2]["session"] in set(log["session"])


def test_the_oracle_leaves_out_what_was_watched() -> None:
    world = World(small(), 4)
    log = pa.concat_tables([world.step(world.oracle) for _ in range(8)])
    played = pl.from_arrow(log).filter(pl.col("type") == "play")  # type: ignore[union-attr]
    assert played.height > 20
    assert played.select("member_id", "title_id").is_unique().mean() > 0.95  # type: ignore[operator]
    member_id, title_id = played.select("member_id", "title_id").row(0)
    assert title_id not in world.oracle(member_id, 200)


def test_bad_answers_and_unknown_names_are_refused() -> None:
    world = World(small(), 4)
    with pytest.raises(InvalidInput, match="title 'nope' is not in"):
        world.step(lambda member_id, k, context: ["nope"])
    with pytest.raises(InvalidInput, match="names a title twice"):
        world.step(lambda member_id, k, context: ["t00001", "t00001"])
    with pytest.raises(InvalidInput, match="k is 0"):
        world.step(world.oracle, k=0)
    with pytest.raises(InvalidInput, match=r"days is 0\.1"):
        world.history(0.1)
    with pytest.raises(NotFound, match="member 'x'"):
        world.oracle("x", 3)


def test_an_empty_page_is_an_answer() -> None:
    world = World(small(), 4)
    log = pa.concat_tables([world.step(lambda member_id, k, context: []) for _ in range(4)])
    assert set(log["surface"].to_pylist()) == {"search"}
