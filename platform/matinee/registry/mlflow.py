"""The MLflow door: runs with their figures, and model versions registered whole or not at all.

MLflow's tables say what exists; a version's files lie among the artifacts of its run. A version's row is
written last, in one transaction, after every file and the manifest that lists them: a process that dies
before leaves files nobody refers to, never a version without them. Without a tracking URI everything
lies in the data home (SQLite and a folder); no server is needed and nothing is sent anywhere.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import tempfile
import time
import uuid
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from matinee.config import Settings
from matinee.errors import InvalidInput, MatineeError, NotFound, StorageError, Unavailable
from matinee.schema import ModelVersion

EXPERIMENT = "matinee"
MANIFEST = "version.json"
CHAMPION = "champion"
"""Alias of the version that serves unless a split says otherwise."""

_METRICS_TAG = "matinee.metrics"
_FILES_TAG = "matinee.files"
_KEY_TAG = "matinee.key"
_PROMOTED_TAG = "matinee.promoted."
_PARENT_TAG = "mlflow.parentRunId"

log = logging.getLogger(__name__)


class Run:
    """One training run while it is open.

    Args:
        client: MLflow's client.
        run_id: MLflow's id of the run.
    """

    def __init__(self, registry: Registry, run_id: str) -> None:
        self._registry = registry
        self.run_id = run_id

    def log_metrics(self, metrics: Mapping[str, float], *, step: int = 0, at: float | None = None) -> None:
        """Record figures; a name recorded again at another step becomes a curve.

        Args:
            at: seconds of the epoch; None: now. The same figure of the same moment counts once.
        """
        moment = None if at is None else int(at * 1000)
        with self._registry.writing() as client:
            for name, value in metrics.items():
                client.log_metric(self.run_id, _metric_name(name), value, timestamp=moment, step=step)

    def log_artifacts(self, folder: Path, path: str | None = None) -> None:
        """Keep a copy of a folder's files with the run."""
        with self._registry.writing() as client:
            client.log_artifacts(self.run_id, str(folder), path)

    def log_figure(self, path: Path) -> None:
        """Keep a copy of a plot with the run."""
        with self._registry.writing() as client:
            client.log_artifact(self.run_id, str(path), "plots")


