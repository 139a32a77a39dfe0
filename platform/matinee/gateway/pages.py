"""The routes of pages: a member's home."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Annotated, Any, Literal

import orjson
from fastapi import FastAPI, Query, Response
from pydantic import BaseModel, Field

from matinee.events.encode import rfc3339
from matinee.gateway.messages import Name
from matinee.gateway.problems import Problem
from matinee.serving.home import Layout
from matinee.serving.pages import HomeAnswer, HomeRequest, answered, page_of
from matinee.serving.rank import Filters
from matinee.serving.recommender import scored

if TYPE_CHECKING:
    from matinee.gateway.app import Parts

Maturity = Annotated[
    int | None,
    Query(ge=0, le=150, description="The viewer's age in years: only titles suitable from that age."),
]
Languages = Annotated[list[Name], Query(max_length=100, description="Accepted languages; none: any.")]


class Reason(BaseModel):
    """Why a row is on the page."""

    kind: str
    title_id: str | None = Field(description="The watched title it is because of.")
    genre: str | None
    text: str


class HomeItem(BaseModel):
    """A title of a row."""

    title_id: str
    name: str
    position: int = Field(description="Place on the page, from 0, row after row.")
    score: float


class HomeRow(BaseModel):
    """A row of titles."""

    kind: Literal["continue_watching", "top_picks", "because_you_watched", "genre", "new", "trending"]
    title: str
    reason: Reason
    diversity: float = Field(description="Mean over pairs of titles of 1 minus the cosine of their genres.")
    items: list[HomeItem]


class Home(BaseModel):
    """A page. `request_id`, `model_version` and `cell` go into the events that follow from it."""

    request_id: str
    member_id: str
    surface: str
    model_version: str
    cell: str
    answer: Literal["personal", "cold_start"]
    reason: Literal["unknown_member", "no_known_titles", "features_unavailable"] | None = Field(
        description="Why the page is a cold start."
    )
    made_at: str = Field(description="When the page was composed, RFC 3339.")
    features_time: str | None = Field(description="The member's latest event that counted, RFC 3339.")
    age_s: float = Field(description="Seconds since the page was composed.")
    fallback: str | None = Field(
        description="What stood in for the version's own scores; null where nothing did."
    )
    rows: list[HomeRow]


def install(app: FastAPI, parts: Parts, scoring: ThreadPoolExecutor) -> None:
    """Add the routes to `app`."""

    @app.get(
        "/v1/members/{member_id:path}/home",
        response_model=Home,
        responses={status: {"model": Problem} for status in (422, 503)},
    )
    async def home(
        member_id: str,
        surface: Annotated[Name, Query(description="Splits are per surface.")] = "home",
        rows: Annotated[int, Query(ge=1, le=40, description="Most rows.")] = 10,
        per_row: Annotated[int, Query(ge=1, le=100, description="Most titles of a row.")] = 20,
        diversity: Annotated[
            float, Query(ge=0, le=1, description="How much rows prefer other genres to higher scores.")
        ] = 0.2,
        max_maturity: Maturity = None,
        languages: Languages = [],  # noqa: B006 (FastAPI copies it)
    ) -> Response:
        """A member's page: rows of titles, each with its reason, from the version their split gives them."""
        request = HomeRequest(
            member_id=member_id,
            surface=surface,
            layout=Layout(rows=rows, per_row=per_row, diversity=diversity),
            filters=Filters(max_maturity=max_maturity, languages=languages),
        )

        def work() -> HomeAnswer:
            start = time.perf_counter()
            recommender = parts.recommender
            cell, version = recommender.assigned(member_id, surface)
            found = scored(recommender.known(member_id, surface, cell, version))
            answer = answered(page_of(request, found, recommender.trends.of(version)), found)
            parts.exposures.put(answer, latency_ms=(time.perf_counter() - start) * 1e3)
            return answer

        answer = await asyncio.get_running_loop().run_in_executor(scoring, work)
        return _json(_home(answer))


def _json(value: object) -> Response:
    return Response(orjson.dumps(value), media_type="application/json")


def _home(answer: HomeAnswer) -> dict[str, Any]:
    page = answer.page
    return {
        "request_id": answer.request_id,
        "member_id": page.member_id,
        "surface": page.surface,
        "model_version": page.model_version,
        "cell": page.cell,
        "answer": page.answer,
        "reason": page.reason,
        "made_at": rfc3339(page.made_at),
        "features_time": None if page.features_time is None else rfc3339(page.features_time),
        "age_s": (answer.time - page.made_at) / 1e6,
        "fallback": answer.fallback,
        "rows": orjson.Fragment(page.rows),
    }
