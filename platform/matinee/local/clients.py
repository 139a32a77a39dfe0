"""Clients of the API, as applications would use it: they measure what a member would feel."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

import numpy as np

from matinee.client import bearer
from matinee.errors import Unavailable

TIMEOUT_S = 30.0


class Client:
    """One keep-alive connection a thread; leaving the block closes them all.

    It repeats nothing and adds as little as it can, because what it takes is measured; applications use
    `matinee.client`.

    Args:
        token: an API key or a token; "": none.

    Raises:
        InvalidInput: no header can hold the token.
    """

    def __init__(self, url: str, token: str = "") -> None:
        self._netloc = urlsplit(url).netloc
        self._headers = bearer(token)
        self._local = threading.local()
        self._connections: list[http.client.HTTPConnection] = []

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *failure: object) -> None:
        for connection in self._connections:
            connection.close()

    def call(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """Status and decoded JSON (text where it is not JSON).

        Raises:
            OSError: the API does not answer.
        """
        connection = getattr(self._local, "connection", None)
        if connection is None:
            connection = http.client.HTTPConnection(self._netloc, timeout=TIMEOUT_S)
            self._local.connection = connection
            self._connections.append(connection)
        payload = None if body is None else json.dumps(body).encode()
        headers = self._headers if payload is None else self._headers | {"content-type": "application/json"}
        try:
            connection.request(method, path, payload, headers)
            answer = connection.getresponse()
            text = answer.read()
        except (http.client.HTTPException, OSError) as failure:
            connection.close()
            raise ConnectionError(f"{method} {path}: {failure}") from None
        return answer.status, json.loads(text) if "json" in answer.headers["content-type"] else text.decode()

    def recommend(self, member_id: str, k: int = 20) -> tuple[int, Any]:
        """Ask for a ranking."""
        return self.call("POST", "/v1/recommendations", {"member_id": member_id, "k": k})


def wait_ready(client: Client, *, timeout_s: float) -> None:
    """Return when the API is ready.

    Raises:
        Unavailable: it is not within `timeout_s`.
    """
    deadline = time.monotonic() + timeout_s
    answer: object = "no answer"
    while time.monotonic() < deadline:
        try:
            status, answer = client.call("GET", "/readyz")
            if status == 200:
                return
        except OSError as failure:
            answer = failure
        time.sleep(0.2)
    raise Unavailable(f"the API is not ready after {timeout_s:.0f} s: {answer}")


@dataclass(frozen=True, kw_only=True)
class Load:
    """What a run of requests met: counts, and latencies in milliseconds."""

    count: int
    failed: int
    p50_ms: float
    p95_ms: float


def load(
    client: Client,
    member_ids: Sequence[str],
    *,
    requests: int,
    clients: int,
    tick: Callable[[], None] = lambda: None,
) -> Load:
    """Ask for `requests` rankings from `clients` threads, members in turn; a non-200 answer failed."""

    def one(i: int) -> tuple[bool, float]:
        start = time.perf_counter()
        try:
            status, _ = client.recommend(member_ids[i % len(member_ids)])
        except OSError:
            status = 0
        tick()
        return status == 200, (time.perf_counter() - start) * 1e3

    with ThreadPoolExecutor(clients) as pool:
        results = list(pool.map(one, range(requests)))
    latencies = np.array([latency for _, latency in results])
    return Load(
        count=len(results),
        failed=sum(not good for good, _ in results),
        p50_ms=float(np.percentile(latencies, 50)),
        p95_ms=float(np.percentile(latencies, 95)),
    )


@dataclass(frozen=True, kw_only=True)
class Freshness:
    """How soon a posted event counts: seconds from the post to the member's online features.

    Args:
        lost: posts that were refused or not seen within the time limit.
        still_shown: titles that the next ranking showed although they were just watched.
    """

    posts: int
    lost: int
    still_shown: int
    p50: float
    p99: float


def freshness(
    client: Client,
    member_ids: Sequence[str],
    *,
    clients: int = 4,
    timeout_s: float = 20.0,
    tick: Callable[[], None] = lambda: None,
) -> Freshness:
    """Let each member play the first title of their page, and watch for its effects."""

    def one(member_id: str) -> tuple[float | None, bool]:
        _, page = client.recommend(member_id)
        title_id = page["items"][0]["title_id"]
        event = {
            "type": "play",
            "member_id": member_id,
            "title_id": title_id,
            "event_time": time.time_ns() // 1000,
            "surface": page["surface"],
            "request_id": page["request_id"],
            "model_version": page["model_version"],
            "cell": page["cell"],
        }
        start = time.perf_counter()
        status, _ = client.call("POST", "/v1/events", event)
        seconds = _seen(client, member_id, title_id, start, timeout_s) if status == 202 else None
        _, page = client.recommend(member_id)
        tick()
        return seconds, any(item["title_id"] == title_id for item in page["items"])

    with ThreadPoolExecutor(clients) as pool:
        results = list(pool.map(one, member_ids))
    seconds = np.array([found for found, _ in results if found is not None] or [np.nan])
    return Freshness(
        posts=len(results),
        lost=sum(found is None for found, _ in results),
        still_shown=sum(shown for _, shown in results),
        p50=float(np.percentile(seconds, 50)),
        p99=float(np.percentile(seconds, 99)),
    )


def _seen(client: Client, member_id: str, title_id: str, start: float, timeout_s: float) -> float | None:
    while (elapsed := time.perf_counter() - start) < timeout_s:
        status, answer = client.call("GET", f"/v1/members/{quote(member_id, safe='')}/features")
        if status == 200 and title_id in answer["features"]["last_title_ids"]:
            return elapsed
        time.sleep(0.01)
    return None
