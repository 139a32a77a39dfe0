"""When a difference between the live window and the training reference is drift. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from matinee.schema import Decision

Action = Literal["hold", "keep", "drift"]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What the decision is measured by."""

    share: float
    """Share of drifted columns, in (0, 1], at which drift is decided."""
    rows: int = 100
    """Fewest live rows to decide on: with ten bins the index of 100 undrifted rows stays under 0.2 in
    about 98 of 100 columns."""


def decide(share: float | None, rows: int, limits: Limits) -> Decision:
    """Hold (too little seen), keep (as trained), or drift.

    Args:
        share: drifted columns over compared columns, in [0, 1]; None where nothing was compared.
        rows: live rows behind it.
        limits: what they are held against.
    """
    if rows < limits.rows:
        return Decision(
            action="hold",
            reason=f"{rows} live rows, fewer than {limits.rows}: too few to tell",
            evidence={"rows": rows, "rows_limit": limits.rows},
        )
    if share is None:
        return Decision(
            action="hold",
            reason="no column could be compared with the training reference",
            evidence={"rows": rows},
        )
    evidence = {"share": share, "share_limit": limits.share, "rows": rows}
    if share >= limits.share:
        return Decision(
            action="drift",
            reason=f"{share:.0%} of the columns drifted, at or above {limits.share:.0%}, over {rows} rows",
            evidence=evidence,
        )
    return Decision(
        action="keep",
        reason=f"{share:.0%} of the columns drifted, under {limits.share:.0%}, over {rows} rows",
        evidence=evidence,
    )
