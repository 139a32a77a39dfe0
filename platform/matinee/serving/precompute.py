"""Home pages of many members, made ahead of being asked for.

The splits decide each member's version, and what is kept lies where a request of the same profile looks.
Members are scored by the batch; the feature store and the page store are the same as a replica's.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import pyarrow as pa

from matinee.config import Settings
from matinee.errors import ConfigError
from matinee.features.tasks import quiet
from matinee.serving.page_cache import keep_all, slot_of
from matinee.serving.page_stores import page_store
from matinee.serving.pages import HomePage, HomeRequest, page_of
from matinee.serving.recommender import Recommender, scored_all

BATCH = 64
"""Members scored together: so many that they share what a call costs, so few that their scores are small."""


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What a run did.

    Args:
        members: whose pages were asked for.
        kept: pages kept.
        seconds: from the first batch handed out to the last page kept, with what workers load.
        busy_s: seconds that workers spent on members, over all workers.
    """

    members: int
    kept: int
    seconds: float
    busy_s: float


class Pages:
    """Makes and keeps the pages of batches of members; one serves a process.

    Args:
        settings: the home.
        request: what every page is like; its member is replaced.

    Raises:
        ConfigError: `serving.page_cache` is "none".
    """

    def __init__(self, settings: Settings, request: HomeRequest) -> None:
        store = page_store(settings)
        if store is None:
            raise ConfigError("serving.page_cache is none; precomputed pages need sqlite, redis or cassandra")
        self._store = store
        self._request = request
        self._recommender = Recommender(settings)
        self._recommender.start()

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Keep the pages of the members in column `member_id`; gives `kept` and `busy_s`, one row."""
        start = time.perf_counter()
        kept = keep_all(self._store, self._made(batch["member_id"].to_pylist()))
        return pa.table({"kept": [kept], "busy_s": [time.perf_counter() - start]})

    def close(self) -> None:
        """Release what is held."""
        self._recommender.close()
        self._store.close()

    def _made(self, member_ids: Sequence[str]) -> Iterator[tuple[str, HomePage]]:
        surface, recommender, context = self._request.surface, self._recommender, self._request.context
        known = [
            recommender.known(member_id, surface, *recommender.assigned(member_id, surface, context))
            for member_id in member_ids
        ]
        known.sort(key=lambda each: each.cell)
        for _, group in groupby(known, key=lambda each: each.cell):
            for found in scored_all(list(group)):
                version = found.known.version
                request = replace(self._request, member_id=found.known.member_id)
                page = page_of(request, found, recommender.trends)
                yield slot_of(request, version, page.cell, now=found.known.time), page


def precompute(
    settings: Settings, member_ids: Sequence[str], request: HomeRequest, *, workers: int = 1
) -> Figures:
    """Make and keep a page for each member, on the connected Ray cluster.

    Args:
        request: what every page is like; its member is replaced.
        workers: processes, each with one CPU and its own copy of the live versions.

    Raises:
        ConfigError: `serving.page_cache` is "none".
    """
    import ray.data

    if settings.serving.page_cache == "none":
        raise ConfigError("serving.page_cache is none; precomputed pages need sqlite, redis or cassandra")
    start = time.perf_counter()
    with quiet():
        data = ray.data.from_arrow(pa.table({"member_id": pa.array(member_ids, pa.string())}))
        made = data.repartition(max(1, min(4 * workers, len(member_ids) // BATCH))).map_batches(
            Pages,
            fn_constructor_args=(settings, request),
            batch_size=BATCH,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=workers),
            num_cpus=1,
        )
        done: list[dict[str, Any]] = made.take_all()
    return Figures(
        members=len(member_ids),
        kept=sum(each["kept"] for each in done),
        seconds=time.perf_counter() - start,
        busy_s=sum(each["busy_s"] for each in done),
    )
