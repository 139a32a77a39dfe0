"""The Ray Serve deployment of an ASGI application that a replica builds for itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

MAX_ONGOING_REQUESTS = 64
"""Requests a replica works on at a time; more wait in the proxy."""

AsgiApp = Callable[..., Any]
"""An ASGI application."""


KEEP_ALIVE_S = 300
"""How long an idle connection is kept: longer than clients do, so none is cut under a request."""

DRAIN_S = 5.0
"""How long requests under way may go on when a replica is stopped."""

HEALTH_S = 2.0
"""How often Serve asks a replica whether it listens."""


def application(build: Callable[[], AsgiApp], *, replicas: int = 1) -> Any:
    """A Serve application whose replicas each hold one ASGI application, whole, behind Serve's proxies.

    Args:
        build: makes the application inside the replica; must be picklable. The application's lifespan
            runs with the replica's.
        replicas: how many; each follows the splits by itself.
    """

    from ray import serve
    from ray.serve.schema import LoggingConfig

    class Api:
        def __init__(self, builder: Callable[[], AsgiApp]) -> None:
            self._build = builder

        def __serve_build_asgi_app__(self) -> AsgiApp:
            return self._build()

    deployment = serve.deployment(
        serve.ingress()(Api),
        name="Api",
        num_replicas=replicas,
        max_ongoing_requests=MAX_ONGOING_REQUESTS,
        ray_actor_options={"num_cpus": 0},
        graceful_shutdown_timeout_s=DRAIN_S,
        logging_config=LoggingConfig(enable_access_log=False),
    )
    return deployment.bind(build)


def listening(build: Callable[[], AsgiApp], host: str, port: int, *, replicas: int = 1) -> Any:
    """A Serve application whose replicas listen themselves, all on one address; Serve keeps them alive.

    A request reaches its replica without a hop. An update starts the new replicas beside the old ones.

    Args:
        build: as in `application`.
        host: an address of each node that replicas run on.
        port: not 0.
        replicas: how many; connections are dealt among those of a node.
    """

    from ray import serve
    from ray.serve.schema import LoggingConfig

    class Api:
        def __init__(self, builder: Callable[[], AsgiApp], address: str, number: int) -> None:
            from matinee.serving.listener import Listener

            self._listener = Listener(builder(), address, number, keep_alive_s=KEEP_ALIVE_S, drain_s=DRAIN_S)
            self._listener.start()

        def check_health(self) -> None:
            if not self._listener.alive:
                raise RuntimeError("the listener has ended")

        def __del__(self) -> None:
            self._listener.stop()

    deployment = serve.deployment(
        Api,
        name="Api",
        num_replicas=replicas,
        max_surge_percent=100,
        ray_actor_options={"num_cpus": 0},
        graceful_shutdown_timeout_s=2 * DRAIN_S,
        health_check_period_s=HEALTH_S,
        logging_config=LoggingConfig(enable_access_log=False),
    )
    return deployment.bind(build, host, port)
