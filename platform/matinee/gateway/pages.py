"""The routes of pages: a member's home, and titles like a title."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import orjson
from fastapi import FastAPI, Query, Request, Response
from pydantic import BaseModel, Field, StringConstraints

from matinee.events.encode import rfc3339
from matinee.gateway.guard import allow
from matinee.gateway.messages import Answered, Name
from matinee.gateway.problems import documented
from matinee.gateway.shortcut import asked
from matinee.serving.availability import country_of
from matinee.serving.home import Layout
from matinee.serving.pages import HomeRequest
from matinee.serving.rank import Filters
from matinee.serving.similar import Similar, SimilarRequest
from matinee.serving.surfaces import Surfaces

Maturity = Annotated[
    int | None,
    Query(ge=0, le=150, description="The viewer's age in years: only titles suitable from that age."),
]
Languages = Annotated[list[Name], Query(max_length=100, description="Accepted languages; none: any.")]
Context = Annotated[
    list[Annotated[str, StringConstraints(pattern=r"^[^=]{1,256}=.{1,256}$")]],
    Query(
        max_length=16,
        description="What is known of the request (country=SE), for segments and what is on offer.",
    ),
]


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


class Home(Answered):
    """A page."""

    made_at: str = Field(description="When the page was composed, RFC 3339.")
    age_s: float = Field(description="Seconds since the page was composed.")
    rows: list[HomeRow]


class SimilarItem(BaseModel):
    """A title that is like another."""

    title_id: str
    name: str
    position: int = Field(description="Place in the list, from 0.")
    score: float = Field(description="How alike; comparable within one answer.")


class SimilarTitles(BaseModel):
    """Titles like one title, the most alike first."""

    title_id: str
    model_version: str
    cell: str
    by: Literal["embeddings", "watches", "content", "popularity"] = Field(
        description="What likeness is; popularity where none could be had in time."
    )
    made_at: str = Field(description="When the list was made, RFC 3339.")
    age_s: float = Field(description="Seconds since then.")
    fallback: Literal["popular"] | None
    items: list[SimilarItem]


HOME = "/v1/members/{member_id:path}/home"


def install(app: FastAPI, surfaces: Surfaces) -> None:
    """Add the routes to `app`."""

    @app.get(
        HOME,
        response_model=Home,
        responses=documented(422, 503),
        openapi_extra=allow("member", "service"),
    )
    async def home(
        request: Request,
        member_id: str,
        surface: Annotated[Name, Query(description="Splits are per surface.")] = "home",
        rows: Annotated[int, Query(ge=1, le=40, description="Most rows.")] = 10,
        per_row: Annotated[int, Query(ge=1, le=100, description="Most titles of a row.")] = 20,
        diversity: Annotated[
            float, Query(ge=0, le=1, description="How much rows prefer other genres to higher scores.")
        ] = 0.2,
        max_maturity: Maturity = None,
        languages: Languages = [],  # noqa: B006 (FastAPI copies it)
        context: Context = [],  # noqa: B006
    ) -> Response:
        """A member's page: rows of titles, each with its reason, from the version their split gives them."""
        told = _told(context)
        wanted = HomeRequest(
            member_id=member_id,
            surface=surface,
            layout=Layout(rows=rows, per_row=per_row, diversity=diversity),
            filters=Filters(max_maturity=max_maturity, languages=languages, country=country_of(told)),
            context=told,
        )
        answer = await surfaces.home(wanted, asked(request.scope))
        return Response(answer.json(), media_type="application/json")

    @app.get(
        "/v1/titles/{title_id:path}/similar",
        response_model=SimilarTitles,
        responses=documented(404, 422, 503),
        openapi_extra=allow("member", "service"),
    )
    async def similar(
        title_id: str,
        k: Annotated[
            int, Query(description="Most titles; at least 1.", json_schema_extra={"minimum": 1})
        ] = 20,
        surface: Annotated[Name, Query(description="Splits are per surface; this one deals titles.")] = (
            "similar"
        ),
        max_maturity: Maturity = None,
        languages: Languages = [],  # noqa: B006 (FastAPI copies it)
        context: Context = [],  # noqa: B006
    ) -> Response:
        """Titles like a title, by the vectors of the version that the surface's split gives it."""
        country = country_of(_told(context))
        filters = Filters(max_maturity=max_maturity, languages=languages, country=country)
        request = SimilarRequest(title_id=title_id, k=k, surface=surface, filters=filters)
        return _json(_similar(await surfaces.similar(request)))


def _told(context: list[str]) -> dict[str, str]:
    return dict(told.split("=", 1) for told in context)


def _json(value: object) -> Response:
    return Response(orjson.dumps(value), media_type="application/json")


def _similar(answer: Similar) -> dict[str, Any]:
    return {
        "title_id": answer.title_id,
        "model_version": answer.model_version,
        "cell": answer.cell,
        "by": answer.by,
        "made_at": rfc3339(answer.time),
        "age_s": 0.0,
        "fallback": answer.fallback,
        "items": [
            {"title_id": title_id, "name": name, "position": position, "score": score}
            for position, (title_id, name, score) in enumerate(answer.titles)
        ],
    }
