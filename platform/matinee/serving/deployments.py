"""The Ray Serve deployment of an ASGI application that a replica builds for itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

MAX_ONGOING_REQUESTS = 64
"""Requests a replica works on at a time; more wait in the proxy."""

AsgiApp = Callable[..., Any]
"""An ASGI application."""


def application(build: Callable[[], AsgiApp], *, replicas: int = 1) -> Any:
    """A Serve application whose replicas each hold one ASGI application, whole: no call leaves the replica.

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
        graceful_shutdown_timeout_s=5.0,
        logging_config=LoggingConfig(enable_access_log=False),
    )
    return deployment.bind(build)
