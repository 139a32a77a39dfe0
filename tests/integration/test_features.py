"""The features through a real broker, Ray and Feast: exact, across workers, repeats, deaths and restarts."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from matinee.config import load_settings
from matinee.errors import NotFound, StorageError, Unavailable
from matinee.events import dead_letters, lake
from matinee.events.broker import LocalBroker
from matinee.events.encode import encode_event
from matinee.events.kafka import EventProducer, ensure_topics
from matinee.features import batch, stream
from matinee.features.commits import Commits
from matinee.features.group import Views
from matinee.features.join import training_rows
from matinee.features.keeper import Keeper
from matinee.features.online import OnlineReader
from matinee.features.titles import genres_of
from matinee.features.worker import Worker
from matinee.schema import (
    CATALOGUE_SCHEMA,
    Aggregate,
    AggregateView,
    Catalogue,
    Event,
    EventType,
    Function,
    Window,
)

MEMBERS, TITLES = 40, 60
DAY = 86_400_000_000
BEGIN = 900_000_000_000_000
GENRES = ["Comedy", "Drama", "Noir", "War"]


def catalogue():
    columns = {
        "title_id": [f"t{i}" for i in range(TITLES)],
        "name": [f"Title {i}" for i in range(TITLES)],
        "genres": [GENRES[i % 4 : i % 4 + 1 + i % 2] for i in range(TITLES)],
        "cast": [[]] * TITLES,
        "keywords": [[]] * TITLES,
    }
    arrays = [
        pa.array(columns[f.name], f.type) if f.name in columns else pa.nulls(TITLES, f.type)
        for f in CATALOGUE_SCHEMA
    ]
    return Catalogue(table=pa.table(arrays, schema=CATALOGUE_SCHEMA))


def events(count, *, seed, prefix):
    """Events in no order of time, many at equal times."""
    draw = random.Random(seed)
    kinds = [EventType.PLAY, EventType.RATE, EventType.CLICK, EventType.SEARCH]
    made = []
    for i in range(count):
        kind = draw.choices(kinds, [4, 4, 2, 1])[0]
        made.append(
            Event(
                event_id=f"{prefix}-{i}",
                type=kind,
                member_id=f"m{draw.randrange(MEMBERS)}",
                title_id=None if kind is EventType.SEARCH else f"t{draw.randrange(TITLES)}",
                event_time=BEGIN + draw.randrange(400) * DAY // 10,
                value=draw.choice([0.5, 3.0, 4.7]) if kind is EventType.RATE else None,
            )
        )
    return made


def send(settings, bootstrap, sent, bad=()):
    producer = EventProducer(settings.kafka, bootstrap)
    topic = settings.kafka.events_topic
    producer.send_many(topic, [e.member_id for e in sent], [encode_event(e) for e in sent])
    producer.send_many(topic, [f"m{i}" for i in range(len(bad))], list(bad))
    producer.flush(10)
    producer.close()


def until(condition, timeout_s=30.0):
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return False


def in_lake(settings):
    return sorted(lake.read_events(settings.paths.events, columns=["event_id"])["event_id"].to_pylist())


def assert_equal(settings):
    for view, result in batch.compare(settings).items():
        assert not result["differing"], (view, result)
        assert result["rows"] == result["equal"] > 0


@pytest.fixture
def home(tmp_path):
    settings = load_settings({"home": str(tmp_path / "home"), "stream.heartbeat_s": 0.3}, environment={})
    catalogue().write(settings.paths.catalogue)
    return settings


@pytest.fixture
def broker(tmp_path):
    with LocalBroker(tmp_path / "broker.log") as running:
        yield running


class Online:
    """Stands where the online store does: the latest row of each key."""

    def __init__(self):
        self.rows = {}
        self.full = ""
        self.lost = 0

    def write_online(self, view, table):
        if view == self.full:
            raise StorageError("online store: no room")
        for row in table.to_pylist():
            key = row.get("member_id", row.get("title_id"))
            self.rows[view, key] = row

    def generation(self):
        return str(self.lost)


HISTORIES = Views(aggregates=[])
ENGAGEMENT = Views(
    histories=[],
    aggregates=[
        AggregateView(
            name=f"{key}_counts",
            key=key,
            lateness=None,
            aggregates=(
                Aggregate(name="events", function=Function.COUNT, window=Window.unbounded()),
                Aggregate(
                    name="stars",
                    function=Function.SUM,
                    column="value",
                    window=Window.tumbling(timedelta(days=7)),
                ),
                Aggregate(
                    name="last", function=Function.LAST_N, column="type", n=3, window=Window.unbounded()
                ),
            ),
        )
        for key in ("member_id", "title_id")
    ],
)
BOTH = Views(aggregates=ENGAGEMENT.aggregates)


def run_workers(settings, bootstrap, placed, online, views=BOTH):
    keeper = Keeper(views=views.of("title_id"), genres=genres_of(catalogue()), online=online)
    if views.histories:
        keeper.restore(lake.read_events(settings.paths.events), lake.ends(settings.paths.events))
    epoch = Commits(settings.stream_state).begin({f"worker-{i}": group for i, group in enumerate(placed)})
    workers = [
        Worker(
            settings,
            bootstrap,
            name=f"worker-{i}",
            partitions=group,
            views=views,
            keeper=keeper,
            online=online,
            epoch=epoch.number,
        )
        for i, group in enumerate(placed)
    ]
    for worker in workers:
        worker.start()
    return workers


def recomputed(settings, views=BOTH):
    """Every view's latest rows from the lake, by view and key."""
    tables = batch.latest(settings, views={view.name: view for view in views.aggregates})
    if not views.histories:
        tables = {view.name: tables[view.name] for view in views.aggregates}
    return {
        (name, row[table.schema.names[0]]): row for name, table in tables.items() for row in table.to_pylist()
    }


