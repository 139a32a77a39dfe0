"""Who makes a request: key sets that rotate, keys that are revoked, peers and what they claim."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import credentials
import pytest
from credentials import jwks, rsa_key, token

from matinee.config import Settings, load_settings
from matinee.errors import ConfigError, Unavailable
from matinee.gateway.auth import FORWARDED, Authenticator, check
from matinee.gateway.keys import Keys
from matinee.gateway.principal import Principal, Refusal

Make = Callable[..., Settings]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def load(**flags: object) -> Settings:
        dotted = {name.replace("__", "."): value for name, value in flags.items()}
        return load_settings({"home": str(tmp_path)} | dotted, environment={})

    return load


class Issuer(ThreadingHTTPServer):
    """Publishes a key set; a status other than 200 stands for trouble."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.body = jwks(r1=rsa_key())
        self.status = 200
        self.asked = 0
        self.url = f"http://127.0.0.1:{self.server_port}/jwks"
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()


class Answer(BaseHTTPRequestHandler):
    server: Issuer

    def do_GET(self) -> None:
        self.server.asked += 1
        body = self.server.body.encode()
        self.send_response(self.server.status)
        self.send_header("location", "/elsewhere")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    server = Issuer()
    yield server
    server.shutdown()
    server.server_close()


def request(credential: str | None = None, peer: str = "192.0.2.1", **headers: str) -> dict[str, Any]:
    given = [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items()]
    if credential is not None:
        given.append((b"authorization", f"Bearer {credential}".encode("latin-1")))
    return {"type": "http", "headers": given, "client": (peer, 40_000)}


async def identify(auth: Authenticator, *credentials: str) -> list[Principal | Refusal]:
    try:
        return [await auth.identify(request(credential)) for credential in credentials]
    finally:
        auth.close()


def test_a_key_set_from_a_file(make: Make, tmp_path: Path) -> None:
    auth = Authenticator(
        make(**{k.replace(".", "__"): v for k, v in credentials.issuer_file(tmp_path).items()})
    )
    good = token()
    one, two, forged = asyncio.run(identify(auth, good, good, token(rsa_key("other"))))
    assert isinstance(one, Principal)
    assert one == two
    assert isinstance(forged, Refusal)


def test_a_remembered_token_still_expires(make: Make, tmp_path: Path) -> None:
    flags = {k.replace(".", "__"): v for k, v in credentials.issuer_file(tmp_path).items()}
    auth = Authenticator(make(**flags, auth__leeway_s=0))

    async def run() -> list[Principal | Refusal]:
        short = token(exp=time.time() + 1)
        first = await auth.identify(request(short))
        await asyncio.sleep(1.1)
        return [first, await auth.identify(request(short))]

    first, second = asyncio.run(run())
    auth.close()
    assert isinstance(first, Principal)
    assert isinstance(second, Refusal)
    assert "expired" in second.reason


def test_keys_rotate_at_an_address_and_unknown_ids_do_not_flood_it(make: Make, issuer: Issuer) -> None:
    settings = make(auth__jwks=issuer.url, auth__issuer=credentials.ISSUER, auth__retry_s=1.0)

    async def run() -> None:
        auth = Authenticator(settings)
        old, new = token(), token(rsa_key("second"), "r2")
        assert isinstance(await auth.identify(request(old)), Principal)
        issuer.body = jwks(r2=rsa_key("second"))
        for i in range(50):
            assert isinstance(await auth.identify(request(token(kid=f"made-up-{i}"))), Refusal)
        assert issuer.asked == 1
        await asyncio.sleep(1.1)
        assert isinstance(await auth.identify(request(new)), Principal)
        assert issuer.asked == 2
        assert isinstance(await auth.identify(request(old)), Refusal)
        auth.close()

    asyncio.run(run())


@pytest.mark.parametrize(("status", "body"), [(500, ""), (302, ""), (200, "{}"), (200, "x" * (2 << 20))])
def test_an_issuer_in_trouble_leaves_the_last_keys_in_force(
    make: Make, issuer: Issuer, status: int, body: str
) -> None:
    flags = {"auth__refresh_s": 0.01, "auth__retry_s": 0.01, "auth__stale_s": 2.0}
    settings = make(auth__jwks=issuer.url, auth__issuer=credentials.ISSUER, **flags)

    async def run() -> None:
        auth = Authenticator(settings)
        good = token()
        assert isinstance(await auth.identify(request(good)), Principal)
        issuer.status, issuer.body = status, body
        while issuer.asked == 1:
            await asyncio.sleep(0.05)
            assert isinstance(await auth.identify(request(good)), Principal)
        await asyncio.sleep(2.5)
        with pytest.raises(Unavailable):
            await auth.identify(request(good))
        auth.close()

    asyncio.run(run())


