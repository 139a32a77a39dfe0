"""The peers' online store: SQLite, a row a key and window, written in batches."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable

_TABLE = """
CREATE TABLE IF NOT EXISTS windows (
    key TEXT, start INTEGER, count INTEGER, sum REAL, PRIMARY KEY (key, start)
) WITHOUT ROWID
"""
_UPSERT = """
INSERT INTO windows VALUES (?, ?, ?, ?)
ON CONFLICT (key, start) DO UPDATE SET count = excluded.count, sum = excluded.sum
"""


class Store:
    """Rows of windows; each `put` is one transaction. `written_at`: Unix seconds of the last one."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None
        self.written_at = 0.0

    def put(self, rows: Iterable[tuple[str, int, int, float]]) -> None:
        """Insert or replace (key, window start in us, count, sum)."""
        if self._connection is None:
            self._connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
            self._connection.execute("PRAGMA busy_timeout = 10000")
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = NORMAL")
            self._connection.execute(_TABLE)
        self._connection.execute("BEGIN IMMEDIATE")
        self._connection.executemany(_UPSERT, rows)
        self._connection.execute("COMMIT")
        self.written_at = time.time()
