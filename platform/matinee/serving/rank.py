"""From scores to a page: which titles may be shown, and the best k of them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from matinee.schema import Candidate, Catalogue
from matinee.serving.availability import ANYTHING, Listed, Mask, Offer, Offers


@dataclass(frozen=True, kw_only=True)
class Filters:
    """What the titles of an answer must satisfy. A title whose value is unknown fails the filter on it.

    Args:
        max_maturity: the member's age in years: titles suitable from a higher age are left out.
        languages: accepted languages; empty: any.
        genres: a title needs one of these; empty: any.
        exclude_watched: leave out what the member watched.
        country: where the member is, as in `availability.WINDOW_SCHEMA`; None: not known.
    """

    max_maturity: int | None = None
    languages: Sequence[str] = ()
    genres: Sequence[str] = ()
    exclude_watched: bool = True
    country: str | None = None


class Titles:
    """A catalogue in columns, ready for masks.

    Args:
        catalogue: t titles; position i of every mask is its row i.
        listed: gives what is on offer, as decided by now; always the same object while nothing changes.
    """

    def __init__(self, catalogue: Catalogue, listed: Callable[[], Listed] = lambda: ANYTHING) -> None:
        table = catalogue.table
        self.ids: list[str] = catalogue.title_ids
        self.names: list[str] = table["name"].to_pylist()
        self._maturity = np.array(
            [np.nan if age is None else age for age in table["maturity"].to_pylist()], dtype=np.float64
        )
        self._languages = _masks([[language] for language in table["language"].to_pylist()])
        self.genres = _masks(table["genres"].to_pylist())
        """By genre, bool [t]."""
        self._listed = listed
        self._offers = Offers(listed(), self.ids)

    def __len__(self) -> int:
        return len(self.ids)

    def offer(self, filters: Filters, now: int) -> Offer:
        """What is on offer where the member is, at `now` (microseconds)."""
        offers, listed = self._offers, self._listed()
        if offers.listed is not listed:
            offers = self._offers = Offers(listed, self.ids)
        return offers.at(filters.country, now)

    def allowed(self, filters: Filters, now: int) -> Mask:
        """bool [t]: titles on offer at `now` (microseconds) that pass every filter but `exclude_watched`."""
        mask = self.offer(filters, now).mask.copy()
        if filters.max_maturity is not None:
            mask &= self._maturity <= filters.max_maturity
        if filters.languages:
            mask &= self._any(self._languages, filters.languages)
        if filters.genres:
            mask &= self._any(self.genres, filters.genres)
        return mask

    def _any(self, masks: Mapping[str, Mask], names: Sequence[str]) -> Mask:
        found = np.zeros(len(self), dtype=bool)
        for name in names:
            if name in masks:
                found |= masks[name]
        return found


def _masks(rows: Sequence[Sequence[str | None]]) -> dict[str, Mask]:
    masks: dict[str, Mask] = {}
    for position, values in enumerate(rows):
        for value in values:
            if value is not None:
                masks.setdefault(value, np.zeros(len(rows), dtype=bool))[position] = True
    return masks


def top_k(scores: npt.NDArray[np.float32 | np.int32], allowed: Mask, k: int) -> npt.NDArray[np.intp]:
    """Positions of the best k allowed titles, best first; ties go to the lower position.

    Args:
        scores: float32 [t], finite; or int32 above the least one.
        allowed: bool [t].
        k: at least 1; fewer come back where fewer are allowed.
    """
    open_ = np.flatnonzero(allowed)
    if k < len(open_):
        values = scores[open_]
        threshold = np.partition(values, len(values) - k)[len(values) - k]
        above = open_[values > threshold]
        level = open_[values == threshold][: k - len(above)]
        open_ = np.concatenate([above, level])
    return open_[np.lexsort((open_, -scores[open_]))]


def candidates(
    titles: Titles,
    order: npt.NDArray[np.intp],
    scores: npt.NDArray[np.float32],
    parts: Mapping[str, npt.NDArray[np.float32]],
) -> list[Candidate]:
    """The titles at `order`, n of them, with their score and what each part added to it, float32 [n]."""
    shares = {name: values.tolist() for name, values in parts.items()}
    return [
        Candidate(
            title_id=titles.ids[position],
            score=score,
            contributions={name: values[place] for name, values in shares.items()},
        )
        for place, (position, score) in enumerate(zip(order.tolist(), scores.tolist(), strict=True))
    ]
