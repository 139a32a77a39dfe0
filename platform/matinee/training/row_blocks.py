"""cf's rows as Ray tasks, where a matrix outgrows one process: iALS's blocks, the graph filter's neighbours.

What all rows need and each task's own go through the object store, found rows come back; a task whose worker
dies runs again (`RETRIES`). The rows are cut as one process does it, so what is found is the same to the bit.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Callable, Sequence
from itertools import accumulate

import numpy as np
import torch
from scipy import sparse

from matinee.models.base import Model, TrainingSet
from matinee.models.cf.choose import choose
from matinee.models.cf.ials import Block, Fixed, Place, Solver, solve_rows
from matinee.models.cf.model import CollaborativeFiltering
from matinee.models.cf.spectral import PIECE, Neighbours, nearest

RETRIES = 3
"""How often a task is run again whose worker died."""

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sharing:
    """How many tasks share a fit's rows, and why; 1: the process itself does them."""

    tasks: int
    reason: str


def sharing(*, needed: int, limit: int, device: str, cpus: int) -> Sharing:
    """Tasks for so many bytes of work on a cluster with so many CPUs. Pure.

    Args:
        needed: bytes that the rows read or make in all; 0 where rows can't be shared.
        limit: of one process.
        device: a GPU's rows stay with it.
    """
    if device != "cpu":
        return Sharing(tasks=1, reason=f"it trains on {device}")
    wanted = max(1, min(math.ceil(needed / limit), cpus))
    sizes = f"{needed / 2**20:.0f} MiB for its rows, {limit / 2**20:.0f} a process"
    return Sharing(tasks=wanted, reason=f"{sizes}, {cpus} CPUs")


def share(model: Model, data: TrainingSet, *, limit: int) -> None:
    """Have the connected Ray cluster do cf's rows where `sharing` says so.

    Args:
        limit: bytes of one process (`training.process_mib`).
    """
    if not isinstance(model, CollaborativeFiltering):
        return
    import ray

    config, device = model.config, model.config.device
    method = choose(config, titles=len(data.catalogue)).method
    match method:
        case "ials":  # The other side's vectors, a pair each.
            needed = 4 * config.factors * len(data.interactions)
        case "spectral":  # Each pair of a member's titles, at most; scipy makes them whatever the device.
            needed, device = 8 * int(np.square(np.bincount(data.interactions.member)).sum()), "cpu"
        case "ease":
            return
    cpus = int(ray.cluster_resources().get("CPU", 1))
    found = sharing(needed=needed, limit=limit, device=device, cpus=cpus)
    log.info("cf by %s is fitted by %d task(s): %s", method, found.tasks, found.reason)
    if found.tasks > 1:
        model.place, model.neighbours = blocks_on_ray(found.tasks), neighbours_on_ray()


def solved(parts: Sequence[Block], steps: int, vectors: torch.Tensor, fixed: Fixed) -> torch.Tensor:
    """Body of a task: the moved vectors of its blocks' rows, float32 [rows, factors]."""
    solve_rows(parts, steps, vectors, fixed)
    return vectors


def blocks_on_ray(tasks: int, body: Callable[..., torch.Tensor] = solved) -> Place:
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


def neighbours_on_ray(body: Neighbours = nearest) -> Neighbours:
    """Has a Ray task find the neighbours of each `PIECE` titles. `body` is run in each."""

    def find(across: sparse.csr_matrix, normalised: sparse.csr_matrix, most: int) -> sparse.csr_matrix:
        import ray

        run, held = ray.remote(max_retries=RETRIES)(body), ray.put(normalised)
        starts = range(0, across.shape[0], PIECE)
        running = [run.remote(across[first : first + PIECE], held, most) for first in starts]
        return sparse.csr_matrix(sparse.vstack(ray.get(running), format="csr"))

    return find


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
