"""Bearer tokens (JWT): which keys there are, and what a token proves now. It reads the clock, and no more.

The algorithm is the key's, never the token's: a token that names another is refused, so neither `none`
nor a public key taken for a shared secret can pass.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jwt
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from matinee.config import Auth
from matinee.errors import ConfigError
from matinee.gateway.principal import SCOPES, Principal, Refusal, Verified

LEAST_RSA_BITS = 2048
LEAST_SECRET_BYTES = 32
MAX_TOKEN_BYTES = 8192


@dataclass(frozen=True, kw_only=True)
class Key:
    """A key, and the one algorithm it verifies."""

    algorithm: str
    key: Any


KeySet = Mapping[str, Key]
"""Keys by their id; "" for the one key of a set without ids."""


def shared(secret: str) -> KeySet:
    """The key set of a shared secret.

    Raises:
        ConfigError: the secret is short enough to be guessed.
    """
    if len(secret.encode()) < LEAST_SECRET_BYTES:
        raise ConfigError(f"auth.hs256_secret is shorter than {LEAST_SECRET_BYTES} bytes")
    return {"": Key(algorithm="HS256", key=secret.encode())}


def parse_jwks(text: str | bytes) -> KeySet:
    """The signature keys of a JWKS (RFC 7517) that are RSA or P-256; all others are left out.

    Raises:
        ValueError: it is not a JWKS, or none of its keys can be used.
    """
    found = {}
    document = json.loads(text)
    listed = document.get("keys") if isinstance(document, dict) else None
    for jwk in listed if isinstance(listed, list) else ():
        if key := _usable(jwk):
            found[str(jwk.get("kid", ""))] = key
    if not found:
        raise ValueError("the key set has no public RSA key of 2048 bits or more and no public P-256 key")
    return found


def verify(token: str, keys: KeySet, rules: Auth) -> Verified | Refusal:
    """What a token proves.

    Args:
        keys: the issuer's keys.
        rules: issuer, audience, leeway and the names of the claims.
    """
    if len(token) > MAX_TOKEN_BYTES:
        return Refusal(reason=f"the token is above {MAX_TOKEN_BYTES} bytes")
    try:
        header = jwt.get_unverified_header(token)
    except jwt.PyJWTError:
        return Refusal(reason="the token is no JWT")
    named = header.get("kid", "")
    key = keys.get(named) if isinstance(named, str) else None
    if key is None and named == "" and len(keys) == 1:
        (key,) = keys.values()
    if key is None:
        return Refusal(reason="the token is signed with an unknown key", unknown_key=True)
    if header.get("alg") != key.algorithm:
        return Refusal(reason=f"the token's alg is not its key's; accepted: {key.algorithm}")
    required = ["exp", "aud", *(["iss"] if rules.issuer else [])]
    try:
        claims = jwt.decode(
            token,
            key.key,
            algorithms=[key.algorithm],
            audience=rules.audience,
            issuer=rules.issuer or None,
            leeway=rules.leeway_s,
            options={"require": required},
        )
    except jwt.ExpiredSignatureError:
        return Refusal(reason="the token is expired")
    except jwt.InvalidSignatureError:
        return Refusal(reason="the token's signature is wrong")
    except (jwt.PyJWTError, ValueError, TypeError, OverflowError) as failure:
        return Refusal(reason=f"the token is not accepted: {failure}")
    return _granted(claims, rules)


def _granted(claims: Mapping[str, Any], rules: Auth) -> Verified | Refusal:
    given = claims.get(rules.scope_claim, "")
    texts = given.split() if isinstance(given, str) else given
    held = texts if isinstance(texts, list) else []
    scopes = [scope for scope in SCOPES if scope in held]
    if not scopes:
        return Refusal(reason=f"the token's claim {rules.scope_claim} holds none of {', '.join(SCOPES)}")
    member_id = claims.get(rules.member_claim)
    if "member" not in scopes:
        member_id = None
    elif not isinstance(member_id, str) or not member_id:
        return Refusal(reason=f"the token's claim {rules.member_claim} names no member")
    subject = member_id or str(claims.get("sub") or claims.get("client_id") or "")
    principal = Principal(kind=scopes[0], id=subject, scopes=frozenset(scopes), member_id=member_id)
    return Verified(principal=principal, until=float(claims["exp"]) + rules.leeway_s)


def _usable(jwk: Any) -> Key | None:
    """A key of the set, or None where it is of another kind, private, or not for signatures."""
    if not isinstance(jwk, dict) or jwk.get("use", "sig") != "sig" or "d" in jwk:
        return None
    kind = (jwk.get("kty"), jwk.get("crv"))
    try:
        if kind == ("RSA", None) and jwk.get("alg", "RS256") == "RS256":
            key: Any = RSAAlgorithm.from_jwk(jwk)
            return Key(algorithm="RS256", key=key) if key.key_size >= LEAST_RSA_BITS else None
        if kind == ("EC", "P-256") and jwk.get("alg", "ES256") == "ES256":
            return Key(algorithm="ES256", key=ECAlgorithm.from_jwk(jwk))
    except (jwt.PyJWTError, ValueError):
        return None
    return None
