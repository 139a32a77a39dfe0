"""One demo for every end-to-end test: interrupted while it trains, then run again to its end."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from commands import ENVIRONMENT, matinee


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo") / "home"


@pytest.fixture(scope="session")
def interrupted(home: Path) -> int:
    """The exit status of a demo that got Ctrl-C a few seconds into its training."""
    command = [sys.executable, "-m", "matinee.cli", "demo", "--exit", "--home", str(home)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True,
        env=ENVIRONMENT,
    )  # fmt: skip
    killer = threading.Timer(300, process.kill)
    killer.start()
    assert process.stdout
    for line in process.stdout:
        if line.startswith("features"):
            break
    time.sleep(15)
    process.send_signal(signal.SIGINT)
    process.stdout.read()
    status = process.wait()
    killer.cancel()
    process.stdout.close()
    return status


@pytest.fixture(scope="session")
def report(home: Path, interrupted: int) -> dict[str, Any]:
    done = matinee(home, "demo", "--exit", "--json")
    assert done.returncode == 0, done.stderr[-4000:]
    printed: dict[str, Any] = json.loads(done.stdout)
    assert printed == json.loads((home / "demo.json").read_text())
    return printed
