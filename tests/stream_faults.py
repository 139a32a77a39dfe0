"""A stream under faults: events that are late, doubled and broken, while its parts are killed one by one.

`python tests/stream_faults.py` runs it at full size and prints a JSON line; the end-to-end test runs it
small. What it ends with must equal a batch recomputation, to the bit.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from matinee.config import Settings, load_settings
from matinee.events import dead_letters, lake
from matinee.events.broker import LocalBroker
from matinee.events.kafka import EventProducer, ensure_topics
from matinee.features import stream
from matinee.features.aggregates import latest
from matinee.local.cluster import connect, free_port
from matinee.schema import CATALOGUE_SCHEMA, Catalogue

HOUR = 3_600_000_000
BEGIN = 1_700_000_000_000_000
STEP = 20_000
"""Microseconds of event time from one event to the next."""
KINDS = ("play", "rate", "click", "impression", "stop")
SURFACES = ("home", "search", "row", "detail", "list", "kids")
REPOSITORY = Path(__file__).parent / "fault_repo"


def catalogue(titles: int) -> Catalogue:
    lists = {name: [] for name in ("genres", "cast", "keywords")}
    rows = [{"title_id": f"t{i}", "name": f"Title {i}", **lists} for i in range(titles)]
    return Catalogue(table=pa.Table.from_pylist(rows, schema=CATALOGUE_SCHEMA))


def workload(count: int, *, seed: int, members: int, titles: int) -> tuple[list[str], list[bytes], int]:
    """Keys and payloads in the order of sending, and how many of them are malformed.

    Of `count` good events 5% come out of order within the hour, 1% more than an hour late; 5% are sent
    twice, and one in a thousand is accompanied by a malformed one.
    """
    draw = np.random.default_rng(seed)
    member = (members * draw.random(count) ** 2).astype(np.int64)
    title = (titles * draw.random(count) ** 2).astype(np.int64)
    kind = draw.choice(len(KINDS), count, p=[0.3, 0.2, 0.2, 0.2, 0.1])
    surface = draw.integers(0, len(SURFACES), count)
    stars = draw.integers(1, 11, count) / 2
    time_us = BEGIN + np.arange(count) * STEP
    fate = draw.random(count)
    back = np.where(fate < 0.05, draw.random(count) * 0.9 * HOUR, 0)
    back = np.where(fate > 0.99, HOUR * (1.1 + 5 * draw.random(count)), back)
    time_us = np.maximum(time_us - back.astype(np.int64), BEGIN // 2)
    rows = zip(member, title, kind, surface, stars, time_us, strict=True)
    keys, payloads = [], []
    for i, (m, t, k, s, v, at) in enumerate(rows):
        value = f',"value":{v}' if KINDS[k] == "rate" else ""
        keys.append(f"m{m}")
        payloads.append(
            f'{{"event_id":"e{i:09d}","type":"{KINDS[k]}","member_id":"m{m}","title_id":"t{t}",'
            f'"event_time":{at},"surface":"{SURFACES[s]}"{value}}}'.encode()
        )
    order = [(float(i), i) for i in range(count)]
    again = draw.choice(count, count // 20, replace=False)
    order += [(float(i) + draw.random() * count / 100, int(i)) for i in again]
    broken = draw.choice(count, count // 1000, replace=False)
    bad = [b"{", b"[]", b'{"event_id":"x"}', b"\xff\xfe", b'{"event_id":"x","type":"dance","member_id":"m1"}']
    order += [(float(i) + 0.5, -1 - n) for n, i in enumerate(broken.tolist())]
    order.sort()
    sent_keys = [keys[i] if i >= 0 else f"m{-i}" for _, i in order]
    sent = [payloads[i] if i >= 0 else bad[-i % len(bad)] for _, i in order]
    return sent_keys, sent, len(broken)


class Redis:
    """A Redis server of our own on loopback; what it held is gone when it ends."""

    def __init__(self) -> None:
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", ""]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)

    def stop(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()


class Faults:
    """Kills parts of the stream at random moments of the sending, by pid."""

    def __init__(self, handle: Any, *, seed: int) -> None:
        self._handle = handle
        self._draw = random.Random(seed)
        self.killed: Counter[str] = Counter()

    def kill_one(self) -> None:
        """SIGKILL to the supervisor, the keeper or a worker; waits until the stream answers first."""
        pids = self.status()["pids"]
        name = self._draw.choice(sorted(pids))
        if pids[name]:
            os.kill(pids[name], signal.SIGKILL)
            self.killed[name] += 1

    def status(self, *, timeout_s: float = 300.0) -> dict[str, Any]:
        """The supervisor's answer, once it runs."""
        import ray

        deadline = time.monotonic() + timeout_s
        while True:
            try:
                found: dict[str, Any] = ray.get(self._handle.status.remote(), timeout=30)
                if found["state"] in ("running", "failed") and found["workers"]:
                    return found
            except (ray.exceptions.RayActorError, ray.exceptions.GetTimeoutError):
                pass
            assert time.monotonic() < deadline, "the stream did not come back"
            time.sleep(0.1)

    def wait_idle(self, timeout_s: float) -> None:
        """Until everything in the log is online and committed."""
        import ray

        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            try:
                if ray.get(self._handle.wait_idle.remote(20.0), timeout=40):
                    return
            except (ray.exceptions.RayActorError, ray.exceptions.GetTimeoutError):
                time.sleep(0.2)
        raise AssertionError(f"not idle within {timeout_s:g} s: {self.status()}")


