"""A small home end to end: rankings log what they read, and a job holds it against the lake."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import served_home
from prometheus_client.parser import text_string_to_metric_families

from matinee.config import Settings, load_settings
from matinee.events import lake
from matinee.events.broker import LocalBroker
from matinee.events.kafka import PartitionConsumer, ensure_topics, partitions
from matinee.features.history_rows import history_rows
from matinee.features.online import OnlineReader
from matinee.features.store import FeatureStore
from matinee.features.titles import genres_of
from matinee.features.transforms import VIEWS, rows_of, watches_of
from matinee.features.trust import served
from matinee.monitoring.catalogue import describe_features, write_catalogue
from matinee.monitoring.features import check_consistency, check_expectations
from matinee.monitoring.monitor import Monitor
from matinee.schema import LAKE_SCHEMA, TIMESTAMP
from matinee.serving.recommender import Recommender, Request

ROOT = Path(__file__).parents[2]
HOUR = served_home.HOUR
MEMBERS = [f"m{i}" for i in range(served_home.MEMBERS)]


def events() -> pa.Table:
    """The watches of `served_home`, a rating every third, as the lake has them."""
    rows = []
    for member, titles in enumerate(served_home.watched()):
        for hour, title in enumerate(titles):
            at = served_home.START + hour * HOUR + member
            rated = (hour + member) % 3 == 0
            rows.append(
                {
                    "schema_version": 1,
                    "event_id": f"{member}-{hour}",
                    "type": "rate" if rated else "play",
                    "member_id": f"m{member}",
                    "title_id": f"t{title}",
                    "event_time": at,
                    "ingest_time": at + 1_000,
                    "value": 4.0 if rated else 60.0,
                    "partition": 0,
                    "offset": len(rows),
                    "late_by": 0,
                }
            )
    table = pa.Table.from_pylist(rows, schema=_numbered(LAKE_SCHEMA))
    return table.cast(LAKE_SCHEMA)


def _numbered(schema: pa.Schema) -> pa.Schema:
    return pa.schema([pa.field(f.name, pa.int64() if f.type == TIMESTAMP else f.type) for f in schema])


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    settings = load_settings(
        {
            "home": str(tmp_path_factory.mktemp("home")),
            "monitoring.served_share": 1.0,
            "monitoring.settle_s": 0.0,
        },
        environment={},
    )
    served_home.catalogue().write(settings.paths.catalogue)
    served_home.register_versions(settings)
    table = events()
    lake.write_part(settings.paths.events, table, cluster="c")
    store = FeatureStore(settings)
    store.apply()
    genres = genres_of(served_home.catalogue())
    for view in VIEWS.values():
        rows = rows_of(table, view, latest=True)
        store.write_online(view.name, view.transform(watches_of(table), rows, genres))
    for name, aggregate in store.aggregate_views().items():
        store.write_online(name, history_rows(aggregate, table, times="latest"))
    return settings


def rank(settings: Settings, members: list[str]) -> None:
    recommender = Recommender(settings)
    recommender.start()
    for member in members:
        recommender.recommend(Request(member_id=member))
    recommender.close()


def corrupt(settings: Settings, view: str, key: str, column: str, value: Any) -> None:
    """Give one key's online row a wrong value; its time stays."""
    store = FeatureStore(settings)
    (rows,) = store.read_views([f"{view}:*"], [key])
    assert rows.rows[0] is not None
    held = dict(zip(rows.names, rows.rows[0], strict=True)) | {column: value}
    columns = {store.key_of([f"{view}:*"]): pa.array([key])}
    columns |= {name: pa.array([held[name]], kind) for name, kind in store.schema(view).items()}
    columns["event_timestamp"] = pa.array(np.array([rows.times[0]])).cast(TIMESTAMP)
    store.write_online(view, pa.table(columns))


def job(settings: Settings, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "jobs/check_features.py", "--home", str(settings.home), *arguments]
    environment = os.environ | {"MATINEE_MONITORING_SETTLE_S": "0"}
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=120
    )


def test_from_what_was_served_to_a_broken_bound(home: Settings) -> None:
    rank(home, [*MEMBERS, "nobody"])
    activity = served.read(home.paths.served, "member_activity", rows=1_000)
    assert activity is not None
    assert sorted(activity["member_id"].to_pylist()) == sorted([*MEMBERS, "nobody"])
    assert len(set(activity["request_id"].to_pylist())) == len(MEMBERS) + 1

    found = check_consistency(home)
    assert (found.decision, found.below) == ("agree", [])
    assert {view.view for view in found.views} == {
        "member_activity",
        "member_watched",
        "member_affinity",
        "member_progress",
    }
    for view in found.views:
        assert (view.compared, view.empty, view.behind) == (len(MEMBERS), 1, 0)
        assert all(each.share == 1 for each in view.features)
    assert check_expectations(home).decision == "publish"

    corrupt(home, "member_activity", "m3", "plays_7d", 77)
    corrupt(home, "member_engagement", "m5", "stars_mean_30d", 99.0)
    rank(home, ["m3", "m4"])
    done = job(home, "--json")
    assert done.returncode == 1, done.stderr
    told = json.loads(done.stdout)
    assert told["consistency"]["decision"] == "disagree"
    (view,) = [each for each in told["consistency"]["views"] if each["view"] == "member_activity"]
    (wrong,) = [each for each in view["features"] if each["share"] < 1]
    assert (wrong["feature"], wrong["compared"], wrong["equal"]) == ("plays_7d", 42, 41)
    assert (wrong["examples"][0]["served"], wrong["examples"][0]["key"]) == (77, "m3")
    assert told["expectations"]["decision"] == "hold"
    (violation,) = told["expectations"]["violations"]
    assert (violation["feature"], violation["rule"], violation["origin"]) == (
        "stars_mean_30d",
        "high",
        "online",
    )

    page = Path(told["catalogue"]).read_text()
    assert page.count("<tr data-text=") == len(describe_features(home))
    assert "served <code>77</code>" in page
    shown = job(home, "--no-catalogue")
    assert shown.returncode == 1
    assert "below the bound" in shown.stdout


