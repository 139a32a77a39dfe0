"""Settings of the graph network."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from matinee.models.space import Choice, Real, Space, Whole


@dataclass(frozen=True, kw_only=True)
class GnnConfig:
    """The network, its training, and where it runs."""

    width: int = 128
    """Length of every node's vector, and of the product that scores."""
    embedding: int = 256
    """Length of the published title embeddings: the learned vector, then directions of content."""
    layers: int = 1
    """Rounds of propagation; one round reaches titles over members and over attributes."""
    length: int = 50
    """Last titles of a history that a member's vector is read from."""
    recency: float = 4.0
    """Watches after which a title's starting weight in that reading has halved; the weights are learned."""
    follows: int = 5
    """A title is joined to those watched up to this many places later in the same history."""
    targets: int = 5
    """Coming titles that a position is trained to rank first."""
    target_decay: float = 0.9
    """Weight of each coming title over that of the one before it."""
    steps: int = 200
    """Optimiser steps."""
    batch: int = 512
    """Positions in a step, over all workers."""
    dropout: float = 0.1
    """Share of history titles left out while training."""
    learning_rate: float = 0.01
    """Peak of Adam's step, lowered to zero on a cosine."""
    weight_decay: float = 0.01
    """AdamW's decay."""
    further_steps: int = 80
    """Optimiser steps of a fit that goes on from an earlier model."""
    sampling: Literal["auto", "full", "neighbours"] = "auto"
    """What a step propagates over: the whole graph or sampled neighbours; auto: whole where it fits."""
    fanout: int = 16
    """Most neighbours of a node and relation that a step draws when it samples."""
    memory_mib: int = 4096
    """What a step over the whole graph may take, about, for it to fit."""
    content_ridge: float = 200.0
    """Penalty of the regression that leads from attributes to vectors of titles without watches."""
    content_watches: float = 3.0
    """Watches' worth of pull of a watched title's vector towards the one its attributes lead to."""
    backend: Literal["dgl", "torch"] = "dgl"
    """What propagates on the CPU. On a GPU, and where dgl is not installed, it is torch sparse."""
    device: str = "cpu"
    """Torch device that trains: "cpu" or "cuda". Scoring runs on the CPU."""


def default() -> GnnConfig:
    """The tuned settings."""
    return GnnConfig()


def test() -> GnnConfig:
    """Small: for tests."""
    return replace(default(), width=16, length=12, steps=60, batch=256, targets=3)


def space() -> Space:
    """What tuning may set."""
    return {
        "width": Choice((32, 64, 128, 256)),
        "layers": Whole(1, 3),
        "length": Choice((12, 25, 50, 100)),
        "recency": Real(2.0, 50.0, log=True),
        "follows": Whole(1, 12),
        "targets": Whole(1, 20, log=True),
        "target_decay": Real(0.5, 1.0),
        "steps": Whole(60, 600, log=True),
        "batch": Choice((512, 1024, 2048, 4096)),
        "dropout": Real(0.0, 0.5),
        "learning_rate": Real(0.002, 0.05, log=True),
        "weight_decay": Real(0.0001, 0.3, log=True),
    }
