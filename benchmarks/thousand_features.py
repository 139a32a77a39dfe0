"""A thousand declared features: how long applying, streaming and reading them take; there is no peer.

Prints one JSON line: seconds of `feast apply`, events a second through one worker from a full topic to
online and committed, microseconds of reading a member's 500 features, and what was held in memory.
"""

from __future__ import annotations

import json
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow as pa

from benchmarks.common import arguments, machine
from matinee.config import Settings, load_settings
from matinee.events import lake
from matinee.events.broker import LocalBroker
from matinee.events.kafka import EventProducer, ensure_topics
from matinee.features import aggregates
from matinee.features.keeper import HomeKeeper
from matinee.features.store import FeatureStore
from matinee.features.stream import declared_views
from matinee.features.worker import Worker
from matinee.schema import CATALOGUE_SCHEMA, Catalogue

REPOSITORY = Path(__file__).parent / "thousand_repo"
TITLES = 500
MEMBERS = 5_000
BEGIN = 1_700_000_000_000_000
KINDS = ("play", "rate", "click", "impression", "stop")


def home(folder: Path) -> Settings:
    """A home with a catalogue, whose features are the thousand."""
    settings = load_settings({"home": str(folder), "features.repository": str(REPOSITORY)}, environment={})
    settings.paths.logs.mkdir(parents=True)
    lists: dict[str, list[str]] = {name: [] for name in ("genres", "cast", "keywords")}
    rows = [{"title_id": f"t{i}", "name": f"Title {i}", **lists} for i in range(TITLES)]
    Catalogue(table=pa.Table.from_pylist(rows, schema=CATALOGUE_SCHEMA)).write(settings.paths.catalogue)
    return settings


def events(count: int, *, seed: int = 0) -> tuple[list[str], list[bytes]]:
    """Members and payloads, a second of event time apart."""
    draw = random.Random(seed)
    members, payloads = [], []
    for i in range(count):
        member, kind = draw.randrange(MEMBERS), draw.choice(KINDS)
        value = f',"value":{draw.randrange(1, 10)}' if kind == "rate" else ""
        members.append(f"m{member}")
        payloads.append(
            f'{{"event_id":"e{i}","type":"{kind}","member_id":"m{member}",'
            f'"title_id":"t{draw.randrange(TITLES)}","event_time":{BEGIN + i * 1_000_000}{value}}}'.encode()
        )
    return members, payloads


def run(settings: Settings, count: int) -> dict[str, Any]:
    """Apply, stream, check against batch, read."""
    begun = time.perf_counter()
    store = FeatureStore(settings)
    store.apply()
    applied = time.perf_counter() - begun
    views = declared_views(settings)
    with LocalBroker(settings.paths.logs / "broker.log") as broker:
        ensure_topics(settings.kafka, broker.bootstrap)
        producer = EventProducer(settings.kafka, broker.bootstrap)
        producer.send_many(settings.kafka.events_topic, *events(count))
        producer.flush(60)
        producer.close()
        worker = Worker(
            settings,
            broker.bootstrap,
            name="worker-0",
            partitions=range(settings.kafka.partitions),
            views=views,
            keeper=HomeKeeper(settings, views),
        )
        begun = time.perf_counter()
        read = 0
        while read < count:
            read += worker.turn()
        worker.turn()
        worker.commit()
        streamed = time.perf_counter() - begun
        held = worker.status()["state_bytes"]
        worker.stop()
    table = lake.read_events(settings.paths.events)
    for view in views.aggregates[:: len(views.aggregates) // 5]:
        expected = aggregates.latest(view, table)
        keys = expected[view.key].to_pylist()
        rows = expected.select([each.name for each in view.aggregates]).to_pylist()
        assert store.read_rows(view.name, keys) == rows, view.name
    taken = []
    for i in range(500):
        begun = time.perf_counter()
        found = store.read_one("members", f"m{i}")
        taken.append(time.perf_counter() - begun)
    return {
        "features": sum(len(view.aggregates) for view in views.aggregates),
        "views": len(views.aggregates),
        "apply_s": round(applied, 2),
        "events": count,
        "events_per_s": round(count / streamed),
        "state_mib": round(held / 2**20, 1),
        "read_features": len(found),
        "read_p50_us": round(statistics.median(taken) * 1e6),
        "read_p99_us": round(sorted(taken)[int(len(taken) * 0.99)] * 1e6),
    }


def main() -> None:
    """Measure once and print."""
    quick = arguments(__doc__).quick
    with tempfile.TemporaryDirectory() as folder:
        figures = run(home(Path(folder) / "home"), 20_000 if quick else 200_000)
    print(json.dumps({"name": "thousand_features", **figures, "machine": machine()}))


if __name__ == "__main__":
    main()
