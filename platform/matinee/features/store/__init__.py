"""The Feast door: the only place that imports feast (seven seconds), beside feature_repo/."""

import prometheus_client  # noqa: F401  before feast, which else makes every counter a file shared by name

from matinee.features.store.offline_store import ParquetOfflineStore, ParquetOfflineStoreConfig
from matinee.features.store.online_store import (
    PackedRedisOnlineStore,
    PackedRedisOnlineStoreConfig,
    PackedSqliteOnlineStore,
    PackedSqliteOnlineStoreConfig,
)
from matinee.features.store.store import FeatureStore

__all__ = [
    "FeatureStore",
    "PackedRedisOnlineStore",
    "PackedRedisOnlineStoreConfig",
    "PackedSqliteOnlineStore",
    "PackedSqliteOnlineStoreConfig",
    "ParquetOfflineStore",
    "ParquetOfflineStoreConfig",
]
