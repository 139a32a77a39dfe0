"""What stands before a route: a small application with every kind of route."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import credentials
import pytest
from credentials import token
from fastapi import FastAPI, Request
from starlette.applications import Starlette
from starlette.types import Message

from matinee.config import Settings, load_settings
from matinee.gateway import guard, problems
from matinee.gateway.auth import Authenticator
from matinee.gateway.guard import allow, permit
from matinee.gateway.keys import Keys
from matinee.gateway.limits import Limits
from matinee.gateway.shedding import MOST, Flights, Traffic
from matinee.schema import Decision


def application(settings: Settings, auth: Authenticator) -> FastAPI:
    app = FastAPI()
    problems.install(app)

    @app.get("/open", openapi_extra=allow())
    async def anybody() -> str:
        return "open"

    @app.get("/members/{member_id:path}/x", openapi_extra=allow("member", "service"))
    async def member(member_id: str) -> str:
        return member_id

    @app.post("/body", openapi_extra=allow("member", "service"))
    async def body(member_id: str, request: Request) -> str:
        permit(request, member_id)
        return member_id

    @app.get("/operate", openapi_extra=allow("operator"))
    async def operate() -> str:
        return "done"

    install(app, settings, auth)
    return app


def install(app: FastAPI, settings: Settings, auth: Authenticator) -> None:
    guard.install(app, settings.gateway, auth, Limits(settings.gateway))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    flags = {
        "home": str(tmp_path),
        "auth.keys": True,
        "gateway.rates": {"peer": "6/minute", "member": "9/minute"},
    }
    return load_settings(flags | credentials.issuer_file(tmp_path), environment={})


@pytest.fixture
def client(settings: Settings, call: Any) -> Iterator[Any]:
    auth = Authenticator(settings)
    made = call(application(settings, auth))
    yield made
    made.close()
    auth.close()


def bearer(credential: str, **headers: str) -> dict[str, Any]:
    return {"headers": {"authorization": f"Bearer {credential}"} | headers}


def key(settings: Settings, scope: str) -> str:
    table = Keys(settings)
    made = table.create(scope, who="test", why="test")
    table.close()
    return made


def test_without_credentials_only_open_routes_answer(client: Any) -> None:
    assert client.get("/open").json() == "open"
    answer = client.get("/operate")
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == 'Bearer realm="matinee"'
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_member_gets_what_is_theirs(client: Any) -> None:
    own = bearer(token())
    assert client.request("GET", "/members/m1/x", **own).json() == "m1"
    assert client.post("/body?member_id=m1", **own).json() == "m1"
    for method, path in (
        ("GET", "/members/m2/x"),
        ("GET", "/members/m1%2F..%2Fm2/x"),
        ("GET", "/members//x"),
        ("GET", "/members/M1/x"),
        ("GET", "/members/m1%00/x"),
        ("POST", "/body?member_id=m2"),
        ("GET", "/operate"),
    ):
        answer = client.request(method, path, **own)
        assert answer.status_code == answer.json()["status"] == 403, path


@pytest.mark.parametrize(
    ("scope", "expected"), [("service", (200, 403)), ("batch", (200, 403)), ("operator", (403, 200))]
)
def test_a_key_opens_the_routes_of_its_scope(
    client: Any, settings: Settings, scope: str, expected: tuple[int, int]
) -> None:
    held = bearer(key(settings, scope))
    found = (client.request("GET", path, **held).status_code for path in ("/members/anyone/x", "/operate"))
    assert tuple(found) == expected


@pytest.mark.parametrize(
    ("scope", "path", "traffic"),
    [
        ("service", "/members/m/x", "page"),
        ("batch", "/members/m/x", "batch"),
        ("operator", "/operate", "control"),
    ],
)
def test_requests_are_admitted_as_what_their_route_and_caller_make_them(
    client: Any, settings: Settings, monkeypatch: pytest.MonkeyPatch, scope: str, path: str, traffic: str
) -> None:
    asked = []
    admit = Flights.admit

    def seen(flights: Flights, kind: Traffic) -> Decision:
        asked.append(kind)
        return admit(flights, kind)

    monkeypatch.setattr(Flights, "admit", seen)
    assert client.request("GET", path, **bearer(key(settings, scope))).status_code == 200
    assert asked == [traffic]


def test_a_token_with_two_scopes_is_not_bound_to_its_member(client: Any) -> None:
    both = bearer(token(scope="member service"))
    assert client.request("GET", "/members/m2/x", **both).status_code == 200


def test_rates_follow_the_token_whatever_the_headers_say(client: Any) -> None:
    def ask(credential: str, i: int) -> Any:
        claim = f"203.0.113.{i}"
        headers = {
            "x-forwarded-for": claim,
            "forwarded": f"for={claim}",
            "x-real-ip": claim,
            "x-member-id": claim,
        }
        return client.request("GET", "/members/m1/x", **bearer(credential, **headers))

    statuses = [ask(token(jti=str(i)), i).status_code for i in range(12)]
    assert statuses == [200] * 9 + [429] * 3
    answer = ask(token(), 0)
    assert 1 <= int(answer.headers["retry-after"]) <= 60
    assert client.request("GET", "/members/m7/x", **bearer(token(sub="m7"))).status_code == 200


def test_guessing_credentials_is_limited_by_the_address(client: Any) -> None:
    statuses = [
        client.request(
            "GET", "/operate", **bearer(f"mk_{i:012x}_guess", **{"x-forwarded-for": f"10.0.0.{i}"})
        )
        for i in range(8)
    ]
    assert [answer.status_code for answer in statuses] == [401] * 6 + [429] * 2


def test_without_authentication_everyone_is_let_in(tmp_path: Path, call: Any) -> None:
    settings = load_settings({"home": str(tmp_path)}, environment={})
    client = call(application(settings, Authenticator(settings)))
    paths = ("/open", "/operate", "/members/m2/x")
    assert [client.get(path).status_code for path in paths * 20] == [200] * 60
    client.close()


def test_keys_that_cannot_be_read_are_a_503(tmp_path: Path, call: Any) -> None:
    flags = {"home": str(tmp_path), "auth.jwks": str(tmp_path / "none"), "auth.issuer": "i"}
    settings = load_settings(flags, environment={})
    auth = Authenticator(settings)
    client = call(application(settings, auth))
    answer = client.request("GET", "/operate", **bearer(token()))
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "10"
    client.close()
    auth.close()


def test_slow_bodies_do_not_stand_in_the_way_of_others(tmp_path: Path) -> None:
    settings = load_settings({"home": str(tmp_path)}, environment={})
    app = FastAPI()
    problems.install(app)

    @app.post("/page", openapi_extra=allow("member"))
    async def page(request: Request) -> int:
        size = len(await request.body())
        await asyncio.sleep(0.05)
        return size

    install(app, settings, Authenticator(settings))

    async def ask(*, whole: bool) -> int:
        statuses = []

        async def receive() -> Message:
            if not whole:
                await asyncio.sleep(60)
            return {"type": "http.request", "body": b"{}", "more_body": False}

        async def send(message: Message) -> None:
            statuses.append(message.get("status"))

        scope = {
            "type": "http",
            "method": "POST",
            "path": "/page",
            "query_string": b"",
            "headers": [],
            "client": ("127.0.0.1", 1),
        }
        await app(scope, receive, send)
        return int(statuses[0] or 0)

    async def run() -> list[int]:
        slow = [asyncio.create_task(ask(whole=False)) for _ in range(500)]
        await asyncio.sleep(0)
        alone = [await ask(whole=True) for _ in range(3)]
        together = await asyncio.gather(*(ask(whole=True) for _ in range(int(MOST) + 2)))
        for task in slow:
            task.cancel()
        await asyncio.gather(*slow, return_exceptions=True)
        return alone + sorted(together)

    assert asyncio.run(run()) == [200] * (3 + int(MOST)) + [503] * 2


def test_a_route_that_declares_nobody_is_an_error(settings: Settings) -> None:
    auth = Authenticator(settings)
    app = FastAPI()
    app.get("/forgotten")(lambda: None)
    with pytest.raises(ValueError, match="/forgotten declares nobody"):
        install(app, settings, auth)
    app = FastAPI()
    app.mount("/under", Starlette())
    with pytest.raises(ValueError, match="no route that can be guarded"):
        install(app, settings, auth)
    auth.close()
