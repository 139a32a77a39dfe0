"""The Evidently door: the live window against the training reference, as numbers and as a page.

Evidently takes five seconds and 300 MB to import, so it is imported when first used. It computes
`matinee.monitoring.psi` rather than its own index: its equal-width bins over both samples together let
one outlier put every other row into a single bin and so hide any shift. Missing values, which it
drops, are compared as a column of their own; a column counts as drifted where either drifted.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from matinee.errors import InvalidInput, StorageError
from matinee.monitoring.psi import psi

if TYPE_CHECKING:
    import pandas as pd

PAGE = "drift.html"
"""File name of the report page in its folder."""

_METHOD = "matinee_psi"
_MISSING = " (missing)"


@dataclass(frozen=True, kw_only=True)
class ColumnDrift:
    """How one column compares.

    Args:
        value: PSI; None where it could not be computed, and `note` says why.
        drifted: the value is above the threshold, or the column is absent from the live window.
        note: what is particular about the column, else empty.
    """

    value: float | None
    drifted: bool
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class DriftResult:
    """A comparison.

    Args:
        share: drifted columns over all columns of `columns` in [0, 1]; None where there are none.
        columns: by name, every numeric column of the reference that has a value on either side.
        unknown: live columns the reference does not have; they are not compared.
        report: the page; None where no column could be compared.
    """

    share: float | None
    columns: Mapping[str, ColumnDrift]
    unknown: tuple[str, ...]
    report: Path | None

    @property
    def drifted(self) -> list[str]:
        """Names of the drifted columns, the largest value first; absent ones before all."""
        named = [(name, column.value) for name, column in self.columns.items() if column.drifted]
        return [name for name, value in sorted(named, key=lambda c: -(np.inf if c[1] is None else c[1]))]


def drift(reference: pd.DataFrame, current: pd.DataFrame, *, threshold: float, folder: Path) -> DriftResult:
    """Compare every numeric column of `reference` with the same column of `current`.

    Args:
        reference: what the model was trained on; non-numeric columns are ignored.
        current: what it meets now.
        threshold: PSI above which a column counts as drifted.
        folder: where the page is written, whole or not at all, over the one before it.

    Raises:
        InvalidInput: one side has no row, or the reference has no numeric column.
        StorageError: the page cannot be written.
    """
    if reference.empty or current.empty:
        side = "training reference" if reference.empty else "live window"
        raise InvalidInput(f"drift: the {side} has no rows; both sides need at least one")
    reference = _finite(reference)
    if not len(reference.columns):
        raise InvalidInput("drift: the training reference has no numeric column to compare")
    unknown = tuple(str(name) for name in current.columns if name not in reference.columns)
    current = _finite(current[[name for name in reference.columns if name in current.columns]])
    before, after, columns = _comparable(reference, current)
    report = None
    if len(before.columns):
        values, report = _evidently(before, after, threshold, folder)
        for name in after.columns:
            base = str(name).removesuffix(_MISSING)
            value = values[name]
            known = columns.get(base)
            highest = value if known is None or known.value is None else max(value, known.value)
            note = known.note if known else ""
            columns[base] = ColumnDrift(value=highest, drifted=highest > threshold, note=note)
    share = sum(column.drifted for column in columns.values()) / len(columns) if columns else None
    return DriftResult(share=share, columns=columns, unknown=unknown, report=report)


def _finite(frame: pd.DataFrame) -> pd.DataFrame:
    numbers = frame.select_dtypes(include=["number", "bool"]).astype(np.float64)
    return numbers.replace([np.inf, -np.inf], np.nan)


def _comparable(
    reference: pd.DataFrame, current: pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, ColumnDrift]]:
    """The two sides with the columns that can be compared, and what is known of the others."""
    import pandas as pd

    before: dict[str, Any] = {}
    after: dict[str, Any] = {}
    columns: dict[str, ColumnDrift] = {}
    for name in reference.columns:
        if name not in current.columns:
            if reference[name].notna().any():
                columns[name] = ColumnDrift(value=None, drifted=True, note="absent from the live window")
            continue
        old, new = reference[name], current[name]
        if old.isna().all() and new.isna().all():
            continue
        note = ""
        if old.isna().all() or new.isna().all():
            side = "training reference" if old.isna().all() else "live window"
            note = f"no value in the {side}"
        else:
            before[name], after[name] = old, new
            if old.nunique() == 1:
                note = "constant in the training reference"
        if old.isna().any() or new.isna().any():
            before[name + _MISSING] = old.isna().astype(np.float64)
            after[name + _MISSING] = new.isna().astype(np.float64)
        columns[name] = ColumnDrift(value=None, drifted=False, note=note)
    return pd.DataFrame(before), pd.DataFrame(after), columns


def _evidently(
    reference: pd.DataFrame, current: pd.DataFrame, threshold: float, folder: Path
) -> tuple[dict[str, float], Path]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from evidently import DataDefinition, Dataset, Report
        from evidently.metrics import ValueDrift

        _register()
        names = [str(name) for name in reference.columns]
        definition = DataDefinition(numerical_columns=names)
        metrics = [ValueDrift(column=name, method=_METHOD, threshold=threshold) for name in names]
        run = Report(metrics).run(
            Dataset.from_pandas(current, definition), Dataset.from_pandas(reference, definition)
        )
        results = run.dict()["metrics"]
        page = folder / PAGE
        draft = folder / f".{PAGE}.draft"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            run.save_html(str(draft))
            draft.replace(page)
        except OSError as failure:
            raise StorageError(f"drift report {page}: {failure}") from failure
    return {name: float(result["value"]) for name, result in zip(names, results, strict=True)}, page


def _register() -> None:
    """Make our index known to Evidently under `_METHOD`; again is harmless."""
    from evidently.legacy.calculations.stattests import StatTest, register_stattest
    from evidently.legacy.core import ColumnType

    def measure(
        reference: pd.Series[float], current: pd.Series[float], kind: object, threshold: float
    ) -> tuple[float, bool]:
        value = psi(np.asarray(reference, np.float64), np.asarray(current, np.float64))
        return value, value > threshold

    test = StatTest(
        name=_METHOD,
        display_name="PSI (deciles of the reference)",
        allowed_feature_types=[ColumnType.Numerical],
        default_threshold=0.2,
    )
    register_stattest(test, measure)
