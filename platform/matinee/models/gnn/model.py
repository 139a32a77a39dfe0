"""Graph network whose propagated title vectors rank the coming titles of a history.

Scoring needs no graph: the finished title vectors are kept, and a member, known or not, is read from
the titles of the query's history. A title nobody has watched takes the vector its attributes lead to.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse

from matinee.errors import ConfigError
from matinee.models.base import Checkpoints, Model, Progress, Query, Scores, Start, TrainingSet
from matinee.models.content import Scaling, attribute_matrix, relations
from matinee.models.descent import Loss, Plan, descend
from matinee.models.gnn.choose import choose
from matinee.models.gnn.cold import directions, from_content
from matinee.models.gnn.config import GnnConfig
from matinee.models.gnn.graph import Propagation, propagation
from matinee.models.gnn.learned import FEATURE, Learned
from matinee.models.gnn.network import Network, Propagator, Reader, graph_edges
from matinee.models.gnn.sample import Neighbours
from matinee.models.gradients import next_titles_loss, seeded, shard
from matinee.models.histories import last_block
from matinee.models.positions import Positions, positions
from matinee.models.products import Product
from matinee.models.storage import read_model, write_model

log = logging.getLogger(__name__)

SHAPE = ("width", "layers", "length")
"""Fields of the config that a fit cannot change when it goes on from an earlier model."""


class GraphNetwork(Model):
    """Scores are products of member vectors, read from histories, with title vectors."""

    def __init__(self, config: GnnConfig) -> None:
        self.config = config
        self._titles = torch.zeros(0, config.width + 1)
        self._content = torch.zeros(0, config.width + 1)
        self._directions = np.zeros((0, max(config.embedding - config.width, 0)), np.float32)
        self._reader = Reader(width=config.width, length=config.length, recency=config.recency)
        self._learned = Learned()

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
        attributes = relations(data.catalogue)
        nodes, edges = graph_edges(
            places,
            attributes,
            members=len(data.interactions.member_ids),
            titles=len(data.catalogue),
            follows=config.follows,
        )
        choice = choose(
            nodes,
            edges,
            asked=config.sampling,
            width=config.width,
            layers=config.layers,
            batch=config.batch,
            limit_mib=config.memory_mib,
        )
        log.info("gnn propagates over %s: %s", choice.sampling, choice.reason)
        watches = np.bincount(places.title, minlength=len(data.catalogue))
        scaling = Scaling.measure(data.title_features)
        features = torch.from_numpy(scaling.apply(data.title_features, len(data.catalogue)))
        with seeded(seed):
            propagator = Propagator(nodes, edges, width=config.width, layers=config.layers, features=features)
            reader = Reader(width=config.width, length=config.length, recency=config.recency)
        bias = torch.from_numpy(np.log((watches + 0.5) / (watches + 0.5).sum())).float()
        network = Network(propagator, reader, bias)
        names = {relation.name: relation.values for relation in attributes} | {FEATURE: scaling.names}
        if start is not None:
            self._go_on(network, start, names)
        network = network.to(device)
        graph: Propagation
        loss: Loss
        if choice.sampling == "full":
            graph = propagation(nodes, edges, backend=config.backend, device=device)
            loss = _whole(network, graph, places, config)
        else:
            graph = neighbours = Neighbours(nodes, edges)
            loss = _sampled(network, neighbours, places, watches, config)
        matrix = attribute_matrix(attributes, len(data.catalogue))
        self._directions = directions(matrix, config.embedding - config.width, seed=seed)
        steps = config.steps if start is None else config.further_steps
        descend(
            network,
            loss,
            Plan(
                steps=steps if len(places) else 0,
                learning_rate=config.learning_rate,
                weight_decay=config.weight_decay,
            ),
            seed=seed,
            device=device,
            progress=progress,
            checkpoints=checkpoints,
            publish=lambda: self._take(network, graph, names, matrix, watches),
        )

    @torch.no_grad()
    def _take(
        self,
        network: Network,
        graph: Propagation,
        names: Mapping[str, Sequence[str]],
        matrix: sparse.csr_matrix,
        watches: npt.NDArray[np.int64],
    ) -> None:
        """Score with the network as it is; it may train on."""
        config = self.config
        vectors = torch.cat([network.propagator(graph), network.bias[:, None]], 1).cpu().numpy()
        content = from_content(matrix, vectors, np.sqrt(watches).astype(np.float32), config.content_ridge)
        # A title without attributes is not pulled to where those of all titles lead on average.
        pull = config.content_watches * (matrix.getnnz(axis=1) > 0)
        share = (watches / np.maximum(watches + pull, 1))[:, None]
        self._titles = torch.from_numpy((share * vectors + (1 - share) * content).astype(np.float32))
        self._content = torch.from_numpy(content)
        self._learned = Learned.of(network, names)
        self._reader = deepcopy(network.reader).cpu()

    def _go_on(self, network: Network, start: Start, names: Mapping[str, Sequence[str]]) -> None:
        if not isinstance(start.model, GraphNetwork):
            raise ConfigError(f"gnn cannot go on from a {type(start.model).__name__}; give a GraphNetwork")
        for field in SHAPE:
            held, wanted = getattr(start.model.config, field), getattr(self.config, field)
            if held != wanted:
                raise ConfigError(
                    f"gnn: {field} is {wanted}, {held} in the model to go on from: keep {held} or fit anew"
                )
        start.model._learned.put(network, names, start.titles)

    def score(self, query: Query) -> Scores:
        """Log-odds of titles as the next watches; without a history those of popularity."""
        return self._products(self._members(query), self._titles)

    def signals(self, query: Query) -> Mapping[str, Scores]:
        """`score`, and `content`: the same with every title's vector as its attributes tell it."""
        members = self._members(query)
        return {
            "score": self._products(members, self._titles),
            "content": self._products(members, self._content),
        }

    def title_vectors(self) -> Scores:
        """The learned ones, then those of content, each with its bias: float32 [titles, 2 * (width + 1)]."""
        found: Scores = torch.cat([self._titles, self._content], dim=1).numpy()
        return found

    def products(self, query: Query) -> Mapping[str, Product]:
        """`signals` as products."""
        members = self._members(query).numpy()
        told = np.pad(members, ((0, 0), (0, 1)), constant_values=1)
        offset = np.zeros(len(members), np.float32)
        width = told.shape[1]
        return {
            "score": Product(vectors=np.pad(told, ((0, 0), (0, width))), offset=offset),
            "content": Product(vectors=np.pad(told, ((0, 0), (width, 0))), offset=offset),
        }

    @torch.no_grad()
    def _members(self, query: Query) -> torch.Tensor:
        past = last_block(query.histories, self.config.length, empty=-1)
        kept = torch.from_numpy(past >= 0).float()
        read = self._titles[torch.from_numpy(np.maximum(past, 0)).flatten(), :-1]
        members: torch.Tensor = self._reader(read, torch.arange(past.size).view(past.shape), kept)
        return members

    @torch.no_grad()
    def _products(self, members: torch.Tensor, titles: torch.Tensor) -> Scores:
        scores: Scores = torch.addmm(titles[:, -1], members, titles[:, :-1].T).numpy()
        return scores

    def embeddings(self) -> Scores:
        """Title vectors of length 1 for finding titles alike, float32 [titles, config.embedding].

        A product of two is the mean of the cosines of their learned vectors and of their content; of the
        first alone where a title has no attributes.
        """
        halves = [_unit(self._titles[:, :-1].numpy()), _unit(self._directions)]
        return _unit(np.concatenate(halves, axis=1))

    def save(self, folder: Path) -> None:
        """Write the finished title vectors, and the parameters that a later fit goes on from."""
        arrays = {f"learned.{name}": value for name, value in self._learned.arrays.items()}
        arrays |= {
            "titles": self._titles.numpy(),
            "content": self._content.numpy(),
            "directions": self._directions,
        }
        write_model(folder, config=self.config, arrays=arrays, facts={"names": dict(self._learned.names)})

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote."""
        config, arrays, facts = read_model(folder)
        model = cls(GnnConfig(**config))
        model._titles, model._content = (
            torch.from_numpy(arrays["titles"]),
            torch.from_numpy(arrays["content"]),
        )
        model._directions = arrays["directions"]
        learned = {name[8:]: value for name, value in arrays.items() if name.startswith("learned.")}
        model._learned = Learned(names=facts["names"], arrays=learned)
        model._reader.load_state_dict(
            {
                name.removeprefix("reader."): torch.from_numpy(value)
                for name, value in learned.items()
                if name.startswith("reader.")
            }
        )
        return model


def _unit(vectors: Scores) -> Scores:
    scaled: Scores = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    return scaled


def _drawn(
    places: Positions, config: GnnConfig, generator: torch.Generator
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_], npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """A step's rows: titles of the past, which of them are read, titles to come and their weights."""
    at = shard(torch.randint(len(places), (config.batch,), generator=generator)).numpy()
    past = places.past(at, config.length, empty=-1)
    told = torch.rand(past.shape, generator=generator).numpy() >= config.dropout
    return np.maximum(past, 0), (past >= 0) & told, *places.coming(at, config.targets, config.target_decay)


