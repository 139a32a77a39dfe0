"""Keys and tokens for tests: what an issuer would sign, and what a forger would."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from functools import cache
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from matinee.config import Settings
from matinee.gateway.keys import Keys

ISSUER = "https://issuer.example"
AUDIENCE = "matinee"


@cache
def rsa_key(name: str = "first") -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@cache
def ec_key(name: str = "first") -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def jwks(**keys: Any) -> str:
    """A key set of private keys' public halves, by their ids."""
    listed = []
    for kid, key in keys.items():
        make = RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else ECAlgorithm
        listed.append(json.loads(make.to_jwk(key.public_key())) | {"kid": kid, "use": "sig"})
    return json.dumps({"keys": listed})


def claims_of(**claims: Any) -> dict[str, Any]:
    """What a token says, good for an hour and for the member m1 unless told otherwise."""
    usual = {"iss": ISSUER, "aud": AUDIENCE, "sub": "m1", "scope": "member", "exp": time.time() + 3600}
    return usual | claims


def token(
    key: Any = None, kid: str | None = "r1", algorithm: str = "RS256", header: Any = None, **claims: Any
) -> str:
    """A token of `claims_of`; a claim of None is absent."""
    held = {name: value for name, value in claims_of(**claims).items() if value is not None}
    headers = ({"kid": kid} if kid is not None else {}) | (header or {})
    return jwt.encode(held, rsa_key() if key is None else key, algorithm, headers)


def api_key(settings: Settings, scope: str) -> str:
    """A new API key of the home."""
    keys = Keys(settings)
    made = keys.create(scope, who="test", why="test")
    keys.close()
    return made


def part(value: Any) -> str:
    """A part of a token."""
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def confused(key: Any, kid: str) -> str:
    """An operator's token signed by HMAC with a public key: whoever believes its alg verifies it."""
    signed = f"{part({'alg': 'HS256', 'kid': kid})}.{part(claims_of(scope='operator member'))}"
    digest = hmac.new(public_pem(key), signed.encode(), hashlib.sha256).digest()
    return f"{signed}.{base64.urlsafe_b64encode(digest).rstrip(b'=').decode()}"


def public_pem(key: Any) -> bytes:
    pem: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return pem


def issuer_file(folder: Path) -> dict[str, str]:
    """Settings that accept the tokens of `rsa_key()` as r1 and of `ec_key()` as e1, from a file."""
    path = folder / "jwks.json"
    path.write_text(jwks(r1=rsa_key(), e1=ec_key()))
    return {"auth.jwks": str(path), "auth.issuer": ISSUER, "auth.audience": AUDIENCE}
