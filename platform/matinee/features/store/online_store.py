"""Feast online stores that keep a packed value for each entity and view, in SQLite or in Redis.

`features.packed` says how a row looks, `features.rows` where it lies. Feast's calls come and go in
protobuf; `PackedOnlineStore.write_table` takes an Arrow table as it is.
"""

from __future__ import annotations

import asyncio
import warnings
from abc import abstractmethod
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import feast
    from feast.infra.infra_object import InfraObject
    from feast.infra.key_encoding_utils import serialize_entity_key
    from feast.infra.online_stores.helpers import compute_versioned_name
    from feast.infra.online_stores.online_store import OnlineStore
    from feast.infra.supported_async_methods import SupportedAsyncMethods
    from feast.protos.feast.types import Value_pb2
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.protos.feast.types.Value_pb2 import Value
    from feast.repo_config import FeastConfigBaseModel, RepoConfig
    from feast.type_map import feast_value_type_to_python_type

from matinee.features import packed
from matinee.features.packed import Decoder, Layout
from matinee.features.redis_client import redis_client
from matinee.features.rows import RedisRows, Rows, SqliteRows, put_table

Row = tuple[EntityKey, dict[str, Value], datetime, datetime | None]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_SECOND_US = 1_000_000
_KINDS = {
    "int64": ("int64_val", "int64_list_val", Value_pb2.Int64List),
    "int32": ("int32_val", "int32_list_val", Value_pb2.Int32List),
    "float64": ("double_val", "double_list_val", Value_pb2.DoubleList),
    "float32": ("float_val", "float_list_val", Value_pb2.FloatList),
    "bool": ("bool_val", "bool_list_val", Value_pb2.BoolList),
    "timestamp": ("unix_timestamp_val", "unix_timestamp_list_val", Value_pb2.Int64List),
    "string": ("string_val", "string_list_val", Value_pb2.StringList),
    "bytes": ("bytes_val", "bytes_list_val", Value_pb2.BytesList),
}
"""By kind: where Feast's Value holds one, where a list of them, and that list's class."""
_NULLS = (None, "null_val")


class PackedOnlineStore(OnlineStore):  # type: ignore[misc]
    """What the packed stores share. Safe in many threads.

    A write never replaces a row of a later event_timestamp; of equal ones the later write stays. A row is
    replaced whole: a feature that a write leaves out is null afterwards. Time to live is the reader's matter,
    as everywhere in Feast: a row's event_timestamp comes with it.
    """

    _versioned_read_supported = True

    @abstractmethod
    def rows(self, config: RepoConfig) -> Rows:
        """Where `config` says that rows lie."""

    @property
    def async_supported(self) -> SupportedAsyncMethods:
        """Reads and writes, each in a thread."""
        return SupportedAsyncMethods(read=True, write=True)

    def write_table(self, config: RepoConfig, table: feast.FeatureView, rows: pa.Table) -> None:
        """Write a table: the view's one join key (text or int64), every feature, event_timestamp.

        Raises:
            InvalidInput: a column is missing or of another type.
        """
        layout = layout_of(table)
        (key,) = table.join_keys
        put_table(self.rows(config), stored_name(config, table), rows, key=key, layout=layout)

    def online_write_batch(
        self,
        config: RepoConfig,
        table: feast.FeatureView,
        data: list[Row],
        progress: Callable[[int], Any] | None,
    ) -> None:
        """Write rows; see Feast's OnlineStore."""
        if not data:
            return
        layout, values = encode_protos(layout_of(table), data)
        keys = [_serialized(config, row[0]) for row in data]
        self.rows(config).put(stored_name(config, table), keys, values, layout)
        if progress:
            progress(len(data))

    async def online_write_batch_async(
        self,
        config: RepoConfig,
        table: feast.FeatureView,
        data: list[Row],
        progress: Callable[[int], Any] | None,
    ) -> None:
        """`online_write_batch` in a thread."""
        await asyncio.to_thread(self.online_write_batch, config, table, data, progress)

    def online_read(
        self,
        config: RepoConfig,
        table: feast.FeatureView,
        entity_keys: list[EntityKey],
        requested_features: list[str] | None = None,
    ) -> list[tuple[datetime | None, dict[str, Value] | None]]:
        """Rows of the keys in their order, (None, None) for one without; see Feast's OnlineStore."""
        rows = self.rows(config)
        layout = layout_of(table)
        names = [name for name in requested_features or layout.names if name in layout.kinds]
        decoder = Decoder(layout, names, find=rows.layout, opaque=_value)
        keys = [_serialized(config, key) for key in entity_keys]
        (found,) = rows.get([stored_name(config, table)], keys) if keys else ([],)
        return [_protos(decoder, value) for value in found]

    async def online_read_async(
        self,
        config: RepoConfig,
        table: feast.FeatureView,
        entity_keys: list[EntityKey],
        requested_features: list[str] | None = None,
    ) -> list[tuple[datetime | None, dict[str, Value] | None]]:
        """`online_read` in a thread."""
        return await asyncio.to_thread(self.online_read, config, table, entity_keys, requested_features)

    def update(
        self,
        config: RepoConfig,
        tables_to_delete: Sequence[feast.FeatureView],
        tables_to_keep: Sequence[feast.FeatureView],
        entities_to_delete: Sequence[feast.Entity],
        entities_to_keep: Sequence[feast.Entity],
        partial: bool,
    ) -> None:
        """Delete the rows of deleted views; rows of a changed view stay, and are read by what is left."""
        rows = self.rows(config)
        for table in tables_to_delete:
            rows.drop(stored_name(config, table))
        rows.declare([stored_name(config, table) for table in tables_to_keep])

    def plan(self, config: RepoConfig, desired_registry_proto: Any) -> list[InfraObject]:
        """Nothing to plan: a view needs no table of its own."""
        return []

    def teardown(
        self,
        config: RepoConfig,
        tables: Sequence[feast.FeatureView],
        entities: Sequence[feast.Entity],
    ) -> None:
        """Delete everything the project holds."""
        self.rows(config).clear()


