"""What the supervisor decides, without a cluster."""

import pytest

from matinee.features.stream import CALM_S, STALLED_S, judge, placements, resize


@pytest.mark.parametrize(
    ("count", "workers", "placed"),
    [(4, 1, [[0, 1, 2, 3]]), (4, 2, [[0, 2], [1, 3]]), (3, 2, [[0, 2], [1]]), (2, 5, [[0], [1]])],
)
def test_every_partition_has_one_worker_and_no_worker_is_idle(count, workers, placed):
    assert placements(count, workers) == placed


def test_all_answer_nothing_is_done():
    assert judge(True, {"worker-0": {"since_turn_s": 0.1}}).action == "keep"


def test_a_silent_worker_and_a_stalled_one_are_replaced():
    reports = {
        "worker-0": None,
        "worker-1": {"since_turn_s": STALLED_S + 1},
        "worker-2": {"since_turn_s": 0.0},
    }
    decision = judge(True, reports)
    assert decision.action == "replace"
    assert set(decision.evidence) == {"worker-0", "worker-1"}
    assert "worker-0 does not answer" in decision.reason


def test_a_dead_keeper_outweighs_its_workers():
    assert judge(False, {"worker-0": None}).action == "rebuild"


LOAD = {"workers": 1, "least": 1, "most": 4, "partitions": 8, "lag_s": 0.0, "calm_s": 0.0, "limit_s": 10.0}


@pytest.mark.parametrize(
    ("load", "workers"),
    [
        ({"lag_s": 30.0}, 2),
        ({"lag_s": 30.0, "workers": 2}, 4),
        ({"lag_s": 30.0, "workers": 2, "partitions": 3}, 3),
        ({"calm_s": CALM_S + 1, "workers": 4}, 2),
        ({"calm_s": CALM_S + 1, "workers": 4, "least": 3}, 3),
    ],
)
def test_workers_follow_the_load(load, workers):
    decision = resize(**{**LOAD, **load})
    assert decision.action == "resize"
    assert decision.evidence["workers"] == workers


@pytest.mark.parametrize(
    "load",
    [
        {},
        {"lag_s": 30.0, "workers": 4},
        {"lag_s": 30.0, "most": 0},
        {"lag_s": 30.0, "partitions": 1},
        {"calm_s": CALM_S + 1},
        {"lag_s": 9.0, "calm_s": CALM_S - 1, "workers": 2},
    ],
)
def test_workers_stay_where_nothing_is_gained(load):
    assert resize(**{**LOAD, **load}).action == "keep"
