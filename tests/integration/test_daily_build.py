"""The daily build over a home: here and on Ray the same, carried over, and as Feast materializes it."""

import random
import warnings
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest
from aggregate_examples import BEGIN, DAY, any_log, any_view, table_of

from matinee.events import lake
from matinee.features import batch, daily, offline
from matinee.features.history_rows import history_rows
from matinee.features.store import FeatureStore
from matinee.schema import CATALOGUE_SCHEMA, Aggregate, Catalogue, Expectation, Function, Window

TITLES = [f"t{i}" for i in range(6)]


@pytest.fixture
def home(settings):
    columns = {
        "title_id": TITLES,
        "name": TITLES,
        **dict.fromkeys(("genres", "cast", "keywords"), [["a"]] * 6),
    }
    arrays = [pa.array(columns.get(field.name, [None] * 6), field.type) for field in CATALOGUE_SCHEMA]
    Catalogue(table=pa.table(arrays, schema=CATALOGUE_SCHEMA)).write(settings.paths.catalogue)
    return settings


def log_of(seed, count):
    """A log whose watches name a title, as those of a lake do."""
    log = any_log(random.Random(seed), count)
    return [event for event in log if event["title_id"] is not None or event["type"] == "search"]


def add(settings, log):
    lake.write_part(settings.paths.events, table_of(log), cluster="c")


def rows_of(settings, view):
    rows = offline.read(settings.paths.feast / "offline", view)
    return sorted(map(str, rows.to_pylist()))


def test_ray_and_one_process_write_the_same_rows_and_a_second_run_writes_none(home, ray_cluster):
    draw = random.Random(5)
    views = {name: any_view(draw, name) for name in ("a", "b", "c")}
    log = log_of(5, 400)
    add(home, log[:250])
    other = home.model_copy(update={"home": home.home / "other"})
    other.paths.catalogue.parent.mkdir(parents=True)
    other.paths.catalogue.write_bytes(home.paths.catalogue.read_bytes())
    add(other, log[:250])
    for part in (None, log[250:]):
        if part:
            add(home, part)
            add(other, part)
        here = batch.build(home, views=views)
        there = batch.build(other, views=views, one_process=0)
        assert here["written"]
        assert here["rows"] == there["rows"]
        for view in here["rows"]:
            assert rows_of(home, view) == rows_of(other, view)
    everything = lake.read_events(home.paths.events)
    for name, view in views.items():
        assert rows_of(home, name) == sorted(map(str, history_rows(view, everything).to_pylist()))
    before = sorted(path for path in home.paths.feast.rglob("*") if path.name != ".lock")
    again = batch.build(home, views=views)
    assert (again["written"], again["build"], again["rows"]) == (False, here["build"], here["rows"])
    assert set(again["computed"].values()) == {0}
    assert sorted(path for path in home.paths.feast.rglob("*") if path.name != ".lock") == before


def test_what_feast_materializes_are_our_latest_rows(home):
    store = FeatureStore(home)
    store.apply()
    views = store.aggregate_views()
    log = log_of(6, 400)
    add(home, log[:200])
    batch.build(home)
    add(home, log[200:])
    assert batch.build(home)["written"]
    begin = datetime.fromtimestamp(BEGIN / 1e6, UTC)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        store._open().materialize(
            begin - timedelta(days=1), begin + timedelta(days=30), feature_views=list(views)
        )
    report = batch.compare(home)
    assert {"member_engagement", "title_engagement"} <= set(views)
    for view in views:
        assert report[view]["rows"] > 0
        assert not report[view]["differing"]
    for view in views.values():
        held = offline.read(home.paths.feast / "offline", view.name)
        times = held["event_timestamp"].cast(pa.int64()).to_numpy() // DAY
        spans = daily.read_ledger(home.paths.feast / "offline").views[view.name].spans
        assert (min(times), max(times)) == (spans[0].first, spans[-1].last)


def test_later_events_are_left_out_and_come_back(home):
    views = {"a": any_view(random.Random(9), "a")}
    log = log_of(9, 120)
    add(home, log)
    until = sorted(event["event_time"] for event in log)[60]
    for as_of in (until, None, until):
        batch.build(home, views=views, as_of=as_of)
        known = [event for event in log if as_of is None or event["event_time"] <= as_of]
        expected = history_rows(views["a"], table_of(known)).to_pylist()
        assert rows_of(home, "a") == sorted(map(str, expected))


def test_a_build_that_is_not_what_is_expected_is_reported_or_held(home):
    draw = random.Random(8)
    view = any_view(draw, "a")
    count = Aggregate(
        name="few",
        function=Function.COUNT,
        window=Window.unbounded(),
        types=view.types,
        expect=Expectation(high=0),
    )
    views = {"a": replace(view, aggregates=(*view.aggregates, count))}
    add(home, log_of(8, 60))
    first = batch.build(home, views={})
    reported = batch.build(home, views=views)
    assert reported["written"]
    (violation,) = (each for each in reported["violations"] if each["feature"] == "few")
    assert (violation["rule"], violation["limit"]) == ("high", 0)
    holding = home.model_copy(update={"features": home.features.model_copy(update={"gate": "hold"})})
    add(home, log_of(9, 10))
    held = batch.build(holding, views=views)
    assert "few" in held["held"]
    assert not held["written"]
    manifest = offline.read_manifest(home.paths.feast / "offline")
    assert manifest.build == reported["build"] != first["build"]
    assert not (home.paths.feast / "offline" / held["build"]).exists()
