"""A copy that follows its source, and stands in for it for a while."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from matinee.errors import Unavailable
from matinee.gateway.refreshed import Refreshed


class Source:
    """Counts its reads; fails where told."""

    def __init__(self) -> None:
        self.reads = 0
        self.fails = False

    def read(self) -> int:
        self.reads += 1
        if self.fails:
            raise OSError("gone")
        return self.reads


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def copy(source: Source) -> Iterator[Any]:
    made: list[Refreshed[int]] = []

    def make(**times: float) -> Refreshed[int]:
        made.append(
            Refreshed(source.read, name="it", **({"refresh_s": 9, "retry_s": 0.1, "stale_s": 9} | times))
        )
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_many_who_come_first_wait_for_one_read(copy: Any, source: Source) -> None:
    async def run() -> list[int]:
        value = copy()
        return await asyncio.gather(*(value.get() for _ in range(50)))

    assert asyncio.run(run()) == [1] * 50
    assert source.reads == 1


def test_an_old_value_serves_while_it_is_read_again(source: Source) -> None:
    entered, go = threading.Event(), threading.Event()

    def slow() -> int:
        if source.reads:
            entered.set()
            go.wait(5)
        return source.read()

    async def run() -> list[int]:
        value = Refreshed(slow, name="it", refresh_s=0.01, retry_s=0.01, stale_s=9)
        first = await value.get()
        await asyncio.sleep(0.05)
        second = await value.get()
        await asyncio.to_thread(entered.wait, 5)
        go.set()
        while (third := await value.get()) == second:
            await asyncio.sleep(0.01)
        value.close()
        return [first, second, third]

    assert asyncio.run(run())[:2] == [1, 1]


def test_asking_for_a_newer_one_is_limited(copy: Any, source: Source) -> None:
    async def run() -> int:
        value = copy(retry_s=1.0)
        await value.get()
        for _ in range(100):
            await value.newer()
        early = source.reads
        await asyncio.sleep(1.05)
        await asyncio.gather(*(value.newer() for _ in range(100)))
        return early

    assert asyncio.run(run()) == 1
    assert source.reads == 2


def test_the_last_value_serves_until_it_is_stale(copy: Any, source: Source) -> None:
    async def run() -> None:
        value = copy(refresh_s=0.01, retry_s=0.01, stale_s=0.5)
        held = await value.get()
        source.fails = True
        end = time.monotonic() + 0.3
        while time.monotonic() < end:
            assert await value.get() == held
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.4)
        with pytest.raises(Unavailable, match="it cannot be read"):
            await value.get()
        source.fails = False
        await asyncio.sleep(0.05)
        assert await value.get() > held

    asyncio.run(run())


def test_without_any_value_it_is_unavailable(copy: Any, source: Source) -> None:
    source.fails = True
    with pytest.raises(Unavailable) as raised:
        asyncio.run(copy(retry_s=7).get())
    assert raised.value.retry_after_s == 7
