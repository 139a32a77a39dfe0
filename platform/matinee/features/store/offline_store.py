"""Feast's offline store over Parquet: exact as-of joins, in Feast's terms.

Sources are either views of our own builds (`features.offline`, named by their folder) or Feast's FileSource
on a Parquet file or a folder of them, local or `s3://`.
"""

from __future__ import annotations

import secrets
import tempfile
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import fs

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import feast
    from feast.data_format import ParquetFormat
    from feast.errors import SavedDatasetLocationAlreadyExists
    from feast.feature_view import DUMMY_ENTITY_ID, DUMMY_ENTITY_NAME, DUMMY_ENTITY_VAL
    from feast.infra.offline_stores.file_source import FileLoggingDestination, SavedDatasetFileStorage
    from feast.infra.offline_stores.offline_store import OfflineStore, RetrievalJob, RetrievalMetadata
    from feast.on_demand_feature_view import OnDemandFeatureView
    from feast.repo_config import FeastConfigBaseModel, RepoConfig
    from feast.utils import compute_non_entity_date_range

from matinee.errors import InvalidInput, NotFound
from matinee.features import asof, asof_ray, offline

_MICROSECOND = timedelta(microseconds=1)


class ParquetOfflineStoreConfig(FeastConfigBaseModel):  # type: ignore[misc]
    """Feast's settings of ParquetOfflineStore."""

    type: Literal["matinee.features.store.ParquetOfflineStore"] = "matinee.features.store.ParquetOfflineStore"
    path: str = ""
    """Root of the offline rows (`features.offline`): a folder, absolute or relative to the repository, or
    a URI. Empty: every source is a FileSource on Parquet of its own."""
    one_process_rows: int = 50_000_000
    """A view with more rows is joined on the connected Ray cluster."""
    scratch: str = ""
    """Where a join on Ray keeps what its tasks pass on; all nodes must reach it. Empty: under `path`, or a
    temporary folder of this machine."""


