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


def choose(config: CfConfig, *, titles: int) -> Choice:
    """The config's method; for "auto" EASE where its memory allows, else the spectral filter.

    Args:
        titles: of the catalogue.
    """
    if config.method != "auto":
        return Choice(method=config.method, reason="the config names it")
    needed = BYTES_A_PAIR * titles**2
    reason = f"EASE takes {needed} bytes for {titles} titles, ease_bytes is {config.ease_bytes}"
    return Choice(method="ease" if needed <= config.ease_bytes else "spectral", reason=reason)
