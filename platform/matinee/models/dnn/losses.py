"""Losses over drawn titles, for catalogues too large to score whole and for the published sequence models.

All take logits: `wanted` [rows, w] of titles watched next, `drawn` [rows, k] of titles drawn uniformly,
and `weights` [rows, w] of the wanted ones, summing to 1 in a row that counts.
"""

from __future__ import annotations

import math

import torch
from torch.nn import functional


def sampled_softmax(
    wanted: torch.Tensor, drawn: torch.Tensor, weights: torch.Tensor, titles: int
) -> torch.Tensor:
    """The softmax over `titles`, whose normaliser is estimated from the drawn titles and the wanted one."""
    others = drawn.float().logsumexp(1, keepdim=True) + math.log((titles - 1) / drawn.shape[1])
    return _mean(torch.logaddexp(wanted.float(), others) - wanted.float(), weights)


def binary(
    wanted: torch.Tensor, drawn: torch.Tensor, weights: torch.Tensor, exponent: float = 1.0
) -> torch.Tensor:
    """Wanted against drawn titles by binary cross-entropy, the wanted one's probability to a power.

    With one drawn title and exponent 1 it is the loss of Kang and McAuley 2018; with `calibrated_exponent`
    gBCE of Petrov and Macdonald, "gSASRec: reducing overconfidence in sequential recommendation trained
    with negative sampling", 2023.
    """
    against = functional.softplus(drawn.float()).sum(1, keepdim=True)
    return _mean((exponent * functional.softplus(-wanted.float()) + against) / (1 + drawn.shape[1]), weights)


def calibrated_exponent(drawn: int, titles: int, calibration: float) -> float:
    """gBCE's exponent: from 1 at calibration 0 to the share of titles that are drawn at calibration 1."""
    share = min(drawn / max(titles - 1, 1), 1.0)
    return share * ((1 - 1 / share) * calibration + 1 / share)


def _mean(losses: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    return (losses * weights).sum() / weights.sum().clamp(min=1e-6)
