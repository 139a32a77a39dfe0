"""The features recomputed from the lake: on Ray Data into the offline store, and checked against the stream.

The build runs in two passes over files. The first deals the events of each group of lake parts into
buckets by a hash of the member and, again, of the title; the second computes all rows of a bucket's keys
with the stream's own transforms. Buckets pass through files in the home, so no pass holds the whole lake.
"""

from __future__ import annotations

import logging
import math
import secrets
import shutil
import time
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from matinee.config import Settings
from matinee.events import lake
from matinee.features import offline
from matinee.features.titles import genres_of, read_catalogue
from matinee.features.transforms import (
    VIEWS,
    WATCH_COLUMNS,
    Genres,
    rows_of,
    title_content,
    watches_of,
)
from matinee.schema import LAKE_SCHEMA, WATCH_TYPES

logger = logging.getLogger(__name__)

BUCKET_EVENTS = 500_000
"""Events a bucket is meant to hold at most."""
PART_GROUP = 64
"""Lake parts that one task of the first pass reads."""

_KEYS = ("member_id", "title_id")
_EVENTS = pa.schema([LAKE_SCHEMA.field(name) for name in WATCH_COLUMNS])


def build(settings: Settings, *, as_of: int | None = None) -> dict[str, Any]:
    """Compute every view's rows as of a time into the offline store, on the connected Ray cluster.

    Args:
        as_of: microseconds; later events are left out. None: everything in the lake.

    Returns:
        build, as_of (microseconds), events, seconds, rows (per view).

    Raises:
        NotFound: the home has no catalogue.
        StorageError: the home has no room; the build before stays.
    """
    begun = time.monotonic()
    catalogue = read_catalogue(settings)
    until = latest_event_time(settings) if as_of is None else as_of
    name = f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{secrets.token_hex(3)}"
    root = settings.paths.feast / "offline"
    scratch = settings.paths.scratch / f"features-{name}"
    try:
        dealt = _deal(settings, scratch, until)
        computed = _compute(dealt, root=root, build=name, genres=genres_of(catalogue))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    files: dict[str, list[str]] = {view: [] for view in VIEWS}
    rows = dict.fromkeys(VIEWS, 0)
    for part in computed:
        files[part["view"]].append(part["file"])
        rows[part["view"]] += part["rows"]
    for view, written in files.items():
        if not written:
            empty = VIEWS[view].schema.empty_table()
            written.append(offline.write_part(root, name, view, "empty", empty))
    content = title_content(catalogue.table, 0)
    files["title_content"] = [offline.write_part(root, name, "title_content", "catalogue", content)]
    rows["title_content"] = content.num_rows
    offline.publish(root, offline.Manifest(build=name, as_of=until, files=files, rows=rows))
    return {
        "build": name,
        "as_of": until,
        "events": sum(part["rows"] for part in dealt if part["key"] == "member_id"),
        "seconds": time.monotonic() - begun,
        "rows": rows,
    }


def latest(settings: Settings, as_of: int | None = None) -> dict[str, pa.Table]:
    """Each view's latest row per key as of a time (microseconds; None: everything), in this process."""
    genres = genres_of(read_catalogue(settings))
    events = lake.read_events(settings.paths.events, until=as_of, columns=WATCH_COLUMNS)
    watches = watches_of(events)
    return {
        view.name: view.transform(watches, rows_of(events, view, latest=True), genres)
        for view in VIEWS.values()
    }


def latest_event_time(settings: Settings) -> int:
    """The latest event time in the lake, microseconds; 0 where it is empty."""
    times = lake.read_events(settings.paths.events, columns=["event_time"])["event_time"]
    return int(times.cast(pa.int64()).to_numpy().max(initial=0))


def compare(settings: Settings) -> dict[str, dict[str, Any]]:
    """The stream's online values against the batch's, value by value, for every member and every title.

    Returns:
        Per view: rows (keys compared), equal, and differing, the first five as {key, online, batch}; a
        side without a row is None. Floats must be equal to the bit.
    """
    from matinee.features.store import FeatureStore

    store = FeatureStore(settings)
    recomputed = latest(settings)
    members = lake.read_events(settings.paths.events, columns=["member_id"])["member_id"]
    keys = {"member_id": sorted(set(members.to_pylist())), "title_id": read_catalogue(settings).title_ids}
    report = {}
    for view in VIEWS.values():
        asked = keys[view.key]
        columns = [name for name in view.schema.names if name not in (view.key, offline.TIME)]
        table = recomputed[view.name]
        expected: Mapping[str, Any] = dict(
            zip(table[view.key].to_pylist(), table.select(columns).to_pylist(), strict=True)
        )
        differing = [
            {"key": key, "online": online, "batch": expected.get(key)}
            for key, online in zip(asked, store.read_rows(view.name, asked), strict=True)
            if online != expected.get(key)
        ]
        report[view.name] = {
            "rows": len(asked),
            "equal": len(asked) - len(differing),
            "differing": differing[:5],
        }
    return report


