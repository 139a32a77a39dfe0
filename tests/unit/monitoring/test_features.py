"""Reports on features: what is decided, kept and told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from matinee.config import Settings, load_settings
from matinee.errors import StorageError
from matinee.monitoring.features import (
    CONSISTENCY,
    ConsistencyReport,
    FeatureAgreement,
    ViewAgreement,
    check_consistency,
    consistency_event,
    judge_consistency,
    keep,
    last,
    violation_event,
)


def view(name: str = "v", **shares: float | None) -> ViewAgreement:
    features = [
        FeatureAgreement(feature=feature, compared=100, equal=0, share=share)
        for feature, share in shares.items()
    ]
    return ViewAgreement(
        view=name, rows=100, compared=100, unsettled=0, behind=0, empty=0, newest=5, features=features
    )


def test_one_feature_under_the_bound_is_a_disagreement() -> None:
    decision = judge_consistency([view(a=1.0, b=0.9), view("w", c=0.99)], 0.95)
    assert decision.action == "disagree"
    assert "v.b 90.00%" in decision.reason
    assert decision.evidence == {"share": 0.9, "bound": 0.95, "features": 3, "below": 1}


def test_at_the_bound_they_agree_and_nothing_compared_decides_nothing() -> None:
    assert judge_consistency([view(a=0.95, b=None)], 0.95).action == "agree"
    assert judge_consistency([view(a=None)], 0.95).action == "hold"
    assert judge_consistency([], 0.95).action == "hold"


def report(**shares: float) -> ConsistencyReport:
    return ConsistencyReport(time=7, bound=0.95, decision="disagree", reason="r", views=[view(**shares)])


def test_the_event_names_what_is_below_the_worst_first() -> None:
    event = json.loads(consistency_event(report(a=0.9, b=0.5, c=1.0)))
    assert (event["type"], event["schema_version"], event["event_id"]) == (
        "feature_consistency",
        1,
        "feature-consistency-7",
    )
    assert [(each["feature"], each["share"]) for each in event["below"]] == [("b", 0.5), ("a", 0.9)]


def test_the_event_of_violations_carries_them() -> None:
    found = {"view": "v", "feature": "f", "rule": "low", "count": 3}
    event = json.loads(violation_event([found], source="batch", time_us=9))
    assert (event["type"], event["source"], event["violations"]) == ("feature_violation", "batch", [found])
    assert event["event_id"] == "feature-violation-batch-9"


def test_a_report_is_kept_whole_and_read_again(settings: Settings) -> None:
    assert last(settings, CONSISTENCY) == {}
    path = keep(settings, CONSISTENCY, report(a=0.9))
    assert last(settings, CONSISTENCY)["views"][0]["features"][0]["share"] == 0.9
    assert [each.name for each in path.parent.iterdir()] == [CONSISTENCY]
    path.write_text("{")
    assert last(settings, CONSISTENCY) == {}


def test_a_report_that_cannot_be_written_says_where(tmp_path: Path) -> None:
    (tmp_path / "reports").write_text("")
    with pytest.raises(StorageError, match=CONSISTENCY):
        keep(load_settings({"home": str(tmp_path)}, environment={}), CONSISTENCY, {})


def test_without_a_log_the_report_says_that_nothing_was_compared(settings: Settings) -> None:
    found = check_consistency(settings, now=1)
    assert (found.decision, found.views, found.below) == ("hold", [], [])
    assert last(settings, CONSISTENCY)["decision"] == "hold"