def test_a_logged_read_gives_the_same_member(home: Settings) -> None:
    reader = OnlineReader(home)
    for member in ("m1", "nobody"):
        state, reads = reader.observed(member)
        assert state == reader.member(member)
        assert reads.keys() == reader.schemas().keys()
    assert reads == dict.fromkeys(reads, (None, {}))


def test_a_disagreement_is_a_gauge_and_an_event(home: Settings, tmp_path: Path) -> None:
    rank(home, MEMBERS)
    corrupt(home, "member_activity", "m7", "plays_1h", 55)
    corrupt(home, "member_engagement", "m5", "stars_mean_30d", 99.0)
    rank(home, ["m7"])
    status = {
        "state": "running",
        "views": {"member_activity": {"freshness_p99_s": 0.2, "last_write": 1, "objective_s": 5.0}},
        "violations": [],
    }
    with LocalBroker(tmp_path / "broker.log") as broker:
        ensure_topics(home.kafka, broker.bootstrap)
        monitor = Monitor(home, broker.bootstrap, lambda: status)
        assert "matinee_feature_consistency{" not in monitor.metrics()
        found = monitor.compare_features()
        assert found is not None
        assert found["decision"] == "disagree"
        metrics = {
            (sample.name, *sample.labels.values()): sample.value
            for family in text_string_to_metric_families(monitor.metrics())
            for sample in family.samples
        }
        assert metrics["matinee_feature_consistency", "plays_1h", "member_activity"] < 1
        assert metrics["matinee_feature_consistency_bound",] == 0.999
        assert metrics["matinee_feature_freshness_objective_seconds", "member_activity"] == 5
        told = job(home, "--no-catalogue", "--json", "--bootstrap", broker.bootstrap)
        assert json.loads(told.stdout)["told"]
        monitor.stop()
        signals = read_signals(home, broker.bootstrap, 3)
    kinds = [signal["type"] for signal in signals]
    assert kinds == ["feature_consistency", "feature_consistency", "feature_violation"]
    assert "plays_1h" in {each["feature"] for each in signals[0]["below"]}


def read_signals(settings: Settings, bootstrap: str, count: int) -> list[dict[str, Any]]:
    topic = settings.kafka.signals_topic
    numbers = range(partitions(settings.kafka, bootstrap, topic))
    consumer = PartitionConsumer(settings.kafka, bootstrap, topic, numbers, {})
    found: list[dict[str, Any]] = []
    deadline = time.monotonic() + 20
    while len(found) < count and time.monotonic() < deadline:
        found += [json.loads(message.value) for message in consumer.poll(10, 100)]
    consumer.close()
    return found


def test_the_catalogue_describes_every_feature(home: Settings) -> None:
    described = {(each["view"], each["name"]): each for each in describe_features(home)}
    json.dumps(list(described.values()))
    plays = described["member_activity", "plays_7d"]
    assert (plays["type"], plays["entity"], plays["services"], plays["models"]) == (
        "integer",
        "member",
        ["dnn", "serving"],
        ["dnn"],
    )
    assert (plays["origin"], plays["distribution"]["rows"]) == ("online", len(MEMBERS))
    stars = described["member_engagement", "stars_mean_30d"]
    assert stars["window"] == "last 30 d, moved every 1 d"
    assert stars["source"]["function"] == "mean"
    assert stars["source"]["events"] == ["rate"]
    assert stars["freshness"]["objective_s"] == 5
    assert stars["late"] == "more than 2 d late: left out"
    assert described["title_content", "maturity"]["view_events"] == []
    violation = {
        "view": "member_engagement",
        "feature": "clicks_1h",
        "rule": "low",
        "count": 2,
        "found": -1.0,
    }
    status = {
        "views": {"member_engagement": {"freshness_p99_s": 9.0, "last_write": 1}},
        "violations": [violation],
    }
    late = [
        each for each in describe_features(home, stream_status=status) if each["view"] == "member_engagement"
    ]
    assert {each["freshness"]["decision"] for each in late} == {"late"}
    assert [each["name"] for each in late if violation | {"origin": "stream"} in each["violations"]] == [
        "clicks_1h"
    ]


def test_a_home_without_features_says_so_in_one_line(tmp_path: Path) -> None:
    settings = load_settings({"home": str(tmp_path / "empty")}, environment={})
    failed = job(settings, "--json")
    assert failed.returncode == 2
    assert len(failed.stderr.strip().splitlines()) == 1


def test_a_home_that_was_only_applied_has_a_catalogue(tmp_path: Path) -> None:
    settings = load_settings({"home": str(tmp_path / "new")}, environment={})
    FeatureStore(settings).apply()
    page = write_catalogue(settings).read_text()
    assert "no values yet" in page
