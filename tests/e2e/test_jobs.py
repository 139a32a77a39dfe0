"""Jobs run by `python` and by `ray job submit`, and both register the same model."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import lake_home
import psutil
import pytest
from commands import ENVIRONMENT, ROOT, job

from matinee.config import load_settings
from matinee.local.cluster import free_port

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

RAY = Path(sys.executable).with_name("ray")


class Head:
    """A `ray start --head` cluster of its own, with its own token; ends with its own process."""

    def __init__(self, folder: Path) -> None:
        token = folder / "token"
        token.write_text("0123456789abcdef" * 4)
        token.chmod(0o600)
        self.environment = ENVIRONMENT | {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        self.dashboard = free_port()
        ports = {
            "--port": free_port(),
            "--dashboard-port": self.dashboard,
            "--dashboard-agent-listen-port": free_port(),
            "--ray-client-server-port": free_port(),
        }
        command = [RAY, "start", "--head", "--block", "--num-cpus=2", "--object-store-memory=200000000"]
        command += [f"{name}={port}" for name, port in ports.items()]
        self._log = (folder / "head.log").open("w")
        self.process = subprocess.Popen(
            command,
            env=self.environment,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
        )

    def submit(self, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`ray job submit ... -- python jobs/NAME.py`, waiting for its end."""
        runtime = {
            "py_modules": ["platform/matinee"],
            "excludes": [".venv", ".git", ".matinee", "tests", "*.egg-info"],
        }
        command = [RAY, "job", "submit", "--address", f"http://127.0.0.1:{self.dashboard}"]
        command += ["--working-dir", ".", "--runtime-env-json", json.dumps(runtime), "--"]
        command += [sys.executable, f"jobs/{name}.py", *arguments]
        return subprocess.run(
            command, env=self.environment, cwd=ROOT, capture_output=True, text=True, timeout=400
        )

    def wait(self) -> None:
        """Return when a job has run: the dashboard answers some seconds before jobs are taken."""
        deadline = time.monotonic() + 60
        address = f"http://127.0.0.1:{self.dashboard}"
        command = [RAY, "job", "submit", "--address", address, "--", "true"]
        while subprocess.run(command, env=self.environment, capture_output=True).returncode:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{address} takes no jobs")
            time.sleep(0.5)

    def stop(self) -> None:
        """End it, and by pid what it started and did not end itself; all are gone then."""
        started = psutil.Process(self.process.pid).children(recursive=True)
        self.process.terminate()
        _, left = psutil.wait_procs([psutil.Process(self.process.pid), *started], timeout=10)
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait()
        self._log.close()


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    started = Head(tmp_path_factory.mktemp("head"))
    try:
        started.wait()
        yield started
    finally:
        started.stop()


def last_json(text: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads([line for line in text.splitlines() if line.startswith("{")][-1])
    return found


def test_training_as_a_ray_job_registers_the_same_model(tmp_path: Path, head: Head) -> None:
    home = tmp_path / "home"
    lake_home.make(load_settings({"home": str(home)}, environment={}))
    built = head.submit("build_features", "--home", str(home), "--no-compare", "--json")
    assert built.returncode == 0, built.stdout[-3000:]
    submitted = head.submit("train", "--home", str(home), "--preset", "test", "--json")
    assert submitted.returncode == 0, submitted.stdout[-3000:]
    here = job(home, "train", "--preset", "test", "--json")
    assert here.returncode == 0, here.stderr[-3000:]
    there_figures, here_figures = last_json(submitted.stdout), last_json(here.stdout)
    assert there_figures["weights_digest"] == here_figures["weights_digest"]
    assert there_figures["models"] == here_figures["models"]
    assert int(here_figures["version"]["version"]) == int(there_figures["version"]["version"]) + 1


def test_a_job_that_cannot_do_its_work_says_why_in_one_line(tmp_path: Path) -> None:
    failed = job(tmp_path / "empty", "train", "--json")
    assert failed.returncode == 2
    assert len(failed.stderr.strip().splitlines()) == 1
    assert str(tmp_path / "empty") in failed.stderr
