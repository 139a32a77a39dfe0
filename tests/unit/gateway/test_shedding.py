"""What is shed, and that what is admitted is answered soon, on a simulated service."""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matinee.gateway.shedding import LEAST, MOST, SHARES, SLOW, Flight, Flights, Traffic, decide, moved

lengths = st.integers(0, 500)
limits = st.floats(LEAST, MOST)


@given(lengths, limits, st.sampled_from(get_args(Traffic)))
def test_the_last_free_place_is_given_and_control_always_gets_one(
    length: int, limit: float, traffic: Traffic
) -> None:
    decision = decide(length, limit, traffic)
    assert decision.admit == (length < limit * SHARES[traffic]) == (not decision.reason)
    assert decision.admit or traffic != "control"


@given(lengths, limits)
def test_the_more_urgent_is_admitted_where_the_less_urgent_is(length: int, limit: float) -> None:
    admitted = [decide(length, limit, traffic).admit for traffic in ("batch", "page", "control")]
    assert admitted == sorted(admitted)


def test_a_refusal_says_why() -> None:
    assert decide(7, 6.6, "page").reason == "overloaded: 7 requests are worked on, 7 page requests may be"


@settings(max_examples=25)
@given(st.floats(1e-2, 10), st.integers(0, 2**32))
def test_a_tracked_quantile_finds_its_place(start: float, seed: int) -> None:
    dice = random.Random(seed)
    quantile = start
    for _ in range(2000):
        quantile = moved(quantile, above=dice.random() > quantile, gain=0.05)
    assert 0.75 < quantile < 1.25
    assert SLOW == 0.05


@dataclass
class Service:
    """Requests at random times to a service of some threads, with a clock of its own.

    Args:
        rate: requests a second, by the time.
        takes: seconds that a thread needs, by the dice and the time.
    """

    rate: Callable[[float], float]
    takes: Callable[[random.Random, float], float]
    seconds: float
    threads: int = 2
    now: float = 0.0
    latencies: list[tuple[float, float]] = field(default_factory=list)
    shed: list[float] = field(default_factory=list)

    def run(self) -> Service:
        dice = random.Random(7)
        flights = Flights(0.02, clock=lambda: self.now)
        events: list[tuple[float, int, Flight | None, float]] = []
        count, due = 0, 0.0
        while (due := due + dice.expovariate(self.rate(due))) < self.seconds:
            heapq.heappush(events, (due, count, None, due))
            count += 1
        waiting: deque[tuple[Flight, float]] = deque()
        busy = 0
        while events:
            self.now, _, flight, asked = heapq.heappop(events)
            if flight is not None:
                busy -= 1
                flight.__exit__()
                self.latencies.append((asked, self.now - asked))
            elif flights.admit("page").admit:
                flight = Flight(flights)
                flight.begin()
                waiting.append((flight, self.now))
            else:
                self.shed.append(self.now)
            while waiting and busy < self.threads:
                busy += 1
                count += 1
                flight, asked = waiting.popleft()
                heapq.heappush(events, (self.now + self.takes(dice, self.now), count, flight, asked))
        assert flights.length == 0
        return self

    def p95(self, begin: float, end: float) -> float:
        found = sorted(latency for asked, latency in self.latencies if begin <= asked < end)
        return found[int(0.95 * len(found))]


TAKES: dict[str, tuple[Callable[[random.Random, float], float], float]] = {
    "10 ms": (lambda dice, now: 0.01, 200),
    "10 ms at random": (lambda dice, now: dice.expovariate(100), 200),
    "2 ms at random": (lambda dice, now: dice.expovariate(500), 1000),
    "40 ms at random": (lambda dice, now: dice.expovariate(25), 50),
}


@pytest.mark.parametrize("name", TAKES)
def test_five_times_what_it_can_do_costs_the_admitted_at_most_twice_the_time(name: str) -> None:
    takes, most = TAKES[name]
    service = Service(lambda now: 5 * most if 10 <= now < 30 else most / 2, takes, 40).run()
    in_overload = [asked for asked, _ in service.latencies if 10 <= asked < 30]
    assert service.p95(11, 30) <= max(0.021, 2 * service.p95(0, 10))
    assert len(in_overload) / 20 > 0.97 * most
    assert not [time for time in service.shed if time < 10]
    assert len([time for time in service.shed if time > 31]) < 0.05 * 9 * most / 2
    assert service.p95(31, 40) < 2 * service.p95(0, 10)


@pytest.mark.parametrize("load", [0.25, 0.5])
@pytest.mark.parametrize("name", TAKES)
def test_up_to_half_of_what_it_can_do_next_to_nothing_is_shed(name: str, load: float) -> None:
    takes, most = TAKES[name]
    service = Service(lambda now: load * most, takes, 60).run()
    assert len(service.shed) < 0.02 * load * most * 60


def test_a_model_that_hangs_for_a_while_has_few_shed() -> None:
    """The ladder answers late then; a slow answer alone is no overload."""
    service = Service(
        lambda now: 100, lambda dice, now: 0.15 if 10 < now < 11 else 0.01, 20, threads=32
    ).run()
    assert len(service.shed) < 0.02 * 100 * 20
    assert not [time for time in service.shed if time > 12]


def test_a_request_counts_from_its_beginning_to_its_end_however_it_ends() -> None:
    flights = Flights(0.02)

    def fail() -> None:
        with Flight(flights) as flight:
            assert flights.length == 0
            flight.begin()
            flight.begin()
            assert flights.length == 1
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    with Flight(flights):
        pass
    assert flights.length == 0


def test_every_traffic_has_its_share() -> None:
    assert set(SHARES) == set(get_args(Traffic))
