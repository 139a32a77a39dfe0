"""Freshness as measured, against what views declare."""

from __future__ import annotations

import pytest

from matinee.features.trust.freshness import Freshness, judge_freshness, measured


@pytest.mark.parametrize(
    ("p99", "objective", "action"),
    [(1.0, 5.0, "fresh"), (5.0, 5.0, "fresh"), (5.1, 5.0, "late"), (None, 5.0, "hold"), (1.0, None, "hold")],
)
def test_the_99th_percentile_decides(p99: float | None, objective: float | None, action: str) -> None:
    decision = judge_freshness(Freshness(p99_s=p99), objective)
    assert decision.action == action
    assert decision.reason


def test_the_decision_carries_both_numbers() -> None:
    late = judge_freshness(Freshness(p99_s=7.25), 5.0)
    assert late.evidence == {"p99_s": 7.25, "objective_s": 5.0}
    assert "7.25 s" in late.reason
    assert "5 s" in late.reason


def test_a_quiet_view_is_stale_and_not_late() -> None:
    quiet = Freshness(last_write=1_000_000, newest_event=900_000)
    assert quiet.staleness_s(11_000_000) == 10.0
    assert judge_freshness(quiet, 5.0).action == "hold"


def test_staleness_falls_back_on_the_newest_event_and_is_never_negative() -> None:
    assert Freshness(newest_event=4_000_000).staleness_s(5_000_000) == 1.0
    assert Freshness(last_write=6_000_000).staleness_s(5_000_000) == 0.0
    assert Freshness().staleness_s(5_000_000) is None


def test_views_are_read_from_the_streams_status() -> None:
    status = {"views": {"a": {"freshness_p50_s": 0.1, "freshness_p99_s": 0.2, "last_write": 7}, "b": {}}}
    assert measured(status) == {"a": Freshness(p50_s=0.1, p99_s=0.2, last_write=7), "b": Freshness()}
    assert measured({}) == {}
