"""What the stream has finished: state and offsets, committed together, on any file system Arrow knows.

A commit is one small file, `<epoch>-<worker>.json`, replaced as a whole after the state files it names:
who reads it sees the state and the offsets of one moment. State files hold what changed since the commit
before; once they outgrow the whole, the whole is written instead. An epoch is one placement of partitions
on workers: its file names the workers, and what earlier epochs had counted. A worker of an older epoch
cannot commit any more. Offsets belong to a cluster id: another cluster starts at 0 while state goes on.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from itertools import groupby
from operator import itemgetter

import pyarrow as pa
import pyarrow.fs as fs

from matinee.errors import MatineeError, StorageError
from matinee.features.offline import opened

_COMMIT = re.compile(r"\d{6}-.+\.json")

StateTables = Mapping[str, pa.Table]
"""State tables by name, as `aggregates.AggregateState` gives and takes them."""


class FencedError(MatineeError):
    """A newer placement of the partitions exists: this worker must end."""


@dataclass(frozen=True, kw_only=True)
class Commit:
    """One worker's commit.

    Args:
        partitions: those it reads.
        offsets: next offset to read, by cluster id and partition.
        counts: of this epoch: "events" accepted, "duplicates", "dead_letters", and "late/VIEW" for each view.
        last_event_time: latest event time accepted, microseconds; 0 before the first.
        tables: digest of each state table's definition.
        files: state files, the whole first, then the changes in order.
        sizes: bytes of each of `files`.
    """

    name: str
    epoch: int = 0
    partitions: Sequence[int] = ()
    offsets: Mapping[str, Mapping[int, int]] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    last_event_time: int = 0
    tables: Mapping[str, str] = field(default_factory=dict)
    files: Sequence[str] = ()
    sizes: Sequence[int] = ()


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """One placement of partitions on workers.

    Args:
        workers: their names and partitions.
        carried: what the epochs before had counted, as `Commit.counts`.
    """

    number: int = 0
    workers: Mapping[str, Sequence[int]] = field(default_factory=dict)
    carried: Mapping[str, int] = field(default_factory=dict)
    last_event_time: int = 0


class Commits:
    """The commits under one root.

    Args:
        root: a folder, or a URI such as `s3://bucket/prefix`.
    """

    def __init__(self, root: str) -> None:
        self._root = root
        self._files, self._folder = opened(root)
        self._local = isinstance(self._files, fs.LocalFileSystem)

    def epoch(self) -> Epoch:
        """The current placement; number 0 before the first."""
        text = self._read("epoch.json")
        if text is None:
            return Epoch()
        stored = json.loads(text)
        return Epoch(**stored)

    def begin(self, workers: Mapping[str, Sequence[int]]) -> Epoch:
        """Start a new epoch: from now on only its workers commit.

        Raises:
            StorageError: the root cannot be written.
        """
        before = self.epoch()
        counted = [commit for commit in self.read() if commit.epoch == before.number]
        carried = add_counts([before.carried, *(commit.counts for commit in counted)])
        latest = max([before.last_event_time, *(commit.last_event_time for commit in counted)])
        begun = Epoch(number=before.number + 1, workers=workers, carried=carried, last_event_time=latest)
        self._write("epoch.json", json.dumps(asdict(begun)).encode())
        return begun

    def read(self) -> list[Commit]:
        """Every commit that stands, of all epochs, the oldest epoch first."""
        found = []
        for name in self._names():
            if not _COMMIT.fullmatch(name):
                continue
            text = self._read(name)
            if text is None:
                continue
            stored = json.loads(text)
            offsets = {
                cluster: {int(partition): offset for partition, offset in held.items()}
                for cluster, held in stored.pop("offsets").items()
            }
            found.append(Commit(offsets=offsets, **stored))
        return sorted(found, key=lambda commit: (commit.epoch, commit.name))

    def owners(self, partitions: Iterable[int]) -> dict[int, Commit]:
        """For each partition the commit that knows most of it: that of its owner in the latest epoch."""
        latest: dict[int, Commit] = {}
        for commit in self.read():
            latest.update(dict.fromkeys(commit.partitions, commit))
        return {partition: latest[partition] for partition in partitions if partition in latest}

    def state(self, commit: Commit) -> Iterator[dict[str, pa.Table]]:
        """The state tables that a commit names, in the order in which they are to be restored."""
        for name in commit.files:
            with self._storing(name), self._files.open_input_file(self._path(name)) as source:
                for _, tables in groupby(_tables(source), key=itemgetter(0)):
                    yield {table: rows for _, table, rows in tables}

    def write(self, commit: Commit, state: Sequence[StateTables], *, whole: bool) -> Commit:
        """Replace a worker's commit, its state first; returns it with the files it names now.

        Args:
            commit: with the `files` of the commit before.
            state: what changed since then, in order, or all of it.
            whole: whether `state` is all of it, so that the files before are not needed.

        Raises:
            FencedError: the worker's epoch is over.
            StorageError: the root cannot be written or has no room; the commit before stands.
        """
        self.check(commit.epoch)
        files = [] if whole else list(commit.files)
        sizes = [] if whole else list(commit.sizes)
        if any(table.num_rows for tables in state for table in tables.values()):
            number = 1 + max((int(name.split(".")[1]) for name in commit.files), default=0)
            name = f"{commit.epoch:06d}-{commit.name}.{number:08d}.arrows"
            sizes.append(self._write(name, _bytes(state)))
            files.append(name)
        written = replace(commit, files=files, sizes=sizes)
        self._write(_name(written), json.dumps(asdict(written)).encode())
        for name in set(commit.files) - set(files):
            self._discard(name)
        return written

    def outgrown(self, commit: Commit) -> bool:
        """Whether the changes take more room than the whole they change, or are many."""
        return len(commit.files) > 64 or sum(commit.sizes[1:]) > max(sum(commit.sizes[:1]), 1 << 20)

    def check(self, epoch: int) -> None:
        """Raise FencedError where a newer epoch has begun."""
        current = self.epoch().number
        if current > epoch:
            raise FencedError(f"partitions were placed anew: epoch {current} has begun, this one is {epoch}")

    def forget(self, epoch: int) -> None:
        """Remove what epochs before this one left; their state lives on in its workers' commits."""
        named = {name for commit in self.read() if commit.epoch >= epoch for name in commit.files}
        for name in self._names():
            number, separator, _ = name.partition("-")
            if separator and number.isdigit() and int(number) < epoch and name not in named:
                self._discard(name)

    def _path(self, name: str) -> str:
        return f"{self._folder}/{name}"

    def _names(self) -> list[str]:
        selector = fs.FileSelector(self._folder, allow_not_found=True)
        with self._storing(""):
            found = self._files.get_file_info(selector)
        return sorted(each.base_name for each in found if each.type == fs.FileType.File)

    def _read(self, name: str) -> str | None:
        try:
            with self._files.open_input_stream(self._path(name)) as source:
                return str(source.read().decode())
        except (FileNotFoundError, NotADirectoryError):
            return None

    def _write(self, name: str, content: bytes) -> int:
        """Write a file as a whole: under a draft's name first where the file system is ours."""
        with self._storing(name):
            if self._local:
                self._files.create_dir(self._folder, recursive=True)
            path = self._path(f"{name}.draft" if self._local else name)
            with self._files.open_output_stream(path) as target:
                target.write(content)
            if self._local:
                self._files.move(path, self._path(name))
        return len(content)

    def _discard(self, name: str) -> None:
        with suppress(OSError):
            self._files.delete_file(self._path(name))

    @contextmanager
    def _storing(self, name: str) -> Iterator[None]:
        try:
            yield
        except OSError as failure:
            raise StorageError(f"stream commit {self._path(name)}: {failure}") from failure


