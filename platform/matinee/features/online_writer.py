"""What the stream's actors write the online store with.

Packed rows are written without Feast, which would cost every actor seconds and hundreds of megabytes; they
are the rows that `store.FeatureStore` writes and reads. Stores of Feast's own are written through it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Protocol

import pyarrow as pa

from matinee.config import Settings
from matinee.features.group import Views
from matinee.features.packed import Layout
from matinee.features.redis_client import redis_client
from matinee.features.rows import PROJECT, TIME, RedisRows, Rows, SqliteRows, guarded, put_table


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
                tuple((field.name, _kind(field.type)) for field in schema if field.name not in (key, TIME))
            )
            for name, key, schema in declared
        }

    def write_online(self, view: str, table: pa.Table) -> None:
        """See `Online`."""
        if not table.num_rows:
            return
        with guarded(self._where):
            put_table(self._rows, view, table, key=self._keys[view], layout=self._layouts[view])

    def generation(self) -> str | None:
        """See `Online`."""
        with guarded(self._where):
            return self._rows.generation()


def _kind(dtype: pa.DataType) -> str:
    """The kind of a feature of Arrow type."""
    if pa.types.is_list(dtype):
        return f"list:{_kind(dtype.value_type)}"
    return {pa.int64(): "int64", pa.float64(): "float64"}.get(dtype, "string")
