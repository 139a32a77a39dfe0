"""Where packed rows lie: SQLite in a file or Redis, behind one small interface.

A row is a value of `features.packed` under (view, entity key). A write never goes back in time: it replaces
the row of a key only where its event time is not earlier; of equal times the later write stays. This holds
among any number of writers, because the store itself compares. What is raised is the client's own error.
"""

from __future__ import annotations

import os
import re
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import pyarrow as pa

from matinee.errors import StorageError, Unavailable
from matinee.features import packed
from matinee.features.entity_keys import entity_keys
from matinee.features.packed import Layout
from matinee.schema import TIMESTAMP

PROJECT = "matinee"
"""Feast's name for what is ours, in the registry and in shared stores."""
TIME = "event_timestamp"
"""The column of a row's event time."""
UNTOLD = "unknown"
"""The generation of stores that cannot tell theirs, nor what was written."""

_CLIENTS = ("redis", "botocore", "boto3", "cassandra")
"""Packages whose exceptions say that a store does not answer."""

_WRITE_ROWS = 20_000
"""Most rows of one SQLite transaction: other writers get their turn between two."""
_SCRIPT_ROWS = 1_000
"""Most rows of one Redis script, which holds the server for a few milliseconds."""
_READ_KEYS = 512
"""Most keys of one statement."""
_GET_KEYS = 4_000
"""Most keys of one MGET."""
_FOLLOWED_S = 600
"""For how long Redis keeps track of a view's changes after a follower has asked."""
_LOG_BATCHES = 1_000
"""Most batches of changed keys that Redis keeps for a view; who lags further reads everything."""


class Cursor(NamedTuple):
    """Up to where a follower has seen a view's changes.

    Args:
        generation: the store's generation; None where it is empty.
        epoch: counts how often the view was dropped.
        change: counts the view's writes.
        asked_at: monotonic seconds at which the store was asked to keep track.
    """

    generation: str | None
    epoch: int
    change: int
    asked_at: float = 0.0


class Rows(Protocol):
    """Packed rows by (view, key). Safe in many threads and from many processes."""

    def put(self, view: str, keys: Sequence[bytes], values: Sequence[bytes], layout: Layout) -> None:
        """Write rows of one layout, unless the store holds a later row of the key."""

    def get(self, views: Sequence[str], keys: Sequence[bytes]) -> list[list[bytes | None]]:
        """Per view, the rows of `keys` in their order; all of them in one read where they are few."""

    def changed(
        self, view: str, keys: Sequence[bytes], since: Cursor | None
    ) -> tuple[Cursor, dict[bytes, bytes], bool]:
        """What of `keys` was written since; without keys it only begins to keep track.

        Returns:
            A cursor for the next call, the rows (at least those that changed), and whether these are all rows
            there are: those that are missing are gone.
        """

    def layout(self, fingerprint: bytes) -> Layout | None:
        """The layout of a fingerprint that some row was written with; None where it is unknown."""

    def declare(self, views: Sequence[str]) -> None:
        """Make the store ready for these views, where it needs that."""

    def drop(self, view: str) -> None:
        """Delete a view's rows."""

    def clear(self) -> None:
        """Delete everything."""

    def generation(self) -> str | None:
        """A text that changes when the store has lost what it held; None where it holds nothing."""

    def close(self) -> None:
        """Release what this thread holds."""


def put_table(rows: Rows, view: str, table: pa.Table, *, key: str, layout: Layout) -> None:
    """Write a table of a view's rows: `key`, every feature of `layout`, event_timestamp.

    Raises:
        InvalidInput: a column is missing or of another type.
    """
    times = table[TIME].cast(TIMESTAMP).cast(pa.int64()).to_numpy()
    values = packed.encode(layout, table, time=times, created=None)
    rows.put(view, entity_keys(key, table[key]), values, layout)


