"""Daily batch features over a lake in Parquet: ours in one process and on Ray Data, beside its peers.

Per member and UTC day with an event: events, the sum and mean of their values, distinct titles, and the sum
of the seven days up to that day. Everyone reads the lake's files and writes Parquet, with two threads. Ours
is the product's own path: it finds the days of every part, plans, and writes spans of days that the next
run carries over.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
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
    machine,
    peer_venv,
    pinned,
    run_peer,
    skipped,
)
from matinee.config import load_settings
from matinee.events import lake
from matinee.features import daily, offline
from matinee.local.cluster import connect
from matinee.schema import TIMESTAMP, Aggregate, AggregateView, Function, Window

NAME = "batch_features"
THREADS = 2
BEGIN = 1_767_225_600_000_000
DAY = 86_400_000_000
DAYS = 30
TITLES = 20_000
PART_EVENTS = 500_000
TIMEOUT_S = 1_200.0
ONE_DAY = Window.tumbling(timedelta(days=1))
VIEW = AggregateView(
    name="member_days",
    key="member_id",
    aggregates=(
        Aggregate(name="events", function=Function.COUNT, window=ONE_DAY),
        Aggregate(name="total", function=Function.SUM, column="value", window=ONE_DAY),
        Aggregate(name="average", function=Function.MEAN, column="value", window=ONE_DAY),
        Aggregate(name="titles", function=Function.COUNT_DISTINCT, column="title_id", window=ONE_DAY),
        Aggregate(
            name="week",
            function=Function.SUM,
            column="value",
            window=Window.sliding(timedelta(days=7), timedelta(days=1)),
        ),
    ),
)


def main() -> None:
    args = arguments(__doc__, _declare)
    if args.one:
        print(json.dumps(one(Path(args.one))))
        return
    events = 2_000_000 if args.quick else 20_000_000
    with tempfile.TemporaryDirectory(prefix="matinee-batch-", dir=args.scratch) as scratch, pinned(THREADS):
        folder = Path(scratch)
        if not args.only_scaling:
            beside_peers(folder, events, members=events // 100)
        if not args.no_scaling:
            plot = None if args.quick else ROOT / "docs" / "img" / "batch_scaling.png"
            scaling(folder, 125_000 if args.quick else 1_250_000, plot)


def _declare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--scratch", help="a folder on a disk with room for some gigabytes")
    parser.add_argument("--only-scaling", action="store_true", help="only ours, as events and keys grow")
    parser.add_argument("--no-scaling", action="store_true", help="only the comparisons")
    parser.add_argument("--one", help=argparse.SUPPRESS)


def beside_peers(folder: Path, events: int, members: int) -> None:
    """Every comparison over one lake."""
    root = folder / "lake"
    generate(root, events, members)
    sizes = {"events": events, "members": members, "days": DAYS, "titles": TITLES, "threads": THREADS}
    versions = {"polars": pl.__version__, "pyarrow": pa.__version__}
    comparing = partial(
        _compare, folder=folder, root=root, events=events, sizes={**sizes, "mode": "one process"}
    )
    alone = partial(ours, root, folder, events)
    peers: dict[str, Callable[[], float]] = {"polars": partial(polars, root, folder, events)}
    for peer, requirements in (("duckdb", ["duckdb"]), ("spark", ["pyspark"])):
        try:
            python = peer_venv(peer, [*requirements, "pyarrow", "pandas"])
        except PeerMissing as missing:
            skipped(NAME, peer, str(missing))
            continue
        peers[peer] = partial(_peer, python, peer, root, folder, events, versions)
    for peer, theirs in peers.items():
        comparing(peer=peer, ours=alone, theirs=theirs, versions=versions)
    if "spark" not in peers:
        return
    import ray

    begun = time.perf_counter()
    with connect(load_settings({"home": str(folder / "home")}, environment={})):
        started = time.perf_counter() - begun
        figures: dict[str, float] = {}
        overhead(folder, figures)
        on_ray = partial(ours, root, folder, events, on_ray=True)
        on_ray()
        comparing(
            peer="spark",
            ours=on_ray,
            theirs=peers["spark"],
            versions={**versions, "ray": ray.__version__},
            sizes={**sizes, "mode": "Ray Data", "ray_start_s": round(started, 2), **figures},
        )


def overhead(folder: Path, figures: dict[str, float]) -> None:
    """What Ray Data takes for next to no events, the second time."""
    root = folder / "few"
    generate(root, 2_000, 20)
    for _ in range(2):
        begun = time.perf_counter()
        ours(root, folder, 2_000, on_ray=True)
        figures["ray_fixed_s"] = round(time.perf_counter() - begun, 2)


def _compare(
    *,
    folder: Path,
    root: Path,
    events: int,
    peer: str,
    ours: Callable[[], float],
    theirs: Callable[[], float],
    sizes: dict[str, object],
    versions: dict[str, str],
) -> None:
    def check() -> None:
        ours()
        theirs()
        found, expected = result(folder / "ours"), result(folder / peer)
        # Ours divides exact millionths, so the mean may differ in its last bit; all else is equal to the bit.
        average = np.allclose(found["average"], expected["average"], rtol=1e-14, atol=0, equal_nan=True)
        if not (average and found.drop("average").equals(expected.drop("average"))):
            raise AssertionError(f"{peer}: rows differ from ours")

    try:
        compare(
            name=NAME,
            peer=peer,
            metric="throughput",
            unit="events/s",
            ours=ours,
            theirs=theirs,
            higher_is_better=True,
            sizes=sizes,
            versions=versions,
            check=check,
        )
    except PeerFailed as failure:
        skipped(NAME, peer, str(failure))


def ours(root: Path, folder: Path, events: int, *, on_ray: bool = False) -> float:
    """A first build of the view over the lake; returns events/s."""
    out = folder / "ours"
    shutil.rmtree(out, ignore_errors=True)
    begun = time.perf_counter()
    parts = daily.read_parts(root)
    views = {VIEW.name: VIEW}
    built = daily.update(
        root,
        out,
        "build",
        views,
        parts=parts,
        plans=daily.plan(None, parts, views, times="days"),
        scratch=folder / "scratch",
        times="days",
        one_process=0 if on_ray else events,
    )
    files = {name: [file for span in each.spans for file in span.files] for name, each in built.items()}
    daily.write_ledger(out, "build", daily.Ledger(times="days", parts=parts, views=built))
    offline.publish(out, offline.Manifest(build="build", as_of=0, files=files))
    return events / (time.perf_counter() - begun)


def polars(root: Path, folder: Path, events: int) -> float:
    """Polars' lazy query, in this process."""
    out = folder / "polars"
    out.mkdir(exist_ok=True)
    begun = time.perf_counter()
    day = pl.col("event_time").dt.date().alias("day")
    week = pl.col("total").rolling_sum_by("day", window_size="7d").over("member_id")
    (
        pl.scan_parquet(paths(root), hive_partitioning=False)
        .group_by("member_id", day)
        .agg(
            events=pl.len(),
            total=pl.col("value").sum(),
            average=pl.col("value").mean(),
            titles=pl.col("title_id").n_unique(),
            event_timestamp=pl.col("event_time").max(),
        )
        .with_columns(week=week)
        .drop("day")
        .sink_parquet(out / "polars.parquet")
    )
    return events / (time.perf_counter() - begun)


