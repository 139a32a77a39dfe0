"""Which method relates the titles, from the shape of the data. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from matinee.models.cf.config import CfConfig, Method
from matinee.models.cf.ease import BYTES_A_PAIR


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A method and why."""

    method: Method
    reason: str


def choose(config: CfConfig, *, titles: int, watches: int) -> Choice:
    """The config's method; for "auto" EASE where it fits and titles are watched often, else spectral.

    Args:
        titles: of the catalogue.
        watches: pairs of a member and a title.
    """
    if config.method != "auto":
        return Choice(method=config.method, reason="the config names it")
    needed = BYTES_A_PAIR * titles**2
    if needed > config.ease_bytes:
        reason = f"{titles} titles: EASE would take {needed} bytes of {config.ease_bytes}"
        return Choice(method="spectral", reason=reason)
    each = watches / max(titles, 1)
    if each < config.ease_watches:
        reason = f"{each:.1f} watches a title: EASE needs {config.ease_watches:g}"
        return Choice(method="spectral", reason=reason)
    reason = f"{titles} titles of {each:.1f} watches each: few and dense enough for EASE"
    return Choice(method="ease", reason=reason)