class ParquetOfflineStore(OfflineStore):  # type: ignore[misc]
    """Feast's offline store over Parquet: exact as-of joins, time to live honoured.

    Entity rows keep their order and their repetitions. Of rows with equal keys and time the latest created
    counts, then the last one.
    """

    supports_filter_by_created_timestamp = True

    @staticmethod
    def get_historical_features(
        config: RepoConfig,
        feature_views: list[feast.FeatureView],
        feature_refs: list[str],
        entity_df: pd.DataFrame | pa.Table | str | None,
        registry: Any,
        project: str,
        full_feature_names: bool = False,
        *,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
        filter_by_created_timestamp: bool = False,
    ) -> RetrievalJob:
        """Values as of each entity row's time, which is inclusive.

        Args:
            entity_df: join keys, a time (`event_timestamp`, or the only column of timestamps) and whatever
                else shall stay beside the features. None: a row for every key and time at which a view
                changed from `start_date` to `end_date`.
            filter_by_created_timestamp: leave out rows that were created after the entity row's time.

        Raises:
            InvalidInput: entity_df is no table, or lacks the keys or a time, or has a feature's name.
            NotFound: a source that was never built, or has no such column.
        """
        lookups = [
            _lookup(config, view, _join_keys(view, registry, project), feature_refs, full_feature_names)
            for view in feature_views
        ]
        if entity_df is None:
            start, end = compute_non_entity_date_range(feature_views, start_date, end_date)
            asked = _changes(lookups, _micros(start), _micros(end))
        elif isinstance(entity_df, pd.DataFrame):
            asked = pa.Table.from_pandas(entity_df, preserve_index=False)
        elif isinstance(entity_df, pa.Table):
            asked = entity_df
        else:
            raise InvalidInput(
                f"entity_df is a {type(entity_df).__name__}: {str(entity_df)[:80]!r}; accepted: a pandas "
                "DataFrame or an Arrow table (there is no SQL engine behind this store), or None with dates"
            )
        time = _time_column(asked)
        times = _timestamps(asked[time])
        _check(asked, lookups)
        known = filter_by_created_timestamp

        def join() -> pa.Table:
            stamped = asked.set_column(asked.column_names.index(time), time, times)
            found = [_joined(config, stamped, time, lookup, known=known) for lookup in lookups]
            answer = asked
            for name, column in ((name, table[name]) for table in found for name in table.column_names):
                answer = answer.append_column(name, column)
            return answer

        first, last = _span(times)
        return _Job(
            join,
            repo_path=config.repo_path,
            full_feature_names=full_feature_names,
            on_demand=OnDemandFeatureView.get_requested_odfvs(feature_refs, project, registry),
            metadata=RetrievalMetadata(
                features=feature_refs,
                keys=[name for name in asked.column_names if name != time],
                min_event_timestamp=None if first is None else _datetime(first),
                max_event_timestamp=None if last is None else _datetime(last),
            ),
        )

    @staticmethod
    def pull_latest_from_table_or_query(
        config: RepoConfig,
        data_source: Any,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
    ) -> RetrievalJob:
        """The latest row of each key within the dates; `feast materialize` reads it."""
        read = _reading(
            config,
            data_source,
            [*join_key_columns, *feature_name_columns],
            timestamp_field,
            created_timestamp_column,
            start_date,
            end_date,
        )

        def latest() -> pa.Table:
            rows = read()
            keys = rows.select(join_key_columns)
            asked = keys.group_by(join_key_columns).aggregate([]) if join_key_columns else pa.table({})
            count = asked.num_rows if join_key_columns else min(rows.num_rows, 1)
            end = pc.max(rows[timestamp_field].cast(pa.int64())).as_py()
            moments = pa.array([end] * count, pa.int64()).cast(rows.schema.field(timestamp_field).type)
            at = asof.positions(
                [asked[key] for key in join_key_columns],
                pa.chunked_array([moments]),
                [rows[key] for key in join_key_columns],
                rows[timestamp_field],
                created=rows[created_timestamp_column] if created_timestamp_column else None,
            )
            return _with_key(rows.take(pa.array(at[at >= 0])), join_key_columns)

        return _Job(latest, repo_path=config.repo_path)

    @staticmethod
    def pull_all_from_table_or_query(
        config: RepoConfig,
        data_source: Any,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None = None,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
    ) -> RetrievalJob:
        """Every row within the dates."""
        read = _reading(
            config,
            data_source,
            [*join_key_columns, *feature_name_columns],
            timestamp_field,
            created_timestamp_column,
            start_date,
            end_date,
        )
        return _Job(lambda: _with_key(read(), join_key_columns), repo_path=config.repo_path)

    @staticmethod
    def offline_write_batch(
        config: RepoConfig,
        feature_view: feast.FeatureView,
        table: pa.Table,
        progress: Callable[[int], Any] | None,
    ) -> None:
        """Add rows to the view's source: to the current build, to a folder, or to a file.

        Raises:
            InvalidInput: the columns are not those of the source.
        """
        source = _Source(config, feature_view.batch_source)
        held = {declared: name for name, declared in source.mapping.items()}
        table = table.rename_columns([held.get(name, name) for name in table.column_names])
        if source.view is not None:
            offline.append(source.root, source.view, table)
        else:
            source.add(table)
        if progress:
            progress(table.num_rows)

    @staticmethod
    def write_logged_features(
        config: RepoConfig, data: pa.Table | Path, source: Any, logging_config: Any, registry: Any
    ) -> None:
        """Add a log of served features to the destination's folder.

        Raises:
            InvalidInput: the destination is not FileLoggingDestination.
        """
        to = logging_config.destination
        if not isinstance(to, FileLoggingDestination):
            raise InvalidInput(f"logs go to a {type(to).__name__}; accepted: FileLoggingDestination")
        table = pq.read_table(data) if isinstance(data, Path) else data
        files, base = _placed(config.repo_path, to.path, to.s3_endpoint_override)
        name = secrets.token_hex(8)
        if not to.partition_by:
            offline.write_parquet(files, f"{base}/{name}.parquet", table)
            return
        places = table.append_column("__row", pa.array(range(table.num_rows), pa.int64()))
        groups = places.group_by(to.partition_by, use_threads=False).aggregate([("__row", "list")])
        for group in groups.to_pylist():
            inner = "/".join(str(group[column]) for column in to.partition_by)
            rows = table.take(pa.array(group["__row_list"]))
            offline.write_parquet(files, f"{base}/{inner}/{name}.parquet", rows)

    def validate_data_source(self, config: RepoConfig, data_source: Any) -> None:
        """Feast's own check of a FileSource; a view of our builds may be declared before it is built."""
        if Path(data_source.path).is_absolute() or "://" in data_source.path:
            data_source.validate(config=config)

    def get_table_column_names_and_types_from_data_source(
        self, config: RepoConfig, data_source: Any
    ) -> Iterable[tuple[str, str]]:
        """Column names and their Arrow types as text."""
        schema = _Source(config, data_source).schema
        return [(field.name, str(field.type)) for field in schema]


