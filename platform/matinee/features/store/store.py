"""Features of a data home: read, written and asked for as of any time.

The definitions live in feature_repo/; `apply` reads them into the registry in the data home, and every
other call reads that registry, so a process without the repository's folder can read and write features.
"""

from __future__ import annotations

import importlib
import sqlite3
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow as pa

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import feast
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.protos.feast.types.Value_pb2 import Value
    from feast.repo_config import RegistryConfig, RepoConfig

from matinee.config import Settings
from matinee.errors import NotFound, StorageError, Unavailable
from matinee.features import offline
from matinee.features.store.values import arrow_type, protos, python_value

PROJECT = "matinee"
REPOSITORY = Path(__file__).resolve().parents[4] / "feature_repo"
"""The definitions in a checkout; elsewhere a folder of this name in the working directory is used."""

_READ_KEYS = 400
"""Most keys of one online read."""


class FeatureStore:
    """Features of one data home, through Feast.

    Args:
        settings: say where the home is and which online store serves it.
    """

    def __init__(self, settings: Settings) -> None:
        self._home = settings.paths.feast
        self._sqlite = settings.features.online_store == "sqlite"
        self._online_path = self._home / "online.db"
        self._feast: feast.FeatureStore | None = None
        self._views: dict[str, feast.FeatureView] = {}
        online: dict[str, Any] = (
            {"type": "sqlite", "path": str(self._online_path)}
            if self._sqlite
            else {"type": "redis", "connection_string": settings.features.redis, "skip_dedup": True}
        )
        self._where = str(self._online_path) if self._sqlite else f"redis at {settings.features.redis}"
        self._config: dict[str, Any] = {
            "project": PROJECT,
            "provider": "local",
            "online_store": online,
            "offline_store": {
                "type": "matinee.features.store.ParquetOfflineStore",
                "path": str(self._home / "offline"),
            },
            "entity_key_serialization_version": 3,
        }

    @property
    def registry(self) -> Path:
        """The registry file; it exists after `apply`."""
        return self._home / "registry.db"

    def apply(self) -> None:
        """Bring the registry and the online store up to the definitions in feature_repo/.

        Raises:
            NotFound: the folder of definitions is neither in the checkout nor in the working directory.
            StorageError: the home cannot be written.
        """
        definitions = _definitions()
        try:
            self._home.mkdir(parents=True, exist_ok=True)
            if self._sqlite:
                with _closing(sqlite3.connect(self._online_path)) as connection:
                    connection.execute("PRAGMA journal_mode=WAL")
        except (OSError, sqlite3.OperationalError) as failure:
            raise StorageError(f"feature store in {self._home}: {failure}") from failure
        with self._guarded(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._build().apply(definitions)
        self._feast = None
        self._views = {}

    def prepare(self) -> None:
        """Apply where the definitions can be found; else use the registry that is there.

        Raises:
            NotFound: there are neither definitions nor a registry.
        """
        if _repository() is not None or not self.registry.exists():
            self.apply()

    def write_online(self, view: str, table: pa.Table) -> None:
        """Replace the online values of the keys in `table`: its key, every feature, event_timestamp.

        The row is written as it is: whoever calls sees to it that it is the key's latest.

        Raises:
            Unavailable: the store does not answer.
            StorageError: it has no room.
        """
        if not table.num_rows:
            return
        declared = self._view(view)
        (key,) = declared.join_keys
        keys = [
            EntityKey(join_keys=[key], entity_values=[Value(string_val=each)])
            for each in table[key].to_pylist()
        ]
        columns = {field.name: protos(table[field.name].combine_chunks()) for field in declared.features}
        times = [
            datetime.fromtimestamp(time / 1_000_000, UTC)
            for time in table[offline.TIME].cast(pa.int64()).to_pylist()
        ]
        rows = [
            (entity, dict(zip(columns, values, strict=True)), time, None)
            for entity, time, values in zip(keys, times, zip(*columns.values(), strict=True), strict=True)
        ]
        with self._guarded():
            self._open().provider.online_write_batch(self._open().config, declared, rows, None)

    def write_offline(self, view: str, table: pa.Table) -> None:
        """Add rows to the current offline build: the key, every feature, event_timestamp."""
        self._open().provider.offline_write_batch(self._open().config, self._view(view), table, None)

    def read_online(self, features: str | Sequence[str], keys: Sequence[str]) -> pa.Table:
        """Online values of `keys`, in their order.

        Args:
            features: a feature service's name, or "view:feature" and "view:*" references; all of one
                entity.

        Returns:
            The join key and the features asked for; null where the store has no row.

        Raises:
            NotFound: an unknown service, view or feature.
            Unavailable: the store does not answer.
        """
        refs = self._references(features)
        first = self._view(next(iter(refs)))
        (key,) = first.join_keys
        answer = pa.table({key: pa.array(list(keys), pa.string())})
        for view, names in refs.items():
            found = self.read_rows(view, keys)
            schema = self.schema(view)
            for name in names:
                values = [None if row is None else row[name] for row in found]
                answer = answer.append_column(name, pa.array(values, schema[name]))
        return answer

    def read_rows(self, view: str, keys: Sequence[str]) -> list[dict[str, Any] | None]:
        """Online rows of one view as Python values, aligned with `keys`; None where there is no row.

        Raises:
            Unavailable: the store does not answer, or was never applied.
        """
        declared = self._view(view)
        if self._sqlite and not self._online_path.exists():
            raise Unavailable(f"feature store {self._where} is gone")
        (key,) = declared.join_keys
        entities = [EntityKey(join_keys=[key], entity_values=[Value(string_val=each)]) for each in keys]
        lists = {field.name: isinstance(field.dtype, feast.types.Array) for field in declared.features}
        answer: list[dict[str, Any] | None] = []
        with self._guarded():
            for start in range(0, len(entities), _READ_KEYS):
                found = self._open().provider.online_read(
                    self._open().config, declared, entities[start : start + _READ_KEYS], list(lists)
                )
                for _, values in found:
                    if not values or all(value.WhichOneof("val") is None for value in values.values()):
                        answer.append(None)
                    else:
                        answer.append(
                            {name: python_value(values.get(name), each) for name, each in lists.items()}
                        )
        return answer

    def historical(self, features: str | Sequence[str], entity_rows: pa.Table) -> pa.Table:
        """Point-in-time values: for each entity row, what the store knew at its event_timestamp.

        Args:
            features: a feature service's name, or "view:feature" and "view:*" references.
            entity_rows: the join keys and event_timestamp; order and repetitions are kept.

        Returns:
            `entity_rows` with a column for each feature; null where nothing was known.

        Raises:
            NotFound: an unknown service, view or feature, or a view that was never built.
        """
        refs = [f"{view}:{name}" for view, names in self._references(features).items() for name in names]
        frame = entity_rows.to_pandas()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            job = self._open().get_historical_features(entity_df=frame, features=refs)
            answer = job.to_arrow()
        return _aligned(entity_rows, answer)

    def features(self, service: str) -> Mapping[str, Sequence[str]]:
        """What a service promises: view to feature names.

        Raises:
            NotFound: no such service.
        """
        try:
            declared = self._open().get_feature_service(service)
        except feast.errors.FeatureServiceNotFoundException:
            known = ", ".join(sorted(each.name for each in self._open().list_feature_services()))
            raise NotFound(f"feature service {service!r}; known: {known}") from None
        return {
            projection.name: [feature.name for feature in projection.features]
            for projection in declared.feature_view_projections
        }

    def schema(self, view: str) -> Mapping[str, pa.DataType]:
        """Arrow types of a view's features.

        Raises:
            NotFound: no such view.
        """
        return {field.name: arrow_type(field.dtype) for field in self._view(view).features}

    def _references(self, features: str | Sequence[str]) -> Mapping[str, Sequence[str]]:
        if isinstance(features, str):
            return self.features(features)
        refs: dict[str, list[str]] = {}
        for ref in features:
            view, _, name = ref.partition(":")
            known = [feature.name for feature in self._view(view).features]
            if name != "*" and name not in known:
                raise NotFound(f"feature {ref!r}; {view} has {', '.join(known)}")
            refs.setdefault(view, []).extend(known if name == "*" else [name])
        return refs

    def _view(self, name: str) -> feast.FeatureView:
        if name not in self._views:
            try:
                self._views[name] = self._open().get_feature_view(name)
            except feast.errors.FeatureViewNotFoundException:
                known = ", ".join(sorted(each.name for each in self._open().list_feature_views()))
                raise NotFound(f"feature view {name!r}; known: {known}") from None
        return self._views[name]

    def _open(self) -> feast.FeatureStore:
        if self._feast is None:
            if not self.registry.exists():
                raise Unavailable(
                    f"feature store {self._home}: not applied yet; the stream applies it at start"
                )
            self._feast = self._build()
        return self._feast

    def _build(self) -> feast.FeatureStore:
        registry = RegistryConfig(path=str(self.registry), cache_ttl_seconds=0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return feast.FeatureStore(
                config=RepoConfig(**self._config, registry=registry, repo_path=self._home)
            )

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """Turns what the online store's client raises into our errors."""
        try:
            yield
        except sqlite3.Error as failure:
            if "full" in str(failure):
                raise StorageError(f"feature store {self._where}: {failure}") from failure
            raise Unavailable(f"feature store {self._where}: {failure}") from failure
        except Exception as failure:
            if type(failure).__module__.partition(".")[0] == "redis":
                raise Unavailable(f"feature store {self._where}: {failure}") from failure
            raise


def _repository() -> Path | None:
    for folder in (REPOSITORY, Path.cwd() / "feature_repo"):
        if (folder / "services.py").is_file():
            return folder
    return None


def _definitions() -> list[Any]:
    """Every Feast object that the modules of feature_repo/ hold.

    The modules import each other by bare name, as the `feast` command wants it; they leave no trace in
    this process's import state.
    """
    folder = _repository()
    if folder is None:
        raise NotFound(f"feature definitions: neither {REPOSITORY} nor {Path.cwd() / 'feature_repo'} exists")
    names = ("entities", "sources", "views", "services")
    before = {name: sys.modules.pop(name) for name in names if name in sys.modules}
    sys.path.insert(0, str(folder))
    try:
        modules: list[ModuleType] = [importlib.import_module(name) for name in names]
    finally:
        sys.path.remove(str(folder))
        for name in names:
            sys.modules.pop(name, None)
        sys.modules.update(before)
    kinds = (feast.Entity, feast.FeatureView, feast.FeatureService)
    found = {
        id(value): value for module in modules for value in vars(module).values() if isinstance(value, kinds)
    }
    return list(found.values())


def _aligned(entity_rows: pa.Table, answer: pa.Table) -> pa.Table:
    for name in answer.column_names:
        if name not in entity_rows.column_names:
            entity_rows = entity_rows.append_column(name, answer[name])
    return entity_rows


@contextmanager
def _closing(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    try:
        yield connection
    finally:
        connection.close()