def send(settings: Settings, bootstrap: str, keys: list[str], payloads: list[bytes], *, rate: float) -> None:
    """Send at most `rate` messages a second, and wait until all are in the log."""
    producer = EventProducer(settings.kafka, bootstrap)
    begun = time.monotonic()
    for begin in range(0, len(keys), 1_000):
        producer.send_many(
            settings.kafka.events_topic, keys[begin : begin + 1_000], payloads[begin : begin + 1_000]
        )
        ahead = begin / rate - (time.monotonic() - begun)
        if ahead > 0:
            time.sleep(ahead)
    producer.flush(60)
    producer.close()


def check(settings: Settings, bootstrap: str, *, events: int, malformed: int) -> dict[str, Any]:
    """What the stream left must equal what batch says of the same log; raises AssertionError."""
    from matinee.features.store import FeatureStore

    held = lake.read_events(settings.paths.events)
    ids = held["event_id"].to_pylist()
    assert len(ids) == len(set(ids)) == events, (len(ids), len(set(ids)), events)
    late_by = held["late_by"].to_numpy()
    assert (late_by == recomputed_lateness(held)).all()
    store = FeatureStore(settings)
    compared = {}
    late = 0
    for name, view in store.aggregate_views().items():
        expected = latest(view, held)
        keys = expected[view.key].to_pylist()
        columns = [each.name for each in view.aggregates]
        rows = expected.select(columns).to_pylist()
        wrong = [
            (key, found, row)
            for key, found, row in zip(keys, store.read_rows(name, keys), rows, strict=True)
            if found != row
        ]
        assert not wrong, (name, len(wrong), len(keys), wrong[0])
        compared[name] = len(keys)
        refused = int((late_by > view.lateness.total_seconds() * 1e6).sum())
        late = max(late, refused)
    letters = dead_letters.read_all(settings.kafka, bootstrap)
    places = [(letter["partition"], letter["offset"]) for letter in letters]
    assert len(places) == len(set(places))
    by_reason = Counter(letter["reason"].startswith("late for") for letter in letters)
    assert by_reason[False] == malformed, by_reason
    assert by_reason[True] == late, (by_reason, late)
    return {"compared": compared, "late": late, "dead_letters": len(letters)}


