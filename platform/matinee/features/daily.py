"""Rows of aggregate views over the lake, kept up to date by the day.

A view's rows lie in spans of whole UTC days of event time, a file each (or one for each group of keys). A
ledger beside them says from which lake parts and which definition they came. The next run looks at what the
lake gained or lost since, computes the spans whose rows that can change, and carries the others over. Rows
are computed from events again, read as far back as the windows reach, so no state is kept but the lake.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import math
import os
import shutil
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from matinee.events import lake
from matinee.features import exact, history_rows, offline, tasks
from matinee.features.history_rows import DAY, Times, columns_of
from matinee.features.offline import Root
from matinee.schema import LAKE_SCHEMA, TIMESTAMP, AggregateView

ONE_PROCESS = 20_000_000
"""Most events that are computed in this process, about 5 GiB of memory; more go to Ray."""
SPAN_EVENTS = 200_000
"""Days are put together in one span until they hold about this many events."""
BUCKET_EVENTS = 500_000
"""Events that a group of keys is meant to hold at most, on Ray."""
PART_GROUP = 64
"""Lake parts that one task on Ray reads."""
LEDGER = "ledger.json"

_FOREVER = 1 << 62
"""A day, or a microsecond, that no event reaches."""


@dataclass(frozen=True, kw_only=True)
class Span:
    """Rows of consecutive days.

    Args:
        first: day since the epoch; `last` likewise, inclusive.
        files: relative to the offline store's root.
    """

    first: int
    last: int
    files: Sequence[str] = ()
    rows: int = 0


@dataclass(frozen=True, kw_only=True)
class Built:
    """What a build holds of one view.

    Args:
        definition: digest of what the rows were computed by.
        spans: ordered, apart from each other.
    """

    definition: str
    spans: Sequence[Span] = ()


@dataclass(frozen=True, kw_only=True)
class Ledger:
    """What a build was made from.

    Args:
        until: later events were left out (microseconds); None: everything was read.
        times: which rows there are, see `history_rows.Times`.
        parts: per lake part, named by path and size, its events by day.
        views: by name.
        beside: digests of what other views of the build were made from.
    """

    until: int | None = None
    times: Times = "events"
    parts: Mapping[str, Mapping[int, int]] = field(default_factory=dict)
    views: Mapping[str, Built] = field(default_factory=dict)
    beside: str = ""

    def events(self) -> dict[int, int]:
        """Events by day."""
        counted: dict[int, int] = {}
        for days in self.parts.values():
            for day, count in days.items():
                counted[day] = counted.get(day, 0) + count
        return counted


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a run computes of one view, and what it carries over."""

    compute: Sequence[Span]
    keep: Sequence[Span]


def read_ledger(root: Root) -> Ledger | None:
    """What the current build of the offline store was made from; None where none says so."""
    manifest = offline.read_manifest(root)
    if manifest is None:
        return None
    files, base = offline.opened(root)
    try:
        with files.open_input_stream(f"{base}/{manifest.build}/{LEDGER}") as stream:
            held = json.loads(stream.read())
    except FileNotFoundError:
        return None
    parts = {part: {int(day): n for day, n in days.items()} for part, days in held["parts"].items()}
    views = {
        name: Built(definition=each["definition"], spans=[Span(**span) for span in each["spans"]])
        for name, each in held["views"].items()
    }
    return Ledger(**{**held, "parts": parts, "views": views})


def write_ledger(root: Root, build: str, ledger: Ledger) -> None:
    """Say what a build was made from; before the build is published."""
    files, base = offline.opened(root)
    files.create_dir(f"{base}/{build}", recursive=True)
    with files.open_output_stream(f"{base}/{build}/{LEDGER}") as stream:
        stream.write(json.dumps(asdict(ledger)).encode())


def definition(view: AggregateView) -> str:
    """Digest of what a view's rows depend on: its declaration, and the code that computes them."""
    declared = json.loads(view.to_json())
    for name in ("name", "ttl", "freshness", "late", "owner", "description"):
        del declared[name]
    for each in declared["aggregates"]:
        del each["description"], each["expect"]
    return digest_of(json.dumps(declared, sort_keys=True).encode(), exact, history_rows)


def digest_of(data: bytes, *modules: ModuleType) -> str:
    """Digest of data and of the code of the modules that it is computed by."""
    digest = hashlib.sha256(data)
    for module in modules:
        digest.update(inspect.getsource(module).encode())
    return digest.hexdigest()


