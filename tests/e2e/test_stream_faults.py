"""The stream under faults, small: what `python tests/stream_faults.py` does with a million events."""

import shutil

import pytest
import stream_faults

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


def test_deaths_pauses_and_a_lost_store_change_nothing(tmp_path, ray_cluster):
    redis = shutil.which("redis-server") is not None
    report = stream_faults.run(
        tmp_path / "home", events=24_000, kills=4, rate=3_000, pause_s=1.5, redis=redis, seed=3
    )
    assert sum(report["killed"].values()) == 4
    assert report["late_counted"] == {"member_faults": report["late"], "title_faults": report["late"]}
    assert report["duplicates_counted"] == 1_200
    assert report["compared"]["title_faults"] == 500


def test_workers_come_and_go_under_load(tmp_path, ray_cluster):
    report = stream_faults.run(
        tmp_path / "home",
        events=24_000,
        kills=0,
        rate=4_000,
        pause_s=0.0,
        workers=1,
        redis=False,
        scales=(4, 2),
        seed=4,
    )
    assert report["epoch"] >= 3
    assert report["compared"]["title_faults"] == 500
