"""What runs on a data home: published by the platform that runs there, read by whoever joins it."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass

from matinee.config import Home


@dataclass(frozen=True, kw_only=True)
class Running:
    """Addresses of the running parts.

    Args:
        pid: the process that started them and ends them on SIGTERM.
        bootstrap: the Kafka broker.
        ray_address: the Ray cluster's GCS.
        url: the API; empty while it does not serve.
    """

    pid: int
    bootstrap: str
    ray_address: str
    url: str = ""


def publish(home: Home, running: Running) -> None:
    """Write it, whole, over what was there."""
    path = home.run / "service.json"
    draft = path.with_suffix(".draft")
    draft.write_text(json.dumps(asdict(running)))
    draft.replace(path)


def withdraw(home: Home) -> None:
    """Nothing runs any more."""
    (home.run / "service.json").unlink(missing_ok=True)


def find(home: Home) -> Running | None:
    """What runs on this home, or None; a process that was killed counts as not running."""
    try:
        running = Running(**json.loads((home.run / "service.json").read_text()))
        os.kill(running.pid, 0)
    except (FileNotFoundError, ProcessLookupError, json.JSONDecodeError, TypeError):
        return None
    return running
