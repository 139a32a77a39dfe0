"""The watch keeps freshness, tells violations once, and turns what it knows into gauges."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from matinee.config import Settings, load_settings
from matinee.monitoring import watch
from matinee.monitoring.features import FRESHNESS, ConsistencyReport, FeatureAgreement, ViewAgreement, last
from matinee.monitoring.watch import FeatureWatch


class Broker:
    """Takes messages while it is up."""

    def __init__(self) -> None:
        self.up = True
        self.taken: list[dict[str, Any]] = []

    def __call__(self, messages: Sequence[tuple[str, bytes]]) -> bool:
        if self.up:
            self.taken += [json.loads(message) for _, message in messages]
        return self.up


@pytest.fixture
def broker() -> Broker:
    return Broker()


def violated(count: int, feature: str = "f") -> dict[str, Any]:
    return {
        "view": "v",
        "feature": feature,
        "rule": "low",
        "count": count,
        "rows": 9,
        "found": -1.0,
        "limit": 0.0,
    }


def watching(settings: Settings, broker: Broker, status: Mapping[str, Any]) -> FeatureWatch:
    return FeatureWatch(settings, broker, lambda: status)


def report(share: float, decision: str) -> ConsistencyReport:
    feature = FeatureAgreement(feature="f", compared=4, equal=1, share=share)
    view = ViewAgreement(
        view="v", rows=8, compared=4, unsettled=0, behind=2, empty=0, newest=1, features=[feature]
    )
    return ConsistencyReport(time=1, bound=0.9, decision=decision, reason="r", views=[view])


def test_violations_are_told_when_they_grow(settings: Settings, broker: Broker) -> None:
    status: dict[str, Any] = {"violations": [violated(2), violated(1, "g")]}
    found = watching(settings, broker, status)
    found.look()
    found.look()
    assert [[each["feature"] for each in event["violations"]] for event in broker.taken] == [["f", "g"]]
    status["violations"] = [violated(5), violated(1, "g")]
    found.look()
    assert [(each["feature"], each["count"]) for each in broker.taken[-1]["violations"]] == [("f", 5)]


def test_what_the_broker_did_not_take_is_told_again(settings: Settings, broker: Broker) -> None:
    found = watching(settings, broker, {"violations": [violated(2)]})
    broker.up = False
    found.look()
    broker.up = True
    found.look()
    assert len(broker.taken) == 1


def test_freshness_is_kept_for_the_page(settings: Settings, broker: Broker) -> None:
    views = {"v": {"freshness_p50_s": 0.1, "freshness_p99_s": 0.3, "last_write": 5}}
    watching(settings, broker, {"views": views}).look()
    assert last(settings, FRESHNESS)["views"] == views
    watching(settings, broker, {"views": views, "violations": [violated(2)]}).look()
    assert last(settings, FRESHNESS)["violations"] == [violated(2)]


def test_a_stream_that_does_not_answer_changes_nothing(settings: Settings, broker: Broker) -> None:
    def silent() -> Mapping[str, Any]:
        raise TimeoutError

    FeatureWatch(settings, broker, silent).look()
    FeatureWatch(settings, broker, None).look()
    assert broker.taken == []
    assert last(settings, FRESHNESS) == {}


def test_a_disagreement_is_told_once_until_it_is_over(
    settings: Settings, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = watching(settings, broker, {})
    for share, decision in ((0.5, "disagree"), (0.4, "disagree"), (1.0, "agree"), (0.3, "disagree")):
        one = report(share, decision)
        monkeypatch.setattr(watch, "check_consistency", lambda _, one=one: one)
        found.compare()
    assert [event["below"][0]["share"] for event in broker.taken] == [0.5, 0.3]


def test_served_features_are_compared_when_it_is_due(broker: Broker, tmp_path: Any) -> None:
    soon = load_settings({"home": str(tmp_path), "monitoring.consistency_interval_s": 1e-9}, environment={})
    due = watching(soon, broker, {})
    due.look()
    assert due.report is not None
    assert due.report.decision == "hold"
    later = watching(load_settings({"home": str(tmp_path)}, environment={}), broker, {})
    later.look()
    assert later.report is None


def test_gauges_show_all_that_is_known(settings: Settings, broker: Broker) -> None:
    status = {
        "views": {
            "v": {
                "freshness_p50_s": 0.1,
                "freshness_p99_s": None,
                "last_write": 1_000_000,
                "objective_s": 5.0,
            }
        },
        "violations": [violated(2)],
    }
    found = watching(settings, broker, status)
    found.report = report(0.25, "disagree")
    figures = found.figures(status)
    assert figures.violations == {("v", "f", "low"): 2.0}
    assert figures.freshness == {("v", "0.5"): 0.1}
    assert figures.staleness[("v",)] > 0
    assert figures.objective == {("v",): 5.0}
    assert figures.consistency == {("v", "f"): 0.25}
    assert figures.behind == {("v",): 0.25}
    assert figures.bound == {(): 0.9}
    assert FeatureWatch(settings, broker, None).figures({}).consistency == {}
