from __future__ import annotations

from pathlib import Path

import pytest

from matinee.config import Settings
from matinee.errors import InvalidInput, NotFound
from matinee.local.ingest import bring
from matinee.schema import Catalogue

DECLARATION = """
name = "mine"
events = "plays.csv"
[columns]
member = "who"
title = "what"
time = "when"
time_format = "iso"
"""


@pytest.fixture
def declared(tmp_path: Path) -> Path:
    (tmp_path / "plays.csv").write_text("who,what,when\na,x,2026-01-01T00:00:00Z\nb,y,2026-01-02T00:00:00Z\n")
    path = tmp_path / "mine.toml"
    path.write_text(DECLARATION)
    return path


def test_declared_data_comes_with_its_catalogue(settings: Settings, declared: Path) -> None:
    dataset = bring(settings, "", declared=declared)
    assert dataset.events["title_id"].to_pylist() == ["x", "y"]
    assert Catalogue.read(settings.paths.catalogue).title_ids == ["x", "y"]


def test_a_home_keeps_its_titles(settings: Settings, declared: Path) -> None:
    bring(settings, "", declared=declared)
    bring(settings, "", declared=declared)
    with pytest.raises(InvalidInput, match="holds other titles than world"):
        bring(settings, "world", days=1)
    assert Catalogue.read(settings.paths.catalogue).title_ids == ["x", "y"]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (('who"', 'whom"'), "whom"),
        (("[columns]", "[column]"), "columns"),
        (('time_format = "iso"', 'colour = "iso"'), "colour"),
        (('name = "mine"', "name = mine"), "mine.toml"),
    ],
)
def test_a_wrong_declaration_names_what_is_wrong(
    settings: Settings, declared: Path, change: tuple[str, str], named: str
) -> None:
    declared.write_text(DECLARATION.replace(*change))
    with pytest.raises(InvalidInput, match=named):
        bring(settings, "", declared=declared)


def test_a_missing_declaration_is_named(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"none\.toml"):
        bring(settings, "", declared=tmp_path / "none.toml")
