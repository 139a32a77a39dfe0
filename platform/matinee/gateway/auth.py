"""Authentication: what the settings must say before anything is served, and who makes a request."""

from __future__ import annotations

import hashlib
import ipaddress
import time
from collections.abc import Iterable
from functools import lru_cache, partial
from pathlib import Path
from urllib.parse import urlsplit

import httpx
from starlette.types import Scope

from matinee.config import Auth, Settings
from matinee.errors import ConfigError
from matinee.gateway import keys, tokens
from matinee.gateway.limits import check_rates
from matinee.gateway.principal import SCOPES, Principal, Refusal, Verified
from matinee.gateway.refreshed import Refreshed

CACHED_TOKENS = 10_000
"""Verified tokens that are remembered: a signature costs as much as the rest of the gateway."""

KEYS_REFRESH_S = 1.0
KEYS_STALE_S = 300.0
JWKS_TIMEOUT_S = 5.0
MAX_JWKS_BYTES = 1 << 20

FORWARDED = "forwarded"
"""The one caller that all are whose address was taken from a header before it came here."""

_NOBODY = Refusal(reason="no credentials; send Authorization: Bearer, with a token or an API key")
_EVERYTHING = frozenset(SCOPES)


def check(settings: Settings, host: str | None = None) -> None:
    """Refuse settings that would serve unsafely.

    Args:
        host: the address that is bound; None: `serving.host`.

    Raises:
        ConfigError: another address than loopback without authentication or with a development secret,
            settings of authentication that contradict each other, or proxies or rates that mean nothing.
    """
    auth = settings.auth
    host = settings.serving.host if host is None else host
    secret = auth.hs256_secret.get_secret_value()
    if not is_loopback(host):
        if not auth.on:
            raise ConfigError(
                f"serving.host is {host!r}: another address than loopback needs authentication; "
                "set auth.jwks or auth.keys, or bind 127.0.0.1"
            )
        if secret:
            raise ConfigError(f"auth.hs256_secret is for development on loopback; serving.host is {host!r}")
    if secret and auth.jwks:
        raise ConfigError("auth.jwks and auth.hs256_secret are both set; one of them is accepted")
    if secret:
        tokens.shared(secret)
    if auth.jwks and not (auth.issuer and auth.audience):
        raise ConfigError("auth.jwks needs auth.issuer and auth.audience: whose tokens, and for whom")
    parts = urlsplit(auth.jwks)
    if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        raise ConfigError(f"auth.jwks is {auth.jwks!r}: keys are taken over https, or from a file")
    networks(settings.gateway.trusted_proxies)
    check_rates(settings.gateway.rates)


