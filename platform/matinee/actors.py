"""Actors that stand beside the API: one of each name, back after any death, answering while they work."""

from __future__ import annotations

from typing import Any

NAMESPACE = "matinee"


def standing(kind: type, name: str, *, calls_at_once: int) -> Any:
    """A class as a standing actor; call `.remote` with its arguments to start it."""
    import ray

    return ray.remote(kind).options(
        name=name,
        namespace=NAMESPACE,
        num_cpus=0,
        max_restarts=-1,
        max_task_retries=-1,
        max_concurrency=calls_at_once,
    )
