"""One request to one ranking: the member's features, their version's scores, the best k titles."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from matinee.config import Settings
from matinee.errors import InvalidInput, NotFound, Unavailable
from matinee.features.online import MemberState, OnlineReader
from matinee.features.rows import Cursor
from matinee.models.base import Query, Scores
from matinee.schema import Features, Ranking
from matinee.serving import rank
from matinee.serving.batches import Batches, joined
from matinee.serving.place import NEW, asks_features
from matinee.serving.rank import Filters
from matinee.serving.request_ids import new_request_id
from matinee.serving.scores import EveryTitle, TitleScores
from matinee.serving.served import ServedLog
from matinee.serving.shadow import Shadows
from matinee.serving.titles import TitleFeatures
from matinee.serving.trends import Trends
from matinee.serving.versions import Live, LiveVersions, Plan

T = TypeVar("T")

COLD = "cold_start"
PERSONAL = "personal"
UNREAD = "features_unavailable"
SHADOW = "shadow"
"""The cell of answers that were not shown."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is asked.

    Args:
        k: most titles of the answer, from 1 to `settings.serving.max_k`.
        surface: the place in the product; splits are per surface.
        context: what the application knows of the request ("country": "SE"), for segments of the split.
    """

    member_id: str
    k: int = 20
    surface: str = "home"
    filters: Filters = field(default_factory=Filters)
    context: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A ranking and what it was made from.

    Args:
        names: the candidates' names, in their order.
        reason: why the answer is a cold start: "unknown_member" (the store has no features),
            "no_known_titles" (none of the watched titles is in the version's catalogue),
            "features_unavailable" (the store does not answer) or "model_unavailable" (no model answered in
            time); None for a personal one.
        time: microseconds: when the ranking was given.
        made_at: microseconds: when it was made, where that was earlier.
        features_time: microseconds: the member's latest event that counted; None where unknown.
        features: dense member features by name, as the store held them.
        fallback: what stood in for the version's own scores; None: nothing.
        shadow_of: the request whose answer this one stands behind, never shown; None for a shown answer.
    """

    ranking: Ranking
    names: Sequence[str]
    reason: str | None
    time: int
    features_time: int | None
    features: Mapping[str, float] = field(default_factory=dict)
    fallback: str | None = None
    made_at: int | None = None
    shadow_of: str | None = None


@dataclass(frozen=True, kw_only=True)
class Known:
    """A member as a version is asked about them, before it scores.

    Args:
        state: None where nothing is known; `reason` says why, as in `Answer`.
        query: of this one member.
        watched: int32 positions of the titles watched that the version knows, oldest first.
        time: microseconds: the moment of the query.
    """

    request_id: str
    member_id: str
    surface: str
    cell: str
    version: Live
    state: MemberState | None
    reason: str | None
    query: Query
    watched: npt.NDArray[np.int32]
    time: int


@dataclass(frozen=True, kw_only=True)
class Scored:
    """A member with the scores of titles, from which any page of theirs is made.

    Args:
        fallback: what stood in for the version's own scores; None: nothing.
    """

    known: Known
    scores: TitleScores
    fallback: str | None = None


class AnswerLog(Protocol):
    """Takes answers without making anyone wait."""

    def put(self, answer: Answer, *, latency_ms: float) -> None:
        """Hand an answer over."""


