"""Settings of the two-tower network."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from matinee.models.space import Choice, Real, Space, Whole


@dataclass(frozen=True, kw_only=True)
class DnnConfig:
    """The network, its training, and where it runs."""

    width: int = 64
    """Length of title, member and hidden vectors."""
    heads: int = 2
    """Attention heads; divides `width`."""
    layers: int = 1
    """Attention layers of the sequence encoder."""
    length: int = 50
    """Last titles of a history that the encoder sees."""
    order: Literal["recency", "position"] = "recency"
    """How attention knows the order: a learned bias by distance, or an embedding of each place."""
    recency: float = 10.0
    """Watches after which attention's starting bias has halved; the bias is then learned."""
    context: bool = True
    """Whether a member's features and sitting count."""
    content: bool = True
    """Whether a title's catalogue attributes and features count."""
    dropout: float = 0.2
    """Share of inputs zeroed while training."""
    identity_dropout: float = 0.0
    """Share of titles that a step knows by content alone, so that content carries new titles."""
    targets: int = 10
    """Coming titles that a position is trained to rank first."""
    target_decay: float = 0.9
    """Weight of each coming title over that of the one before it."""
    loss: Literal["softmax", "bce", "gbce"] = "softmax"
    """Wanted against all titles, or against drawn ones by binary cross-entropy, plain or calibrated."""
    negatives: int | None = None
    """Titles drawn a step (softmax) or a position. None: softmax over all, beyond 50,000 over 4,096 drawn."""
    calibration: float = 0.75
    """gBCE's t: 0 is plain cross-entropy, 1 undoes what drawing does to probabilities."""
    outcome_weight: float = 0.2
    """Weight of each head's loss (click, play, completion) beside that of the coming titles."""
    epochs: int = 9
    """Passes over the histories; the most, where `patience` is set."""
    patience: int | None = None
    """Epochs without a better NDCG@10 on held-out last watches after which training stops. None: no such."""
    batch: int = 64
    """Runs of `length` titles in a step, over all workers."""
    sampled: float = 0.35
    """Share of a run's positions that a step computes the loss of."""
    learning_rate: float = 0.006
    """Peak of Adam's step, reached after a tenth of the steps and lowered to zero on a cosine."""
    weight_decay: float = 0.01
    """AdamW's decay."""
    feature_dropout: float = 0.3
    """Share of positions whose member features count as unknown while training."""
    precision: Literal["auto", "float32", "bf16"] = "auto"
    """Of training's forward pass. "auto": bfloat16 on GPUs that have it, else float32."""
    device: str = "cpu"
    """Torch device that trains: "cpu" or "cuda". Scoring runs on the CPU."""


def default() -> DnnConfig:
    """The tuned settings."""
    return DnnConfig()


def sasrec() -> DnnConfig:
    """SASRec as published: Kang and McAuley, "Self-attentive sequential recommendation", 2018."""
    return replace(
        default(),
        heads=1,
        layers=2,
        order="position",
        context=False,
        content=False,
        dropout=0.5,
        targets=1,
        loss="bce",
        negatives=1,
        epochs=200,
        patience=20,
        batch=128,
        sampled=1.0,
        learning_rate=0.001,
        weight_decay=0.0,
    )


def gsasrec() -> DnnConfig:
    """gSASRec as published: Petrov and Macdonald 2023; 256 drawn titles a position, t = 0.75."""
    return replace(sasrec(), loss="gbce", negatives=256, calibration=0.75)


def test() -> DnnConfig:
    """Small: for tests."""
    return replace(default(), width=16, length=25, epochs=8, batch=64, targets=3)


def space() -> Space:
    """What tuning may set. Every choice of `heads` divides every choice of `width`."""
    return {
        "width": Choice((32, 64, 96, 128)),
        "heads": Choice((1, 2, 4)),
        "layers": Whole(1, 3),
        "length": Choice((25, 50, 100, 200)),
        "recency": Real(2.0, 50.0, log=True),
        "dropout": Real(0.0, 0.6),
        "targets": Whole(1, 20, log=True),
        "target_decay": Real(0.5, 1.0),
        "epochs": Whole(4, 30, log=True),
        "batch": Choice((32, 64, 128, 256)),
        "sampled": Real(0.1, 1.0),
        "learning_rate": Real(0.0005, 0.02, log=True),
        "weight_decay": Real(0.0001, 0.3, log=True),
        "feature_dropout": Real(0.0, 0.8),
    }
