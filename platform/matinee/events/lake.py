"""The lake: every accepted event at rest, in Parquet parts under a folder for each day of arrival.

A part holds rows of one partition's log and is named by them:
`date=2026-01-31/<cluster id>.<partition>.<first offset>-<last offset>.parquet`. It appears whole or not at
all. Together with a stream's committed offsets the lake holds each event once: after a crash
`discard_after` removes what was written past the commit, and the replay writes it again.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote, unquote

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from matinee.errors import StorageError, Unavailable
from matinee.schema import LAKE_SCHEMA, TIMESTAMP, WATCH_TYPES, Catalogue, EventType, Interactions

_ORDER = ("event_time", "partition", "offset")
_READ_ATTEMPTS = 10
SMALL_OFFSETS = 50_000
"""A part that spans fewer offsets is small."""
LARGE_OFFSETS = 500_000
"""Parts are joined until they span about so many offsets."""
LEAST_RUN = 32
"""Fewer neighbours are not worth joining."""
_Result = TypeVar("_Result")


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """One file of the lake, as its name tells.

    Args:
        cluster: id of the cluster whose log it comes from, as written in the name.
        first: lowest offset.
        last: highest offset.
    """

    path: Path
    cluster: str
    partition: int
    first: int
    last: int


def write_part(root: Path, table: pa.Table, *, cluster: str) -> list[Path]:
    """Write one batch: a part for each partition it has rows of; returns their files.

    The folder is the day of the latest `ingest_time` of the rows. A batch written again, with the same
    rows, replaces itself.

    Args:
        root: the lake's folder.
        table: rows of `LAKE_SCHEMA`, in any order.
        cluster: id of the cluster whose log the offsets count.

    Raises:
        StorageError: the folder cannot be written or has no room; no half part stays.
    """
    written = []
    for partition in pc.unique(table["partition"]).to_pylist():
        rows = table.filter(pc.equal(table["partition"], partition)).cast(LAKE_SCHEMA)
        day = datetime.fromtimestamp(pc.max(rows["ingest_time"]).value / 1e6, tz=UTC)
        folder = root / f"date={day:%Y-%m-%d}"
        path = folder / _name(_quoted(cluster), partition, rows)
        with _storing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        _write(rows, path)
        written.append(path)
    return written


def discard_after(root: Path, cluster: str, offsets: Mapping[int, int]) -> int:
    """Remove the rows that a restart will read again; returns how many.

    Args:
        root: the lake's folder.
        cluster: id of the cluster the offsets belong to; parts of other clusters stay.
        offsets: per partition the next offset to read, 0 where nothing is committed; partitions that are
            not named stay as they are.

    Raises:
        StorageError: a part cannot be removed or rewritten.
    """
    removed = 0
    for part in parts(root):
        committed = offsets.get(part.partition)
        if part.cluster != _quoted(cluster) or committed is None or part.last < committed:
            continue
        with _storing(part.path):
            rows = pq.read_table(part.path, schema=LAKE_SCHEMA, partitioning=None)
            kept = rows.filter(pc.less(rows["offset"], committed))
            if kept.num_rows:
                _write(kept, part.path)
                part.path.rename(part.path.with_name(_name(part.cluster, part.partition, kept)))
            else:
                part.path.unlink()
        removed += rows.num_rows - kept.num_rows
    return removed


def compact(root: Path, cluster: str, offsets: Mapping[int, int]) -> int:
    """Join neighbouring small parts of a day into larger ones; returns how many parts went away.

    Only for who owns the partitions: nobody else may write or discard them meanwhile. Readers see a joined
    part from the moment it stands, and no longer the parts it holds (`parts`).

    Args:
        root: the lake's folder.
        cluster: id of the cluster whose log the offsets count.
        offsets: per partition the committed offset; later parts stay as they are.

    Raises:
        StorageError: the folder cannot be written or has no room.
    """
    runs: dict[tuple[Path, int], list[Part]] = {}
    for part in parts(root):
        if part.cluster == _quoted(cluster) and part.last < offsets.get(part.partition, 0):
            runs.setdefault((part.path.parent, part.partition), []).append(part)
    gone = 0
    for (folder, partition), held in runs.items():
        for run in _small_runs(sorted(held, key=lambda part: part.first)):
            with _storing(folder):
                tables = [pq.read_table(part.path, schema=LAKE_SCHEMA, partitioning=None) for part in run]
            rows = pa.concat_tables(tables)
            _write(rows, folder / _name(_quoted(cluster), partition, rows))
            for part in run:
                with _storing(part.path):
                    part.path.unlink()
            gone += len(run) - 1
    return gone


def read_events(
    root: Path,
    *,
    until: int | None = None,
    columns: Sequence[str] | None = None,
    types: Collection[EventType] | None = None,
) -> pa.Table:
    """Every event, ordered by (event_time, partition, offset); no rows where the lake is empty.

    Safe beside writers: what is written while reading is in the result whole or not at all.

    Args:
        root: the lake's folder.
        until: the latest `event_time` read, int microseconds since the epoch, UTC.
        columns: names of `LAKE_SCHEMA`; all of them where None.
        types: only events of these; of every type where None.

    Raises:
        Unavailable: parts came and went all the time while reading.
    """
    wanted = LAKE_SCHEMA.names if columns is None else list(columns)
    read = list(dict.fromkeys([*wanted, *_ORDER]))
    limit = ds.scalar(True)
    if until is not None:
        limit &= ds.field("event_time") <= pa.scalar(until, TIMESTAMP)
    if types is not None:
        limit &= ds.field("type").isin([str(kind) for kind in types])
    table = _retried(root, lambda: _dataset(root).to_table(columns=read, filter=limit))
    order = pc.sort_indices(table, sort_keys=[(name, "ascending") for name in _ORDER])
    return table.take(order).select(wanted).combine_chunks()


def count(root: Path) -> int:
    """How many events the lake holds."""
    return _retried(root, lambda: int(_dataset(root).count_rows()))


def parts(root: Path) -> list[Part]:
    """The parts that stand now, oldest day first; one whose rows another part holds as well is left out."""
    found = [part_of(path) for path in sorted(root.glob("date=*/*.parquet"))]
    widest: dict[tuple[str, int], int] = {}
    kept = []
    for part in sorted(found, key=lambda part: (part.cluster, part.partition, part.first, -part.last)):
        log = (part.cluster, part.partition)
        if part.last > widest.get(log, -1):
            widest[log] = part.last
            kept.append(part)
    return sorted(kept, key=lambda part: part.path)


def read_interactions(root: Path, catalogue: Catalogue) -> Interactions:
    """Each member's first watch of each title of the catalogue, ordered by time, ties by arrival.

    `value` is that watch's stars where it was a rating. Members are in the order of their ids.
    """
    columns = ["event_time", "type", "member_id", "title_id", "value"]
    events = read_events(root, columns=columns, types=WATCH_TYPES)
    events = events.filter(pc.is_in(events["title_id"], catalogue.table["title_id"].combine_chunks()))
    member_ids = sorted(pc.unique(events["member_id"]).to_pylist())
    title_ids = catalogue.title_ids
    member = _positions(events["member_id"], member_ids)
    title = _positions(events["title_id"], title_ids)
    pairs = member.astype(np.int64) * max(len(title_ids), 1) + title
    first = np.sort(np.unique(pairs, return_index=True)[1])
    value = pc.if_else(pc.equal(events["type"], str(EventType.RATE)), events["value"], None)
    return Interactions(
        member_ids=member_ids,
        title_ids=title_ids,
        member=member[first],
        title=title[first],
        time=events["event_time"].cast(pa.int64()).to_numpy()[first],
        value=value.fill_null(np.nan).to_numpy().astype(np.float32)[first],
    )


def ends(root: Path) -> dict[tuple[str, int], int]:
    """Per cluster and partition the offset after the last event held."""
    held: dict[tuple[str, int], int] = {}
    for part in parts(root):
        log = (unquote(part.cluster), part.partition)
        held[log] = max(part.last + 1, held.get(log, 0))
    return held


def read_after(root: Path, offsets: Mapping[str, Mapping[int, int]], partitions: Collection[int]) -> pa.Table:
    """Events of some partitions that lie at or past an offset, in no order.

    Args:
        offsets: by cluster and partition; 0 for those that are not named.
    """

    def read() -> pa.Table:
        found = [LAKE_SCHEMA.empty_table()]
        for part in parts(root):
            begin = offsets.get(unquote(part.cluster), {}).get(part.partition, 0)
            if part.partition in partitions and part.last >= begin:
                rows = pq.read_table(part.path, schema=LAKE_SCHEMA, partitioning=None)
                found.append(rows.filter(pc.greater_equal(rows["offset"], begin)))
        return pa.concat_tables(found).combine_chunks()

    return _retried(root, read)


def _small_runs(parts: Sequence[Part]) -> Iterator[list[Part]]:
    """Runs of neighbouring parts that are worth joining, by the offsets they span."""
    run: list[Part] = []
    for part in parts:
        small = part.last - part.first < SMALL_OFFSETS
        if run and not (small and part.last - run[0].first < LARGE_OFFSETS):
            yield from [run] * (len(run) >= LEAST_RUN)
            run = []
        if small:
            run.append(part)
    yield from [run] * (len(run) >= LEAST_RUN)


def _positions(ids: pa.ChunkedArray, vocabulary: Sequence[str]) -> npt.NDArray[np.int32]:
    found = pc.index_in(ids, pa.array(vocabulary, pa.string()))
    positions: npt.NDArray[np.int32] = found.to_numpy()
    return positions


def _dataset(root: Path) -> ds.Dataset:
    return ds.dataset([str(part.path) for part in parts(root)], schema=LAKE_SCHEMA, format="parquet")


def _retried(root: Path, read: Callable[[], _Result]) -> _Result:
    """A part that goes away between listing and reading was rewritten or discarded: list again."""
    for _ in range(_READ_ATTEMPTS):
        try:
            return read()
        except FileNotFoundError:
            continue
    raise Unavailable(f"lake {root}: parts went away during each of {_READ_ATTEMPTS} readings")


def _name(quoted_cluster: str, partition: int, rows: pa.Table) -> str:
    ends = pc.min_max(rows["offset"]).as_py()
    return f"{quoted_cluster}.{partition:05d}.{ends['min']:020d}-{ends['max']:020d}.parquet"


def part_of(path: Path) -> Part:
    """What a part's path tells."""
    cluster, partition, offsets = path.stem.rsplit(".", 2)
    first, last = offsets.split("-")
    return Part(path=path, cluster=cluster, partition=int(partition), first=int(first), last=int(last))


def _quoted(cluster: str) -> str:
    return quote(cluster, safe="")


def _write(rows: pa.Table, path: Path) -> None:
    draft = path.with_suffix(".draft")
    with _storing(path):
        try:
            pq.write_table(rows, draft, compression="zstd")
            draft.replace(path)
        except OSError:
            with suppress(OSError):
                draft.unlink(missing_ok=True)
            raise


@contextmanager
def _storing(path: Path) -> Iterator[None]:
    try:
        yield
    except StorageError:
        raise
    except OSError as failure:
        if failure.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageError(f"lake {path}: no space left; free some, or move the home") from failure
        raise StorageError(f"lake {path}: {failure.strerror or failure}") from failure
