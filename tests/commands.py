"""Commands as a person would type them, with nothing of this process' settings."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
ENVIRONMENT = {key: value for key, value in os.environ.items() if not key.startswith(("MATINEE_", "RAY_"))}
ENVIRONMENT["MATINEE_TRAINING_PRESET"] = "test"


def matinee(
    home: Path, *arguments: str, timeout_s: float = 600, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """`matinee ARGUMENTS`, with `environment` beside the tests' own."""
    command = [sys.executable, "-m", "matinee.cli", *arguments, "--home", str(home)]
    return subprocess.run(
        command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=timeout_s,
        env={**ENVIRONMENT, **(environment or {})},
    )  # fmt: skip


def job(home: Path, name: str, *arguments: str, timeout_s: float = 300) -> subprocess.CompletedProcess[str]:
    """`python jobs/NAME.py`, from the checkout."""
    command = [sys.executable, f"jobs/{name}.py", *arguments, "--home", str(home)]
    return subprocess.run(
        command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=timeout_s,
        env=ENVIRONMENT, cwd=ROOT,
    )  # fmt: skip
