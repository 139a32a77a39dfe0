"""A rollout's plan, and what to decide by it. Pure: figures in, a decision out.

The order is that of harm: an early abort, then a broken sample ratio, then time, then the judge at the end
of a step. Looking often costs nothing: the first two hold at every moment together.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from matinee.canary.counts import EVIDENCE, MEMBER
from matinee.canary.early import Evidence, Limit, log_e_events, watch_all
from matinee.canary.judge import (
    Analysis,
    CanaryConfig,
    Judgement,
    Schedule,
    Verdict,
    read_config,
    read_request,
    warnings_of,
)
from matinee.canary.tally import METRICS
from matinee.errors import InvalidInput
from matinee.schema import Decision

WAIT = "wait"
"""The step goes on; nothing was decided."""
HOLD = "hold"
CONTINUE = "continue"
"""On to the next step."""
PROMOTE = "promote"
ROLL_BACK = "roll_back"


class Part(BaseModel):
    """A part of a plan: immutable, and closed to names it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Step(Part):
    """How many members are on each side, and for how long at least."""

    share: float = Field(gt=0, le=0.5)
    """Of all members, on each of the two sides."""
    least_s: float = Field(0.0, ge=0)
    """Seconds before the judge is asked."""
    least_exposures: int = Field(0, ge=0)
    """Settled exposures on each side before the judge is asked."""


class Actions(Part):
    """What follows from what was found."""

    passed: Literal["promote", "hold"] = "promote"
    """The last step passed."""
    marginal: Literal["hold", "roll_back"] = "hold"
    ratio: Literal["roll_back", "hold"] = "roll_back"
    """The two sides get members in another proportion than one to one."""
    timeout: Literal["roll_back", "promote"] = "roll_back"
    """`max_s` are over."""


class Plan(Part):
    """How a candidate is put in front of members.

    The metrics of `judge` are those of `tally.METRICS` and the names of `queries`; the limits read the
    evidence that `counts.EVIDENCE` names.
    """

    name: str
    steps: tuple[Step, ...] = Field(min_length=1)
    judge: dict[str, Any]
    """A canary configuration as Kayenta writes it."""
    mode: Literal["strict", "kayenta"] = "strict"
    """How the judge judges."""
    analysis: dict[str, Any] | None = None
    """Judge every step over intervals: a request for an analysis as Kayenta writes it, one analysis a step.
    Its lifetime stands for `least_s`. Without: everything so far is judged once a step is ripe."""
    limits: tuple[Limit, ...] = ()
    """Harm that ends the rollout at once."""
    alpha: float = Field(0.01, gt=0, lt=1)
    """Chance that a harmless candidate is ever aborted, over all limits."""
    ratio_alpha: float = Field(0.001, gt=0, lt=1)
    """Chance that a right sample ratio is ever called broken."""
    queries: dict[str, str] = {}
    """Metrics from Prometheus (`canary.prometheus` of the settings): PromQL by name; `$cell` and `$version`
    stand for a side's."""
    interval_s: float = Field(60.0, gt=0)
    """Length of one sample of a metric; also how often the judge is asked once a step is ripe."""
    settle_s: float = Field(1800.0, ge=0)
    """How long after an exposure what came of it still counts."""
    blind_s: float = Field(300.0, gt=0)
    """How long a rollout goes on while the topics cannot be read; then it is rolled back."""
    max_s: float = Field(7 * 86_400.0, gt=0)
    """The longest a rollout runs."""
    actions: Actions = Actions()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        shares = [step.share for step in self.steps]
        if any(later < earlier for earlier, later in pairwise(shares)):
            raise ValueError(f"shares {shares} of the steps: a share never falls")
        known = {*METRICS, *self.queries}
        for metric in self.config.metrics:
            if metric.name not in known:
                raise ValueError(f"judge: metric {metric.name} is none of {', '.join(sorted(known))}")
        for limit in self.limits:
            if limit.metric not in EVIDENCE:
                raise ValueError(f"limits: metric {limit.metric} is none of {', '.join(EVIDENCE)}")
        return self

    @model_validator(mode="after")
    def _analysable(self) -> Self:
        if self.schedule is None:
            return self
        if any(step.least_s for step in self.steps):
            raise ValueError(
                "analysis: its lifetime says how long a step takes; least_s of steps is not accepted"
            )
        if self.schedule.interval_s < self.interval_s:
            raise ValueError(
                f"analysis: an interval of {self.schedule.interval_s:g} s holds no sample; "
                f"one is {self.interval_s:g} s long"
            )
        return self

    @property
    def config(self) -> CanaryConfig:
        """What the judge goes by."""
        thresholds = {} if self.analysis is None else read_request(self.analysis)[1]
        return read_config(self.judge, **thresholds)

    @property
    def schedule(self) -> Schedule | None:
        """When a step is judged, where that is over intervals."""
        return None if self.analysis is None else read_request(self.analysis)[0]