def _peer(python: Path, peer: str, root: Path, folder: Path, events: int, versions: dict[str, str]) -> float:
    out = folder / peer
    out.mkdir(exist_ok=True)
    asked = {"paths": paths(root), "out": str(out), "threads": THREADS, "shuffle_partitions": 4 * THREADS}
    answer = run_peer(python, f"batch_{peer}", asked, cores=THREADS, timeout_s=TIMEOUT_S)
    versions[peer] = answer["version"]
    return events / float(answer["seconds"])


def result(folder: Path) -> pl.DataFrame:
    """The rows that someone wrote, in one order and with the same types."""
    files = [str(path) for path in folder.rglob("*.parquet") if "warm" not in path.parts]
    rows = pl.read_parquet(files, hive_partitioning=False)
    types = {"events": pl.Int64, "titles": pl.Int64, "event_timestamp": pl.Datetime("us", "UTC")}
    names = VIEW.schema.names
    return rows.select(names).cast(types).sort("member_id", "event_timestamp")


def scaling(folder: Path, base: int, plot: Path | None) -> None:
    """Ours at 1x, 4x and 16x of events and of keys, each in a process of its own, with its peak memory."""
    members = base // 100
    grown = [("events", by, base * by, members) for by in SCALE]
    grown += [("keys", by, 4 * base, members * by) for by in SCALE]
    lines: dict[str, list[dict[str, Any]]] = {"events": [], "keys": []}
    for what, by, events, keys in grown:
        root = folder / f"lake-{events}-{keys}"
        generate(root, events, keys)
        command = [sys.executable, "-m", "benchmarks.batch_features", "--one", str(root)]
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ)
        found = json.loads(done.stdout.splitlines()[-1])
        size = {"grows": what, "times": by, "events": events, "keys": keys}
        lines[what].append({"name": f"{NAME}_scaling", **size, **found})
        print(json.dumps({**lines[what][-1], "machine": machine()}), flush=True)
        shutil.rmtree(root)
    if plot is not None:
        plots.scaling(lines, plot, where="in one process")


