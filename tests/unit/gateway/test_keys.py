"""API keys: shown once, kept as hashes, good until they expire or are revoked."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from matinee.config import Settings
from matinee.errors import InvalidInput, NotFound
from matinee.gateway.keys import Keys, check
from matinee.gateway.principal import Refusal, Verified


@pytest.fixture
def keys(settings: Settings) -> Iterator[Keys]:
    table = Keys(settings)
    yield table
    table.close()


def test_a_key_proves_its_scope_and_the_database_does_not_hold_it(keys: Keys, settings: Settings) -> None:
    key = keys.create("service", who="ana", why="the app")
    found = check(key, keys.live())
    assert isinstance(found, Verified)
    assert (found.principal.kind, found.principal.scopes) == ("service", {"service"})
    _, key_id, secret = key.split("_", 2)
    written = b"".join(path.read_bytes() for path in settings.home.rglob("*") if path.is_file())
    assert key_id.encode() in written
    assert secret.encode() not in written
    (kept,) = keys.live().values()
    assert (kept.who, kept.why, kept.scope) == ("ana", "the app", "service")


def test_keys_differ_and_another_secret_or_id_is_refused(keys: Keys) -> None:
    one, two = (keys.create("operator", who="a", why="b") for _ in range(2))
    live = keys.live()
    prefix, secret = one[:16], two[16:]
    for forged in (
        prefix + secret,
        prefix,
        prefix + "x",
        one + "x",
        one[:-1],
        "mk_",
        "mk___",
        "mk_\xff_\xff",
    ):
        assert isinstance(check(forged, live), Refusal), forged


def test_a_revoked_key_is_gone_and_its_rows_stay(keys: Keys) -> None:
    key = keys.create("batch", who="ana", why="nightly")
    (key_id,) = keys.live()
    keys.revoke(key_id, who="bo", why="leaked")
    assert isinstance(check(key, keys.live()), Refusal)
    with pytest.raises(NotFound, match=key_id):
        keys.revoke(key_id, who="bo", why="again")


def test_a_key_expires(keys: Keys) -> None:
    key = keys.create("service", who="a", why="b", days=1e-6)
    time.sleep(0.1)
    found = check(key, keys.live())
    assert isinstance(found, Refusal)
    assert "expired" in found.reason


@pytest.mark.parametrize(
    ("scope", "why", "days"),
    [
        ("member", "w", None),
        ("root", "w", None),
        ("service", " ", None),
        ("service", "w", 0),
        ("service", "w", 1e9),
    ],
)
def test_a_key_needs_a_scope_a_reason_and_a_time(
    keys: Keys, scope: str, why: str, days: float | None
) -> None:
    with pytest.raises(InvalidInput):
        keys.create(scope, who="a", why=why, days=days)
    assert keys.live() == {}