def canary() -> Plan:
    """The preset: 1%, 5%, 20% and half of all members on each side, in six hours at least."""
    watched = [
        ("play_rate", "decrease", {"allowedDecrease": 0.98}, "engagement"),
        ("click_rate", "decrease", {"allowedDecrease": 0.98}, "engagement"),
        ("watch_s", "decrease", {"allowedDecrease": 0.98}, "engagement"),
        ("latency_mean_ms", "increase", {"allowedIncrease": 1.1}, "latency"),
        ("latency_p95_ms", "increase", {"allowedIncrease": 1.1}, "latency"),
        ("latency_p99_ms", "increase", {"allowedIncrease": 1.2}, "latency"),
        ("cold_rate", "increase", {"allowedIncrease": 1.1}, "fallback"),
        ("fallback_rate", "increase", {}, "fallback"),
    ]
    return Plan(
        name="canary",
        steps=(
            Step(share=0.01, least_s=3_600, least_exposures=1_000),
            Step(share=0.05, least_s=3_600, least_exposures=5_000),
            Step(share=0.2, least_s=7_200, least_exposures=20_000),
            Step(share=0.5, least_s=7_200, least_exposures=50_000),
        ),
        judge={
            "name": "canary",
            "metrics": [
                {
                    "name": name,
                    "groups": [group],
                    "analysisConfigurations": {
                        "canary": {"direction": direction, "mustHaveData": True, "effectSize": effect}
                    },
                }
                for name, direction, effect, group in watched
            ],
            "classifier": {"scoreThresholds": {"pass": 95, "marginal": 75}},
        },
        limits=(
            Limit(metric=MEMBER + "play_rate", kind="rate", harm="decrease", tolerance=0.02),
            Limit(metric=MEMBER + "watch_s", kind="mean", harm="decrease", tolerance=0.02),
            Limit(metric=MEMBER + "cold_rate", kind="rate", harm="increase", tolerance=0.1),
            Limit(metric="fallback_rate", kind="rate", harm="increase"),
            Limit(metric="latency_ms", kind="quantile", quantile=0.95, harm="increase", tolerance=0.2),
        ),
        max_s=2 * 86_400,
    )


PRESETS: Mapping[str, Callable[[], Plan]] = {"canary": canary}


def read_plan(source: str) -> Plan:
    """A preset by name, or a TOML or JSON file; its `judge` and `analysis` may name files beside it.

    Raises:
        InvalidInput: there is neither, or the file holds no plan; the text names the field.
    """
    if source in PRESETS:
        return PRESETS[source]()
    path = Path(source)
    try:
        text = path.read_text()
        values = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
        for name in ("judge", "analysis"):
            if isinstance(values, dict) and isinstance(values.get(name), str):
                values[name] = json.loads((path.parent / values[name]).read_text())
    except (OSError, ValueError) as failure:
        presets = ", ".join(PRESETS)
        raise InvalidInput(
            f"plan {source!r}: {failure}; accepted: {presets}, a TOML or a JSON file"
        ) from None
    return plan_of(values)


def plan_of(values: object) -> Plan:
    """The plan that a JSON object is.

    Raises:
        InvalidInput: a field is missing, unknown or of a value that is not accepted.
    """
    try:
        return Plan.model_validate(values)
    except ValidationError as failure:
        first = failure.errors(include_url=False)[0]
        name = ".".join(map(str, first["loc"])) or "plan"
        raise InvalidInput(f"plan: {name}: {first['msg']}") from None