def counts(worker):
    return worker.status()["counts"]


def test_two_workers_leave_what_one_leaves(home, broker, tmp_path):
    ensure_topics(home.kafka, broker.bootstrap)
    sent = events(1500, seed=1, prefix="a")
    send(home, broker.bootstrap, sent + sent[:100])
    left = []
    for name, placed in (("one", [[0, 1, 2, 3]]), ("two", [[0, 2], [1, 3]])):
        settings = home.model_copy(update={"home": tmp_path / name})
        catalogue().write(settings.paths.catalogue)
        online = Online()
        workers = run_workers(settings, broker.bootstrap, placed, online)
        assert until(lambda running=workers: all(worker.caught_up() for worker in running))
        reports = [worker.status() for worker in workers]
        for worker in workers:
            worker.stop()
        assert sum(report["counts"]["events"] for report in reports) == 1500
        assert sum(report["counts"]["duplicates"] for report in reports) == 100
        left.append((online.rows, in_lake(settings)))
    assert left[0] == left[1]
    assert left[0][1] == sorted(e.event_id for e in sent)
    assert left[0][0] == recomputed(settings)


def test_partitions_move_between_workers_with_their_state(home, broker):
    ensure_topics(home.kafka, broker.bootstrap)
    everything = []
    for number, placed in enumerate([[[0, 1, 2, 3]], [[0], [1], [2], [3]], [[0, 2], [1, 3]]]):
        sent = events(400, seed=20 + number, prefix=f"p{number}")
        everything += sent
        online = Online()
        workers = run_workers(home, broker.bootstrap, placed, online)
        send(home, broker.bootstrap, sent + everything[:50])
        assert until(lambda running=workers: all(worker.caught_up() for worker in running))
        for worker in workers:
            worker.stop()
        assert online.rows == recomputed(home)
        assert in_lake(home) == sorted(e.event_id for e in everything)


