"""Rollouts as rows of the state database: what was started, every decision, and the figures so far.

A decision is written before it is carried out, so whoever finds a rollout that is live with a last decision
that ends it carries that out again. At most one rollout is live on a surface: an index holds it.
"""

from __future__ import annotations

import json
import math
import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
import sqlalchemy as sql
from sqlalchemy.exc import IntegrityError

from matinee.canary.plan import CONTINUE, PROMOTE, ROLL_BACK, Plan, State, plan_of
from matinee.config import Settings
from matinee.errors import InvalidInput, NotFound
from matinee.schema import Decision
from matinee.serving.place import Arm, Trial
from matinee.state import StateDatabase, signed

START = "start"
STOP = "stop"
ENDS = (PROMOTE, ROLL_BACK, STOP)
"""Decisions after which a rollout is over."""

CONTROLLER = "controller"
"""Who decides where no person does."""

_META = sql.MetaData()
_ROLLOUTS = sql.Table(
    "rollouts",
    _META,
    sql.Column("id", sql.Integer, primary_key=True, autoincrement=True),
    sql.Column("surface", sql.String(256), nullable=False),
    sql.Column("model", sql.String(256), nullable=False),
    sql.Column("baseline", sql.String(32), nullable=False),
    sql.Column("candidate", sql.String(32), nullable=False),
    sql.Column("plan", sql.Text, nullable=False),
    *signed(),
    sql.Column("live", sql.Boolean, nullable=False),
    sql.Column("figures", sql.LargeBinary),
)
sql.Index(
    "rollouts_one_live",
    _ROLLOUTS.c.surface,
    unique=True,
    sqlite_where=_ROLLOUTS.c.live,
    postgresql_where=_ROLLOUTS.c.live,
)
_DECISIONS = sql.Table(
    "rollout_decisions",
    _META,
    sql.Column("id", sql.Integer, primary_key=True, autoincrement=True),
    sql.Column("rollout", sql.Integer, nullable=False, index=True),
    sql.Column("step", sql.Integer, nullable=False),
    sql.Column("action", sql.String(16), nullable=False),
    sql.Column("reason", sql.Text, nullable=False),
    sql.Column("evidence", sql.Text, nullable=False),
    sql.Column("report", sql.Text, nullable=False),
    sql.Column("who", sql.String(256), nullable=False),
    sql.Column("time_us", sql.BigInteger, nullable=False),
)


@dataclass(frozen=True, kw_only=True)
class Decided:
    """A decision about a rollout, as it was recorded.

    Args:
        step: index of the step it was made in.
        report: path of its page; "" where there is none.
        time: microseconds since the epoch.
    """

    id: int
    step: int
    action: str
    reason: str
    evidence: Mapping[str, float]
    report: str
    who: str
    time: int


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """A rollout and what was decided about it, oldest first.

    Args:
        baseline: version of the members who are compared with; `candidate`: the version tried.
        live: whether it goes on.
        time: microseconds since the epoch: when it was asked for.
    """

    id: int
    surface: str
    model: str
    baseline: str
    candidate: str
    plan: Plan
    who: str
    why: str
    time: int
    live: bool
    decisions: Sequence[Decided]

    @property
    def cells(self) -> tuple[str, str]:
        """Baseline's and canary's."""
        return f"r{self.id}-baseline", f"r{self.id}-canary"

    @property
    def state(self) -> State | None:
        """The step it is in; None before the first."""
        steps = [each for each in self.decisions if each.action in (START, CONTINUE)]
        if not steps:
            return None
        return State(step=len(steps) - 1, began=steps[0].time, step_began=steps[-1].time)

    @property
    def end(self) -> Decided | None:
        """The decision that ends it, if it was made."""
        return next((each for each in self.decisions if each.action in ENDS), None)

    @property
    def trial(self) -> Trial:
        """Its cells at the share of its step; dealt by its own id, afresh."""
        step = self.plan.steps[self.state.step if self.state else 0]
        versions = zip(self.cells, (self.baseline, self.candidate), strict=True)
        arms = {cell: Arm(version=version, share=step.share) for cell, version in versions}
        return Trial(salt=f"rollout/{self.id}", arms=arms)

    def shown(self) -> dict[str, Any]:
        """As JSON holds it; steps count from 1, times are microseconds."""
        values = {name: value for name, value in vars(self).items() if name != "decisions"}
        decisions = [vars(each) | {"step": each.step + 1} for each in self.decisions]
        return values | {
            "plan": self.plan.model_dump(mode="json"),
            "status": self.status,
            "step": self.state.step + 1 if self.state else 0,
            "decisions": decisions,
        }

    def line(self) -> dict[str, Any]:
        """In one line, with what was decided last."""
        shown = self.shown()
        names = ("id", "surface", "baseline", "candidate", "status", "step", "who", "why")
        last = self.decisions[-1].reason if self.decisions else "waiting for a controller"
        return {**{name: shown[name] for name in names}, "plan": self.plan.name, "last": last}

    @property
    def status(self) -> str:
        """One word: waiting, running, promote, roll_back or stop."""
        return self.end.action if self.end else "running" if self.state else "waiting"


