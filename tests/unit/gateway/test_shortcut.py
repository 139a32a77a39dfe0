"""Pages at hand come by the shortcut: the same answers, behind the same guard, from the real parts."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import credentials
import pyarrow as pa
import pytest
from credentials import token
from fastapi.routing import APIRoute

from matinee.config import Settings, load_settings
from matinee.features.store import FeatureStore
from matinee.features.transforms import MEMBER_ACTIVITY
from matinee.gateway.assembly import assemble
from matinee.gateway.guard import Guard
from matinee.gateway.keys import Keys
from matinee.gateway.pages import HOME, Home
from matinee.schema import TIMESTAMP
from matinee.serving.page_memory import Held
from matinee.serving.surfaces import Surfaces

PATH = "/v1/members/{}/home"


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[Held]:
    """The pages that were given from memory."""
    found: list[Held] = []
    give = Surfaces.give

    def seen(surfaces: Surfaces, held: Held) -> bytes:
        found.append(held)
        return give(surfaces, held)

    monkeypatch.setattr(Surfaces, "give", seen)
    return found


@pytest.fixture
def client(home: Settings, bootstrap: str, call: Any) -> Iterator[Callable[..., Any]]:
    """Make a client of the application with settings of its own."""
    clients: list[Any] = []

    def make(**flags: object) -> Any:
        given = {name.replace("__", "."): value for name, value in flags.items()}
        app = assemble(load_settings({"home": str(home.home)} | given, environment={}), bootstrap)
        clients.append(call(app))
        clients[-1].app = app
        return clients[-1]

    yield make
    for each in clients:
        each.close()


def ask(api: Any, path: str, credential: str = "") -> Any:
    headers = {"authorization": f"Bearer {credential}"} if credential else {}
    return api.request("GET", path, headers=headers)


def until_taken(api: Any, taken: list[Held], path: str, credential: str = "") -> Any:
    """The first answer that came from memory."""
    deadline = time.monotonic() + 10
    count = len(taken)
    while True:
        answer = ask(api, path, credential)
        if len(taken) > count:
            return answer
        assert answer.status_code == 200, answer.text
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_page_from_memory_is_the_page(client: Any, taken: list[Held], home: Settings) -> None:
    api = client()
    path = PATH.format("m1") + "?per_row=6&languages=en"
    answers = [ask(api, path)]
    while not taken:  # a page may come before it can be kept: the last one composed is in memory
        assert len(answers) < 1_000
        answers.append(ask(api, path))
    first, answer = answers[-2:]
    Home.model_validate_json(answer.content)
    assert answer.json()["request_id"] != first.json()["request_id"]
    assert answer.json()["age_s"] > 0
    first, again = (each.json() | {"request_id": "", "age_s": 0} for each in (first, answer))
    assert again == first
    sent = api.request("GET", path, headers={"x-request-id": "find-me"})
    assert sent.headers["x-request-id"] == "find-me"
    assert sent.headers["content-type"] == "application/json"
    assert ask(api, PATH.format("m1") + "?per_row=7").json()["rows"] != first["rows"]
    assert ask(api, path + "&rows=0").status_code == 422
    assert api.request("HEAD", path).status_code == 405
    api.close()
    lines = [json.loads(line) for log in home.paths.logs.iterdir() for line in log.read_text().splitlines()]
    (line,) = [line for line in lines if line["request_id"] == "find-me"]
    assert (line["route"], line["status"], line["caller"]) == (HOME, 200, "local")


def test_figures_count_pages_from_memory(client: Any, taken: list[Held]) -> None:
    api = client()

    def counted(name: str) -> float:
        lines = api.get("/metrics").text.splitlines()
        return sum(float(line.rsplit(" ")[-1]) for line in lines if line.startswith(name))

    until_taken(api, taken, PATH.format("m2"))
    names = (
        f'matinee_requests_total{{method="GET",route="{HOME}",status="200"}}',
        f'matinee_request_seconds_count{{route="{HOME}"}}',
        'matinee_answers_total{rung="live"}',
    )
    before = [counted(name) for name in names]
    sent = counted("matinee_exposures_sent_total")
    for _ in range(5):
        until_taken(api, taken, PATH.format("m2"))
    assert [counted(name) for name in names] == [count + 5 for count in before]
    deadline = time.monotonic() + 10
    while counted("matinee_exposures_sent_total") < sent + 5:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_an_event_at_the_door_ends_it_at_once(client: Any, taken: list[Held]) -> None:
    api = client()
    path = PATH.format("m3")
    first = until_taken(api, taken, path).json()
    event = {"type": "play", "member_id": "m3", "title_id": "t5", "event_time": time.time_ns() // 1000}
    assert api.post("/v1/events", json=event).status_code == 202
    count = len(taken)
    assert ask(api, path).json()["made_at"] > first["made_at"]
    assert len(taken) == count


def test_what_is_written_to_the_store_ends_it_soon(client: Any, taken: list[Held], home: Settings) -> None:
    api = client()
    path = PATH.format("m4")
    first = until_taken(api, taken, path).json()
    moment = time.time_ns() // 1000
    row = dict.fromkeys(MEMBER_ACTIVITY.names) | {"member_id": "m4", "last_event_time": moment}
    columns = [
        pa.array([row[field.name]], field.type) if field.name != "event_timestamp" else None
        for field in MEMBER_ACTIVITY
    ]
    stamp = pa.array([moment]).cast(TIMESTAMP)
    table = pa.table([stamp if each is None else each for each in columns], schema=MEMBER_ACTIVITY)
    FeatureStore(home).write_online("member_activity", table)
    deadline = time.monotonic() + 3
    while (newer := ask(api, path).json())["made_at"] == first["made_at"]:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert newer["features_time"] > first["features_time"]


def test_the_guard_stands_before_it(client: Any, taken: list[Held], home: Settings) -> None:
    flags = {"auth__keys": True, "gateway__rates": {"service": "40/minute"}}
    issuer = {name.replace(".", "__"): value for name, value in credentials.issuer_file(home.home).items()}
    api = client(**flags, **issuer)
    table = Keys(home)
    operator, service = (table.create(scope, who="t", why="t") for scope in ("operator", "service"))
    table.close()
    path = PATH.format("m1")
    until_taken(api, taken, path, token())
    count = len(taken)
    assert ask(api, path).status_code == 401
    assert ask(api, path, operator).status_code == 403
    assert ask(api, path, token(sub="m2")).status_code == 403
    assert len(taken) == count
    statuses = [ask(api, path, service).status_code for _ in range(41)]
    assert statuses == [200] * 40 + [429]
    assert len(taken) == count + 40


def test_pages_at_hand_are_answered_in_an_overload(client: Any, taken: list[Held]) -> None:
    api = client()
    until_taken(api, taken, PATH.format("m5"))
    (route,) = (each for each in api.app.routes if isinstance(each, APIRoute) and each.path == HOME)
    assert isinstance(route.app, Guard)
    route.app._flights.length = 100
    count = len(taken)
    assert ask(api, PATH.format("m5")).status_code == 200
    assert len(taken) == count + 1
    assert ask(api, PATH.format("m6")).status_code == 503


def test_a_body_goes_the_long_way(client: Any, taken: list[Held], home: Settings) -> None:
    api = client()
    path = PATH.format("m7")
    until_taken(api, taken, path)
    count = len(taken)
    large = b"x" * (home.serving.max_body_bytes + 1)
    assert api.request("GET", path, content=large).status_code == 413
    assert api.request("GET", path, content=b"x").status_code == 200
    assert len(taken) == count
