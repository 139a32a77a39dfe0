"""A Redis of the test's own, on loopback, which keeps nothing."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from benchmarks import online_home

needs_redis = pytest.mark.skipif(
    shutil.which("redis-server") is None, reason="no redis-server on this machine"
)


@contextmanager
def running(folder: Path) -> Iterator[int]:
    """Run a server; yields its port."""
    with online_home.redis_server(folder) as server:
        assert server is not None
        yield server.port
