"""How fresh a view is: measured by the stream, held against the objective its view declares. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from matinee.schema import Decision


@dataclass(frozen=True, kw_only=True)
class Freshness:
    """What the stream measured of a view; None where it measured nothing.

    Args:
        p50_s: median seconds from an event's arrival to its values being readable.
        p99_s: 99th percentile of the same.
        last_write: microseconds: when a row of the view was last written online.
        newest_event: microseconds: the latest event_timestamp among its rows.
        objective_s: what the view declares.
    """

    p50_s: float | None = None
    p99_s: float | None = None
    last_write: int | None = None
    newest_event: int | None = None
    objective_s: float | None = None

    def staleness_s(self, now: int) -> float | None:
        """Seconds since the view last changed: since its last write, else since its newest event.

        Args:
            now: microseconds.
        """
        last = self.last_write if self.last_write is not None else self.newest_event
        return None if last is None else max(0.0, (now - last) / 1e6)


def measured(status: Mapping[str, Any]) -> dict[str, Freshness]:
    """By view, from the stream's status (its `views`); empty where it says nothing of views."""
    return {
        str(name): Freshness(
            p50_s=figures.get("freshness_p50_s"),
            p99_s=figures.get("freshness_p99_s"),
            last_write=figures.get("last_write"),
            newest_event=figures.get("newest_event"),
            objective_s=figures.get("objective_s"),
        )
        for name, figures in (status.get("views") or {}).items()
    }


def judge_freshness(found: Freshness, objective_s: float | None) -> Decision:
    """ "hold" (nothing to judge), "fresh", or "late" where the 99th percentile is over the objective.

    How long ago a view changed decides nothing: where no events come, nothing changes.

    Args:
        objective_s: seconds from an event's arrival to its values being readable; None: none is declared.
    """
    if objective_s is None:
        return Decision(action="hold", reason="the view declares no objective")
    if found.p99_s is None:
        return Decision(
            action="hold", reason="no event was measured lately", evidence={"objective_s": objective_s}
        )
    evidence = {"p99_s": found.p99_s, "objective_s": objective_s}
    action, side = ("late", "over") if found.p99_s > objective_s else ("fresh", "within")
    return Decision(
        action=action,
        reason=f"events take {found.p99_s:.3g} s (p99), {side} the objective of {objective_s:.3g} s",
        evidence=evidence,
    )
