"""Online features over HTTP: one lean ASGI application that can run alone.

    POST /v1/features   {"service": "serving"} or {"features": ["view:feature", "view:*"]}, and
                        "entities": the keys of one entity
    GET  /healthz       the process answers
    GET  /readyz        the online store answers and holds something

An answer lists the keys, and for each view its features as columns aligned with them:

    {"entity": "member_id", "entities": ["m1", "m2"],
     "views": [{"view": "member_activity", "statuses": ["PRESENT", "NOT_FOUND"],
                "event_times": ["2026-01-02T03:04:05.000006Z", null],
                "values": {"plays_1h": [3, null]}}]}

A status is PRESENT, NOT_FOUND, or OUTSIDE_MAX_AGE where the row is older than the view's time to live.
Every answer from 400 up is a problem document.
"""

from __future__ import annotations

import asyncio
import base64
from typing import Any, Protocol

import orjson
from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope, Send

from matinee.config import Settings
from matinee.errors import ConfigError, InvalidInput, Unavailable
from matinee.events.encode import rfc3339
from matinee.gateway.auth import is_loopback
from matinee.gateway.problems import of_failure, problem, shown

MAX_ENTITIES = 10_000
MAX_FEATURES = 2_000

_INLINE_ENTITIES = 256
"""Larger reads of SQLite go to a thread, so that they hold up nobody; so does every read of another store."""
_JSON = [(b"content-type", b"application/json")]
_FIELDS = {"service", "features", "entities"}
_ROUTES = {"/v1/features": "POST", "/healthz": "GET", "/readyz": "GET"}


class Store(Protocol):
    """What the application needs of `features.store.FeatureStore`."""

    def key_of(self, features: str | list[str]) -> str:
        """The join key."""

    def read_views(self, features: str | list[str], keys: list[str]) -> list[Any]:
        """A `ViewRows` for each view."""

    def generation(self) -> str | None:
        """None where the store holds nothing."""


class FeaturesApp:
    """The ASGI application.

    Args:
        settings: which online store, and `serving.max_body_bytes`.
        store: the features.
    """

    def __init__(self, settings: Settings, store: Store) -> None:
        self._store = store
        self._limit = settings.serving.max_body_bytes
        self._inline = _INLINE_ENTITIES if settings.features.online_store == "sqlite" else 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            assert scope["type"] == "lifespan", scope["type"]
            await _lifespan(receive, send)
            return
        path = scope["path"]
        try:
            body = await self._answer(scope, receive)
        except _Refused as refused:
            response = problem(path, refused.status, str(refused), headers=refused.headers)
            await response(scope, receive, send)
        except Exception as failure:
            await of_failure(scope["method"], path, failure)(scope, receive, send)
        else:
            head = [*_JSON, (b"content-length", str(len(body)).encode())]
            await send({"type": "http.response.start", "status": 200, "headers": head})
            await send({"type": "http.response.body", "body": body})

    async def _answer(self, scope: Scope, receive: Receive) -> bytes:
        path = scope["path"]
        accepted = _ROUTES.get(path)
        if accepted is None:
            raise _Refused(404, f"nothing is at {shown(path)}; there are {', '.join(_ROUTES)}")
        if scope["method"] != accepted:
            detail = f"{scope['method']} is not accepted at {path}; accepted: {accepted}"
            raise _Refused(405, detail, headers={"allow": accepted})
        if path == "/healthz":
            return b'{"status":"ok"}'
        if path == "/readyz":
            if await asyncio.to_thread(self._store.generation) is None:
                raise Unavailable("the online store holds nothing yet")
            return b'{"status":"ok"}'
        _check_type(scope)
        features, entities = parse(await self._body(receive))
        if len(entities) <= self._inline:
            return self._features(features, entities)
        return await asyncio.to_thread(self._features, features, entities)

    def _features(self, features: str | list[str], entities: list[str]) -> bytes:
        views = [
            {
                "view": found.view,
                "statuses": found.statuses,
                "event_times": [None if time is None else rfc3339(time) for time in found.times],
                "values": dict(zip(found.names, found.columns(), strict=True)),
            }
            for found in self._store.read_views(features, entities)
        ]
        answer = {"entity": self._store.key_of(features), "entities": entities, "views": views}
        return orjson.dumps(answer, default=_plain)

    async def _body(self, receive: Receive) -> bytes:
        body = b""
        while True:
            message: Message = await receive()
            chunk: bytes = message.get("body", b"")
            body += chunk
            if len(body) > self._limit:
                raise _Refused(413, f"the body is above {self._limit} bytes, the most that is accepted")
            if not message.get("more_body", False):
                return body


def parse(body: bytes) -> tuple[str | list[str], list[str]]:
    """What a request's body asks for.

    Returns:
        The service or the references, and the keys.

    Raises:
        InvalidInput: the body is JSON, but not of the form that is accepted.
        _Refused: 400, the body is not JSON.
    """
    try:
        asked = orjson.loads(body)
    except orjson.JSONDecodeError as failure:
        raise _Refused(400, f"the body is not JSON: {failure}") from None
    if not isinstance(asked, dict):
        raise InvalidInput(f"the body is {shown(asked)}; accepted: a JSON object")
    if unknown := sorted(asked.keys() - _FIELDS):
        raise InvalidInput(f"{shown(unknown[0])} is not a known field; known: {', '.join(sorted(_FIELDS))}")
    if ("service" in asked) == ("features" in asked):
        raise InvalidInput("exactly one of service and features is needed")
    entities = _texts(asked, "entities", MAX_ENTITIES)
    if "features" in asked:
        return _texts(asked, "features", MAX_FEATURES), entities
    service = asked["service"]
    if not isinstance(service, str):
        raise InvalidInput(f"service is {shown(service)}; accepted: a name")
    return service, entities


def build(settings: Settings) -> FeaturesApp:
    """The application over the settings' online store. Imports Feast: some seconds.

    Raises:
        Unavailable: the store was never applied.
    """
    from matinee.features.store import FeatureStore

    store = FeatureStore(settings)
    store.views()
    return FeaturesApp(settings, store)


def serve(settings: Settings, host: str = "127.0.0.1", port: int = 0) -> None:
    """Run the application until the process is asked to end. It is meant for this machine alone.

    Args:
        host: a loopback address.
        port: 0: a free one, which the log says.

    Raises:
        ConfigError: another address than loopback; these answers have no authentication.
    """
    import uvicorn

    if not is_loopback(host):
        raise ConfigError(f"serving.host is {host!r}; features are served on loopback alone, 127.0.0.1")

    uvicorn.run(build(settings), host=host, port=port, log_level="info", access_log=False, lifespan="off")


class _Refused(Exception):
    """A request that is answered by a problem."""

    def __init__(self, status: int, detail: str, *, headers: dict[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.headers = headers


def _check_type(scope: Scope) -> None:
    given = Headers(scope=scope).get("content-type", "")
    if given.partition(";")[0].strip().lower() != "application/json":
        what = f"content-type {shown(given)}" if given else "no content-type"
        raise _Refused(415, f"the body has {what}; accepted: application/json")


def _texts(asked: dict[str, Any], field: str, most: int) -> list[str]:
    if field not in asked:
        raise InvalidInput(f"{field} is missing")
    held = asked[field]
    if not isinstance(held, list) or not all(isinstance(each, str) for each in held):
        raise InvalidInput(f"{field} is {shown(held)}; accepted: a list of texts")
    if not 1 <= len(held) <= most:
        raise InvalidInput(f"{field} has {len(held)} entries; accepted: 1 to {most}")
    return held


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return list(value) if isinstance(value, set | frozenset | tuple) else str(value)


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
