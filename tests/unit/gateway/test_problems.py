"""Every error becomes a problem document that says what to do and shows no insides."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from fastapi import FastAPI
from pydantic import Field

from matinee.errors import ConfigError, InvalidInput, MatineeError, NotFound, StorageError, Unavailable
from matinee.gateway import problems
from matinee.gateway.messages import RecommendationRequest

RAISED: dict[str, Exception] = {
    "invalid": InvalidInput("k is 0; accepted: 1 to 5"),
    "missing": NotFound("no such thing"),
    "down": Unavailable("broker b does not answer", retry_after_s=2.5),
    "full": StorageError("no space"),
    "config": ConfigError("wrong"),
    "bug": ZeroDivisionError("secret insides"),
}


@pytest.fixture
def client(call: Any) -> Any:
    app = FastAPI()
    problems.install(app)

    @app.get("/raise/{what}")
    async def fail(what: str) -> None:
        raise RAISED[what]

    @app.post("/body")
    async def take(body: RecommendationRequest) -> str:
        return body.member_id

    @app.post("/list")
    async def take_list(body: Annotated[list[int], Field(max_length=2)]) -> int:
        return len(body)

    return call(app)


@pytest.mark.parametrize(
    ("what", "status"),
    [("invalid", 422), ("missing", 404), ("down", 503), ("full", 503), ("config", 500), ("bug", 500)],
)
def test_errors_map_to_statuses(client: Any, what: str, status: int) -> None:
    answer = client.get(f"/raise/{what}")
    document = answer.json()
    assert answer.status_code == document["status"] == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert set(document) == {"type", "title", "status", "detail", "instance"}
    assert document["instance"] == f"/raise/{what}"
    if isinstance(RAISED[what], MatineeError):
        assert document["detail"] == str(RAISED[what])
    else:
        assert "secret" not in answer.text
        assert "Traceback" not in answer.text


def test_unavailable_says_when_to_retry(client: Any) -> None:
    assert client.get("/raise/down").headers["retry-after"] == "3"


def test_unknown_path_and_wrong_method(client: Any) -> None:
    unknown, wrong = client.get("/nowhere"), client.get("/body")
    assert (unknown.status_code, wrong.status_code) == (404, 405)
    assert "'/nowhere'" in unknown.json()["detail"]
    assert wrong.headers["allow"] == "POST"
    assert "accepted: POST" in wrong.json()["detail"]


@pytest.mark.parametrize(
    "body", [b"{", b"", b"\xff\xfe{}", b"[" * 100_000, b'{"member_id": ' + b"9" * 5000 + b"}"]
)
def test_broken_json_is_400_or_422(client: Any, body: bytes) -> None:
    answer = client.post("/body", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == (400 if body else 422)
    assert answer.json()["detail"]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"member_id": 5}', "member_id is 5:"),
        (b'{"member_id": ""}', "member_id is ''"),
        (b'{"member_id": "m", "k": "ten"}', "k is 'ten'"),
        (b'{"member_id": "m", "k": true}', "k is True"),
        (b'{"member_id": "m", "k": 2.5}', "k is 2.5"),
        (b'{"member_id": "m", "k": NaN}', "k is nan"),
        (b'{"member_id": "m", "kk": 1}', "kk is not a known field"),
        (b'{"member_id": "m", "filters": {"genre": []}}', "filters.genre is not a known field"),
        (b'{"member_id": "m", "filters": {"max_maturity": -1}}', "filters.max_maturity is -1"),
        (b'{"member_id": "m", "filters": null}', "filters is None"),
        (b'{"member_id": "\\ud800"}', "member_id is '\\ud800'"),
        (b"{}", "member_id is missing"),
        (b"[]", "body is []"),
        (b'"m"', "body is 'm'"),
    ],
)
def test_a_wrong_field_is_named_with_its_value(client: Any, body: bytes, expected: str) -> None:
    answer = client.post("/body", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 422
    assert expected in answer.json()["detail"]
    assert answer.json()["errors"]


def test_long_values_are_cut() -> None:
    assert len(problems.shown("x" * 1000)) == 80
    assert problems.shown("a\nb") == "'a\\nb'"
