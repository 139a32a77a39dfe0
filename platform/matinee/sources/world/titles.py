"""The simulated catalogue: what members can read of a title, and what is true of it."""

from __future__ import annotations

import datetime
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from matinee.schema import Catalogue
from matinee.sources.ratings import catalogue
from matinee.sources.world.config import WorldConfig

DAY = 86_400_000_000
"""Microseconds of a day."""

GENRES = (
    *("Action", "Adventure", "Animation", "Comedy", "Crime", "Documentary", "Drama", "Family"),
    *("Fantasy", "Horror", "Mystery", "Romance", "Science Fiction", "Thriller"),
)
CHILD_GENRES = ("Adventure", "Animation", "Comedy", "Family", "Fantasy")
_WEIGHTS = (1.2, 0.9, 0.8, 1.6, 0.9, 0.7, 2.0, 0.9, 0.7, 0.7, 0.6, 1.0, 0.8, 1.1)
_ADULT = frozenset({"Crime", "Horror", "Thriller"})
MATURITY_STEPS = (0, 7, 13, 16, 18)

LANGUAGES = ("en", "es", "hi", "ko", "fr")
LANGUAGE_WEIGHTS = (0.6, 0.15, 0.1, 0.1, 0.05)

_FIRST = (
    *("Amber", "Broken", "Crimson", "Distant", "Electric", "Fallen", "Golden", "Hidden", "Iron", "Jade"),
    *("Last", "Midnight", "Northern", "Open", "Paper", "Quiet", "Restless", "Silver", "Tender", "Winter"),
)
_SECOND = (
    *("Anthem", "Bridge", "City", "Door", "Empire", "Forest", "Garden", "Harbour", "Island", "Journey"),
    *("Kingdom", "Letter", "Mirror", "Night", "Orchard", "Passage", "River", "Secret", "Tide", "Voyage"),
)
_SURNAMES = (
    *("Abara", "Bellini", "Castro", "Dahl", "Eriksen", "Fujita", "Garrido", "Haddad", "Ivanov", "Jensen"),
    *("Kapoor", "Laurent", "Moreau", "Novak", "Okafor", "Park", "Quintero", "Rossi", "Sato", "Tanaka"),
)
_SYLLABLES = (
    "ba",
    "cor",
    "del",
    "fen",
    "gal",
    "hir",
    "jun",
    "kel",
    "lom",
    "mar",
    "nev",
    "ost",
    "pel",
    "quin",
)


@dataclass(frozen=True, kw_only=True)
class Titles:
    """The catalogue and its truth. T titles, G genres, A style axes.

    Args:
        catalogue: what anyone can read; position i is title i in every array.
        genres: float32 [T, G], each row sums to one.
        styles: float32 [T, A], about standard normal.
        quality: float32 [T], standard normal: what all members see alike.
        runtime: float32 [T], seconds.
        maturity: int16 [T], least age in years.
        language: int8 [T], positions in `LANGUAGES`.
        released: int64 [T], microseconds since the epoch.
    """

    catalogue: Catalogue
    genres: npt.NDArray[np.float32]
    styles: npt.NDArray[np.float32]
    quality: npt.NDArray[np.float32]
    runtime: npt.NDArray[np.float32]
    maturity: npt.NDArray[np.int16]
    language: npt.NDArray[np.int8]
    released: npt.NDArray[np.int64]


