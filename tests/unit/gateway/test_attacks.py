"""What an attacker sends, over real sockets, to the whole application: all of it is refused."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import credentials
import httpx
import live_server
import pytest
from credentials import api_key, confused, ec_key, rsa_key, token

from matinee.config import Settings
from matinee.gateway.assembly import assemble

BODY_S = 0.6


@pytest.fixture(scope="module")
def secured(home: Settings, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    issuer = credentials.issuer_file(tmp_path_factory.mktemp("issuer"))
    auth = {name.split(".")[1]: value for name, value in issuer.items()} | {"keys": True}
    gateway = {"body_s": BODY_S, "rates": {"member": "40/minute", "peer": "1000/minute"}}
    return home.model_copy(
        update={
            "auth": home.auth.model_copy(update=auth),
            "gateway": home.gateway.model_copy(update=gateway),
        }
    )


@pytest.fixture(scope="module")
def url(secured: Settings, bootstrap: str) -> Iterator[str]:
    with live_server.serving(assemble(secured, bootstrap)) as address:
        yield address


@pytest.fixture(scope="module")
def operator(secured: Settings) -> str:
    return api_key(secured, "operator")


def bearer(credential: str) -> dict[str, str]:
    return {"authorization": f"Bearer {credential}"}


def raw(url: str, data: bytes, *, then: bytes = b"", after_s: float = 0.0) -> bytes:
    """Send bytes as they are; returns all that comes back until the server closes or is silent."""
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname, parts.port), timeout=5) as connection:
        connection.sendall(data)
        if then:
            time.sleep(after_s)
            connection.sendall(then)
        answer = b""
        connection.settimeout(1.5)
        try:
            while chunk := connection.recv(65536):
                answer += chunk
        except TimeoutError:
            pass
        return answer


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


FORGED = {
    "nobody's": lambda: "e30.e30.e30",
    "forged": lambda: token(rsa_key("attacker")),
    "expired": lambda: token(exp=time.time() - 3600),
    "for another audience": lambda: token(aud="billing"),
    "from another issuer": lambda: token(iss="https://attacker.example"),
    "alg none": lambda: ".".join(token().split(".")[:2]) + ".",
    "confused": lambda: confused(rsa_key(), "r1"),
    "confused on the curve": lambda: confused(ec_key(), "e1"),
    "of the wrong key": lambda: token(ec_key(), "r1", "ES256"),
    "kid is a path": lambda: token(kid="../../dev/null"),
    "kid is SQL": lambda: token(kid="x' OR '1'='1"),
    "kid is a command": lambda: token(kid="r1; cat /etc/passwd"),
    "an unknown key": lambda: "mk_000000000000_" + "A" * 43,
    "SQL for a key": lambda: "mk_' OR 1=1 --_x",
}


@pytest.mark.parametrize("case", FORGED)
def test_forged_credentials(url: str, case: str) -> None:
    for path in ("/v1/splits/home", "/metrics", "/v1/members/m1/features"):
        answer = httpx.get(url + path, headers=bearer(FORGED[case]()))
        assert answer.status_code == 401, path
        assert answer.headers["content-type"] == "application/problem+json"


def test_a_member_cannot_be_another_nor_an_operator(url: str) -> None:
    own = bearer(token(sub="m1"))
    event = {"type": "play", "member_id": "m2", "title_id": "t5", "event_time": time.time_ns() // 1000}
    mine = event | {"member_id": "m1"}
    refused = [
        httpx.post(f"{url}/v1/recommendations", json={"member_id": "m2"}, headers=own),
        httpx.post(f"{url}/v1/events", json=event, headers=own),
        httpx.post(f"{url}/v1/events", json=[mine, event], headers=own),
        httpx.get(f"{url}/v1/members/m2/features", headers=own),
        httpx.get(f"{url}/v1/members/m1%2f..%2fm2/features", headers=own),
        httpx.get(f"{url}/v1/splits/home", headers=own),
        httpx.put(f"{url}/v1/splits/home", json={"weights": {}, "who": "m", "why": "n"}, headers=own),
        httpx.get(f"{url}/metrics", headers=own),
    ]
    assert [answer.status_code for answer in refused] == [403] * len(refused)
    assert httpx.post(f"{url}/v1/recommendations", json={"member_id": "m1"}, headers=own).status_code == 200
    assert httpx.post(f"{url}/v1/events", json=mine, headers=own).status_code == 202


def test_oversized_bodies(url: str, secured: Settings) -> None:
    large = b"[" + b" " * secured.serving.max_body_bytes + b"]"
    headers = bearer(token(scope="service")) | {"content-type": "application/json"}

    def chunked() -> Iterator[bytes]:
        for start in range(0, len(large), 65536):
            yield large[start : start + 65536]

    for content in (large, chunked()):
        answer = httpx.post(f"{url}/v1/events", content=content, headers=headers)
        assert answer.status_code == 413


def test_a_slow_body_is_given_up_and_holds_up_nobody(url: str) -> None:
    head = (
        f"POST /v1/events HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token(scope='service')}\r\n"
        "content-type: application/json\r\ncontent-length: 1000\r\n\r\n"
    ).encode()
    start = time.monotonic()
    answer = raw(url, head + b"[", then=b"{", after_s=BODY_S / 2)
    assert status(answer) == 408
    assert b"connection: close" in answer
    assert time.monotonic() - start < BODY_S + 2


def test_header_injection(url: str) -> None:
    injected = raw(url, b"GET /healthz HTTP/1.1\r\nhost: x\r\nx-request-id: a\r\nset-cookie: a=b\r\n\r\n")
    assert b"set-cookie" not in injected
    for value in (b"a\rset-cookie: a=b", b"a\x00b", b"a\nset-cookie: a=b", b"a%0d%0aset-cookie: a=b"):
        answer = raw(url, b"GET /healthz HTTP/1.1\r\nhost: x\r\nx-request-id: " + value + b"\r\n\r\n")
        assert b"set-cookie" not in answer.lower()
        assert not answer or status(answer) in (200, 400)


@pytest.mark.parametrize(
    ("path", "accepted"),
    [
        (b"/v1/members/m1%0d%0aset-cookie:%20a=b/features", {400}),
        (b"/v1/members/m1%00/features", {400}),
        (b"/v1/splits/..%2f..%2f..%2fetc%2fpasswd", {404}),
        (b"/v1/splits/%2e%2e", {200}),
        (b"/../../etc/passwd", {404}),
        (b"//metrics", {404}),
        (b"/metrics/", {404}),
        (b"/v1/members/../../metrics", {404}),
        (b"/v1/titles/..%2f..%2f..%2fmatinee.toml/features", {403}),
        (b"/" + b"a" * 9000, {414, 400}),
        (b"/v1/splits/" + b"%2e%2e%2f" * 2000, {414, 400}),
    ],
)
def test_path_injection(url: str, operator: str, path: bytes, accepted: set[int]) -> None:
    answer = raw(
        url,
        b"GET " + path + b" HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer "
        + operator.encode() + b"\r\n\r\n",
    )  # fmt: skip
    head, _, body = answer.partition(b"\r\n\r\n")
    assert status(answer) in accepted, head
    assert b"set-cookie" not in head
    assert b"root:" not in body


def test_headers_above_the_bound(url: str) -> None:
    for pad in (b"x-pad: " + b"x" * 20_000 + b"\r\n", b"x: y\r\n" * 4000):
        answer = raw(url, b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n" + pad + b"\r\n")
        assert status(answer) in (431, 400)


def test_smuggled_requests(url: str) -> None:
    both = (
        b"POST /v1/events HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n"
        b"0\r\n\r\nGET /metrics HTTP/1.1\r\nhost: x\r\n\r\n"
    )
    answer = raw(url, both)
    assert answer.count(b"HTTP/1.1 200") == 0


def test_a_rate_is_not_evaded_by_headers(url: str) -> None:
    credential = bearer(token(sub="m9"))
    statuses = []
    with httpx.Client() as client:
        for i in range(60):
            claim = f"203.0.113.{i}"
            claims = {"x-forwarded-for": claim, "x-real-ip": claim, "forwarded": f"for={claim}", "via": claim}
            headers = credential | claims | {"x-request-id": claim, "user-agent": claim, "host": f"h{i}"}
            statuses.append(client.get(f"{url}/v1/members/m9/features", headers=headers).status_code)
    assert statuses.count(429) == 20


def test_nothing_of_it_is_in_the_log(url: str, secured: Settings) -> None:
    secret = token(sub="m3", jti="in-no-log")
    httpx.get(f"{url}/v1/members/m3/features?q=in-no-log", headers=bearer(secret))
    httpx.get(f"{url}/v1/members/in-no-log/features", headers=bearer(secret))
    logs = list(Path(secured.paths.logs).glob("access-*.jsonl"))
    text = "".join(log.read_text() for log in logs)
    assert text.count('"caller":"member"') > 1
    assert "in-no-log" not in text
    assert secret not in text
    assert '"m3"' not in text
