"""What the stream's actors write the online store with.

Packed rows are written without Feast, which would cost every actor seconds and hundreds of megabytes; they
are the rows that `store.FeatureStore` writes and reads. Stores of Feast's own are written through it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Protocol

import pyarrow as pa

from matinee.config import Settings
from matinee.errors import StorageError, Unavailable
from matinee.features import packed
from matinee.features.entity_keys import entity_keys
from matinee.features.group import Views
from matinee.features.packed import Layout
from matinee.features.redis_client import redis_client
from matinee.features.rows import RedisRows, Rows, SqliteRows
from matinee.schema import TIMESTAMP

PROJECT = "matinee"
"""Feast's name for what is ours, in the registry and in shared stores."""
_TIME = "event_timestamp"


class Online(Protocol):
    """Where the stream's rows go."""

    def write_online(self, view: str, table: pa.Table) -> None:
        """Replace the online values of the keys in `table`, unless those are of a later event_timestamp.

        Raises:
            Unavailable: the store does not answer.
            StorageError: it has no room.
        """

    def generation(self) -> str | None:
        """Changes when the store lost what it held; None where it holds nothing, or cannot tell."""


def online_writer(settings: Settings, views: Views) -> Online:
    """The writer of the store that the settings name."""
    chosen = settings.features.online_store
    if chosen == "sqlite":
        path = settings.paths.feast / "online.db"
        return PackedWriter(SqliteRows(path), str(path), views)
    if chosen == "redis":
        options = dict(settings.features.online_options)
        seconds = options.get("key_ttl_seconds") or 0
        client = partial(
            redis_client,
            settings.features.redis,
            sentinel_master=options.get("sentinel_master", ""),
            timeout_s=options.get("timeout_s", 5.0),
        )
        where = f"redis at {settings.features.redis.partition(',')[0]}"
        return PackedWriter(RedisRows(client, PROJECT, ttl_s=seconds), where, views)
    from matinee.features.store import FeatureStore

    return FeatureStore(settings)


class PackedWriter:
    """Writes packed rows.

    Args:
        rows: where they lie.
        where: says so in errors.
        views: those that are written.
    """

    def __init__(self, rows: Rows, where: str, views: Views) -> None:
        self._rows = rows
        self._where = where
        declared: list[tuple[str, str, pa.Schema]]
        declared = [(view.name, view.key, view.schema) for view in views.aggregates]
        declared += [(view.name, view.key, view.schema) for view in views.histories]
        self._keys: Mapping[str, str] = {name: key for name, key, _ in declared}
        self._layouts: Mapping[str, Layout] = {
            name: Layout(
                tuple((field.name, _kind(field.type)) for field in schema if field.name not in (key, _TIME))
            )
            for name, key, schema in declared
        }

    def write_online(self, view: str, table: pa.Table) -> None:
        """See `Online`."""
        if not table.num_rows:
            return
        key, layout = self._keys[view], self._layouts[view]
        times = table[_TIME].cast(TIMESTAMP).cast(pa.int64()).to_numpy()
        values = packed.encode(layout, table, time=times, created=None)
        with self._guarded():
            self._rows.put(view, entity_keys(key, table[key]), values, layout)

    def generation(self) -> str | None:
        """See `Online`."""
        with self._guarded():
            return self._rows.generation()

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as failure:
            kind = StorageError if "full" in str(failure) else Unavailable
            raise kind(f"feature store {self._where}: {failure}") from failure
        except Exception as failure:
            if type(failure).__module__.partition(".")[0] == "redis":
                raise Unavailable(f"feature store {self._where}: {failure}") from failure
            raise


def _kind(dtype: pa.DataType) -> str:
    """The kind of a feature of Arrow type."""
    if pa.types.is_list(dtype):
        return f"list:{_kind(dtype.value_type)}"
    return {pa.int64(): "int64", pa.float64(): "float64"}.get(dtype, "string")