class PackedSqliteOnlineStoreConfig(FeastConfigBaseModel):  # type: ignore[misc]
    """Feast's settings of PackedSqliteOnlineStore."""

    type: Literal["matinee.features.store.PackedSqliteOnlineStore"] = (
        "matinee.features.store.PackedSqliteOnlineStore"
    )
    path: str = "data/online.db"
    """The file, made at the first write; of one project only."""


class PackedSqliteOnlineStore(PackedOnlineStore):
    """Packed rows in one SQLite file: many readers, one writer at a time."""

    def __init__(self) -> None:
        self._rows: dict[Path, SqliteRows] = {}

    def rows(self, config: RepoConfig) -> SqliteRows:
        """The rows in the file that `config` names."""
        path = Path(config.online_store.path)
        if not path.is_absolute() and config.repo_path is not None:
            path = Path(config.repo_path) / path
        return self._rows.setdefault(path, SqliteRows(path))


class PackedRedisOnlineStoreConfig(FeastConfigBaseModel):  # type: ignore[misc]
    """Feast's settings of PackedRedisOnlineStore."""

    type: Literal["matinee.features.store.PackedRedisOnlineStore"] = (
        "matinee.features.store.PackedRedisOnlineStore"
    )
    connection_string: str = "localhost:6379"
    """host:port, then options as in Feast's Redis store: "host:port,db=0,ssl=true,password=..."."""
    sentinel_master: str = ""
    """Name of the master; the addresses are then those of Redis Sentinel."""
    key_ttl_seconds: int | None = None
    """Seconds after which Redis forgets a row that was not written again; None: never."""
    timeout_s: float = 5.0
    """Longest wait for an answer."""


class PackedRedisOnlineStore(PackedOnlineStore):
    """Packed rows in Redis, alone or behind Sentinel. A Redis Cluster is not supported."""

    def __init__(self) -> None:
        self._rows: dict[tuple[Any, ...], RedisRows] = {}

    def rows(self, config: RepoConfig) -> RedisRows:
        """The rows in the Redis that `config` names."""
        own = config.online_store
        key = (config.project, own.connection_string, own.sentinel_master, own.key_ttl_seconds, own.timeout_s)
        if key not in self._rows:
            connect = partial(
                redis_client,
                own.connection_string,
                sentinel_master=own.sentinel_master,
                timeout_s=own.timeout_s,
            )
            made = RedisRows(connect, config.project, ttl_s=own.key_ttl_seconds or 0)
            self._rows.setdefault(key, made)
        return self._rows[key]


def layout_of(table: feast.FeatureView) -> Layout:
    """The layout of a view's features."""
    return Layout(tuple((field.name, kind_of(field.dtype)) for field in table.features))


