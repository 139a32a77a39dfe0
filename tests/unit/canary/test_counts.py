"""What counts of an exposure, and of which it counts."""

from __future__ import annotations

import json

import numpy as np
import pytest

from matinee.canary.counts import EDGES_MS, EVIDENCE, Mean, Shown, Side
from matinee.canary.early import Histogram, Moments, Rate


def shown(latency_ms: float = 1.0, *, first: bool = True, cold: bool = False, played: bool = False) -> Shown:
    return Shown(side=0, time=0, first=first, cold=cold, fallback=False, latency_ms=latency_ms, played=played)


def seen(*exposures: Shown) -> Side:
    side = Side()
    for each in exposures:
        for counts in side.counts(each):
            counts.meet(each)
            counts.settle(each)
    return side


def test_of_a_member_who_returns_the_first_exposure_alone_counts_by_members() -> None:
    side = seen(
        shown(2.0, played=True), shown(4.0, first=False, cold=True), shown(6.0), shown(8.0, first=False)
    )
    evidence = side.evidence()
    assert set(evidence) == set(EVIDENCE)
    assert evidence["play_rate"] == Rate(successes=1, trials=4)
    assert evidence["member.play_rate"] == Rate(successes=1, trials=2)
    assert evidence["cold_rate"] == Rate(successes=1, trials=4)
    assert evidence["member.cold_rate"] == Rate(successes=0, trials=2)
    assert evidence["latency_mean_ms"] == Moments(n=4, mean=5.0, variance=5.0)
    assert evidence["member.latency_mean_ms"] == Moments(n=2, mean=4.0, variance=4.0)
    histogram = evidence["member.latency_ms"]
    assert isinstance(histogram, Histogram)
    assert histogram.n == 2


@pytest.mark.parametrize(("latency", "place"), [(-1.0, 0), (0.0, 0), (0.1, 1), (1e9, len(EDGES_MS) - 2)])
def test_a_latency_lies_between_the_edges_or_in_an_outer_bin(latency: float, place: int) -> None:
    assert int(np.argmax(seen(shown(latency)).every.histogram)) == place


def test_a_running_mean_is_that_of_all_values() -> None:
    values, running = np.random.default_rng(0).lognormal(size=50), Mean()
    for value in values:
        running.add(float(value))
    found = running.moments
    assert (found.n, found.mean) == (50, pytest.approx(values.mean()))
    assert found.variance == pytest.approx(values.var())


def test_a_side_is_kept_whole() -> None:
    side = seen(shown(2.0, played=True), shown(4.0, first=False))
    side.members.update({"b", "a"})
    side.settled_here = 2
    assert Side.from_json(json.loads(json.dumps(side.to_json()))) == side
