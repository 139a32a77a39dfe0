"""iALS's blocks of rows as Ray tasks, where a matrix outgrows one process.

The fixed side and each task's blocks go through the object store, solved rows come back; a task whose worker
dies runs again (`RETRIES`). The blocks are those of one process, so the vectors are too.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Callable, Sequence
from itertools import accumulate

import torch

from matinee.models.base import Model, TrainingSet
from matinee.models.cf.ials import Block, Fixed, Place, Solver, solve_rows
from matinee.models.cf.model import CollaborativeFiltering

GATHERED_BYTES = 2 * 2**30
"""Vectors that one process gathers each time a side is solved; beyond it, tasks share them."""
RETRIES = 3
"""How often a task is run again whose worker died."""

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sharing:
    """How many tasks solve a side, and why; 1: the process itself."""

    tasks: int
    reason: str


def sharing(*, interactions: int, factors: int, device: str, cpus: int) -> Sharing:
    """Tasks for a matrix of so many interactions on a cluster with so many CPUs. Pure."""
    gathered = 4 * interactions * factors
    sizes = f"{gathered / 2**20:.0f} MiB of vectors are gathered, {GATHERED_BYTES / 2**20:.0f} a process"
    if device != "cpu":
        return Sharing(tasks=1, reason=f"it trains on {device}")
    wanted = math.ceil(gathered / GATHERED_BYTES)
    return Sharing(tasks=max(1, min(wanted, cpus)), reason=f"{sizes}, {cpus} CPUs")


def share(model: Model, data: TrainingSet) -> None:
    """Have the connected Ray cluster solve iALS's blocks where `sharing` says so."""
    if not isinstance(model, CollaborativeFiltering):
        return
    import ray

    config, cpus = model.config, int(ray.cluster_resources().get("CPU", 1))
    found = sharing(
        interactions=len(data.interactions), factors=config.factors, device=config.device, cpus=cpus
    )
    log.info("iALS would be solved by %d task(s): %s", found.tasks, found.reason)
    model.place = on_ray(found.tasks) if found.tasks > 1 else None


def solved(parts: Sequence[Block], steps: int, vectors: torch.Tensor, fixed: Fixed) -> torch.Tensor:
    """Body of a task: the moved vectors of its blocks' rows, float32 [rows, factors]."""
    solve_rows(parts, steps, vectors, fixed)
    return vectors


def on_ray(tasks: int, body: Callable[..., torch.Tensor] = solved) -> Place:
    """Has up to `tasks` Ray tasks solve a side. `body` is run in each."""

    def place(parts: Sequence[Block], steps: int) -> Solver:
        import ray

        run = ray.remote(max_retries=RETRIES)(body)
        shares = divided(parts, tasks)
        rows = [torch.cat([part.rows for part in each]) for each in shares]
        held = [ray.put(renumbered(each)) for each in shares]

        def solve(vectors: torch.Tensor, fixed: Fixed) -> None:
            other = ray.put(fixed)
            running = [
                run.remote(each, steps, vectors.index_select(0, chosen), other)
                for each, chosen in zip(held, rows, strict=True)
            ]
            for chosen, found in zip(rows, running, strict=True):
                vectors.index_copy_(0, chosen, ray.get(found))

        return solve

    return place


def divided(parts: Sequence[Block], tasks: int) -> list[Sequence[Block]]:
    """At most `tasks` shares of about equal work: blocks are dealt out in turn, none is empty."""
    return [parts[first::tasks] for first in range(min(tasks, len(parts)))]


def renumbered(parts: Sequence[Block]) -> list[Block]:
    """The same blocks over a matrix of their rows alone, in their order."""
    ends = accumulate(len(part.rows) for part in parts)
    return [
        dataclasses.replace(part, rows=torch.arange(end - len(part.rows), end))
        for part, end in zip(parts, ends, strict=True)
    ]
