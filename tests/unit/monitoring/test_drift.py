from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from matinee.errors import InvalidInput, StorageError
from matinee.monitoring.drift import DriftResult, drift

THRESHOLD = 0.2


def frame(seed: int, rows: int, **shift: float) -> pd.DataFrame:
    generator = np.random.default_rng(seed)
    columns = {name: generator.normal(shift.get(name, 0), 1, rows) for name in "abcd"}
    columns["e"] = generator.exponential(1 + shift.get("e", 0), rows)
    return pd.DataFrame(columns)


def compare(reference: pd.DataFrame, current: pd.DataFrame, folder: Path) -> DriftResult:
    return drift(reference, current, threshold=THRESHOLD, folder=folder)


def test_nothing_drifts_between_samples_of_one_distribution(tmp_path: Path) -> None:
    result = compare(frame(0, 3000), frame(1, 500), tmp_path)
    assert result.share == 0
    assert result.drifted == []
    assert all(0 <= column.value < 0.1 for column in result.columns.values())  # type: ignore[operator]


def test_a_shift_is_found_where_it_is(tmp_path: Path) -> None:
    result = compare(frame(0, 3000), frame(1, 500, b=1.0, e=3.0), tmp_path)
    assert sorted(result.drifted) == ["b", "e"]
    assert result.share == pytest.approx(2 / 5)


def test_values_are_plain(tmp_path: Path) -> None:
    result = compare(frame(0, 300), frame(1, 300, a=2), tmp_path)
    assert type(result.share) is float
    assert all(type(column.value) is float for column in result.columns.values())
    assert all(type(column.drifted) is bool for column in result.columns.values())
    json.dumps([column.value for column in result.columns.values()])


def test_the_page_is_whole_and_replaces_the_one_before(tmp_path: Path) -> None:
    folder = tmp_path / "reports" / "v1"
    compare(frame(0, 300), frame(1, 300), folder)
    result = compare(frame(0, 300), frame(1, 300, a=2), folder)
    assert result.report == folder / "drift.html"
    assert [path.name for path in folder.iterdir()] == ["drift.html"]
    assert "</html>" in result.report.read_text()[-200:]


def test_constant_columns(tmp_path: Path) -> None:
    reference, current = frame(0, 500), frame(1, 500)
    reference["same"] = current["same"] = 3.0
    reference["moved"], current["moved"] = 3.0, 4.0
    result = compare(reference, current, tmp_path)
    assert result.drifted == ["moved"]
    assert result.columns["same"].note == "constant in the training reference"


def test_missing_values_are_compared_too(tmp_path: Path) -> None:
    reference, current = frame(0, 2000), frame(1, 500)
    reference.loc[reference.index % 10 == 0, ["a", "b"]] = np.nan
    current.loc[current.index % 10 == 0, "a"] = np.nan
    current.loc[current.index % 10 != 0, "b"] = np.inf
    result = compare(reference, current, tmp_path)
    assert result.drifted == ["b"]
    assert set(result.columns) == set("abcde")


def test_columns_without_any_value(tmp_path: Path) -> None:
    reference, current = frame(0, 500), frame(1, 500)
    reference["never"] = current["never"] = np.nan
    current["a"] = np.nan
    reference["b"] = np.nan
    result = compare(reference, current, tmp_path)
    assert "never" not in result.columns
    assert sorted(result.drifted) == ["a", "b"]
    assert result.columns["a"].note == "no value in the live window"
    assert result.columns["b"].note == "no value in the training reference"


def test_columns_of_one_side_only(tmp_path: Path) -> None:
    reference, current = frame(0, 500), frame(1, 500).drop(columns=["c"])
    current["new"] = 1.0
    result = compare(reference, current, tmp_path)
    assert result.unknown == ("new",)
    assert result.columns["c"].note == "absent from the live window"
    assert result.drifted == ["c"]


def test_nothing_in_common_is_told_apart_from_no_drift(tmp_path: Path) -> None:
    result = compare(frame(0, 50), pd.DataFrame({"x": [1.0]}), tmp_path)
    assert result.share == 1
    assert result.report is None


def test_one_row_is_enough_to_compare(tmp_path: Path) -> None:
    assert compare(frame(0, 500), frame(1, 1), tmp_path).share is not None


@pytest.mark.parametrize("side", ["training reference", "live window"])
def test_no_rows(tmp_path: Path, side: str) -> None:
    full, empty = frame(0, 10), frame(0, 0)
    pair = (empty, full) if side == "training reference" else (full, empty)
    with pytest.raises(InvalidInput, match=side):
        compare(*pair, tmp_path)


def test_no_numbers(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no numeric column"):
        compare(pd.DataFrame({"name": ["x"]}), frame(0, 5), tmp_path)


def test_a_page_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match=r"drift\.html"):
        compare(frame(0, 100), frame(1, 100), tmp_path / "file")