class _Job(RetrievalJob):  # type: ignore[misc]
    """An answer that is computed when it is asked for."""

    def __init__(
        self,
        compute: Callable[[], pa.Table],
        *,
        repo_path: Path | str | None,
        full_feature_names: bool = False,
        on_demand: Sequence[Any] = (),
        metadata: RetrievalMetadata | None = None,
    ) -> None:
        self._compute = compute
        self._repo_path = repo_path
        self._full_feature_names = full_feature_names
        self._on_demand = list(on_demand)
        self._metadata = metadata

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:
        return self._compute()

    def _to_df_internal(self, timeout: int | None = None) -> pd.DataFrame:
        frame: pd.DataFrame = self._compute().to_pandas()
        return frame

    def to_sql(self) -> str:
        """There is none.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError("ParquetOfflineStore runs no SQL; accepted: to_df, to_arrow, persist")

    def persist(self, storage: Any, allow_overwrite: bool = False, timeout: int | None = None) -> None:
        """Write the answer as Parquet: to a path that ends in .parquet, else into a folder.

        Raises:
            InvalidInput: the storage is not SavedDatasetFileStorage.
            SavedDatasetLocationAlreadyExists: there is something, and `allow_overwrite` is False.
        """
        if not isinstance(storage, SavedDatasetFileStorage):
            raise InvalidInput(f"storage is {type(storage).__name__}; accepted: SavedDatasetFileStorage")
        options = storage.file_options
        files, base = _placed(self._repo_path, options.uri, options.s3_endpoint_override)
        try:
            before = offline.parquet_parts(files, base).paths
        except NotFound:
            before = []
        if before and not allow_overwrite:
            raise SavedDatasetLocationAlreadyExists(location=options.uri)
        single = base.endswith(".parquet")
        path = base if single else f"{base}/{secrets.token_hex(8)}.parquet"
        offline.write_parquet(files, path, self.to_arrow(timeout=timeout))
        for old in before:
            if old != path:
                files.delete_file(old)

    @property
    def full_feature_names(self) -> bool:
        return self._full_feature_names

    @property
    def on_demand_feature_views(self) -> list[Any]:
        return self._on_demand

    @property
    def metadata(self) -> RetrievalMetadata | None:
        return self._metadata


class _Source:
    """Where a Feast source's rows are.

    Args:
        source: a FileSource; its path names a view of the current build, or Parquet of its own.

    Raises:
        InvalidInput: another kind of source or format.
    """

    def __init__(self, config: RepoConfig, source: Any) -> None:
        if not isinstance(source, feast.FileSource):
            raise InvalidInput(f"source {source!r} is a {type(source).__name__}; accepted: FileSource")
        if source.file_format is not None and not isinstance(source.file_format, ParquetFormat):
            raise InvalidInput(
                f"source {source.path}: {type(source.file_format).__name__}; accepted: Parquet"
            )
        self.root = _root(config)
        self.mapping: Mapping[str, str] = source.field_mapping or {}
        self._files, self._base = _placed(
            config.repo_path,
            source.path,
            source.file_options.s3_endpoint_override,
            source.resolve_credentials(),
        )
        relative = "://" not in source.path and not Path(source.path).is_absolute()
        own = self._files.get_file_info(self._base).type is not fs.FileType.NotFound
        self.view: str | None = source.path if config.offline_store.path and relative and not own else None

    def parts(self, *, since: int | None = None, until: int | None = None) -> offline.Parts:
        """Its files; of a build those alone that may hold rows of the time asked for (microseconds)."""
        if self.view is not None:
            return offline.parts(self.root, self.view, since=since, until=until)
        return self._own

    @cached_property
    def _own(self) -> offline.Parts:
        return offline.parquet_parts(self._files, self._base)

    @cached_property
    def schema(self) -> pa.Schema:
        """Columns as they are held."""
        return self.parts().schema()

    def held(self, name: str) -> str:
        """What a declared column is called where it is held."""
        names = [held for held, declared in self.mapping.items() if declared == name]
        names = [each for each in [*names, name] if each in self.schema.names]
        if not names:
            columns = ", ".join(self.schema.names)
            raise NotFound(f"column {name!r} in {self.view or self._base}: none; it has {columns}")
        return names[0]

    def add(self, table: pa.Table) -> None:
        """Write rows after those that Parquet of its own holds."""
        try:
            schema = self.schema
        except NotFound:
            schema = table.schema
        if set(schema.names) != set(table.column_names):
            raise InvalidInput(
                f"rows for {self._base} have columns {', '.join(table.column_names)}; "
                f"accepted: {', '.join(schema.names)}"
            )
        table = table.select(schema.names).cast(schema)
        if self._files.get_file_info(self._base).type is fs.FileType.File:
            before = self._own.read()
            offline.write_parquet(self._files, self._base, pa.concat_tables([before, table]))
        else:
            name = f"zz-{datetime.now(UTC):%Y%m%dT%H%M%S%f}-{secrets.token_hex(4)}"
            offline.write_parquet(self._files, f"{self._base}/{name}.parquet", table)


@dataclass(frozen=True, kw_only=True)
class _Lookup:
    """What to read of one view, and how to call it. Column names are those where the rows are held."""

    view: str
    source: _Source
    keys: Sequence[str]
    row_keys: Sequence[str]
    time: str
    created: str | None
    columns: Sequence[str]
    names: Sequence[str]
    ttl_us: int


def _lookup(
    config: RepoConfig, view: feast.FeatureView, keys: Sequence[str], refs: Sequence[str], full_names: bool
) -> _Lookup:
    if view.batch_source is None:
        raise InvalidInput(f"feature view {view.name!r} has no batch source")
    source = _Source(config, view.batch_source)
    created = view.batch_source.created_timestamp_column
    label = view.projection.name_to_use()
    pairs = [ref.split(":", 1) for ref in refs]
    wanted = list(dict.fromkeys(name for view_name, name in pairs if view_name == label))
    return _Lookup(
        view=label,
        source=source,
        keys=[view.projection.join_key_map.get(key, key) for key in keys],
        row_keys=[source.held(key) for key in keys],
        time=source.held(view.batch_source.timestamp_field),
        created=source.held(created) if created else None,
        columns=[source.held(name) for name in wanted],
        names=[f"{label}__{name}" if full_names else name for name in wanted],
        ttl_us=view.ttl // _MICROSECOND if view.ttl else 0,
    )


def _join_keys(view: feast.FeatureView, registry: Any, project: str) -> list[str]:
    """Those of the view's entities: Feast leaves out of a view's columns what its source calls otherwise."""
    columns = [column.name for column in view.entity_columns if column.name != DUMMY_ENTITY_ID]
    if columns:
        return columns
    return [
        registry.get_entity(name, project).join_key for name in view.entities if name != DUMMY_ENTITY_NAME
    ]


def _joined(config: RepoConfig, asked: pa.Table, time: str, lookup: _Lookup, *, known: bool) -> pa.Table:
    first, last = _span(asked[time])
    parts = lookup.source.parts(
        since=first - lookup.ttl_us if first is not None and lookup.ttl_us else None, until=last
    )
    rule: dict[str, Any] = {
        "keys": lookup.keys,
        "row_keys": lookup.row_keys,
        "time": time,
        "row_time": lookup.time,
        "created": lookup.created,
        "columns": lookup.columns,
        "names": lookup.names,
        "ttl_us": lookup.ttl_us,
        "known": known and lookup.created is not None,
    }
    created = [] if lookup.created is None else [lookup.created]
    needed = list(dict.fromkeys([*lookup.row_keys, lookup.time, *created, *lookup.columns]))
    asked = asked.select([*lookup.keys, time])
    if asked.num_rows and lookup.keys and parts.count() > config.offline_store.one_process_rows:
        scratch = config.offline_store.scratch or (
            f"{_root(config)}/.scratch" if config.offline_store.path else tempfile.gettempdir()
        )
        return asof_ray.join(asked, parts, needed=needed, rule=rule, scratch=scratch)
    return asof.join(asked, parts.read(needed), **rule)


def _changes(lookups: Sequence[_Lookup], start: int, end: int) -> pa.Table:
    """A row for every key and time at which a view has a row within the dates (microseconds)."""
    keyed = [lookup for lookup in lookups if lookup.keys] or list(lookups)
    if any(lookup.keys != keyed[0].keys for lookup in keyed):
        views = ", ".join(f"{lookup.view} ({', '.join(lookup.keys)})" for lookup in keyed)
        raise InvalidInput(f"views of different keys without entity_df: {views}; give an entity_df")
    found = []
    for lookup in keyed:
        parts = lookup.source.parts(since=start, until=end)
        rows = parts.read([*lookup.row_keys, lookup.time], time=lookup.time, since=start, until=end)
        times = _timestamps(rows[lookup.time])
        found.append(
            pa.table([*(rows[key] for key in lookup.row_keys), times], names=[*lookup.keys, asof.TIME])
        )
    every = pa.concat_tables(found, promote_options="permissive")
    distinct = every.group_by(every.column_names, use_threads=False).aggregate([])
    return distinct.sort_by([(name, "ascending") for name in every.column_names])


def _reading(
    config: RepoConfig,
    data_source: Any,
    columns: Sequence[str],
    time: str,
    created: str | None,
    start: datetime | None,
    end: datetime | None,
) -> Callable[[], pa.Table]:
    """Reads the rows of a source within the dates; without columns, all that there are."""
    since = None if start is None else _micros(start)
    until = None if end is None else _micros(end)
    source = _Source(config, data_source)

    def read() -> pa.Table:
        needed = list(dict.fromkeys([*columns, time, *([created] if created else [])])) if columns else None
        missing = [name for name in needed or [time] if name not in source.schema.names]
        if missing:
            held = ", ".join(source.schema.names)
            raise NotFound(f"columns {', '.join(missing)} in {data_source.path}: none; it has {held}")
        return source.parts(since=since, until=until).read(needed, time=time, since=since, until=until)

    return read


def _with_key(rows: pa.Table, keys: Sequence[str]) -> pa.Table:
    """Rows of a view without entities, under the key that Feast gives them."""
    if keys:
        return rows
    return rows.append_column(DUMMY_ENTITY_ID, pa.array([DUMMY_ENTITY_VAL] * rows.num_rows, pa.string()))


def _check(asked: pa.Table, lookups: Sequence[_Lookup]) -> None:
    missing = sorted({key for lookup in lookups for key in lookup.keys} - set(asked.column_names))
    if missing:
        raise InvalidInput(
            f"entity_df lacks the join keys {', '.join(missing)}; it has {', '.join(asked.column_names)}"
        )
    taken = sorted({name for lookup in lookups for name in lookup.names} & set(asked.column_names))
    if taken:
        raise InvalidInput(
            f"entity_df has columns called like features: {', '.join(taken)}; rename them, or ask for "
            "full_feature_names"
        )


def _time_column(asked: pa.Table) -> str:
    if asof.TIME in asked.column_names:
        return asof.TIME
    stamps = [str(field.name) for field in asked.schema if pa.types.is_timestamp(field.type)]
    if len(stamps) != 1:
        raise InvalidInput(
            f"entity_df has columns {', '.join(asked.column_names)}; accepted: a column {asof.TIME!r}, or "
            "one column of timestamps"
        )
    return stamps[0]


def _timestamps(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Times as timestamps; text is read as pandas reads it, without a zone as UTC."""
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        return pa.chunked_array([pa.array(pd.to_datetime(column.to_pandas(), utc=True, format="ISO8601"))])
    return column