class Registry:
    """Runs and model versions of one data home, or of the MLflow that the settings name.

    Safe to use from several processes. Making one imports MLflow (about 2 s).

    Raises:
        StorageError: the data home cannot be written.
        Unavailable: the tracking URI does not answer.
    """

    def __init__(self, settings: Settings) -> None:
        self._root = settings.paths.mlflow
        self._cache = settings.paths.scratch / "versions"
        self._uri = settings.mlflow_tracking_uri or f"sqlite:///{self._root / 'mlflow.db'}"
        self._client: Any = None
        with self.writing():
            pass

    @contextmanager
    def run(
        self,
        name: str,
        *,
        config: Mapping[str, object],
        tags: Mapping[str, str] | None = None,
        key: str | None = None,
        parent: str | None = None,
    ) -> Iterator[Run]:
        """Open a run; it ends as finished, as failed (an exception) or as killed (an interrupt).

        Args:
            config: what was configured; values that are not text are kept as JSON.
            tags: where it comes from: data snapshot, feature service, code version, hardware, ...
            key: names the run for good: where there is one of this key, it is opened again.
            parent: id of the run that this one is a part of.
        """
        marks = {_KEY_TAG: key, _PARENT_TAG: parent}
        tags = {**(tags or {}), **{tag: value for tag, value in marks.items() if value}}
        with self.writing() as client:
            run_id = self._opened(client, name, key, tags)
            for field, value in config.items():
                client.log_param(run_id, field, value if isinstance(value, str) else json.dumps(value))
        status = "KILLED"
        try:
            yield Run(self, run_id)
            status = "FINISHED"
        except Exception:
            status = "FAILED"
            raise
        finally:
            with self.writing() as client:
                client.set_terminated(run_id, status=status)

    def register(
        self,
        model_name: str,
        folder: Path,
        *,
        run_id: str,
        metrics: Mapping[str, float],
        tags: Mapping[str, str] | None = None,
        alias: str | None = None,
    ) -> ModelVersion:
        """Register a folder's files as the next version of a model, whole or not at all.

        Args:
            run_id: the run it came from.
            alias: points to the new version once it exists.

        Raises:
            InvalidInput: the folder holds no file, or holds a file named like the manifest.
        """
        files = _manifest(folder)
        path = f"versions/{uuid.uuid4().hex}"
        with self.writing() as client:
            client.log_artifacts(run_id, str(folder), path)
            with tempfile.TemporaryDirectory() as scratch:
                manifest = Path(scratch) / MANIFEST
                manifest.write_text(json.dumps({"files": files}, indent=1))
                client.log_artifact(run_id, str(manifest), path)
            self._require_model(client, model_name)
            created = client.create_model_version(
                model_name,
                source=f"{client.get_run(run_id).info.artifact_uri}/{path}",
                run_id=run_id,
                tags={
                    **(tags or {}),
                    _FILES_TAG: path,
                    _METRICS_TAG: json.dumps({name: float(value) for name, value in metrics.items()}),
                },
            )
        if alias:
            self.alias(model_name, alias, created.version)
        log.info("registered %s version %s from run %s", model_name, created.version, run_id)
        return self.get(model_name, str(created.version))

    def alias(self, model_name: str, alias: str, version: str) -> None:
        """Point an alias to a version, away from any other.

        Raises:
            NotFound: there is no such version.
        """
        with self.writing() as client, _finding(f"{model_name} version {version}"):
            client.get_model_version(model_name, str(version))
            client.set_registered_model_alias(model_name, alias, str(version))

    def promote(self, model_name: str, version: str, *, who: str, why: str) -> None:
        """Make a version the champion, with a line in the ledger. Again is harmless.

        Raises:
            NotFound: there is no such version.
        """
        with self.writing() as client, _finding(f"{model_name} version {version}"):
            found = client.get_model_version(model_name, version)
            if CHAMPION in found.aliases:
                return
            before = client.get_registered_model(model_name).aliases.get(CHAMPION)
            now = time.time_ns() // 1000
            line = {"version": version, "before": before and str(before), "who": who, "why": why, "time": now}
            client.set_model_version_tag(model_name, version, f"{_PROMOTED_TAG}{now}", json.dumps(line))
            client.set_registered_model_alias(model_name, CHAMPION, version)

    def promotions(self, model_name: str) -> list[dict[str, Any]]:
        """The ledger, newest first: version, before, who, why, time (microseconds)."""
        with self._reading() as client:
            found = self._found(client, model_name)
        tags = [tag for version in found for tag in version.tags.items()]
        lines = [json.loads(text) for name, text in tags if name.startswith(_PROMOTED_TAG)]
        return sorted(lines, key=lambda line: -line["time"])

    def get(self, model_name: str, version_or_alias: str) -> ModelVersion:
        """A version by number or alias; its `path` is a local folder with all of its files.

        Raises:
            NotFound: there is no such version or alias.
            StorageError: files of the version are gone from where it was registered.
        """
        wanted = str(version_or_alias)
        with self._reading() as client, _finding(f"{model_name} version {wanted!r}"):
            if wanted.isdecimal():
                found = client.get_model_version(model_name, wanted)
            else:
                found = client.get_model_version_by_alias(model_name, wanted)
            return self._version(client, found)

    def versions(self, model_name: str) -> list[ModelVersion]:
        """Every version of a model, oldest first; none where the model is unknown."""
        with self._reading() as client:
            found = self._found(client, model_name)
            return [self._version(client, one) for one in sorted(found, key=lambda one: int(one.version))]

    @contextmanager
    def writing(self) -> Iterator[Any]:
        """MLflow's client for writing: one writer of the home's SQLite at a time, failures translated."""
        if self._uri.startswith("sqlite"):
            try:
                self._root.mkdir(parents=True, exist_ok=True)
                with (self._root / "lock").open("a") as lock:
                    fcntl.flock(lock, fcntl.LOCK_EX)
                    with self._reading() as client:
                        yield client
            except OSError as failure:
                if isinstance(failure, MatineeError):
                    raise
                raise StorageError(f"model registry {self._root} cannot be written: {failure}") from failure
        else:
            with self._reading() as client:
                yield client

    @contextmanager
    def _reading(self) -> Iterator[Any]:
        from sqlalchemy.exc import SQLAlchemyError

        if self._client is None:
            _silence()
        from mlflow.exceptions import MlflowException

        try:
            if self._client is None:
                self._client = _connect(self._uri)
            yield self._client
        except (MlflowException, SQLAlchemyError) as failure:
            if isinstance(failure, MlflowException) and failure.error_code == "RESOURCE_DOES_NOT_EXIST":
                raise NotFound(str(failure.message)) from None
            shown = _without_password(self._uri)
            text = str(failure).replace(self._uri, shown)
            if "disk" in text or "readonly" in text:
                raise StorageError(f"model registry {self._root} cannot be written: {text}") from None
            raise Unavailable(f"model registry {shown}: {text}") from None

    def _opened(self, client: Any, name: str, key: str | None, tags: Mapping[str, str]) -> str:
        """The id of a new run, or of the one with this key."""
        experiment = self._experiment(client)
        wanted = f"tags.`{_KEY_TAG}` = '{key}'"
        found = client.search_runs([experiment], wanted, max_results=1) if key else []
        if not found:
            return str(client.create_run(experiment, run_name=name, tags=dict(tags)).info.run_id)
        run_id = str(found[0].info.run_id)
        client.update_run(run_id, status="RUNNING")
        for tag, value in tags.items():
            client.set_tag(run_id, tag, value)
        return run_id

    def _experiment(self, client: Any) -> str:
        found = client.get_experiment_by_name(EXPERIMENT)
        if found is not None:
            return str(found.experiment_id)
        remote = self._uri.startswith("http")
        location = None if remote else (self._root / "artifacts").as_uri()
        return str(client.create_experiment(EXPERIMENT, artifact_location=location))

    def _require_model(self, client: Any, model_name: str) -> None:
        from mlflow.exceptions import MlflowException

        try:
            client.create_registered_model(model_name)
        except MlflowException as failure:
            if failure.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

    def _found(self, client: Any, model_name: str) -> list[Any]:
        name = model_name.replace("'", "")
        found: list[Any] = []
        token = None
        while True:
            page = client.search_model_versions(f"name = '{name}'", max_results=1000, page_token=token)
            found.extend(page)
            token = page.token
            if not token:
                return found

    def _version(self, client: Any, found: Any) -> ModelVersion:
        tags = {key: value for key, value in found.tags.items() if not key.startswith("matinee.")}
        metrics = json.loads(found.tags.get(_METRICS_TAG, "{}"))
        return ModelVersion(
            name=found.name,
            version=str(found.version),
            run_id=str(found.run_id),
            path=str(self._folder(client, found)),
            metrics=metrics,
            tags=tags,
        )

    def _folder(self, client: Any, found: Any) -> Path:
        source = urlparse(str(found.source))
        if source.scheme in ("", "file"):
            folder = Path(unquote(source.path))
        else:
            folder = self._cache / found.tags[_FILES_TAG].rpartition("/")[2]
            if not (folder / MANIFEST).exists():
                self._fetch(client, found, folder)
        _check(folder, f"{found.name} version {found.version}")
        return folder

    def _fetch(self, client: Any, found: Any, folder: Path) -> None:
        self._cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._cache) as draft:
            fetched = client.download_artifacts(found.run_id, found.tags[_FILES_TAG], draft)
            try:
                Path(fetched).replace(folder)
            except OSError:
                if not (folder / MANIFEST).exists():
                    raise


