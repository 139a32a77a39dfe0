"""Every part of Matinee on one machine: started in order, stopped in reverse, nothing accepted lost."""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

from matinee.config import Settings
from matinee.errors import MatineeError, StorageError
from matinee.local import running
from matinee.local.cluster import connect
from matinee.local.running import Running

LEAST_FREE_BYTES = 64 << 20
"""A home with less room cannot hold one run."""

logger = logging.getLogger(__name__)


class Platform:
    """The running parts. Use as a context manager: what was started ends with the block.

    Attributes:
        bootstrap: the Kafka broker's address.
        stream: handle of the streaming features' supervisor.
        monitor: handle of the monitor, once `serve` was called; `rollouts`: of the rollouts' controller.
        url: the API's address, once `serve` was called.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.bootstrap = ""
        self.stream: Any = None
        self.monitor: Any = None
        self.rollouts: Any = None
        self.url = ""
        self.ray_address = ""
        self._stack = ExitStack()

    def __enter__(self) -> Platform:
        """Lock the home, then start broker, Ray and the streaming features.

        Raises:
            ConfigError: the API would be open to other machines without authentication.
            MatineeError: another process runs on the home, or the API's port is in use.
            StorageError: the home cannot be written.
            Unavailable: the named broker or cluster does not answer.
        """
        with self._stack:
            self._start()
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *failure: object) -> None:
        self._stack.close()

    def serve(self) -> str:
        """Start the monitor, the rollouts' controller and the API; returns the API's address."""
        import ray

        from matinee.canary import rollout
        from matinee.gateway import deployment
        from matinee.monitoring import monitor

        self.monitor = monitor.start(self.settings, self.bootstrap, self.stream)
        self._stack.callback(_quietly, lambda: ray.get(self.monitor.stop.remote(), timeout=30))
        self.rollouts = rollout.start(self.settings, self.bootstrap)
        self._stack.callback(_quietly, lambda: ray.get(self.rollouts.stop.remote(), timeout=30))
        self.url = deployment.start(self.settings, self.bootstrap, monitor=self.monitor)
        own = not self.settings.ray_address
        self._stack.callback(_quietly, lambda: deployment.stop(cluster_ends=own))
        running.publish(self.settings.paths, self.running)
        return self.url

    @property
    def running(self) -> Running:
        """The addresses of what runs now."""
        return Running(pid=os.getpid(), bootstrap=self.bootstrap, ray_address=self.ray_address, url=self.url)

    def _start(self) -> None:
        from matinee.gateway import auth
        from matinee.gateway.deployment import available_port

        auth.check(self.settings)
        prepare_home(self.settings)
        available_port(self.settings.serving.host, self.settings.serving.port)
        self._stack.enter_context(_locked(self.settings.paths.run / "lock"))
        self.ray_address = self._stack.enter_context(connect(self.settings))
        self.bootstrap = self.settings.kafka.bootstrap_servers or self._start_broker()
        import ray

        from matinee.events.kafka import ensure_topics
        from matinee.features import stream

        ensure_topics(self.settings.kafka, self.bootstrap)
        self.stream = stream.start(self.settings, self.bootstrap)
        self._stack.callback(_quietly, lambda: ray.get(self.stream.stop.remote(), timeout=60))
        running.publish(self.settings.paths, self.running)
        self._stack.callback(running.withdraw, self.settings.paths)

    def _start_broker(self) -> str:
        from matinee.events.broker import LocalBroker

        self.settings.paths.logs.mkdir(parents=True, exist_ok=True)
        broker = LocalBroker(self.settings.paths.logs / "broker.log")
        bootstrap = broker.start()
        self._stack.callback(broker.stop)
        return bootstrap


def prepare_home(settings: Settings) -> None:
    """Make the home and check that it can be written.

    Raises:
        StorageError: it cannot be made or written, or has no room left.
    """
    home = settings.home
    try:
        settings.paths.run.mkdir(parents=True, exist_ok=True)
        free = os.statvfs(home).f_bavail * os.statvfs(home).f_frsize
    except OSError as failure:
        raise StorageError(f"data home {home}: {failure.strerror}; name another with --home") from None
    if free < LEAST_FREE_BYTES:
        raise StorageError(
            f"data home {home}: {free >> 20} MiB free, at least {LEAST_FREE_BYTES >> 20} MiB are needed"
        )


@contextmanager
def joined(settings: Settings) -> Iterator[Running]:
    """What runs on this home, with Ray connected; where nothing does, it runs for the time of the block."""
    if found := running.find(settings.paths):
        with connect(settings):
            yield found
    else:
        with Platform(settings) as platform:
            yield platform.running


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise MatineeError(
                f"data home {path.parent.parent} is in use by process {_owner(file)}; "
                "stop it with `matinee down` or name another with --home"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def _owner(file: IO[str]) -> str:
    file.seek(0)
    return file.read() or "unknown"


def _quietly(stop: Callable[[], object]) -> None:
    """Stop a part; one that is already gone must not keep the others from stopping."""
    try:
        stop()
    except Exception:
        logger.warning("a part did not stop cleanly", exc_info=True)
