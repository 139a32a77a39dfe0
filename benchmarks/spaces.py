"""Which recommenders are compared, and the settings that each may be tuned over.

The first trial of each is what its authors ship or publish; the others are drawn from its space.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from matinee.models import discover

Config = dict[str, Any]
Space = Mapping[str, Sequence[Any]]


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A model of someone else's.

    Args:
        venv: whose venv runs `peers/recommend_<venv>.py`; also the maker's name.
        model: as the script knows it.
        published: the settings of the first trial: defaults are left out.
        space: by setting, the values a trial draws from.
        by_epoch: a trial trains within its seconds and its best epoch is kept; else the script fits once.
        times: how many times a trial's seconds it may take: where others' would not show what it can.
    """

    venv: str
    model: str
    published: Config = field(default_factory=dict)
    space: Space = field(default_factory=dict)
    by_epoch: bool = False
    times: int = 1

    @property
    def name(self) -> str:
        return f"{self.model} ({self.venv})"


_WIDTHS = (32, 64, 128)

PEERS = (
    Peer(venv="lenskit", model="EASE", space={"regularization": (10, 30, 100, 200, 300, 500, 1000, 2000)}),
    Peer(
        venv="lenskit",
        model="ItemKNN",
        published={"feedback": "implicit"},
        space={
            "feedback": ("implicit",),
            "max_nbrs": (10, 20, 40, 80, 160, 320),
            "min_sim": (1e-6, 0.01, 0.1),
        },
    ),
    Peer(
        venv="lenskit",
        model="ImplicitMF",
        space={
            "embedding_size": _WIDTHS,
            "epochs": (5, 10, 20),
            "weight": (1, 3, 10, 40),
            "regularization": (0.01, 0.1, 1.0, 10.0, 30.0),
        },
    ),
    Peer(
        venv="implicit",
        model="iALS",
        by_epoch=True,
        space={
            "factors": (16, *_WIDTHS),
            "alpha": (1.0, 3.0, 10.0, 30.0),
            "regularization": (0.01, 0.1, 1.0, 3.0, 10.0, 30.0),
        },
    ),
    Peer(
        venv="recbole",
        model="LightGCN",
        by_epoch=True,
        space={
            "embedding_size": _WIDTHS,
            "n_layers": (1, 2, 3),
            "learning_rate": (1e-3, 2e-3, 5e-3, 1e-2),
            "reg_weight": (1e-5, 1e-4, 1e-3, 1e-2),
        },
    ),
    Peer(
        venv="recbole",
        model="SASRec",
        by_epoch=True,
        times=5,
        published={"train_neg_sample_args": None},
        space={
            "train_neg_sample_args": (None,),
            "hidden_size": (64, 128),
            "n_layers": (1, 2),
            "hidden_dropout_prob": (0.2, 0.5),
            "attn_dropout_prob": (0.2, 0.5),
            "learning_rate": (1e-3, 2e-3, 5e-3),
            "MAX_ITEM_LIST_LENGTH": (20, 50),
            "train_batch_size": (256, 512),
        },
    ),
)

OURS: Mapping[str, Space] = {
    "cf": {
        "method": ("ease", "ials"),
        "ease_regularisation": (200.0, 500.0, 1000.0),
        "factors": _WIDTHS,
        "unobserved": (0.03, 0.1, 0.2, 0.3),
        "regularisation": (0.003, 0.01, 0.02, 0.05),
        "recent_half_life": (5.0, 10.0, 20.0),
    },
    "dnn": {
        "width": _WIDTHS,
        "epochs": (6, 9, 12),
        "dropout": (0.1, 0.2, 0.3),
        "learning_rate": (0.003, 0.006, 0.01),
    },
    "gnn": {
        "width": (64, 128),
        "steps": (120, 200, 300),
        "targets": (3, 5, 10),
        "recency": (2.0, 4.0, 8.0),
        "learning_rate": (0.006, 0.01, 0.02),
    },
}
"""Spaces of our models by name; a model that is not named is run as it ships."""


def ours() -> dict[str, tuple[str, str]]:
    """Our models that stand alone: (model, preset) by the name of the side. "test" is no one's setting."""
    found = {}
    for name, spec in discover().items():
        for preset in spec.presets:
            if not spec.members and preset != "test":
                found[name if preset == "default" else f"{name} {preset}"] = (name, preset)
    return found


def trials(name: str, published: Config, space: Space, count: int) -> list[Config]:
    """The published settings, then distinct draws from the space; fewer where it holds no more.

    Args:
        name: seeds the draws.
        count: trials, the first included.
    """
    draw = np.random.default_rng(zlib.crc32(name.encode()))
    found = [dict(published)]
    for _ in range(50 * count if space else 0):
        drawn = {key: values[draw.integers(len(values))] for key, values in space.items()}
        if drawn not in found and len(found) < count:
            found.append(drawn)
    return found


def configured(model: str, preset: str, changes: Config) -> Any:
    """A model's config with some settings changed."""
    return dataclasses.replace(discover()[model].presets[preset], **changes)