def is_loopback(host: str) -> bool:
    """The address reaches this machine alone."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def networks(texts: Iterable[str]) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    """Addresses and networks.

    Raises:
        ConfigError: a text is neither.
    """
    try:
        return [ipaddress.ip_network(text) for text in texts]
    except ValueError as failure:
        raise ConfigError(f"gateway.trusted_proxies: {failure}") from None


class Authenticator:
    """Tells who makes a request, by its `Authorization` header, or else by its peer's address.

    Args:
        settings: `auth`, and `gateway.trusted_proxies`.

    Attributes:
        on: callers must say who they are.

    Raises:
        ConfigError: the settings are not safe.
    """

    def __init__(self, settings: Settings) -> None:
        check(settings)
        self._rules = rules = settings.auth
        self.on = rules.on
        self._proxies = networks(settings.gateway.trusted_proxies)
        self._cache: dict[bytes, tuple[int, Verified]] = {}
        self._tokens: Refreshed[tokens.KeySet] | None = None
        self._keys: Refreshed[dict[str, keys.ApiKey]] | None = None
        self._table: keys.Keys | None = None
        if rules.jwks or rules.hs256_secret.get_secret_value():
            self._tokens = Refreshed(
                partial(_read_keys, rules),
                name="the key set of the tokens' issuer",
                refresh_s=rules.refresh_s,
                retry_s=rules.retry_s,
                stale_s=rules.stale_s,
            )
        if rules.keys:
            self._table = keys.Keys(settings)
            self._keys = Refreshed(
                self._table.live,
                name="the table of API keys",
                refresh_s=KEYS_REFRESH_S,
                retry_s=KEYS_REFRESH_S,
                stale_s=KEYS_STALE_S,
            )

    async def identify(self, scope: Scope) -> Principal | Refusal:
        """Who makes a request, or why the credentials are not accepted.

        Raises:
            Unavailable: what credentials are checked against cannot be read.
        """
        if not self.on:
            return _anyone(self.peer(scope))
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        if not given:
            return _NOBODY
        kind, _, credential = given[0].partition(b" ")
        if len(given) > 1 or kind.lower() != b"bearer":
            return Refusal(reason="one Authorization header is accepted, of the form: Bearer CREDENTIAL")
        text = credential.strip().decode("latin-1")
        found = await (self._key(text) if text.startswith(keys.PREFIX) else self._token(text))
        return found.principal if isinstance(found, Verified) else found

    def peer(self, scope: Scope) -> str:
        """The address a request comes from; a header tells only what a trusted proxy says."""
        host: str = (scope.get("client") or ("unknown", 0))[0]
        told = [value for name, value in scope["headers"] if name == b"x-forwarded-for"]
        if not told:
            return host
        claimed = [claim.strip() for value in told for claim in value.decode("latin-1").split(",")]
        if self._trusted(host):
            return next((claim for claim in reversed(claimed) if not self._trusted(claim)), host)
        return FORWARDED if host in claimed else host

    def close(self) -> None:
        """End the threads that refresh keys."""
        for copy in (self._tokens, self._keys):
            if copy is not None:
                copy.close()
        if self._table is not None:
            self._table.close()

    async def _key(self, given: str) -> Verified | Refusal:
        if self._keys is None:
            return Refusal(reason="API keys are not accepted here")
        found = keys.check(given, await self._keys.get())
        if isinstance(found, Refusal) and found.unknown_key:
            found = keys.check(given, await self._keys.newer())
        return found

    async def _token(self, token: str) -> Verified | Refusal:
        if self._tokens is None:
            return Refusal(reason="tokens are not accepted here; an API key is")
        held = await self._tokens.get()
        digest = hashlib.sha256(token.encode("latin-1")).digest()
        version, known = self._cache.get(digest, (0, None))
        if known is not None and version == self._tokens.version and time.time() < known.until:
            return known
        found = tokens.verify(token, held, self._rules)
        if isinstance(found, Refusal) and found.unknown_key:
            found = tokens.verify(token, await self._tokens.newer(), self._rules)
        if isinstance(found, Verified):
            while len(self._cache) >= CACHED_TOKENS:
                del self._cache[next(iter(self._cache))]
            self._cache[digest] = self._tokens.version, found
        return found

    def _trusted(self, host: str) -> bool:
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return False
        return any(address in network for network in self._proxies)


@lru_cache(1024)
def _anyone(address: str) -> Principal:
    """Who calls from an address where authentication is off."""
    return Principal(kind="local", id=address, scopes=_EVERYTHING)


def _read_keys(rules: Auth) -> tokens.KeySet:
    """The key set as it is now.

    Raises:
        ValueError: what was read is no key set.
        OSError, httpx.HTTPError: it cannot be read.
    """
    if secret := rules.hs256_secret.get_secret_value():
        return tokens.shared(secret)
    if urlsplit(rules.jwks).scheme not in ("http", "https"):
        return tokens.parse_jwks(Path(rules.jwks).expanduser().read_bytes())
    with httpx.stream("GET", rules.jwks, timeout=JWKS_TIMEOUT_S) as answer:
        answer.raise_for_status()
        body = b""
        for chunk in answer.iter_bytes():
            body += chunk
            if len(body) > MAX_JWKS_BYTES:
                raise ValueError(f"the key set is above {MAX_JWKS_BYTES} bytes")
    return tokens.parse_jwks(body)
