"""Titles like one title."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from matinee.models.base import Scores
from matinee.serving import rank
from matinee.serving.availability import Mask
from matinee.serving.rank import Filters
from matinee.serving.versions import Live


@dataclass(frozen=True, kw_only=True)
class SimilarRequest:
    """Titles like one title. The surface's split deals titles here, not members.

    Args:
        k: most titles, from 1 to `settings.serving.max_k`.
    """

    title_id: str
    k: int = 20
    surface: str = "similar"
    filters: Filters = field(default_factory=Filters)


@dataclass(frozen=True, kw_only=True)
class Similar:
    """Titles like one title, the most alike first.

    Args:
        by: what likeness is: "embeddings", "watches" or "content"; "popularity" where none was to be had.
        titles: (title id, name, score).
        time: microseconds.
        fallback: "popular" where titles alike were not to be had; else None.
    """

    title_id: str
    model_version: str
    cell: str
    by: str
    titles: Sequence[tuple[str, str, float]]
    time: int
    fallback: str | None


def titles_like(
    request: SimilarRequest,
    cell: str,
    version: Live,
    allowed: Mask,
    scores: Scores,
    by: str,
    *,
    fallback: str | None = None,
) -> Similar:
    """The best of the titles that may be shown.

    Args:
        scores: how alike each title is, float32 [titles].
        by, fallback: as in `Similar`.
    """
    order = rank.top_k(scores, allowed, request.k)
    ids, names = version.titles.ids, version.titles.names
    return Similar(
        title_id=request.title_id,
        model_version=version.name,
        cell=cell,
        by=by,
        titles=[(ids[at], names[at], score) for at, score in zip(order, scores[order].tolist(), strict=True)],
        time=time.time_ns() // 1000,
        fallback=fallback,
    )
