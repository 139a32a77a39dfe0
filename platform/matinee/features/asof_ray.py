"""The point-in-time join on Ray Data, for rows that outgrow one process. Knows nothing of Feast.

Both sides are dealt into buckets by a hash of the join keys, through files; within a bucket the join is
`asof.join`. All rows of a key lie in one bucket, in their order, so the answer is that of one process.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from pyarrow import fs

from matinee.errors import Unavailable
from matinee.features import asof, offline, tasks
from matinee.features.offline import Parts

BUCKET_ROWS = 5_000_000
"""Rows that a bucket is meant to hold at most."""

_PLACE = "__place"
"""Positions of the asked rows, by which the answers find back."""


def join(
    asked: pa.Table, parts: Parts, *, needed: Sequence[str], rule: Mapping[str, Any], scratch: str
) -> pa.Table:
    """What `asof.join` gives for `asked` and the rows of `parts`, on the connected Ray cluster.

    Args:
        asked: one row at least.
        needed: columns of the rows that the join reads.
        rule: the keyword arguments of `asof.join`, all of them; one key at least.
        scratch: a folder or URI that every node reaches; what is written there is deleted at the end.

    Raises:
        Unavailable: this process is connected to no Ray cluster.
    """
    import ray

    if not ray.is_initialized():
        raise Unavailable(
            f"{parts.count()} rows are more than one process joins (one_process_rows), and no Ray cluster is "
            "connected: connect one, or raise one_process_rows"
        )
    files, base = offline.opened(scratch)
    folder = f"{base}/join-{secrets.token_hex(6)}"
    buckets = max(tasks.processes(), math.ceil(parts.count() / BUCKET_ROWS))
    schema = parts.schema()
    try:
        keys = [
            asof.comparable(asked[key], schema.field(held).type)
            for key, held in zip(rule["keys"], rule["row_keys"], strict=True)
        ]
        placed = asked.append_column(_PLACE, pa.array(np.arange(asked.num_rows)))
        for bucket, rows in _dealt(placed, keys, buckets):
            offline.write_parquet(files, f"{folder}/asked/{bucket}.parquet", rows)
        dealing = partial(
            deal,
            parts=parts,
            keys=rule["row_keys"],
            columns=needed,
            files=files,
            folder=folder,
            buckets=buckets,
        )
        tasks.run([{"part": place} for place in range(len(parts.paths))], dealing, on_ray=True)
        joining = partial(
            join_bucket, files=files, folder=folder, rule=dict(rule), empty=_empty(schema, needed)
        )
        answered = tasks.run([{"bucket": bucket} for bucket in range(buckets)], joining, on_ray=True)
        paths = [str(row["path"]) for row in answered]
        found = Parts(files=files, paths=paths).read(time=_PLACE)
    finally:
        if files.get_file_info(folder).type is fs.FileType.Directory:
            files.delete_dir(folder)
    order = np.argsort(found[_PLACE].to_numpy())
    return found.drop_columns(_PLACE).take(pa.array(order))


def deal(
    items: pa.Table,
    *,
    parts: Parts,
    keys: Sequence[str],
    columns: Sequence[str],
    files: fs.FileSystem,
    folder: str,
    buckets: int,
) -> pa.Table:
    """First pass, for {part}: the rows of that file of `parts` into `rows/<bucket>/<part>.parquet`."""
    for part in items["part"].to_pylist():
        rows = Parts(files=parts.files, paths=[parts.paths[part]]).read(columns)
        compared = [asof.comparable(rows[key], rows.schema.field(key).type) for key in keys]
        for bucket, some in _dealt(rows, compared, buckets):
            offline.write_parquet(files, f"{folder}/rows/{bucket}/{part:08d}.parquet", some)
    return items


def join_bucket(
    items: pa.Table, *, files: fs.FileSystem, folder: str, rule: Mapping[str, Any], empty: pa.Table
) -> pa.Table:
    """Second pass, for {bucket}: its answers into `found/<bucket>.parquet`; returns their {path}."""
    written = []
    for bucket in items["bucket"].to_pylist():
        path = f"{folder}/asked/{bucket}.parquet"
        if files.get_file_info(path).type is not fs.FileType.File:
            continue
        asked = Parts(files=files, paths=[path]).read()
        dealt = f"{folder}/rows/{bucket}"
        held = files.get_file_info(dealt).type is fs.FileType.Directory
        rows = offline.parquet_parts(files, dealt).read() if held else empty
        found = asof.join(asked, rows, **rule).append_column(_PLACE, asked[_PLACE])
        written.append({"path": f"{folder}/found/{bucket}.parquet"})
        offline.write_parquet(files, written[-1]["path"], found)
    return pa.Table.from_pylist(written, schema=pa.schema([("path", pa.string())]))


def _dealt(rows: pa.Table, keys: Sequence[pa.ChunkedArray], buckets: int) -> list[tuple[int, pa.Table]]:
    """Rows by bucket of their keys, in their order; buckets without rows are left out."""
    frame = pl.DataFrame({str(place): pl.from_arrow(key) for place, key in enumerate(keys)})
    bucket = (frame.hash_rows(seed=0) % buckets).to_numpy()
    order = np.argsort(bucket, kind="stable")
    ends = np.searchsorted(bucket[order], np.arange(buckets + 1))
    sorted_rows = rows.take(pa.array(order))
    return [
        (number, sorted_rows.slice(ends[number], ends[number + 1] - ends[number]))
        for number in range(buckets)
        if ends[number] < ends[number + 1]
    ]


def _empty(schema: pa.Schema, columns: Sequence[str]) -> pa.Table:
    return pa.schema([schema.field(column) for column in columns]).empty_table()
