"""Feast's offline store over `features.offline`: exact as-of joins, in Feast's terms."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import feast
    from feast.infra.offline_stores.offline_store import OfflineStore, RetrievalJob, RetrievalMetadata
    from feast.repo_config import FeastConfigBaseModel, RepoConfig

from matinee.features import offline
from matinee.schema import TIMESTAMP


class ParquetOfflineStoreConfig(FeastConfigBaseModel):  # type: ignore[misc]
    """Feast's settings of ParquetOfflineStore."""

    type: Literal["matinee.features.store.ParquetOfflineStore"] = "matinee.features.store.ParquetOfflineStore"
    path: str = ""
    """Root of the offline rows (`features.offline`)."""


class ParquetOfflineStore(OfflineStore):  # type: ignore[misc]
    """Feast's offline store over `features.offline`: exact as-of joins, time to live honoured.

    Entity rows keep their order and their repetitions. A view's source path is its folder's name.
    """

    @staticmethod
    def get_historical_features(
        config: RepoConfig,
        feature_views: list[feast.FeatureView],
        feature_refs: list[str],
        entity_df: pd.DataFrame | str | None,
        registry: Any,
        project: str,
        full_feature_names: bool = False,
        **_: Any,
    ) -> RetrievalJob:
        """Values as of each entity row's event_timestamp, which is inclusive."""
        if not isinstance(entity_df, pd.DataFrame):
            raise TypeError(f"entity_df is a {type(entity_df).__name__}; accepted: a pandas DataFrame")
        root = _root(config)
        asked = pa.Table.from_pandas(entity_df, preserve_index=False)

        def join() -> pa.Table:
            answer = asked
            for view in feature_views:
                name = view.projection.name_to_use()
                wanted = [ref.split(":", 1)[1] for ref in feature_refs if ref.split(":", 1)[0] == name]
                (key,) = view.join_keys
                rows = offline.read(root, view.batch_source.path, [key, offline.TIME, *wanted])
                found = offline.join_as_of(
                    asked.select([key, offline.TIME]),
                    rows,
                    key=key,
                    columns=wanted,
                    names=[f"{name}__{each}" if full_feature_names else each for each in wanted],
                    ttl_us=int(view.ttl.total_seconds() * 1_000_000) if view.ttl else 0,
                )
                for column in found.column_names:
                    answer = answer.append_column(column, found[column])
            return answer

        times = pd.to_datetime(entity_df[offline.TIME], utc=True)
        keys = sorted({key for view in feature_views for key in view.join_keys})
        metadata = RetrievalMetadata(
            features=feature_refs, keys=keys, min_event_timestamp=times.min(), max_event_timestamp=times.max()
        )
        return _Job(join, full_feature_names=full_feature_names, metadata=metadata)

    @staticmethod
    def pull_latest_from_table_or_query(
        config: RepoConfig,
        data_source: Any,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None,
        start_date: datetime,
        end_date: datetime,
    ) -> RetrievalJob:
        """The latest row of each key within the dates; `feast materialize` reads it."""
        columns = [*join_key_columns, *feature_name_columns, timestamp_field]

        def latest() -> pa.Table:
            table = _between(offline.read(_root(config), data_source.path, columns), start_date, end_date)
            order = table.append_column("__row", pa.array(np.arange(table.num_rows)))
            order = order.select([*join_key_columns, timestamp_field, "__row"]).sort_by(
                [(timestamp_field, "ascending"), ("__row", "ascending")]
            )
            last = order.group_by(join_key_columns, use_threads=False).aggregate([("__row", "last")])
            return table.take(last["__row_last"])

        return _Job(latest)

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
        columns = [*join_key_columns, *feature_name_columns, timestamp_field]
        return _Job(
            lambda: _between(offline.read(_root(config), data_source.path, columns), start_date, end_date)
        )

    @staticmethod
    def offline_write_batch(
        config: RepoConfig,
        feature_view: feast.FeatureView,
        table: pa.Table,
        progress: Callable[[int], Any] | None,
    ) -> None:
        """Add rows to the current build."""
        offline.append(_root(config), feature_view.batch_source.path, table)
        if progress:
            progress(table.num_rows)


class _Job(RetrievalJob):  # type: ignore[misc]
    """An answer that is computed when it is asked for."""

    def __init__(
        self,
        compute: Callable[[], pa.Table],
        *,
        full_feature_names: bool = False,
        metadata: RetrievalMetadata | None = None,
    ) -> None:
        self._compute = compute
        self._full_feature_names = full_feature_names
        self._metadata = metadata

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:
        return self._compute()

    def _to_df_internal(self, timeout: int | None = None) -> pd.DataFrame:
        frame: pd.DataFrame = self._compute().to_pandas()
        return frame

    @property
    def full_feature_names(self) -> bool:
        return self._full_feature_names

    @property
    def on_demand_feature_views(self) -> list[Any]:
        return []

    @property
    def metadata(self) -> RetrievalMetadata | None:
        return self._metadata


def _root(config: RepoConfig) -> Path:
    path = Path(config.offline_store.path)
    return path if path.is_absolute() or config.repo_path is None else Path(config.repo_path) / path


def _between(table: pa.Table, start: datetime | None, end: datetime | None) -> pa.Table:
    times = table[offline.TIME].cast(TIMESTAMP).cast(pa.int64()).to_numpy()
    kept = np.ones(len(times), dtype=bool)
    if start is not None:
        kept &= times >= _micros(start)
    if end is not None:
        kept &= times <= _micros(end)
    return table.filter(pa.array(kept))


def _micros(time: datetime) -> int:
    aware = time if time.tzinfo else time.replace(tzinfo=UTC)
    return round(aware.timestamp() * 1_000_000)
