"""A composed page in words: what an application shows, with a reason for every row."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import orjson

from matinee.events.encode import rfc3339
from matinee.schema import Candidate, Ranking
from matinee.serving import home
from matinee.serving.home import Layout, Member, Row
from matinee.serving.ladder import CACHED
from matinee.serving.rank import Filters
from matinee.serving.recommender import COLD, PERSONAL, Answer, Known, Request, Scored
from matinee.serving.request_ids import new_request_id
from matinee.serving.trends import Column, Trends
from matinee.serving.versions import Live

DAY_US = 86_400_000_000
FINISHED = 0.9
"""Share of the longest watch of a title from which on it counts as watched to its end."""

_AFFINITY = "affinity["


@dataclass(frozen=True, kw_only=True)
class HomeRequest:
    """A home page that is asked for.

    Args:
        filters: the profile's rules: maturity and languages.
        context: as in `recommender.Request`.
    """

    member_id: str
    surface: str = "home"
    layout: Layout = field(default_factory=Layout)
    filters: Filters = field(default_factory=Filters)
    context: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class HomePage:
    """A page as it was made; it may be shown more than once.

    Args:
        answer: "personal" or "cold_start"; `reason` as in `recommender.Answer`.
        made_at: microseconds.
        features_time: microseconds: the member's latest event that counted; None where unknown.
        fallback: what stood in for the version's own scores; None: nothing.
        rows: JSON: a list of rows, each with `kind`, `title`, `reason`, `diversity` and `items`.
    """

    member_id: str
    surface: str
    model_version: str
    cell: str
    answer: str
    reason: str | None
    made_at: int
    features_time: int | None
    fallback: str | None
    rows: bytes

    @cached_property
    def told(self) -> bytes:
        """What all answers that show it tell alike, as the end of a JSON object."""
        facts = {
            "member_id": self.member_id,
            "surface": self.surface,
            "model_version": self.model_version,
            "cell": self.cell,
            "answer": self.answer,
            "reason": self.reason,
            "made_at": rfc3339(self.made_at),
            "features_time": None if self.features_time is None else rfc3339(self.features_time),
            "rows": orjson.Fragment(self.rows),
        }
        return orjson.dumps(facts)[1:]


@dataclass(frozen=True, kw_only=True)
class HomeAnswer:
    """A page given to a member.

    Args:
        time: microseconds: when it was given.
        fallback: the page's own, or "cached" where it stands in for a page that could not be made.
        features: as in `recommender.Answer`.
    """

    request_id: str
    page: HomePage
    time: int
    fallback: str | None
    features: Mapping[str, float] = field(default_factory=dict)

    def json(self) -> bytes:
        """The answer as the API gives it."""
        return told(self.page.told, self.request_id, self.time - self.page.made_at, self.fallback)


def told(page: bytes, request_id: str, age_us: int, fallback: str | None) -> bytes:
    """JSON of an answer that shows a page.

    Args:
        page: its `HomePage.told`.
    """
    stands_in = "null" if fallback is None else orjson.dumps(fallback).decode()
    return f'{{"request_id":"{request_id}","age_s":{age_us / 1e6!r},"fallback":{stands_in},'.encode() + page


def page_of(request: HomeRequest, scored: Scored, trends: Trends) -> HomePage:
    """Compose a page from scores and what is known of titles lately."""
    known = scored.known
    version = known.version
    longest = trends.longest(version)
    rows = home.compose(
        scored.scores,
        version.titles.allowed(request.filters, known.time),
        _member(known, longest),
        version.columns,
        request.layout,
        today=known.time // DAY_US,
        trend=trends.trend(version),
    )
    return HomePage(
        member_id=known.member_id,
        surface=known.surface,
        model_version=version.name,
        cell=known.cell,
        answer=COLD if known.reason else PERSONAL,
        reason=known.reason,
        made_at=known.time,
        features_time=known.state.event_time if known.state else None,
        fallback=scored.fallback,
        rows=_rows(rows, version, scored),
    )


def _member(known: Known, longest: Column | None) -> Member:
    state = known.state
    if state is None:
        return Member(watched=known.watched)
    affinity = {
        name[len(_AFFINITY) : -1]: value
        for name, value in state.features.items()
        if name.startswith(_AFFINITY) and value > 0
    }
    positions = known.version.bundle.positions
    begun = [
        positions[title_id]
        for title_id, seconds in state.begun
        if title_id in positions
        and not (longest is not None and seconds >= FINISHED * longest[positions[title_id]])
    ]
    return Member(watched=known.watched, begun=begun, affinity=affinity)


def _rows(rows: Sequence[Row], version: Live, scored: Scored) -> bytes:
    """JSON. Put together from what each title says of itself anyway: a page has hundreds of items."""
    ids, names, heads = version.titles.ids, version.titles.names, version.columns.heads
    place = 0
    told = []
    for row in rows:
        title, text = _words(row, names)
        items = []
        for at, score in zip(row.titles.tolist(), scored.scores.at(row.titles).tolist(), strict=True):
            items.append(f'{heads[at]}{place},"score":{score!r}}}')
            place += 1
        head = orjson.dumps(
            {
                "kind": row.kind,
                "title": title,
                "reason": {
                    "kind": row.kind,
                    "title_id": None if row.because is None else ids[row.because],
                    "genre": row.genre,
                    "text": text,
                },
                "diversity": round(row.diversity, 4),
            }
        ).decode()
        told.append(f'{head[:-1]},"items":[{",".join(items)}]}}')
    return f"[{','.join(told)}]".encode()


def _words(row: Row, names: Sequence[str]) -> tuple[str, str]:
    """A row's title, and why it is on the page."""
    match row.kind:
        case home.CONTINUE:
            return "Continue Watching", "Begun lately, and neither watched to the end nor rated"
        case home.TOP:
            return "Top Picks", "What this member is most likely to watch next"
        case home.BECAUSE:
            assert row.because is not None
            because = f"Because You Watched {names[row.because]}"
            return because, f"Titles like {names[row.because]}, which was watched lately"
        case home.GENRE:
            return str(row.genre), f"The best of {row.genre} for this member"
        case home.NEW:
            return "New", "Released lately"
        case _:
            return "Trending", "Watched by many members lately"


