"""Licences as rows: the newest list, single titles above it, and files they are read from."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from matinee.config import Settings
from matinee.errors import InvalidInput
from matinee.serving.availability import ANYTHING, WINDOW_SCHEMA
from matinee.serving.licences import Licences, read_windows, windows_of

SIGNED = {"who": "ana", "why": "contract 7"}


@pytest.fixture
def licences(settings: Settings) -> Licences:
    return Licences(settings)


def in_force(licences: Licences) -> list[tuple[str, str | None]]:
    rows = licences.listed().windows.to_pylist()
    return [(row["title_id"], row["country"]) for row in rows]


def test_before_any_decision_everything_is_on_offer(licences: Licences) -> None:
    assert licences.newest() == licences.listed().number == ANYTHING.number
    assert in_force(licences) == []


def test_a_title_of_its_own_stands_above_every_list_until_it_is_cleared(licences: Licences) -> None:
    licences.replace(pa.table({"title_id": ["t0", "t1"], "country": ["SE", "SE"]}), **SIGNED)
    licences.set("t1", WINDOW_SCHEMA.empty_table(), who="bo", why="a court said so")
    assert in_force(licences) == [("t0", "SE"), ("t1", None)]
    licences.replace(pa.table({"title_id": ["t1", "t2"], "country": ["FR", "FR"]}), **SIGNED)
    (withdrawn,) = [row for row in licences.listed().windows.to_pylist() if row["title_id"] == "t1"]
    assert withdrawn["available_until"].timestamp() == 0
    licences.clear("t1", **SIGNED)
    assert in_force(licences) == [("t1", "FR"), ("t2", "FR")]
    licences.set("t2", windows_of("t2", ["DE", "AT"], begin=None, end=None), **SIGNED)
    assert in_force(licences) == [("t1", "FR"), ("t2", "DE"), ("t2", "AT")]
    assert licences.newest() == licences.listed().number == 5
    changes = licences.history()
    assert [(change.title_id, change.windows) for change in changes] == [
        ("t2", 2),
        ("t1", None),
        (None, 2),
        ("t1", 1),
        (None, 2),
    ]
    assert [change.who for change in licences.history("t1")] == ["ana", "bo"]


def test_nobody_decides_without_a_name_a_reason_and_a_title(licences: Licences) -> None:
    with pytest.raises(InvalidInput, match="why"):
        licences.clear("t1", who="ana", why=" ")
    with pytest.raises(InvalidInput, match="title"):
        licences.clear(" ", **SIGNED)
    with pytest.raises(InvalidInput, match="'t2'"):
        licences.set("t1", windows_of("t2", [], begin=None, end=None), **SIGNED)
    assert licences.newest() == 0


def test_windows_are_read_from_a_file(tmp_path: Path) -> None:
    text = tmp_path / "windows.csv"
    text.write_text(
        "title_id,country,available_from,available_until\n50,SE,2026-01-01,2026-07-01T12:00:00+02:00\n51,,,\n"
    )
    first, second = read_windows(text).to_pylist()
    assert (first["title_id"], first["country"]) == ("50", "SE")
    assert first["available_until"].isoformat() == "2026-07-01T10:00:00+00:00"
    assert list(second.values()) == ["51", None, None, None]
    columnar = tmp_path / "windows.parquet"
    pq.write_table(read_windows(text), columnar)
    assert read_windows(columnar) == read_windows(text)


def test_a_file_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"none\.csv"):
        read_windows(tmp_path / "none.csv")
    broken = tmp_path / "broken.csv"
    broken.write_text("title_id,available_from\n50,soon\n")
    with pytest.raises(InvalidInput, match="'soon'"):
        read_windows(broken)
    broken.rename(tmp_path / "broken.parquet")
    with pytest.raises(InvalidInput, match=r"broken\.parquet"):
        read_windows(tmp_path / "broken.parquet")
