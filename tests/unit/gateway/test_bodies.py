"""Size and media type of bodies, on an application that only counts them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from fastapi import Depends, FastAPI, Request

from matinee.gateway import problems
from matinee.gateway.bodies import BodyLimit, json_only


@pytest.fixture
def client(call: Any) -> Any:
    app = FastAPI()
    problems.install(app)
    app.add_middleware(BodyLimit, limit=100, seconds=0.2)

    @app.post("/raw", dependencies=[Depends(json_only)])
    async def raw(request: Request) -> int:
        return len(await request.body())

    @app.post("/parsed", dependencies=[Depends(json_only)])
    async def parsed(body: list[int]) -> int:
        return len(body)

    return call(app)


def chunks(size: int) -> Iterator[bytes]:
    for _ in range(size // 10):
        yield b"1,1,1,1,1,"


@pytest.mark.parametrize("path", ["/raw", "/parsed"])
@pytest.mark.parametrize("announced", [True, False])
def test_a_body_above_the_limit_is_413(client: Any, path: str, announced: bool) -> None:
    body = b"[" + b"1," * 60 + b"1]" if announced else chunks(200)
    answer = client.post(path, content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 413
    assert answer.headers["content-type"] == "application/problem+json"
    assert "accepted: up to 100 bytes" in answer.json()["detail"]


def test_a_body_that_does_not_come_is_408(client: Any) -> None:
    async def drip() -> AsyncIterator[bytes]:
        yield b"[1"
        await asyncio.sleep(0.3)
        yield b"]"

    for path in ("/raw", "/parsed"):
        answer = client.post(path, content=drip(), headers={"content-type": "application/json"})
        assert answer.status_code == 408
        assert answer.headers["connection"] == "close"


def test_a_body_at_the_limit_passes(client: Any) -> None:
    for body in (b"x" * 100, chunks(100)):
        assert client.post("/raw", content=body, headers={"content-type": "application/json"}).json() == 100


@pytest.mark.parametrize("kind", ["text/plain", "", "application/x-www-form-urlencoded", "json"])
@pytest.mark.parametrize("path", ["/raw", "/parsed"])
def test_a_body_that_does_not_say_json_is_415(client: Any, path: str, kind: str) -> None:
    answer = client.post(path, content=b"[1]", headers={"content-type": kind} if kind else {})
    assert answer.status_code == 415
    assert "accepted: application/json" in answer.json()["detail"]


@pytest.mark.parametrize("kind", ["application/json;charset=utf-8", "APPLICATION/JSON", "application/x+json"])
def test_json_by_any_of_its_names_passes(client: Any, kind: str) -> None:
    assert client.post("/parsed", content=b"[1]", headers={"content-type": kind}).json() == 1
