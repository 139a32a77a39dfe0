"""What a token proves: nothing, unless the issuer's key signed it, for us, and its time has not passed."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import credentials
import pytest
from credentials import claims_of, confused, ec_key, jwks, part, rsa_key, token
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given
from hypothesis import strategies as st

from matinee.config import Auth
from matinee.errors import ConfigError
from matinee.gateway.principal import Refusal, Verified
from matinee.gateway.tokens import parse_jwks, shared, verify

RULES = Auth(jwks="a file", issuer=credentials.ISSUER, audience=credentials.AUDIENCE)
KEYS = parse_jwks(jwks(r1=rsa_key(), e1=ec_key()))


def unsigned(alg: str) -> str:
    return f"{part({'alg': alg, 'kid': 'r1'})}.{part(claims_of(scope='operator member'))}."


@pytest.mark.parametrize("given_claims", [{}, {"aud": ["other", "matinee"]}, {"scope": ["member"]}])
def test_the_issuers_tokens_speak_for_their_member(given_claims: dict[str, Any]) -> None:
    claims = {"exp": time.time() - RULES.leeway_s / 2} | given_claims
    for good in (token(**claims), token(ec_key(), "e1", "ES256", **claims)):
        found = verify(good, KEYS, RULES)
        assert isinstance(found, Verified), found
        assert (found.principal.kind, found.principal.member_id) == ("member", "m1")


def test_the_strongest_scope_is_the_kind_and_only_members_have_an_id() -> None:
    found = verify(token(scope="service read:all operator", sub="svc"), KEYS, RULES)
    assert isinstance(found, Verified)
    assert (found.principal.kind, found.principal.id, found.principal.member_id) == ("operator", "svc", None)
    assert found.principal.scopes == {"service", "operator"}


REFUSED = {
    "forged": (token(rsa_key("other")), "signature is wrong"),
    "forged on the curve": (token(ec_key("other"), "e1", "ES256"), "signature is wrong"),
    "expired": (token(exp=time.time() - 60), "expired"),
    "no expiry": (token(exp=None), "exp"),
    "expiry is text": (token(exp="never"), "not accepted"),
    "not yet": (token(nbf=time.time() + 600), "not accepted"),
    "wrong audience": (token(aud="other"), "udience"),
    "no audience": (token(aud=None), "aud"),
    "wrong issuer": (token(iss="https://evil.example"), "ssuer"),
    "no issuer": (token(iss=None), "iss"),
    "alg none": (unsigned("none"), "alg"),
    "alg None": (unsigned("NoNe"), "alg"),
    "alg empty": (unsigned(""), "alg"),
    "confused": (confused(rsa_key(), "r1"), "accepted: RS256"),
    "confused on the curve": (confused(ec_key(), "e1"), "accepted: ES256"),
    "the other key's id": (token(kid="e1"), "accepted: ES256"),
    "another hash": (token(algorithm="RS512"), "accepted: RS256"),
    "a padding of its own": (token(algorithm="PS256"), "accepted: RS256"),
    "unknown kid": (token(kid="r9"), "unknown key"),
    "kid as path": (token(kid="../../../../dev/null"), "unknown key"),
    "kid as query": (token(kid="r1' UNION SELECT 'x"), "unknown key"),
    "no kid": (token(kid=None), "unknown key"),
    "extension": (token(header={"crit": ["exp"]}), "no JWT"),
    "no scope": (token(scope=None), "scope"),
    "foreign scope": (token(scope="admin"), "scope"),
    "scope is a number": (token(scope=7), "scope"),
    "no member": (token(sub=None), "names no member"),
    "empty member": (token(sub=""), "names no member"),
    "too long": (token(pad="x" * 8192), "above 8192 bytes"),
    "no token": ("a.b.c", "no JWT"),
    "empty": ("", "no JWT"),
    "tampered": (
        ".".join((lambda t: [t[0], part(claims_of(scope="operator member")), t[2]])(token().split("."))),
        "signature is wrong",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_everything_else_is_refused(case: str) -> None:
    given_token, reason = REFUSED[case]
    found = verify(given_token, KEYS, RULES)
    assert isinstance(found, Refusal)
    assert reason in found.reason


@pytest.mark.parametrize("brought", ["jwk", "jku", "x5u"])
def test_a_key_that_the_token_brings_is_not_looked_at(brought: str) -> None:
    own = {"jwk": json.loads(jwks(r1=rsa_key("other")))["keys"][0], "jku": "https://evil.example/jwks"}
    header = {brought: own.get(brought, "https://evil.example/cert")}
    found = verify(token(rsa_key("other"), header=header), KEYS, RULES)
    assert isinstance(found, Refusal)


@given(st.text(max_size=60), st.text(max_size=60), st.text(max_size=30))
def test_no_text_is_a_token(head: str, body: str, tail: str) -> None:
    assert isinstance(verify(f"{head}.{body}.{tail}", KEYS, RULES), Refusal)


@given(st.integers(min_value=0, max_value=10**6), st.integers(min_value=1, max_value=255))
def test_no_changed_byte_passes(place: int, change: int) -> None:
    good = token(ec_key(), "e1", "ES256").split(".")
    raw = [bytearray(base64.urlsafe_b64decode(text + "==")) for text in good]
    joined = raw[place % 3]
    joined[place % len(joined)] ^= change
    texts = [base64.urlsafe_b64encode(bytes(each)).rstrip(b"=").decode() for each in raw]
    assert isinstance(verify(".".join(texts), KEYS, RULES), Refusal)


def test_one_key_needs_no_id() -> None:
    (listed,) = json.loads(jwks(r1=rsa_key()))["keys"]
    del listed["kid"]
    keys = parse_jwks(json.dumps({"keys": [listed]}))
    assert isinstance(verify(token(kid=None), keys, RULES), Verified)
    assert isinstance(verify(token(kid="r1"), keys, RULES), Refusal)


def test_a_set_takes_only_keys_that_are_public_strong_and_for_signatures() -> None:
    weak = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    (strong,) = json.loads(jwks(good=rsa_key()))["keys"]
    listed = [
        strong,
        strong | {"kid": "encryption", "use": "enc"},
        strong | {"kid": "private", "d": "AQAB"},
        strong | {"kid": "other algorithm", "alg": "RS512"},
        {"kid": "secret", "kty": "oct", "k": "c2VjcmV0", "alg": "HS256"},
        {"kid": "broken", "kty": "RSA", "n": "?", "e": "AQAB"},
        *json.loads(jwks(weak=weak))["keys"],
        None,
    ]
    assert set(parse_jwks(json.dumps({"keys": listed}))) == {"good"}


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"keys": 5}', '{"keys": [{"kty": "oct", "k": "eA"}]}'])
def test_a_set_without_a_usable_key_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_jwks(text)


def test_a_shared_secret_is_long_and_takes_only_its_own_algorithm() -> None:
    secret = "a secret of at least thirty-two bytes"
    with pytest.raises(ConfigError, match="32 bytes"):
        shared("short")
    rules = RULES.model_copy(update={"issuer": ""})
    good = token(secret.encode(), None, "HS256", iss=None)
    assert isinstance(verify(good, shared(secret), rules), Verified)
    assert isinstance(verify(token(kid=None), shared(secret), rules), Refusal)
    assert isinstance(verify(unsigned("none"), shared(secret), rules), Refusal)
