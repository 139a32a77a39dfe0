"""Which cell a member is in, and which version it gets. Pure: rules and a hash, the same everywhere.

A trial's cells are dealt by a salt of their own, so they are fresh random samples of all members, and
whoever is in none of them stays in the surface's split. When the cells of a trial grow by one factor,
members only move into them, never from one to another (`experiments.allocate`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from matinee.errors import InvalidInput
from matinee.experiments.allocate import allocate, bucket

FORCED = "forced:"
"""Begins the cell of a member who was put there by a rule: no random sample, so no part of an analysis."""

NEW = "new"
"""The segment of members of whom the feature store knows nothing."""

_REST = "rest"
_SEGMENT = re.compile(r"(?P<name>[^<>=]+)(?P<sign>>=|<|=)(?P<value>[^<>=]+)")


@dataclass(frozen=True, kw_only=True)
class Arm:
    """A cell of a trial: its version, and its share of all members."""

    version: str
    share: float


@dataclass(frozen=True, kw_only=True)
class Trial:
    """Cells that are dealt anew.

    Args:
        salt: names the trial; another one deals the members anew.
        arms: cell to arm; the shares sum to at most 1, the rest of the members are in no cell of it.
    """

    salt: str
    arms: Mapping[str, Arm]

    def cell(self, member_id: str) -> str | None:
        """The member's cell; None for the rest."""
        shares = {cell: arm.share for cell, arm in self.arms.items()}
        shares[_REST] = max(0.0, 1.0 - sum(shares.values()))
        found = allocate(member_id, self.salt, shares)
        return None if found == _REST else found


@dataclass(frozen=True, kw_only=True)
class Shadow:
    """A version that scores a share of the requests and is never shown."""

    version: str
    share: float

    def takes(self, request_id: str) -> bool:
        """Whether it scores this request."""
        return bucket(request_id, f"shadow/{self.version}") < self.share


@dataclass(frozen=True, kw_only=True)
class Rules:
    """Everything that is decided about a surface.

    Args:
        weights: version to share; empty: the champion's.
        trial: cells dealt anew.
        members: member id to the cell they are put in.
        segments: segment to the cell its members are put in; the first that holds counts.
        shadow: a version that is only scored.
    """

    weights: Mapping[str, float] = field(default_factory=dict)
    trial: Trial | None = None
    members: Mapping[str, str] = field(default_factory=dict)
    segments: Mapping[str, str] = field(default_factory=dict)
    shadow: Shadow | None = None

    def version_of(self, cell: str) -> str | None:
        """The version of a trial's cell or of "v<version>"; None for a cell there is none of now."""
        if self.trial is not None and cell in self.trial.arms:
            return self.trial.arms[cell].version
        return cell[1:] if re.fullmatch(r"v\d+", cell) else None

    def shares(self, champion: str) -> dict[str, float]:
        """Version to share of all members, those in a trial among them; empty where nothing can serve."""
        arms = list(self.trial.arms.values()) if self.trial else []
        left = max(0.0, 1.0 - sum(arm.share for arm in arms))
        base = self.weights or ({champion: 1.0} if champion else {})
        found = {version: share * left for version, share in base.items()}
        for arm in arms:
            found[arm.version] = found.get(arm.version, 0.0) + arm.share
        return {version: share for version, share in found.items() if share > 0}


def place(
    member_id: str,
    rules: Rules,
    *,
    model: str,
    champion: str,
    traits: Mapping[str, str | float] = MappingProxyType({}),
) -> tuple[str, str] | None:
    """A member's cell and version; None where no version can serve.

    A member is put in a cell by a rule on them, else by one on a segment, else dealt by the trial, else by
    the split.

    Args:
        model: the registered model: the split's salt, so that a member is in one cell on every surface
            whose weights are equal.
        champion: version of a surface without weights; "" where there is none.
        traits: what segments may ask about: texts and numbers by name, and `NEW` of a member who is.
    """
    cell = rules.members.get(member_id) or next(
        (cell for segment, cell in rules.segments.items() if holds(segment, traits)), ""
    )
    if cell and (version := rules.version_of(cell)):
        return FORCED + cell, version
    if rules.trial is not None and (cell := rules.trial.cell(member_id) or ""):
        return cell, rules.trial.arms[cell].version
    weights = rules.weights or ({champion: 1.0} if champion else {})
    if not weights:
        return None
    version = allocate(member_id, f"split/{model}", weights)
    return f"v{version}", version


def check_segment(segment: str) -> None:
    """Return where it is one: "new", "country=SE", "plays_7d<5" or "plays_7d>=5".

    Raises:
        InvalidInput: it is not.
    """
    parts = _SEGMENT.fullmatch(segment)
    numeric = parts and parts["sign"] != "=" and not re.fullmatch(r"-?\d+(\.\d+)?", parts["value"])
    if segment != NEW and (parts is None or numeric):
        raise InvalidInput(
            f"segment {segment!r}; accepted: {NEW!r}, 'NAME=TEXT', 'NAME<NUMBER' and 'NAME>=NUMBER'"
        )


def asks_features(segment: str) -> bool:
    """Whether a segment asks what the feature store knows, not only what the request says."""
    parts = _SEGMENT.fullmatch(segment)
    return parts is None or parts["sign"] != "="


def holds(segment: str, traits: Mapping[str, str | float]) -> bool:
    """Whether a member with these traits is in a segment; an unknown trait is in none."""
    parts = _SEGMENT.fullmatch(segment)
    if parts is None:
        return segment in traits
    value = traits.get(parts["name"])
    if parts["sign"] == "=":
        return value == parts["value"]
    if not isinstance(value, int | float):
        return False
    return value < float(parts["value"]) if parts["sign"] == "<" else value >= float(parts["value"])
