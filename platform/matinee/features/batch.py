"""The features recomputed from the lake into the offline store, and checked against the stream.

Aggregate views are kept up to date by the day (`features.daily`). The views over watch histories are built
anew where anything changed, in two passes over files. The first deals the events of each group of lake parts
into buckets by a hash of the member and, again, of the title; the second computes all rows of a bucket's
keys with the stream's own transforms. Buckets pass through files in the home, so no pass holds the whole
lake.
"""

from __future__ import annotations

import logging
import math
import secrets
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from matinee.config import Settings
from matinee.errors import Unavailable
from matinee.events import lake
from matinee.features import daily, offline, tasks, transforms
from matinee.features.daily import Ledger
from matinee.features.history_rows import columns_of, history_rows
from matinee.features.titles import genres_of, read_catalogue
from matinee.features.transforms import (
    VIEWS,
    WATCH_COLUMNS,
    Genres,
    rows_of,
    title_content,
    watches_of,
)
from matinee.features.trust.expectations import Policy, ViewExpectations, Violation, check, gate, merged
from matinee.schema import LAKE_SCHEMA, WATCH_TYPES, AggregateView, Catalogue

logger = logging.getLogger(__name__)

BUCKET_EVENTS = 500_000
"""Events a bucket is meant to hold at most."""
PART_GROUP = 64
"""Lake parts that one task of the first pass reads."""

_ATTEMPTS = 5

_KEYS = ("member_id", "title_id")
_EVENTS = pa.schema([LAKE_SCHEMA.field(name) for name in WATCH_COLUMNS])


def build(
    settings: Settings,
    *,
    as_of: int | None = None,
    views: Mapping[str, AggregateView] | None = None,
    one_process: int = daily.ONE_PROCESS,
) -> dict[str, Any]:
    """Bring the offline store's rows of every view up to the lake, as of a time.

    Up to `one_process` events are computed here, more on the connected Ray cluster. Where nothing changed
    since the build before, nothing is written.

    Args:
        as_of: microseconds; later events are left out. None: everything in the lake.
        views: aggregate views by name; None: those that the home's registry declares.

    Returns:
        build, as_of (microseconds), events, seconds, rows (per view), computed (days of aggregate views
        that were computed, per view), written (False where nothing changed).

    Raises:
        NotFound: the home has no catalogue.
        StorageError: the home has no room; the build before stays.
        Unavailable: parts of the lake came and went all the time.
    """
    begun = time.monotonic()
    catalogue = read_catalogue(settings)
    declared = declared_views(settings) if views is None else views
    for _ in range(_ATTEMPTS):
        try:
            figures = _build(settings, catalogue, declared, as_of, one_process)
        except FileNotFoundError:
            # A part of the lake was rewritten between listing and reading it.
            continue
        return {**figures, "seconds": time.monotonic() - begun}
    raise Unavailable(f"lake {settings.paths.events}: parts went away during each of {_ATTEMPTS} builds")


def fits(settings: Settings, one_process: int = daily.ONE_PROCESS) -> bool:
    """Whether `build` computes the lake in this process, without Ray."""
    return lake.count(settings.paths.events) <= one_process


def declared_views(settings: Settings) -> Mapping[str, AggregateView]:
    """The aggregate views that the home's registry declares; none where it was never applied."""
    if not (settings.paths.feast / "registry.db").exists():
        return {}
    from matinee.features.store import FeatureStore

    views: Mapping[str, AggregateView] = FeatureStore(settings).aggregate_views()
    return views


def _build(
    settings: Settings,
    catalogue: Catalogue,
    views: Mapping[str, AggregateView],
    as_of: int | None,
    one_process: int,
) -> dict[str, Any]:
    events, root = settings.paths.events, settings.paths.feast / "offline"
    manifest, before = offline.read_manifest(root), daily.read_ledger(root)
    parts = daily.read_parts(events, before)
    beside = _digest(catalogue)
    count = Ledger(until=as_of, parts=parts).events()
    planned = daily.plan(before, parts, views, until=as_of)
    computed = {name: sum(each.last - each.first + 1 for each in planned[name].compute) for name in views}
    figures = {"computed": computed, "events": sum(count.values())}
    unchanged = before is not None and (before.parts, before.until, before.beside) == (parts, as_of, beside)
    known = before is not None and set(before.views) == set(views)
    if manifest and unchanged and known and not any(each.compute for each in planned.values()):
        held = {"build": manifest.build, "as_of": manifest.as_of, "rows": dict(manifest.rows)}
        return {**figures, **held, "written": False}
    until = latest_event_time(settings) if as_of is None else as_of
    name = f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{secrets.token_hex(3)}"
    scratch = settings.paths.scratch / f"features-{name}"
    built = daily.update(
        events,
        root,
        name,
        views,
        parts=parts,
        plans=planned,
        scratch=scratch,
        until=as_of,
        one_process=one_process,
    )
    on_ray = sum(count.values()) > one_process
    files, rows = _histories(settings, catalogue, root, name, scratch, until, on_ray=on_ray)
    for view, each in built.items():
        files[view] = [file for span in each.spans for file in span.files]
        rows[view] = sum(span.rows for span in each.spans)
        if not files[view]:
            files[view] = [offline.write_part(root, name, view, "empty", views[view].schema.empty_table())]
    violations = _violations(settings, root, views, files)
    decision = gate(violations, Policy(report_only=settings.features.gate == "report"))
    found = {"violations": [asdict(each) for each in violations]}
    if decision.action == "hold":
        shutil.rmtree(root / name, ignore_errors=True)
        return {**figures, **found, "build": name, "as_of": until, "rows": rows, "written": False,
                "held": decision.reason}  # fmt: skip
    ledger = Ledger(until=as_of, parts=parts, views=built, beside=beside)
    daily.write_ledger(root, name, ledger)
    offline.publish(root, offline.Manifest(build=name, as_of=until, files=files, rows=rows))
    return {**figures, **found, "build": name, "as_of": until, "rows": rows, "written": True}


