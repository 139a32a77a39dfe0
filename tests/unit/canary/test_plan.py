"""What is decided, from figures alone; and what a plan is read from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from matinee.canary.early import Evidence, Limit, Rate
from matinee.canary.judge import Analysis, Judgement, MetricJudgement, Summary
from matinee.canary.plan import (
    CONTINUE,
    HOLD,
    PROMOTE,
    ROLL_BACK,
    WAIT,
    Measured,
    Plan,
    State,
    Step,
    canary,
    decide,
    plan_of,
    read_plan,
    ripe,
    sample_ratio,
)
from matinee.errors import InvalidInput

JUDGE = {"name": "j", "metrics": [{"name": "play_rate"}]}
PLAN = Plan(
    name="p",
    steps=(
        Step(share=0.1, least_s=60, least_exposures=100),
        Step(share=0.5, least_s=60, least_exposures=100),
    ),
    judge=JUDGE,
    limits=(Limit(metric="play_rate", kind="rate", harm="decrease"),),
    max_s=1000,
)
FIRST = State(step=0, began=0, step_began=0)
LAST = State(step=1, began=0, step_began=100_000_000)


def rate(successes: int, trials: int) -> Mapping[str, Evidence]:
    return {"play_rate": Rate(successes=successes, trials=trials)}


def judged(verdict: Any) -> Judgement:
    return Judgement(score=80.0, verdict=verdict, reason="score 80", groups={}, metrics=[])


MEASURED = Measured(
    now=200_000_000,
    members=(300, 300),
    exposures=(500, 500),
    baseline=rate(250, 500),
    canary=rate(250, 500),
)


@pytest.mark.parametrize(
    ("verdict", "state", "action"),
    [
        ("pass", FIRST, CONTINUE),
        ("pass", LAST, PROMOTE),
        ("marginal", FIRST, HOLD),
        ("marginal", LAST, HOLD),
        ("fail", FIRST, ROLL_BACK),
        ("fail", LAST, ROLL_BACK),
    ],
)
def test_the_judge_decides_a_ripe_step(verdict: str, state: State, action: str) -> None:
    decision = decide(PLAN, state, replace(MEASURED, judgement=judged(verdict)))
    assert decision.action == action
    assert decision.evidence["score"] == 80.0
    assert f"step {state.step + 1} of 2: {verdict}" in decision.reason


@pytest.mark.parametrize(
    ("now", "exposures", "expected"),
    [(59, (500, 500), False), (61, (500, 99), False), (61, (100, 100), True)],
)
def test_a_step_needs_its_time_and_its_sample(now: int, exposures: tuple[int, int], expected: bool) -> None:
    measured = replace(MEASURED, now=now * 1_000_000, exposures=exposures)
    assert ripe(PLAN, FIRST, measured) is expected
    decision = decide(PLAN, FIRST, measured)
    assert decision.action == WAIT
    assert f"{now} of 60 s, {min(exposures)} of 100 settled exposures" in decision.reason


REQUEST = {"lifetimeDurationMins": 3, "analysisIntervalMins": 1}
OVER_INTERVALS = PLAN.model_copy(
    update={
        "analysis": REQUEST,
        "steps": tuple(step.model_copy(update={"least_s": 0.0}) for step in PLAN.steps),
    }
)


def analysed(scores: list[float], *, verdict: Any = "pass", stopped: bool = False) -> Analysis:
    judgements = [replace(judged(verdict), score=score) for score in scores]
    over = stopped or len(scores) >= 3
    return Analysis(
        judgements=judgements, stopped=stopped, over=over, verdict=verdict, reason="r", warnings=[]
    )


@pytest.mark.parametrize(
    ("analysis", "exposures", "action"),
    [
        (analysed([100, 100]), 500, WAIT),
        (analysed([100, 100, 100]), 500, CONTINUE),
        (analysed([100, 100, 100]), 99, WAIT),
        (analysed([100, 100, 60], verdict="marginal"), 99, HOLD),
        (analysed([100, 50], verdict="fail", stopped=True), 0, ROLL_BACK),
    ],
)
def test_an_analysis_decides_when_it_stops_or_is_over(
    analysis: Analysis, exposures: int, action: str
) -> None:
    measured = replace(MEASURED, analysis=analysis, exposures=(exposures, exposures), ended=3)
    decision = decide(OVER_INTERVALS, FIRST, measured)
    assert decision.action == action
    scores = {f"interval_{place + 1}.score": score for place, score in enumerate(analysis.scores)}
    assert scores.items() <= decision.evidence.items()


@pytest.mark.parametrize(("ended", "expected"), [(0, False), (1, True), (4, True)])
def test_an_interval_that_is_over_may_be_judged(ended: int, expected: bool) -> None:
    measured = replace(MEASURED, ended=ended, exposures=(0, 0))
    assert ripe(OVER_INTERVALS, FIRST, measured) is expected
    decision = decide(OVER_INTERVALS, FIRST, measured)
    assert decision.action == WAIT
    assert decision.reason == f"step 1 of 2: {ended} of 3 intervals, 0 of 100 settled exposures a side"


def test_few_values_are_warned_of_in_the_record() -> None:
    few = Summary(count=49, min=0, max=0, mean=0, std=0, median=0)
    metric = MetricJudgement("a", ["all"], "Pass", False, 1.0, 0.0, 0.0, 0.0, "", few, few)
    decision = decide(PLAN, LAST, replace(MEASURED, judgement=replace(judged("pass"), metrics=[metric])))
    assert decision.reason.endswith("; warning: fewer than 50 values of the control: a 49")


def test_a_plan_names_kayentas_request_and_its_thresholds_hold(tmp_path: Path) -> None:
    request = REQUEST | {"lookbackMins": 2, "thresholds": {"pass": 90, "marginal": 60}}
    (tmp_path / "request.json").write_text(json.dumps(request))
    values = {"name": "p", "steps": [{"share": 0.1}], "judge": JUDGE, "analysis": "request.json"}
    (tmp_path / "plan.json").write_text(json.dumps(values))
    plan = read_plan(str(tmp_path / "plan.json"))
    assert plan.schedule is not None
    assert (plan.schedule.count, plan.schedule.window(3)) == (3, (60, 180))
    assert (plan.config.passing, plan.config.marginal) == (90, 60)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"steps": [{"share": 0.1, "least_s": 5}]}, "least_s of steps is not accepted"),
        ({"interval_s": 61}, "an interval of 60 s holds no sample; one is 61 s long"),
        ({"analysis": {}}, "lifetimeDurationMins is missing"),
    ],
)
def test_an_analysis_that_contradicts_the_plan_is_refused(more: dict[str, Any], told: str) -> None:
    values = {"name": "p", "steps": [{"share": 0.1}], "judge": JUDGE, "analysis": REQUEST}
    with pytest.raises(InvalidInput, match=told):
        plan_of(values | more)


def test_harm_comes_before_the_judge() -> None:
    passed = replace(MEASURED, judgement=judged("pass"), canary=rate(100, 500))
    decision = decide(PLAN, LAST, passed)
    assert decision.action == ROLL_BACK
    assert decision.reason.startswith("early abort: play_rate is 0.4 times the baseline's")
    assert decision.evidence["value"] == pytest.approx(0.4)


def test_a_broken_ratio_rolls_back_or_holds() -> None:
    broken = replace(MEASURED, judgement=judged("pass"), members=(600, 300))
    decision = decide(PLAN, LAST, broken)
    assert decision.action == ROLL_BACK
    assert "600 members in the baseline and 300 in the canary" in decision.reason
    held = PLAN.model_copy(update={"actions": PLAN.actions.model_copy(update={"ratio": "hold"})})
    assert decide(held, LAST, broken).action == HOLD


def test_time_runs_out() -> None:
    decision = decide(PLAN, LAST, replace(MEASURED, now=1_001_000_000, judgement=judged("marginal")))
    assert (decision.action, decision.evidence) == (ROLL_BACK, {"elapsed_s": 1001.0})


def test_an_obstacle_ends_it_whatever_the_figures_are() -> None:
    measured = replace(MEASURED, judgement=judged("pass"), obstacle="version 9 serves now")
    assert decide(PLAN, LAST, measured).reason == "version 9 serves now"


@given(st.integers(0, 10**6), st.sampled_from(["pass", "marginal", "fail", None]), st.booleans())
def test_only_what_is_ripe_and_judged_is_promoted(now_s: int, verdict: str | None, harmed: bool) -> None:
    measured = replace(
        MEASURED,
        now=now_s * 1_000_000,
        canary=rate(100 if harmed else 250, 500),
        judgement=judged(verdict) if verdict else None,
    )
    if decide(PLAN, LAST, measured).action == PROMOTE:
        assert verdict == "pass"
        assert not harmed
        assert now_s <= PLAN.max_s


def test_a_right_ratio_is_hardly_ever_called_broken_however_often_one_looks() -> None:
    """400 rollouts of 2,000 members, looked at after every 20: at most alpha of them are called broken."""
    random, alpha = np.random.default_rng(3), 0.05
    canary_side = random.integers(0, 2, (400, 2000)).cumsum(axis=1)[:, 19::20]
    seen = np.arange(20, 2001, 20)
    called = sum(
        any(
            sample_ratio(int(n - c), int(c), alpha=alpha).action == "broken"
            for n, c in zip(seen, row, strict=True)
            if abs(n - 2 * c) > 2 * np.sqrt(n)
        )
        for row in canary_side
    )
    assert called <= 400 * alpha


def test_a_lost_twentieth_is_found() -> None:
    assert sample_ratio(20_000, 19_000, alpha=0.01).action == "broken"
    assert sample_ratio(20_000, 19_900, alpha=0.01).action == "keep"
    assert sample_ratio(0, 0, alpha=0.01).action == "keep"


def test_plans_are_read_from_toml_and_json(tmp_path: Path) -> None:
    (tmp_path / "judge.json").write_text(json.dumps(JUDGE))
    path = tmp_path / "plan.toml"
    path.write_text(
        'name = "mine"\njudge = "judge.json"\nmax_s = 60\n[[steps]]\nshare = 0.2\n'
        '[[limits]]\nmetric = "latency_ms"\nkind = "quantile"\nquantile = 0.99\n'
    )
    plan = read_plan(str(path))
    assert (plan.steps, plan.max_s, plan.config.metrics[0].name) == ((Step(share=0.2),), 60.0, "play_rate")
    assert plan.limits[0].quantile == 0.99
    path = tmp_path / "plan.json"
    path.write_text(plan.model_dump_json())
    assert read_plan(str(path)) == plan
    assert read_plan("canary") == canary()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"steps": []}, "steps"),
        ({"steps": [{"share": 0.6}]}, "steps.0.share"),
        ({"steps": [{"share": 0.2}, {"share": 0.1}]}, "never falls"),
        ({"colour": 1}, "colour"),
        ({"judge": {"metrics": [{"name": "smiles"}]}}, "smiles"),
        ({"judge": {}}, "metrics"),
        ({"limits": [{"metric": "smiles", "kind": "rate"}]}, "smiles"),
        ({"limits": [{"metric": "play_rate", "kind": "rate", "alpha": 2}]}, "alpha"),
    ],
)
def test_a_plan_that_is_wrong_names_the_field(tmp_path: Path, change: dict[str, Any], named: str) -> None:
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(json.loads(PLAN.model_dump_json()) | change))
    with pytest.raises(InvalidInput, match=named):
        read_plan(str(path))


def test_a_plan_that_is_not_there_names_what_is_accepted() -> None:
    with pytest.raises(InvalidInput, match="accepted: canary, a TOML or a JSON file"):
        read_plan("canari")
