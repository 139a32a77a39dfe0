"""What a body may be: JSON by its media type, no larger than the limit, and there in time."""

from __future__ import annotations

import asyncio

from fastapi import Request
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from matinee.gateway.problems import problem, shown


class BodyLimit:
    """ASGI middleware: 413 for a body above `limit` bytes, announced or counted, 408 for one that is slow.

    Args:
        limit: bytes.
        seconds: within which the whole body must have come.
    """

    def __init__(self, app: ASGIApp, *, limit: int, seconds: float) -> None:
        self._app = app
        self._limit = limit
        self._seconds = seconds

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
        whole = False
        deadline = asyncio.get_running_loop().time() + self._seconds

        async def counted() -> Message:
            nonlocal seen, whole
            if whole:  # what may still come is that the caller left
                return await receive()
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError:
                detail = f"the body is not whole after {self._seconds:g} s"
                raise HTTPException(408, detail, {"connection": "close"}) from None
            whole = not message.get("more_body", False)
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
