"""What the supervisor decides, without a cluster."""

import pytest

from matinee.features.stream import STALLED_S, judge, placements


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