def add_counts(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Counts of several workers or epochs, summed by name."""
    total: Counter[str] = Counter()
    for each in counts:
        total.update(each)
    return dict(total)


def positions(owners: Mapping[int, Commit], cluster: str) -> dict[int, int]:
    """The next offset to read of each partition that an owner committed for this cluster."""
    return {
        partition: commit.offsets[cluster][partition]
        for partition, commit in owners.items()
        if partition in commit.offsets.get(cluster, {})
    }


def _name(commit: Commit) -> str:
    return f"{commit.epoch:06d}-{commit.name}.json"


def _bytes(state: Sequence[StateTables]) -> bytes:
    """Arrow streams one after the other, each named by its schema's metadata."""
    sink = pa.BufferOutputStream()
    for number, tables in enumerate(state):
        for name, table in tables.items():
            if table.num_rows:
                schema = table.schema.with_metadata({"table": name, "state": str(number)})
                options = pa.ipc.IpcWriteOptions(compression="zstd")
                with pa.ipc.new_stream(sink, schema, options=options) as writer:
                    writer.write_table(table)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def _tables(source: pa.NativeFile) -> Iterator[tuple[bytes, str, pa.Table]]:
    while source.tell() < source.size():
        with pa.ipc.open_stream(source) as reader:
            named = reader.schema.metadata
            yield named[b"state"], named[b"table"].decode(), reader.read_all()