def read_parts(root: Path, before: Ledger | None = None) -> dict[str, Mapping[int, int]]:
    """The lake's parts, each with its events by day; those that `before` names are not opened again."""
    known = before.parts if before else {}
    found: dict[str, Mapping[int, int]] = {}
    for part in lake.parts(root):
        name = f"{part.path.relative_to(root)}:{part.path.stat().st_size}"
        found[name] = known[name] if name in known else _events_by_day(part.path)
    return found


def plan(
    before: Ledger | None,
    parts: Mapping[str, Mapping[int, int]],
    views: Mapping[str, AggregateView],
    *,
    until: int | None = None,
    times: Times = "events",
    span_events: int = SPAN_EVENTS,
) -> dict[str, Plan]:
    """What has to be computed of each view, given what an earlier build was made from."""
    now = Ledger(until=until, parts=parts)
    held = now.events()
    limit = _FOREVER if until is None else until // DAY
    days = sorted(day for day in held if day <= limit)
    dirty = _changed_days(before, parts, until)
    plans = {}
    for name, view in views.items():
        built = before.views.get(name) if before else None
        if built is None or before is None or before.times != times or built.definition != definition(view):
            plans[name] = Plan(compute=_spans(days, held, (), span_events), keep=())
            continue
        touched = _touched(view, dirty, days)
        old = [span for span in built.spans if span.first <= limit]
        covered = _spans(days, held, old, span_events)
        unchanged = {(span.first, span.last): span for span in old}
        keep, compute = [], []
        for span in covered:
            same = unchanged.get((span.first, span.last))
            if same is None or _any_between(touched, span.first, span.last):
                compute.append(span)
            else:
                keep.append(same)
        plans[name] = Plan(compute=compute, keep=keep)
    return plans


def update(
    events: Path,
    root: Root,
    build: str,
    views: Mapping[str, AggregateView],
    *,
    parts: Mapping[str, Mapping[int, int]],
    plans: Mapping[str, Plan],
    scratch: Path,
    until: int | None = None,
    times: Times = "events",
    one_process: int = ONE_PROCESS,
) -> dict[str, Built]:
    """Write the planned spans, and carry the others over, into `build`; nothing is published.

    Args:
        events: the lake.
        root: the offline store.
        scratch: a folder for work in progress, removed at the end; used on Ray only.
        one_process: most events that are computed here; more go to the connected Ray cluster.

    Raises:
        StorageError: the offline store has no room.
    """
    wanted = [(view, plans[name]) for name, view in views.items() if plans[name].compute]
    first = min((_reads_from(view, planned.compute) for view, planned in wanted), default=0)
    last = max((planned.compute[-1].last for _, planned in wanted), default=-1)
    end = min((last + 1) * DAY, _FOREVER if until is None else until + 1)
    read = {
        name: sum(n for day, n in days.items() if first < (day + 1) * DAY and day * DAY < end)
        for name, days in parts.items()
    }
    paths = [str(events / name.rpartition(":")[0]) for name, n in read.items() if n]
    count = sum(read.values())
    write = partial(_write, root=root, build=build, times=times)
    if not wanted:
        written = []
    elif count <= one_process:
        columns = _columns(view for view, _ in wanted)
        held = _read(paths, columns, first, end)
        written = [row for view, planned in wanted for row in write(held, view, planned, "00000")]
    else:
        try:
            written = _on_ray(paths, wanted, first, end, count, scratch, write)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    made: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for row in written:
        made.setdefault((row["view"], row["first"]), []).append(row)
    built = {}
    for name, view in views.items():
        spans = [_carried(root, build, span) for span in plans[name].keep]
        for span in plans[name].compute:
            rows = made.get((name, span.first), [])
            files, size = [row["file"] for row in rows], sum(row["rows"] for row in rows)
            spans.append(Span(first=span.first, last=span.last, files=files, rows=size))
        spans.sort(key=lambda span: span.first)
        built[name] = Built(definition=definition(view), spans=spans)
    return built


