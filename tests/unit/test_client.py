"""The client against a real server that is busy, refuses, is killed and comes back."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matinee.client import (
    AsyncClient,
    Call,
    Client,
    Denied,
    Failed,
    Missing,
    Refused,
    Retry,
    Unreachable,
)
from matinee.errors import InvalidInput, MatineeError
from matinee.local.cluster import free_port

ECHO = Path(__file__).parents[1] / "echo_server.py"


class Server:
    """A process that answers what it was asked, and can be killed."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._log = folder / "asked"
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        command = [sys.executable, str(ECHO), str(self.port), str(self._log)]
        self._process = subprocess.Popen(command)
        deadline = time.monotonic() + 20
        while True:
            try:
                urlopen(self.url, timeout=1).close()
                return
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.02)

    def kill(self) -> None:
        assert self._process
        os.kill(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def asked(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._log.read_text().splitlines()]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    made = Server(tmp_path_factory.mktemp("server"))
    yield made
    made.kill()


class Both:
    """Makes the same call with the blocking and the asyncio client; what they raise is returned."""

    def __init__(self, url: str, **options: Any) -> None:
        self._given = url, options

    def __call__(self, name: str, *given: Any, **named: Any) -> list[Any]:
        return [self._blocking(name, *given, **named), asyncio.run(self._awaited(name, *given, **named))]

    def _blocking(self, name: str, *given: Any, **named: Any) -> Any:
        url, options = self._given
        with Client(url, **options) as client:
            try:
                return getattr(client, name)(*given, **named)
            except MatineeError as failure:
                return failure

    async def _awaited(self, name: str, *given: Any, **named: Any) -> Any:
        url, options = self._given
        async with AsyncClient(url, **options) as client:
            try:
                return await getattr(client, name)(*given, **named)
            except MatineeError as failure:
                return failure


@pytest.fixture
def both(server: Server) -> Callable[..., Both]:
    return lambda **options: Both(server.url, **{"token": "secret"} | options)


CALLS: dict[str, tuple[tuple[Any, ...], dict[str, Any], str, str]] = {
    "recommend": (("m/1",), {"k": 3}, "POST /v1/recommendations", ""),
    "home": (
        ("m/1 ü",),
        {"surface": "tv", "max_maturity": 7, "languages": ["en", "fr"]},
        "GET /v1/members/m%2F1%20%C3%BC/home",
        "surface=tv&max_maturity=7&languages=en&languages=fr",
    ),
    "similar": (("../t",), {"k": 2}, "GET /v1/titles/..%2Ft/similar", "k=2"),
    "features": (("m?a=b#c",), {}, "GET /v1/members/m%3Fa%3Db%23c/features", ""),
    "split": (("home",), {}, "GET /v1/splits/home", ""),
    "set_split": (("home", {"1": 1}), {"who": "a", "why": "b"}, "PUT /v1/splits/home", ""),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_call_is_the_request_that_the_api_describes(both: Any, name: str) -> None:
    given_, named, asked, query = CALLS[name]
    for seen in both()(name, *given_, **named):
        assert (f"{seen['method']} {seen['path']}", seen["query"]) == (asked, query)
        assert seen["token"] == "Bearer secret"
    assert both(token=lambda: "fresh")(name, *given_, **named)[0]["token"] == "Bearer fresh"


def test_bodies(both: Any) -> None:
    filters = {"genres": ["Drama"]}
    for seen in both()("recommend", "m1", k=3, surface="row", filters=filters):
        assert seen["body"] == {"member_id": "m1", "k": 3, "surface": "row", "filters": filters}
    for seen in both()("events", [{"type": "play"}, {"type": "stop", "event_id": "mine"}]):
        made, kept = seen["body"]
        assert len(made["event_id"]) == 36
        assert kept == {"type": "stop", "event_id": "mine"}


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, Refused),
        (401, Denied),
        (403, Denied),
        (404, Missing),
        (422, Refused),
        (500, Failed),
        (302, Refused),
    ],
)
def test_errors_carry_the_problem_and_are_not_repeated(
    both: Any, server: Server, status: int, kind: type[Exception]
) -> None:
    before = len(server.asked())
    for failure in both()("call", Call(method="GET", path=f"/status/{status}")):
        assert type(failure) is kind
        assert (failure.problem.status, failure.problem.detail) == (status, "D")
    assert len(server.asked()) == before + 2