def test_an_api_key_is_good_until_it_is_revoked(make: Make) -> None:
    settings = make(auth__keys=True)
    table = Keys(settings)
    key = table.create("service", who="ana", why="test")

    async def run() -> None:
        auth = Authenticator(settings)
        found = await auth.identify(request(key))
        assert isinstance(found, Principal)
        assert found.kind == "service"
        await asyncio.sleep(1.05)
        later = table.create("operator", who="ana", why="made while it runs")
        assert isinstance(await auth.identify(request(later)), Principal)
        table.revoke(found.id.removeprefix("key:"), who="ana", why="over")
        deadline = time.monotonic() + 3
        while isinstance(await auth.identify(request(key)), Principal):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)
        assert isinstance(await auth.identify(request(token())), Refusal)
        auth.close()

    asyncio.run(run())
    table.close()


FORM = "of the form: Bearer CREDENTIAL"


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ([], "no credentials"),
        ([(b"authorization", b"Basic KEY")], FORM),
        ([(b"authorization", b"KEY")], FORM),
        ([(b"authorization", b"Bearer")], "tokens are not accepted here"),
        ([(b"authorization", b"")], FORM),
        ([(b"authorization", b"\xff\xfe")], FORM),
        ([(b"authorization", b"Bearer KEY"), (b"authorization", b"Bearer KEY")], FORM),
        ([(b"x-api-key", b"KEY")], "no credentials"),
        ([(b"x-member-id", b"m1")], "no credentials"),
    ],
)
def test_a_good_key_counts_in_one_authorization_header_alone(
    make: Make, headers: list[tuple[bytes, bytes]], reason: str
) -> None:
    settings = make(auth__keys=True)
    table = Keys(settings)
    key = table.create("service", who="ana", why="test").encode()
    table.close()
    auth = Authenticator(settings)

    async def run() -> list[Principal | Refusal]:
        sent = [(name, value.replace(b"KEY", key)) for name, value in headers]
        return [
            await auth.identify({"headers": each}) for each in (sent, [(b"authorization", b"Bearer " + key)])
        ]

    found, good = asyncio.run(run())
    auth.close()
    assert isinstance(good, Principal)
    assert isinstance(found, Refusal)
    assert reason in found.reason


PROXIES = ("198.51.100.0/24", "::1")


@pytest.mark.parametrize(
    ("peer", "claim", "trusted", "expected"),
    [
        ("192.0.2.1", None, (), "192.0.2.1"),
        ("192.0.2.1", "203.0.113.9", (), "192.0.2.1"),
        ("192.0.2.1", "203.0.113.9", PROXIES, "192.0.2.1"),
        ("198.51.100.7", "203.0.113.9", PROXIES, "203.0.113.9"),
        ("198.51.100.7", "10.0.0.1, 203.0.113.9", PROXIES, "203.0.113.9"),
        ("198.51.100.7", "203.0.113.9, 198.51.100.8", PROXIES, "203.0.113.9"),
        ("198.51.100.7", "198.51.100.8", PROXIES, "198.51.100.7"),
        ("203.0.113.9", "10.0.0.1, 203.0.113.9", (), FORWARDED),
        ("unix", "\xff\r\n", (), "unix"),
    ],
)
def test_a_peer_is_its_address_unless_a_trusted_proxy_says_otherwise(
    make: Make, peer: str, claim: str | None, trusted: tuple[str, ...], expected: str
) -> None:
    auth = Authenticator(make(gateway__trusted_proxies=trusted))
    assert auth.peer(request(peer=peer, **({"x_forwarded_for": claim} if claim else {}))) == expected
    assert auth.peer({"headers": []}) == "unknown"


def test_other_forwarding_headers_are_not_read(make: Make) -> None:
    auth = Authenticator(make())
    claims = dict.fromkeys(
        ("forwarded", "x_real_ip", "x_client_ip", "true_client_ip", "x_forwarded"), "203.0.113.9"
    )
    assert auth.peer(request(**claims)) == "192.0.2.1"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_loopback_needs_no_authentication(make: Make, host: str) -> None:
    check(make(serving__host=host))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.0.2.1", "localhost.example.com", "example.com"])
def test_another_address_does(make: Make, host: str) -> None:
    with pytest.raises(ConfigError, match=r"needs authentication; set auth\.jwks or auth\.keys"):
        check(make(serving__host=host))
    with pytest.raises(ConfigError, match="needs authentication"):
        check(make(), host)
    check(make(serving__host=host, auth__keys=True))


SECRET = "a secret of at least thirty-two bytes"


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({"serving__host": "0.0.0.0", "auth__hs256_secret": SECRET}, "for development on loopback"),
        ({"auth__hs256_secret": "short"}, "shorter than 32 bytes"),
        ({"auth__hs256_secret": SECRET, "auth__jwks": "f", "auth__issuer": "i"}, "both set"),
        ({"auth__jwks": "f"}, "needs auth.issuer"),
        ({"auth__jwks": "http://issuer.example/jwks", "auth__issuer": "i"}, "over https"),
        ({"gateway__trusted_proxies": ("everyone",)}, "trusted_proxies"),
        ({"gateway__rates": {"member": "lots"}}, "such as 30/second"),
    ],
)
def test_settings_that_are_not_safe_are_refused(make: Make, flags: dict[str, object], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        check(make(**flags))
