"""Every surface's answers, each from the best rung of the ladder that answers in time."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Hashable
from dataclasses import replace
from functools import partial
from typing import TypeVar

from matinee.config import Settings
from matinee.errors import InvalidInput, NotFound
from matinee.serving.exposures import Again, ExposureLog
from matinee.serving.ladder import CACHED, LIVE, PART, POPULAR, Ladder, Rung
from matinee.serving.page_cache import PageCache, slot_of
from matinee.serving.page_memory import Held, PageMemory
from matinee.serving.pages import HomeAnswer, HomeRequest, again, page_of, ranking_of, stand_in, told
from matinee.serving.rank import Filters
from matinee.serving.recommender import (
    UNREAD,
    Answer,
    Known,
    Recommender,
    Request,
    Scored,
    finish,
    scored,
    scored_by,
)
from matinee.serving.request_ids import new_request_id
from matinee.serving.scores import EveryTitle
from matinee.serving.similar import Similar, SimilarRequest, titles_like
from matinee.serving.versions import Live

T = TypeVar("T")

FEATURES = "features"
"""The feature store, as the breaker knows it."""
MODEL_UNAVAILABLE = "model_unavailable"

PLACING_S = 0.25
"""How long the features of a member are waited for where segments of a split ask for them."""
PLACING_THREADS = 4


class Surfaces:
    """Answers requests within a deadline and logs what was shown.

    A model that hangs or raises costs an answer its quality, never its arrival.

    Args:
        settings: `serving.deadline_ms`, `serving.max_k`, `serving.page_ttl_s` and `serving.page_look_s`.
        recommender: started before the first request.
        threads: that ask models at a time.
        cache: of home pages; None: none is kept.
    """

    def __init__(
        self,
        settings: Settings,
        recommender: Recommender,
        exposures: ExposureLog,
        *,
        threads: int,
        cache: PageCache | None = None,
    ) -> None:
        self._max_k = settings.serving.max_k
        self._recommender = recommender
        self._exposures = exposures
        self._cache = cache
        self._pages = PageMemory(
            recommender.written, look_s=settings.serving.page_look_s, ttl_s=settings.serving.page_ttl_s
        )
        self.ladder = Ladder(deadline_s=settings.serving.deadline_ms / 1e3, threads=threads)
        self._placing = Ladder(deadline_s=PLACING_S, threads=PLACING_THREADS)

    def close(self) -> None:
        """Take no more requests."""
        self.ladder.close()
        self._placing.close()
        self._pages.close()
        if self._cache is not None:
            self._cache.close()

    def touch(self, member_ids: Collection[str]) -> None:
        """These members did something; what is kept of them is not shown as new."""
        self._pages.forget(member_ids)
        if self._cache is not None:
            self._cache.touch(member_ids)

    async def recommend(self, request: Request) -> Answer:
        """A ranking. Raises as `Recommender.recommend`."""
        start = time.perf_counter()
        self._check(request.k)
        cell, version = await self._assigned(request)
        rungs = self._rungs(
            request.member_id,
            request.surface,
            cell,
            version,
            lambda found: finish(request, found),
            kept=lambda: self._kept_ranking(request, cell, version),
        )
        answer = await self.ladder.climb(rungs)
        self._exposures.put(answer, latency_ms=(time.perf_counter() - start) * 1e3)
        self._recommender.shadow(request, answer.ranking.request_id)
        return answer

    def at_hand(self, asked: Hashable) -> Held | None:
        """The page that `home` gave for `asked`, where it may be given again without asking anything."""
        return self._pages.get(asked, plan=self._recommender.plan, now=time.time_ns() // 1000)

    def give(self, held: Held) -> bytes:
        """JSON of an answer that shows a page at hand."""
        start = time.perf_counter()
        request_id, now = new_request_id(), time.time_ns() // 1000
        body = told(held.told, request_id, now - held.made_at, None)
        self.ladder.answered[LIVE] += 1
        given = Again(held.exposure, request_id, now)
        self._exposures.put(given, latency_ms=(time.perf_counter() - start) * 1e3)
        self._shadow(held.request, request_id)
        return body

    async def home(self, request: HomeRequest, asked: Hashable = None) -> HomeAnswer:
        """A home page; a kept one while nothing happened since.

        Args:
            asked: the request's own words, by which `at_hand` knows it again; None: it has none.

        Raises:
            Unavailable: no version is live.
        """
        start = time.perf_counter()
        plan = self._recommender.plan
        cell, version = await self._assigned(request)
        now = time.time_ns() // 1000
        slot = slot_of(request, version, cell, now=now)
        cache = self._cache

        def shown(known: Known) -> HomeAnswer | None:
            if known.reason == UNREAD:
                return kept()
            event_time = known.state.event_time if known.state else None
            page = cache and cache.fresh(request.member_id, slot, now=known.time, event_time=event_time)
            return again(page, known) if page else None

        def made(found: Scored) -> HomeAnswer:
            page = page_of(request, found, self._recommender.trends)
            if cache is not None and page.fallback is None and page.reason != UNREAD:
                cache.put(slot, page)
            return again(page, found.known)

        def kept() -> HomeAnswer | None:
            page = cache and cache.kept(request.member_id, slot)
            return stand_in(page) if page else None

        rungs = self._rungs(request.member_id, request.surface, cell, version, made, shown=shown, kept=kept)
        answer = await self.ladder.climb(rungs)
        self._exposures.put(answer, latency_ms=(time.perf_counter() - start) * 1e3)
        self._shadow(request, answer.request_id)
        if asked is not None and self._lasting(request, answer):
            until = version.titles.offer(request.filters, now).until
            self._pages.put(asked, request, answer, plan=plan, until=until)
        return answer

    def _shadow(self, request: HomeRequest, request_id: str) -> None:
        """Let the surface's shadow answer a home page too, with a ranking."""
        if self._recommender.plan.of(request.surface).shadow is None:
            return
        ranking = Request(
            member_id=request.member_id,
            k=min(request.layout.per_row, self._max_k),
            surface=request.surface,
            filters=request.filters,
            context=request.context,
        )
        self._recommender.shadow(ranking, request_id)

    def _lasting(self, request: HomeRequest, answer: HomeAnswer) -> bool:
        """Whether an answer stays right while nothing happens to its member."""
        return (
            self._cache is not None
            and answer.fallback is None
            and answer.page.reason != UNREAD
            and self._cache.untouched(request.member_id, answer.time)
            and not self._recommender.places_by_features(request.surface)
        )

    async def similar(self, request: SimilarRequest) -> Similar:
        """Titles like one title.

        Raises:
            InvalidInput: k is out of range.
            NotFound: the version knows no such title.
            Unavailable: no version is live.
        """
        self._check(request.k)
        cell, version = self._recommender.assigned(request.title_id, request.surface)
        position = version.bundle.positions.get(request.title_id)
        if position is None:
            raise NotFound(f"title {request.title_id!r}; {version.name} knows none with this id")
        now = time.time_ns() // 1000
        allowed = version.titles.allowed(request.filters, now)
        allowed[position] = False
        columns = version.columns
        live = Rung(
            name=LIVE,
            key=f"{version.name}/similar",
            work=lambda _: titles_like(
                request, cell, version, allowed, columns.similarity(position), columns.alike_by
            ),
        )
        popular = Rung(
            name=POPULAR,
            work=lambda _: titles_like(
                request, cell, version, allowed, version.cold, "popularity", fallback=POPULAR
            ),
        )
        return await self.ladder.climb([live, popular])

    def _kept_ranking(self, request: Request, cell: str, version: Live) -> Answer | None:
        """The titles of the profile's kept home page, as a ranking."""
        filters = request.filters
        profile = Filters(
            max_maturity=filters.max_maturity, languages=filters.languages, country=filters.country
        )
        page_of_profile = HomeRequest(member_id=request.member_id, surface=request.surface, filters=profile)
        slot = slot_of(page_of_profile, version, cell, now=time.time_ns() // 1000)
        page = self._cache and self._cache.kept(request.member_id, slot)
        return ranking_of(page, request, version) if page else None

    async def _assigned(self, request: Request | HomeRequest) -> tuple[str, Live]:
        """The member's cell and version; where the store does not answer in time, without their features."""
        place = partial(self._recommender.assigned, request.member_id, request.surface, request.context)
        if not self._recommender.places_by_features(request.surface):
            return place(ask_store=False)
        read = Rung(name=LIVE, key=FEATURES, work=lambda _: place())
        unread = Rung(name=POPULAR, work=lambda _: place(ask_store=False))
        return await self._placing.climb([read, unread])

    def _check(self, k: int) -> None:
        if not 1 <= k <= self._max_k:
            raise InvalidInput(f"k is {k}; accepted: 1 to {self._max_k}")

    def _rungs(
        self,
        member_id: str,
        surface: str,
        cell: str,
        version: Live,
        made: Callable[[Scored], T],
        *,
        kept: Callable[[], T | None],
        shown: Callable[[Known], T | None] = lambda _: None,
    ) -> list[Rung[T]]:
        """The ways to an answer about a member. Their features are read once, by the first to need them.

        Args:
            made: makes the answer from scores.
            kept: an earlier answer, however old, or None.
            shown: an earlier answer that is as good as a new one, or None.
        """
        read: list[Known] = []
        asked = False

        def known(rung: Rung[T]) -> Known:
            nonlocal asked
            if not read:
                store = [FEATURES] if rung.key and not asked else []
                ask = bool(store) and not self.ladder.breaker.refused(store, time.monotonic())
                asked, rung.waiting_for = True, FEATURES
                read.append(self._recommender.known(member_id, surface, cell, version, ask_store=ask))
                rung.waiting_for = rung.key
                if ask:
                    self.ladder.breaker.passed(FEATURES)
            return read[0]

        def finished(rung: Rung[T], found: Scored) -> T:
            rung.waiting_for = ""
            return made(found)

        def by_part(part: str) -> Rung[T]:
            name = PART + part
            return Rung(
                name=name,
                key=f"{version.name}/{part}",
                work=lambda rung: finished(rung, scored_by(known(rung), part, fallback=name)),
            )

        def popular(rung: Rung[T]) -> T:
            found = known(rung)
            found = replace(found, reason=found.reason or MODEL_UNAVAILABLE)
            scores = EveryTitle(values=version.cold, parts={POPULAR: version.cold})
            return made(Scored(known=found, scores=scores, fallback=POPULAR))

        return [
            Rung(
                name=LIVE,
                key=version.name,
                work=lambda rung: shown(known(rung)) or finished(rung, scored(known(rung))),
            ),
            *map(by_part, version.parts),
            Rung(name=CACHED, work=lambda _: kept()),
            Rung(name=f"{POPULAR}:{FEATURES}", key=FEATURES, work=popular),
            Rung(name=POPULAR, work=popular),
        ]
