"""Exact rankings from score matrices: unseen titles only, equal scores by position, on every core. Pure."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from matinee.models.base import Query, Scores
from matinee.training.evaluate.protocols import Cases, Positions, Rows, subset

LIST_LENGTH = 20
"""Titles in the list that metrics of whole lists look at, and the longest cut-off."""

BLOCK = 16
"""Members a thread takes at a time: a block of 40,000 titles stays in its cache."""

CROWD = 64
"""Candidates per listed title above which a member's ties are cut by an exact selection first."""


def top(scores: Scores, seen: Sequence[Positions], k: int = LIST_LENGTH) -> Positions:
    """The best `k` unseen titles of each member.

    Args:
        scores: float32 [m, titles].
        seen: per member, positions left out.

    Returns:
        int32 [m, k], best first, equal scores by position; -1 after the last where fewer are unseen.

    Raises:
        ValueError: a score is NaN or infinite.
    """
    lists = np.full((len(scores), k), -1, np.int32)

    def fill(start: int) -> None:
        part = slice(start, start + BLOCK)
        _fill(lists[part], scores[part].astype(np.float32), seen[part])

    starts = range(0, len(scores), BLOCK)
    if len(starts) < 2:
        for start in starts:
            fill(start)
    else:
        with ThreadPoolExecutor(os.cpu_count()) as threads:
            list(threads.map(fill, starts))
    return lists


def _fill(lists: Positions, scores: Scores, seen: Sequence[Positions]) -> None:
    """`top` of a few members; overwrites `scores`.

    Titles are dealt into groups; at least k titles score no less than the k-th best of the groups' maxima,
    so only those can stand in the list.
    """
    if not np.isfinite(scores).all():
        raise ValueError("scores hold NaN or infinite values: a model's scores must be finite")
    (members, k), titles = lists.shape, scores.shape[1]
    for row, positions in enumerate(seen):
        scores[row, positions] = -np.inf
    least = np.full((members, 1), np.finfo(np.float32).min)
    if k < titles:
        deep = max(1, min(64, titles // (4 * k)))
        groups = titles // deep
        best = scores[:, : groups * deep].reshape(members, deep, groups).max(1)
        np.maximum(least, np.partition(best, groups - k, axis=1)[:, groups - k, None], out=least)
    candidates = scores >= least
    rows, columns = np.divmod(np.flatnonzero(candidates), titles)
    crowded = np.flatnonzero(np.bincount(rows, minlength=members) > CROWD * k)
    if len(crowded):
        for row in crowded.tolist():
            exact = max(np.sort(scores[row])[titles - k], least[row, 0])
            candidates[row] = scores[row] > exact
            equal = np.flatnonzero(scores[row] == exact)
            candidates[row, equal[: k - np.count_nonzero(candidates[row])]] = True
        rows, columns = np.divmod(np.flatnonzero(candidates), titles)
    order = np.lexsort((-scores[rows, columns], rows))
    place = np.arange(len(rows)) - np.searchsorted(rows, rows)
    listed = place < k
    lists[rows[listed], place[listed]] = columns[order[listed]]


def rank(
    score: Callable[[Query], Scores],
    query: Query,
    *,
    k: int = LIST_LENGTH,
    batch: int = 512,
    among: Positions | None = None,
) -> Positions:
    """The list of each member of a query, scored `batch` members at a time: int32 [m, k] as from `top`.

    Args:
        among: int32 [m, c], ascending unseen positions: only these are ranked, -1 stands for none. Without
            it every unseen title is.
    """
    lists = np.full((len(query), k), -1, np.int32)
    for start in range(0, len(query), batch):
        rows = np.arange(start, min(start + batch, len(query)))
        part = subset(query, rows)
        scores = score(part)
        if among is None:
            lists[rows] = top(scores, part.histories, k)
        else:
            offered = among[rows]
            missing = [np.flatnonzero(row < 0).astype(np.int32) for row in offered]
            found = top(np.take_along_axis(scores, np.maximum(offered, 0), 1), missing, k)
            chosen = np.take_along_axis(offered, np.maximum(found, 0), 1)
            lists[rows] = np.where(found < 0, -1, chosen)
    return lists


def sampled_titles(cases: Cases, *, negatives: int = 100, seed: int = 0) -> Positions:
    """What the sampled variant of leave-one-out ranks: a case's relevant titles and `negatives` others.

    The others are drawn uniformly, without replacement, from the titles neither known nor relevant, as in
    Kang and McAuley, "Self-attentive sequential recommendation", 2018 (who draw with replacement). Sampled
    figures order models differently from full rankings (Krichene and Rendle 2020): never compare the two.

    Returns:
        int32 [m, c] for `rank(among=)`: ascending, -1 before the first where fewer are to be had.
    """
    generator = np.random.default_rng(seed)
    rows = [_sample(cases, row, negatives, generator) for row in range(len(cases))]
    width = max((len(row) for row in rows), default=0)
    found = np.full((len(rows), width), -1, np.int32)
    for row, positions in enumerate(rows):
        found[row, width - len(positions) :] = positions
    return found


def _sample(cases: Cases, row: int, negatives: int, generator: np.random.Generator) -> Rows:
    relevant = cases.relevant[row]
    taken = np.union1d(cases.query.histories[row], relevant)
    drawn = generator.choice(cases.titles - len(taken), min(negatives, cases.titles - len(taken)), False)
    # The i-th untaken title lies i places on plus the taken ones up to it.
    drawn += np.searchsorted(taken - np.arange(len(taken)), drawn, side="right")
    found: npt.NDArray[np.intp] = np.sort(np.concatenate([drawn, relevant]))
    return found
