"""Graph network whose propagated title vectors rank the coming titles of a history.

Scoring needs no graph: the finished title vectors are kept, and a member, known or not, is read from
the titles of the query's history.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Self

import numpy as np
import torch

from matinee.models.base import Model, Progress, Query, Scores, TrainingSet
from matinee.models.gnn.config import GnnConfig
from matinee.models.gnn.graph import propagation
from matinee.models.gnn.network import Propagator, Reader, graph_edges, title_inputs
from matinee.models.gradients import average_gradients, next_titles_loss, seeded, shard
from matinee.models.histories import last_block
from matinee.models.positions import positions
from matinee.models.storage import read_model, write_model


class GraphNetwork(Model):
    """Scores are products of member vectors, read from histories, with propagated title vectors."""

    def __init__(self, config: GnnConfig) -> None:
        self.config = config
        self._titles = torch.zeros(0, config.width)
        self._bias = torch.zeros(0)
        self._reader = Reader(width=config.width, length=config.length, recency=config.recency)

    def fit(self, data: TrainingSet, *, seed: int, progress: Progress | None = None) -> None:
        """Train on `config.device`; under torch.distributed each worker takes its part of every batch."""
        config = self.config
        device = torch.device(config.device)
        places = positions(data.interactions)
        nodes, edges = graph_edges(data, places, config.follows)
        graph = propagation(nodes, edges, backend=config.backend, device=device)
        titles = len(data.catalogue)
        counts = np.bincount(places.title, minlength=titles) + 0.5
        with seeded(seed) as generator:
            network = Propagator(
                nodes, edges, width=config.width, layers=config.layers, features=title_inputs(data)
            ).to(device)
            reader = Reader(width=config.width, length=config.length, recency=config.recency).to(device)
            bias = torch.nn.Parameter(torch.from_numpy(np.log(counts / counts.sum())).float().to(device))
            parameters = [*network.parameters(), *reader.parameters(), bias]
            optimizer = torch.optim.AdamW(
                parameters, lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
            )
            for step in range(config.steps if len(places) else 0):
                rate = config.learning_rate * 0.5 * (1 + math.cos(math.pi * step / config.steps))
                for group in optimizer.param_groups:
                    group["lr"] = rate
                drawn = torch.randint(len(places), (config.batch,), generator=generator)
                at = shard(drawn).numpy()
                past = places.past(at, config.length, empty=-1)
                told = torch.rand(past.shape, generator=generator) >= config.dropout
                kept = (torch.from_numpy(past >= 0) & told).float().to(device)
                history = torch.from_numpy(np.maximum(past, 0)).to(device)
                targets, weights = places.coming(at, config.targets, config.target_decay)
                vectors = network(graph)
                loss = next_titles_loss(
                    reader(vectors, history, kept),
                    vectors,
                    bias,
                    torch.from_numpy(targets).to(device),
                    torch.from_numpy(weights).to(device),
                )
                optimizer.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                average_gradients(parameters)
                optimizer.step()
                if progress and (step + 1) % 10 == 0:
                    progress(step + 1, config.steps, {"loss": loss.item()})
        with torch.no_grad():
            self._titles = network(graph).cpu().contiguous()
            self._bias = bias.detach().cpu().clone()
        self._reader = reader.cpu()

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