class Recommender:
    """Answers requests from the live versions. Thread-safe once started.

    Args:
        settings: the home, the model's name and `serving.max_k`.
        shadows: takes the answers of versions that are scored and not shown; None: none are made.
    """

    def __init__(self, settings: Settings, shadows: AnswerLog | None = None) -> None:
        self._settings = settings
        self._max_k = settings.serving.max_k
        self._opened: OnlineReader | None = None
        self._served: ServedLog | None = None
        self._logging = False
        self._beginning = threading.Lock()
        self._versions = LiveVersions(settings)
        self._shadows = Shadows(shadows.put) if shadows else None
        self.titles = TitleFeatures(settings)
        self.trends = Trends(self.titles)

    def start(self) -> None:
        """Load what is live, follow changes from now on, and open the feature store if it is there."""
        self._versions.start()
        with suppress(Unavailable):
            self._read(OnlineReader.check)
        with suppress(Unavailable, NotFound):
            self.titles.start()

    def close(self) -> None:
        """Stop following changes, and write what the log of served features still holds."""
        self._versions.close()
        if self._shadows:
            self._shadows.close()
        self.titles.close()
        if self._served is not None:
            self._served.close()

    @property
    def plan(self) -> Plan:
        """Who gets which version at this moment; another object where anything changed."""
        return self._versions.plan

    def weights(self, surface: str) -> Mapping[str, float]:
        """Version to share, as this replica applies it to a surface; empty where nothing is live."""
        return self._versions.plan.weights(surface)

    def live_splits(self) -> Mapping[str, Mapping[str, float]]:
        """Every split this replica applies, by surface; "*" stands for surfaces without one."""
        plan = self._versions.plan
        return {surface: plan.weights(surface) for surface in (*plan.rules, "*")}

    def check_ready(self) -> None:
        """Return where a request could be answered from features and a model.

        Raises:
            Unavailable: no version is live, or the online store does not answer.
        """
        if not self._versions.plan.live:
            raise Unavailable("no model version is live yet")
        self._read(OnlineReader.check)

    def member_features(self, member_id: str) -> dict[str, object] | None:
        """The member's online features by name; None where the store has none.

        Raises:
            Unavailable: the online store does not answer.
        """
        return self._read(lambda reader: reader.raw(member_id)) or None

    def written(
        self, member_ids: Collection[str], since: Mapping[str, Cursor]
    ) -> tuple[Mapping[str, Cursor], set[str] | None]:
        """As `OnlineReader.written`."""
        return self._read(lambda reader: reader.written(member_ids, since))

    def assigned(
        self,
        member_id: str,
        surface: str,
        context: Mapping[str, str] | None = None,
        *,
        ask_store: bool = True,
    ) -> tuple[str, Live]:
        """The cell a member is in on a surface, and its version; quick, but where segments ask for features.

        Args:
            context: of the request, for segments; None: segments are left out.
            ask_store: whether the member's features are read for segments that ask for them.

        Raises:
            Unavailable: no version is live.
        """
        plan = self._versions.plan
        if context is None:
            return plan.version(member_id, surface)
        read = ask_store and self.places_by_features(surface)
        return plan.version(member_id, surface, self._traits(member_id, context) if read else context)

    def places_by_features(self, surface: str) -> bool:
        """Whether features decide about members' cells on a surface, so that `assigned` reads them."""
        return any(map(asks_features, self._versions.plan.of(surface).segments))

    def recommend(self, request: Request) -> Answer:
        """Rank for a member. A store that does not answer gives a cold-start ranking, not an error.

        Raises:
            InvalidInput: k is out of range.
            Unavailable: no version is live.
        """
        if not 1 <= request.k <= self._max_k:
            raise InvalidInput(f"k is {request.k}; accepted: 1 to {self._max_k}")
        cell, version = self.assigned(request.member_id, request.surface, request.context)
        return finish(request, scored(self.known(request.member_id, request.surface, cell, version)))

    def shadow(self, request: Request, request_id: str) -> None:
        """Let the surface's shadow, if it takes this request, answer it too: later, unseen, and logged."""
        version = self._versions.plan.shadow(request.surface, request_id)
        if self._shadows and version:
            make = partial(self._unseen, request, request_id, version)
            self._shadows.offer(make)

    def shadows_so_far(self) -> tuple[int, int]:
        """Answers that shadows made, and requests they did not answer because they were behind, or failed."""
        return (self._shadows.made, self._shadows.dropped) if self._shadows else (0, 0)

    def _unseen(self, request: Request, request_id: str, version: Live) -> Answer:
        known = self.known(request.member_id, request.surface, SHADOW, version)
        return replace(finish(request, scored(known)), shadow_of=request_id)

    def known(
        self, member_id: str, surface: str, cell: str, version: Live, *, ask_store: bool = True
    ) -> Known:
        """What a version is asked about a member; the features are read here.

        Args:
            cell: with `version`, what `assigned` gave.
            ask_store: False where the store is known not to answer.
        """
        now = time.time_ns() // 1000
        request_id = new_request_id()
        state, reason = self._state(member_id, request_id) if ask_store else (None, UNREAD)
        query, watched, reason = _query(version, state, now, reason)
        return Known(
            request_id=request_id,
            member_id=member_id,
            surface=surface,
            cell=cell,
            version=version,
            state=state,
            reason=reason,
            query=query,
            watched=watched,
            time=now,
        )

    def _traits(self, member_id: str, context: Mapping[str, str]) -> dict[str, str | float]:
        """What segments may ask about: the request's context, the member's features, whether they are new."""
        try:
            state = self._read(lambda reader: reader.member(member_id))
        except Unavailable:
            return dict(context)
        return {**context, **(state.features if state else {NEW: 1.0})}

    def _state(self, member_id: str, request_id: str) -> tuple[MemberState | None, str | None]:
        """The member, and why nothing is known of them; a sampled request's reads are logged."""
        log = self._served
        try:
            if log is not None and log.takes(request_id):
                state, reads = self._read(lambda reader: reader.observed(member_id))
                log.put(request_id, member_id, time.time_ns() // 1000, reads)
            else:
                state = self._read(lambda reader: reader.member(member_id))
        except Unavailable:
            return None, UNREAD
        return state, None if state else "unknown_member"

    def _read(self, read: Callable[[OnlineReader], T]) -> T:
        """What `read` gives; a store that is not set up yet counts as one that does not answer."""
        try:
            if self._opened is None:
                self._opened = OnlineReader(self._settings)
            found = read(self._opened)
            if not self._logging:
                self._begin_logging(self._opened)
            return found
        except NotFound as missing:
            raise Unavailable(f"features cannot be read yet: {missing}") from None

    def _begin_logging(self, reader: OnlineReader) -> None:
        """Log what is read from now on, where settings ask for it; `reader` has answered before."""
        with self._beginning:
            if self._logging:
                return
            monitoring = self._settings.monitoring
            if monitoring.served_share:
                views = {view: ("member_id", types) for view, types in reader.schemas().items()}
                self._served = ServedLog(
                    self._settings.paths.served,
                    views,
                    share=monitoring.served_share,
                    keep_days=monitoring.served_days,
                )
            self._logging = True


def scored(known: Known) -> Scored:
    """Ask the version, with those who ask at the same time: its index, or one pass over its titles."""
    retriever = known.version.retriever
    if retriever is not None and (products := known.version.batched_products.score(known.query)):
        return Scored(known=known, scores=retriever.found(products))
    return _scored(known, known.version.batches, None)


def scored_all(known: Sequence[Known]) -> list[Scored]:
    """Ask one version about many members at once; they are all of it, at least one."""
    version, query = known[0].version, joined([each.query for each in known])
    retriever = version.retriever
    if retriever is not None and (products := retriever.ask(query)):
        return [
            Scored(
                known=each,
                scores=retriever.found({name: product[row] for name, product in products.items()}),
            )
            for row, each in enumerate(known)
        ]
    parts = version.ask(query)
    return [
        Scored(known=each, scores=_summed({name: part[row] for name, part in parts.items()}))
        for row, each in enumerate(known)
    ]


def scored_by(known: Known, part: str, *, fallback: str) -> Scored:
    """Ask one of the models inside the version alone."""
    return _scored(known, known.version.batches_by_part[part], fallback)


def finish(request: Request, scored: Scored) -> Answer:
    """The best titles that pass the request's filters."""
    known, titles = scored.known, scored.known.version.titles
    mask = titles.allowed(request.filters, known.time)
    if request.filters.exclude_watched:
        mask[known.watched] = False
    scores = scored.scores
    order = scores.best(mask, request.k)
    ranking = Ranking(
        request_id=known.request_id,
        member_id=known.member_id,
        surface=known.surface,
        model_version=known.version.name,
        cell=known.cell,
        answer=COLD if known.reason else PERSONAL,
        candidates=rank.candidates(titles, order, scores.at(order), scores.parts_at(order)),
    )
    return Answer(
        ranking=ranking,
        names=[titles.names[position] for position in order],
        reason=known.reason,
        time=known.time,
        features_time=known.state.event_time if known.state else None,
        features=known.state.features if known.state else {},
        fallback=scored.fallback,
    )


def _scored(known: Known, batches: Batches[Scores], fallback: str | None) -> Scored:
    return Scored(known=known, scores=_summed(batches.score(known.query)), fallback=fallback)


def _summed(parts: Mapping[str, Scores]) -> EveryTitle:
    """The scores that parts, float32 [titles] each, sum to."""
    return EveryTitle(values=np.sum(list(parts.values()), axis=0, dtype=np.float32), parts=parts)


def _query(
    version: Live, state: MemberState | None, now: int, reason: str | None
) -> tuple[Query, npt.NDArray[np.int32], str | None]:
    """The query for one member, the positions they watched, and why it is a cold start, if it is."""
    known = version.bundle.positions
    pairs = (
        [
            (known[title_id], watched)
            for title_id, watched in zip(state.watched_title_ids, state.watched_times, strict=True)
            if title_id in known
        ]
        if state
        else []
    )
    history = np.array([position for position, _ in pairs], dtype=np.int32)
    if state and not pairs:
        reason = "no_known_titles"
    query = Query(
        histories=[history],
        times=[np.array([watched for _, watched in pairs], dtype=np.int64)],
        now=np.array([now], dtype=np.int64),
        member_features=_row(state) if state else None,
    )
    return query, history, reason


def _row(state: MemberState) -> Features:
    values = np.array([list(state.features.values())], dtype=np.float32)
    return Features(names=tuple(state.features), values=values)
