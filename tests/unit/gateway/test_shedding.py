"""What is shed, and that what is admitted is served soon."""

from __future__ import annotations

import asyncio
import time
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matinee.gateway.shedding import BURST, PATIENCE, STANDING, Pool, Queue, Traffic, decide

MOST_S = 0.02
seconds = st.floats(0, 10)
queues = st.builds(
    Queue,
    length=st.integers(0, 500),
    oldest_s=seconds,
    standing=st.floats(0, 1),
    run_s=seconds,
    threads=st.integers(1, 16),
)


@given(queues, st.sampled_from(get_args(Traffic)))
def test_an_empty_queue_and_control_are_always_admitted(queue: Queue, traffic: Traffic) -> None:
    decision = decide(queue, traffic, MOST_S)
    assert decision.admit or (queue.length and traffic != "control")
    assert decision.admit == (not decision.reason)


@given(queues)
def test_the_more_urgent_is_admitted_where_the_less_urgent_is(queue: Queue) -> None:
    admitted = [decide(queue, traffic, MOST_S).admit for traffic in ("batch", "page", "event", "control")]
    assert admitted == sorted(admitted)


@given(queues, st.integers(1, 100), seconds)
def test_a_longer_queue_is_never_better(queue: Queue, more: int, older: float) -> None:
    longer = Queue(
        length=queue.length + more,
        oldest_s=queue.oldest_s + older,
        standing=queue.standing,
        run_s=queue.run_s,
        threads=queue.threads,
    )
    assert decide(queue, "page", MOST_S).admit or not decide(longer, "page", MOST_S).admit


def test_a_burst_passes_where_a_standing_queue_does_not() -> None:
    def queue(standing: float) -> Queue:
        return Queue(length=10, oldest_s=0.0, standing=standing, run_s=0.01, threads=2)

    assert decide(queue(STANDING / 2), "page", MOST_S).admit
    refused = decide(queue(STANDING), "page", MOST_S)
    assert refused.reason == "overloaded: page work would wait 50 ms, at most 20 ms are accepted"


async def _load(pool: Pool, *, work_s: float, every_s: float, for_s: float) -> tuple[list[float], int]:
    """Ask at a steady pace, whatever becomes of it: latencies of what is admitted, and how many were shed."""
    latencies: list[float] = []
    shed = 0

    async def one() -> None:
        nonlocal shed
        start = time.perf_counter()
        if pool.admit("page", MOST_S).admit:
            await pool.run(lambda: time.sleep(work_s))
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
        pool = Pool(2, "test")
        work_s = 0.01
        calm, none = await _load(pool, work_s=work_s, every_s=work_s, for_s=0.3)
        hot, shed = await _load(pool, work_s=work_s, every_s=work_s / 10, for_s=1.2)
        pool.shutdown()
        assert none == 0
        assert shed > len(hot)
        assert len(hot) > 0.5 * 2 * 1.2 / work_s
        settled = hot[len(hot) // 3 :]
        assert p95(settled) < p95(calm) + 4 * MOST_S

    asyncio.run(run())


def test_work_that_is_given_up_leaves_the_queue() -> None:
    async def run() -> None:
        pool = Pool(1, "test")
        first = asyncio.create_task(pool.run(lambda: time.sleep(0.2)))
        await asyncio.sleep(0.02)
        waiting = [asyncio.create_task(pool.run(int)) for _ in range(5)]
        await asyncio.sleep(0.02)
        assert pool.queue().length == 5
        for task in waiting:
            task.cancel()
        await asyncio.sleep(0)
        assert pool.queue().length == 0
        await first
        assert await pool.run(lambda: 7) == 7
        with pytest.raises(ZeroDivisionError):
            await pool.run(lambda: 1 // 0)
        assert pool.queue().run_s > 0
        pool.shutdown()

    asyncio.run(run())


def test_every_traffic_has_its_patience() -> None:
    assert set(PATIENCE) == set(get_args(Traffic))
    assert BURST > 1
