"""The API's routes as a FastAPI application. Ray Serve runs it; it does not know that."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import orjson
from fastapi import Depends, FastAPI, Request, Response

from matinee.config import Settings
from matinee.errors import InvalidInput, NotFound
from matinee.events.encode import rfc3339
from matinee.gateway import guard, licences, pages, problems, rollouts
from matinee.gateway.bodies import json_only
from matinee.gateway.guard import allow, bound_to, permit
from matinee.gateway.intake import MAX_EVENTS, BrokenJson, Intake, Received
from matinee.gateway.layers import Layers
from matinee.gateway.messages import (
    EventBody,
    EventsAnswer,
    Health,
    MemberFeatures,
    RecommendationRequest,
    Recommendations,
    SplitRequest,
    SplitState,
    TitleFeaturesAnswer,
)
from matinee.gateway.metrics import MEDIA_TYPE, Metrics, Pipeline
from matinee.gateway.problems import documented, problem, shown
from matinee.registry.mlflow import Registry
from matinee.serving.availability import country_of
from matinee.serving.exposures import ExposureLog
from matinee.serving.page_cache import PageCache
from matinee.serving.place import Rules
from matinee.serving.rank import Filters
from matinee.serving.recommender import Answer, Recommender
from matinee.serving.recommender import Request as Ask
from matinee.serving.splits import Splits
from matinee.serving.surfaces import Surfaces

PAGE_THREADS = 32
"""Pages worked on at a time: those that wait for a model are scored together."""

READING_THREADS = 2
"""Reads of features alone, at a time."""

DOOR_THREADS = 16
"""Posts that may wait for the broker at a time; rankings never wait behind them."""

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What the routes work with.

    Args:
        close: releases what the parts hold; called once, after the last request.
        cache: of home pages; None: none is kept.
    """

    recommender: Recommender
    intake: Intake
    exposures: ExposureLog
    splits: Splits
    registry: Registry
    pipeline: Pipeline
    close: Callable[[], None]
    cache: PageCache | None = None


