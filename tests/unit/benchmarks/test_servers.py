"""The load generator against a real server, and the search for what the server takes."""

from __future__ import annotations

import itertools
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from benchmarks.common import PeerFailed
from benchmarks.servers import homes, load, saturated, saturation, server
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from matinee.local.cluster import free_port
from matinee.serving.listener import Listener

CORE = min(os.sched_getaffinity(0))


@contextmanager
def served(*, work_s: float = 0.0, refuse: int = 0) -> Iterator[str]:
    """A server that works for a while on each request, one at a time, and refuses each `refuse`-th."""
    count = itertools.count(1)

    async def answer(request: Request) -> JSONResponse:
        time.sleep(work_s)
        status = 503 if refuse and next(count) % refuse == 0 else 200
        return JSONResponse({"path": request.url.path}, status)

    port = free_port()
    app = Starlette(routes=[Route("/{path:path}", answer)])
    listener = Listener(app, "127.0.0.1", port, keep_alive_s=5, drain_s=1)
    listener.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        listener.stop()


def test_every_request_is_answered_once_and_counted_by_its_status() -> None:
    with served(refuse=3) as url:
        found = load(url, homes(5), rate=200, seconds=1.0, core=CORE)
    assert found["unanswered"] == 0
    assert sum(found["statuses"].values()) == found["offered"] > 100
    assert found["statuses"]["503"] == found["offered"] // 3
    assert found["answered"] == found["statuses"]["200"]
    assert found["p50_ms"] <= found["p95_ms"] <= found["p99_ms"]


def test_waiting_for_a_server_that_is_behind_counts() -> None:
    with served(work_s=0.02) as url:
        found = load(url, homes(1), rate=100, seconds=1.0, core=CORE)
    assert found["p95_ms"] > 500
    assert saturated(found)


def test_saturation_is_found_between_what_goes_and_what_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.servers.PROBE_S", 1.0)
    monkeypatch.setattr("benchmarks.servers.STEPS", 1)
    monkeypatch.setattr("benchmarks.servers.SLOWEST_MS", 200.0)
    with served(work_s=0.02) as url:
        assert 10 < saturation(url, homes(1), core=CORE, first=15.0)["rate"] < 60


def test_another_machine_is_never_asked() -> None:
    with pytest.raises(PeerFailed, match="only one on loopback is asked"):
        load("http://192.0.2.1:80", homes(1), rate=1, seconds=0.1, core=CORE)


UP = """
import sys
print("the outer one's words", file=sys.stderr, flush=True)
print('{"url": "here"}', flush=True)
sys.stdin.read()
"""


def test_a_server_that_does_not_start_says_why_and_nothing_of_another() -> None:
    before = os.sched_getaffinity(0)
    with server([sys.executable, "-c", UP], core=CORE) as up:
        assert up == {"url": "here"}
        failing = [sys.executable, "-c", "raise SystemExit('no room for it')"]
        with pytest.raises(PeerFailed, match="did not start: no room for it") as raised:
            server(failing, core=CORE).__enter__()
    assert "outer" not in str(raised.value)
    assert os.sched_getaffinity(0) == before
