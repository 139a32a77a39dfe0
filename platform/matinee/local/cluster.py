"""The Ray cluster a process works on: a named one, the one its job runs on, or one of its own."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from matinee.config import Settings
from matinee.errors import Unavailable
from matinee.local import running

NAMESPACE = "matinee"
OBJECT_STORE_BYTES = 512 << 20


@contextmanager
def connect(settings: Settings) -> Iterator[str]:
    """Connect to Ray for the time of the block and leave it afterwards; yields the cluster's GCS address.

    `settings.ray_address` names a cluster; inside a submitted job the job's own cluster is joined; where
    a platform runs on the home, its cluster is; otherwise one starts here and ends with the block, with
    token authentication because Ray listens beyond loopback.

    Raises:
        Unavailable: the named cluster does not answer.
    """
    address = settings.ray_address or ("auto" if "RAY_ADDRESS" in os.environ else "")
    if not address:
        _require_token(settings)
        found = running.find(settings.paths)
        address = found.ray_address if found else ""
    import ray

    options = {"namespace": NAMESPACE, "log_to_driver": False, "logging_level": "ERROR"}
    if address:
        try:
            context = ray.init(address=address, **options)
        except ConnectionError as failure:
            raise Unavailable(f"Ray cluster {address}: {failure}") from None
    else:
        context = ray.init(
            address="local", include_dashboard=False, object_store_memory=OBJECT_STORE_BYTES, **options
        )
    try:
        yield context.address_info["gcs_address"]
    finally:
        ray.shutdown()


def free_port() -> int:
    """A loopback port that nothing listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _require_token(settings: Settings) -> None:
    """Turn on Ray's token authentication with a token of this home.

    Ray reads the mode once, at import, which may be long past: it is told to read it again.
    """
    token = settings.paths.run / "ray.token"
    if not token.exists():
        token.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(token, os.O_WRONLY | os.O_CREAT, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(32))
    os.environ["RAY_AUTH_MODE"] = "token"
    os.environ["RAY_AUTH_TOKEN_PATH"] = str(token)
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault(
        "FORWARDED_ALLOW_IPS", ""
    )  # Serve's proxy would take callers' word for who they are
    from ray._raylet import Config

    Config.initialize("")
