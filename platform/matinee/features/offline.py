"""Offline rows at rest, and the point-in-time join over them. Knows nothing of Feast.

Layout: `<root>/<build>/<view>/<part>.parquet`, and `<root>/manifest.json`, replaced last, which names the
build and its files: a reader sees one whole build or the one before it.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from matinee.errors import NotFound, StorageError

TIME = "event_timestamp"
"""The column that says from when on a row holds."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A whole build.

    Args:
        build: the build's folder.
        as_of: microseconds; nothing later is in the build.
        files: per view, paths relative to the root.
        rows: per view.
    """

    build: str
    as_of: int
    files: Mapping[str, Sequence[str]] = field(default_factory=dict)
    rows: Mapping[str, int] = field(default_factory=dict)


def write_part(root: Path, build: str, view: str, name: str, table: pa.Table) -> str:
    """Write one part of a build and return its path relative to `root`. Invisible until `publish`."""
    path = root / build / view / f"{name}.parquet"
    with _storage(root):
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(".draft")
        pq.write_table(table, draft)
        draft.replace(path)
    return str(path.relative_to(root))


def publish(root: Path, manifest: Manifest) -> None:
    """Make a build the one that readers see. The build before it is kept, older ones are deleted."""
    before = read_manifest(root)
    with _storage(root):
        root.mkdir(parents=True, exist_ok=True)
        draft = root / "manifest.draft"
        draft.write_text(json.dumps(asdict(manifest), indent=1))
        draft.replace(root / "manifest.json")
    kept = {manifest.build, before.build if before else ""}
    for folder in root.iterdir():
        if folder.is_dir() and folder.name not in kept:
            shutil.rmtree(folder, ignore_errors=True)


def read_manifest(root: Path) -> Manifest | None:
    """The build that readers see; None before the first."""
    try:
        return Manifest(**json.loads((root / "manifest.json").read_text()))
    except FileNotFoundError:
        return None


def append(root: Path, view: str, table: pa.Table) -> None:
    """Add rows of one view to the current build, or to a first one."""
    manifest = read_manifest(root) or Manifest(build="appended", as_of=0)
    files = list(manifest.files.get(view, ()))
    files.append(write_part(root, manifest.build, view, f"appended-{len(files):05d}-{os.getpid()}", table))
    latest = table[TIME].cast(pa.int64()).to_numpy().max(initial=manifest.as_of)
    publish(
        root,
        Manifest(
            build=manifest.build,
            as_of=int(latest),
            files={**manifest.files, view: files},
            rows={**manifest.rows, view: manifest.rows.get(view, 0) + table.num_rows},
        ),
    )


def read(root: Path, view: str, columns: Sequence[str] | None = None) -> pa.Table:
    """All rows of a view in the current build.

    Raises:
        NotFound: no build holds the view.
    """
    manifest = read_manifest(root)
    files = manifest.files.get(view) if manifest else None
    if not files:
        raise NotFound(f"offline features {view!r} in {root}: none; build them with jobs/build_features.py")
    parts = [pq.read_table(root / file, columns=list(columns) if columns else None) for file in files]
    return pa.concat_tables(parts)


def join_as_of(
    asked: pa.Table,
    rows: pa.Table,
    *,
    key: str,
    columns: Sequence[str],
    names: Sequence[str],
    ttl_us: int = 0,
) -> pa.Table:
    """For each asked row, in its order, the values of the latest row of its key at or before its time.

    Args:
        asked: with `key` and TIME; repeated rows stay.
        rows: with `key`, TIME and `columns`; of rows with equal key and time the last one counts.
        names: what `columns` are called in the answer.
        ttl_us: a row older than this many microseconds counts as missing; 0: none is too old.

    Returns:
        `names` alone, aligned with `asked`; null where no row qualifies.
    """
    place, stamp = "__place", "__stamp"
    left = pl.DataFrame(
        {
            key: pl.Series(pl.from_arrow(asked[key].cast(pa.string()))),
            TIME: asked[TIME].cast(pa.timestamp("us", "UTC")).cast(pa.int64()).to_numpy(),
            place: np.arange(asked.num_rows),
        }
    ).sort(TIME)
    right = (
        pl.DataFrame({key: pl.from_arrow(rows[key]), stamp: rows[TIME].cast(pa.int64()).to_numpy()})
        .with_row_index("__row")
        .unique([key, stamp], keep="last", maintain_order=True)
        .sort(stamp)
        .with_columns(**{TIME: pl.col(stamp)})
    )
    joined = left.join_asof(right, on=TIME, by=key, strategy="backward", check_sortedness=False)
    if ttl_us:
        fresh = pl.col(TIME) - pl.col(stamp) <= ttl_us
        joined = joined.with_columns(pl.when(fresh).then(pl.col("__row")).alias("__row"))
    taken = joined.sort(place)["__row"].cast(pl.Int64).to_arrow()
    picked = rows.select(list(columns)).combine_chunks().take(taken)
    return picked.rename_columns(list(names))


@contextmanager
def _storage(root: Path) -> Iterator[None]:
    """Turns a full or read-only disk into StorageError."""
    try:
        yield
    except OSError as failure:
        if failure.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
            raise StorageError(f"offline features in {root}: {failure}") from failure
        raise
