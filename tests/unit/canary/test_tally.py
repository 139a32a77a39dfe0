"""Exposures and outcomes to figures: each counts once, in its time, and nothing is lost by a restart."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from matinee.canary.counts import EVIDENCE
from matinee.canary.early import Moments, Rate
from matinee.canary.tally import METRICS, Tally
from matinee.errors import InvalidInput

CELLS = ("r1-baseline", "r1-canary")
S = 1_000_000


def tally() -> Tally:
    """Intervals of 10 s, outcomes count for 5 s."""
    return Tally(CELLS, start=0, interval_us=10 * S, settle_us=5 * S)


def shown(name: str, at_s: float, *, canary: bool = False, **given: Any) -> dict[str, Any]:
    message = {
        "exposure_id": name,
        "time": int(at_s * S),
        "member_id": f"member of {name}",
        "cell": CELLS[canary],
        "answer": "personal",
        "latency_ms": 2.0,
    }
    return message | given


def did(name: str, kind: str, **given: Any) -> dict[str, Any]:
    return {"request_id": name, "type": kind, "title_id": "t1", **given}


def test_what_came_of_an_exposure_is_joined_to_it() -> None:
    held = tally()
    assert held.exposure(shown("a", 1))
    assert held.exposure(shown("b", 1, canary=True, answer="cold_start", fallback="popular", latency_ms=9.0))
    assert not held.exposure(shown("c", 1, cell="v3"))
    for event in (
        did("a", "click"),
        did("a", "play"),
        did("a", "stop", value=60.0),
        did("a", "stop", value=60.0),
        did("a", "stop", value=30.0, title_id="t2"),
        did("b", "click", cell=CELLS[1]),
        did("c", "play", cell="v3"),
        did("nobody", "play"),
    ):
        held.outcome(event, 2 * S)
    baseline, canary = held.sides
    assert canary.evidence()["cold_rate"] == Rate(successes=1, trials=1)
    assert canary.evidence()["fallback_rate"] == Rate(successes=1, trials=1)
    assert baseline.evidence()["fallback_rate"] == Rate(successes=0, trials=1)
    assert baseline.evidence()["play_rate"] == Rate(successes=0, trials=0)
    held.settle(6 * S)
    assert baseline.evidence()["play_rate"] == Rate(successes=1, trials=1)
    assert baseline.evidence()["watch_s"] == Moments(n=1, mean=90.0, variance=0.0)
    assert canary.evidence()["click_rate"] == Rate(successes=1, trials=1)
    assert canary.evidence()["play_rate"] == Rate(successes=0, trials=1)
    assert set(baseline.evidence()) == set(EVIDENCE)
    assert (held.members, held.settled) == ((1, 1), (1, 1))


def test_an_outcome_may_come_before_its_exposure_and_never_too_late() -> None:
    held = tally()
    held.outcome(did("a", "play"), 1 * S)
    held.exposure(shown("a", 1))
    held.exposure(shown("b", 1))
    held.outcome(did("b", "play"), 7 * S)
    held.settle(8 * S)
    assert held.sides[0].every.played == 1


def test_an_exposure_sent_again_counts_once() -> None:
    held = tally()
    assert held.exposure(shown("a", 1))
    assert not held.exposure(shown("a", 1))
    held.settle(7 * S)
    assert not held.exposure(shown("a", 1))
    assert held.sides[0].every.exposures == 1


def test_a_members_first_exposure_is_the_first_that_was_met_even_after_a_restart() -> None:
    held = tally()
    held.exposure(shown("a", 1, member_id="m"))
    held = Tally.from_json(json.loads(json.dumps(held.to_json())))
    held.exposure(shown("b", 2, member_id="m"))
    held.exposure(shown("c", 2, member_id="n"))
    held.outcome(did("b", "play"), 2 * S)
    held.outcome(did("c", "play"), 2 * S)
    held.settle(9 * S)
    evidence = held.sides[0].evidence()
    assert evidence["play_rate"] == Rate(successes=2, trials=3)
    assert evidence["member.play_rate"] == Rate(successes=1, trials=2)


def test_a_step_counts_its_own_exposures() -> None:
    held = tally()
    held.exposure(shown("a", 1))
    held.next_step(2 * S)
    held.exposure(shown("b", 3))
    held.settle(20 * S)
    assert held.settled == (1, 0)
    assert held.sides[0].every.settled == 2


def test_the_judge_gets_a_value_for_each_interval_that_is_settled() -> None:
    held = tally()
    for i in range(40):
        held.exposure(shown(f"b{i}", i, latency_ms=float(i)))
        if i < 10:
            held.exposure(shown(f"c{i}", i, canary=True))
            held.outcome(did(f"c{i}", "play"), i * S)
    held.settle(34 * S)
    samples = {name: each.samples for name, each in held.series().items()}
    assert set(samples) == set(METRICS)
    assert held.intervals == 2
    np.testing.assert_array_equal(samples["play_rate"].control, [0.0, 0.0])
    np.testing.assert_array_equal(samples["play_rate"].experiment, [1.0, np.nan])
    np.testing.assert_allclose(samples["latency_mean_ms"].control, [4.5, 14.5])
    np.testing.assert_allclose(samples["latency_p95_ms"].control, [8.55, 18.55])


def test_a_window_holds_the_intervals_that_lie_whole_within_it() -> None:
    held = tally()
    for at in (1, 11, 31):
        held.exposure(shown(f"b{at}", at, latency_ms=float(at)))
    held.settle(60 * S)
    latency = held.series()["latency_mean_ms"]
    assert latency.begins.tolist() == [0, 10 * S, 30 * S]
    for begin, end, wanted in ((0, 40, [1, 11, 31]), (1, 40, [11, 31]), (0, 39, [1, 11]), (12, 30, [])):
        within = latency.within(begin * S, end * S)
        assert within.control.tolist() == wanted
        assert np.isnan(within.experiment).all()
    assert Tally.from_json(json.loads(json.dumps(held.to_json()))).series()["watch_s"].begins.tolist() == [
        0,
        10 * S,
        30 * S,
    ]


def test_an_exposure_that_lacks_a_field_is_refused() -> None:
    with pytest.raises(InvalidInput, match="latency_ms"):
        tally().exposure({name: v for name, v in shown("a", 1).items() if name != "latency_ms"})


@given(
    st.lists(st.tuples(st.sampled_from("abcdef"), st.booleans(), st.integers(0, 40)), max_size=30),
    st.integers(0, 30),
)
def test_another_goes_on_where_one_ended(happened: list[tuple[str, bool, int]], stop: int) -> None:
    """Kept as JSON at any moment, the figures come out the same."""
    whole, parted = tally(), tally()
    for place, (name, canary, at) in enumerate(sorted(happened, key=lambda each: each[2])):
        if place == stop:
            parted = Tally.from_json(json.loads(json.dumps(parted.to_json())))
        for held in (whole, parted):
            held.exposure(shown(f"{name}{at}", at, canary=canary, latency_ms=1.0 + at))
            held.outcome(did(f"{name}{at}", "play"), at * S)
            held.settle(at * S)
    for held in (whole, parted):
        held.settle(100 * S)
    assert json.dumps(whole.to_json(), sort_keys=True) == json.dumps(parted.to_json(), sort_keys=True)
