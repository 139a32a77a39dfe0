"""What this machine's own clients show the API: the setting `auth.token`."""

from __future__ import annotations

import asyncio

from matinee.client import bearer
from matinee.config import Settings
from matinee.errors import ConfigError
from matinee.gateway.auth import Authenticator
from matinee.gateway.principal import Refusal, Scope


def require(settings: Settings, *scopes: Scope) -> None:
    """Check that the API will let this machine's clients in; where authentication is off it does.

    Args:
        scopes: what they call is open to each of these.

    Raises:
        ConfigError: `auth.token` is not set, not accepted, or of none of the scopes.
        InvalidInput: no header can hold it.
        Unavailable: what it is checked against cannot be read.
    """
    if not settings.auth.on:
        return
    headers = bearer(settings.auth.token.get_secret_value())
    if not headers:
        raise ConfigError(f"authentication is on: {_NEEDED.format(' or '.join(scopes))}")
    authenticator = Authenticator(settings)
    try:
        sent = [(name.encode(), value.encode()) for name, value in headers.items()]
        found = asyncio.run(authenticator.identify({"headers": sent}))
    finally:
        authenticator.close()
    if isinstance(found, Refusal):
        raise ConfigError(f"auth.token is not accepted: {found.reason}")
    if not found.scopes & set(scopes):
        held = ", ".join(sorted(found.scopes))
        raise ConfigError(f"auth.token is of scope {held}: {_NEEDED.format(' or '.join(scopes))}")


_NEEDED = "set auth.token (MATINEE_AUTH_TOKEN) to an API key or a token of scope {}"
