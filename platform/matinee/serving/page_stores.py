"""Where kept pages lie: SQLite in the home, Redis or Cassandra, behind one small interface.

A page is bytes under (member, slot). Every call raises `Unavailable` where the store does not answer.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from matinee.config import Settings
from matinee.errors import ConfigError, Unavailable
from matinee.features.redis_client import parse, redis_client

TIMEOUT_S = 0.1
"""Longest wait for an answer: a page that takes longer is made anew."""
PRUNE_S = 60.0
"""How often SQLite drops pages that are too old."""


class Kept(NamedTuple):
    """A page at rest."""

    member_id: str
    slot: str
    page: bytes


class PageStore(Protocol):
    """Keeps the last page of each member and slot for a time."""

    def get(self, member_id: str, slot: str) -> bytes | None:
        """The page; None where there is none, or it is too old."""
        ...

    def put(self, pages: Iterable[Kept]) -> None:
        """Replace pages."""
        ...

    def close(self) -> None:
        """Release connections."""
        ...


def page_store(settings: Settings) -> PageStore | None:
    """The store that `serving.page_cache` names; None for "none".

    Raises:
        ConfigError: it needs an address, and none is set.
    """
    serving = settings.serving
    if serving.page_cache == "none":
        return None
    if serving.page_cache == "sqlite":
        return SqlitePages(settings.paths.pages, keep_s=serving.page_keep_s)
    address = serving.page_cache_address.get_secret_value()
    if not address:
        raise ConfigError(
            f"serving.page_cache is {serving.page_cache}, but serving.page_cache_address is empty; "
            "host:port is needed"
        )
    kind = RedisPages if serving.page_cache == "redis" else CassandraPages
    return kind(address, keep_s=serving.page_keep_s)


class SqlitePages:
    """Pages in one file that several processes may share.

    Args:
        path: the file; made with its folder.
        keep_s: seconds after which a page is gone.
    """

    def __init__(self, path: Path, *, keep_s: float) -> None:
        self._path = path
        self._keep_s = keep_s
        self._local = threading.local()
        self._pruned = 0.0
        self._where = str(path)
        with _answering(self._where):
            path.parent.mkdir(parents=True, exist_ok=True)
            connection = self._connection()
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute(
                "CREATE TABLE IF NOT EXISTS pages (member_id TEXT, slot TEXT, kept_at REAL NOT NULL, "
                "page BLOB NOT NULL, PRIMARY KEY (member_id, slot)) WITHOUT ROWID"
            )

    def get(self, member_id: str, slot: str) -> bytes | None:
        """As `PageStore.get`."""
        with _answering(self._where):
            row = self._connection().execute(
                "SELECT page FROM pages WHERE member_id = ? AND slot = ? AND kept_at > ?",
                (_text(member_id), _text(slot), time.time() - self._keep_s),
            )
            found: tuple[bytes] | None = row.fetchone()
        return None if found is None else found[0]

    def put(self, pages: Iterable[Kept]) -> None:
        """As `PageStore.put`, in one transaction."""
        now = time.time()
        with _answering(self._where), self._connection() as connection:
            connection.executemany(
                "INSERT OR REPLACE INTO pages VALUES (?, ?, ?, ?)",
                ((_text(page.member_id), _text(page.slot), now, page.page) for page in pages),
            )
            if now - self._pruned > PRUNE_S:
                self._pruned = now
                connection.execute("DELETE FROM pages WHERE kept_at <= ?", (now - self._keep_s,))

    def close(self) -> None:
        """As `PageStore.close`, of this thread; those of others go with their threads."""
        self._connection().close()
        del self._local.connection

    def _connection(self) -> sqlite3.Connection:
        held: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if held is None:
            held = self._local.connection = sqlite3.connect(self._path, timeout=1.0)
            held.execute("PRAGMA synchronous=NORMAL")
        return held


class RedisPages:
    """Pages as Redis strings that expire.

    Args:
        address: as `redis_client` takes it.
        keep_s: seconds after which a page is gone.
    """

    def __init__(self, address: str, *, keep_s: float) -> None:
        self._client = redis_client(address, timeout_s=TIMEOUT_S)
        self._where = f"redis at {address.partition(',')[0]}"
        self._keep_ms = max(1, int(keep_s * 1000))

    def get(self, member_id: str, slot: str) -> bytes | None:
        """As `PageStore.get`."""
        with _answering(self._where):
            found: bytes | None = self._client.get(_redis_key(member_id, slot))
        return found

    def put(self, pages: Iterable[Kept]) -> None:
        """As `PageStore.put`, in one round trip."""
        with _answering(self._where), self._client.pipeline(transaction=False) as pipeline:
            for page in pages:
                pipeline.set(_redis_key(page.member_id, page.slot), page.page, px=self._keep_ms)
            pipeline.execute()

    def close(self) -> None:
        """As `PageStore.close`."""
        self._client.close()


class CassandraPages:
    """Pages as rows of the table `pages` of an existing keyspace, partitioned by member.

    Args:
        address: "host:port[,host:port...],keyspace=NAME[,username=U,password=P]"; the last port counts.
        keep_s: seconds after which a page is gone.
    """

    def __init__(self, address: str, *, keep_s: float) -> None:
        from cassandra.auth import PlainTextAuthProvider
        from cassandra.cluster import Cluster

        nodes, options = parse(address)
        self._where = f"cassandra at {nodes[0][0]}"
        secret = None
        if "username" in options:
            secret = PlainTextAuthProvider(options["username"], str(options.get("password", "")))
        hosts = [host for host, _ in nodes]
        with _answering(self._where):
            self._cluster: Any = Cluster(hosts, port=nodes[-1][1], auth_provider=secret)
            self._session: Any = self._cluster.connect(options.get("keyspace", "matinee"))
            self._session.default_timeout = TIMEOUT_S
            self._session.execute(
                "CREATE TABLE IF NOT EXISTS pages (member_id text, slot text, page blob, "
                "PRIMARY KEY (member_id, slot))",
                timeout=10.0,
            )
            self._get = self._session.prepare("SELECT page FROM pages WHERE member_id = ? AND slot = ?")
            self._put = self._session.prepare(
                f"INSERT INTO pages (member_id, slot, page) VALUES (?, ?, ?) USING TTL {max(1, int(keep_s))}"
            )

    def get(self, member_id: str, slot: str) -> bytes | None:
        """As `PageStore.get`."""
        with _answering(self._where):
            row = self._session.execute(self._get, (member_id, slot)).one()
        return None if row is None else bytes(row[0])

    def put(self, pages: Iterable[Kept]) -> None:
        """As `PageStore.put`, a write a page, all under way at once."""
        with _answering(self._where):
            for future in [self._session.execute_async(self._put, page) for page in pages]:
                future.result()

    def close(self) -> None:
        """As `PageStore.close`."""
        self._cluster.shutdown()


@contextmanager
def _answering(where: str) -> Iterator[None]:
    """Turns what a client raises where its server does not answer into `Unavailable`."""
    try:
        yield
    except Exception as failure:
        client = type(failure).__module__.partition(".")[0]
        if isinstance(failure, sqlite3.Error | OSError) or client in ("redis", "cassandra"):
            raise Unavailable(f"kept pages in {where}: {failure}") from failure
        raise


def _redis_key(member_id: str, slot: str) -> bytes:
    return b"matinee:page:" + _text(f"{slot}:{member_id}")


def _text(text: str) -> bytes:
    """As bytes: an id may hold what is no Unicode text."""
    return text.encode("utf-8", "surrogatepass")