def _changed_days(
    before: Ledger | None, parts: Mapping[str, Mapping[int, int]], until: int | None
) -> list[int]:
    """Days whose events are others than in `before`."""
    if before is None:
        return []
    gone = {name: days for name, days in before.parts.items() if name not in parts}
    changed: set[int] = set()
    for name in parts.keys() - before.parts.keys():
        joined = [each for each in gone if _lies_in(each, name)]
        if joined and _added([gone[each] for each in joined]) == dict(parts[name]):
            for each in joined:
                del gone[each]
        else:
            changed |= parts[name].keys()
    changed |= {day for days in gone.values() for day in days}
    if before.until != until:
        cut = min(each for each in (before.until, until) if each is not None) // DAY
        changed |= {day for days in parts.values() for day in days if day >= cut}
    return sorted(changed)


def _lies_in(name: str, whole: str) -> bool:
    """Whether a part holds rows of the same log as another, and none outside its offsets."""
    part, other = (lake.part_of(Path(each.rpartition(":")[0])) for each in (name, whole))
    same = (part.cluster, part.partition) == (other.cluster, other.partition)
    return same and other.first <= part.first and part.last <= other.last


def _added(counts: Sequence[Mapping[int, int]]) -> dict[int, int]:
    total: Counter[int] = Counter()
    for each in counts:
        total.update(each)
    return dict(total)


def _touched(view: AggregateView, dirty: Sequence[int], days: Sequence[int]) -> list[int]:
    """Those of `days` with rows that can see an event of the `dirty` days."""
    if not dirty:
        return []
    reached = [(day, _reaches(view, day)) for day in dirty]
    first = np.array([day for day, _ in reached])
    last = np.maximum.accumulate([last for _, last in reached])
    asked = np.unique(np.array([*days, *dirty]))
    place = np.searchsorted(first, asked, "right") - 1
    kept = (place >= 0) & (last[np.maximum(place, 0)] >= asked)
    found: list[int] = asked[kept].tolist()
    return found


