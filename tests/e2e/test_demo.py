"""The one command, on real data: interrupted while it trains, then run again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


def test_an_interrupted_training_registers_nothing_and_says_so(interrupted: int, home: Path) -> None:
    assert interrupted == 130


def test_no_event_is_lost_and_none_counts_twice(report: dict[str, Any]) -> None:
    assert report["events"] == {
        "sent": 100_200,
        "in_lake": 100_000,
        "dead_letters": 200,
        "duplicates": 0,
    }


def test_a_second_run_sends_and_trains_nothing_twice(report: dict[str, Any]) -> None:
    stages = {stage["name"]: stage["figures"] for stage in report["stages"]}
    assert stages["ingest"]["sent_now"] == 0
    assert stages["train"]["version"] == "1"


def test_stream_and_batch_agree_value_by_value(report: dict[str, Any]) -> None:
    assert {view: row["equal"] == row["rows"] for view, row in report["features"].items()} == dict.fromkeys(
        report["features"], True
    )
    assert report["features"]["member_activity"]["rows"] == 943


def test_the_ensemble_leads_per_member(report: dict[str, Any]) -> None:
    ndcg = {name: row["ndcg@20"] for name, row in report["models"].items()}
    others = {name: value for name, value in ndcg.items() if name != "ensemble"}
    assert ndcg["ensemble"] > max(*others.values(), 0.2195, 1.8 * ndcg["popularity"])
    assert min(others[name] for name in ("cf", "dnn", "gnn")) > ndcg["popularity"]


def test_the_ensemble_knows_newcomers_too(report: dict[str, Any]) -> None:
    models = report["models_global"]
    assert models["ensemble"]["all"]["ndcg@20"] >= models["popularity"]["all"]["ndcg@20"]
    assert models["ensemble"]["warm"]["ndcg@20"] > 1.2 * models["popularity"]["warm"]["ndcg@20"]


def test_every_figure_has_its_interval(report: dict[str, Any]) -> None:
    for row in report["models"].values():
        for metric in ("recall@20", "ndcg@10", "ndcg@20"):
            low, high = row[f"{metric}_interval"]
            assert low <= row[metric] <= high


def test_no_request_fails(report: dict[str, Any]) -> None:
    assert report["requests"]["count"] == 1_000
    assert report["requests"]["failed"] == 0


def test_a_posted_play_counts_and_its_title_leaves_the_ranking(report: dict[str, Any]) -> None:
    fresh = report["freshness_s"]
    assert (fresh["posts"], fresh["lost"], fresh["still_shown"]) == (200, 0, 0)
    assert fresh["p50"] <= 1.0
    assert fresh["p99"] <= 5.0


def test_drift_was_computed_over_real_exposures(report: dict[str, Any]) -> None:
    assert 0 <= report["drift"]["share"] <= 1
    assert Path(report["drift"]["report"]).stat().st_size > 10_000
