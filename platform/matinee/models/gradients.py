"""What the torch models share: the loss, seeding, and what data-parallel workers tell each other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import torch
from torch import distributed
from torch.nn import functional


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's default generator inside the block only."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def workers() -> int:
    """How many train together: 1 without torch.distributed."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def shard(rows: torch.Tensor) -> torch.Tensor:
    """This worker's part of a batch's rows; all of them without torch.distributed.

    Each worker gets the same number of rows (a short batch repeats rows), so that averaged gradients
    weigh rows alike and no worker waits for another that had nothing to do.
    """
    count = workers()
    if count == 1:
        return rows
    part = -(-len(rows) // count)
    repeated = torch.arange(part * count) % max(len(rows), 1)
    return rows[repeated[distributed.get_rank() :: count]]


def together(values: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Sum of each value over the workers: what all know of a set of which each holds a shard."""
    return _reduced(values, distributed.ReduceOp.SUM)


def greatest(value: int) -> int:
    """The greatest among the workers' values."""
    return int(_reduced(value, distributed.ReduceOp.MAX))


def _reduced(values: npt.ArrayLike, operation: distributed.ReduceOp.RedOpType) -> npt.NDArray[np.float64]:
    held = np.array(values, dtype=np.float64)
    if workers() == 1:
        return held
    shared = torch.from_numpy(held).to("cuda" if distributed.get_backend() == "nccl" else "cpu")
    distributed.all_reduce(shared, operation)
    return shared.cpu().numpy()


def average_gradients(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Replace each gradient by its mean over workers; nothing without torch.distributed."""
    count = workers()
    if count == 1:
        return
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    distributed.all_reduce(flat)
    flat /= count
    start = 0
    for gradient in gradients:
        gradient.copy_(flat[start : start + gradient.numel()].view_as(gradient))
        start += gradient.numel()


def next_titles_loss(
    members: torch.Tensor,
    titles: torch.Tensor,
    bias: torch.Tensor,
    targets: torch.Tensor,
    weights: torch.Tensor,
) -> torch.Tensor:
    """Softmax loss over all titles with several right answers a row.

    Args:
        members: float [rows, width].
        titles: float [titles, width].
        bias: float [titles], added to every row's scores.
        targets: int64 [rows, w], titles watched next; any value where `weights` is 0.
        weights: float [rows, w], summing to 1 in a row that counts.
    """
    # The answers' scores come from their own vectors: gathering them from the full matrix of scores
    # would cost as much again on the way back.
    wanted = functional.embedding_bag(targets, titles, per_sample_weights=weights, mode="sum")
    chosen = (members * wanted).sum(1) + (bias[targets] * weights).sum(1)
    normaliser = torch.addmm(bias, members, titles.T).float().logsumexp(1) * weights.sum(1)
    loss: torch.Tensor = (normaliser - chosen).sum() / weights.sum().clamp(min=1e-6)
    return loss
