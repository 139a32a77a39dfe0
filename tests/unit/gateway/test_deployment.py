"""Ports, before anything listens on them."""

from __future__ import annotations

import socket

import pytest

from matinee.errors import ConfigError
from matinee.gateway.deployment import available_port


def test_port_zero_is_a_free_one() -> None:
    port = available_port("127.0.0.1", 0)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", port))


def test_a_port_in_use_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"serving.port is {port}.*in use.*0 for a free one"):
            available_port("127.0.0.1", port)


def test_an_address_that_is_not_ours_is_named() -> None:
    with pytest.raises(ConfigError, match=r"192\.0\.2\.1"):
        available_port("192.0.2.1", 0)
