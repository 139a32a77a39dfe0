"""The routes of rollouts: asked for, looked at, stopped. The controller does the rest."""

from __future__ import annotations

from contextlib import closing
from typing import Annotated, Any, Literal

from fastapi import Depends, FastAPI
from fastapi import Path as PathValue
from pydantic import BaseModel, Field

from matinee.canary.plan import PRESETS, plan_of
from matinee.canary.rollout import propose, stop
from matinee.canary.store import Rollout, Rollouts
from matinee.config import Settings
from matinee.errors import InvalidInput
from matinee.events.encode import rfc3339
from matinee.gateway.bodies import json_only
from matinee.gateway.guard import allow
from matinee.gateway.messages import Body, Name, Why
from matinee.gateway.problems import documented

Number = Annotated[int, PathValue(ge=1, lt=1 << 31)]


class RolloutRequest(Body):
    """A candidate to put in front of members."""

    candidate: Name = Field(description="The version that is tried.")
    plan: str | dict[str, Any] = Field("canary", description="A preset's name, or a plan.")
    surface: Name = Field("home", description="The place in the product.")
    who: Name
    why: Why


class StopRequest(Body):
    """Who ends a rollout, and why."""

    who: Name
    why: Why


class DecisionState(BaseModel):
    """A decision about a rollout."""

    step: int = Field(description="The step it was made in, from 1.")
    action: Literal["start", "hold", "continue", "promote", "roll_back", "stop"]
    reason: str
    evidence: dict[str, float | None]
    report: str = Field(description='Path of its page; "" where there is none.')
    who: str
    time: str


class RolloutState(BaseModel):
    """A rollout."""

    id: int
    surface: str
    model: str
    baseline: str = Field(description="The version of the members compared with.")
    candidate: str
    plan: dict[str, Any]
    who: str
    why: str
    time: str = Field(description="When it was asked for, RFC 3339.")
    live: bool
    status: Literal["waiting", "running", "promote", "roll_back", "stop"]
    step: int = Field(description="The step it is in, from 1; 0 before the first.")
    decisions: list[DecisionState] = Field(description="Oldest first.")


class RolloutList(BaseModel):
    """Rollouts."""

    rollouts: list[RolloutState] = Field(description="Newest first.")


def install(app: FastAPI, settings: Settings) -> None:
    """Add the routes to an application."""

    @app.get(
        "/v1/rollouts", response_model=RolloutList, responses=documented(503), openapi_extra=allow("operator")
    )
    def rollouts() -> dict[str, Any]:
        """Every rollout."""
        with closing(Rollouts(settings)) as store:
            return {"rollouts": [_state(each) for each in store.all()]}

    @app.post(
        "/v1/rollouts",
        status_code=201,
        response_model=RolloutState,
        responses=documented(400, 404, 413, 415, 422, 503),
        openapi_extra=allow("operator"),
        dependencies=[Depends(json_only)],
    )
    def start_rollout(body: RolloutRequest) -> dict[str, Any]:
        """Ask for a rollout; the controller begins it within a second. One a surface at a time."""
        if isinstance(body.plan, str) and body.plan not in PRESETS:
            raise InvalidInput(f"plan is {body.plan!r}; accepted: a plan, or one of {', '.join(PRESETS)}")
        plan = PRESETS[body.plan]() if isinstance(body.plan, str) else plan_of(body.plan)
        return _state(
            propose(
                settings,
                model=settings.serving.model,
                candidate=body.candidate,
                plan=plan,
                surface=body.surface,
                who=body.who,
                why=body.why,
            )
        )

    @app.get(
        "/v1/rollouts/{rollout}",
        response_model=RolloutState,
        responses=documented(404, 422, 503),
        openapi_extra=allow("operator"),
    )
    def rollout(rollout: Number) -> dict[str, Any]:
        """One rollout with its decisions and their evidence."""
        with closing(Rollouts(settings)) as store:
            return _state(store.get(rollout))

    @app.post(
        "/v1/rollouts/{rollout}/stop",
        response_model=RolloutState,
        responses=documented(400, 404, 413, 415, 422, 503),
        openapi_extra=allow("operator"),
        dependencies=[Depends(json_only)],
    )
    def stop_rollout(rollout: Number, body: StopRequest) -> dict[str, Any]:
        """End a rollout at once: its members are back in the split."""
        return _state(stop(settings, rollout, who=body.who, why=body.why))


def _state(rollout: Rollout) -> dict[str, Any]:
    found = rollout.shown()
    for line in (found, *found["decisions"]):
        line["time"] = rfc3339(line["time"])
    return found
