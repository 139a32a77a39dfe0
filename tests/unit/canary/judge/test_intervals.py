"""An analysis over intervals, by hand: where it stops, what decides, and what each judgement looks at."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from matinee.canary.judge import (
    CanaryConfig,
    Metric,
    Samples,
    Schedule,
    analyse,
    judge,
    read_request,
    warnings_of,
)
from matinee.errors import InvalidInput

NAMES = ("a", "b", "c", "d")
CONFIG = CanaryConfig(metrics=[Metric(name=name) for name in NAMES], passing=95, marginal=50)
"""Four metrics of one group: each that fails takes 25 from a score of 100."""
LEVEL = np.linspace(1.0, 2.0, 60)


def window(failing: int, control: np.ndarray = LEVEL) -> dict[str, Samples]:
    """So many metrics ten times as high in the experiment, which is High; the others are the same: Pass."""
    return {name: Samples(control, control * (10 if at < failing else 1)) for at, name in enumerate(NAMES)}


@pytest.mark.parametrize(
    ("failing", "scores", "stopped", "over", "verdict"),
    [
        ([0], [100], False, False, "pass"),
        ([1, 0, 0], [75, 100, 100], False, True, "pass"),
        ([0, 0, 1], [100, 100, 75], False, True, "marginal"),
        ([0, 2, 0], [100, 50], True, True, "fail"),
        ([0, 3, 0], [100, 25], True, True, "fail"),
        ([4], [0], True, True, "fail"),
        ([0, 0, 1, 0], [100, 100, 75, 100], False, True, "pass"),
    ],
)
def test_the_last_score_decides_and_one_at_or_under_marginal_stops(
    failing: Sequence[int], scores: Sequence[float], stopped: bool, over: bool, verdict: str
) -> None:
    found = analyse(CONFIG, [window(count) for count in failing], count=3)
    assert found.scores == scores
    assert (found.stopped, found.over, found.verdict) == (stopped, over, verdict)
    assert found.last.score == scores[-1]


def test_a_score_equal_to_marginal_fails_an_analysis_and_not_a_single_verdict() -> None:
    found = analyse(CONFIG, [window(2)], count=1)
    assert judge(CONFIG, window(2), mode="kayenta").verdict == "marginal"
    assert found.verdict == "fail"
    assert found.reason.startswith("interval 1 of 1 scored 50, not above marginal, 50")


def test_marginal_comes_before_pass_where_both_are_one_threshold() -> None:
    config = CanaryConfig(metrics=CONFIG.metrics, passing=75, marginal=75)
    assert analyse(config, [window(1)], count=1).verdict == "fail"


def test_the_reason_tells_every_score() -> None:
    reason = analyse(CONFIG, [window(1), window(0)], count=3).reason
    assert reason == "interval 2 of 3 scored 100, pass from 95; scores 75, 100"


@pytest.mark.parametrize(("points", "warned"), [(49, True), (50, False)])
def test_fewer_than_50_values_of_the_control_are_warned_of(points: int, warned: bool) -> None:
    found = analyse(CONFIG, [window(0), window(0, LEVEL[:points])], count=2)
    few = ", ".join(f"{name} {points}" for name in NAMES)
    assert list(found.warnings) == ([f"fewer than 50 values of the control: {few}"] if warned else [])


def test_values_of_the_experiment_and_missing_ones_do_not_count_against_the_warning() -> None:
    config = CanaryConfig(metrics=[Metric(name="a")])
    control = np.concatenate([LEVEL[:45], np.full(15, np.nan)])
    assert warnings_of(judge(config, {"a": Samples(LEVEL, LEVEL[:10])})) == []
    assert warnings_of(judge(config, {"a": Samples(control, LEVEL)})) == [
        "fewer than 50 values of the control: a 45"
    ]


def test_the_mode_is_that_of_each_judgement() -> None:
    wider = {"a": Samples(LEVEL, 1.5 + 5 * (LEVEL - 1.5))}
    config = CanaryConfig(metrics=[Metric(name="a")])
    assert analyse(config, [wider], count=1).verdict == "pass"
    assert analyse(config, [wider], count=1, mode="strict").verdict == "fail"


def test_windows_grow_from_the_start_or_slide() -> None:
    growing = Schedule(lifetime_s=3600, interval_s=900)
    sliding = Schedule(lifetime_s=3600, interval_s=900, lookback_s=600, begin_after_s=300)
    assert growing.count == sliding.count == 4
    assert [growing.window(number) for number in (1, 2, 4)] == [(0, 900), (0, 1800), (0, 3600)]
    assert [sliding.window(number) for number in (1, 2, 4)] == [(600, 1200), (1500, 2100), (3300, 3900)]
    assert Schedule(lifetime_s=60, interval_s=60, begin_after_s=30).window(1) == (30, 90)


def test_what_is_left_of_a_lifetime_is_not_judged_and_intervals_may_end_after_it() -> None:
    schedule = Schedule(lifetime_s=100, interval_s=30, begin_after_s=10)
    assert schedule.count == 3
    assert [schedule.ended(at) for at in (0, 39.9, 40, 69, 100, 131)] == [0, 0, 1, 1, 3, 4]
    assert Schedule(lifetime_s=0.3, interval_s=0.1).count == 3


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"lifetime_s": 0.0}, "lifetime 0 s, interval 60 s"),
        ({"interval_s": 0.0}, "interval 0 s"),
        ({"interval_s": 601.0}, "interval 601 s"),
        ({"lookback_s": -1.0}, "lookback -1 s"),
        ({"begin_after_s": -1.0}, "begin after -1 s"),
    ],
)
def test_a_schedule_that_cannot_be_is_refused(wrong: dict[str, float], told: str) -> None:
    with pytest.raises(InvalidInput, match=told):
        Schedule(**{"lifetime_s": 600.0, "interval_s": 60.0, **wrong})


def test_kayentas_request_is_read_as_it_is(tmp_path: Path) -> None:
    request: dict[str, Any] = {
        "scopes": [{"controlScope": "baseline", "experimentScope": "canary", "step": 60}],
        "lifetimeDurationMins": 60,
        "analysisIntervalMins": 15,
        "lookbackMins": 20,
        "beginAfterMins": 5,
        "thresholds": {"pass": 95, "marginal": 75},
        "siteLocal": {"who": "anyone"},
    }
    path = tmp_path / "request.json"
    path.write_text(json.dumps(request))
    wanted = Schedule(lifetime_s=3600, interval_s=900, lookback_s=1200, begin_after_s=300)
    assert read_request(path) == (wanted, {"passing": 95, "marginal": 75})


@pytest.mark.parametrize("interval", [{}, {"analysisIntervalMins": 0}, {"analysisIntervalMins": 90}])
def test_an_interval_is_the_lifetime_by_default_and_at_most(interval: dict[str, float]) -> None:
    schedule, thresholds = read_request({"lifetimeDurationMins": 60, **interval})
    assert schedule == Schedule(lifetime_s=3600, interval_s=3600)
    assert thresholds == {}


def test_a_request_needs_a_lifetime() -> None:
    with pytest.raises(InvalidInput, match=r"canary analysis\.lifetimeDurationMins is missing"):
        read_request({"analysisIntervalMins": 5})
    with pytest.raises(InvalidInput, match=r"lookbackMins is \"5\"; a number is accepted"):
        read_request({"lifetimeDurationMins": 5, "lookbackMins": "5"})