def translated(failure: Exception, where: str) -> StorageError | Unavailable | None:
    """What a store's client raised, as our error; None where it is no word of a store.

    Args:
        where: which store, for the message.
    """
    if isinstance(failure, sqlite3.Error) and "full" in str(failure):
        return StorageError(f"feature store {where}: {failure}")
    if isinstance(failure, sqlite3.Error) or type(failure).__module__.partition(".")[0] in _CLIENTS:
        return Unavailable(f"feature store {where}: {failure}")
    return None


@contextmanager
def guarded(where: str) -> Iterator[None]:
    """Turns what a store's client raises into our errors (`translated`)."""
    try:
        yield
    except Exception as failure:
        ours = translated(failure, where)
        if ours is None:
            raise
        raise ours from failure


class SqliteRows:
    """Rows in one SQLite file (WAL, synchronous NORMAL), a connection for each thread.

    A read of a file that is not there raises `Gone`; a write makes it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._uri = path.absolute().as_uri()
        self._name = os.fspath(path)
        self._local = threading.local()
        self._selects: dict[tuple[tuple[str, ...], int], str] = {}

    def put(self, view: str, keys: Sequence[bytes], values: Sequence[bytes], layout: Layout) -> None:
        """Write rows; see `Rows`."""
        number = _number(view)
        for start in range(0, len(keys), _WRITE_ROWS):
            chunk = zip(keys[start : start + _WRITE_ROWS], values[start : start + _WRITE_ROWS], strict=True)
            ordered = sorted(chunk, key=itemgetter(0))  # stable: a later row of a key stays the later
            with self._writing() as connection:
                connection.execute(
                    "INSERT OR IGNORE INTO layouts VALUES (?, ?)", (layout.fingerprint, layout.text)
                )
                ((change, name),) = connection.execute(_NEXT_CHANGE, (number, view)).fetchall()
                assert name == view, f"views {name} and {view} share a number"
                connection.executemany(_UPSERT, [(key, number, change, value) for key, value in ordered])

    def get(self, views: Sequence[str], keys: Sequence[bytes]) -> list[list[bytes | None]]:
        """Rows by view and key; see `Rows`."""
        self._reading()
        cursor: sqlite3.Cursor = self._local.cursor
        asked = tuple(views)
        if len(keys) == 1:
            held = dict(cursor.execute(self._select(asked, 1), keys).fetchall())
            return [[held.get(_number(view))] for view in asked]
        found: dict[tuple[int, bytes], bytes] = {}
        for start in range(0, len(keys), _READ_KEYS):
            chunk = keys[start : start + _READ_KEYS]
            size = 1 << (len(chunk) - 1).bit_length()  # few statements for any number of keys
            padded = [*chunk, *[chunk[-1]] * (size - len(chunk))]
            for view, key, value in cursor.execute(self._select(asked, size), padded).fetchall():
                found[view, key] = value
        return [[found.get((number, key)) for key in keys] for number in map(_number, asked)]

    def changed(
        self, view: str, keys: Sequence[bytes], since: Cursor | None
    ) -> tuple[Cursor, dict[bytes, bytes], bool]:
        """Changes of a view; see `Rows`. Keys beside `keys` may be among them."""
        connection = self._reading()
        number = _number(view)
        connection.execute("BEGIN")
        try:
            ((generation,),) = connection.execute(_GENERATION).fetchall()
            state = connection.execute("SELECT epoch, change FROM views WHERE number = ?", (number,))
            epoch, change = state.fetchone() or (0, 0)
            now = Cursor(generation, epoch, change)
            following = since is not None and since[:2] == now[:2]
            after = since.change if following and since else 0
            rows = (
                ()
                if after == change or not keys
                else connection.execute(_CHANGED, (number, after)).fetchall()
            )
        finally:
            connection.execute("COMMIT")
        return now, dict(rows), not following

    def layout(self, fingerprint: bytes) -> Layout | None:
        """See `Rows`."""
        query = self._reading().execute("SELECT text FROM layouts WHERE fingerprint = ?", (fingerprint,))
        found = query.fetchone()
        return Layout.parse(found[0]) if found else None

    def declare(self, views: Sequence[str]) -> None:
        """See `Rows`."""
        with self._writing() as connection:
            connection.executemany(
                "INSERT OR IGNORE INTO views (number, name) VALUES (?, ?)",
                [(_number(view), view) for view in views],
            )

    def drop(self, view: str) -> None:
        """See `Rows`."""
        with self._writing() as connection:
            connection.execute("DELETE FROM rows WHERE view = ?", (_number(view),))
            connection.execute("UPDATE views SET epoch = epoch + 1 WHERE number = ?", (_number(view),))

    def clear(self) -> None:
        """Delete the file."""
        self.close()
        for suffix in ("", "-wal", "-shm"):
            Path(self._name + suffix).unlink(missing_ok=True)

    def generation(self) -> str | None:
        """See `Rows`."""
        try:
            ((generation,),) = self._reading().execute(_GENERATION).fetchall()
        except Gone:
            return None
        return str(generation)

    def close(self) -> None:
        """See `Rows`."""
        held: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if held is not None:
            held.close()
        self._local.connection = None
        self._local.inode = 0

    def _select(self, views: tuple[str, ...], keys: int) -> str:
        text = self._selects.get((views, keys))
        if text is None:
            numbers = ",".join(str(_number(view)) for view in views)
            columns = "view, value" if keys == 1 else "view, key, value"
            marks = ",".join("?" * keys)
            text = f"SELECT {columns} FROM rows WHERE key IN ({marks}) AND view IN ({numbers})"
            self._selects[views, keys] = text
        return text

    def _reading(self) -> sqlite3.Connection:
        """This thread's connection to the file that is there now."""
        try:
            inode = os.stat(self._name).st_ino  # noqa: PTH116  a microsecond; Path.stat takes three
        except FileNotFoundError:
            raise Gone(f"{self._name} is gone") from None
        if getattr(self._local, "inode", 0) == inode:
            connection: sqlite3.Connection = self._local.connection
            return connection
        self.close()
        connection = sqlite3.connect(
            f"{self._uri}?mode=rw", uri=True, isolation_level=None, cached_statements=512,
            check_same_thread=False, timeout=30,
        )  # fmt: skip
        for pragma in ("synchronous=NORMAL", "cache_size=-8192", "wal_autocheckpoint=4000"):
            connection.execute(f"PRAGMA {pragma}")
        if not connection.execute(_HAS_TABLES).fetchone():
            self._create(connection)
        self._local.connection = connection
        self._local.cursor = connection.cursor()  # one for all reads: each is fetched whole
        self._local.inode = inode
        return connection

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        try:
            connection = self._reading()
        except Gone:
            self.clear()  # a log that a lost file left behind would be taken for the new file's
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.touch()
            connection = self._reading()
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
        except BaseException:
            if connection.in_transaction:  # a full disk has ended it already
                connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")

    @staticmethod
    def _create(connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("BEGIN IMMEDIATE")
        for statement in _TABLES:
            connection.execute(statement)
        connection.execute("INSERT OR IGNORE INTO meta VALUES ('generation', ?)", (uuid.uuid4().hex,))
        connection.execute("COMMIT")


class Gone(sqlite3.OperationalError):
    """The file of an SQLite store is not there."""


_TABLES = (
    "CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT)",
    "CREATE TABLE IF NOT EXISTS layouts (fingerprint BLOB PRIMARY KEY, text TEXT)",
    "CREATE TABLE IF NOT EXISTS views"
    " (number INTEGER PRIMARY KEY, name TEXT, change INTEGER DEFAULT 0, epoch INTEGER DEFAULT 0)",
    "CREATE TABLE IF NOT EXISTS rows"
    " (key BLOB, view INTEGER, change INTEGER, value BLOB, PRIMARY KEY (key, view))",
    "CREATE INDEX IF NOT EXISTS changes ON rows (view, change)",
)
_HAS_TABLES = "SELECT 1 FROM sqlite_master WHERE name = 'changes'"
_GENERATION = "SELECT value FROM meta WHERE name = 'generation'"
_CHANGED = "SELECT key, value FROM rows WHERE view = ? AND change > ?"
_NEXT_CHANGE = (
    "INSERT INTO views (number, name, change) VALUES (?, ?, 1)"
    " ON CONFLICT (number) DO UPDATE SET change = change + 1 RETURNING change, name"
)
_UPSERT = (
    "INSERT INTO rows (key, view, change, value) VALUES (?, ?, ?, ?)"
    " ON CONFLICT (key, view) DO UPDATE SET change = excluded.change, value = excluded.value"
    " WHERE substr(excluded.value, 9, 8) >= substr(rows.value, 9, 8)"
)


class RedisRows:
    """Rows in one Redis (alone or behind Sentinel; not a cluster: a read spans slots).

    Args:
        connect: makes the client (redis.Redis without decode_responses); called once, at the first use.
        project: tells apart what several projects keep in one Redis.
        ttl_s: seconds after which Redis forgets a row that was not written again; 0: never.
    """

    def __init__(self, connect: Callable[[], Any], project: str, *, ttl_s: int = 0) -> None:
        self._connect = connect
        self._root = f"matinee:{project}:".encode()
        self._ttl_s = ttl_s
        self._lock = threading.Lock()
        self._opened: Any = None
        self._script: Any = None

    def put(self, view: str, keys: Sequence[bytes], values: Sequence[bytes], layout: Layout) -> None:
        """Write rows; see `Rows`."""
        self._client()
        prefix = self._rows(view)
        own = [self._key(name, view) for name in ("change", "followed", "log")]
        head = [uuid.uuid4().hex, layout.fingerprint, layout.text, self._ttl_s, len(prefix)]
        for start in range(0, len(keys), _SCRIPT_ROWS):
            stored = [prefix + key for key in keys[start : start + _SCRIPT_ROWS]]
            self._script(
                keys=[self._root + b"generation", self._root + b"layouts", *own, *stored],
                args=[*head, *values[start : start + _SCRIPT_ROWS]],
            )

    def get(self, views: Sequence[str], keys: Sequence[bytes]) -> list[list[bytes | None]]:
        """Rows by view and key; see `Rows`."""
        client = self._client()
        stored = [prefix + key for prefix in map(self._rows, views) for key in keys]
        found: list[bytes | None] = []
        for start in range(0, len(stored), _GET_KEYS):
            found += client.mget(stored[start : start + _GET_KEYS])
        return [found[start : start + len(keys)] for start in range(0, len(found), len(keys) or 1)]

    def changed(
        self, view: str, keys: Sequence[bytes], since: Cursor | None
    ) -> tuple[Cursor, dict[bytes, bytes], bool]:
        """Changes of a view; see `Rows`. The store keeps track from the first call on."""
        now = time.monotonic()
        pipe = self._client().pipeline(transaction=True)
        pipe.set(self._key("followed", view), 1, ex=_FOLLOWED_S)
        pipe.get(self._root + b"generation")
        pipe.mget(self._key("epoch", view), self._key("change", view))
        if since is not None:
            pipe.xrange(self._key("log", view), min=f"{since.change + 1}-0")
        _, generation, (epoch, change), *logs = pipe.execute()
        cursor = Cursor(generation and generation.decode(), int(epoch or 0), int(change or 0), now)
        if since is not None and since[:2] == cursor[:2] and now - since.asked_at < _FOLLOWED_S - 10:
            (log,) = logs
            seen = [int(number.partition(b"-")[0]) for number, _ in log]
            if seen == list(range(since.change + 1, cursor.change + 1)):
                wanted = {key for _, written in log for key in written} & set(keys)
                return cursor, self._held(view, sorted(wanted)), False
        return cursor, self._held(view, keys), True

    def layout(self, fingerprint: bytes) -> Layout | None:
        """See `Rows`."""
        found = self._client().hget(self._root + b"layouts", fingerprint)
        return Layout.parse(found.decode()) if found else None

    def declare(self, views: Sequence[str]) -> None:
        """Nothing: a view needs no preparation, and the first write gives a generation."""

    def drop(self, view: str) -> None:
        """See `Rows`."""
        client = self._client()
        self._delete(self._rows(view))
        client.incr(self._key("epoch", view))

    def clear(self) -> None:
        """See `Rows`."""
        self._delete(self._root)

    def generation(self) -> str | None:
        """See `Rows`."""
        found = self._client().get(self._root + b"generation")
        return found.decode() if found else None

    def close(self) -> None:
        """Close the connections of every thread."""
        with self._lock:
            if self._opened is not None:
                self._opened.close()
            self._opened = None

    def _client(self) -> Any:
        with self._lock:
            if self._opened is None:
                self._opened = self._connect()
                self._script = self._opened.register_script(_PUT)
            return self._opened

    def _key(self, name: str, view: str) -> bytes:
        return self._root + f"{name}:{view}".encode()

    def _rows(self, view: str) -> bytes:
        return self._root + f"row:{view}:".encode()

    def _held(self, view: str, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        if not keys:
            return {}
        (found,) = self.get([view], keys)
        return {key: value for key, value in zip(keys, found, strict=True) if value is not None}

    def _delete(self, prefix: bytes) -> None:
        client = self._client()
        pattern = re.sub(rb"([\[\]*?\\^])", rb"\\\1", prefix) + b"*"
        batch: list[bytes] = []
        for key in client.scan_iter(pattern, count=1_000):
            batch.append(key)
            if len(batch) == _SCRIPT_ROWS:
                client.unlink(*batch)
                batch = []
        if batch:
            client.unlink(*batch)


_PUT = """
if redis.call('EXISTS', KEYS[1]) == 0 then redis.call('SET', KEYS[1], ARGV[1]) end
redis.call('HSETNX', KEYS[2], ARGV[2], ARGV[3])
local change = redis.call('INCR', KEYS[3])
local followed = redis.call('EXISTS', KEYS[4]) == 1
local ttl, prefix = tonumber(ARGV[4]), tonumber(ARGV[5])
local log = {}
for i = 6, #KEYS do
  local key, value = KEYS[i], ARGV[i]
  local old, later = redis.call('GETRANGE', key, 8, 15), true
  if old ~= '' then
    local old_high, old_low = struct.unpack('>I4I4', old)
    local high, low = struct.unpack('>I4I4', string.sub(value, 9, 16))
    later = high > old_high or (high == old_high and low >= old_low)
  end
  if later then
    if ttl > 0 then redis.call('SET', key, value, 'EX', ttl) else redis.call('SET', key, value) end
    if followed then
      log[#log + 1] = string.sub(key, prefix + 1)
      log[#log + 1] = ''
    end
  end
end
if followed then
  if #log == 0 then log = {'', ''} end
  redis.call('XADD', KEYS[5], 'MAXLEN', '~', '%d', change .. '-0', unpack(log))
  redis.call('EXPIRE', KEYS[5], %d)
end
""" % (_LOG_BATCHES, 2 * _FOLLOWED_S)  # noqa: UP031  braces are Lua's
"""Writes a batch. KEYS: generation, layouts, change, followed, log, then rows. ARGV: a new generation,
fingerprint, layout, ttl, length of the rows' prefix, then values. Times are compared in halves: a Lua number
holds 53 bits."""


def _number(view: str) -> int:
    """A view's number, the same everywhere."""
    known = _numbers.get(view)
    if known is None:
        known = int.from_bytes(blake2b(view.encode(), digest_size=8).digest(), "big", signed=True)
        _numbers[view] = known
    return known


_numbers: dict[str, int] = {}
