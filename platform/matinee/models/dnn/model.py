"""Two towers trained to rank the coming titles over all titles, at positions of members' histories.

The sequence encoder follows Kang and McAuley, "Self-attentive sequential recommendation", 2018, with a
learned recency bias in place of position embeddings.
"""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from matinee.models.base import Checkpoints, Model, Progress, Query, Scores, Start, TrainingSet
from matinee.models.content import Scaling, relations
from matinee.models.descent import Plan, descend
from matinee.models.dnn.batches import Batches
from matinee.models.dnn.config import DnnConfig
from matinee.models.dnn.network import MemberTower, TitleTower, Towers
from matinee.models.gradients import next_titles_loss, seeded, together
from matinee.models.histories import in_sitting
from matinee.models.positions import Positions, positions
from matinee.models.storage import read_model, write_model
from matinee.schema import Catalogue, Features

Rows = npt.NDArray[np.int64]


class TwoTower(Model):
    """A member vector from the last titles and features; a title's score is their product with its vector."""

    def __init__(self, config: DnnConfig) -> None:
        self.config = config
        self._scaling = Scaling.measure(None)
        self._titles = torch.zeros(0, config.width)
        self._bias = torch.zeros(0)
        self._member = self._member_tower()

    def _member_tower(self) -> MemberTower:
        config = self.config
        return MemberTower(
            width=config.width,
            heads=config.heads,
            layers=config.layers,
            length=config.length,
            recency=config.recency,
            dropout=config.dropout,
            features=len(self._scaling.names),
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
        total = together if data.sharded else np.asarray
        self._scaling = Scaling.measure(data.member_features, total=total)
        places = positions(data.interactions)
        context = torch.from_numpy(_context(self._scaling, data.member_features, places)).to(device)
        batches = Batches(
            places,
            length=config.length,
            size=config.batch,
            epochs=config.epochs,
            seed=seed,
            sharded=data.sharded,
        )
        with seeded(seed):
            member = self._member_tower()
            title = _title_tower(data.catalogue, data.title_features, config.width)
        counts = total(np.bincount(places.title, minlength=len(data.catalogue)))
        towers = Towers(member, title, _log_share(counts)).to(device)
        descend(
            towers,
            lambda step, generator: self._loss(towers, places, context, batches.at(step), generator),
            Plan(
                steps=batches.steps,
                learning_rate=config.learning_rate,
                warmup=0.1,
                weight_decay=config.weight_decay,
                clip=1.0,
                precision="auto",
                report_every=max(batches.steps // config.epochs, 1),
            ),
            seed=seed,
            device=device,
            progress=progress,
            checkpoints=checkpoints,
            publish=lambda: self._take(towers),
        )

    @torch.no_grad()
    def _take(self, towers: Towers) -> None:
        """Score with the towers as they are; they may train on."""
        self._titles = towers.title().cpu().contiguous()
        self._bias = towers.bias.detach().cpu().clone()
        self._member = deepcopy(towers.member).cpu().eval()

    def _loss(
        self,
        towers: Towers,
        places: Positions,
        context: torch.Tensor,
        runs: Rows,
        generator: torch.Generator,
    ) -> torch.Tensor:
        """Loss over sampled positions of runs; a run is [first place, place after the last]."""
        config = self.config
        member, bias = towers.member, towers.bias
        device = bias.device
        slots = runs[:, :1] + np.arange(config.length)[None, :]
        held = slots < runs[:, 1:]
        history = torch.from_numpy(np.where(held, places.title[np.minimum(slots, len(places) - 1)], 0))
        vectors = towers.title()
        # embedding and index_select: their gradients cost a fraction of plain indexing's.
        titles = functional.embedding(history.to(device), vectors)
        states = member.encode(titles, torch.from_numpy(held).to(device)).flatten(0, 1)
        # State i of a run is the member before the title at slot i; the state after the last is left out.
        rows, columns = np.nonzero(held)
        kept = torch.rand(len(rows), generator=generator).numpy() < config.sampled
        kept[0] = True
        rows, columns = rows[kept], columns[kept]
        at = slots[rows, columns]
        targets, weights = places.coming(at, config.targets, config.target_decay)
        told = context[torch.from_numpy(at).to(device)]
        silent = torch.rand(len(at), generator=generator) < config.feature_dropout
        told = torch.cat([told[:, :1], told[:, 1:] * (~silent)[:, None].to(device)], dim=1)
        chosen = torch.from_numpy(rows * (config.length + 1) + columns).to(device)
        members = member(states.index_select(0, chosen), told)
        return next_titles_loss(
            members,
            vectors,
            bias,
            torch.from_numpy(targets).to(device),
            torch.from_numpy(weights).to(device),
        )

    @torch.no_grad()
    def score(self, query: Query) -> Scores:
        """Log-odds of titles as the next watches."""
        length = self.config.length
        longest = max((len(history) for history in query.histories), default=0)
        width = min(max(longest, 1), length)
        # Left-aligned, as in training: the state after the last title stands at the history's length.
        block = np.zeros((len(query), width), dtype=np.int64)
        counts = np.array([min(len(history), width) for history in query.histories], dtype=np.int64)
        for row, history in enumerate(query.histories):
            if counts[row]:
                block[row, : counts[row]] = history[-counts[row] :]
        known = torch.from_numpy(np.arange(width)[None, :] < counts[:, None])
        states = self._member.encode(self._titles[torch.from_numpy(block)], known)
        last = states[torch.arange(len(query)), torch.from_numpy(counts)]
        flag = in_sitting(query.times, query.now).astype(np.float32)[:, None]
        scaled = self._scaling.apply(query.member_features, len(query))
        members = self._member(last, torch.from_numpy(np.concatenate([flag, scaled], axis=1)))
        scores: Scores = (members @ self._titles.T + self._bias).numpy()
        return scores

    def save(self, folder: Path) -> None:
        """Write the member tower's parameters and the finished title vectors."""
        arrays = {f"member.{name}": value.numpy() for name, value in self._member.state_dict().items()}
        arrays |= {"titles": self._titles.numpy(), "bias": self._bias.numpy()}
        arrays |= {"feature_mean": self._scaling.mean, "feature_spread": self._scaling.spread}
        write_model(folder, config=self.config, arrays=arrays, facts={"features": list(self._scaling.names)})

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote."""
        config, arrays, facts = read_model(folder)
        model = cls(DnnConfig(**config))
        model._scaling = Scaling(
            names=tuple(facts["features"]), mean=arrays["feature_mean"], spread=arrays["feature_spread"]
        )
        model._titles, model._bias = torch.from_numpy(arrays["titles"]), torch.from_numpy(arrays["bias"])
        model._member = model._member_tower()
        model._member.load_state_dict(
            {
                name.removeprefix("member."): torch.from_numpy(value)
                for name, value in arrays.items()
                if name.startswith("member.")
            }
        )
        model._member.eval()
        return model


def _context(scaling: Scaling, features: Features | None, places: Positions) -> npt.NDArray[np.float32]:
    """Sitting flag and scaled member features before each place, [places, 1 + features]."""
    scaled = scaling.apply(features, len(places))[places.row]
    return np.concatenate([places.sitting[:, None], scaled], axis=1)


def _title_tower(catalogue: Catalogue, features: Features | None, width: int) -> TitleTower:
    titles = len(catalogue)
    found = relations(catalogue)
    offsets = np.concatenate([[0], np.cumsum([len(relation.values) for relation in found])]).astype(np.int64)
    title = np.concatenate([*(relation.title for relation in found), np.zeros(0, np.int64)])
    value = np.concatenate(
        [*(r.value + offset for r, offset in zip(found, offsets[:-1], strict=True)), np.zeros(0, np.int64)]
    )
    order = np.argsort(title, kind="stable")
    scaled = Scaling.measure(features).apply(features, titles)
    return TitleTower(
        titles=titles,
        width=width,
        values=int(offsets[-1]),
        attributes=torch.from_numpy(value[order]),
        bounds=torch.from_numpy(np.searchsorted(title[order], np.arange(titles))),
        features=torch.from_numpy(scaled),
    )


def _log_share(counts: npt.NDArray[Any]) -> torch.Tensor:
    """Log share of watches per title, smoothed: where the bias starts."""
    smoothed = counts + 0.5
    return torch.from_numpy(np.log(smoothed / smoothed.sum()).astype(np.float32))
