"""An ASGI application served from inside its process: no proxy stands between the socket and it.

Several listeners may share an address: the kernel deals new connections among those that listen.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import uvicorn

from matinee.errors import Unavailable

BACKLOG = 2_048
START_S = 120.0
"""Longest time that an application may take to start."""
LOOK_S = 0.02
"""How often its start is looked for."""

logger = logging.getLogger(__name__)


class Listener:
    """Serves an application on a thread of its own, from `start` to `stop`.

    Args:
        app: its lifespan begins with `start`; it takes requests once that is over.
        host: an address of this machine.
        port: may be listened on by other listeners already.
        keep_alive_s: how long an idle connection is kept.
        drain_s: how long requests may go on after `stop`.
    """

    def __init__(
        self, app: Callable[..., Any], host: str, port: int, *, keep_alive_s: int, drain_s: float
    ) -> None:
        self._address = (host, port)
        config = uvicorn.Config(
            app,
            lifespan="on",
            access_log=False,
            log_config=None,
            server_header=False,
            proxy_headers=False,
            backlog=BACKLOG,
            timeout_keep_alive=keep_alive_s,
            timeout_graceful_shutdown=int(drain_s),
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._run, name="listener", daemon=True)

    @property
    def alive(self) -> bool:
        """Whether it takes requests."""
        return self._thread.is_alive() and self._server.started and not self._server.should_exit

    def start(self) -> None:
        """Return once requests are taken.

        Raises:
            Unavailable: the application did not start.
            OSError: the address cannot be bound.
        """
        self._socket = shared_socket(*self._address)
        self._thread.start()
        deadline = time.monotonic() + START_S
        while not self._server.started and self._thread.is_alive() and time.monotonic() < deadline:
            time.sleep(LOOK_S)
        if not self.alive:
            raise Unavailable(f"the API on {self._address[0]}:{self._address[1]} did not start")

    def stop(self) -> None:
        """Take no more connections, let requests under way end, then the application's lifespan."""
        self._server.should_exit = True
        self._thread.join()

    def _run(self) -> None:
        with self._socket:
            try:
                self._server.run(sockets=[self._socket])
            except SystemExit:  # how uvicorn says that the application's start failed
                logger.exception("the application did not start")


def shared_socket(host: str, port: int) -> socket.socket:
    """A socket bound to an address that other processes of this user may listen on as well."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    bound.bind((host, port))
    return bound
