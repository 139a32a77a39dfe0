"""Two towers trained to rank the coming titles over all titles, at positions of members' histories.

The sequence encoder follows Kang and McAuley, "Self-attentive sequential recommendation", 2018; by default
with a learned recency bias in place of position embeddings, and with the softmax over all titles as loss.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from matinee.errors import ConfigError
from matinee.models.base import Checkpoints, Model, Progress, Query, Scores, Start, TrainingSet
from matinee.models.content import Scaling
from matinee.models.descent import Plan, descend
from matinee.models.dnn.batches import Batches
from matinee.models.dnn.config import DnnConfig
from matinee.models.dnn.exposures import Exposures
from matinee.models.dnn.network import Head, MemberTower, Towers
from matinee.models.dnn.steps import Judge, Steps, drawn_titles, held_out, last_states
from matinee.models.dnn.titles import Known, take_over, title_tower
from matinee.models.gradients import seeded, together
from matinee.models.histories import in_sitting
from matinee.models.positions import Positions, positions
from matinee.models.products import Product
from matinee.models.storage import Array, read_model, write_model
from matinee.schema import Features

SHAPE = ("width", "heads", "layers", "length", "order", "context", "content")
"""Fields of the config that a fit cannot change where it goes on from an earlier model."""


class TwoTower(Model):
    """A member vector from the last titles and features; a title's score is their product with its vector."""

    def __init__(self, config: DnnConfig) -> None:
        self.config = config
        self._scaling = Scaling.measure(None)
        self._titles = torch.zeros(0, config.width)
        self._bias = torch.zeros(0)
        self._known = Known(attributes=(), scaling=Scaling.measure(None), weights={})
        self._member = self._member_tower()
        self._heads = nn.ModuleDict()

    def _member_tower(self) -> MemberTower:
        config = self.config
        return MemberTower(
            width=config.width,
            heads=config.heads,
            layers=config.layers,
            length=config.length,
            recency=config.recency if config.order == "recency" else None,
            dropout=config.dropout,
            features=len(self._scaling.names) if config.context else None,
        )

    def fit(
        self,
        data: TrainingSet,
        *,
        seed: int,
        progress: Progress | None = None,
        checkpoints: Checkpoints | None = None,
        start: Start | None = None,
    ) -> None:
        """Train on `config.device`; under torch.distributed each worker takes its part of every batch."""
        config = self.config
        device = torch.device(config.device)
        before = self._earlier(start, data)
        total = together if data.sharded else np.asarray
        features = data.member_features if config.context else None
        self._scaling = before._scaling if before else Scaling.measure(features, total=total)
        places = positions(data.interactions)
        context = torch.from_numpy(_context(self._scaling, features, places)).to(device)
        held = held_out(places, seed) if config.patience else np.zeros(len(places), dtype=bool)
        kept = data.interactions.take(np.sort(places.row[~held]))
        learned = positions(kept)
        counts = total(np.bincount(learned.title, minlength=len(data.catalogue)))
        with seeded(seed):
            member = self._member_tower()
            title, attributes, scaling = title_tower(
                data.catalogue,
                data.title_features,
                counts > 0,
                width=config.width,
                content=config.content,
            )
        told = data.outcomes and data.outcomes.known_from(kept) if config.patience else data.outcomes
        exposures = None if told is None else Exposures(told, kept, learned)
        outcomes = {} if exposures is None else exposures.shares(total)
        with seeded(seed + 1):
            towers = Towers(member, title, _first_bias(counts, config), outcomes)
        if start is not None and before is not None:
            member.load_state_dict(before._member.state_dict())
            take_over(title, attributes, scaling, before._known, start.titles)
            for name in towers.heads.keys() & before._heads.keys():
                towers.heads[name].load_state_dict(before._heads[name].state_dict())
        towers.to(device)
        batches = Batches(
            learned,
            length=config.length,
            size=config.batch,
            epochs=config.epochs,
            seed=seed,
            sharded=data.sharded,
        )
        steps = Steps(
            towers=towers,
            places=learned,
            context=context[torch.from_numpy(~held)],
            batches=batches,
            config=config,
            exposures=exposures if outcomes else None,
        )
        judge = Judge(
            towers=towers,
            histories=[places.title[places.start[at] : at].astype(np.int32) for at in np.flatnonzero(held)],
            answers=torch.from_numpy(places.title[held]).to(device),
            context=context[torch.from_numpy(held)],
            length=config.length,
        )
        descend(
            towers,
            steps.loss,
            Plan(
                steps=batches.steps,
                learning_rate=config.learning_rate,
                warmup=0.1,
                weight_decay=config.weight_decay,
                clip=1.0,
                precision=config.precision,
                report_every=max(batches.steps // max(config.epochs, 1), 1),
                patience=config.patience,
            ),
            seed=seed,
            device=device,
            progress=progress,
            checkpoints=checkpoints,
            validate=judge.figure if config.patience else None,
            publish=lambda: self._take(towers, attributes, scaling),
        )

    @torch.no_grad()
    def _take(self, towers: Towers, attributes: Sequence[str], scaling: Scaling) -> None:
        """Score with the towers as they are; they may train on."""
        self._titles = towers.title().cpu().contiguous()
        self._bias = towers.bias.detach().cpu().clone()
        self._member = deepcopy(towers.member).cpu().eval()
        self._heads = deepcopy(towers.heads).cpu().eval()
        weights = {name: value.detach().cpu().clone() for name, value in towers.title.state_dict().items()}
        self._known = Known(attributes=attributes, scaling=scaling, weights=weights)

    def _earlier(self, start: Start | None, data: TrainingSet) -> TwoTower | None:
        """The model to go on from.

        Raises:
            ConfigError: it is another model, of another shape, or read other member features.
        """
        if start is None:
            return None
        if not isinstance(start.model, TwoTower):
            raise ConfigError(f"a dnn goes on from a dnn; got {type(start.model).__name__}")
        for name in SHAPE:
            old, new = getattr(start.model.config, name), getattr(self.config, name)
            if old != new:
                raise ConfigError(f"dnn.{name} is {new!r}, that of the model to go on from {old!r}")
        read = data.member_features.names if data.member_features and self.config.context else ()
        if tuple(start.model._scaling.names) != tuple(read):
            raise ConfigError(
                f"member features are {list(read)}, those of the model to go on from "
                f"{list(start.model._scaling.names)}"
            )
        return start.model

    @torch.no_grad()
    def score(self, query: Query) -> Scores:
        """Log-odds of titles as the next watches."""
        scores: Scores = torch.addmm(self._bias, self._members(query), self._titles.T).numpy()
        return scores

    @torch.no_grad()
    def signals(self, query: Query) -> Mapping[str, Scores]:
        """`score`; and, where outcomes were learned, log-odds of a `click` on a title that is shown, of a
        `play`, and of its `completion` once it is played."""
        members = self._members(query)
        found: dict[str, Scores] = {"score": torch.addmm(self._bias, members, self._titles.T).numpy()}
        for name, head in self._heads.items():
            assert isinstance(head, Head)
            found[name] = head.every(members, self._titles, self._bias).numpy()
        return found

    def title_vectors(self) -> Scores:
        """The title tower's, then the bias: float32 [titles, width + 1]."""
        found: Scores = torch.cat([self._titles, self._bias[:, None]], dim=1).numpy()
        return found

    @torch.no_grad()
    def products(self, query: Query) -> Mapping[str, Product]:
        """`signals` as products."""
        members = self._members(query)
        found = {"score": _product(members, torch.ones(()), torch.zeros(()))}
        for name, head in self._heads.items():
            assert isinstance(head, Head)
            found[name] = _product(*head.product(members))
        return found

    def _members(self, query: Query) -> torch.Tensor:
        states = last_states(self._member, self._titles, query.histories, self.config.length)
        flag = in_sitting(query.times, query.now).astype(np.float32)[:, None]
        scaled = self._scaling.apply(query.member_features, len(query))
        found: torch.Tensor = self._member(states, torch.from_numpy(np.concatenate([flag, scaled], axis=1)))
        return found

    def save(self, folder: Path) -> None:
        """Write the finished title vectors, and the parameters of both towers."""
        arrays = {f"member.{name}": value.numpy() for name, value in self._member.state_dict().items()}
        arrays |= {f"title.{name}": value.numpy() for name, value in self._known.weights.items()}
        arrays |= {f"head.{name}": value.numpy() for name, value in self._heads.state_dict().items()}
        arrays |= {"titles": self._titles.numpy(), "bias": self._bias.numpy()}
        facts: dict[str, Any] = {"attributes": list(self._known.attributes), "heads": list(self._heads)}
        for name, scaling in (("feature", self._scaling), ("title_feature", self._known.scaling)):
            arrays |= {f"{name}_mean": scaling.mean, f"{name}_spread": scaling.spread}
            facts[f"{name}s"] = list(scaling.names)
        write_model(folder, config=self.config, arrays=arrays, facts=facts)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote."""
        config, arrays, facts = read_model(folder)
        model = cls(DnnConfig(**config))
        model._scaling = _scaling("feature", arrays, facts)
        model._titles, model._bias = torch.from_numpy(arrays["titles"]), torch.from_numpy(arrays["bias"])
        model._known = Known(
            attributes=tuple(facts["attributes"]),
            scaling=_scaling("title_feature", arrays, facts),
            weights=_named("title.", arrays),
        )
        model._member = model._member_tower()
        model._member.load_state_dict(_named("member.", arrays))
        model._member.eval()
        model._heads = nn.ModuleDict({name: Head(model.config.width) for name in facts["heads"]})
        model._heads.load_state_dict(_named("head.", arrays))
        return model


def _product(vectors: torch.Tensor, gain: torch.Tensor, offset: torch.Tensor) -> Product:
    rows = len(vectors)
    told = torch.cat([vectors, gain.expand(rows, 1)], dim=1)
    return Product(vectors=told.numpy(), offset=offset.expand(rows).numpy())


def _scaling(name: str, arrays: Mapping[str, Array], facts: Mapping[str, Any]) -> Scaling:
    return Scaling(
        names=tuple(facts[f"{name}s"]), mean=arrays[f"{name}_mean"], spread=arrays[f"{name}_spread"]
    )


def _named(prefix: str, arrays: Mapping[str, Array]) -> dict[str, torch.Tensor]:
    return {
        name.removeprefix(prefix): torch.from_numpy(value)
        for name, value in arrays.items()
        if name.startswith(prefix)
    }


def _context(scaling: Scaling, features: Features | None, places: Positions) -> npt.NDArray[np.float32]:
    """Sitting flag and scaled member features before each place, [places, 1 + features]."""
    scaled = scaling.apply(features, len(places))[places.row]
    return np.concatenate([places.sitting[:, None], scaled], axis=1)


def _first_bias(counts: npt.NDArray[Any], config: DnnConfig) -> torch.Tensor:
    """Where each title's bias starts: at the logit that its share of watches, smoothed, gives it alone."""
    logits = np.log((counts + 0.5) / (counts + 0.5).sum())
    if config.loss != "softmax":
        logits += np.log(len(counts) / (drawn_titles(config, len(counts)) or 1))
    return torch.from_numpy(logits.astype(np.float32))
