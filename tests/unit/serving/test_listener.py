"""The listener: real sockets, an application of its own."""

from __future__ import annotations

import asyncio
import http.client
import threading
from collections.abc import Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from matinee.errors import Unavailable
from matinee.serving.listener import Listener, shared_socket


def application(name: str, events: list[str], *, fails: bool = False) -> Starlette:
    @asynccontextmanager
    async def lifespan(_: object) -> Any:
        if fails:
            raise ValueError("no start")
        events.append("started")
        yield
        events.append("ended")

    async def answer(request: Request) -> PlainTextResponse:
        await asyncio.sleep(float(request.query_params.get("s", 0)))
        return PlainTextResponse(name)

    return Starlette(routes=[Route("/", answer)], lifespan=lifespan)


@contextmanager
def free_port() -> Iterator[int]:
    with shared_socket("127.0.0.1", 0) as held:
        yield held.getsockname()[1]


def listening(app: Starlette, port: int) -> Listener:
    return Listener(app, "127.0.0.1", port, keep_alive_s=5, drain_s=5)


def get(port: int, path: str = "/") -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", path)
    text = connection.getresponse().read().decode()
    connection.close()
    return text


def test_a_second_listener_takes_over_from_the_first_without_a_gap() -> None:
    events: list[str] = []
    with free_port() as port:
        first, second = (listening(application(name, events), port) for name in ("first", "second"))
        first.start()
        assert get(port) == "first"
        second.start()
        assert {get(port) for _ in range(40)} == {"first", "second"}
        first.stop()
        assert not first.alive
        assert {get(port) for _ in range(20)} == {"second"}
        second.stop()
    assert events == ["started", "started", "ended", "ended"]


def test_requests_under_way_end_before_it_stops() -> None:
    with free_port() as port:
        listener = listening(application("late", []), port)
        listener.start()
        found: list[str] = []
        asking = threading.Thread(target=lambda: found.append(get(port, "/?s=0.5")))
        asking.start()
        threading.Event().wait(0.2)
        listener.stop()
        asking.join()
        assert found == ["late"]


def test_an_application_that_does_not_start_is_said_so() -> None:
    with free_port() as port, pytest.raises(Unavailable, match="did not start"):
        listening(application("", [], fails=True), port).start()
