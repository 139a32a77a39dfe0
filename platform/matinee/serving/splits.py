"""Traffic splits as rows: each change is a new row with who, when and why; none is ever rewritten."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import sqlalchemy as sql

from matinee.config import Settings
from matinee.errors import InvalidInput
from matinee.serving.place import Arm, Rules, Shadow, Trial, check_segment
from matinee.state import StateDatabase, signed

Kind = Literal["trial", "member", "segment", "shadow"]

_META = sql.MetaData()


def _table(name: str, *columns: sql.Column[Any]) -> sql.Table:
    return sql.Table(
        name,
        _META,
        sql.Column("id", sql.Integer, primary_key=True, autoincrement=True),
        sql.Column("surface", sql.String(256), nullable=False, index=True),
        *columns,
        *signed(),
    )


_SPLITS = _table("splits", sql.Column("weights", sql.Text, nullable=False))
_RULES = _table(
    "split_rules",
    sql.Column("kind", sql.String(16), nullable=False),
    sql.Column("name", sql.String(256), nullable=False),
    sql.Column("value", sql.Text, nullable=False),
)


@dataclass(frozen=True, kw_only=True)
class Split:
    """One change of a surface's split.

    Args:
        surface: the place in the product the split is for.
        weights: version to share; shares sum to 1. Empty: all traffic goes to the champion.
        who: who decided.
        why: the reason given.
        time: microseconds since the epoch.
    """

    surface: str
    weights: Mapping[str, float]
    who: str
    why: str
    time: int


class Splits:
    """The splits of every surface, and the rules beside them, in the state database.

    Args:
        settings: `state_url` is read.

    Raises:
        StorageError: the data home cannot be written.
        Unavailable: the database does not answer.
    """

    def __init__(self, settings: Settings) -> None:
        self._database = StateDatabase(settings, _SPLITS, _RULES)

    def set(self, surface: str, weights: Mapping[str, float], *, who: str, why: str) -> Split:
        """Record a split; it takes effect in running replicas within their polling interval.

        Args:
            surface: the place in the product.
            weights: version to weight, any positive scale; empty: back to the champion.
            who: who decides; not empty.
            why: the reason; not empty.

        Raises:
            InvalidInput: an empty name or reason, a weight negative or not finite, or all of them 0.
        """
        scaled = shares(weights)
        signed = self._add(_SPLITS, surface, who, why, weights=json.dumps(scaled))
        return Split(surface=surface, weights=scaled, who=who, why=why, time=signed)

    def set_trial(self, surface: str, trial: Trial | None, *, who: str, why: str) -> None:
        """Deal cells anew on a surface; None ends it, and its members are back in the split.

        Raises:
            InvalidInput: an empty name or reason, a share not above 0, or more than 1 of them together.
        """
        arms = trial.arms if trial else {}
        if not all(arm.share > 0 for arm in arms.values()) or sum(arm.share for arm in arms.values()) > 1:
            raise InvalidInput(f"shares of trial {arms}; accepted: each above 0, together at most 1")
        self._set_rule("trial", surface, "", asdict(trial) if trial else None, who, why)

    def set_member(self, surface: str, member_id: str, cell: str | None, *, who: str, why: str) -> None:
        """Put a member in a cell ("v7", or one of the trial's); None: where the hash deals them.

        Raises:
            InvalidInput: an empty name or reason.
        """
        self._set_rule("member", surface, member_id, cell, who, why)

    def set_segment(self, surface: str, segment: str, cell: str | None, *, who: str, why: str) -> None:
        """Put the members of a segment (`place.check_segment`) in a cell; None: where the hash deals them.

        Raises:
            InvalidInput: an empty name or reason, or no segment.
        """
        check_segment(segment)
        self._set_rule("segment", surface, segment, cell, who, why)

    def set_shadow(self, surface: str, shadow: Shadow | None, *, who: str, why: str) -> None:
        """Let a version score a share of the requests without being shown; None ends it.

        Raises:
            InvalidInput: an empty name or reason, or a share outside (0, 1].
        """
        if shadow and not 0 < shadow.share <= 1:
            raise InvalidInput(
                f"share of shadow {shadow.version} is {shadow.share}; accepted: above 0, up to 1"
            )
        self._set_rule("shadow", surface, "", asdict(shadow) if shadow else None, who, why)

    def current(self, surface: str) -> Mapping[str, float]:
        """Version to share; empty where none was set or the last change went back to the champion."""
        return self.rules().get(surface, Rules()).weights

    def rules(self) -> dict[str, Rules]:
        """What is in force on every surface about which anything is."""
        with self._database.connection() as connection:
            splits = connection.execute(_newest(_SPLITS, _SPLITS.c.surface)).all()
            rows = connection.execute(_newest(_RULES, _RULES.c.surface, _RULES.c.kind, _RULES.c.name)).all()
        found: dict[str, dict[str, Any]] = {}
        for row in splits:
            if weights := json.loads(row.weights):
                found.setdefault(row.surface, {})["weights"] = weights
        for row in rows:
            value = json.loads(row.value)
            if value is None:
                continue
            parts = found.setdefault(row.surface, {})
            if row.kind == "trial":
                arms = {cell: Arm(**arm) for cell, arm in value["arms"].items()}
                parts["trial"] = Trial(salt=value["salt"], arms=arms)
            elif row.kind == "shadow":
                parts["shadow"] = Shadow(**value)
            else:
                parts.setdefault(f"{row.kind}s", {})[row.name] = value
        return {surface: Rules(**parts) for surface, parts in found.items()}

    def history(self, surface: str) -> list[Split]:
        """Every change of a surface's weights, newest first."""
        query = sql.select(_SPLITS).where(_SPLITS.c.surface == surface).order_by(_SPLITS.c.id.desc())
        with self._database.connection() as connection:
            return [
                Split(
                    surface=row.surface,
                    weights=json.loads(row.weights),
                    who=row.who,
                    why=row.why,
                    time=row.time_us,
                )
                for row in connection.execute(query)
            ]

    def rule_history(self, surface: str) -> Sequence[Mapping[str, Any]]:
        """Every change of a surface's rules, newest first: kind, name, value, who, why, time_us."""
        query = sql.select(_RULES).where(_RULES.c.surface == surface).order_by(_RULES.c.id.desc())
        with self._database.connection() as connection:
            rows = connection.execute(query).mappings().all()
        return [{**row, "value": json.loads(row["value"])} for row in rows]

    def close(self) -> None:
        """Release the connections."""
        self._database.close()

    def _set_rule(self, kind: Kind, surface: str, name: str, value: object, who: str, why: str) -> None:
        if kind in ("member", "segment") and not name.strip():
            raise InvalidInput(f"{kind} of a rule is empty; a non-empty text is needed")
        self._add(_RULES, surface, who, why, kind=kind, name=name, value=json.dumps(value))

    def _add(self, table: sql.Table, surface: str, who: str, why: str, **values: str) -> int:
        """Insert a row; returns its time."""
        for name, text in (("surface", surface), ("who", who), ("why", why)):
            if not text.strip():
                raise InvalidInput(f"{name} of a split is empty; a non-empty text is needed")
        now = time.time_ns() // 1000
        with self._database.connection() as connection:
            connection.execute(
                table.insert().values(surface=surface, who=who, why=why, time_us=now, **values)
            )
        return now


def shares(weights: Mapping[str, float]) -> dict[str, float]:
    """Weights scaled to sum to 1, arms of weight 0 left out; empty stays empty.

    Raises:
        InvalidInput: a weight is negative or not finite, or all of them are 0.
    """
    for version, weight in weights.items():
        if not math.isfinite(weight) or weight < 0:
            raise InvalidInput(f"weight of version {version} is {weight}; accepted: finite, from 0 up")
    total = sum(weights.values())
    if weights and not 0 < total < math.inf:
        raise InvalidInput(f"weights {dict(weights)} sum to {total}; at least one must be above 0")
    return {version: weight / total for version, weight in weights.items() if weight > 0}


def _newest(table: sql.Table, *keys: sql.ColumnElement[Any]) -> sql.Select[Any]:
    """The newest row of each combination of `keys`."""
    return sql.select(table).where(table.c.id.in_(sql.select(sql.func.max(table.c.id)).group_by(*keys)))