def _span(times: pa.ChunkedArray) -> tuple[int | None, int | None]:
    """First and last time, microseconds: the first rounded down, the last rounded up."""
    if pa.types.is_null(times.type):
        return None, None
    kind = times.type
    if not pa.types.is_integer(kind):
        times = times.cast(pa.timestamp("us", getattr(kind, "tz", None)), safe=False)
    ends = pc.min_max(times.cast(pa.int64()))
    first, last = ends["min"].as_py(), ends["max"].as_py()
    return first, None if last is None else last + 1


def _root(config: RepoConfig) -> str:
    text = config.offline_store.path
    if "://" in text or config.repo_path is None or Path(text).is_absolute():
        return str(text)
    return str(Path(config.repo_path) / text)


def _placed(
    repo_path: Path | str | None, path: str, endpoint: str = "", credentials: Mapping[str, str] | None = None
) -> tuple[fs.FileSystem, str]:
    """The file system of a Feast path and the path in it."""
    if path.startswith("s3://") and (endpoint or credentials):
        given = credentials or {}
        names = {
            "access_key": "AWS_ACCESS_KEY_ID",
            "secret_key": "AWS_SECRET_ACCESS_KEY",
            "session_token": "AWS_SESSION_TOKEN",
            "region": "AWS_DEFAULT_REGION",
        }
        options = {name: given[held] for name, held in names.items() if given.get(held)}
        if endpoint:
            options["endpoint_override"] = endpoint
        return fs.S3FileSystem(**options, allow_delayed_open=True), path.removeprefix("s3://").rstrip("/")
    return offline.opened(feast.FileSource.get_uri_for_file_path(repo_path, path).rstrip("/"))


def _micros(time: datetime) -> int:
    aware = time if time.tzinfo else time.replace(tzinfo=UTC)
    return (aware - datetime.fromtimestamp(0, UTC)) // _MICROSECOND


def _datetime(micros: int) -> datetime:
    return datetime.fromtimestamp(0, UTC) + micros * _MICROSECOND
