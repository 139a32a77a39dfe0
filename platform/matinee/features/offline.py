"""Offline rows at rest, in a local folder or on any store that Arrow reads. Knows nothing of Feast.

Layout: `<root>/<build>/<view>/<part>.parquet`, and `<root>/manifest.json`, replaced last, which names the
build and its files: a reader sees one whole build or the one before it. A root is a folder or a URI such
as `s3://bucket/prefix`.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from matinee.errors import NotFound, StorageError
from matinee.features import asof
from matinee.schema import TIMESTAMP

TIME = asof.TIME
"""The column that says from when on a row holds."""

Root = Path | str


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A whole build.

    Args:
        build: the build's folder.
        as_of: microseconds; nothing later is in the build.
        files: per view, paths relative to the root.
        rows: per view.
        spans: per file, the least and the greatest time in it, microseconds; `publish` adds what is
            missing. A file without a span is read whatever time is asked for.
    """

    build: str
    as_of: int
    files: Mapping[str, Sequence[str]] = field(default_factory=dict)
    rows: Mapping[str, int] = field(default_factory=dict)
    spans: Mapping[str, Sequence[int]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Parquet files that hold rows, in the order of the rows.

    Args:
        files: the file system they are in.
        paths: theirs in it.
    """

    files: fs.FileSystem
    paths: Sequence[str]

    def count(self) -> int:
        """Their rows, as their footers say."""
        return sum(self._each(lambda path: int(pq.read_metadata(path, filesystem=self.files).num_rows)))

    def schema(self) -> pa.Schema:
        """That of the first file."""
        return pq.read_schema(self.paths[0], filesystem=self.files)

    def read(
        self,
        columns: Sequence[str] | None = None,
        *,
        time: str = TIME,
        since: int | None = None,
        until: int | None = None,
    ) -> pa.Table:
        """Their rows; with `since` or `until` (microseconds, inclusive) those with `time` between."""
        bounds = [(op, us) for op, us in ((">=", since), ("<=", until)) if us is not None]
        kind = self.schema().field(time).type if bounds else None
        conditions = [(time, op, pa.scalar(us, TIMESTAMP).cast(kind)) for op, us in bounds]

        def one(path: str) -> pa.Table:
            return pq.read_table(
                path,
                filesystem=self.files,
                columns=None if columns is None else list(columns),
                filters=conditions or None,
                use_threads=len(self.paths) < pa.cpu_count(),
                partitioning=None,
                pre_buffer=not isinstance(self.files, fs.LocalFileSystem),
            )

        return pa.concat_tables(self._each(one), promote_options="default")

    def _each(self, function: Callable[[str], Any]) -> list[Any]:
        with ThreadPoolExecutor(max(1, min(pa.cpu_count(), len(self.paths)))) as pool:
            return list(pool.map(function, self.paths))


def opened(root: Root) -> tuple[fs.FileSystem, str]:
    """The file system of a folder or URI, and its path there."""
    text = str(root)
    if "://" not in text:
        return fs.LocalFileSystem(), text
    if text.startswith("s3://"):
        text += ("&" if "?" in text else "?") + "allow_delayed_open=true"  # small files in one request
    files, path = fs.FileSystem.from_uri(text)
    return files, path


def write_parquet(files: fs.FileSystem, path: str, table: pa.Table) -> None:
    """Write a table as one Parquet file, whole or not at all."""
    out = pa.BufferOutputStream()
    pq.write_table(table, out)
    _put(files, path, out.getvalue())


def write_part(root: Root, build: str, view: str, name: str, table: pa.Table) -> str:
    """Write one part of a build and return its path relative to `root`. Invisible until `publish`.

    Raises:
        StorageError: the root has no room or cannot be written.
    """
    relative = f"{build}/{view}/{name}.parquet"
    files, base = opened(root)
    with _storage(root):
        write_parquet(files, f"{base}/{relative}", table)
    return relative


def publish(root: Root, manifest: Manifest) -> None:
    """Make a build the one that readers see. The build before it is kept, older ones are deleted.

    Raises:
        StorageError: the root has no room or cannot be written.
    """
    with _storage(root), _locked(root):
        _publish(root, manifest)


def read_manifest(root: Root) -> Manifest | None:
    """The build that readers see; None before the first."""
    files, base = opened(root)
    try:
        with files.open_input_stream(f"{base}/manifest.json") as stream:
            return Manifest(**json.loads(stream.read()))
    except FileNotFoundError:
        return None


def append(root: Root, view: str, table: pa.Table) -> None:
    """Add rows of one view to the current build, or to a first one.

    Of one local root many processes may append at a time; of a remote one, one process.

    Raises:
        StorageError: the root has no room or cannot be written.
    """
    with _storage(root), _locked(root):
        manifest = read_manifest(root) or Manifest(build="appended", as_of=0)
        held = manifest.files.get(view, ())
        file = write_part(root, manifest.build, view, f"appended-{len(held):05d}-{os.getpid()}", table)
        latest = table[TIME].cast(TIMESTAMP).cast(pa.int64()).to_numpy().max(initial=manifest.as_of)
        grown = replace(
            manifest,
            as_of=int(latest),
            files={**manifest.files, view: [*held, file]},
            rows={**manifest.rows, view: manifest.rows.get(view, 0) + table.num_rows},
        )
        _publish(root, grown)


def parts(root: Root, view: str, *, since: int | None = None, until: int | None = None) -> Parts:
    """The files of a view in the current build that may hold rows of the time asked for (microseconds).

    Raises:
        NotFound: no build holds the view.
    """
    manifest = read_manifest(root)
    held = manifest.files.get(view) if manifest else None
    if manifest is None or not held:
        raise NotFound(f"offline features {view!r} in {root}: none; build them with jobs/build_features.py")
    files, base = opened(root)
    least = -(2**63) if since is None else since
    most = 2**63 - 1 if until is None else until

    def within(file: str) -> bool:
        first, last = manifest.spans.get(file, (least, most))
        return first <= most and last >= least

    needed = [file for file in held if within(file)] or held[:1]
    return Parts(files=files, paths=[f"{base}/{file}" for file in needed])


def parquet_parts(files: fs.FileSystem, path: str) -> Parts:
    """The Parquet file at a path, or all those in a folder and below, in the order of their paths.

    Files and folders whose names begin with a dot or an underscore don't count.

    Raises:
        NotFound: there is none.
    """
    info = files.get_file_info(path)
    if info.type is fs.FileType.File:
        return Parts(files=files, paths=[path])
    found: list[str] = []
    if info.type is fs.FileType.Directory:
        for each in files.get_file_info(fs.FileSelector(path, recursive=True)):
            inner = each.path.removeprefix(info.path).strip("/").split("/")
            if each.type is fs.FileType.File and not any(name.startswith((".", "_")) for name in inner):
                found.append(each.path)
    if not found:
        raise NotFound(f"Parquet at {path}: none")
    return Parts(files=files, paths=sorted(found))


def read(
    root: Root,
    view: str,
    columns: Sequence[str] | None = None,
    *,
    since: int | None = None,
    until: int | None = None,
) -> pa.Table:
    """Rows of a view in the current build, those of a time alone where `since` or `until` is given.

    Args:
        since, until: microseconds, inclusive; files that lie outside are not opened.

    Raises:
        NotFound: no build holds the view.
    """
    return parts(root, view, since=since, until=until).read(columns, since=since, until=until)


def _publish(root: Root, manifest: Manifest) -> None:
    files, base = opened(root)
    before = read_manifest(root)
    spans = dict(manifest.spans)
    for file in (file for held in manifest.files.values() for file in held):
        span = spans.get(file) or _span(files, f"{base}/{file}")
        if span is not None:
            spans[file] = span
    text = json.dumps(asdict(replace(manifest, spans=spans)), indent=1)
    _put(files, f"{base}/manifest.json", text.encode())
    kept = {manifest.build, before.build if before else ""}
    for each in files.get_file_info(fs.FileSelector(base)):
        if each.type is fs.FileType.Directory and each.base_name not in kept and each.base_name[0] != ".":
            files.delete_dir(each.path)


def _span(files: fs.FileSystem, path: str) -> list[int] | None:
    """Least and greatest time in a file, microseconds; None where it doesn't say or has no rows."""
    footer = pq.read_metadata(path, filesystem=files)
    schema = footer.schema.to_arrow_schema()
    place = schema.get_field_index(TIME)
    if place < 0 or not footer.num_rows or not pa.types.is_timestamp(schema.field(place).type):
        return None
    column = [footer.schema.column(i).path for i in range(len(footer.schema))].index(TIME)
    spans = []
    for group in range(footer.num_row_groups):
        statistics = footer.row_group(group).column(column).statistics
        if statistics is None or not statistics.has_min_max:
            return None
        raw = pa.array([statistics.min_raw, statistics.max_raw], pa.int64())
        stamps = raw.cast(schema.field(place).type).cast(TIMESTAMP, safe=False)
        spans.append(stamps.cast(pa.int64()).to_pylist())
    return [min(span[0] for span in spans), max(span[1] for span in spans)]


def _put(files: fs.FileSystem, path: str, content: bytes | pa.Buffer) -> None:
    """Replace a file, whole or not at all: locally by renaming a draft, remotely by one request."""
    if not isinstance(files, fs.LocalFileSystem):
        with files.open_output_stream(path) as stream:
            stream.write(content)
        return
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f".{target.name}-{os.getpid()}.draft")
    try:
        draft.write_bytes(memoryview(content))
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def _locked(root: Root) -> Iterator[None]:
    """One writer of the manifest at a time, where the root is local."""
    files, base = opened(root)
    if not isinstance(files, fs.LocalFileSystem):
        yield
        return
    Path(base).mkdir(parents=True, exist_ok=True)
    with (Path(base) / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def _storage(root: Root) -> Iterator[None]:
    """Turns a full or read-only disk into StorageError."""
    try:
        yield
    except StorageError:
        raise
    except OSError as failure:
        if failure.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
            raise StorageError(f"offline features in {root}: {failure}") from failure
        raise
