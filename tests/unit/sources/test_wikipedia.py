from __future__ import annotations

import datetime
import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from matinee.errors import InvalidInput
from matinee.schema import Catalogue
from matinee.sources.ratings import catalogue
from matinee.sources.wikipedia import KEYWORDS, enrich


def film(title: str, year: int, extract: str | None = None, **more: Any) -> dict[str, Any]:
    return {"title": title, "year": year, "cast": [], "genres": [], "extract": extract, **more}


def written(folder: Path, *films: dict[str, Any]) -> Path:
    path = folder / "films.jsonl.gz"
    path.write_bytes(gzip.compress("\n".join(map(json.dumps, films)).encode()))
    return path


def titles(*names: tuple[str, int | None]) -> Catalogue:
    return catalogue(
        title_ids=[str(i) for i in range(len(names))],
        names=[name for name, _ in names],
        genres=[["Drama"] for _ in names],
        release_dates=[datetime.date(year, 1, 1) if year else None for _, year in names],
    )


def column(found: Catalogue, name: str) -> list[Any]:
    values: list[Any] = found.table[name].to_pylist()
    return values


def test_adds_cast_and_genres_to_its_own(tmp_path: Path) -> None:
    films = written(tmp_path, film("Heat", 1995, cast=["Al Pacino"], genres=["Crime", "Drama"]))
    found = enrich(titles(("Heat", 1995), ("Speed", 1994)), films)
    assert column(found, "cast") == [["Al Pacino"], []]
    assert column(found, "genres") == [["Drama", "Crime"], ["Drama"]]
    assert column(found, "title_id") == ["0", "1"]


@pytest.mark.parametrize(
    ("name", "year", "listed"),
    [
        ("Léon", 1994, "Leon"),
        ("Star Wars: A New Hope", 1977, "Star Wars - A New Hope"),
        ("Romeo & Juliet", 1996, "Romeo and Juliet"),
        ("Léon: The Professional (a.k.a. The Professional)", 1994, "The Professional"),
        ("Heat", 1996, "Heat"),
    ],
)
def test_finds_a_film_by_any_spelling_and_a_year_off(
    name: str, year: int, listed: str, tmp_path: Path
) -> None:
    films = written(tmp_path, film(listed, 1995 if name == "Heat" else year, cast=["Somebody"]))
    assert column(enrich(titles((name, year)), films), "cast") == [["Somebody"]]


def test_remakes_are_told_apart_by_year(tmp_path: Path) -> None:
    films = written(tmp_path, film("Psycho", 1960, cast=["Perkins"]), film("Psycho", 1998, cast=["Vaughn"]))
    found = enrich(titles(("Psycho", 1998), ("Psycho", 1960), ("Psycho", 1970), ("Psycho", None)), films)
    assert column(found, "cast") == [["Vaughn"], ["Perkins"], [], []]


def test_keywords_are_terms_that_some_films_share_and_who_directed(tmp_path: Path) -> None:
    said = "is a film directed by Ann Lee and Bo Kim about a submarine"
    plain = [film(f"Other {i}", 2000, "is a film about something else") for i in range(40)]
    deep = [film(f"Deep {i}", 2000, said) for i in range(3)]
    names = [(each["title"], 2000) for each in [*deep, *plain]]
    found = column(enrich(titles(*names), written(tmp_path, *deep, *plain)), "keywords")
    assert {"directed by Ann Lee", "directed by Bo Kim", "submarine"} <= set(found[0])
    assert "film" not in found[0]
    assert found[-1] == []


def test_a_long_extract_gives_no_more_than_the_most_keywords(tmp_path: Path) -> None:
    words = " ".join(f"word{chr(97 + i // 26)}{chr(97 + i % 26)}" for i in range(100))
    films = [film(f"A {i}", 2000, words) for i in range(3)] + [film(f"B {i}", 2000, "x") for i in range(60)]
    found = column(
        enrich(titles(*((f["title"], 2000) for f in films)), written(tmp_path, *films)), "keywords"
    )
    assert len(found[0]) == KEYWORDS


def test_a_file_that_is_no_json_lines_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "films.jsonl"
    path.write_text("title,year\nHeat,1995\n")
    with pytest.raises(InvalidInput, match=r"films\.jsonl is not readable as JSON lines of films"):
        enrich(titles(("Heat", 1995)), path)
