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

KEEP_ALIVE_S = 300
"""How long the proxy keeps an idle connection: longer than clients do, so none is cut under a request."""

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

    Serve runs once on a cluster: where it already does, its address is kept, and an application of
    the same name is replaced.

    Args:
        settings: `serving.host` and `serving.port`; port 0 takes a free one.
        bootstrap: the Kafka broker's address.
        monitor: actor handle with `metrics`, whose text `/metrics` shows; or None.
        name: the Serve application's name; another than the default is served under /<name>.

    Raises:
        ConfigError: the port is in use, Serve already runs on another one, or the address is not loopback
            and there is no authentication.
    """
    from ray import serve
    from ray.serve.schema import LoggingConfig

    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    host = settings.serving.host
    auth.check(settings)
    address = _running_address()
    port = None if address is None else address[1]
    if port is None:
        port = available_port(host, settings.serving.port)
        serve.start(
            proxy_location="HeadOnly",
            http_options={"host": host, "port": port, "keep_alive_timeout_s": KEEP_ALIVE_S},
            logging_config=LoggingConfig(log_level="WARNING", enable_access_log=False),
        )
    elif settings.serving.port not in (0, port):
        raise ConfigError(
            f"serving.port is {settings.serving.port}, but this cluster already serves on port {port}; "
            f"use 0 or {port}"
        )
    prefix = "/" if name == APPLICATION else f"/{name}"
    serve.run(application(settings, bootstrap, monitor), name=name, route_prefix=prefix)
    shown = "127.0.0.1" if host in ("0.0.0.0", "") else host
    return f"http://{shown}:{port}{prefix.rstrip('/')}"


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


def _running_address() -> tuple[str, int] | None:
    """Where Serve listens on the connected cluster; None where it does not run."""
    import ray
    from ray.serve.context import _get_global_client

    if not ray.is_initialized():
        return None
    client = _get_global_client(raise_if_no_controller_running=False)
    return None if client is None else (str(client.http_config.host), int(client.http_config.port))
