"""A server that answers with what it was asked and notes it: python echo_server.py PORT LOG.

/status/N answers N, /login a page; /busy/X answers 503 twice, with a Retry-After of 1 s for X = polite,
else an hour.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import uvicorn


class Echo:
    """The ASGI application."""

    def __init__(self, log: Path) -> None:
        self._log = log.open("a", buffering=1)
        self._asked: Counter[str] = Counter()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        seen = {
            "method": scope["method"],
            "path": scope["raw_path"].decode(),
            "query": scope["query_string"].decode(),
            "body": json.loads(body) if body else None,
            "token": headers.get("authorization"),
            "id": headers.get("x-request-id"),
        }
        print(json.dumps(seen), file=self._log)
        await asyncio.sleep(0.002)
        status, more_headers, answer = self._answer(scope["path"], seen)
        kind = b"application/json" if status < 400 else b"application/problem+json"
        await send(
            {
                "type": "http.response.start",
                "status": status,
                "headers": [(b"content-type", kind), *more_headers],
            }
        )
        await send({"type": "http.response.body", "body": answer})

    def _answer(self, path: str, seen: Any) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        first, _, rest = path.strip("/").partition("/")
        if first == "login":
            return 200, [], b"<html>who are you?"
        if first == "page":
            return 502, [], b"<html>bad gateway"
        if first == "status":
            document = {"type": "urn:x", "title": "T", "status": int(rest), "detail": "D", "new": 1}
            return int(rest), [], json.dumps(document).encode()
        self._asked[path] += 1
        if first == "busy" and self._asked[path] <= 2:
            return 503, [(b"retry-after", b"1" if rest == "polite" else b"3600")], b"{}"
        return 200, [], json.dumps(seen).encode()


if __name__ == "__main__":
    port, log = sys.argv[1:]
    uvicorn.run(Echo(Path(log)), host="127.0.0.1", port=int(port), log_level="error", lifespan="off")