def _whole(network: Network, graph: Propagation, places: Positions, config: GnnConfig) -> Loss:
    """Softmax over all titles, propagated over the whole graph."""

    def loss(step: int, generator: torch.Generator) -> torch.Tensor:
        past, read, coming, weights = (
            torch.from_numpy(part).to(network.bias.device) for part in _drawn(places, config, generator)
        )
        vectors = network.propagator(graph)
        return next_titles_loss(
            network.reader(vectors, past, read.float()), vectors, network.bias, coming, weights
        )

    return loss


def _sampled(
    network: Network,
    graph: Neighbours,
    places: Positions,
    frequency: npt.NDArray[np.int64],
    config: GnnConfig,
) -> Loss:
    """Softmax over the titles to come of the step's rows, propagated over sampled neighbours.

    A title offered in few steps weighs for those in which it is not: Yi et al., "Sampling-bias-corrected
    neural modeling for large corpus item recommendations", 2019.
    """
    device = network.bias.device
    watched_share = np.minimum(frequency / max(int(frequency.sum()), 1), 1 - 1e-9)

    def loss(step: int, generator: torch.Generator) -> torch.Tensor:
        past, read, coming, weights = _drawn(places, config, generator)
        draws = np.random.default_rng(int(torch.randint(1 << 62, (1,), generator=generator)))
        offered = np.unique(coming[weights > 0])
        asked = np.union1d(offered, past[read])
        part = graph.sample(asked, fanout=config.fanout, rounds=config.layers, generator=draws)
        nodes = {kind: torch.from_numpy(ids).to(device) for kind, ids in part.nodes.items()}
        sums = propagation(part.sizes, part.edges, backend=config.backend, device=device)
        vectors = network.propagator(sums, nodes)
        held = part.nodes["title"]
        drawn = -np.expm1((weights > 0).sum() * np.log1p(-watched_share[offered]))
        correction = torch.from_numpy(np.log(drawn)).float().to(device)

        def local(titles: npt.NDArray[np.int64], among: npt.NDArray[np.int64]) -> torch.Tensor:
            # Titles that are not read, or do not count, may stand for any.
            return torch.from_numpy(np.searchsorted(among, titles).clip(max=len(among) - 1)).to(device)

        return next_titles_loss(
            network.reader(vectors, local(past, held), torch.from_numpy(read).float().to(device)),
            vectors[local(offered, held)],
            network.bias[torch.from_numpy(offered).to(device)] - correction,
            local(coming, offered),
            torch.from_numpy(weights).to(device),
        )

    return loss
