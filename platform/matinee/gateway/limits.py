"""Rate limits by principal and route, counted in memory or, by several replicas together, in Redis."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from typing import Any, get_args

from limits import RateLimitItem, parse_many
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import MovingWindowRateLimiter

from matinee.config import Gateway
from matinee.errors import ConfigError
from matinee.gateway.principal import Kind, Principal

STORE_TIMEOUT_S = 0.2
STORE_RETRY_S = 5.0
"""After the store failed, each replica counts in its memory for so long."""

logger = logging.getLogger(__name__)


class Limits:
    """The limits of a replica. A moving window: at no moment more than N requests in the last interval.

    Args:
        gateway: `rates` and `rate_store`.

    Raises:
        ConfigError: a rate that cannot be read, or of no kind of caller.
    """

    def __init__(self, gateway: Gateway) -> None:
        self._rates = {name: _rate(name, text) for name, text in gateway.rates.items()}
        self._memory = MovingWindowRateLimiter(MemoryStorage())
        self._store: MovingWindowRateLimiter | None = None
        self._store_from = 0.0
        if url := gateway.rate_store:
            from limits.aio.storage import RedisStorage
            from redis.asyncio import ConnectionPool

            self._connections = ConnectionPool.from_url(
                url, socket_timeout=STORE_TIMEOUT_S, socket_connect_timeout=STORE_TIMEOUT_S
            )
            options: dict[str, Any] = {"implementation": "redispy", "connection_pool": self._connections}
            storage = RedisStorage(f"async+{url}", **options)
            self._store = MovingWindowRateLimiter(storage)

    async def wait(self, principal: Principal, route: str) -> float:
        """Count a request: 0 where it may go on, else the seconds until one may.

        Args:
            route: method and template, "GET /v1/titles/{title_id}/features".
        """
        if not self._rates:
            return 0.0
        rates = self._rates.get(f"{principal.kind} {route}") or self._rates.get(principal.kind)
        if not rates:
            return 0.0
        if self._store is not None and time.monotonic() >= self._store_from:
            try:
                async with asyncio.timeout(2 * STORE_TIMEOUT_S):
                    return await _wait(self._store, rates, principal, route)
            except Exception as failure:
                self._store_from = time.monotonic() + STORE_RETRY_S
                logger.warning("rates are counted in memory: %s: %s", type(failure).__name__, failure)
        return await _wait(self._memory, rates, principal, route)

    async def close(self) -> None:
        """Release the connections."""
        if self._store is not None:
            await self._connections.disconnect()


async def _wait(
    counter: MovingWindowRateLimiter, rates: list[RateLimitItem], principal: Principal, route: str
) -> float:
    for rate in rates:
        if not await counter.hit(rate, principal.kind, principal.id, route):
            window = await counter.get_window_stats(rate, principal.kind, principal.id, route)
            return max(window.reset_time - time.time(), 0.001)
    return 0.0


def check_rates(rates: Mapping[str, str]) -> None:
    """Refuse rates that mean nothing.

    Raises:
        ConfigError: one of them cannot be read, or is of no kind of caller.
    """
    for name, text in rates.items():
        _rate(name, text)


def _rate(name: str, text: str) -> list[RateLimitItem]:
    kinds = get_args(Kind)
    if name.partition(" ")[0] not in kinds:
        raise ConfigError(
            f"gateway.rates names {name!r}; accepted: {', '.join(kinds)}, alone or with a route"
        )
    try:
        return parse_many(text)
    except ValueError:
        raise ConfigError(f"gateway.rates of {name!r} is {text!r}; accepted: such as 30/second") from None
