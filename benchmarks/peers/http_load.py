"""Asks a server on loopback for paths at a given rate, open loop: requests leave when they are due.

Arrivals are drawn (Poisson). A latency counts from the moment its request was due, so a server that falls
behind is seen to. Requests wait here for one of a fixed number of connections; there is no pipelining.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter, deque
from typing import Any
from urllib.parse import urlsplit

MOST_SECONDS = 120.0
MOST_REQUESTS = 2_000_000
LATE_S = 10.0
"""How long answers are waited for after the last request."""


class Connection(asyncio.Protocol):
    """One keep-alive connection: a request at a time, answers with a content-length."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._buffer = b""
        self._due: float | None = None
        self._transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._load.free(self)

    def send(self, due: float, request: bytes) -> None:
        self._due = due
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._buffer = self._buffer + data if self._buffer else data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self._buffer[:end].lower()
        at = head.find(b"content-length:")
        length = int(head[at + 15 : head.find(b"\r", at) if b"\r" in head[at:] else None])
        if len(self._buffer) < end + 4 + length:
            return
        body = self._buffer[end + 4 :]
        self._buffer = b""
        due, self._due = self._due, None
        assert due is not None
        self._load.answered(due, int(head[9:12]), body)
        self._load.free(self)

    def connection_lost(self, failure: Exception | None) -> None:
        if self._due is not None:
            self._load.answered(self._due, 0, b"")
        self._load.lost(self)


class Load:
    """A run of requests.

    Args:
        url: a server on loopback.
        requests: whole requests as bytes, taken in turn.
        rate: requests a second.
        seconds: how long.
        connections: most.
        seed: of the arrivals.
    """

    def __init__(
        self, url: str, requests: list[bytes], *, rate: float, seconds: float, connections: int, seed: int
    ) -> None:
        parts = urlsplit(url)
        if parts.hostname not in ("127.0.0.1", "localhost") or parts.port is None:
            raise ValueError(f"server {url}: only one on loopback is asked")
        self._host, self._port = parts.hostname, parts.port
        self._requests = requests
        self._rate, self._seconds = rate, min(seconds, MOST_SECONDS)
        self._connections = connections
        self._random = random.Random(seed)
        self._idle: list[Connection] = []
        self._waiting: deque[float] = deque()
        self._open = 0
        self._sent = 0
        self.latencies: list[float] = []
        self.statuses: Counter[int] = Counter()
        self.body_bytes = 0

    def free(self, connection: Connection) -> None:
        if self._waiting:
            self._send(connection, self._waiting.popleft())
        else:
            self._idle.append(connection)

    def lost(self, connection: Connection) -> None:
        self._open -= 1
        if connection in self._idle:
            self._idle.remove(connection)

    def answered(self, due: float, status: int, body: bytes) -> None:
        self.statuses[status] += 1
        if status == 200:
            self.latencies.append(time.perf_counter() - due)
            self.body_bytes = self.body_bytes or len(body)

    async def run(self) -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        for _ in range(self._connections):
            await self._connect(loop)
        begun = due = time.perf_counter()
        count = 0
        while count < MOST_REQUESTS:
            due += self._random.expovariate(self._rate)
            if due > begun + self._seconds:
                break
            wait = due - time.perf_counter()
            if wait > 0.0005 or count % 64 == 0:
                await asyncio.sleep(max(wait, 0))
            if self._open < self._connections:
                await self._connect(loop)
            count += 1
            if self._idle:
                self._send(self._idle.pop(), due)
            else:
                self._waiting.append(due)
        last = time.perf_counter() + LATE_S
        while self.statuses.total() < count and time.perf_counter() < last:
            await asyncio.sleep(0.005)
        elapsed = time.perf_counter() - begun
        found = sorted(self.latencies)
        return {
            "offered": count,
            "answered": len(found),
            "unanswered": count - self.statuses.total(),
            "statuses": {str(status): number for status, number in self.statuses.items()},
            "seconds": elapsed,
            "rate": len(found) / elapsed,
            **{f"p{p}_ms": _quantile(found, p / 100) * 1e3 for p in (50, 95, 99)},
            "bytes": self.body_bytes,
        }

    def _send(self, connection: Connection, due: float) -> None:
        connection.send(due, self._requests[self._sent % len(self._requests)])
        self._sent += 1

    async def _connect(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            await loop.create_connection(lambda: Connection(self), self._host, self._port)
            self._open += 1
        except OSError:
            await asyncio.sleep(0.01)


def _quantile(ordered: list[float], share: float) -> float:
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else float("nan")


def http(method: str, target: str, body: bytes = b"") -> bytes:
    """A request as bytes."""
    head = f"{method} {target} HTTP/1.1\r\nhost: 127.0.0.1\r\n"
    if body:
        head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n"
    return head.encode() + b"\r\n" + body


def main() -> None:
    import uvloop
    from exchange import answer, request

    asked = request()
    requests = [
        http(each["method"], each["target"], each.get("body", "").encode()) for each in asked.pop("requests")
    ]
    answer(**uvloop.run(Load(asked.pop("url"), requests, **asked).run()))


if __name__ == "__main__":
    main()
