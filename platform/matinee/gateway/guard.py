"""What stands before each route: who calls, may they, how often. A route declares whom it lets in.

The guard wraps the route itself, so it knows the route without matching paths a second time, and it
decides before anything of the body is read.
"""

from __future__ import annotations

import asyncio
import math
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.routing import APIRoute
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from matinee.config import Gateway
from matinee.errors import Forbidden, MatineeError
from matinee.gateway import principal as principals
from matinee.gateway.auth import Authenticator
from matinee.gateway.limits import Limits
from matinee.gateway.principal import Principal, Refusal
from matinee.gateway.problems import MEDIA_TYPE, of_failure, problem, shown
from matinee.gateway.shedding import RETRY_AFTER_S, Flight, Flights, Traffic

EXTENSION = "x-matinee-scopes"
"""Where a route's operation says whom it lets in."""

TRAFFIC = "x-matinee-traffic"
"""Where it says how urgent it is."""

EVENT_QUICK_S = 1.0
"""A post of events that the broker acknowledged by then was not slow."""

SECURITY_SCHEMES: dict[str, Any] = {
    "token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
    "key": {"type": "http", "scheme": "bearer", "description": "An API key (matinee keys create)."},
}


def allow(*scopes: principals.Scope, traffic: Traffic | None = None) -> dict[str, Any]:
    """What a route declares as its `openapi_extra`: whom it lets in; nobody named: it is open to all.

    Where service may call, so may batch.

    Args:
        traffic: what gives way to what in an overload; None: page for members and services, else control.
    """
    held = (*scopes, "batch") if "service" in scopes else scopes
    security = [{name: list(held)} for name in SECURITY_SCHEMES] if held else []
    urgency = traffic or ("page" if {"member", "service"} & set(held) else "control")
    return {"security": security, EXTENSION: list(held), TRAFFIC: urgency}


class Guard:
    """The ASGI application of one route, behind its checks.

    Args:
        app: the route's own application.
        route: method and template.
        scopes: whom it lets in; empty: everyone.
        traffic: how urgent it is.
        flights: the requests that it shares the machine with.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        route: str,
        scopes: frozenset[str],
        traffic: Traffic,
        flights: Flights,
        gateway: Gateway,
        auth: Authenticator,
        limits: Limits,
    ) -> None:
        self._app = app
        self._route = route
        self._scopes = scopes
        self._traffic: Traffic = traffic
        self._flights = flights
        self._request_s = gateway.request_s
        self._auth = auth
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 401, 403, 429 or 503, or pass the request on with its principal and a deadline."""
        path = scope["path"]
        if (refusal := await self.refusal(scope) or self._shed(scope)) is not None:
            await refusal(scope, receive, send)
            return
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        async def heard() -> Message:
            message = await receive()
            if not message.get("more_body", False):
                flight.begin()
            return message

        try:
            with Flight(self._flights) as flight:
                if scope["method"] == "GET":
                    flight.begin()
                async with asyncio.timeout(self._request_s) as deadline:
                    await self._app(scope, heard, watched)
        except TimeoutError:
            if started or not deadline.expired():
                raise
            detail = f"the request took more than {self._request_s:g} s"
            await _busy(path, detail)(scope, receive, send)

    async def refusal(self, scope: Scope) -> Response | None:
        """Why the caller gets no answer, or None. It counts the request and tells it who its principal is."""
        try:
            return await self._refusal(scope)
        except MatineeError as failure:
            return of_failure(scope["method"], scope["path"], failure)

    async def _refusal(self, scope: Scope) -> Response | None:
        path = scope["path"]
        found = await self._auth.identify(scope) if self._scopes else None
        if isinstance(found, Principal):
            caller = found
        else:
            caller = Principal(kind="peer" if self._auth.on else "local", id=self._auth.peer(scope))
        state = scope.setdefault("state", {})
        state["principal"] = caller
        if wait := await self._limits.wait(caller, self._route):
            seconds = math.ceil(wait)
            detail = f"too many requests; the next may come in {seconds} s"
            return problem(path, 429, detail, headers={"retry-after": str(seconds)})
        if isinstance(found, Refusal):
            return problem(path, 401, found.reason, headers={"www-authenticate": 'Bearer realm="matinee"'})
        granted = self._scopes & caller.scopes
        if self._scopes and not granted:
            accepted = ", ".join(sorted(self._scopes))
            return problem(path, 403, f"the credential's scope is {caller.kind}; accepted here: {accepted}")
        if granted == _MEMBER and caller.kind != "local":
            state["member_id"] = caller.member_id
            asked = scope["path_params"].get("member_id", caller.member_id)
            if asked != caller.member_id:
                return problem(path, 403, _not_yours(asked))
        return None

    def _shed(self, scope: Scope) -> Response | None:
        """Why there is no place for the request now, or None."""
        batch = scope["state"]["principal"].kind == "batch" and self._traffic == "page"
        decision = self._flights.admit("batch" if batch else self._traffic)
        return None if decision.admit else _busy(scope["path"], decision.reason)


def install(app: FastAPI, gateway: Gateway, auth: Authenticator, limits: Limits) -> None:
    """Put a guard before every route of the application; call it once all are declared.

    Pages and batch traffic wait for the same cores; events for the broker; control for neither.

    Raises:
        ValueError: a route does not say whom it lets in.
    """
    pages, events, control = (Flights(gateway.quick_s), Flights(EVENT_QUICK_S), Flights(math.inf))
    flights = {"page": pages, "batch": pages, "event": events, "control": control}
    for route in app.routes:
        if isinstance(route, APIRoute):
            declared = route.openapi_extra or {}
            if EXTENSION not in declared:
                raise ValueError(f"route {route.path} declares nobody; give it openapi_extra=allow(...)")
            route.app = Guard(
                route.app,
                route=f"{min(route.methods or ())} {route.path}",
                scopes=frozenset(declared[EXTENSION]),
                traffic=declared[TRAFFIC],
                flights=flights[declared[TRAFFIC]],
                gateway=gateway,
                auth=auth,
                limits=limits,
            )
        elif not isinstance(route, Route) or route.path not in _OPEN:
            raise ValueError(
                f"{route} is no route that can be guarded; declare it with @app.get and its like"
            )


def _busy(path: str, detail: str) -> Response:
    return problem(path, 503, detail, headers={"retry-after": str(math.ceil(RETRY_AFTER_S))})


def describe(operation: dict[str, Any]) -> None:
    """Add to a route's OpenAPI operation the answers that are given before the route is asked."""
    statuses = [400, 414, 429, 431, 503]
    if operation.get(EXTENSION):
        statuses += [401, 403]
    if "requestBody" in operation:
        statuses += [408]
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    for status in statuses:
        described = {"description": HTTPStatus(status).phrase, "content": content}
        operation["responses"].setdefault(str(status), described)


def bound_to(request: Request) -> str | None:
    """The one member whom the request's token speaks for; None where it may speak for any."""
    member_id: str | None = getattr(request.state, "member_id", None)
    return member_id


def permit(request: Request, member_id: str) -> None:
    """Let a token of a member ask for that member alone; for routes whose body names the member.

    Raises:
        Forbidden: the request names another.
    """
    if bound_to(request) not in (None, member_id):
        raise Forbidden(_not_yours(member_id))


def _not_yours(member_id: str) -> str:
    return f"the token speaks for another member than {shown(member_id)}"


_MEMBER = frozenset(("member",))
_OPEN = frozenset(("/openapi.json", "/docs", "/docs/oauth2-redirect", "/redoc"))
"""FastAPI's own routes: they tell what the API is, and nothing of anybody."""
