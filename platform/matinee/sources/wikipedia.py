"""Adds what Wikipedia says of films to a catalogue: cast, genres, and keywords out of the extracts."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from matinee.errors import InvalidInput
from matinee.schema import CATALOGUE_SCHEMA, Catalogue

KEYWORDS = 24
"""Most terms that a film's keywords hold, beside who directed it."""
LEAST_FILMS = 3
"""A term of fewer films of the catalogue says nothing about another one."""
MOST_FILMS = 0.1
"""A term of a greater share of the films tells none apart."""
YEARS_OFF = (0, 1, -1)
"""Differences of the year at which a film of the same name is still the same, best first."""

_FIELDS = {
    "title": pl.String(),
    "year": pl.Int64(),
    "cast": pl.List(pl.String()),
    "genres": pl.List(pl.String()),
    "extract": pl.String(),
}
_WORD = re.compile(r"[a-z][a-z'-]{2,}")
_NAME = r"[A-Z][\w.'-]*(?: (?:de |von |van |del |la )?[A-Z][\w.'-]*){1,3}"
_DIRECTED = re.compile(rf"directed by ({_NAME})(?:(?:, | and )({_NAME}))?")


def enrich(catalogue: Catalogue, films: Path) -> Catalogue:
    """The catalogue with the films' cast, genres (beside its own) and keywords.

    A film is found by name and year of release; titles that are not found stay as they are. Keywords are
    the words of a film's extract with the highest TF-IDF among the films found, and "directed by NAME".

    Args:
        films: JSON lines, gzipped or not: title, year, cast, genres and, where known, extract.

    Raises:
        InvalidInput: the file cannot be read as such lines.
    """
    rows = catalogue.table.to_pylist()
    found = _match(rows, _read(films))
    terms = _keywords([film["extract"] or "" if film else "" for film in found])
    enriched = [
        row
        if film is None
        else {
            **row,
            "genres": _union(row["genres"], film["genres"]),
            "cast": _union(row["cast"], film["cast"]),
            "keywords": _union(row["keywords"], words),
        }
        for row, film, words in zip(rows, found, terms, strict=True)
    ]
    return Catalogue(table=pa.Table.from_pylist(enriched, schema=CATALOGUE_SCHEMA))


def _read(films: Path) -> list[dict[str, Any]]:
    try:
        return pl.read_ndjson(films, schema=_FIELDS).to_dicts()
    except (pl.exceptions.PolarsError, OSError) as failure:
        first = str(failure).strip().splitlines()[0]
        raise InvalidInput(f"{films} is not readable as JSON lines of films: {first}") from None


def _match(rows: Sequence[dict[str, Any]], films: Iterable[dict[str, Any]]) -> list[dict[str, Any] | None]:
    """The film of each row, by any of its names, in the year or a year off; None where there is none."""
    known: dict[tuple[str, int], dict[str, Any]] = {}
    for film in films:
        key = _plain(film["title"]), film["year"]
        # Of two films of one name and year the one with more to say is meant more often.
        if key not in known or len(film["extract"] or "") > len(known[key]["extract"] or ""):
            known[key] = film
    found = []
    for row in rows:
        day = row["release_date"]
        keys = [
            (name, day.year + off) for off in YEARS_OFF for name in _names(row["name"]) if day is not None
        ]
        found.append(next((known[key] for key in keys if key in known), None))
    return found


def _names(text: str) -> list[str]:
    """The name, and those in brackets behind it."""
    head, *others = text.split(" (")
    return [_plain(name.removesuffix(")").removeprefix("a.k.a. ")) for name in (head, *others)]


def _plain(name: str) -> str:
    """Letters and digits alone, without accents and case."""
    letters = unicodedata.normalize("NFKD", name.lower().replace("&", "and"))
    return "".join(letter for letter in letters if letter.isalnum())


def _keywords(extracts: Sequence[str]) -> list[list[str]]:
    counts = [Counter(_WORD.findall(text.lower())) for text in extracts]
    films = Counter(word for row in counts for word in row)
    known = sum(bool(row) for row in counts)
    most = max(known * MOST_FILMS, LEAST_FILMS)
    weight = {
        word: float(np.log(known / count)) for word, count in films.items() if LEAST_FILMS <= count <= most
    }
    keywords = []
    for text, row in zip(extracts, counts, strict=True):
        ranked = sorted((word for word in row if word in weight), key=lambda w: (-row[w] * weight[w], w))
        directors = [f"directed by {name}" for pair in _DIRECTED.findall(text) for name in pair if name]
        keywords.append([*directors, *ranked[:KEYWORDS]])
    return keywords


def _union(own: Sequence[str], more: Sequence[str] | None) -> list[str]:
    return list(dict.fromkeys([*own, *(more or ())]))
