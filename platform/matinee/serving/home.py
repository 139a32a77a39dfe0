"""A member's home page: which rows, which titles in each, and why. Pure.

A page is composed from scores that are there already: one pass of the model serves all of its rows.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from matinee.serving.availability import Mask
from matinee.serving.columns import Columns
from matinee.serving.rank import top_k
from matinee.serving.scores import TitleScores

Positions = npt.NDArray[np.intp]

BEST = 2_000
"""Titles, by score, that rows draw from: beyond them a title is on no genre row."""
POOL = 4
"""A row is chosen from so many times its titles."""
ALIKE = 2
"""A row because of a title is chosen from so many times its titles: those most like that one."""
LEAST = 3
"""A row with fewer titles is left out, but for titles to continue."""
LATEST = 10
"""Latest watches that a row may be because of."""
NEWEST = 0.05
"""Share of the catalogue, by release date, that counts as new."""
UNLIKED = 0.05
"""What a genre without any affinity counts for, beside 1 for the one that is watched most."""

CONTINUE, TOP, BECAUSE, GENRE, NEW, TRENDING = (
    "continue_watching",
    "top_picks",
    "because_you_watched",
    "genre",
    "new",
    "trending",
)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The shape of a page.

    Args:
        rows: most rows.
        per_row: most titles of a row.
        because: most rows because of a watched title.
        diversity: in [0, 1]: how much a row prefers titles of other genres to titles of higher scores.
    """

    rows: int = 10
    per_row: int = 20
    because: int = 3
    diversity: float = 0.2


