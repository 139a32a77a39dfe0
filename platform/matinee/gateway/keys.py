"""API keys of services: made, listed and revoked as rows; checked against a copy of the rows.

A key is `mk_<id>_<secret>`, the secret 256 random bits, of which only the SHA-256 is kept: nothing is
gained by a slow hash of what cannot be guessed.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass

import sqlalchemy as sql

from matinee.config import Settings
from matinee.errors import InvalidInput, NotFound
from matinee.gateway.principal import SCOPES, Principal, Refusal, Verified
from matinee.state import StateDatabase, signed

PREFIX = "mk_"
KEY_SCOPES = tuple(scope for scope in SCOPES if scope != "member")
"""What a key may be for: members have tokens."""

_TABLE = sql.Table(
    "api_keys",
    sql.MetaData(),
    sql.Column("id", sql.Integer, primary_key=True, autoincrement=True),
    sql.Column("key_id", sql.String(32), nullable=False, index=True),
    sql.Column("hash", sql.String(64), nullable=True),
    sql.Column("scope", sql.String(32), nullable=True),
    sql.Column("expires_us", sql.BigInteger, nullable=True),
    *signed(),
)
"""Rows are only added; one without a hash revokes its key."""


@dataclass(frozen=True, kw_only=True)
class ApiKey:
    """A key as it is kept.

    Args:
        hash: SHA-256 of the secret, hexadecimal.
        scope: one of `KEY_SCOPES`.
        expires: microseconds since the epoch; None: never.
        who: who made it.
        why: what for.
        time: when, microseconds since the epoch.
    """

    key_id: str
    hash: str
    scope: str
    expires: int | None
    who: str
    why: str
    time: int


class Keys:
    """The keys in the state database.

    Raises:
        StorageError: the data home cannot be written.
        Unavailable: the database does not answer.
    """

    def __init__(self, settings: Settings) -> None:
        self._database = StateDatabase(settings, _TABLE)

    def create(self, scope: str, *, who: str, why: str, days: float | None = None) -> str:
        """Make a key; returns it. It is not kept and cannot be shown again.

        Args:
            scope: what it may be used for.
            days: after so many it is no longer good; None: it does not expire.

        Raises:
            InvalidInput: an unknown scope, an empty reason, or no time to live.
        """
        if scope not in KEY_SCOPES:
            raise InvalidInput(f"scope is {scope!r}; accepted: {', '.join(KEY_SCOPES)}")
        if days is not None and not 0 < days <= 36_500:
            raise InvalidInput(f"days is {days}; accepted: above 0, up to 36500")
        key_id, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
        expires = None if days is None else time.time_ns() // 1000 + int(days * 86_400e6)
        self._add(key_id, who, why, hash=_hashed(secret), scope=scope, expires_us=expires)
        return f"{PREFIX}{key_id}_{secret}"

    def revoke(self, key_id: str, *, who: str, why: str) -> None:
        """End a key; replicas follow within about a second.

        Raises:
            NotFound: no such key is in force.
            InvalidInput: an empty reason.
        """
        if key_id not in self.live():
            raise NotFound(f"no key {key_id!r} is in force; see `matinee keys list`")
        self._add(key_id, who, why)

    def live(self) -> dict[str, ApiKey]:
        """The keys that are not revoked, by id, the oldest first; expired ones are among them."""
        found: dict[str, ApiKey] = {}
        with self._database.connection() as connection:
            for row in connection.execute(sql.select(_TABLE).order_by(_TABLE.c.id)):
                if row.hash is None:
                    found.pop(row.key_id, None)
                    continue
                found[row.key_id] = ApiKey(
                    key_id=row.key_id,
                    hash=row.hash,
                    scope=row.scope,
                    expires=row.expires_us,
                    who=row.who,
                    why=row.why,
                    time=row.time_us,
                )
        return found

    def close(self) -> None:
        """Release the connections."""
        self._database.close()

    def _add(self, key_id: str, who: str, why: str, **values: object) -> None:
        for name, text in (("who", who), ("why", why)):
            if not text.strip():
                raise InvalidInput(f"{name} is empty; a non-empty text is needed")
        row = {"key_id": key_id, "who": who, "why": why, "time_us": time.time_ns() // 1000, **values}
        with self._database.connection() as connection:
            connection.execute(_TABLE.insert().values(**row))


def check(given: str, keys: Mapping[str, ApiKey]) -> Verified | Refusal:
    """What a key proves. The time it takes tells nothing of the secret.

    Args:
        given: the key as sent, with its prefix.
        keys: those in force, by id.
    """
    key_id, _, secret = given.removeprefix(PREFIX).partition("_")
    key = keys.get(key_id)
    if key is None:
        return Refusal(reason="the API key is not known, or was revoked", unknown_key=True)
    if not hmac.compare_digest(_hashed(secret), key.hash):
        return Refusal(reason="the API key is not known, or was revoked")
    until = float("inf") if key.expires is None else key.expires / 1e6
    if until <= time.time():
        return Refusal(reason="the API key is expired")
    kind = next(scope for scope in SCOPES if scope == key.scope)
    principal = Principal(kind=kind, id=f"key:{key_id}", scopes=frozenset((kind,)))
    return Verified(principal=principal, until=until)


def _hashed(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()