def again(page: HomePage, known: Known) -> HomeAnswer:
    """A page, new or kept, as the answer to who is asked about."""
    return HomeAnswer(
        request_id=known.request_id,
        page=page,
        time=known.time,
        fallback=page.fallback,
        features=known.state.features if known.state else {},
    )


def stand_in(page: HomePage) -> HomeAnswer:
    """A kept page where none can be made."""
    now = time.time_ns() // 1000
    return HomeAnswer(request_id=new_request_id(), page=page, time=now, fallback=CACHED)


def ranking_of(page: HomePage, request: Request, version: Live) -> Answer | None:
    """The titles of a kept page, the best first, where no ranking can be made; None where none may be shown.

    Args:
        version: the one that made the page.
    """
    now = time.time_ns() // 1000
    allowed = version.titles.allowed(request.filters, now)
    known = version.bundle.positions
    items = [
        (item["score"], item["title_id"], item["name"])
        for row in orjson.loads(page.rows)
        for item in row["items"]
        if row["kind"] != home.CONTINUE and allowed[known[item["title_id"]]]
    ]
    best = sorted(items, key=lambda item: -item[0])[: request.k]
    if not best:
        return None
    ranking = Ranking(
        request_id=new_request_id(),
        member_id=page.member_id,
        surface=page.surface,
        model_version=page.model_version,
        cell=page.cell,
        answer=page.answer,
        candidates=[
            Candidate(title_id=title_id, score=score, contributions={CACHED: score})
            for score, title_id, _ in best
        ],
    )
    return Answer(
        ranking=ranking,
        names=[name for *_, name in best],
        reason=page.reason,
        time=now,
        made_at=page.made_at,
        features_time=page.features_time,
        fallback=CACHED,
    )