def one(root: Path) -> dict[str, float]:
    """One build in this process: seconds, events/s and MiB: at most resident, and before it began."""
    with tempfile.TemporaryDirectory(dir=root.parent) as scratch:
        before = _peak_mib()
        events = lake.count(root)
        rate = ours(root, Path(scratch), events)
    figures = {"seconds": round(events / rate, 3), "events_per_s": round(rate)}
    return {**figures, "peak_mib": _peak_mib(), "before_mib": before}


def _peak_mib() -> int:
    """Most memory that this process ever had resident; 0 where the system doesn't say.

    Not `ru_maxrss`, which begins with what the parent had.
    """
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) // 1024


def paths(root: Path) -> list[str]:
    return [str(part.path) for part in lake.parts(root)]


def generate(root: Path, events: int, members: int) -> None:
    """A lake of events in the order of time over DAYS days, members and titles drawn with a skew."""
    draw = np.random.default_rng(3)
    member_ids = pa.array([f"member-{i:07d}" for i in range(members)])
    title_ids = pa.array([f"title-{i:05d}" for i in range(TITLES)])
    kinds = pa.array(["play", "stop", "click", "rate"])
    for first in range(0, events, PART_EVENTS):
        n = min(PART_EVENTS, events - first)
        times = BEGIN + (first + np.sort(draw.random(n)) * n) / events * DAYS * DAY
        values = pa.array(draw.integers(1, 11, n) / 2, mask=draw.random(n) < 0.1)
        table = pa.table(
            {
                "type": kinds.take(pa.array(draw.integers(0, len(kinds), n))),
                "member_id": member_ids.take(pa.array((draw.random(n) ** 2 * members).astype(np.int64))),
                "title_id": title_ids.take(pa.array((draw.random(n) ** 3 * TITLES).astype(np.int64))),
                "event_time": pa.array(times.astype(np.int64)).cast(TIMESTAMP),
                "value": values,
                "partition": pa.array(np.zeros(n, np.int32)),
                "offset": pa.array(np.arange(first, first + n)),
                "late_by": pa.array(np.zeros(n, np.int64)),
            }
        )
        day = datetime.fromtimestamp(times[-1] / 1e6, UTC)
        path = root / f"date={day:%Y-%m-%d}" / f"bench.00000.{first:020d}-{first + n - 1:020d}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, path, compression="zstd")


if __name__ == "__main__":
    main()
