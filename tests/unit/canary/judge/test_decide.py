"""From samples to a verdict, as Kayenta and strictly."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pytest

from matinee.canary.judge import CanaryConfig, EffectSize, Judgement, Metric, Samples, judge
from matinee.errors import InvalidInput

Mode = Literal["strict", "kayenta"]
MODES: tuple[Mode, ...] = ("strict", "kayenta")
CONTROL, DOUBLED = np.arange(10.0, 40.0), np.arange(10.0, 40.0) * 2


def judged(control: Any, experiment: Any, mode: Mode = "strict", **how: Any) -> Judgement:
    samples = Samples(np.asarray(control, np.float64), np.asarray(experiment, np.float64))
    return judge(CanaryConfig(metrics=[Metric(name="m", **how)]), {"m": samples}, mode=mode)


def label(control: Any, experiment: Any, mode: Mode = "strict", **how: Any) -> str:
    return judged(control, experiment, mode, **how).metrics[0].label


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("direction", "up", "down"),
    [("either", "High", "Low"), ("increase", "High", "Pass"), ("decrease", "Pass", "Low")],
)
def test_only_the_harmful_direction_fails(mode: Any, direction: Any, up: str, down: str) -> None:
    assert label(CONTROL, CONTROL + 40, mode, direction=direction) == up
    assert label(CONTROL + 40, CONTROL, mode, direction=direction) == down


@pytest.mark.parametrize("mode", MODES)
def test_a_difference_smaller_than_allowed_passes(mode: Any) -> None:
    assert label(CONTROL, CONTROL + 40, mode, effect=EffectSize(allowed_increase=5.0)) == "Pass"
    assert (
        label(CONTROL, CONTROL + 40, mode, effect=EffectSize(measure="cles", allowed_increase=0.99)) == "High"
    )


def test_a_critical_metric_fails_all_where_the_difference_is_critical() -> None:
    whole = judged(CONTROL, DOUBLED, critical=True)
    assert (whole.score, whole.verdict, whole.reason) == (0.0, "fail", "critical metric failed: m")
    spared = judged(CONTROL, DOUBLED, critical=True, effect=EffectSize(critical_increase=3.0))
    assert (spared.metrics[0].label, spared.metrics[0].critical) == ("High", False)


@pytest.mark.parametrize("mode", MODES)
def test_no_data_is_told_by_the_metrics_own_rules(mode: Any) -> None:
    assert label([], [1.0], mode) == "Nodata"
    assert label([1.0], [np.nan], mode) == "Nodata"
    assert label([], [1.0], mode, nan_strategy="replace") == "Pass"
    assert label([], [1.0], mode, must_have_data=True) == "NodataFailMetric"
    lacking = judged([], [1.0], mode, must_have_data=True, critical=True).metrics[0]
    assert (lacking.label, lacking.critical, lacking.reason) == ("Nodata", True, "no data in control")


def test_missing_values_become_zero_where_asked() -> None:
    missing = np.where(np.arange(30) % 2, CONTROL, np.nan)
    assert label(CONTROL, missing) == "Pass"
    assert label(CONTROL, missing, nan_strategy="replace") != "Pass"


def test_outliers_go_where_asked() -> None:
    spike = np.append(np.tile([1.0, 2.0, 3.0], 20), 1e6)
    kept, removed = (judged(CONTROL, spike, outliers=how).metrics[0].experiment for how in ("keep", "remove"))
    assert (kept.count, removed.count, removed.max) == (61, 60, 3.0)


@pytest.mark.parametrize("mode", MODES)
def test_two_constants_differ(mode: Any) -> None:
    assert label([5.0] * 10, [6.0] * 10, mode) == "High"
    assert label([6.0] * 10, [0.0] * 10, mode) == "Low"
    assert label([5.0] * 10, [5.0] * 3, mode) == "Pass"


DRAW = np.random.default_rng(7)
MISSES = {
    "a few errors where there were none": (np.zeros(6), [0, 1, 2, 1, 0, 0]),
    "seven hundreds and three ones": (np.ones(10), [100] * 7 + [1] * 3),
    "a change of variance alone": (DRAW.normal(100, 1, 60), DRAW.normal(100, 3, 60)),
}


@pytest.mark.parametrize("direction", ["either", "increase"])
@pytest.mark.parametrize("miss", MISSES)
def test_known_misses_are_caught_strictly_and_kept_in_compatibility(miss: str, direction: Any) -> None:
    control, experiment = MISSES[miss]
    assert label(control, experiment, "kayenta", direction=direction) == "Pass"
    assert label(control, experiment, "strict", direction=direction) == "High"
    assert judged(control, experiment, critical=True, direction=direction).metrics[0].critical


def test_spread_is_harmful_where_its_direction_is() -> None:
    calm, wild = MISSES["a change of variance alone"]
    assert label(calm, wild, direction="decrease") == "Low"
    assert label(wild, calm) == "Low"
    assert label(wild, calm, direction="increase") == label(wild, calm, direction="decrease") == "Pass"
    assert label(calm, wild + 3 * np.ptp(calm), direction="decrease") == "Pass"
    assert label(calm, wild - 3 * np.ptp(wild), direction="increase") == "Pass"
    limited = judged(calm, wild, critical=True, effect=EffectSize(critical_increase=3.0)).metrics[0]
    assert (limited.label, limited.critical) == ("High", False)


def test_a_better_level_may_vary_more() -> None:
    calm, wild = MISSES["a change of variance alone"]
    assert label(calm, wild + 20, direction="decrease") == "Pass"
    assert label(calm, wild - 20, direction="increase") == "Pass"
    assert label(calm, wild - 0.1, direction="increase") == "High"


GAUGES = {
    "normal": lambda size: DRAW.normal(10, 1, size),
    "skewed": lambda size: DRAW.lognormal(3, 0.7, size),
    "counts": lambda size: DRAW.poisson(4, size).astype(float),
    "mostly zero": lambda size: np.where(DRAW.random(size) < 0.9, 0.0, 1.0),
}


@pytest.mark.parametrize("gauge", GAUGES)
def test_without_a_difference_few_metrics_fail(gauge: str) -> None:
    count = 1_500
    config = CanaryConfig(metrics=[Metric(name=str(each)) for each in range(count)])
    drawn = GAUGES[gauge]((count, 2, 60))
    samples = {str(place): Samples(*pair) for place, pair in enumerate(drawn)}
    for mode, most in (("kayenta", 0.02), ("strict", 0.05)):
        found = judge(config, samples, mode=mode, intervals=False)
        assert np.mean([each.label != "Pass" for each in found.metrics]) <= most


@pytest.mark.parametrize("gauge", GAUGES)
def test_labels_do_not_depend_on_finding_every_interval(gauge: str) -> None:
    config = CanaryConfig(metrics=[Metric(name=str(each)) for each in range(200)])
    drawn = GAUGES[gauge]((200, 2, 40)) * np.array([1.0, 1.3])[None, :, None]
    samples = {str(place): Samples(*pair) for place, pair in enumerate(drawn)}
    whole, bare = (judge(config, samples, mode="kayenta", intervals=each) for each in (True, False))
    assert [each.label for each in whole.metrics] == [each.label for each in bare.metrics]
    assert whole.score == bare.score
    for full, part in zip(whole.metrics, bare.metrics, strict=True):
        assert np.isnan(part.low) or (part.low, part.high, part.estimate) == (
            full.low,
            full.high,
            full.estimate,
        )


def test_a_muted_metric_is_judged_and_does_not_count() -> None:
    config = CanaryConfig(metrics=[Metric(name="loud"), Metric(name="quiet", muted=True, critical=True)])
    found = judge(config, {"loud": Samples(CONTROL, CONTROL), "quiet": Samples(CONTROL, DOUBLED)})
    assert (found.score, found.verdict, found.metrics[1].label) == (100.0, "pass", "High")


def test_an_infinite_value_is_an_error_of_its_metric() -> None:
    config = CanaryConfig(metrics=[Metric(name="a"), Metric(name="b")])
    found = judge(config, {"a": Samples(CONTROL, np.array([1.0, np.inf])), "b": Samples(CONTROL, CONTROL)})
    assert [each.label for each in found.metrics] == ["Error", "Pass"]
    assert found.score == 100.0
    whole = judge(
        CanaryConfig(metrics=[Metric(name="a", critical=True)]), {"a": Samples(np.array([np.inf]), CONTROL)}
    )
    assert whole.verdict == "fail"


def test_metrics_without_samples_have_no_data_and_strangers_are_refused() -> None:
    config = CanaryConfig(name="home", metrics=[Metric(name="m")])
    assert judge(config, {}).metrics[0].label == "Nodata"
    with pytest.raises(InvalidInput, match="samples of x: canary home has no such metric"):
        judge(config, {"x": Samples(CONTROL, CONTROL)})


def test_no_metrics_fail() -> None:
    found = judge(CanaryConfig(metrics=[]), {})
    assert (found.score, found.verdict, list(found.metrics)) == (0.0, "fail", [])


def test_the_thresholds_decide() -> None:
    metrics = [Metric(name=name) for name in "abcd"]
    samples = {name: Samples(CONTROL, DOUBLED if name == "d" else CONTROL) for name in "abcd"}
    for passing, marginal, wanted in ((75.0, 50.0, "pass"), (95.0, 75.0, "marginal"), (95.0, 80.0, "fail")):
        found = judge(CanaryConfig(metrics=metrics, passing=passing, marginal=marginal), samples)
        assert (found.score, found.verdict) == (75.0, wanted)