@dataclass(frozen=True, kw_only=True)
class State:
    """Where a rollout is.

    Args:
        step: index of the step.
        began: microseconds since the epoch: when the first step began; `step_began`: this one.
    """

    step: int
    began: int
    step_began: int


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What is known at one moment. Pairs are baseline and canary.

    Args:
        now: microseconds since the epoch.
        members: members met so far, each counted once.
        exposures: exposures of this step whose outcome is settled.
        baseline: everything seen so far, by the metric that a limit names; `canary` likewise.
        ended: intervals of the step's analysis that are over, of a plan that has one.
        judgement: the judge's, where `ripe` said it is time to ask; None otherwise.
        analysis: what came of the step's analysis so far, likewise; a plan gives rise to one of both.
        obstacle: why the rollout cannot go on whatever the figures are; "" where nothing does.
    """

    now: int
    members: tuple[int, int]
    exposures: tuple[int, int]
    baseline: Mapping[str, Evidence]
    canary: Mapping[str, Evidence]
    ended: int = 0
    judgement: Judgement | None = None
    analysis: Analysis | None = None
    obstacle: str = ""


def ripe(plan: Plan, state: State, measured: Measured) -> bool:
    """Whether the step has had its time and its sample, or an interval of its analysis is over."""
    if plan.schedule:
        return measured.ended > 0
    step = plan.steps[state.step]
    elapsed = (measured.now - state.step_began) / 1e6
    return elapsed >= step.least_s and min(measured.exposures) >= step.least_exposures


def decide(plan: Plan, state: State, measured: Measured) -> Decision:
    """What to do now: wait, hold, continue to the next step, promote or roll back."""
    step = plan.steps[state.step]
    place = f"step {state.step + 1} of {len(plan.steps)}"
    if measured.obstacle:
        return Decision(action=ROLL_BACK, reason=measured.obstacle)
    early = watch_all(plan.limits, measured.baseline, measured.canary, alpha=plan.alpha)
    if early.action == "abort":
        return Decision(action=ROLL_BACK, reason=f"early abort: {early.reason}", evidence=early.evidence)
    ratio = sample_ratio(*measured.members, alpha=plan.ratio_alpha)
    if ratio.action != "keep":
        return Decision(action=plan.actions.ratio, reason=ratio.reason, evidence=ratio.evidence)
    elapsed = (measured.now - state.began) / 1e6
    if elapsed > plan.max_s:
        reason = f"{elapsed:.0f} s have passed; the plan allows {plan.max_s:g}"
        return Decision(action=plan.actions.timeout, reason=reason, evidence={"elapsed_s": elapsed})
    if measured.analysis is not None:
        return _by_analysis(plan, state, measured.analysis, measured.exposures, place)
    if measured.judgement is not None:
        judgement = measured.judgement
        reason = f"{judgement.verdict}, {judgement.reason}"
        return _by_judge(plan, state, judgement, judgement.verdict, f"{place}: {reason}")
    taken = f"{(measured.now - state.step_began) / 1e6:.0f} of {step.least_s:g} s"
    if plan.schedule:
        taken = f"{measured.ended} of {plan.schedule.count} intervals"
    found = f"{min(measured.exposures)} of {step.least_exposures} settled exposures a side"
    return Decision(action=WAIT, reason=f"{place}: {taken}, {found}")


def _by_analysis(
    plan: Plan, state: State, analysis: Analysis, exposures: tuple[int, int], place: str
) -> Decision:
    """The last score decides once the analysis is over; a pass waits for the step's exposures."""
    scores = {f"interval_{number}.score": score for number, score in enumerate(analysis.scores, 1)}
    short = min(exposures) < plan.steps[state.step].least_exposures
    if not analysis.over or (analysis.verdict == "pass" and short):
        return Decision(action=WAIT, reason=f"{place}: {analysis.reason}", evidence=scores)
    reason = f"{place}: {analysis.verdict}, {analysis.reason}"
    decision = _by_judge(plan, state, analysis.last, analysis.verdict, reason)
    return replace(decision, evidence={**decision.evidence, **scores})


def _by_judge(plan: Plan, state: State, judgement: Judgement, verdict: Verdict, reason: str) -> Decision:
    last = state.step == len(plan.steps) - 1
    action = {
        "pass": plan.actions.passed if last else CONTINUE,
        "marginal": plan.actions.marginal,
        "fail": ROLL_BACK,
    }[verdict]
    evidence = {"score": judgement.score}
    evidence |= {f"{each.name}.effect": each.effect for each in judgement.metrics if np.isfinite(each.effect)}
    faults = [f"{each.name} {each.label}" for each in judgement.metrics if each.label != "Pass"]
    warnings = [f"warning: {each}" for each in warnings_of(judgement)]
    return Decision(action=action, reason="; ".join([reason, *faults, *warnings]), evidence=evidence)


def sample_ratio(baseline: int, canary: int, *, alpha: float) -> Decision:
    """Whether members fall on the two sides as one to one: "keep" or "broken".

    Anytime-valid: the chance that a right ratio is ever called broken is under `alpha`, however often one
    looks (Lindon and Malek, Anytime-valid inference for multinomial count data, 2022).

    Args:
        baseline: members on that side, each counted once; `canary` likewise.
    """
    against = max(float(log_e_events(*sides, 0.5)) for sides in ((baseline, canary), (canary, baseline)))
    evidence = {"baseline": float(baseline), "canary": float(canary), "log_e": against}
    if against < np.log(2 / alpha):
        return Decision(action="keep", reason="members fall on both sides alike", evidence=evidence)
    reason = (
        f"sample ratio: {baseline} members in the baseline and {canary} in the canary, one to one expected; "
        f"log evidence {against:.1f}, at most {np.log(2 / alpha):.1f} is allowed"
    )
    return Decision(action="broken", reason=reason, evidence=evidence)
