"""Features of a data home: read, written and asked for as of any time.

The definitions live in feature_repo/; `apply` reads them into the registry in the data home, and every
other call reads that registry, so a process without the repository's folder can read and write features.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow as pa

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import feast
    from feast.repo_config import RegistryConfig, RepoConfig

from matinee.config import Settings
from matinee.errors import InvalidInput, NotFound, StorageError, Unavailable
from matinee.features import packed
from matinee.features.entity_keys import entity_keys
from matinee.features.packed import Decoder
from matinee.features.rows import PROJECT, Cursor, Rows, guarded, put_table, translated
from matinee.features.store.feast_rows import FeastRows
from matinee.features.store.online_store import (
    PackedOnlineStore,
    layout_of,
    python_opaque,
    stored_name,
)
from matinee.features.store.selection import Selection, ViewPart, ViewRows
from matinee.schema import AGGREGATE_TAG, AggregateView

REPOSITORY = Path(__file__).resolve().parents[4] / "feature_repo"
"""The definitions in a checkout; elsewhere a folder of this name in the working directory is used."""


_MICROSECOND = timedelta(microseconds=1)


class FeatureStore:
    """Features of one data home, through Feast.

    Args:
        settings: say where the home is and which online store serves it.
    """

    def __init__(self, settings: Settings) -> None:
        self._home = settings.paths.feast
        self._repository = settings.features.repository
        self._feast: feast.FeatureStore | None = None
        self._views: dict[str, feast.FeatureView] = {}
        self._selections: dict[str | tuple[str, ...], Selection] = {}
        online, self._where = _online(settings)
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
        definitions = _definitions(self._repository)
        try:
            self._home.mkdir(parents=True, exist_ok=True)
        except OSError as failure:
            raise StorageError(f"feature store in {self._home}: {failure}") from failure
        with guarded(self._where), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._build().apply(definitions)
        self._feast = None
        self._views = {}
        self._selections = {}

    def prepare(self) -> None:
        """Apply where the definitions can be found; else use the registry that is there.

        Raises:
            NotFound: there are neither definitions nor a registry.
        """
        if _repository(self._repository) is not None or not self.registry.exists():
            self.apply()

    def write_online(self, view: str, table: pa.Table) -> None:
        """Replace the online values of the keys in `table`: its key, every feature, event_timestamp.

        A row replaces the stored one unless that is of a later event_timestamp; of equal ones the later
        write stays. (Feast's own stores, Cassandra and DynamoDB, don't compare: the later write wins.)

        Raises:
            InvalidInput: a column is missing or of another type.
            Unavailable: the store does not answer.
            StorageError: it has no room.
        """
        if not table.num_rows:
            return
        declared = self._view(view)
        layout = layout_of(declared)
        (key,) = declared.join_keys
        with guarded(self._where):
            put_table(self._rows(), self._stored(declared), table, key=key, layout=layout)

    def write_offline(self, view: str, table: pa.Table) -> None:
        """Add rows to the current offline build: the key, every feature, event_timestamp."""
        self._open().provider.offline_write_batch(self._open().config, self._view(view), table, None)

    def read_online(self, features: str | Sequence[str], keys: Sequence[str]) -> pa.Table:
        """Online values of `keys`, in their order.

        Args:
            features: a feature service's name, or "view:feature" and "view:*" references; all of one
                entity.

        Returns:
            The join key and the features asked for; null where the store has no row, or one that is older
            than its view's time to live.

        Raises:
            InvalidInput: the views are not all of one entity.
            NotFound: an unknown service, view or feature.
            Unavailable: the store does not answer.
        """
        selection = self._selection(features)
        answer = pa.table({selection.key: pa.array(list(keys), pa.string())})
        for part, found in zip(selection.parts, self.read_views(features, keys), strict=True):
            columns = found.columns() or [[]] * len(found.names)
            for name, values in zip(found.names, columns, strict=True):
                kind = packed.arrow_type(part.layout.kinds[name])
                answer = answer.append_column(name, pa.array(values, kind))
        return answer

    def read_rows(self, view: str, keys: Sequence[str]) -> list[dict[str, Any] | None]:
        """Online rows of one view as Python values, aligned with `keys`.

        None where there is no row, or one that is older than the view's time to live.

        Raises:
            Unavailable: the store does not answer, or was never applied.
        """
        selection = self._selection((f"{view}:*",))
        with guarded(self._where):
            return selection.as_mappings(keys)

    def read_views(self, features: str | Sequence[str], keys: Sequence[str]) -> list[ViewRows]:
        """Online rows of each view, with their statuses and event times; few keys in one read.

        Args and raises as `read_online`.
        """
        selection = self._selection(features)
        with guarded(self._where):
            return selection.read(keys)

    def read_one(self, features: str | Sequence[str], key: str) -> dict[str, Any]:
        """Online values of one key by feature name, all views in one read.

        The features of a view are left out where there is no row, or one older than its time to live.
        Args and raises as `read_online`.
        """
        selection = self._selection(features)
        try:
            return selection.one(key)
        except Exception as failure:  # as `guarded`, a microsecond cheaper
            ours = translated(failure, self._where)
            if ours is None:
                raise
            raise ours from failure

    def key_of(self, features: str | Sequence[str]) -> str:
        """The join key of the entity that `features` describe. Args and raises as `read_online`."""
        return self._selection(features).key

    def changed(
        self, view: str, keys: Sequence[str], since: Cursor | None
    ) -> tuple[Cursor, dict[int, bytes], bool]:
        """Packed rows of a view that were written since an earlier call.

        Returns:
            A cursor for the next call; rows by position in `keys`, at least those that changed; and whether
            these are all there are.

        Raises:
            Unavailable: the store does not answer, or was never applied.
        """
        declared = self._view(view)
        (key,) = declared.join_keys
        stored = entity_keys(key, pa.chunked_array([pa.array(list(keys), pa.string())]))
        place = {each: position for position, each in enumerate(stored)}
        with guarded(self._where):
            cursor, rows, whole = self._rows().changed(self._stored(declared), stored, since)
        return cursor, {place[each]: row for each, row in rows.items() if each in place}, whole

    def decoder(self, view: str) -> Decoder:
        """What reads the packed rows of a view, every feature of it.

        Raises:
            NotFound: no such view.
        """
        layout = layout_of(self._view(view))
        return Decoder(layout, layout.names, find=self._rows().layout, opaque=python_opaque)

    def ttl_us(self, view: str) -> int:
        """A view's time to live in microseconds; 0 where it has none.

        Raises:
            NotFound: no such view.
        """
        ttl = self._view(view).ttl
        return ttl // _MICROSECOND if ttl else 0

    def generation(self) -> str | None:
        """A text that stays while the online store keeps what was written.

        Another text, or None, says that it lost everything and must be filled again; it is None until the
        first write to an empty Redis. Feast's own stores cannot tell and always say "unknown".

        Raises:
            Unavailable: the store does not answer.
        """
        with guarded(self._where):
            return self._rows().generation()

    def historical(self, features: str | Sequence[str], entity_rows: pa.Table) -> pa.Table:
        """Point-in-time values: for each entity row, what the store knew at its event_timestamp.

        Args:
            features: a feature service's name, or "view:feature" and "view:*" references.
            entity_rows: the join keys and event_timestamp; order and repetitions are kept.

        Returns:
            `entity_rows` with a column for each feature; null where nothing was known.

        Raises:
            InvalidInput: `entity_rows` lacks a join key, or has a column called like a feature.
            NotFound: an unknown service, view or feature, or a view that was never built.
        """
        refs = [f"{view}:{name}" for view, names in self._references(features).items() for name in names]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            job = self._open().get_historical_features(entity_df=entity_rows, features=refs)
            answer: pa.Table = job.to_arrow()
        return answer

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
        return {name: packed.arrow_type(kind) for name, kind in layout_of(self._view(view)).features}

    def views(self) -> list[str]:
        """Names of the feature views."""
        return sorted(view.name for view in self._open().list_feature_views())

    def aggregate_views(self) -> dict[str, AggregateView]:
        """The views that are declared as aggregates, by name."""
        return {
            view.name: AggregateView.from_json(view.tags[AGGREGATE_TAG])
            for view in sorted(self._open().list_feature_views(), key=lambda view: view.name)
            if AGGREGATE_TAG in view.tags
        }

    def _selection(self, features: str | Sequence[str]) -> Selection:
        asked = features if isinstance(features, str) else tuple(features)
        found = self._selections.get(asked)
        if found is None:
            found = self._selections[asked] = self._select(asked)
        return found

    def _select(self, features: str | Sequence[str]) -> Selection:
        references = self._references(features)
        if not references:
            raise InvalidInput("no feature is asked for")
        keys = {view: tuple(self._view(view).join_keys) for view in references}
        if len(set(keys.values())) > 1 or any(len(held) != 1 for held in keys.values()):
            listed = ", ".join(f"{view} by {' and '.join(held)}" for view, held in keys.items())
            raise InvalidInput(f"views are of several entities ({listed}); ask for one entity's at a time")
        parts = [
            ViewPart(
                view=view,
                stored=self._stored(self._view(view)),
                layout=layout_of(self._view(view)),
                names=tuple(dict.fromkeys(names)),
                ttl_us=self.ttl_us(view),
            )
            for view, names in references.items()
        ]
        ((key,), *_) = keys.values()
        return Selection(key=key, parts=parts, rows=self._rows(), opaque=python_opaque)

    def _stored(self, view: feast.FeatureView) -> str:
        return stored_name(self._open().config, view)

    def _rows(self) -> Rows:
        opened = self._open()
        store = opened._get_provider().online_store
        if isinstance(store, PackedOnlineStore):
            return store.rows(opened.config)
        return FeastRows(self._open, self._view)

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


def _online(settings: Settings) -> tuple[dict[str, Any], str]:
    """Feast's configuration of the online store, and where that is, for errors."""
    chosen = settings.features.online_store
    if chosen == "sqlite":
        path = str(settings.paths.feast / "online.db")
        return {"type": "matinee.features.store.PackedSqliteOnlineStore", "path": path}, path
    options = dict(settings.features.online_options)
    if chosen == "redis":
        address = settings.features.redis
        kind = "matinee.features.store.PackedRedisOnlineStore"
        where = f"redis at {address.partition(',')[0]}"
        return {"type": kind, "connection_string": address, **options}, where
    return {"type": chosen, **options}, chosen


def _repository(named: str) -> Path | None:
    folders = (Path(named),) if named else (REPOSITORY, Path.cwd() / "feature_repo")
    for folder in folders:
        if any(folder.glob("*.py")):
            return folder
    return None


def _definitions(named: str) -> list[Any]:
    """Every Feast object that the modules of the definitions' folder hold.

    The modules import each other by bare name, as the `feast` command wants it; they leave no trace in
    this process's import state.
    """
    folder = _repository(named)
    if folder is None:
        looked = named or f"{REPOSITORY}, {Path.cwd() / 'feature_repo'}"
        raise NotFound(f"feature definitions: no Python file in {looked}; set features.repository")
    names = [path.stem for path in sorted(folder.glob("*.py"))]
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
