"""Keyed sliding windows over events in memory, on one core: ours beside stream processors of Python's world.

Events have a key, a time mildly out of order and a value; counted and summed are windows of a minute that
move by ten seconds, all of them closed at the end of the input. The clock runs from the first event fed to
the last window given out; reading the file is not in it. Each side runs in a process of its own that may use
one core, and holds the events in memory as suits it.
"""

from __future__ import annotations

import argparse
import json
import struct
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import plots
from benchmarks.common import (
    ROOT,
    SCALE,
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

NAME = "streaming_windows"
SIZE_US = 60_000_000
HOP_US = 10_000_000
LATENESS_US = 5_000_000
RATE = 5_000
"""Events a second of event time: more events last longer, they don't come denser."""
KEYS = 10_000
START_US = 1_700_000_000_000_000
UNIT = 1_000_000
TIMEOUT_S = 900.0


WARM_EVENTS = 100_000
TOPIC = "windows"


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A peer and the events that it finishes in less than a minute.

    Args:
        venv: see `peers.REQUIREMENTS`.
        quick_events: in a quick run; 0: left out there.
        mode: asked of its script, where that has several.
        source: what it reads from memory.
        topic: whether it reads from a broker, which runs on another core.
    """

    name: str
    venv: str
    script: str
    mode: str = ""
    source: str
    topic: bool = False
    events: int
    quick_events: int = 0


PEERS = (
    Peer(
        name="bytewax",
        venv="bytewax",
        script="windows_bytewax",
        source="list of Python tuples (key, (datetime, value))",
        events=1_000_000,
        quick_events=50_000,
    ),
    Peer(
        name="quixstreams",
        venv="quixstreams",
        script="windows_quixstreams",
        source="topic of one partition in a broker on loopback, filled before, values as 8 bytes",
        topic=True,
        events=500_000,
        quick_events=50_000,
    ),
    Peer(
        name="pathway",
        venv="pathway",
        script="windows_pathway",
        mode="stream",
        source="list of Python tuples through a ConnectorSubject",
        events=1_000_000,
        quick_events=50_000,
    ),
    Peer(
        name="pathway, static table",
        venv="pathway",
        script="windows_pathway",
        mode="static",
        source="pandas frame",
        events=500_000,
    ),
    Peer(
        name="PyFlink",
        venv="flink",
        script="windows_flink",
        mode="streaming",
        source="Arrow batches in the JVM's heap",
        events=2_000_000,
        quick_events=200_000,
    ),
    Peer(
        name="PyFlink, batch mode",
        venv="flink",
        script="windows_flink",
        mode="batch",
        source="Arrow batches in the JVM's heap",
        events=2_000_000,
    ),
)


def write_events(path: Path, *, events: int, keys: int, seed: int = 7) -> Path:
    """Write events in the order of their arrival; the same arguments give the same file.

    Nine in ten arrive in order, the others up to four fifths of the lateness after their time. Keys come
    with shares like 1 / (rank + 10), a tempered Zipf law.

    Returns:
        `path`: key text, time int64 (us since the epoch), value float64 (whole millionths, 0 to 100).
    """
    rng = np.random.default_rng(seed)
    share = 1 / (np.arange(keys) + 10)
    key = np.searchsorted(np.cumsum(share) / share.sum(), rng.random(events), side="right")
    names = np.array([f"member-{each:07d}" for each in rng.permutation(keys)])
    times = START_US + np.sort(rng.integers(0, events * UNIT // RATE, events))
    delays = np.where(rng.random(events) < 0.1, rng.integers(0, LATENESS_US * 4 // 5, events), 0)
    arrival = np.argsort(times + delays, kind="stable")
    values = rng.integers(0, 100 * UNIT, events) / UNIT
    columns = {"key": names[key][arrival], "time": times[arrival], "value": values[arrival]}
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({**columns, "key": pa.array(columns["key"], pa.string())}), path)
    return path


def expected(path: Path) -> pa.Table:
    """The windows of a file by another road: each event repeated for its windows, then grouped by Arrow.

    Returns:
        key, window_start (us), count, sum (int64, millionths), in the order of key and window.
    """
    events = pq.read_table(path)
    windows = SIZE_US // HOP_US
    time, value = events["time"].to_numpy(), events["value"].to_numpy()
    starts = (time // HOP_US * HOP_US)[:, None] - np.arange(windows) * HOP_US
    units = np.repeat(np.rint(value * UNIT).astype(np.int64), windows)
    key = events["key"].combine_chunks().dictionary_encode()
    repeated = pa.table(
        {
            "key": np.repeat(key.indices.to_numpy(), windows),
            "window_start": starts.ravel(),
            "units": units,
        }
    )
    grouped = repeated.group_by(["key", "window_start"]).aggregate([("units", "count"), ("units", "sum")])
    named = pa.table(
        {
            "key": key.dictionary.take(grouped["key"].combine_chunks()),
            "window_start": grouped["window_start"],
            "count": grouped["units_count"],
            "sum": grouped["units_sum"],
        }
    )
    return _ordered(named)


def in_units(windows: pa.Table) -> pa.Table:
    """A side's output as `expected` gives it: sums rounded to whole millionths."""
    units = np.rint(windows["sum"].to_numpy() * UNIT).astype(np.int64)
    return _ordered(windows.set_column(windows.schema.get_field_index("sum"), "sum", pa.array(units)))


def _ordered(windows: pa.Table) -> pa.Table:
    columns = windows.select(["key", "window_start", "count", "sum"]).combine_chunks()
    return columns.sort_by([("key", "ascending"), ("window_start", "ascending")])


def compare_with(peer: Peer, *, quick: bool, folder: Path) -> None:
    """Print one line: the comparison, or why there is none."""
    events = peer.quick_events if quick else peer.events
    path = write_events(folder / f"{events}.parquet", events=events, keys=KEYS)
    warm = write_events(folder / "warm.parquet", events=WARM_EVENTS, keys=KEYS)
    try:
        python = peer_venv(peer.venv, REQUIREMENTS[peer.venv])
    except PeerMissing as missing:
        skipped(NAME, peer.name, str(missing))
        return
    asked = _asked(path, warm)
    sizes: dict[str, Any] = {
        "events": events,
        "keys": KEYS,
        "cores": 1,
        "window_s": SIZE_US // UNIT,
        "hop_s": HOP_US // UNIT,
        "peer_source": peer.source,
    }

    def theirs(output: str = "") -> dict[str, Any]:
        request = {**asked, "mode": peer.mode, "output": output}
        return run_peer(python, peer.script, request, cores=1, timeout_s=TIMEOUT_S)

    def check() -> None:
        wanted = expected(path)
        for side, run in (("ours", partial(_ours, asked)), ("theirs", theirs)):
            output = folder / f"{side}.parquet"
            sizes[f"peak_mib_{side}"] = run(str(output))["peak_mib"]
            found = in_units(pq.read_table(output))
            if not found.equals(wanted):
                raise ValueError(
                    f"{peer.name}, {side}: {len(found)} windows; {len(wanted)} others are right, such as "
                    f"{_differences(found, wanted)}"
                )
        sizes["windows"] = len(wanted)

    try:
        with ExitStack() as stack:
            if peer.topic:
                asked.update(bootstrap=_filled_topic(stack, path, folder), topic=TOPIC)
            compare(
                name=NAME,
                peer=peer.name,
                metric="events per second on one core",
                unit="events/s",
                ours=lambda: events / _ours(asked)["seconds"],
                theirs=lambda: events / theirs()["seconds"],
                higher_is_better=True,
                sizes=sizes,
                versions={
                    **installed(Path(sys.executable), ["matinee", "numpy", "polars", "pyarrow"]),
                    **installed(python, [PACKAGES.get(peer.venv, peer.venv)]),
                },
                check=check,
            )
    except PeerFailed as failure:
        skipped(NAME, peer.name, str(failure))


def scale(folder: Path, *, quick: bool, plot: Path | None) -> None:
    """Print a line a size, ours alone: events and keys at 1, 4 and 16 times the base; plotted where asked."""
    base = 50_000 if quick else 500_000
    warm = write_events(folder / "warm.parquet", events=WARM_EVENTS, keys=KEYS)
    lines: dict[str, list[dict[str, Any]]] = {"events": [], "keys": []}
    for grows, found in lines.items():
        for times in SCALE:
            events = base * times if grows == "events" else base * SCALE[1]
            keys = KEYS * times if grows == "keys" else KEYS
            path = write_events(folder / "scaled.parquet", events=events, keys=keys)
            runs = [_ours(_asked(path, warm)) for _ in range(1 if quick else 3)]
            line = {
                "name": f"{NAME}_scaling",
                "grows": grows,
                "times": times,
                "events": events,
                "keys": keys,
                "events_per_s": round(events / min(run["seconds"] for run in runs)),
                "peak_mib": max(run["peak_mib"] for run in runs),
                "input_mib": round(pq.read_table(path).nbytes / 2**20),
                "cores": 1,
            }
            found.append(line)
            print(json.dumps({**line, "machine": machine()}), flush=True)
    if plot is not None:
        plots.scaling(lines, plot, where="on one core")


def _asked(path: Path, warm: Path) -> dict[str, Any]:
    return {
        "path": str(path),
        "warm": str(warm),
        "size_us": SIZE_US,
        "hop_us": HOP_US,
        "lateness_us": LATENESS_US,
        "output": "",
    }


def _ours(asked: dict[str, Any], output: str = "") -> dict[str, Any]:
    request = {**asked, "output": output}
    return run_peer(Path(sys.executable), "windows_ours", request, cores=1, timeout_s=TIMEOUT_S)


def _differences(found: pa.Table, wanted: pa.Table) -> list[dict[str, Any]]:
    columns = ["window_start", "count", "sum"]
    missing = wanted.join(found, ["key", *columns], join_type="left anti")
    rows: list[dict[str, Any]] = missing.slice(0, 2).to_pylist()
    return rows


def _filled_topic(stack: ExitStack, path: Path, folder: Path) -> str:
    """Start a broker that ends with `stack`; send it the events and a last one that closes all windows."""
    from confluent_kafka import Producer
    from confluent_kafka.admin import AdminClient, NewTopic

    from matinee.events.broker import LocalBroker

    bootstrap = stack.enter_context(LocalBroker(folder / "broker.log")).bootstrap
    admin = AdminClient({"bootstrap.servers": bootstrap})
    topic = NewTopic(TOPIC, num_partitions=1, config={"retention.ms": "-1"})
    admin.create_topics([topic])[TOPIC].result()
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 20, "log_level": 2})
    events = pq.read_table(path)
    times_ms = (events["time"].to_numpy() // 1000).tolist()
    end_ms = max(times_ms) + 2 * (SIZE_US + LATENESS_US) // 1000
    keys, values = events["key"].to_pylist(), events["value"].to_pylist()
    for key, value, time_ms in zip([*keys, "end"], [*values, 0.0], [*times_ms, end_ms], strict=True):
        sent = False
        while not sent:
            try:
                producer.produce(TOPIC, key=key, value=struct.pack(">d", value), timestamp=time_ms)
                sent = True
            except BufferError:
                producer.poll(0.1)
    if producer.flush(60):
        raise PeerFailed("the topic could not be filled within a minute")
    return bootstrap


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--peers", nargs="*", help="names of peers, or parts of them; all where left out")
    parser.add_argument("--scaling", action="store_true", help="ours alone, as events and keys grow; plotted")


def main() -> None:
    options = arguments(__doc__, _options)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.scaling:
            plot = None if options.quick else ROOT / "docs" / "img" / "streaming_scaling.png"
            scale(folder, quick=options.quick, plot=plot)
            return
        for peer in PEERS:
            wanted = not options.peers or any(each.lower() in peer.name.lower() for each in options.peers)
            if wanted and (peer.quick_events or not options.quick):
                compare_with(peer, quick=options.quick, folder=folder)


if __name__ == "__main__":
    main()
