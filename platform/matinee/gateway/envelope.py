"""The outermost layer: every request gets an id and is counted, timed and logged; malformed ones end here."""

from __future__ import annotations

import asyncio
import os
import re
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import orjson
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from matinee.config import Settings
from matinee.errors import StorageError
from matinee.gateway.metrics import Metrics
from matinee.gateway.problems import REQUEST_ID, of_failure, problem, shown

HEADER = b"x-request-id"
MAX_LOG_BYTES = 64 << 20
"""Of a replica's access log; at this size it becomes `<name>.1`, in place of the one before."""

_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class AccessLog:
    """A JSON line for each request, without anything of what was asked: no ids, queries, bodies, secrets.

    Args:
        path: the file; None: standard error.

    Raises:
        StorageError: the file cannot be written.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._size = 0
        self._lines: list[bytes] = []
        self._file = sys.stderr.fileno() if path is None else self._open(path)

    def put(self, **fields: object) -> None:
        """Add a line; `flush` writes it."""
        line = orjson.dumps({"time": datetime.now(UTC), **fields}, option=orjson.OPT_UTC_Z) + b"\n"
        if self._path is not None and self._size + len(line) > MAX_LOG_BYTES:
            self.close()
            self._path.replace(self._path.with_name(f"{self._path.name}.1"))
            self._file = self._open(self._path)
        self._size += len(line)
        self._lines.append(line)

    def flush(self) -> None:
        """Write what was added. A full disk loses lines, not requests."""
        lines, self._lines = self._lines, []
        if not lines:
            return
        try:
            os.write(self._file, b"".join(lines))
        except OSError:
            return

    def close(self) -> None:
        """Write what was added, and close the file."""
        self.flush()
        if self._path is not None:
            os.close(self._file)

    def _open(self, path: Path) -> int:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
            self._size = os.fstat(file).st_size
        except OSError as failure:
            raise StorageError(f"access log {path}: {failure.strerror}") from None
        return file


def access_log(settings: Settings) -> AccessLog | None:
    """The access log that the settings ask for."""
    match settings.gateway.access_log:
        case "file":
            return AccessLog(settings.paths.logs / f"access-{os.getpid()}.jsonl")
        case "stderr":
            return AccessLog(None)
        case "off":
            return None


class Envelope:
    """ASGI middleware around everything else.

    Args:
        metrics: counts requests by route and status.
        log: the access log, or None.
        max_header_bytes: of all headers together; above, the answer is 431.
        max_path_bytes: above, the answer is 414.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        metrics: Metrics,
        log: AccessLog | None,
        max_header_bytes: int,
        max_path_bytes: int,
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._log = log
        self._flushing = False
        self._max_header = max_header_bytes
        self._max_path = max_path_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a well-formed request on; whatever is raised becomes a problem document."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start = time.perf_counter()
        state = scope.setdefault("state", {})
        size, request_id = _read(scope["headers"])
        state["request_id"] = request_id
        REQUEST_ID.set(request_id)
        status = 0

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message.setdefault("headers", []).append((HEADER, request_id.encode()))
            await send(message)

        try:
            refusal = self._refusal(scope, size)
            await (self._app if refusal is None else refusal)(scope, receive, watched)
        except Exception as failure:
            if status:
                raise
            await of_failure(scope["method"], scope["path"], failure)(scope, receive, watched)
        finally:
            seconds = time.perf_counter() - start
            route = getattr(scope.get("route"), "path", "unmatched")
            self._metrics.request(route, scope["method"], status or 499, seconds)
            if self._log is not None:
                caller = state.get("principal")
                self._written_soon(self._log)
                self._log.put(
                    method=scope["method"],
                    route=route,
                    status=status or 499,
                    ms=round(seconds * 1e3, 3),
                    request_id=request_id,
                    caller=caller.kind if caller else None,
                    **({"trace_id": state["trace_id"]} if "trace_id" in state else {}),
                )

    def _written_soon(self, log: AccessLog) -> None:
        """One write for all requests that end in one turn of the event loop."""

        def write() -> None:
            self._flushing = False
            log.flush()

        if not self._flushing:
            self._flushing = True
            asyncio.get_running_loop().call_soon(write)

    def _refusal(self, scope: Scope, header_bytes: int) -> Response | None:
        path = scope["path"]
        if len(scope.get("raw_path") or path) + len(scope["query_string"]) > self._max_path:
            return problem(path[:256], 414, f"the path is too long; accepted: up to {self._max_path} bytes")
        if header_bytes > self._max_header:
            detail = f"the headers have {header_bytes} bytes; accepted: up to {self._max_header}"
            return problem(path, 431, detail)
        if _CONTROL.search(path):
            return problem(path, 400, f"the path {shown(path)} has control characters")
        return None


def _read(headers: list[tuple[bytes, bytes]]) -> tuple[int, str]:
    """The size of the headers, and the request's id: the caller's where it is well formed, else a new one."""
    size, given = 0, b""
    for name, value in headers:
        size += len(name) + len(value) + 4
        if name == HEADER:
            given = value
    return size, given.decode() if given and _ID.fullmatch(given) else os.urandom(16).hex()
