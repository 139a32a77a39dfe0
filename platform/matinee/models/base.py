"""The contract of a model: fit on interactions, score every title for members given their histories.

A model is inductive: what it knows of a member at scoring time is in the query, not in the model, so
an event of a moment ago counts in the next ranking without training. It imports neither Ray nor a
store; where `torch.distributed` is initialised by its caller, a torch model trains data-parallel.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
import numpy.typing as npt

from matinee.models.products import Product
from matinee.models.space import Space
from matinee.schema import Catalogue, Features, Interactions, Outcomes

Scores = npt.NDArray[np.float32]
Progress = Callable[[int, int, Mapping[str, float]], None]
"""Called as (step, steps, figures) while a model trains. Meanwhile the model scores as it stands: a caller
may judge it, and give the fit up by raising."""


class Checkpoints(Protocol):
    """Where a fit keeps its state now and then, so that another process can go on from it.

    Under torch.distributed every worker calls `keep` at the same steps.
    """

    every: int
    """Optimiser steps between two checkpoints."""

    def latest(self) -> Path | None:
        """The folder that the last whole `keep` filled; None at a fresh start."""
        ...

    def keep(self, step: int, write: Callable[[Path], None]) -> None:
        """Keep what `write` puts into an empty folder, whole or not at all; one worker's is enough."""
        ...


@dataclass(frozen=True, kw_only=True)
class TrainingSet:
    """What a model may learn from. Nothing in it is later than the last interaction.

    Args:
        interactions: the training interactions, in time order.
        catalogue: every title, also those without interactions; order = `interactions.title_ids`.
        member_features: point-in-time rows aligned with `interactions`: what the store knew of the
            member just before each interaction.
        title_features: rows aligned with the catalogue, as of the end of the training data.
        sharded: these are the interactions of some members, each with all of theirs; the other workers
            of torch.distributed hold those of the others.
        outcomes: what members made of titles they were shown, where it was recorded.
    """

    interactions: Interactions
    catalogue: Catalogue
    member_features: Features | None = None
    title_features: Features | None = None
    sharded: bool = False
    outcomes: Outcomes | None = None


@dataclass(frozen=True, kw_only=True)
class Start:
    """A model fitted earlier, on an older catalogue, from which a fit goes on.

    Args:
        model: of the same class as the one that is fitted; other configs of the network are refused.
        titles: int64 [titles of the new catalogue], their positions in the old one; -1 for new titles.
    """

    model: Model
    titles: npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Query:
    """A batch of members to score, m of them.

    Args:
        histories: per member, int32 positions of titles watched, oldest first; empty for an unknown member.
        times: per member, int64 microseconds of each watch; same lengths as `histories`.
        member_features: rows aligned with the members, or None.
        now: int64 [m], microseconds: the moment each ranking is asked for.
    """

    histories: Sequence[npt.NDArray[np.int32]]
    times: Sequence[npt.NDArray[np.int64]]
    now: npt.NDArray[np.int64]
    member_features: Features | None = None

    def __len__(self) -> int:
        return len(self.histories)


class Model(ABC):
    """A scorer of titles. Subclasses are built from their config alone: `Model(config)`."""

    @abstractmethod
    def __init__(self, config: Any) -> None: ...

    @abstractmethod
    def fit(
        self,
        data: TrainingSet,
        *,
        seed: int,
        progress: Progress | None = None,
        checkpoints: Checkpoints | None = None,
        start: Start | None = None,
    ) -> None:
        """Learn from `data`. The same data, config, seed and thread count give the same model.

        Args:
            checkpoints: where a long fit keeps its state, and finds it again; a short one ignores them.
            start: what to go on from; a model that is quick to fit anew ignores it.

        Raises:
            ConfigError: `start` is a network of another shape.
        """

    @abstractmethod
    def score(self, query: Query) -> Scores:
        """Scores, float32 [m, titles], higher is better, finite. Watched titles are scored too:
        leaving them out is the ranker's rule. Needs a fitted or loaded model."""

    def signals(self, query: Query) -> Mapping[str, Scores]:
        """What a combiner may weigh apart, each like `score`'s result; by default the score alone.
        The first orders titles as the score does."""
        return {"score": self.score(query)}

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write everything `load` needs into an existing, empty folder. No pickles of code."""

    @classmethod
    @abstractmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote; scores are equal to the saved model's."""


@runtime_checkable
class Factored(Protocol):
    """A model whose signals are products with title vectors, so that an index can find its best titles."""

    def title_vectors(self) -> Scores | None:
        """Of all titles, float32 [titles, d], not to be written to; None: as it was fitted it has none.

        It may take seconds: called once, before the first `products`.
        """

    def products(self, query: Query) -> Mapping[str, Product] | None:
        """The signals of `signals`, of the same names and values; None: not of this query."""


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """What a model folder declares.

    Args:
        name: the folder's name.
        model: the class.
        presets: config by preset name; "default" must be there.
        feature_service: the Feast feature service that pins its inputs; None where it reads none.
        distributed: True where `fit` trains data-parallel under torch.distributed (Ray Train runs it).
        shardable: True where each worker needs only the members it trains on (`TrainingSet.sharded`).
        members: names of the models this one combines; they are fitted first and handed to
            `model.with_members`.
        space: what tuning may set, by field of the config; the default preset lies inside.
    """

    name: str
    model: type[Model]
    presets: Mapping[str, Any]
    feature_service: str | None = None
    distributed: bool = False
    shardable: bool = False
    members: Sequence[str] = ()
    space: Space = field(default_factory=dict)
