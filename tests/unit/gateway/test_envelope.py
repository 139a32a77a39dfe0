"""What every request meets first and last: its id, its line in the log, its place in the figures."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from matinee.config import load_settings
from matinee.errors import StorageError
from matinee.gateway import envelope
from matinee.gateway.envelope import AccessLog, Envelope, access_log
from matinee.gateway.metrics import Metrics


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(exposures=lambda: (0, 0), splits=dict)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "logs" / "access.jsonl"


@pytest.fixture
def client(metrics: Metrics, path: Path, call: Any) -> Iterator[Any]:
    async def answer(request: Request) -> PlainTextResponse:
        if request.path_params["name"] == "bug":
            raise ZeroDivisionError("secret insides")
        return PlainTextResponse(request.state.request_id, 418)

    log = AccessLog(path)
    layer = Middleware(Envelope, metrics=metrics, log=log, max_header_bytes=2000, max_path_bytes=500)
    made = call(Starlette(routes=[Route("/a/{name}", answer)], middleware=[layer]))
    yield made
    made.close()
    log.close()


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_requests_are_counted_by_route_and_status(client: Any, metrics: Metrics) -> None:
    for asked in ("/a/1", "/a/2", "/a/bug", "/b"):
        client.get(asked)
    for i in range(5):
        client.request(f"MADE-UP-{i}", "/b")
    text = metrics.text()
    assert 'method="other",route="unmatched",status="404"} 5.0' in text
    assert "MADE-UP" not in text
    assert 'status="418"} 2.0' in text
    assert 'status="500"} 1.0' in text
    assert 'matinee_requests_total{method="GET",route="unmatched",status="404"} 1.0' in text


def test_a_well_formed_id_is_kept_and_another_replaced(client: Any) -> None:
    def ask(given: str) -> Any:
        return client.request("GET", "/a/x", headers={"x-request-id": given})

    answer = ask("job-7.a_B")
    assert answer.headers["x-request-id"] == answer.text == "job-7.a_B"
    made = [
        client.get("/a/x"),
        *(ask(given) for given in ("", "a b", "a\tb", "x" * 129, "a,b", "<script>")),
    ]
    ids = {answer.headers["x-request-id"] for answer in made}
    assert len(ids) == len(made)
    assert all(re.fullmatch("[0-9a-f]{32}", each) for each in ids)


def test_a_defect_is_a_500_with_an_id_and_without_insides(
    client: Any, caplog: pytest.LogCaptureFixture
) -> None:
    answer = client.request("GET", "/a/bug", headers={"x-request-id": "find-me"})
    assert (answer.status_code, answer.headers["x-request-id"]) == (500, "find-me")
    assert "secret" not in answer.text
    assert "request find-me" in caplog.text


def test_a_line_tells_what_happened_and_nothing_of_what_was_asked(client: Any, path: Path) -> None:
    headers = {
        "authorization": "Bearer hidden1",
        "cookie": "hidden2",
        "x-request-id": "r1",
        "referer": "hidden3",
    }
    client.request("GET", "/a/hidden4?q=hidden5", content=b"hidden6", headers=headers)
    client.get("/hidden7")
    first, second = lines(path)
    assert set(first) == {"time", "method", "route", "status", "ms", "request_id", "caller"}
    assert (first["route"], first["status"], first["request_id"]) == ("/a/{name}", 418, "r1")
    assert (second["route"], second["status"]) == ("unmatched", 404)
    assert "hidden" not in path.read_text()


@pytest.mark.parametrize(
    ("asked", "headers", "status"),
    [
        ("/a/" + "x" * 500, {}, 414),
        ("/a/x?" + "q" * 500, {}, 414),
        ("/a/" + "%41" * 200, {}, 414),
        ("/a/x", {"x-pad": "x" * 2000}, 431),
        ("/a/%0d%0aset-cookie:%20a=b", {}, 400),
        ("/a/%00", {}, 400),
    ],
)
def test_what_is_malformed_ends_here(client: Any, asked: str, headers: dict[str, str], status: int) -> None:
    answer = client.request("GET", asked, headers=headers)
    assert answer.status_code == answer.json()["status"] == status
    assert "set-cookie" not in answer.headers
    assert answer.headers["x-request-id"]


def test_a_large_log_makes_room(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(envelope, "MAX_LOG_BYTES", 1000)
    log = AccessLog(path)
    for i in range(40):
        log.put(i=i)
        if i % 3 == 0:
            log.flush()
    log.close()
    kept = lines(path.with_name("access.jsonl.1")) + lines(path)
    assert [line["i"] for line in kept] == list(range(40 - len(kept), 40))
    assert path.stat().st_size <= 1000


def test_the_log_goes_where_the_settings_say(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def made(kind: str) -> AccessLog | None:
        return access_log(load_settings({"home": str(tmp_path), "gateway.access_log": kind}, environment={}))

    assert made("off") is None
    stderr, file = made("stderr"), made("file")
    assert stderr
    assert file
    stderr.put(a=1)
    stderr.flush()
    file.put(a=2)
    file.close()
    assert json.loads(capfd.readouterr().err)["a"] == 1
    (found,) = (tmp_path / "logs").iterdir()
    assert lines(found)[0]["a"] == 2


def test_a_log_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("a file")
    with pytest.raises(StorageError, match="access log"):
        AccessLog(tmp_path / "logs" / "access.jsonl")
