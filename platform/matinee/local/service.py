"""The platform as a service: `up` starts a detached process that holds every part, `down` ends it."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from matinee.config import Settings
from matinee.errors import InvalidInput, MatineeError, Unavailable
from matinee.local import running
from matinee.local.clients import Client
from matinee.local.cluster import connect
from matinee.local.platform import Platform, prepare_home

START_S = 180.0
STOP_S = 120.0
SCALE_S = 120.0


def start_detached(settings: Settings) -> dict[str, object]:
    """Start the service and wait until its API answers; what runs already is left as it is.

    Raises:
        MatineeError: it ended before it was up; the message has the last line of its log.
        Unavailable: it is not up within three minutes.
    """
    found = running.find(settings.paths)
    if found is None:
        prepare_home(settings)
        settings.paths.logs.mkdir(parents=True, exist_ok=True)
        log = settings.paths.logs / "service.log"
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
        with log.open("w") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "matinee.local.service"],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=environment,
                text=True,
            )
            assert process.stdin
            process.stdin.write(_dumped(settings))
            process.stdin.close()
        found = _wait_up(settings, process, log)
    return {"url": found.url, "kafka": found.bootstrap, "ray": found.ray_address, "pid": found.pid}


def stop_detached(settings: Settings) -> bool:
    """End what runs on the home and wait for it; False where nothing ran.

    Raises:
        Unavailable: it does not end within two minutes.
    """
    found = running.find(settings.paths)
    if found is None:
        return False
    os.kill(found.pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_S
    while time.monotonic() < deadline:
        if running.find(settings.paths) is None:
            return True
        time.sleep(0.1)
    raise Unavailable(f"process {found.pid} does not end; its log is {settings.paths.logs / 'service.log'}")


def status(settings: Settings) -> dict[str, Any]:
    """What runs on the home: addresses, whether the API is ready, and the stream's figures."""
    found = running.find(settings.paths)
    if found is None:
        return {"running": False, "home": str(settings.home)}
    report: dict[str, Any] = {
        "running": True,
        "home": str(settings.home),
        "pid": found.pid,
        "url": found.url,
        "kafka": found.bootstrap,
    }
    if found.url:
        with Client(found.url, settings.auth.token.get_secret_value()) as client:
            try:
                report |= _asked(client)
            except OSError as failure:
                report["api"] = str(failure)
    return report


def scale_stream(settings: Settings, workers: int) -> int:
    """Place the partitions of the running stream on so many workers; returns how many there are then.

    Raises:
        Unavailable: nothing runs on the home.
        InvalidInput: fewer than one worker.
    """
    if running.find(settings.paths) is None:
        raise Unavailable(f"nothing runs on data home {settings.home}; start it with `matinee up`")
    if workers < 1:
        raise InvalidInput(f"workers is {workers}; 1 or more are accepted")
    import ray

    from matinee.features import stream

    with connect(settings):
        supervisor = ray.get_actor(stream.NAME, namespace=stream.NAMESPACE)
        placed: int = ray.get(supervisor.rescale.remote(workers), timeout=SCALE_S)
        return placed


def _asked(client: Client) -> dict[str, Any]:
    code, answer = client.call("GET", "/readyz")
    status, text = client.call("GET", "/metrics")
    pipeline: object = f"GET /metrics answers {status}; auth.token must be of scope operator"
    if status == 200:
        gauges = (line.split() for line in text.splitlines() if _is_gauge(line))
        pipeline = {name: float(value) for name, value in gauges}
    return {"api": "ready" if code == 200 else answer, "pipeline": pipeline}


def _is_gauge(line: str) -> bool:
    return line.startswith("matinee_") and "{" not in line and not line.split()[0].endswith("_created")


def _dumped(settings: Settings) -> str:
    """Settings as JSON with the secrets in: it goes through a pipe, never to a command line or a file."""

    def plain(value: object) -> str:
        return value.get_secret_value() if isinstance(value, SecretStr) else str(value)

    return json.dumps(settings.model_dump(), default=plain)


def _wait_up(settings: Settings, process: subprocess.Popen[str], log: Path) -> running.Running:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        found = running.find(settings.paths)
        if found and found.url:
            return found
        if process.poll() is not None:
            lines = [line for line in log.read_text().splitlines() if line.strip()] or ["no output"]
            raise MatineeError(f"the service ended with {process.returncode}: {lines[-1]}")
        time.sleep(0.2)
    process.terminate()
    raise Unavailable(f"the service is not up after {START_S:.0f} s; its log is {log}")


def main() -> int:
    """Hold the platform until SIGTERM or SIGINT; settings come as JSON on standard input."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    settings = Settings.model_validate_json(sys.stdin.read())
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    try:
        with Platform(settings) as platform:
            platform.serve()
            ended.wait()
    except MatineeError as failure:
        print(failure)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