def test_a_worker_whose_partitions_were_placed_anew_commits_nothing_more(home, broker):
    ensure_topics(home.kafka, broker.bootstrap)
    (old,) = run_workers(home, broker.bootstrap, [[0, 1, 2, 3]], Online())
    send(home, broker.bootstrap, events(100, seed=30, prefix="a"))
    assert until(old.caught_up)
    online = Online()
    (new,) = run_workers(home, broker.bootstrap, [[0, 1, 2, 3]], online)
    send(home, broker.bootstrap, events(100, seed=31, prefix="b"))
    assert until(new.caught_up)
    assert until(lambda: old.status()["state"] == "fenced")
    old.stop()
    new.stop()
    assert len(in_lake(home)) == 200
    assert online.rows == recomputed(home)


def test_a_view_that_is_new_or_changed_is_filled_from_the_lake_and_goes_on(home, broker):
    ensure_topics(home.kafka, broker.bootstrap)
    (worker,) = run_workers(home, broker.bootstrap, [[0, 1, 2, 3]], Online(), HISTORIES)
    send(home, broker.bootstrap, events(300, seed=32, prefix="a"))
    assert until(worker.caught_up)
    worker.stop()
    first = ENGAGEMENT.aggregates[0]
    longer = replace(first, aggregates=(*first.aggregates, replace(first.aggregates[2], name="more", n=7)))
    changed = Views(histories=[], aggregates=[longer, ENGAGEMENT.aggregates[1]])
    for number, views in enumerate([ENGAGEMENT, changed]):
        online = Online()
        (worker,) = run_workers(home, broker.bootstrap, [[0, 1, 2, 3]], online, views)
        send(home, broker.bootstrap, events(200, seed=33 + number, prefix=f"b{number}"))
        assert until(worker.caught_up)
        worker.stop()
        assert online.rows == recomputed(home, views)
    assert len(in_lake(home)) == 700


def test_changes_that_could_not_be_committed_are_in_the_next_commit(home, broker):
    ensure_topics(home.kafka, broker.bootstrap)
    (worker,) = run_workers(home, broker.bootstrap, [[0, 1, 2, 3]], Online(), ENGAGEMENT)
    in_the_way = home.paths.stream / "000001-worker-0.json.draft"
    send(home, broker.bootstrap, events(1, seed=50, prefix="a"))
    assert until(worker.caught_up)
    in_the_way.mkdir()
    send(home, broker.bootstrap, events(200, seed=51, prefix="b"))
    assert until(lambda: worker.status()["state"] == "failed")
    in_the_way.rmdir()
    send(home, broker.bootstrap, events(1, seed=52, prefix="c"))
    assert until(worker.caught_up)
    assert len(worker._done.files) > 1
    worker.stop()
    online = Online()
    (worker,) = run_workers(home, broker.bootstrap, [[0, 1, 2, 3]], online, ENGAGEMENT)
    assert until(worker.caught_up)
    worker.stop()
    assert online.rows == recomputed(home, ENGAGEMENT)


def test_an_online_store_that_lost_its_values_gets_all_of_them_again(home, broker):
    ensure_topics(home.kafka, broker.bootstrap)
    online = Online()
    (worker,) = run_workers(home, broker.bootstrap, [[0, 1, 2, 3]], online)
    try:
        send(home, broker.bootstrap, events(200, seed=36, prefix="a"))
        assert until(worker.caught_up)
        online.rows.clear()
        online.lost += 1
        send(home, broker.bootstrap, events(1, seed=37, prefix="b"))
        assert until(worker.caught_up)
        assert until(lambda: online.rows == recomputed(home))
    finally:
        worker.stop()