def recomputed_lateness(held: pa.Table) -> np.ndarray:
    """`late_by` of each event by the rule alone, from the order of the log."""
    partition, offset = held["partition"].to_numpy(), held["offset"].to_numpy()
    time_us = held["event_time"].cast(pa.int64()).to_numpy()
    found = np.zeros(len(time_us), np.int64)
    for place in np.unique(partition):
        rows = np.flatnonzero(partition == place)
        rows = rows[np.argsort(offset[rows])]
        newest = np.maximum.accumulate(time_us[rows])
        found[rows[1:]] = np.maximum(newest[:-1] - time_us[rows[1:]], 0)
    return found


def run(
    home: Path,
    *,
    events: int,
    kills: int,
    rate: float,
    pause_s: float,
    workers: int = 2,
    members: int = 5_000,
    titles: int = 500,
    redis: bool = True,
    scales: tuple[int, ...] = (),
    seed: int = 0,
) -> dict[str, Any]:
    """Send the workload, kill and pause while it is sent, wait, check; on the connected Ray cluster."""
    server = Redis()
    flags: dict[str, object] = {
        "home": str(home),
        "stream.workers": workers,
        "stream.heartbeat_s": 0.5,
        "features.repository": str(REPOSITORY),
    }
    if redis:
        server.start()
        flags |= {"features.online_store": "redis", "features.redis": f"127.0.0.1:{server.port}"}
    settings = load_settings(flags, environment={})
    settings.paths.logs.mkdir(parents=True)
    catalogue(titles).write(settings.paths.catalogue)
    keys, payloads, malformed = workload(events, seed=seed, members=members, titles=titles)
    begun = time.monotonic()
    with LocalBroker(settings.paths.logs / "broker.log") as broker:
        ensure_topics(settings.kafka, broker.bootstrap)
        handle = stream.start(settings, broker.bootstrap)
        faults = Faults(handle, seed=seed)
        faults.status()
        sender = threading.Thread(
            target=send, args=(settings, broker.bootstrap, keys, payloads), kwargs={"rate": rate}
        )
        sender.start()
        for number in range(kills):
            faults.kill_one()
            if pause_s and number == kills // 3:
                os.kill(broker.pid, signal.SIGSTOP)
                time.sleep(pause_s)
                os.kill(broker.pid, signal.SIGCONT)
            if pause_s and redis and number == 2 * kills // 3:
                server.stop()
                time.sleep(pause_s)
                server.start()
            time.sleep(events / rate / (2 * kills))
        for workers_now in scales:
            import ray

            assert ray.get(handle.rescale.remote(workers_now), timeout=120) == workers_now
            time.sleep(events / rate / (2 * len(scales)))
        sender.join()
        faults.wait_idle(600)
        status = faults.status()
        checked = check(settings, broker.bootstrap, events=events, malformed=malformed)
        import ray

        ray.get(handle.stop.remote(), timeout=60)
        ray.kill(handle)
    if redis:
        server.stop()
    assert status["events"] == events, status
    return {
        "events": events,
        "sent": len(payloads),
        "malformed": malformed,
        "killed": dict(faults.killed),
        "restarts": status["restarts"],
        "epoch": status["epoch"],
        "late_counted": status["late"],
        "duplicates_counted": status["duplicates"],
        "seconds": round(time.monotonic() - begun, 1),
        **checked,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--rate", type=float, default=5_000)
    parser.add_argument("--pause", type=float, default=10.0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--scales", type=int, nargs="*", default=[])
    parser.add_argument("--no-redis", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        with connect(load_settings({"home": str(home)}, environment={})):
            report = run(
                home,
                events=given.events,
                kills=given.kills,
                rate=given.rate,
                pause_s=given.pause,
                workers=given.workers,
                redis=not given.no_redis,
                scales=tuple(given.scales),
                seed=given.seed,
            )
    json.dump(report, sys.stdout)
    print()


if __name__ == "__main__":
    main()