def test_what_is_no_problem_document_still_says_what_came(both: Any) -> None:
    for failure in both(retry=Retry(attempts=1))("call", Call(method="GET", path="/page")):
        assert (failure.problem.status, failure.problem.detail) == (502, "<html>bad gateway")


def test_an_answer_that_is_no_json_is_a_failure(both: Any) -> None:
    for failure in both()("call", Call(method="GET", path="/login")):
        assert type(failure) is Failed
        assert (failure.problem.status, failure.problem.detail) == (200, "<html>who are you?")


def test_white_space_around_a_token_is_left_out_and_no_error_tells_a_token(both: Any) -> None:
    for seen in both(token=" s3cret\n")("split"):
        assert seen["token"] == "Bearer s3cret"
    for token in ("s3c\nret", "s3c\x00ret", "s3cr\u00e9t"):
        for failure in both(token=token)("split"):
            assert type(failure) is InvalidInput
            assert "s3c" not in str(failure)


def test_a_busy_service_is_asked_again_when_it_says(server: Server) -> None:
    start = time.monotonic()
    with Client(server.url, retry=Retry(base_s=0.01)) as client:
        assert client.call(Call(method="GET", path="/busy/polite"))["path"] == "/busy/polite"
    assert time.monotonic() - start > 2
    ids = [seen["id"] for seen in server.asked() if seen["path"] == "/busy/polite"]
    assert len(ids) == 3
    assert len(set(ids)) == 1


def test_a_service_that_is_busy_for_long_is_not_waited_for(both: Any, server: Server) -> None:
    for failure in both()("call", Call(method="GET", path="/busy/rude")):
        assert isinstance(failure, Failed)
    assert len([seen for seen in server.asked() if seen["path"] == "/busy/rude"]) == 2


def test_what_may_not_be_repeated_is_not(both: Any, server: Server) -> None:
    for i, failure in enumerate(both()("call", Call(method="PUT", path="/busy/once", repeatable=False))):
        assert isinstance(failure, Failed), i
    assert len([seen for seen in server.asked() if seen["path"] == "/busy/once"]) == 2


@given(st.integers(1, 10), st.integers(1, 12), st.floats(0, 100), st.floats(0, 1, exclude_max=True))
def test_waits_are_bounded_and_never_shorter_than_asked(
    attempts: int, attempt: int, asked: float, fraction: float
) -> None:
    retry = Retry(attempts=attempts)
    wait = retry.wait(attempt, asked, fraction)
    assert (wait is None) == (attempt >= attempts or asked > retry.most_s)
    assert wait is None or asked <= wait <= retry.most_s


def test_nobody_there(both: Any) -> None:
    nowhere = Both(f"http://127.0.0.1:{free_port()}", retry=Retry(attempts=3, base_s=0.01))
    for failure in nowhere("recommend", "m1"):
        assert isinstance(failure, Unreachable)
        assert "POST /v1/recommendations" in str(failure)


@pytest.mark.parametrize("kind", ["blocking", "asyncio"])
def test_a_server_that_is_killed_and_comes_back_fails_no_call(server: Server, kind: str) -> None:
    retry = Retry(attempts=12, base_s=0.05, most_s=0.5)
    failures: list[BaseException] = []
    answers: list[Any] = []
    end = threading.Event()

    def blocking() -> None:
        with Client(server.url, retry=retry) as client:
            while not end.is_set():
                answers.append(client.recommend("m1"))
                client.events([{"type": "play", "member_id": "m1"}])

    async def awaited() -> None:
        async with AsyncClient(server.url, retry=retry) as client:
            while not end.is_set():
                answers.append(await client.recommend("m1"))
                await client.events([{"type": "play", "member_id": "m1"}])

    def caller() -> None:
        try:
            if kind == "blocking":
                blocking()
            else:
                asyncio.run(awaited())
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=caller) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(2):
        time.sleep(0.2)
        server.kill()
        time.sleep(0.1)
        server.start()
    before = len(answers)
    time.sleep(0.2)
    end.set()
    for thread in threads:
        thread.join(10)
    assert failures == []
    assert len(answers) > before


def test_the_client_loads_nothing_of_the_platform() -> None:
    code = (
        "import sys, matinee.client; heavy = {'ray', 'numpy', 'pandas', 'pyarrow', 'fastapi', 'pydantic'}; "
        "sys.exit(bool(heavy & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
