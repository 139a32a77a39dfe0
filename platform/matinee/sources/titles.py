"""Reads MovieLens title texts ("Usual Suspects, The (1995)") and genre texts ("Crime|Thriller")."""

from __future__ import annotations

import datetime
import re

_YEAR = re.compile(r"^(?P<name>.*?)\s*\((?P<year>\d{4})(?:[-\u2013]\s*(?:\d{4})?)?\)\s*(?:\([A-Z]+\))?$")
_ARTICLE = re.compile(
    r"^(?P<rest>.+), "
    r"(?P<article>The|A|An|L[aeo]s?|L'|Un|Une|Il|I|Gli|El|Der|Die|Das|Ein|Eine|Det|Den|En|Os?)$"
)


def parse_title(text: str) -> tuple[str, int | None]:
    """The name without its year, articles first, and the year of release (None where not stated).

    The year of a series is its first; a trailing mark such as "(V)" (made for video) is dropped.
    """
    text = text.strip()
    found = _YEAR.match(text)
    name, year = (found["name"], int(found["year"])) if found else (text, None)
    head, *others = name.split(" (")
    parts = [_article_first(head), *(_article_first(part.removesuffix(")")) + ")" for part in others)]
    return " (".join(parts) or text, year


def parse_genres(text: str | None) -> list[str]:
    """Genres of a `|`-separated text; none for "(no genres listed)"."""
    if not text or text == "(no genres listed)":
        return []
    return [genre.strip() for genre in text.split("|") if genre.strip()]


def first_day(year: int | None) -> datetime.date | None:
    """1 January of a year: how a release date is stated where only the year is known."""
    return datetime.date(year, 1, 1) if year and year >= 1 else None


def _article_first(name: str) -> str:
    found = _ARTICLE.match(name)
    if not found:
        return name
    glue = "" if found["article"].endswith("'") else " "
    return f"{found['article']}{glue}{found['rest']}"