def make_titles(config: WorldConfig, seed: int) -> Titles:
    """Draw a catalogue; the same arguments give the same one."""
    rng = np.random.default_rng([seed, 1])
    count = config.titles
    genres = _draw_genres(rng, count)
    people = rng.standard_normal((max(20, count // 4), config.style_axes)).astype(np.float32)
    cast = rng.integers(0, len(people), (count, 3))
    own = rng.standard_normal((count, config.style_axes))
    styles = (0.85 * people[cast].mean(axis=1) * np.sqrt(3) + 0.53 * own).astype(np.float32)
    maturity = _draw_maturity(rng, genres)
    released = _draw_releases(rng, config)
    language = rng.choice(len(LANGUAGES), count, p=LANGUAGE_WEIGHTS).astype(np.int8)
    family = genres[:, GENRES.index("Family")] > 0
    runtime = np.where(family, rng.normal(85, 10, count), rng.normal(105, 25, count)).clip(22, 190) * 60
    table = catalogue(
        title_ids=[f"t{number:05d}" for number in range(count)],
        names=_names(rng, count),
        genres=[
            [GENRES[g] for g in np.argsort(-row, kind="stable")[: int((row > 0).sum())]] for row in genres
        ],
        release_dates=[_date(time) for time in released],
        languages=[LANGUAGES[code] for code in language],
        maturity=maturity,
        cast=[sorted({_person(number) for number in row}) for row in cast],
        keywords=_keywords(rng, genres, styles),
    )
    return Titles(
        catalogue=table,
        genres=genres,
        styles=styles,
        quality=rng.standard_normal(count).astype(np.float32),
        runtime=runtime.astype(np.float32),
        maturity=maturity,
        language=language,
        released=released,
    )


def _draw_genres(rng: np.random.Generator, count: int) -> npt.NDArray[np.float32]:
    weights = np.array(_WEIGHTS)
    order = np.argsort(-(np.log(weights) + rng.gumbel(size=(count, len(GENRES)))), axis=1)
    number = rng.choice([1, 2, 3], count, p=[0.3, 0.45, 0.25])
    genres = np.zeros((count, len(GENRES)), np.float32)
    rows = np.arange(count)
    for place, weight in enumerate((0.6, 0.3, 0.15)):
        genres[rows, order[:, place]] = np.where(place < number, weight, 0.0)
    genres /= genres.sum(axis=1, keepdims=True)
    return genres


def _draw_maturity(rng: np.random.Generator, genres: npt.NDArray[np.float32]) -> npt.NDArray[np.int16]:
    child = genres[:, [GENRES.index(name) for name in ("Animation", "Family")]].sum(axis=1) > 0
    adult = genres[:, [GENRES.index(name) for name in _ADULT]].sum(axis=1) > 0
    steps = np.array(MATURITY_STEPS, np.int16)
    count = len(genres)
    mild = rng.choice(steps, count, p=[0.6, 0.35, 0.05, 0.0, 0.0])
    middling = rng.choice(steps, count, p=[0.15, 0.25, 0.4, 0.15, 0.05])
    strong = rng.choice(steps, count, p=[0.0, 0.0, 0.2, 0.5, 0.3])
    return np.where(adult, strong, np.where(child, mild, middling)).astype(np.int16)


def _draw_releases(rng: np.random.Generator, config: WorldConfig) -> npt.NDArray[np.int64]:
    days_ago = rng.exponential(5 * 365, config.titles).clip(1, 60 * 365)
    later = rng.permutation(config.titles) < round(config.cold_share * config.titles)
    ahead = rng.uniform(0, config.cold_days, config.titles)
    times = config.start + (np.where(later, ahead + 1, -days_ago) * DAY).astype(np.int64)
    return times // DAY * DAY


def _keywords(
    rng: np.random.Generator, genres: npt.NDArray[np.float32], styles: npt.NDArray[np.float32]
) -> list[list[str]]:
    """Four words of the title's genres and two of its strongest style axes, from vocabularies of twelve."""
    rows = []
    genre_words = rng.integers(0, 12, (len(genres), 4))
    style_words = rng.integers(0, 12, (len(genres), 2))
    strongest = np.argsort(-np.abs(styles), axis=1)[:, :2]
    for title in range(len(genres)):
        own = rng.choice(
            len(GENRES), 4, p=genres[title].astype(np.float64) / genres[title].sum(dtype=np.float64)
        )
        words = [_word(int(g) * 12 + int(w)) for g, w in zip(own, genre_words[title], strict=True)]
        for axis, word in zip(strongest[title], style_words[title], strict=True):
            side = int(styles[title, axis] > 0)
            words.append(_word(len(GENRES) * 12 + (int(axis) * 2 + side) * 12 + int(word)))
        rows.append(sorted(set(words)))
    return rows


def _word(number: int) -> str:
    base = len(_SYLLABLES)
    return (
        _SYLLABLES[number % base] + _SYLLABLES[number // base % base] + _SYLLABLES[number // base**2 % base]
    )


def _person(number: int) -> str:
    base = len(_SURNAMES)
    first = (_SYLLABLES[number // base % len(_SYLLABLES)] + "a").capitalize()
    again = number // (base * len(_SYLLABLES))
    return f"{first} {_SURNAMES[number % base]}" + (f" {again + 1}" if again else "")


def _names(rng: np.random.Generator, count: int) -> list[str]:
    pairs = [f"{first} {second}" for first in _FIRST for second in _SECOND]
    rounds = [rng.permutation(len(pairs)) for _ in range(-(-count // len(pairs)))]
    names = []
    for turn, order in enumerate(rounds, start=1):
        names += [pairs[i] + (f" {turn}" if turn > 1 else "") for i in order]
    return names[:count]


def _date(time: np.int64) -> datetime.date:
    return datetime.date(1970, 1, 1) + datetime.timedelta(days=int(time // DAY))
