"""Graph network whose propagated title vectors rank the coming titles of a history.

Scoring needs no graph: the finished title vectors are kept, and a member, known or not, is read from
the titles of the query's history.
"""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Self

import numpy as np
import torch

from matinee.models.base import Checkpoints, Model, Progress, Query, Scores, Start, TrainingSet
from matinee.models.descent import Plan, descend
from matinee.models.gnn.config import GnnConfig
from matinee.models.gnn.graph import Propagation, propagation
from matinee.models.gnn.network import Network, Propagator, Reader, graph_edges, title_inputs
from matinee.models.gradients import next_titles_loss, seeded, shard
from matinee.models.histories import last_block
from matinee.models.positions import Positions, positions
from matinee.models.storage import read_model, write_model


class GraphNetwork(Model):
    """Scores are products of member vectors, read from histories, with propagated title vectors."""

    def __init__(self, config: GnnConfig) -> None:
        self.config = config
        self._titles = torch.zeros(0, config.width)
        self._bias = torch.zeros(0)
        self._reader = Reader(width=config.width, length=config.length, recency=config.recency)

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
        places = positions(data.interactions)
        nodes, edges = graph_edges(data, places, config.follows)
        graph = propagation(nodes, edges, backend=config.backend, device=device)
        counts = np.bincount(places.title, minlength=len(data.catalogue)) + 0.5
        with seeded(seed):
            propagator = Propagator(
                nodes, edges, width=config.width, layers=config.layers, features=title_inputs(data)
            )
            reader = Reader(width=config.width, length=config.length, recency=config.recency)
        bias = torch.from_numpy(np.log(counts / counts.sum())).float()
        network = Network(propagator, reader, bias).to(device)
        descend(
            network,
            lambda step, generator: self._loss(network, graph, places, generator),
            Plan(
                steps=config.steps if len(places) else 0,
                learning_rate=config.learning_rate,
                weight_decay=config.weight_decay,
            ),
            seed=seed,
            device=device,
            progress=progress,
            checkpoints=checkpoints,
            publish=lambda: self._take(network, graph),
        )

    @torch.no_grad()
    def _take(self, network: Network, graph: Propagation) -> None:
        """Score with the network as it is; it may train on."""
        self._titles = network.propagator(graph).cpu().contiguous()
        self._bias = network.bias.detach().cpu().clone()
        self._reader = deepcopy(network.reader).cpu()

    def _loss(
        self, network: Network, graph: Propagation, places: Positions, generator: torch.Generator
    ) -> torch.Tensor:
        """Loss over positions drawn from all histories."""
        config, device = self.config, network.bias.device
        at = shard(torch.randint(len(places), (config.batch,), generator=generator)).numpy()
        past = places.past(at, config.length, empty=-1)
        told = torch.rand(past.shape, generator=generator) >= config.dropout
        kept = (torch.from_numpy(past >= 0) & told).float().to(device)
        history = torch.from_numpy(np.maximum(past, 0)).to(device)
        targets, weights = places.coming(at, config.targets, config.target_decay)
        vectors = network.propagator(graph)
        return next_titles_loss(
            network.reader(vectors, history, kept),
            vectors,
            network.bias,
            torch.from_numpy(targets).to(device),
            torch.from_numpy(weights).to(device),
        )

    @torch.no_grad()
    def score(self, query: Query) -> Scores:
        """Log-odds of titles as the next watches; without a history those of popularity."""
        past = last_block(query.histories, self.config.length, empty=-1)
        kept = torch.from_numpy(past >= 0).float()
        members = self._reader(self._titles, torch.from_numpy(np.maximum(past, 0)), kept)
        scores: Scores = (members @ self._titles.T + self._bias).numpy()
        return scores

    def save(self, folder: Path) -> None:
        """Write the finished title vectors and the reader."""
        arrays = {f"reader.{name}": value.numpy() for name, value in self._reader.state_dict().items()}
        arrays |= {"titles": self._titles.numpy(), "bias": self._bias.numpy()}
        write_model(folder, config=self.config, arrays=arrays)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote."""
        config, arrays, _ = read_model(folder)
        model = cls(GnnConfig(**config))
        model._titles, model._bias = torch.from_numpy(arrays["titles"]), torch.from_numpy(arrays["bias"])
        model._reader.load_state_dict(
            {
                name.removeprefix("reader."): torch.from_numpy(value)
                for name, value in arrays.items()
                if name.startswith("reader.")
            }
        )
        return model