def kind_of(dtype: Any) -> str:
    """The kind of a Feast type; "opaque" for one that is kept as Feast's protobuf."""
    if isinstance(dtype, feast.types.Array):
        element = kind_of(dtype.base_type)
        return f"list:{element}" if element in _KINDS else "opaque"
    types = feast.types
    kinds = {
        types.Int64: "int64",
        types.Int32: "int32",
        types.Float64: "float64",
        types.Float32: "float32",
        types.Bool: "bool",
        types.UnixTimestamp: "timestamp",
        types.String: "string",
        types.Bytes: "bytes",
    }
    return kinds.get(dtype, "opaque") if isinstance(dtype, types.PrimitiveFeastType) else "opaque"


def stored_name(config: RepoConfig, table: feast.FeatureView) -> str:
    """The name under which a view's rows lie."""
    name: str = compute_versioned_name(table, config.registry.enable_online_feature_view_versioning)
    return name


def encode_protos(layout: Layout, data: Sequence[Row]) -> tuple[Layout, list[bytes]]:
    """Feast's rows, packed.

    Returns:
        The layout they are written in, and a value a row. A column that holds another type than its kind's is
        written as "opaque".
    """
    columns: dict[str, pa.Array] = {}
    features = []
    for name, kind in layout.features:
        values = [row[1].get(name) for row in data]
        column = _arrow(values, kind)
        if column is None:
            kind = "opaque"
            column = _arrow(values, kind)
        columns[name] = column
        features.append((name, kind))
    written = Layout(tuple(features))
    times = np.array([micros(row[2]) for row in data], np.int64)
    created = np.array([packed.NO_TIME if row[3] is None else micros(row[3]) for row in data], np.int64)
    return written, packed.encode(written, pa.table(columns), time=times, created=created)


def micros(time: datetime) -> int:
    """Microseconds since the epoch; a naive time is UTC."""
    aware = time if time.tzinfo else time.replace(tzinfo=UTC)
    return (aware - _EPOCH) // _MICROSECOND


def python_opaque(value: bytes, start: int, end: int) -> Any:
    """A value of kind "opaque" as Python."""
    return feast_value_type_to_python_type(Value.FromString(value[start:end]))


def proto(kind: str, value: Any) -> Value:
    """A decoded value as Feast's; an empty one for None."""
    if value is None:
        return Value()
    if isinstance(value, Value):
        return value
    if kind.startswith("list:"):
        element = kind.removeprefix("list:")
        _, field, holder = _KINDS[element]
        held = [each // _SECOND_US for each in value] if element == "timestamp" else value
        return Value(**{field: holder(val=held)})
    return Value(**{_KINDS[kind][0]: value // _SECOND_US if kind == "timestamp" else value})


def _protos(decoder: Decoder, value: bytes | None) -> tuple[datetime | None, dict[str, Value] | None]:
    if value is None:
        return None, None
    kinds = decoder.layout.kinds
    held = dict(zip(decoder.wanted, decoder.decode(value), strict=True))
    time = _EPOCH + timedelta(microseconds=packed.event_time(value))
    return time, {name: proto(kinds[name], held[name]) for name in decoder.known(value)}


def _value(value: bytes, start: int, end: int) -> Value:
    return Value.FromString(value[start:end])


def _serialized(config: RepoConfig, key: EntityKey) -> bytes:
    serialized: bytes = serialize_entity_key(
        key, entity_key_serialization_version=config.entity_key_serialization_version
    )
    return serialized


def _arrow(values: Sequence[Value | None], kind: str) -> pa.Array | None:
    """Feast's values as a column of a kind; None where some are of another type."""
    held = [None if value is None or value.WhichOneof("val") in _NULLS else value for value in values]
    if kind == "opaque":
        return pa.array([value and value.SerializeToString() for value in held], pa.binary())
    element = kind.removeprefix("list:")
    listed = kind != element
    field = _KINDS[element][1 if listed else 0]
    if any(value is not None and value.WhichOneof("val") != field for value in held):
        return None
    found: list[Any] = [value if value is None else getattr(value, field) for value in held]
    if listed:
        found = [value if value is None else list(value.val) for value in found]
    if element != "timestamp":
        return pa.array(found, packed.arrow_type(kind))
    times = [
        value and ([each * _SECOND_US for each in value] if listed else value * _SECOND_US) for value in found
    ]
    try:
        numbers = pa.array(times, pa.list_(pa.int64()) if listed else pa.int64())
    except (pa.ArrowInvalid, OverflowError):  # Feast's mark of a missing time is the smallest int64
        return None
    return numbers.cast(packed.arrow_type(kind))
