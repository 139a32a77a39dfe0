"""What rankings read of the feature store, at rest: the served log.

`<root>/<view>/date=2026-01-31/<name>.parquet`, a part appearing whole. A row says what one request read
of one key in one view: the values and the event_timestamp that the store gave, null where it had no row.
"""

from __future__ import annotations

import errno
import secrets
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from matinee.errors import InvalidInput, StorageError
from matinee.schema import TIMESTAMP

REQUEST_ID = "request_id"
READ_TIME = "read_time"
TIME = "event_timestamp"
RESERVED = (REQUEST_ID, READ_TIME, TIME)


@dataclass(frozen=True, kw_only=True, slots=True)
class Served:
    """What one request read of one key in one view.

    Args:
        key: of the entity.
        read_time: microseconds: when the read had ended.
        event_timestamp: of the row, microseconds; None where the store had no row.
        values: by feature; empty where the store had no row.
    """

    request_id: str
    view: str
    key: str
    read_time: int
    event_timestamp: int | None
    values: Mapping[str, Any] = field(default_factory=dict)


def schema(key: str, features: Mapping[str, pa.DataType]) -> pa.Schema:
    """Of a view's part: request_id, read_time, the key, event_timestamp, each feature.

    Raises:
        InvalidInput: a feature has the name of another column.
    """
    taken = sorted(set(features) & {*RESERVED, key})
    if taken:
        raise InvalidInput(f"features named {', '.join(taken)} cannot be logged: the log's own columns are")
    own = [
        pa.field(REQUEST_ID, pa.string(), nullable=False),
        pa.field(READ_TIME, TIMESTAMP, nullable=False),
        pa.field(key, pa.string(), nullable=False),
        pa.field(TIME, TIMESTAMP),
    ]
    return pa.schema([*own, *(pa.field(name, kind) for name, kind in features.items())])


def table(rows: Sequence[Served], key: str, features: Mapping[str, pa.DataType]) -> pa.Table:
    """Rows of one view as a table of `schema`."""
    columns = {
        REQUEST_ID: pa.array([row.request_id for row in rows], pa.string()),
        READ_TIME: pa.array([row.read_time for row in rows], pa.int64()).cast(TIMESTAMP),
        key: pa.array([row.key for row in rows], pa.string()),
        TIME: pa.array([row.event_timestamp for row in rows], pa.int64()).cast(TIMESTAMP),
    }
    for name, kind in features.items():
        columns[name] = pa.array([row.values.get(name) for row in rows], kind)
    return pa.table(columns, schema=schema(key, features))


def write(root: Path, view: str, rows: pa.Table) -> Path:
    """Add one part to a view's log; its folder is the day of its latest read.

    Args:
        rows: of `schema`, at least one.

    Raises:
        StorageError: the folder cannot be written or has no room.
    """
    latest = int(rows[READ_TIME].cast(pa.int64()).to_numpy().max())
    day = datetime.fromtimestamp(latest / 1e6, tz=UTC)
    path = root / view / f"date={day:%Y-%m-%d}" / f"{latest:020d}-{secrets.token_hex(4)}.parquet"
    draft = path.with_suffix(".draft")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(rows, draft, compression="zstd")
        draft.replace(path)
    except OSError as failure:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
        reason = "no space left" if failure.errno in (errno.ENOSPC, errno.EDQUOT) else failure
        raise StorageError(f"served features {path}: {reason}") from failure
    return path


def views(root: Path) -> list[str]:
    """Views with a part, by name."""
    return sorted(folder.name for folder in root.glob("*") if any(folder.glob("date=*/*.parquet")))


def read(root: Path, view: str, *, rows: int, until: int | None = None) -> pa.Table | None:
    """The rows of a view read last, in the order of the reads; None where there is none.

    Parts written under another declaration of the view take part with the columns they have; where a
    column's type changed, only the parts of the newest type do.

    Args:
        rows: most rows.
        until: microseconds; later reads are left out.
    """
    held: list[pa.Table] = []
    known: dict[str, pa.DataType] = {}
    found = 0
    for path in sorted(root.glob(f"{view}/date=*/*.parquet"), key=lambda each: each.name, reverse=True):
        try:
            part = pq.read_table(path, partitioning=None)
        except FileNotFoundError:
            continue
        if any(known.get(column.name, column.type) != column.type for column in part.schema):
            break
        known = {column.name: column.type for column in part.schema} | known
        if until is not None:
            part = part.filter(pa.array(part[READ_TIME].cast(pa.int64()).to_numpy() <= until))
        held.append(part)
        found += part.num_rows
        if found >= rows:
            break
    if not found:
        return None
    whole = pa.concat_tables(reversed(held), promote_options="default").sort_by(READ_TIME)
    return whole.slice(max(0, whole.num_rows - rows)).combine_chunks()


def prune(root: Path, before: int) -> int:
    """Delete the days that ended before a moment (microseconds); returns how many folders went."""
    first = f"date={datetime.fromtimestamp(before / 1e6, tz=UTC):%Y-%m-%d}"
    gone = [folder for folder in root.glob("*/date=*") if folder.name < first]
    for folder in gone:
        shutil.rmtree(folder, ignore_errors=True)
    return len(gone)