def _violations(
    settings: Settings, root: Path, views: Mapping[str, AggregateView], files: Mapping[str, Sequence[str]]
) -> list[Violation]:
    """Where the rows of a build are not what is expected of them."""
    expected = {name: ViewExpectations.of(view) for name, view in views.items()}
    if (settings.paths.feast / "registry.db").exists():
        from matinee.features.store.declared import declared

        for name, view in declared(settings).views.items():
            expected.setdefault(name, view.expected)
    found: list[Violation] = []
    for name, written in files.items():
        if name in expected and expected[name].features:
            for file in written:
                rows = pq.read_table(root / file, columns=list(expected[name].features), partitioning=None)
                found += check(expected[name], rows)
    return merged(found)


def _histories(
    settings: Settings,
    catalogue: Catalogue,
    root: Path,
    name: str,
    scratch: Path,
    until: int,
    *,
    on_ray: bool,
) -> tuple[dict[str, list[str]], dict[str, int]]:
    """Write the views over watch histories, and what the catalogue says; returns files and rows."""
    try:
        dealt = _deal(settings, scratch, until, on_ray=on_ray)
        computed = _compute(dealt, root=root, build=name, genres=genres_of(catalogue), on_ray=on_ray)
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
    return files, rows


def _digest(catalogue: Catalogue) -> str:
    """Of what the views over watch histories depend on besides the lake."""
    rows = catalogue.table.to_pylist()
    return daily.digest_of(repr(rows).encode(), transforms)


def latest(
    settings: Settings, as_of: int | None = None, *, views: Mapping[str, AggregateView] | None = None
) -> dict[str, pa.Table]:
    """Each view's latest row per key as of a time (microseconds; None: everything), in this process.

    Args:
        views: aggregate views by name; None: those that the home's registry declares.
    """
    genres = genres_of(read_catalogue(settings))
    declared = declared_views(settings) if views is None else views
    needed = {name for view in declared.values() for name in columns_of(view)}
    columns = [name for name in LAKE_SCHEMA.names if name in {*WATCH_COLUMNS, *needed}]
    events = lake.read_events(settings.paths.events, until=as_of, columns=columns)
    watches = watches_of(events)
    histories = {
        view.name: view.transform(watches, rows_of(events, view, latest=True), genres)
        for view in VIEWS.values()
    }
    aggregates = {name: history_rows(view, events, times="latest") for name, view in declared.items()}
    return {**histories, **aggregates}


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
    declared = declared_views(settings)
    recomputed = latest(settings, views=declared)
    members = lake.read_events(settings.paths.events, columns=["member_id"])["member_id"]
    keys = {"member_id": sorted(set(members.to_pylist())), "title_id": read_catalogue(settings).title_ids}
    report = {}
    for name, table in recomputed.items():
        key, *columns = (column for column in table.column_names if column != offline.TIME)
        expected: Mapping[str, Any] = dict(
            zip(table[key].to_pylist(), table.select(columns).to_pylist(), strict=True)
        )
        asked = sorted({*keys[key], *expected}) if name in declared else keys[key]
        differing = [
            {"key": each, "online": online, "batch": expected.get(each)}
            for each, online in zip(asked, store.read_rows(name, asked), strict=True)
            if online != expected.get(each)
        ]
        report[name] = {
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


def _deal(settings: Settings, scratch: Path, until: int, *, on_ray: bool) -> list[dict[str, Any]]:
    root = settings.paths.events
    paths = [str(part.path) for part in lake.parts(root)]
    processes = tasks.processes() if on_ray else 1
    size = min(PART_GROUP, max(1, math.ceil(len(paths) / processes)))
    groups = [{"paths": paths[i : i + size], "group": f"{i // size:05d}"} for i in range(0, len(paths), size)]
    buckets = max(processes, math.ceil(lake.count(root) / BUCKET_EVENTS))
    spread = partial(deal, scratch=scratch, until=until, buckets=buckets)
    return tasks.run(groups, spread, on_ray=on_ray)


def _compute(
    dealt: Sequence[Mapping[str, Any]], *, root: Path, build: str, genres: Genres, on_ray: bool
) -> list[dict[str, Any]]:
    paths: dict[tuple[str, int], list[str]] = {}
    for part in dealt:
        paths.setdefault((part["key"], part["bucket"]), []).append(part["path"])
    buckets = [{"key": key, "bucket": bucket, "paths": held} for (key, bucket), held in sorted(paths.items())]
    return tasks.run(buckets, partial(compute, root=root, build=build, genres=genres), on_ray=on_ray)