def _silence() -> None:
    """Keep MLflow from calling home and from configuring loggers; must precede its import."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_CONFIGURE_LOGGING", "false")
    logging.getLogger("alembic").setLevel(logging.WARNING)


def _connect(uri: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mlflow import MlflowClient

        return MlflowClient(tracking_uri=uri, registry_uri=uri)


@contextmanager
def _finding(thing: str) -> Iterator[None]:
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as failure:
        if failure.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise NotFound(f"{thing} is not registered; train one with `matinee train`") from None
        raise


def _manifest(folder: Path) -> dict[str, dict[str, object]]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    if not paths:
        raise InvalidInput(f"{folder} holds no file: there is nothing to register")
    if (folder / MANIFEST).exists():
        raise InvalidInput(f"{folder} holds a {MANIFEST}: that name is the registry's own")
    return {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": digest(path)}
        for path in paths
    }


def _check(folder: Path, thing: str) -> None:
    try:
        files = json.loads((folder / MANIFEST).read_text())["files"]
        gone = [name for name, file in files.items() if (folder / name).stat().st_size != file["bytes"]]
    except OSError as failure:
        raise StorageError(f"{thing}: {failure.filename} is gone") from None
    if gone:
        raise StorageError(f"{thing}: {folder / gone[0]} is not the file that was registered")


def digest(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _metric_name(name: str) -> str:
    return name.replace("@", "_at_").replace("[", "_").replace("]", "")


def _without_password(uri: str) -> str:
    scheme, mark, rest = uri.partition("://")
    return scheme + mark + rest.rpartition("@")[2]
