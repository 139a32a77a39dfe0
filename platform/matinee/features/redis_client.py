"""A Redis client from a connection string, as Feast's Redis store reads it, without Feast."""

from __future__ import annotations

import json
from typing import Any


def redis_client(address: str, *, sentinel_master: str = "", timeout_s: float = 5.0) -> Any:
    """The client; it connects at its first command.

    Args:
        address: "host:port[,host:port...][,option=value...]"; options are those of redis.Redis.
        sentinel_master: name of the master; the addresses are then those of Redis Sentinel.
        timeout_s: longest wait for an answer, and for a connection.
    """
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    nodes, options = parse(address)
    options.setdefault("socket_timeout", timeout_s)
    options.setdefault("socket_connect_timeout", timeout_s)
    options.setdefault("retry", Retry(NoBackoff(), 1))
    if sentinel_master:
        sentinel: Any = redis.Sentinel(nodes, **options)  # type: ignore[no-untyped-call]
        return sentinel.master_for(sentinel_master)
    host, port = nodes[0]
    return redis.Redis(host=host, port=port, **options)


def parse(address: str) -> tuple[list[tuple[str, int]], dict[str, Any]]:
    """Hosts with ports, and options; option values are JSON where they can be, else text."""
    nodes: list[tuple[str, int]] = []
    options: dict[str, Any] = {}
    for part in address.split(","):
        name, assigned, value = part.partition("=")
        if assigned:
            options[name] = _value(value)
        else:
            host, _, port = part.rpartition(":")
            nodes.append((host, int(port)))
    return nodes, options


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text
