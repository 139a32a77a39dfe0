"""Who calls: the values that authentication makes and everything behind it reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Scope = Literal["member", "service", "batch", "operator"]
Kind = Literal["member", "service", "batch", "operator", "peer", "local"]

SCOPES: tuple[Scope, ...] = ("operator", "service", "batch", "member")
"""What a credential may hold, the strongest first. batch: a service whose traffic gives way to others'."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Principal:
    """A caller.

    Args:
        kind: the strongest scope; peer: an address without credentials; local: anyone, where
            authentication is off.
        id: the token's subject, the key's id, or the address.
        scopes: what was granted.
        member_id: the member that a token with the scope member speaks for.
    """

    kind: Kind
    id: str
    scopes: frozenset[str] = frozenset()
    member_id: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Verified:
    """A principal, and until when its credential is good (seconds since the epoch)."""

    principal: Principal
    until: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Refusal:
    """Why a credential is not accepted.

    Args:
        reason: fit to be told.
        unknown_key: the key it names is not known here; a newer set of keys may have it.
    """

    reason: str
    unknown_key: bool = False