def build_app(settings: Settings, parts: Parts) -> FastAPI:
    """The application; starting it loads what is live, closing it closes `parts`.

    Args:
        settings: limits and the served model's name.
        parts: serving and the event door, not started yet.
    """
    reading = ThreadPoolExecutor(READING_THREADS, thread_name_prefix="reading")
    door = ThreadPoolExecutor(DOOR_THREADS, thread_name_prefix="door")
    layers = Layers(settings)
    surfaces = Surfaces(settings, parts.recommender, parts.exposures, threads=PAGE_THREADS, cache=parts.cache)
    metrics = Metrics(
        exposures=lambda: (parts.exposures.sent, parts.exposures.dropped),
        splits=parts.recommender.live_splits,
        copies=parts.recommender.titles.ages,
        answers=lambda: surfaces.ladder.answered,
        hanging=lambda: surfaces.ladder.lost,
        shadows=parts.recommender.shadows_so_far,
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await _on(door, parts.recommender.start)
        yield
        surfaces.close()
        await _on(door, parts.close)
        await layers.close()
        reading.shutdown()
        door.shutdown()

    app = FastAPI(
        title="Matinee",
        version="1",
        summary="Rankings for members, and the events that follow from them.",
        lifespan=lifespan,
        redirect_slashes=False,
        redoc_url=None,
        # FastAPI's own would tell paths and queries; ours (`tracing`, `metrics`, `envelope`) does not
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    problems.install(app)

    @app.post(
        "/v1/recommendations",
        response_model=Recommendations,
        responses=documented(400, 413, 415, 422, 503),
        dependencies=[Depends(json_only)],
        openapi_extra=allow("member", "service"),
    )
    async def recommend(body: RecommendationRequest, request: Request) -> Response:
        """The best titles for a member, from the version their surface's split gives them."""
        permit(request, body.member_id)
        return _json(_recommendations(await surfaces.recommend(_ask(body))))

    @app.post(
        "/v1/events",
        status_code=202,
        response_model=EventsAnswer,
        responses=_MIXED | documented(400, 413, 415, 422, 503),
        dependencies=[Depends(json_only)],
        openapi_extra=allow("member", "service", traffic="event") | {"requestBody": _EVENTS_BODY},
    )
    async def post_events(request: Request) -> Response:
        """Take events: the good ones are acknowledged by the broker, refused ones become dead letters."""
        body = await request.body()
        path = request.url.path
        try:
            received = await _on(door, lambda: parts.intake.accept(body, bound_to(request)))
        except BrokenJson as failure:
            metrics.events(accepted=0, rejected=1)
            return problem(path, 400, str(failure))
        surfaces.touch(received.member_ids)
        refused = [(str(i), reason) for i, reason in enumerate(received.reasons) if reason is not None]
        accepted = len(received.reasons) - len(refused)
        metrics.events(accepted=accepted, rejected=len(refused))
        if not accepted:
            detail = refused[0][1] if len(refused) == 1 else f"none of {len(refused)} events is accepted"
            return problem(path, 422, detail, errors=() if received.single else refused)
        return _json(_events_answer(received), 207 if refused else 202)

    @app.get(
        "/v1/members/{member_id:path}/features",
        response_model=MemberFeatures,
        responses=documented(404, 503),
        openapi_extra=allow("member", "service", traffic="batch"),
    )
    async def member_features(member_id: str) -> Response:
        """What the online feature store holds for a member at this moment."""
        features = await _on(reading, lambda: parts.recommender.member_features(member_id))
        if features is None:
            raise NotFound(f"member {shown(member_id)} has no features")
        event_time = _time(features.get("last_event_time"))
        return _json({"member_id": member_id, "event_time": event_time, "features": features})

    @app.get(
        "/v1/titles/{title_id:path}/features",
        response_model=TitleFeaturesAnswer,
        responses=documented(404, 503),
        openapi_extra=allow("service"),
    )
    async def title_features(title_id: str) -> Response:
        """What this process holds of a title: a copy of the online store, with its age."""
        titles = parts.recommender.titles
        views = [
            {
                "view": view,
                "event_time": _time(found["event_time"]),
                "age_s": titles.ages()[view],
                "features": found["features"],
            }
            for view, found in titles.features(title_id).items()
        ]
        return _json({"title_id": title_id, "views": views})

    @app.get(
        "/v1/splits/{surface}",
        response_model=SplitState,
        responses=documented(503),
        openapi_extra=allow("operator"),
    )
    async def split(surface: str) -> Response:
        """How a surface's members are shared among versions, and every change of it."""
        return _json(await _on(door, lambda: _split_state(parts, surface)))

    @app.put(
        "/v1/splits/{surface}",
        response_model=SplitState,
        responses=documented(400, 413, 415, 422, 503),
        dependencies=[Depends(json_only)],
        openapi_extra=allow("operator"),
    )
    async def set_split(surface: str, body: SplitRequest) -> Response:
        """Change a surface's split; replicas follow within a second, without a restart."""

        def work() -> dict[str, Any]:
            for version in body.weights:
                _require(parts.registry, settings.serving.model, version)
            parts.splits.set(surface, body.weights, who=body.who, why=body.why)
            return _split_state(parts, surface)

        return _json(await _on(door, work))

    pages.install(app, surfaces)
    rollouts.install(app, settings)
    licences.install(app, settings)

    @app.get("/healthz", response_model=Health, openapi_extra=allow())
    async def healthz() -> Response:
        """The process answers."""
        return _json({"status": "ok"})

    @app.get("/readyz", response_model=Health, responses=documented(503), openapi_extra=allow())
    async def readyz() -> Response:
        """A version is live and features can be read."""
        await _on(reading, parts.recommender.check_ready)
        return _json({"status": "ok"})

    @app.get(
        "/metrics",
        response_class=Response,
        responses={200: {"content": {"text/plain": {}}}},
        openapi_extra=allow("operator"),
    )
    async def scrape() -> Response:
        """Figures in Prometheus' text format."""
        pipeline = await parts.pipeline.text()
        return Response(metrics.text() + pipeline, headers={"content-type": MEDIA_TYPE})

    layers.install(app, metrics=metrics, surfaces=surfaces)
    _problems_in_openapi(app, settings.serving.max_k)
    return app


async def _on(pool: ThreadPoolExecutor, work: Callable[[], T]) -> T:
    return await asyncio.get_running_loop().run_in_executor(pool, work)


def _json(value: object, status: int = 200) -> Response:
    content = orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY, default=str)
    return Response(content, status, media_type="application/json")


def _ask(body: RecommendationRequest) -> Ask:
    filters = body.filters
    return Ask(
        member_id=body.member_id,
        k=body.k,
        surface=body.surface,
        context=body.context,
        filters=Filters(
            max_maturity=filters.max_maturity,
            languages=filters.languages,
            genres=filters.genres,
            exclude_watched=filters.exclude_watched,
            country=country_of(body.context),
        ),
    )


def _recommendations(answer: Answer) -> dict[str, Any]:
    ranking = answer.ranking
    return {
        "request_id": ranking.request_id,
        "member_id": ranking.member_id,
        "surface": ranking.surface,
        "model_version": ranking.model_version,
        "cell": ranking.cell,
        "answer": ranking.answer,
        "reason": answer.reason,
        "time": _time(answer.time),
        "features_time": _time(answer.features_time),
        "age_s": 0.0 if answer.made_at is None else (answer.time - answer.made_at) / 1e6,
        "fallback": answer.fallback,
        "items": [
            {
                "title_id": candidate.title_id,
                "name": name,
                "position": position,
                "score": candidate.score,
                "contributions": candidate.contributions,
            }
            for position, (candidate, name) in enumerate(zip(ranking.candidates, answer.names, strict=True))
        ],
    }


def _events_answer(received: Received) -> dict[str, Any]:
    pairs = list(zip(received.event_ids, received.reasons, strict=True))
    good = [event_id for event_id, reason in pairs if reason is None]
    return {
        "accepted": len(good),
        "rejected": len(pairs) - len(good),
        "event_ids": good,
        "results": [
            {"event_id": event_id, "accepted": reason is None, "reason": reason} for event_id, reason in pairs
        ],
    }


def _split_state(parts: Parts, surface: str) -> dict[str, Any]:
    history = parts.splits.history(surface)
    rules = asdict(parts.splits.rules().get(surface, Rules()))
    return {
        "surface": surface,
        "weights": rules.pop("weights"),
        "rules": rules,
        "applied": dict(parts.recommender.weights(surface)),
        "history": [
            {
                "weights": dict(change.weights),
                "who": change.who,
                "why": change.why,
                "time": _time(change.time),
            }
            for change in history
        ],
    }


def _require(registry: Registry, model: str, version: str) -> None:
    try:
        registry.get(model, version)
    except NotFound as failure:
        raise InvalidInput(f"weights names version {version}: {failure}") from None


def _time(time_us: Any) -> str | None:
    return rfc3339(time_us) if isinstance(time_us, int) else None


def _problems_in_openapi(app: FastAPI, max_k: int) -> None:
    """Give problem answers their own media type, event bodies their schema, and k its limit."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = generate()
            for operations in document["paths"].values():
                for operation in operations.values():
                    _retype(operation["responses"])
                    guard.describe(operation)
            document["components"]["securitySchemes"] = guard.SECURITY_SCHEMES
            schemas = document["components"]["schemas"]
            for unused in ("HTTPValidationError", "ValidationError"):
                schemas.pop(unused, None)
            event = EventBody.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas.update(event.pop("$defs", {}))
            schemas["EventBody"] = event
            schemas["RecommendationRequest"]["properties"]["k"]["maximum"] = max_k
        assert app.openapi_schema is not None
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _retype(responses: dict[str, dict[str, Any]]) -> None:
    if "HTTPValidationError" in str(responses.get("422")):  # a path is any text: it cannot fail
        del responses["422"]
    for status, response in responses.items():
        if status >= "400" and "application/json" in response.get("content", {}):
            response["content"] = {problems.MEDIA_TYPE: response["content"]["application/json"]}


_MIXED: dict[int | str, dict[str, Any]] = {
    207: {"model": EventsAnswer, "description": "Some are accepted, some refused"}
}
_EVENT_REF: dict[str, Any] = {"$ref": "#/components/schemas/EventBody"}
_EVENTS_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {
                "oneOf": [
                    _EVENT_REF,
                    {"type": "array", "items": _EVENT_REF, "minItems": 1, "maxItems": MAX_EVENTS},
                ]
            }
        }
    },
}
