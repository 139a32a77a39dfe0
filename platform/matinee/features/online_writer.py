"""What the stream's actors write the online store with.

The embedded store is written without Feast, which would cost every actor seconds and hundreds of megabytes;
the rows are the ones that `store.FeatureStore` writes and reads. Other stores are written through it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Protocol

import pyarrow as pa

from matinee.config import Settings
from matinee.errors import StorageError, Unavailable
from matinee.features import packed
from matinee.features.entity_keys import entity_keys
from matinee.features.group import Views
from matinee.features.packed import Layout
from matinee.features.rows import SqliteRows
from matinee.schema import TIMESTAMP

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
    if settings.features.online_store == "sqlite":
        return EmbeddedWriter(settings, views)
    from matinee.features.store import FeatureStore

    return FeatureStore(settings)


class EmbeddedWriter:
    """Writes the home's SQLite store.

    Args:
        views: those that are written.
    """

    def __init__(self, settings: Settings, views: Views) -> None:
        self._path = settings.paths.feast / "online.db"
        self._rows = SqliteRows(self._path)
        declared: list[tuple[str, str, pa.Schema]]
        declared = [(view.name, view.key, view.schema) for view in views.aggregates]
        declared += [(view.name, view.key, view.schema) for view in views.histories]
        self._keys: Mapping[str, str] = {name: key for name, key, _ in declared}
        self._layouts: Mapping[str, Layout] = {
            name: Layout(
                tuple(
                    (field.name, _kind(field.type))
                    for field in schema
                    if field.name not in (self._keys[name], _TIME)
                )
            )
            for name, _, schema in declared
        }

    def write_online(self, view: str, table: pa.Table) -> None:
        """See `Online`."""
        if not table.num_rows:
            return
        key, layout = self._keys[view], self._layouts[view]
        times = table[_TIME].cast(TIMESTAMP).cast(pa.int64()).to_numpy()
        values = packed.encode(layout, table, time=times, created=None)
        try:
            self._rows.put(view, entity_keys(key, table[key]), values, layout)
        except sqlite3.Error as failure:
            raise self._error(failure) from failure

    def generation(self) -> str | None:
        """See `Online`."""
        try:
            return self._rows.generation()
        except sqlite3.Error as failure:
            raise self._error(failure) from failure

    def _error(self, failure: sqlite3.Error) -> StorageError | Unavailable:
        kind = StorageError if "full" in str(failure) else Unavailable
        return kind(f"feature store {self._path}: {failure}")


def _kind(dtype: pa.DataType) -> str:
    """The kind of a feature of Arrow type."""
    if pa.types.is_list(dtype):
        return f"list:{_kind(dtype.value_type)}"
    return {pa.int64(): "int64", pa.float64(): "float64"}.get(dtype, "string")