def test_a_home_that_cannot_be_written_fails_openly_and_loses_nothing(home, broker):
    ensure_topics(home.kafka, broker.bootstrap)
    in_the_way = home.paths.stream / "000001-worker-0.json.draft"
    in_the_way.mkdir(parents=True)
    sent = events(300, seed=2, prefix="a")
    send(home, broker.bootstrap, sent, bad=[b"no event"])
    (worker,) = run_workers(home, broker.bootstrap, [[0, 1, 2, 3]], Online())
    try:
        assert until(lambda: worker.status()["state"] == "failed")
        assert "stream" in worker.status()["reason"]
        assert not worker.caught_up()
        in_the_way.rmdir()
        assert until(worker.caught_up)
        assert worker.status()["state"] == "running"
    finally:
        worker.stop()
    assert in_lake(home) == sorted(e.event_id for e in sent)
    (letter,) = dead_letters.read_all(home.kafka, broker.bootstrap)
    assert letter["reason"]


def test_an_online_store_that_fails_gets_the_rows_later(home, broker):
    ensure_topics(home.kafka, broker.bootstrap)
    online = Online()
    online.full = "title_popularity"
    (worker,) = run_workers(home, broker.bootstrap, [[0, 1, 2, 3]], online)
    try:
        send(home, broker.bootstrap, events(200, seed=3, prefix="a"))
        assert until(lambda: worker.status()["state"] == "failed")
        assert in_lake(home) == []
        online.full = ""
        assert until(worker.caught_up)
        report = counts(worker)
    finally:
        worker.stop()
    assert (report["events"], report.get("duplicates", 0)) == (200, 0)
    assert online.rows == recomputed(home)


def test_a_new_broker_starts_at_nought_while_state_and_dedupe_stay(home, broker):
    ensure_topics(home.kafka, broker.bootstrap)
    sent = events(200, seed=4, prefix="a")
    (worker,) = run_workers(home, broker.bootstrap, [[0, 1, 2, 3]], Online())
    try:
        send(home, broker.bootstrap, sent)
        assert until(worker.caught_up)
        broker.stop()
        broker.start()
        ensure_topics(home.kafka, broker.bootstrap)
        later = events(100, seed=5, prefix="b")
        send(home, broker.bootstrap, sent[:50] + later)
        assert until(lambda: counts(worker)["events"] == 300 and worker.caught_up())
        report = counts(worker)
    finally:
        worker.stop()
    assert (report["events"], report["duplicates"]) == (300, 50)
    assert in_lake(home) == sorted(e.event_id for e in sent + later)
    (commit,) = Commits(home.stream_state).read()
    assert len(commit.offsets) == 2


def test_a_log_that_ended_before_its_last_commit_is_not_lost(home, broker):
    ensure_topics(home.kafka, broker.bootstrap)
    sent = events(200, seed=40, prefix="a")
    (worker,) = run_workers(home, broker.bootstrap, [[0, 1, 2, 3]], Online())
    send(home, broker.bootstrap, sent[:100])
    assert until(worker.caught_up)
    send(home, broker.bootstrap, sent[100:])
    worker._write_commit = _fail
    assert until(lambda: len(in_lake(home)) == 200)
    worker._stopping.set()
    worker._thread.join()
    broker.stop()
    broker.start()
    ensure_topics(home.kafka, broker.bootstrap)
    online = Online()
    (worker,) = run_workers(home, broker.bootstrap, [[0, 1, 2, 3]], online)
    try:
        assert until(worker.caught_up)
        assert counts(worker)["events"] == 100
    finally:
        worker.stop()
    assert in_lake(home) == sorted(e.event_id for e in sent)
    assert online.rows == recomputed(home)


def _fail(*_, **__):
    raise StorageError("no room")


