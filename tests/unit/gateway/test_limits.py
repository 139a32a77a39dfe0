"""Rates by principal and route, in memory and in Redis."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import redis_server
from hypothesis import given, settings
from hypothesis import strategies as st

from matinee.config import Gateway
from matinee.errors import ConfigError
from matinee.gateway.limits import Limits
from matinee.gateway.principal import Principal

ANA = Principal(kind="member", id="ana")
BO = Principal(kind="member", id="bo")
JOB = Principal(kind="service", id="ana")


async def admitted(limits: Limits, who: Principal, route: str, times: int) -> int:
    return sum([await limits.wait(who, route) == 0 for _ in range(times)])


@settings(max_examples=30)
@given(st.integers(1, 20), st.integers(0, 40))
def test_no_more_than_the_rate_passes(rate: int, asked: int) -> None:
    limits = Limits(Gateway(rates={"member": f"{rate}/minute"}))
    assert asyncio.run(admitted(limits, ANA, "GET /a", asked)) == min(rate, asked)


def test_each_principal_and_route_counts_alone() -> None:
    async def run() -> list[int]:
        limits = Limits(Gateway(rates={"member": "2/minute", "member GET /b": "1/minute"}))
        pairs = [(ANA, "GET /a"), (BO, "GET /a"), (ANA, "GET /b"), (JOB, "GET /a")]
        return [await admitted(limits, who, route, 5) for who, route in pairs]

    assert asyncio.run(run()) == [2, 2, 1, 5]


def test_the_wait_is_told_and_enough() -> None:
    async def run() -> tuple[float, float]:
        limits = Limits(Gateway(rates={"member": "1/second"}))
        await limits.wait(ANA, "GET /a")
        wait = await limits.wait(ANA, "GET /a")
        await asyncio.sleep(wait + 0.05)
        return wait, await limits.wait(ANA, "GET /a")

    wait, after = asyncio.run(run())
    assert 0 < wait <= 1
    assert after == 0


@pytest.mark.parametrize("rates", [{"member": "many"}, {"root": "1/second"}, {"GET /a": "1/second"}])
def test_a_rate_that_means_nothing_is_an_error(rates: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"gateway\.rates"):
        Limits(Gateway(rates=rates))


@redis_server.needs_redis
def test_replicas_count_together_and_alone_while_the_store_is_gone(tmp_path: Path) -> None:
    async def run(port: int) -> list[int]:
        gateway = Gateway(rates={"member": "5/minute"}, rate_store=f"redis://127.0.0.1:{port}/0")
        replicas = [Limits(gateway), Limits(gateway)]
        found = [await admitted(replica, ANA, "GET /a", 4) for replica in replicas]
        for replica in replicas:
            await replica.close()
        return found

    with redis_server.running(tmp_path) as port:
        assert asyncio.run(run(port)) == [4, 1]
    assert asyncio.run(run(port)) == [4, 4]