def deal(parts: pa.Table, *, scratch: Path, until: int, buckets: int) -> pa.Table:
    """First pass, one batch of {paths, group}: events into `<key>-<bucket>/<group>.parquet`."""
    dealt = []
    for paths, group in zip(parts["paths"].to_pylist(), parts["group"].to_pylist(), strict=True):
        scan = pl.scan_parquet(paths, hive_partitioning=False).select(WATCH_COLUMNS)
        events = scan.filter(pl.col("event_time").dt.epoch("us") <= until).collect()
        for key in _KEYS:
            kept = events
            if key == "title_id":
                kept = events.filter(pl.col("type").is_in(list(map(str, WATCH_TYPES))))
            bucket = pl.col(key).hash(0) % buckets
            for (number,), rows in (
                kept.with_columns(__bucket=bucket)
                .partition_by("__bucket", as_dict=True, include_key=False)
                .items()
            ):
                path = scratch / f"{key}-{number}" / f"{group}.parquet"
                path.parent.mkdir(parents=True, exist_ok=True)
                rows.write_parquet(path)
                dealt.append({"key": key, "bucket": int(str(number)), "path": str(path), "rows": rows.height})
    return pa.Table.from_pylist(dealt, schema=_DEALT)


def compute(buckets: pa.Table, *, root: Path, build: str, genres: Genres) -> pa.Table:
    """Second pass, one batch of {key, bucket, paths}: all rows of the bucket's keys into a part a view."""
    written = []
    for each in buckets.to_pylist():
        table = pl.read_parquet(each["paths"], hive_partitioning=False).to_arrow().cast(_EVENTS)
        watches = watches_of(table)
        for view in VIEWS.values():
            if view.key == each["key"]:
                asked = rows_of(table, view, latest=not view.history)
                rows = view.transform(watches, asked, genres)
                file = offline.write_part(root, build, view.name, f"{each['bucket']:05d}", rows)
                written.append({"view": view.name, "file": file, "rows": rows.num_rows})
    return pa.Table.from_pylist(written, schema=_WRITTEN)


_DEALT = pa.schema(
    [("key", pa.string()), ("bucket", pa.int64()), ("path", pa.string()), ("rows", pa.int64())]
)
_WRITTEN = pa.schema([("view", pa.string()), ("file", pa.string()), ("rows", pa.int64())])


def _deal(settings: Settings, scratch: Path, until: int) -> list[dict[str, Any]]:
    import ray

    root = settings.paths.events
    paths = [str(part.path) for part in lake.parts(root)]
    cpus = int(ray.cluster_resources().get("CPU", 1))
    size = min(PART_GROUP, max(1, math.ceil(len(paths) / cpus)))
    groups = [{"paths": paths[i : i + size], "group": f"{i // size:05d}"} for i in range(0, len(paths), size)]
    buckets = max(cpus, math.ceil(lake.count(root) / BUCKET_EVENTS))
    return _run(groups, partial(deal, scratch=scratch, until=until, buckets=buckets))


def _compute(
    dealt: Sequence[Mapping[str, Any]], *, root: Path, build: str, genres: Genres
) -> list[dict[str, Any]]:
    paths: dict[tuple[str, int], list[str]] = {}
    for part in dealt:
        paths.setdefault((part["key"], part["bucket"]), []).append(part["path"])
    buckets = [{"key": key, "bucket": bucket, "paths": held} for (key, bucket), held in sorted(paths.items())]
    return _run(buckets, partial(compute, root=root, build=build, genres=genres))


def _run(items: list[dict[str, Any]], function: Any) -> list[dict[str, Any]]:
    """`function` on each item by Ray Data, one item a task."""
    if not items:
        return []
    import ray.data

    console = logging.getLogger("ray.data")
    level = console.level
    console.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            ray.data.DataContext.get_current().enable_progress_bars = False
            data = ray.data.from_items(items, override_num_blocks=len(items))
            mapped = data.map_batches(function, batch_size=1, batch_format="pyarrow")
            rows: list[dict[str, Any]] = mapped.take_all()
        finally:
            console.setLevel(level)
    return rows
