"""One drift check: the live window against the champion's training reference, and what was decided."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import orjson

from matinee.config import Settings
from matinee.errors import NotFound, StorageError
from matinee.monitoring.policy import Limits, decide
from matinee.monitoring.window import Window
from matinee.schema import ModelVersion

REFERENCE = "reference.parquet"
"""File of a model version's folder: one row a training member, features and scores as served."""

RESULT = "drift.json"
"""File beside the report page that holds the same check as numbers."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """What one check found.

    Args:
        time: microseconds since the epoch, UTC.
        model: registered model's name.
        model_version: the version compared.
        decision: "hold" (too little seen), "keep" or "drift".
        reason: why.
        rows: members compared.
        share: drifted columns over all compared in [0, 1]; None where nothing was compared.
        drifted: names of drifted columns, the largest index first.
        columns: PSI by column, where it has one.
        notes: what is particular about a column.
        unknown: live columns that the reference does not have.
        report: path of the page; None where there is none.
    """

    time: int
    model: str
    model_version: str
    decision: str
    reason: str
    rows: int
    share: float | None = None
    drifted: list[str] = field(default_factory=list)
    columns: dict[str, float] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)
    report: str | None = None


def check(settings: Settings, version: ModelVersion, window: Window) -> Check:
    """Compare and decide; the page and the numbers go to `reports/drift/<model>-<version>/`.

    Raises:
        NotFound: the version has no training reference.
        StorageError: the report cannot be written.
    """
    limits = Limits(share=settings.monitoring.drift_share)
    live = window.frame(live_name(version))
    if len(live) < limits.rows:
        return _check(version, len(live), None, limits)
    import pandas as pd

    from matinee.monitoring.drift import drift

    path = Path(version.path) / REFERENCE
    if not path.is_file():
        raise NotFound(f"training reference {path} does not exist; train {version.name} again")
    folder = settings.paths.reports / "drift" / f"{version.name}-{version.version}"
    result = drift(pd.read_parquet(path), live, threshold=settings.monitoring.drift_threshold, folder=folder)
    found = _check(
        version,
        len(live),
        result.share,
        limits,
        drifted=result.drifted,
        columns={name: c.value for name, c in result.columns.items() if c.value is not None},
        notes={name: c.note for name, c in result.columns.items() if c.note},
        unknown=list(result.unknown),
        report=str(result.report) if result.report else None,
    )
    _write(folder / RESULT, orjson.dumps(asdict(found), option=orjson.OPT_INDENT_2))
    return found


def check_champion(settings: Settings, window: Window) -> Check:
    """`check` of the champion of the served model.

    Raises:
        NotFound: there is no champion, or it has no training reference.
        StorageError: the report cannot be written.
    """
    return check(settings, champion(settings), window)


def champion(settings: Settings) -> ModelVersion:
    """The version that is served unless a split says otherwise.

    Raises:
        NotFound: there is none.
    """
    from matinee.registry.mlflow import Registry

    found: ModelVersion = Registry(settings).get(settings.serving.model, "champion")
    return found


def live_name(version: ModelVersion) -> str:
    """What rankings and exposures call a version: model and version, "recommender/3"."""
    return f"{version.name}/{version.version}"


def drift_event(found: Check) -> bytes:
    """The message that says so on the signals topic: JSON, the fields of `Check` with a type and an id."""
    event_id = f"drift-{found.model}-{found.model_version}-{found.time}"
    return orjson.dumps({"type": "drift", "schema_version": 1, "event_id": event_id, **asdict(found)})


def _check(version: ModelVersion, rows: int, share: float | None, limits: Limits, **found: object) -> Check:
    decision = decide(share, rows, limits)
    return Check(
        time=time.time_ns() // 1000,
        model=version.name,
        model_version=version.version,
        decision=decision.action,
        reason=decision.reason,
        rows=rows,
        share=share,
        **found,  # type: ignore[arg-type]
    )


def _write(path: Path, content: bytes) -> None:
    draft = path.with_name(f".{path.name}.draft")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_bytes(content)
        draft.replace(path)
    except OSError as failure:
        raise StorageError(f"drift result {path}: {failure}") from failure
