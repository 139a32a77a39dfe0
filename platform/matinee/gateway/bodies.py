"""What a body may be: JSON by its media type, and no larger than the limit, however it is sent."""

from __future__ import annotations

from fastapi import Request
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from matinee.gateway.problems import problem, shown


class BodyLimit:
    """ASGI middleware: answers 413 for a body above `limit` bytes, announced or counted while reading."""

    def __init__(self, app: ASGIApp, *, limit: int) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with a counted body."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        announced = Headers(scope=scope).get("content-length", "")
        if announced.isdecimal() and int(announced) > self._limit:
            refusal = problem(scope["path"], 413, self._detail(f"{int(announced)} bytes"))
            await refusal(scope, receive, send)
            return
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self._limit:
                raise HTTPException(413, self._detail(f"above {self._limit} bytes"))
            return message

        await self._app(scope, counted, send)

    def _detail(self, size: str) -> str:
        return f"the body is {size}; accepted: up to {self._limit} bytes"


async def json_only(request: Request) -> None:
    """A route's dependency: refuses a body that does not say it is JSON.

    Raises:
        HTTPException: 415.
    """
    given = request.headers.get("content-type", "")
    kind = given.partition(";")[0].strip().lower()
    if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
        what = f"content-type {shown(given)}" if given else "no content-type"
        raise HTTPException(415, f"the body has {what}; accepted: application/json")