def _reaches(view: AggregateView, day: int) -> int:
    """The last day with rows that can see an event of `day`."""
    last = day
    for each in view.aggregates:
        if each.window.kind in ("unbounded", "session"):
            return _FOREVER
        hop = exact.hop_us(each.window)
        leaves = (((day + 1) * DAY - 1) // hop + each.window.size // each.window.hop) * hop
        last = max(last, (leaves - 1) // DAY)
    return last


def _reads_from(view: AggregateView, spans: Sequence[Span]) -> int:
    """The earliest time (microseconds) of an event that rows of the spans can see."""
    start = min(span.first for span in spans) * DAY
    first = start
    for each in view.aggregates:
        if each.window.kind in ("unbounded", "session"):
            return -_FOREVER
        begin = exact.first_tile(np.array([start]), each.window)[0] * exact.hop_us(each.window)
        first = min(first, int(begin))
    return first


def _spans(days: Sequence[int], held: Mapping[int, int], old: Sequence[Span], most: int) -> list[Span]:
    """Spans that cover `days`: the old ones, the last of them grown while it is small, and new ones
    before, between and after them.
    """
    spans = [Span(first=span.first, last=span.last) for span in old]
    firsts = [span.first for span in old]
    growing: dict[int, tuple[int, int]] = {}
    if old:
        size = sum(held[day] for day in days if old[-1].first <= day <= old[-1].last)
        growing[len(old)] = (len(old) - 1, size)
    for day in days:
        gap = bisect_right(firsts, day)
        if gap and day <= old[gap - 1].last:
            continue
        place, size = growing.get(gap, (-1, most))
        if size + held[day] <= most:
            spans[place] = Span(first=spans[place].first, last=day)
            growing[gap] = (place, size + held[day])
        else:
            spans.append(Span(first=day, last=day))
            growing[gap] = (len(spans) - 1, held[day])
    return sorted(spans, key=lambda span: span.first)


def _any_between(days: Sequence[int], first: int, last: int) -> bool:
    return int(np.searchsorted(days, last, "right")) > int(np.searchsorted(days, first, "left"))


def _write(
    events: pl.DataFrame,
    view: AggregateView,
    planned: Plan,
    name: str,
    *,
    root: Root,
    build: str,
    times: Times,
) -> list[dict[str, Any]]:
    """Compute the rows of a view's spans from `events` and write a part for each span that has some."""
    stamps = events["event_time"].dt.epoch("us").to_numpy()
    written: list[dict[str, Any]] = []
    for run in _runs(view, planned):
        begin, end = run[0].first * DAY, (run[-1].last + 1) * DAY
        kept = (stamps >= _reads_from(view, run)) & (stamps < end)
        seen = _arrow(events if kept.all() else events.filter(kept))
        rows = history_rows.history_rows(view, seen, times=times, since=begin)

        def stored(span: Span, part: pa.Table) -> dict[str, Any]:
            file = offline.write_part(root, build, view.name, f"{span.first:06d}-{name}", part)
            return {"view": view.name, "first": span.first, "file": file, "rows": part.num_rows}

        with ThreadPoolExecutor(pa.cpu_count()) as threads:
            parts = _parted(rows, run, threads)
            written.extend(threads.map(stored, parts.keys(), parts.values()))
    return written


def _parted(rows: pa.Table, spans: Sequence[Span], threads: ThreadPoolExecutor) -> dict[Span, pa.Table]:
    """The rows of each span that has some; rows between spans are left out."""
    firsts = np.array([span.first for span in spans])
    lasts = np.array([span.last for span in spans])

    def parted(batch: pa.RecordBatch) -> list[pa.RecordBatch]:
        day = batch[offline.TIME].cast(pa.int64()).to_numpy() // DAY
        place = np.searchsorted(firsts, day, "right") - 1
        place[day > lasts[place]] = len(spans)
        if (place == place[0]).all():
            return [batch if i == place[0] else batch.slice(0, 0) for i in range(len(spans))]
        order = np.argsort(place.astype(np.int16), kind="stable")
        ordered = batch.take(pa.array(order))
        bounds = np.searchsorted(place[order], np.arange(len(spans) + 1))
        return [ordered.slice(bounds[i], bounds[i + 1] - bounds[i]) for i in range(len(spans))]

    batches = [batch for batch in rows.to_batches() if batch.num_rows]
    split = zip(*threads.map(parted, batches), strict=True)
    tables = {span: pa.Table.from_batches(held) for span, held in zip(spans, split, strict=bool(batches))}
    return {span: table for span, table in tables.items() if table.num_rows}


def _runs(view: AggregateView, planned: Plan) -> list[list[Span]]:
    """The spans to compute, those together that are computed from the same events or lie side by side."""
    kept = [span.first for span in planned.keep]
    runs: list[list[Span]] = []
    for span in planned.compute:
        last = runs[-1][-1].last if runs else -_FOREVER
        apart = bisect_right(kept, last) < bisect_right(kept, span.first)
        if runs and (not apart or _reads_from(view, [span]) < (last + 1) * DAY):
            runs[-1].append(span)
        else:
            runs.append([span])
    return runs


def _carried(root: Root, build: str, span: Span) -> Span:
    """A span of an earlier build as one of `build`: the same files under new names."""
    files, base = offline.opened(root)
    carried = []
    for file in span.files:
        target = f"{build}/{file.partition('/')[2]}"
        files.create_dir(f"{base}/{target}".rpartition("/")[0], recursive=True)
        source, place = f"{base}/{file}", f"{base}/{target}"
        if not (isinstance(files, fs.LocalFileSystem) and _linked(source, place)):
            files.copy_file(source, place)
        carried.append(target)
    return Span(first=span.first, last=span.last, files=carried, rows=span.rows)


def _linked(source: str, place: str) -> bool:
    """Give a local file a second name; False where its disk cannot."""
    try:
        os.link(source, place)
    except OSError:
        return False
    return True


def _on_ray(
    paths: Sequence[str],
    wanted: Sequence[tuple[AggregateView, Plan]],
    first: int,
    end: int,
    count: int,
    scratch: Path,
    write: Any,
) -> list[dict[str, Any]]:
    """The same in two passes over files: events to groups of keys, then each group's rows."""
    keys = sorted({view.key for view, _ in wanted})
    columns: dict[str, Sequence[str]] = {
        key: _columns(view for view, _ in wanted if view.key == key) for key in keys
    }
    cpus = tasks.processes()
    size = min(PART_GROUP, max(1, math.ceil(len(paths) / cpus)))
    groups = [
        {"paths": list(paths[i : i + size]), "group": f"{i // size:05d}"} for i in range(0, len(paths), size)
    ]
    buckets = max(cpus, math.ceil(count / BUCKET_EVENTS))
    spread = partial(_deal, columns=columns, first=first, end=end, scratch=scratch, buckets=buckets)
    dealt: dict[tuple[str, int], list[str]] = {}
    for row in tasks.run(groups, spread, on_ray=True):
        dealt.setdefault((row["key"], row["bucket"]), []).append(row["path"])
    items = [{"key": key, "bucket": bucket, "paths": held} for (key, bucket), held in sorted(dealt.items())]
    compute = partial(_compute, columns=columns, wanted=wanted, write=write)
    return tasks.run(items, compute, on_ray=True)


_DEALT = pa.schema([("key", pa.string()), ("bucket", pa.int64()), ("path", pa.string())])
_WRITTEN = pa.schema(
    [("view", pa.string()), ("first", pa.int64()), ("file", pa.string()), ("rows", pa.int64())]
)


def _deal(
    items: pa.Table,
    *,
    columns: Mapping[str, Sequence[str]],
    first: int,
    end: int,
    scratch: Path,
    buckets: int,
) -> pa.Table:
    """First pass, one batch of {paths, group}: events into `<key>-<bucket>/<group>.parquet`."""
    dealt = []
    for item in items.to_pylist():
        every = [name for name in LAKE_SCHEMA.names if any(name in each for each in columns.values())]
        events = _read(item["paths"], every, first, end)
        for key, names in columns.items():
            bucket_of = pl.col(key).hash(0) % buckets
            keyed = events.select(names).filter(pl.col(key).is_not_null()).with_columns(__bucket=bucket_of)
            parts = keyed.partition_by("__bucket", as_dict=True, include_key=False)
            for (number,), rows in parts.items():
                bucket = int(str(number))
                path = scratch / f"{key}-{bucket}" / f"{item['group']}.parquet"
                path.parent.mkdir(parents=True, exist_ok=True)
                rows.write_parquet(path, compression="lz4")
                dealt.append({"key": key, "bucket": bucket, "path": str(path)})
    return pa.Table.from_pylist(dealt, schema=_DEALT)


def _compute(
    items: pa.Table,
    *,
    columns: Mapping[str, Sequence[str]],
    wanted: Sequence[tuple[AggregateView, Plan]],
    write: Any,
) -> pa.Table:
    """Second pass, one batch of {key, bucket, paths}: the rows of the bucket's keys."""
    written: list[dict[str, Any]] = []
    for item in items.to_pylist():
        held = _read(item["paths"], columns[item["key"]])
        for view, planned in wanted:
            if view.key == item["key"]:
                written.extend(write(held, view, planned, f"{item['bucket']:05d}"))
    return pa.Table.from_pylist(written, schema=_WRITTEN)


def _columns(views: Iterable[AggregateView]) -> list[str]:
    wanted = {name for view in views for name in columns_of(view)}
    return [name for name in LAKE_SCHEMA.names if name in wanted]


def _read(
    paths: Sequence[str], columns: Sequence[str], first: int = -_FOREVER, end: int = _FOREVER
) -> pl.DataFrame:
    """Columns of files of events with first <= event_time < end (microseconds); missing columns are null."""
    types = pl.DataFrame(pl.from_arrow(LAKE_SCHEMA.empty_table())).schema
    scan = pl.scan_parquet(
        list(paths),
        schema={name: types[name] for name in columns},
        hive_partitioning=False,
        missing_columns="insert",
        extra_columns="ignore",
    )
    time = pl.col("event_time")
    if first > -_FOREVER:
        scan = scan.filter(time >= pl.lit(first).cast(types["event_time"]))
    if end < _FOREVER:
        scan = scan.filter(time < pl.lit(end).cast(types["event_time"]))
    return scan.collect()


def _arrow(events: pl.DataFrame) -> pa.Table:
    return events.to_arrow(compat_level=pl.CompatLevel.newest())


def _events_by_day(path: Path) -> dict[int, int]:
    held = pq.ParquetFile(path)
    column = held.schema_arrow.get_field_index("event_time")
    groups = [held.metadata.row_group(i) for i in range(held.metadata.num_row_groups)]
    ends = [group.column(column).statistics for group in groups]
    if all(each is not None and each.has_min_max for each in ends):
        days = {_day(time) for each in ends for time in (each.min, each.max)}
        if len(days) == 1:
            return {days.pop(): held.metadata.num_rows}
    times = held.read(columns=["event_time"])["event_time"].cast(TIMESTAMP).cast(pa.int64()).to_numpy()
    day = times // DAY
    low = int(day.min(initial=_FOREVER))
    counts = np.bincount(day - low) if len(day) else np.zeros(0, np.int64)
    return {low + int(i): int(counts[i]) for i in np.flatnonzero(counts)}


def _day(time: Any) -> int:
    return int(np.datetime64(time.replace(tzinfo=None), "us").astype(np.int64)) // DAY
