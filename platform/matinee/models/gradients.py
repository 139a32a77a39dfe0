"""What the torch models share: the loss, seeding, and data-parallel averaging where it is set up."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import distributed
from torch.nn import functional


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's default generator inside the block only."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def shard(rows: torch.Tensor) -> torch.Tensor:
    """This worker's part of a batch's rows; all of them without torch.distributed.

    Each worker gets the same number of rows (a short batch repeats rows), so that averaged gradients
    weigh rows alike and no worker waits for another that had nothing to do.
    """
    if not (distributed.is_available() and distributed.is_initialized()):
        return rows
    workers, rank = distributed.get_world_size(), distributed.get_rank()
    part = -(-len(rows) // workers)
    repeated = torch.arange(part * workers) % max(len(rows), 1)
    return rows[repeated[rank::workers]]


def average_gradients(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Replace each gradient by its mean over workers; nothing without torch.distributed."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    distributed.all_reduce(flat)
    flat /= distributed.get_world_size()
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
