"""The API on Ray Serve: started and stopped."""

from __future__ import annotations

import logging
import socket
from functools import partial
from typing import Any

from matinee.config import Settings
from matinee.errors import ConfigError
from matinee.gateway import auth
from matinee.gateway.assembly import assemble
from matinee.serving import deployments

APPLICATION = "matinee"
"""Name of the Serve application."""

NAMESPACE = "matinee"
MONITOR = "monitor"

logger = logging.getLogger(__name__)


def application(settings: Settings, bootstrap: str, monitor: Any = None, *, replicas: int = 1) -> Any:
    """The Serve application, bound.

    Raises:
        ConfigError: it would be served on another address than loopback without authentication.
    """
    auth.check(settings)
    if (address := _running_address()) is not None:
        auth.check(settings, address[0])
    return deployments.application(partial(assemble, settings, bootstrap, monitor), replicas=replicas)


def start(settings: Settings, bootstrap: str, *, monitor: Any = None, name: str = APPLICATION) -> str:
    """Run the API on the connected Ray cluster; returns its address once it answers.

    Replicas listen themselves. An application of the same name is replaced: where it has the same port,
    without a moment in which nobody listens.

    Args:
        settings: `serving.host`, `serving.port` and `serving.replicas`; port 0 takes a free one.
        bootstrap: the Kafka broker's address.
        monitor: actor handle with `metrics`, whose text `/metrics` shows; or None.
        name: the Serve application's name.

    Raises:
        ConfigError: the port is in use, or the address is not loopback and there is no authentication.
    """
    from ray import serve
    from ray.serve.schema import LoggingConfig

    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    auth.check(settings)
    if not _runs():
        serve.start(
            proxy_location="Disabled",
            logging_config=LoggingConfig(log_level="WARNING", enable_access_log=False),
        )
    host, port = settings.serving.host, settings.serving.port
    if not port or name not in serve.status().applications:
        port = available_port(host, port)
    api = deployments.listening(
        partial(assemble, settings, bootstrap, monitor), host, port, replicas=settings.serving.replicas
    )
    serve.run(api, name=name, route_prefix=None)
    shown = "127.0.0.1" if host in ("0.0.0.0", "") else host
    return f"http://{shown}:{port}"


def stop(name: str = APPLICATION, *, cluster_ends: bool = False) -> None:
    """End the API, and Serve with its last application; Serve is left to a cluster that ends itself."""
    from ray import serve

    serve.delete(name)
    if not cluster_ends and not serve.status().applications:
        serve.shutdown()


def available_port(host: str, port: int) -> int:
    """`port`, or a free one where it is 0.

    Raises:
        ConfigError: the port is in use or the address cannot be bound.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen()
        except OSError as failure:
            raise ConfigError(
                f"serving.port is {port}: {host}:{port} cannot be listened on ({failure.strerror}); "
                "name another, or 0 for a free one"
            ) from None
        return int(probe.getsockname()[1])


def named_monitor() -> Any:
    """The monitor that runs on the connected cluster, or None."""
    import ray

    try:
        return ray.get_actor(MONITOR, namespace=NAMESPACE)
    except ValueError:
        return None


def _runs() -> bool:
    from ray.serve.context import _get_global_client

    return _get_global_client(raise_if_no_controller_running=False) is not None


def _running_address() -> tuple[str, int] | None:
    """Where Serve listens on the connected cluster; None where it does not run."""
    import ray
    from ray.serve.context import _get_global_client

    if not ray.is_initialized():
        return None
    client = _get_global_client(raise_if_no_controller_running=False)
    return None if client is None else (str(client.http_config.host), int(client.http_config.port))
