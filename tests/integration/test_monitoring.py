"""The monitor as an actor, with a real broker, registry and Evidently."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import ray
from prometheus_client.parser import text_string_to_metric_families

from matinee.config import Settings, load_settings
from matinee.events.broker import LocalBroker
from matinee.events.kafka import EventProducer, PartitionConsumer, ensure_topics, partitions
from matinee.monitoring import monitor
from matinee.monitoring.exposures import ExposureLake
from matinee.registry.mlflow import Registry


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    flags = {"home": str(tmp_path / "home"), "monitoring.interval_s": 3600.0, "kafka.partitions": 2}
    return load_settings(flags, environment={})


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[LocalBroker]:
    with LocalBroker(tmp_path / "broker.log") as broker:
        yield broker


class Stream:
    def status(self) -> dict[str, object]:
        return {"events": 7, "lag": 0, "freshness_p50_s": None, "state": "running"}


@pytest.fixture
def actor(ray_cluster: str, settings: Settings, broker: LocalBroker) -> Iterator[Any]:
    ensure_topics(settings.kafka, broker.bootstrap)
    stream = ray.remote(Stream).options(num_cpus=0).remote()
    handle = monitor.start(settings, broker.bootstrap, stream)
    yield handle
    ray.get(handle.stop.remote(), timeout=40)
    ray.kill(handle)


def send(settings: Settings, bootstrap: str, numbers: range, *, plays: float, score: float) -> None:
    generator = np.random.default_rng(numbers.start)
    payloads = [
        json.dumps(
            {
                "exposure_id": f"r{number}",
                "time": time.time_ns() // 1000,
                "member_id": f"m{number}",
                "surface": "home",
                "model_version": "recommender/1",
                "cell": "v1",
                "answer": "personal",
                "titles": [{"title_id": "t", "position": 0, "score": generator.normal(score, 1)}],
                "features": {"plays_1h": int(generator.poisson(plays))},
                "latency_ms": 1.0,
            }
        ).encode()
        for number in numbers
    ]
    producer = EventProducer(settings.kafka, bootstrap)
    producer.send_many(settings.kafka.exposures_topic, [f"m{number}" for number in numbers], payloads)
    producer.flush(10)
    producer.close()


def register(settings: Settings, folder: Path) -> None:
    folder.mkdir()
    generator = np.random.default_rng(0)
    scores = generator.normal(2, 1, 900)
    reference = {"plays_1h": generator.poisson(5, 900).astype(float)}
    pd.DataFrame(reference | {"score_top": scores, "score_mean": scores}).to_parquet(
        folder / "reference.parquet"
    )
    registry = Registry(settings)
    with registry.run("test", config={}) as run:
        registry.register("recommender", folder, run_id=run.run_id, metrics={}, alias="champion")


def wait(condition: Callable[[], object], timeout_s: float = 20) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.05)


def samples(text: str) -> dict[str, float]:
    return {s.name: s.value for family in text_string_to_metric_families(text) for s in family.samples}


def signals(settings: Settings, bootstrap: str) -> list[dict[str, Any]]:
    topic = settings.kafka.signals_topic
    numbers = range(partitions(settings.kafka, bootstrap, topic))
    consumer = PartitionConsumer(settings.kafka, bootstrap, topic, numbers, {})
    found: list[dict[str, Any]] = []
    expected = sum(consumer.end_offsets().values())
    wait(lambda: found.extend(json.loads(m.value) for m in consumer.poll(10, 100)) or len(found) >= expected)
    consumer.close()
    return found


def test_traffic_then_drift_then_one_event(
    settings: Settings, broker: LocalBroker, actor: Any, tmp_path: Path
) -> None:
    assert ray.get(actor.check.remote())["decision"] == "hold"

    register(settings, tmp_path / "version")
    send(settings, broker.bootstrap, range(300), plays=5, score=2)
    assert ray.get(actor.wait_kept.remote(300, 20))
    kept = ray.get(actor.check.remote(), timeout=60)
    assert (kept["decision"], kept["rows"], kept["share"]) == ("keep", 300, 0)

    send(settings, broker.bootstrap, range(300, 2300), plays=14, score=6)
    assert ray.get(actor.wait_kept.remote(2300, 20))
    drifted = ray.get(actor.check.remote(), timeout=60)
    assert (drifted["decision"], drifted["share"], drifted["sent"]) == ("drift", 1, True)
    assert not ray.get(actor.check.remote(), timeout=60)["sent"]
    (event,) = signals(settings, broker.bootstrap)
    assert (event["type"], event["model_version"]) == ("drift", "1")
    assert Path(drifted["report"]).is_file()

    found = samples(ray.get(actor.metrics.remote(), timeout=5))
    assert found["matinee_drift_share"] == 1
    assert found["matinee_drifted_columns"] == 3
    assert found["matinee_exposures_total"] == 2300
    assert found["matinee_window_rows"] == 2000
    assert found["matinee_monitor_up"] == found["matinee_stream_up"] == 1
    assert found["matinee_events_total"] == 7
    assert "matinee_feature_freshness_p50_seconds" not in found

    job = [sys.executable, "jobs/check_drift.py", "--home", str(settings.home), "--json"]
    done = subprocess.run(job, capture_output=True, text=True, check=False)
    assert done.returncode == 3, done.stderr
    assert json.loads(done.stdout)["drifted"] == drifted["drifted"]


def test_killed_in_the_middle_it_keeps_each_exposure_once(
    settings: Settings, broker: LocalBroker, actor: Any
) -> None:
    send(settings, broker.bootstrap, range(500), plays=5, score=2)
    assert ray.get(actor.wait_kept.remote(500, 20))
    send(settings, broker.bootstrap, range(500, 1000), plays=5, score=2)
    wait(lambda: ray.get(actor.status.remote())["window_rows"] > 500)
    os.kill(ray.get(actor.pid.remote()), signal.SIGKILL)
    send(settings, broker.bootstrap, range(900, 1500), plays=5, score=2)
    assert ray.get(actor.wait_kept.remote(1500, 40), timeout=60)
    table = ExposureLake(settings.paths.exposures).read()
    assert sorted(table["exposure_id"].to_pylist()) == sorted(f"r{number}" for number in range(1500))
    status = ray.get(actor.status.remote())
    assert status["window_rows"] == 1500
    assert status["exposures_repeated"] == 100


def test_it_waits_for_a_broker_and_drains_at_the_end(
    ray_cluster: str, settings: Settings, broker: LocalBroker
) -> None:
    ensure_topics(settings.kafka, broker.bootstrap)
    handle = monitor.start(settings, broker.bootstrap, None)
    wait(lambda: ray.get(handle.status.remote())["consuming"])
    broker.stop()
    wait(lambda: ray.get(handle.status.remote())["problem"], 40)
    assert not ray.get(handle.status.remote())["consuming"]
    assert samples(ray.get(handle.metrics.remote()))["matinee_monitor_up"] == 0
    broker.start()
    ensure_topics(settings.kafka, broker.bootstrap)
    wait(lambda: ray.get(handle.status.remote())["consuming"], 40)
    send(settings, broker.bootstrap, range(700), plays=5, score=2)
    last = ray.get(handle.stop.remote(), timeout=40)
    ray.kill(handle)
    assert last["exposures"] == ExposureLake(settings.paths.exposures).total == 700
