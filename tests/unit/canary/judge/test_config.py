"""Kayenta's JSON is read as it is; what is wrong in it is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from matinee.canary.judge import CanaryConfig, EffectSize, Metric, read_config
from matinee.errors import InvalidInput

KAYENTA = {
    "name": "home",
    "description": "golden signals",
    "configVersion": "1",
    "applications": ["ad-hoc"],
    "judge": {"name": "NetflixACAJudge-v1.0", "judgeConfigurations": {}},
    "metrics": [
        {
            "name": "errors",
            "query": {"type": "prometheus", "customInlineTemplate": "sum(rate(errors[1m]))"},
            "groups": ["Errors"],
            "scopeName": "default",
            "analysisConfigurations": {
                "canary": {
                    "direction": "increase",
                    "nanStrategy": "replace",
                    "critical": True,
                    "mustHaveData": True,
                    "effectSize": {"allowedIncrease": 1.1, "criticalIncrease": 5, "measure": "cles"},
                    "outliers": {"strategy": "remove", "outlierFactor": 2.5},
                }
            },
        },
        {
            "name": "latency",
            "groups": ["Latency", "All"],
            "analysisConfigurations": {"canary": {"muted": True}},
        },
        {"name": "plain", "groups": ["All"]},
    ],
    "templates": {},
    "classifier": {
        "groupWeights": {"Errors": 60, "Latency": 40},
        "scoreThresholds": {"pass": 95, "marginal": 75},
    },
}


def changed(**canary: Any) -> dict[str, Any]:
    metric = {"name": "m", "analysisConfigurations": {"canary": canary}}
    return {"metrics": [metric]}


def test_every_field_that_judges_is_read(tmp_path: Path) -> None:
    path = tmp_path / "canary.json"
    path.write_text(json.dumps(KAYENTA))
    config = read_config(path)
    assert config == read_config(path.read_text()) == read_config(KAYENTA)
    assert (config.name, config.passing, config.marginal) == ("home", 95.0, 75.0)
    assert config.group_weights == {"Errors": 60.0, "Latency": 40.0}
    errors, latency, plain = config.metrics
    assert errors == Metric(
        name="errors",
        groups=["Errors"],
        direction="increase",
        nan_strategy="replace",
        critical=True,
        must_have_data=True,
        effect=EffectSize(measure="cles", allowed_increase=1.1, critical_increase=5.0),
        outliers="remove",
        outlier_factor=2.5,
    )
    assert latency == Metric(name="latency", groups=["Latency", "All"], muted=True)
    assert plain == Metric(name="plain", groups=["All"])


def test_a_caller_overrides_the_thresholds() -> None:
    assert read_config(KAYENTA, passing=80.0, marginal=10.0).marginal == 10.0


def test_thresholds_may_stand_beside_the_classifier() -> None:
    config = read_config({"metrics": [], "scoreThresholds": {"pass": 90, "marginal": 60}})
    assert (config.passing, config.marginal) == (90.0, 60.0)


def test_limits_without_a_value_are_those_of_no_effect() -> None:
    assert EffectSize().limits() == (1.0, 1.0, 1.0, 1.0)
    assert EffectSize(measure="cles", allowed_decrease=0.3).limits() == (0.5, 0.3, 0.5, 0.5)


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ("{", "not JSON"),
        ({}, "canary config.metrics is missing; a list"),
        ({"metrics": [3]}, r"canary config.metrics\[0\] is 3; an object"),
        ({"metrics": [{"groups": []}]}, r"metrics\[0\].name is missing; a text"),
        ({"metrics": [{"name": "m", "groups": "g"}]}, r'metrics\[0\].groups is "g"; a list of texts'),
        (changed(direction="up"), r'canary.direction is "up"; increase, decrease, either'),
        (changed(nanStrategy=1), "canary.nanStrategy is 1; remove, replace"),
        (changed(critical="yes"), 'canary.critical is "yes"; true or false'),
        (changed(effectSize={"allowedIncrease": "1"}), 'effectSize.allowedIncrease is "1"; a number'),
        (changed(effectSize={"measure": "median"}), 'effectSize.measure is "median"; meanRatio, cles'),
        (changed(outliers=[]), r"canary.outliers is \[\]; an object"),
        ({"metrics": [], "classifier": {"groupWeights": {"a": True}}}, "groupWeights.a is true; a number"),
        ({"metrics": [{"name": "m"}, {"name": "m"}]}, "metric m stands twice"),
        ({"metrics": [], "scoreThresholds": {"pass": 50, "marginal": 60}}, "pass 50, marginal 60"),
    ],
)
def test_what_is_not_accepted_is_named(config: Any, named: str) -> None:
    with pytest.raises(InvalidInput, match=named):
        read_config(config)


def test_a_configuration_made_in_python_is_checked_too() -> None:
    with pytest.raises(InvalidInput, match="marginal"):
        CanaryConfig(metrics=[], passing=101)