class Rollouts:
    """Every rollout of the state database.

    Raises:
        StorageError: the data home cannot be written.
        Unavailable: the database does not answer.
    """

    def __init__(self, settings: Settings) -> None:
        self._database = StateDatabase(settings, _ROLLOUTS, _DECISIONS)

    def add(
        self, surface: str, model: str, *, baseline: str, candidate: str, plan: Plan, who: str, why: str
    ) -> Rollout:
        """Ask for a rollout; a running controller begins it.

        Raises:
            InvalidInput: an empty text, or the surface has a live one.
        """
        texts = {"surface": surface, "who": who, "why": why}
        for name, text in texts.items():
            if not text.strip():
                raise InvalidInput(f"{name} of a rollout is empty; a non-empty text is needed")
        values = {"model": model, "baseline": baseline, "candidate": candidate, "live": True}
        row = {**texts, **values, "plan": plan.model_dump_json(), "time_us": _now()}
        try:
            with self._database.connection() as connection:
                added = connection.execute(_ROLLOUTS.insert().values(row)).inserted_primary_key
        except IntegrityError:
            raise InvalidInput(
                f"surface {surface} has a live rollout; stop it with `matinee rollout stop` first"
            ) from None
        assert added is not None
        return self.get(int(added[0]))

    def get(self, rollout_id: int) -> Rollout:
        """One of them.

        Raises:
            NotFound: there is none of this id.
        """
        found = self._read(_ROLLOUTS.c.id == rollout_id)
        if not found:
            raise NotFound(f"rollout {rollout_id} does not exist; `matinee rollout list` shows those that do")
        return found[0]

    def live(self) -> list[Rollout]:
        """Those that go on."""
        return self._read(_ROLLOUTS.c.live)

    def all(self) -> list[Rollout]:
        """Every one, newest first."""
        return self._read(sql.true())[::-1]

    def decide(self, rollout: Rollout, decision: Decision, *, who: str = CONTROLLER) -> Rollout:
        """Record a decision; returns the rollout with it.

        A rollout whose end was decided meanwhile takes no further decision and comes back as it is.
        """
        step = rollout.state.step if rollout.state else 0
        row = {
            "rollout": rollout.id,
            "step": step,
            "action": decision.action,
            "reason": decision.reason,
            "evidence": json.dumps({n: v for n, v in decision.evidence.items() if math.isfinite(v)}),
            "report": "",
            "who": who,
            "time_us": _now(),
        }
        over = sql.exists().where(_DECISIONS.c.rollout == rollout.id, _DECISIONS.c.action.in_(ENDS))
        values = sql.select(*(sql.literal(value, _DECISIONS.c[name].type) for name, value in row.items()))
        with self._database.connection() as connection:
            connection.execute(_DECISIONS.insert().from_select(list(row), values.where(~over)))
        return self.get(rollout.id)

    def report(self, decided: Decided, path: str) -> None:
        """Note where a decision's page is."""
        with self._database.connection() as connection:
            connection.execute(_DECISIONS.update().where(_DECISIONS.c.id == decided.id).values(report=path))

    def finish(self, rollout: Rollout) -> None:
        """It is over: its end was carried out."""
        with self._database.connection() as connection:
            connection.execute(
                _ROLLOUTS.update().where(_ROLLOUTS.c.id == rollout.id).values(live=False, figures=None)
            )

    def keep(self, rollout: Rollout, figures: Mapping[str, Any]) -> None:
        """Keep what was counted so far, and where in the topics."""
        packed = zlib.compress(orjson.dumps(figures), 1)
        with self._database.connection() as connection:
            connection.execute(_ROLLOUTS.update().where(_ROLLOUTS.c.id == rollout.id).values(figures=packed))

    def kept(self, rollout: Rollout) -> dict[str, Any] | None:
        """What `keep` kept last; None where it never did."""
        with self._database.connection() as connection:
            packed = connection.scalar(sql.select(_ROLLOUTS.c.figures).where(_ROLLOUTS.c.id == rollout.id))
        return None if packed is None else orjson.loads(zlib.decompress(packed))

    def close(self) -> None:
        """Release the connections."""
        self._database.close()

    def _read(self, where: sql.ColumnElement[bool]) -> list[Rollout]:
        columns = [column for column in _ROLLOUTS.c if column.name != "figures"]
        query = sql.select(*columns).where(where).order_by(_ROLLOUTS.c.id)
        with self._database.connection() as connection:
            rows = connection.execute(query).all()
            wanted = _DECISIONS.c.rollout.in_([row.id for row in rows])
            decided = connection.execute(sql.select(_DECISIONS).where(wanted).order_by(_DECISIONS.c.id)).all()
        return [
            Rollout(
                id=row.id,
                surface=row.surface,
                model=row.model,
                baseline=row.baseline,
                candidate=row.candidate,
                plan=plan_of(json.loads(row.plan)),
                who=row.who,
                why=row.why,
                time=row.time_us,
                live=row.live,
                decisions=[_decided(each) for each in decided if each.rollout == row.id],
            )
            for row in rows
        ]


def _decided(row: Any) -> Decided:
    return Decided(
        id=row.id,
        step=row.step,
        action=row.action,
        reason=row.reason,
        evidence=json.loads(row.evidence),
        report=row.report,
        who=row.who,
        time=row.time_us,
    )


def _now() -> int:
    return time.time_ns() // 1000