@dataclass(frozen=True, kw_only=True)
class Member:
    """What a page depends on beside scores.

    Args:
        watched: int32 positions, oldest first.
        begun: positions of titles to continue, latest first.
        affinity: by genre, how much of it was watched lately; not negative.
    """

    watched: npt.NDArray[np.int32]
    begun: Sequence[int] = ()
    affinity: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of a page.

    Args:
        kind: CONTINUE, TOP, BECAUSE, GENRE, NEW or TRENDING.
        because: position of the watched title, of BECAUSE.
        genre: of GENRE.
        titles: positions, by score; of CONTINUE the latest first.
        diversity: mean over pairs of titles of one minus the cosine of their genres; 0 below two titles.
    """

    kind: str
    because: int | None = None
    genre: str | None = None
    titles: Positions
    diversity: float


def compose(
    scores: TitleScores,
    allowed: Mask,
    member: Member,
    columns: Columns,
    layout: Layout,
    *,
    today: int,
    trend: npt.NDArray[np.float32] | None = None,
) -> list[Row]:
    """The rows of a page, top first. No title stands twice, and none that is not allowed stands at all.

    The order is: titles to continue, top picks, rows because of watched titles, genres, new, trending, and
    more genres where there is room. A row takes from what the rows above left.

    Args:
        scores: of the t titles.
        allowed: bool [t]: what rules let this profile see. A row is because of such a title only.
        columns: of the same titles.
        today: days since the epoch; later releases are not new yet.
        trend: float32 [t], how much each title is watched lately; None where unknown.
    """
    page = _Page(scores, allowed, columns, layout)
    begun = [position for position in member.begun if allowed[position]][: layout.per_row]
    if begun:
        page.add(CONTINUE, np.array(begun, dtype=np.intp))
    page.free[member.watched] = False
    page.free[begun] = False
    best = scores.best(page.free, BEST)
    page.fill(TOP, best)
    for position in _recent(member.watched, allowed, layout.because):
        near = columns.neighbours(position)
        near = near[page.free[near]][: ALIKE * layout.per_row]
        page.fill(BECAUSE, near, because=position, ranked=False)
    last = [(NEW, _newest(columns, page.free, today))]
    if trend is not None:
        last.append((TRENDING, top_k(trend, page.free & (trend > 0), POOL * layout.per_row)))
    genres = _genres(scores.at(best), best, member.affinity, columns, layout)
    page.fill_genres(genres, layout.rows - len(last))
    for kind, pool in last:
        page.fill(kind, pool, ranked=False)
    page.fill_genres(genres, layout.rows)
    return page.rows[: layout.rows]


class _Page:
    """Rows so far, and the titles left for others."""

    def __init__(self, scores: TitleScores, allowed: Mask, columns: Columns, layout: Layout) -> None:
        self.rows: list[Row] = []
        self.free = allowed.copy()
        self._scores = scores
        self._genres = columns.genres
        self._layout = layout

    def fill(
        self,
        kind: str,
        pool: Positions,
        *,
        because: int | None = None,
        genre: str | None = None,
        ranked: bool = True,
    ) -> None:
        """Add a row from titles, where enough of them are free.

        Args:
            ranked: they come by their scores already.
        """
        size = self._layout.per_row
        pool = pool[self.free[pool]]
        pool = pool[: POOL * size] if ranked else self._scores.ranked(pool, POOL * size)
        if len(pool) < min(LEAST, size):
            return
        chosen = diversified(self._scores.at(pool), self._genres[pool], size, self._layout.diversity)
        self.add(kind, pool[chosen], because=because, genre=genre)

    def fill_genres(self, genres: Iterator[tuple[str, Positions]], most: int) -> None:
        """Add genre rows until the page has `most` rows."""
        while len(self.rows) < most and (found := next(genres, None)):
            self.fill(GENRE, found[1], genre=found[0])

    def add(
        self, kind: str, titles: Positions, *, because: int | None = None, genre: str | None = None
    ) -> None:
        """Add a row as it is."""
        self.free[titles] = False
        diversity = intra_list_diversity(self._genres[titles])
        self.rows.append(Row(kind=kind, because=because, genre=genre, titles=titles, diversity=diversity))


def diversified(
    scores: npt.NDArray[np.float32], genres: npt.NDArray[np.float32], k: int, weight: float
) -> Positions:
    """Which k of n ranked titles a row takes, ascending, so in the order of their scores.

    Greedy, as maximal marginal relevance (Carbonell and Goldstein 1998) with the mean similarity to those
    taken in place of the highest: the mean is what intra-list diversity measures.

    Args:
        scores: float32 [n], descending.
        genres: float32 [n, g], rows of length 1 or 0.
        weight: 0: the k best; 1: the scores count for the first alone.
    """
    if weight == 0 or len(scores) <= k:
        return np.arange(min(k, len(scores)))
    spread = float(scores[0] - scores[-1])
    relevance = (1 - weight) * ((scores - scores[-1]) / spread if spread else np.ones_like(scores))
    similar = genres @ genres.T
    taken = [0]
    total = similar[0].copy()
    relevance[0] = -np.inf
    worth = np.empty_like(total)
    for count in range(1, k):
        np.multiply(total, -weight / count, out=worth)
        worth += relevance
        pick = int(worth.argmax())
        taken.append(pick)
        total += similar[pick]
        relevance[pick] = -np.inf
    return np.sort(np.array(taken, dtype=np.intp))


def intra_list_diversity(genres: npt.NDArray[np.float32]) -> float:
    """Mean over pairs of one minus the cosine (Ziegler et al. 2005); 0 where there is no pair.

    Args:
        genres: float32 [n, g], rows of length 1; a row of zeros is like no other.
    """
    count = len(genres)
    if count < 2:
        return 0.0
    total = genres.sum(axis=0)
    same = float(total @ total) - float(np.einsum("ij,ij->", genres, genres))
    return 1.0 - same / (count * (count - 1))


def _recent(watched: npt.NDArray[np.int32], allowed: Mask, most: int) -> list[int]:
    latest = watched[-LATEST:][::-1]
    return [int(position) for position in latest if allowed[position]][:most]


def _newest(columns: Columns, free: Mask, today: int) -> Positions:
    """The titles released last, of those that are free: `NEWEST` of the catalogue, or a row's least."""
    count = max(LEAST, int(NEWEST * len(free)))
    latest, released = columns.latest, columns.released
    out = latest[bisect_left(latest, -today, key=lambda position: -int(released[position])) :]
    first = out[: 2 * count]
    found = first[free[first]][:count]
    return found if len(found) == count else out[free[out]][:count]


def _genres(
    held: npt.NDArray[np.float32],
    best: Positions,
    affinity: Mapping[str, float],
    columns: Columns,
    layout: Layout,
) -> Iterator[tuple[str, Positions]]:
    """Genres with the best titles of each, the most promising first.

    A genre promises its share of the member's affinity times the quality of its row: the mean of its best
    titles' scores, from 0 for the last of `best` to 1 for the first.

    Args:
        held: scores of `best`, falling.
    """
    if not len(best):
        return
    quality = (held - held[-1]) / max(float(held[0] - held[-1]), 1e-9)
    has = columns.has_genre[best]
    first = has & (has.cumsum(axis=0, dtype=np.int32) <= layout.per_row)
    counts = first.sum(axis=0)
    most = max(affinity.values(), default=0.0)
    liked = np.array([affinity.get(name, 0.0) / most if most else 1.0 for name in columns.genre_names])
    promise = (UNLIKED + liked) * (quality @ first) / np.maximum(counts, 1)
    order = sorted(np.flatnonzero(counts), key=lambda column: (-promise[column], columns.genre_names[column]))
    for column in order:
        yield columns.genre_names[column], best[has[:, column]]
