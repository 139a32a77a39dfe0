"""Looking often costs nothing: the laws of early abort."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from matinee.canary.early import (
    Count,
    Histogram,
    Limit,
    Moments,
    Rate,
    Values,
    log_e_events,
    log_e_normal,
    watch,
    watch_all,
)
from matinee.errors import InvalidInput


@given(st.integers(1, 400), st.floats(0.05, 0.95), st.floats(0, 1))
def test_evidence_of_events_is_worth_one_at_most_without_harm(n: int, share: float, part: float) -> None:
    more = np.arange(n + 1)
    evidence = log_e_events(more, n - more, share)
    assert np.exp(binom.logpmf(more, n, share) + evidence).sum() == pytest.approx(1, rel=1e-6)
    assert np.exp(binom.logpmf(more, n, share * part) + evidence).sum() <= 1 + 1e-6


def test_evidence_of_events_is_a_martingale() -> None:
    more, rest = np.meshgrid(np.arange(30), np.arange(30))
    now = np.exp(log_e_events(more, rest, 0.3))
    then = 0.3 * np.exp(log_e_events(more + 1, rest, 0.3)) + 0.7 * np.exp(log_e_events(more, rest + 1, 0.3))
    assert then == pytest.approx(now, rel=1e-9)


@pytest.mark.parametrize("n", [1.0, 50.0, 1e5])
def test_evidence_of_a_mean_is_worth_one_without_harm(n: float) -> None:
    z = np.linspace(-2_000, 2_000, 1_000_001)
    worth = np.exp(log_e_normal(z, n) - z**2 / 2) / np.sqrt(2 * np.pi)
    assert worth.sum() * (z[1] - z[0]) == pytest.approx(1, rel=1e-3)


LIMITS: dict[str, tuple[Limit, Any]] = {
    "rate": (Limit(metric="errors", kind="rate"), lambda k, n: Rate(successes=int(k), trials=int(n))),
    "rate that falls": (
        Limit(metric="plays", kind="rate", harm="decrease"),
        lambda k, n: Rate(successes=int(n - k), trials=int(n)),
    ),
    "count": (Limit(metric="stalls", kind="count"), lambda k, n: Count(count=int(k), exposure=n)),
    "mean": (
        Limit(metric="latency", kind="mean"),
        lambda k, n: Moments(n=int(n), mean=k / n, variance=k / n * (1 - k / n)),
    ),
}


def test_a_frequent_rate_knows_its_trials() -> None:
    limit = Limit(metric="answered", kind="rate", harm="decrease", tolerance=0.001)
    baseline, canary = Rate(successes=99_000, trials=100_000), Rate(successes=98_000, trials=100_000)
    assert watch(limit, baseline, canary).action == "abort"
    assert watch(limit, baseline, Rate(successes=98_950, trials=100_000)).action == "continue"


@pytest.mark.parametrize("kind", LIMITS)
def test_harm_aborts_and_no_harm_does_not(kind: str) -> None:
    limit, made = LIMITS[kind]
    baseline = made(300, 1000)
    assert watch(limit, baseline, made(300, 1000)).action == "continue"
    assert watch(limit, baseline, made(200, 1000)).action == "continue"
    decision = watch(limit, baseline, made(450, 1000))
    assert decision.action == "abort"
    assert limit.metric in decision.reason
    for name in ("value", "bound", "limit"):
        assert f"{decision.evidence[name]:.4g}" in decision.reason


@pytest.mark.parametrize("kind", LIMITS)
def test_the_action_is_told_by_bound_and_limit(kind: str) -> None:
    limit, made = LIMITS[kind]
    for events in range(250, 460, 15):
        decision = watch(limit, made(300, 1000), made(events, 1000))
        over = limit.sign * (decision.evidence["bound"] - decision.evidence["limit"])
        assert (over > 0) == (decision.action == "abort")


def test_harm_within_the_tolerance_continues() -> None:
    baseline, canary = Rate(successes=3000, trials=100_000), Rate(successes=3600, trials=100_000)
    assert watch(Limit(metric="m", kind="rate"), baseline, canary).action == "abort"
    assert watch(Limit(metric="m", kind="rate", tolerance=0.25), baseline, canary).action == "continue"
    slower = Moments(n=10_000, mean=11.0, variance=4.0), Moments(n=10_000, mean=12.0, variance=4.0)
    assert watch(Limit(metric="m", kind="mean"), *slower).action == "abort"
    assert watch(Limit(metric="m", kind="mean", tolerance=0.1), *slower).action == "continue"


def test_sides_of_unequal_size_are_compared_by_rate() -> None:
    limit = Limit(metric="m", kind="rate")
    assert (
        watch(limit, Rate(successes=900, trials=9000), Rate(successes=100, trials=1000)).action == "continue"
    )
    assert watch(limit, Rate(successes=900, trials=9000), Rate(successes=190, trials=1000)).action == "abort"


def latencies(factor: float, n: int = 6_000) -> Values:
    return Values(values=np.sort(np.random.default_rng(int(factor * 100)).lognormal(3, 0.5, n) * factor))


def histogram(values: Values) -> Histogram:
    edges = np.exp(np.linspace(0, 7, 700))
    return Histogram(edges=edges, counts=np.histogram(values.values, edges)[0])


@pytest.mark.parametrize("shown", [lambda values: values, histogram], ids=["values", "histogram"])
def test_a_quantile_aborts_where_it_is_beyond_the_limit(shown: Any) -> None:
    limit = Limit(metric="latency", kind="quantile", quantile=0.95)
    baseline = shown(latencies(1.0))
    assert watch(limit, baseline, shown(latencies(1.01))).action == "continue"
    decision = watch(limit, baseline, shown(latencies(1.3)))
    assert decision.action == "abort"
    assert decision.reason.startswith("latency p95 is 1.")
    assert 1 < decision.evidence["bound"] < decision.evidence["value"]
    faster = Limit(metric="speed", kind="quantile", quantile=0.5, harm="decrease", tolerance=0.05)
    assert watch(faster, baseline, shown(latencies(0.8))).action == "abort"
    assert watch(faster, baseline, shown(latencies(0.97))).action == "continue"


def test_a_histogram_proves_no_more_than_the_values_do() -> None:
    limit = Limit(metric="latency", kind="quantile", quantile=0.9)
    sides = latencies(1.0), latencies(1.2)
    bounds = [watch(limit, *map(shown, sides)).evidence["bound"] for shown in (lambda v: v, histogram)]
    assert 1 < bounds[1] <= bounds[0] * 1.001


@pytest.mark.parametrize(
    ("limit", "sides"),
    [
        (Limit(metric="m", kind="rate"), [Rate(successes=0, trials=0)] * 2),
        (Limit(metric="m", kind="count"), [Count(count=0, exposure=5.0)] * 2),
        (Limit(metric="m", kind="mean"), [Moments(n=10, mean=1.0, variance=0.0)] * 2),
        (Limit(metric="m", kind="quantile", quantile=0.5), [Values(values=np.zeros(0))] * 2),
        (Limit(metric="m", kind="quantile", quantile=0.99), [Values(values=np.arange(9.0))] * 2),
    ],
)
def test_too_little_continues(limit: Limit, sides: list[Any]) -> None:
    decision = watch(limit, *sides)
    assert (decision.action, decision.reason.split(": ")[1]) == ("continue", "too little seen yet")


def test_events_where_the_baseline_has_none_are_evidence() -> None:
    decision = watch(
        Limit(metric="m", kind="rate"), Rate(successes=0, trials=500), Rate(successes=12, trials=500)
    )
    assert decision.action == "abort"
    assert np.isfinite(list(decision.evidence.values())).all()


def test_limits_share_alpha() -> None:
    limits = [Limit(metric="errors", kind="rate"), Limit(metric="stalls", kind="count")]
    baseline = {"errors": Rate(successes=30, trials=1000), "stalls": Count(count=50, exposure=100.0)}
    fine = watch_all(limits, baseline, baseline)
    assert (fine.action, fine.reason) == ("continue", "2 of 2 limits watched; none aborts")
    assert watch_all(limits, baseline, {}).reason == "0 of 2 limits watched; none aborts"
    bad = watch_all(limits, baseline, {**baseline, "stalls": Count(count=110, exposure=100.0)})
    assert (bad.action, bad.reason.split()[0]) == ("abort", "stalls")
    strict = watch_all(limits, baseline, {**baseline, "stalls": Count(count=110, exposure=100.0)}, alpha=1e-9)
    assert strict.action == "continue"


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"kind": "rate", "alpha": 0.0}, "alpha is 0"),
        ({"kind": "rate", "tolerance": -0.1}, "tolerance is -0.1"),
        ({"kind": "mean", "harm": "decrease", "tolerance": 1.0}, "tolerance is 1"),
        ({"kind": "quantile"}, "quantile is None"),
        ({"kind": "mean", "quantile": 0.5}, "quantile is 0.5"),
    ],
)
def test_a_limit_names_what_it_does_not_accept(fields: Any, named: str) -> None:
    with pytest.raises(InvalidInput, match=named):
        Limit(metric="m", **fields)


def test_evidence_of_another_kind_is_refused() -> None:
    with pytest.raises(InvalidInput, match="kind mean with evidence Rate and Rate"):
        watch(Limit(metric="m", kind="mean"), *[Rate(successes=1, trials=2)] * 2)
    with pytest.raises(InvalidInput, match="a value is -1"):
        watch(Limit(metric="m", kind="quantile", quantile=0.5), *[Values(values=np.array([-1.0, 2.0]))] * 2)
