"""What is shed, and that what is admitted is served soon."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matinee.gateway.shedding import BURST, PATIENCE, STANDING, Flight, Flights, Queue, Traffic, decide

MOST_S = 0.02
queues = st.builds(Queue, length=st.integers(0, 500), standing=st.floats(0, 1), pace_s=st.floats(0, 10))


@given(queues, st.sampled_from(get_args(Traffic)))
def test_an_empty_queue_and_control_are_always_admitted(queue: Queue, traffic: Traffic) -> None:
    decision = decide(queue, traffic, MOST_S)
    assert decision.admit or (queue.length and traffic != "control")
    assert decision.admit == (not decision.reason)


@given(queues)
def test_the_more_urgent_is_admitted_where_the_less_urgent_is(queue: Queue) -> None:
    admitted = [decide(queue, traffic, MOST_S).admit for traffic in ("batch", "page", "event", "control")]
    assert admitted == sorted(admitted)


@given(queues, st.integers(1, 100))
def test_a_longer_queue_is_never_better(queue: Queue, more: int) -> None:
    longer = replace(queue, length=queue.length + more)
    assert decide(queue, "page", MOST_S).admit or not decide(longer, "page", MOST_S).admit


def test_a_burst_passes_where_a_standing_queue_does_not() -> None:
    def queue(standing: float) -> Queue:
        return Queue(length=10, standing=standing, pace_s=0.005)

    assert decide(queue(STANDING / 2), "page", MOST_S).admit
    refused = decide(queue(STANDING), "page", MOST_S)
    assert refused.reason == "overloaded: page work would wait 50 ms, at most 20 ms are accepted"


async def _load(
    flights: Flights, threads: ThreadPoolExecutor, *, work_s: float, every_s: float, for_s: float
) -> tuple[list[float], int]:
    """Ask at a steady pace, whatever becomes of it: latencies of what is admitted, and how many were shed."""
    latencies: list[float] = []
    shed = 0

    async def one() -> None:
        nonlocal shed
        start = time.perf_counter()
        if flights.admit("page", MOST_S).admit:
            with Flight(flights) as flight:
                flight.begin()
                await asyncio.get_running_loop().run_in_executor(threads, time.sleep, work_s)
            latencies.append(time.perf_counter() - start)
        else:
            shed += 1

    start = time.perf_counter()
    tasks = []
    while (elapsed := time.perf_counter() - start) < for_s:
        while len(tasks) < elapsed / every_s:
            tasks.append(asyncio.create_task(one()))
        await asyncio.sleep(every_s / 4)
    await asyncio.gather(*tasks)
    return latencies, shed


def p95(latencies: list[float]) -> float:
    return sorted(latencies)[int(0.95 * len(latencies))]


def test_at_five_times_what_the_threads_can_do_the_admitted_wait_no_longer_than_promised() -> None:
    async def run() -> None:
        flights, work_s = Flights(), 0.01
        with ThreadPoolExecutor(2) as threads:
            calm, none = await _load(flights, threads, work_s=work_s, every_s=work_s, for_s=0.3)
            hot, shed = await _load(flights, threads, work_s=work_s, every_s=work_s / 10, for_s=1.2)
        assert none == 0
        assert shed > len(hot)
        assert len(hot) > 0.5 * 2 * 1.2 / work_s
        settled = hot[len(hot) // 3 :]
        assert p95(settled) < p95(calm) + 4 * MOST_S

    asyncio.run(run())


def test_the_pace_is_that_of_answers_and_idle_time_does_not_count() -> None:
    async def run() -> None:
        flights = Flights()
        with ThreadPoolExecutor(4) as threads:
            for _ in range(3):
                await _load(flights, threads, work_s=0.02, every_s=0.005, for_s=0.3)
                await asyncio.sleep(0.2)
        assert flights.queue().length == 0
        assert 0.003 < flights.queue().pace_s < 0.012

    asyncio.run(run())


def test_a_request_counts_from_its_beginning_to_its_end_however_it_ends() -> None:
    flights = Flights()

    def fail() -> None:
        with Flight(flights) as flight:
            assert flights.queue().length == 0
            flight.begin()
            flight.begin()
            assert flights.queue().length == 1
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    with Flight(flights):
        pass
    assert flights.queue().length == 0


def test_every_traffic_has_its_patience() -> None:
    assert set(PATIENCE) == set(get_args(Traffic))
    assert BURST > 1