def test_the_stream_on_ray_is_exact_through_deaths_and_a_change_of_workers(home, broker, ray_cluster):
    import ray

    with pytest.raises(NotFound, match="catalogue"):
        stream.start(home.model_copy(update={"home": home.home / "empty"}), broker.bootstrap)

    two = home.model_copy(update={"stream": home.stream.model_copy(update={"workers": 2})})
    first, second = events(2000, seed=6, prefix="a"), events(1000, seed=7, prefix="b")
    handle = stream.start(two, broker.bootstrap)
    send(home, broker.bootstrap, first, bad=[b"{", b"[]", b'{"event_id": 3}'])
    assert ray.get(handle.wait_idle.remote(60))
    status = ray.get(handle.status.remote())
    assert (status["events"], status["in_lake"], status["dead_letters"]) == (2000, 2000, 3)
    assert (status["workers"], status["lag"], status["state"]) == (2, 0, "running")
    assert status["freshness_p50_s"] > 0

    os.kill(status["pids"]["worker-1"], signal.SIGKILL)
    send(home, broker.bootstrap, second[:500] + first[:50])
    os.kill(status["pids"]["keeper"], signal.SIGKILL)
    send(home, broker.bootstrap, second[500:])
    assert until(lambda: ray.get(handle.status.remote())["restarts"] >= 1)
    assert ray.get(handle.wait_idle.remote(60))
    status = ray.get(handle.status.remote())
    assert (status["events"], status["duplicates"], status["in_lake"]) == (3000, 50, 3000)
    assert in_lake(home) == sorted(e.event_id for e in first + second)
    assert_equal(home)

    handle = stream.start(home, broker.bootstrap)
    third = events(300, seed=8, prefix="c")
    send(home, broker.bootstrap, third)
    assert ray.get(handle.wait_idle.remote(60))
    assert ray.get(handle.status.remote())["events"] == 3300
    assert_equal(home)
    ray.get(handle.stop.remote())
    assert ray.get(handle.status.remote())["state"] == "stopped"
    ray.kill(handle)
    assert len(dead_letters.read_all(home.kafka, broker.bootstrap)) == 3

    built = batch.build(home)
    assert built["events"] == 3300
    check_training_rows(home)
    check_reader(home)
    check_job(home, ray_cluster)


def check_training_rows(settings):
    interactions = lake.read_interactions(settings.paths.events, catalogue())
    members, titles = training_rows(settings, interactions)
    assert members.values.shape == (len(interactions), 3 + len(GENRES))
    assert titles.values.shape[0] == TITLES
    draw = random.Random(0)
    for row in draw.sample(range(len(interactions)), 12):
        known = batch.latest(settings, as_of=int(interactions.time[row]) - 1)["member_activity"]
        member = interactions.member_ids[interactions.member[row]]
        at = known["member_id"].to_pylist()
        want = known["plays_7d"][at.index(member)].as_py() if member in at else np.nan
        np.testing.assert_equal(members.values[row, members.names.index("plays_7d")], np.float32(want))
    popularity = batch.latest(settings, as_of=int(interactions.time.max()))["title_popularity"]
    want = dict(zip(popularity["title_id"].to_pylist(), popularity["plays_all"].to_pylist(), strict=True))
    column = titles.values[:, titles.names.index("plays_all")]
    assert column.tolist() == [want[title] for title in catalogue().title_ids]


def check_reader(settings):
    reader = OnlineReader(settings)
    reader.check()
    latest = batch.latest(settings)
    watched = {row["member_id"]: row for row in latest["member_watched"].to_pylist()}
    state = reader.member("m3")
    assert state.watched_title_ids == watched["m3"]["watched_title_ids"]
    assert state.watched_times == watched["m3"]["watched_times"]
    assert list(state.features)[3:] == [f"affinity[{genre}]" for genre in GENRES]
    assert reader.raw("m3")["last_event_time"] == state.event_time
    assert reader.member("nobody") is None
    shutil.move(settings.paths.feast / "online.db", settings.paths.feast / "elsewhere.db")
    with pytest.raises(Unavailable):
        reader.member("m3")
    shutil.move(settings.paths.feast / "elsewhere.db", settings.paths.feast / "online.db")


def check_job(settings, address):
    job = Path(__file__).parents[2] / "jobs" / "build_features.py"
    command = [sys.executable, str(job), "--home", str(settings.home), "--ray-address", address, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout.splitlines()[-1])
    assert figures["build"]["rows"]["title_popularity"] > 0
    assert all(view["rows"] == view["equal"] for view in figures["compare"].values())
