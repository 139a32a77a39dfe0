"""The graph of a training set, and the network that turns it into title vectors."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from matinee.models.content import Relation
from matinee.models.gnn.graph import Edges, Propagation
from matinee.models.positions import Positions


def graph_edges(
    places: Positions, attributes: Sequence[Relation], *, members: int, titles: int, follows: int
) -> tuple[dict[str, int], list[Edges]]:
    """Node counts by type, and relations.

    Node types: member, title, and one per attribute of the catalogue. Relations: member watched title
    (and back), title followed by title (and back), attribute of title (and back).
    """
    nodes = {"member": members, "title": titles}
    edges = _both("member", "watched", "title", places.member, places.title)
    source, target = _followers(places, follows)
    edges += _both("title", "followed", "title", source, target)
    for relation in attributes:
        nodes[relation.name] = len(relation.values)
        edges += _both(relation.name, "of", "title", relation.value, relation.title)
    return nodes, edges


def _followers(places: Positions, follows: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    at = np.arange(len(places))
    sources, targets = [], []
    for step in range(1, follows + 1):
        kept = at[at + step < places.stop]
        sources.append(places.title[kept])
        targets.append(places.title[kept + step])
    return np.concatenate([*sources, np.zeros(0, np.int64)]), np.concatenate(
        [*targets, np.zeros(0, np.int64)]
    )


def _both(
    source_type: str,
    name: str,
    target_type: str,
    source: npt.NDArray[np.int64],
    target: npt.NDArray[np.int64],
) -> list[Edges]:
    """The relation and its reverse; none where there are no pairs."""
    if not len(source):
        return []
    return [
        Edges(triple=(source_type, name, target_type), source=source, target=target),
        Edges(triple=(target_type, f"{name}-back", source_type), source=target, target=source),
    ]


WATCHED = ("title", "watched-back", "member")


class Propagator(nn.Module):
    """Title vectors by relation-aware propagation.

    After He et al., "LightGCN", 2020 (no transforms between rounds, the rounds' mean read out), with a
    learned weight per relation and round, and attribute nodes that carry content to titles without
    watches. Members start from the titles they watched, so no parameter belongs to a member.
    """

    features: torch.Tensor

    def __init__(
        self,
        nodes: dict[str, int],
        edges: Sequence[Edges],
        *,
        width: int,
        layers: int,
        features: torch.Tensor,
    ) -> None:
        super().__init__()
        self.layers = layers
        self.start = nn.ParameterDict(
            {kind: nn.Parameter(torch.randn(n, width) * 0.1) for kind, n in nodes.items() if kind != "member"}
        )
        # Attributes begin weak: they matter where a title has few watches of its own.
        self.strength = nn.Parameter(torch.full((layers, len(edges)), 0.5))
        self.place = {relation.triple: column for column, relation in enumerate(edges)}
        self.statistics = nn.Linear(features.shape[1], width, bias=False) if features.shape[1] else None
        if self.statistics is not None:
            nn.init.normal_(self.statistics.weight, std=0.02)
        self.register_buffer("features", features, persistent=False)

    def forward(self, graph: Propagation, nodes: Mapping[str, torch.Tensor] | None = None) -> torch.Tensor:
        """Title vectors [titles, width].

        Args:
            nodes: the nodes of `graph` by type, int64 positions; None: all.
        """
        vectors: dict[str, torch.Tensor] = {
            kind: start if nodes is None else start[nodes[kind]] for kind, start in self.start.items()
        }
        if self.statistics is not None:
            features = self.features if nodes is None else self.features[nodes["title"]]
            vectors["title"] = vectors["title"] + self.statistics(features)
        rounds = [vectors["title"]]
        for layer in range(self.layers):
            if WATCHED in self.place:
                vectors["member"] = graph.gather(WATCHED, vectors["title"])
            arriving: dict[str, list[torch.Tensor]] = {}
            for triple, column in self.place.items():
                source, _, target = triple
                if target == "member" or (layer == self.layers - 1 and target != "title"):
                    continue
                message = graph.gather(triple, vectors[source]) * self.strength[layer, column]
                arriving.setdefault(target, []).append(message)
            for kind, messages in arriving.items():
                vectors[kind] = torch.stack(messages).sum(0)
            rounds.append(vectors["title"])
        return torch.stack(rounds).sum(0)


class Reader(nn.Module):
    """A member's vector out of the titles of a history: weighted by place, then mixed."""

    def __init__(self, *, width: int, length: int, recency: float) -> None:
        super().__init__()
        age = torch.arange(length - 1, -1, -1).float()
        self.log_weight = nn.Parameter(-age * math.log(2) / recency)
        self.mix = nn.Linear(width, width)
        nn.init.eye_(self.mix.weight)
        nn.init.zeros_(self.mix.bias)

    def forward(self, vectors: torch.Tensor, history: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
        """Member vectors [rows, width].

        Args:
            vectors: [titles, width].
            history: int64 [rows, length], right-aligned; any title where `kept` is 0.
            kept: float [rows, length], 1 at titles that are read.
        """
        weight = self.log_weight.exp() * kept
        weight = weight / (weight.sum(1, keepdim=True) + 1)
        read = nn.functional.embedding_bag(history, vectors, per_sample_weights=weight, mode="sum")
        mixed: torch.Tensor = self.mix(read)
        return mixed


class Network(nn.Module):
    """Everything that learns: propagation, the reading of histories, and a bias per title.

    Args:
        bias: float32 [titles], where the bias starts.
    """

    def __init__(self, propagator: Propagator, reader: Reader, bias: torch.Tensor) -> None:
        super().__init__()
        self.propagator, self.reader = propagator, reader
        self.bias = nn.Parameter(bias)
