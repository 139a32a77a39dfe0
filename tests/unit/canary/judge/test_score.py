"""What labels add up to."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from matinee.canary.judge.score import Label, score, verdict


@dataclass(frozen=True)
class Labelled:
    label: Label
    groups: tuple[str, ...] = ("g",)
    critical: bool = False
    name: str = field(default="m")


def test_a_group_scores_the_share_that_passes_among_those_with_data() -> None:
    labels: list[Label] = ["Pass", "Pass", "High", "Low", "NodataFailMetric", "Nodata", "Error"]
    result = score([Labelled(label) for label in labels], {})
    assert result.groups == {"g": 40.0}
    assert result.value == 40.0


def test_groups_without_a_weight_share_what_is_left() -> None:
    metrics = [Labelled("Pass", ("a",)), Labelled("High", ("b",)), Labelled("Pass", ("c",))]
    assert score(metrics, {"a": 60.0}).value == 80.0
    assert score(metrics, {"a": 50.0, "b": 50.0}).value == 50.0


def test_weights_are_not_normalised() -> None:
    assert score([Labelled("Pass", ("a",))], {"a": 40.0}).value == 40.0


def test_a_metric_counts_in_each_of_its_groups() -> None:
    result = score([Labelled("High", ("a", "b")), Labelled("Pass", ("b",))], {})
    assert result.groups == {"a": 0.0, "b": 50.0}
    assert result.value == 25.0


def test_a_group_without_data_counts_whole() -> None:
    metrics = [Labelled("Pass"), Labelled("Pass"), Labelled("Nodata", ("empty",))]
    result = score(metrics, {})
    assert (result.value, result.groups["empty"]) == (100.0, 0.0)


@pytest.mark.parametrize("label", ["High", "Low", "Nodata", "Error"])
def test_a_critical_failure_is_zero(label: Label) -> None:
    result = score([Labelled("Pass"), Labelled("Pass"), Labelled(label, critical=True, name="errors")], {})
    assert (result.value, result.reason) == (0.0, "critical metric failed: errors")
    assert score([Labelled("Pass", critical=True)], {}).value == 100.0


def test_half_without_data_is_zero() -> None:
    result = score([Labelled("Pass"), Labelled("Nodata")], {})
    assert (result.value, result.reason) == (0.0, "no data for 1 of 2 metrics")


def test_halves_round_up() -> None:
    metrics = [Labelled("Pass", (str(group),)) for group in range(1)]
    assert score(metrics, {"0": 3.125}).value == 3.13


@pytest.mark.parametrize(
    ("value", "wanted"), [(95.0, "pass"), (94.99, "marginal"), (75.0, "marginal"), (74.99, "fail")]
)
def test_thresholds_belong_to_the_better_verdict(value: float, wanted: str) -> None:
    assert verdict(value, passing=95.0, marginal=75.0) == wanted
