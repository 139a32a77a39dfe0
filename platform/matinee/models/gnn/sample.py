"""Neighbour sampling: a small weighted graph whose sums are, on average, those of the whole one.

After Hamilton et al., "Inductive representation learning on large graphs", 2017. NumPy draws the edges, so
both ways to propagate see the same graph.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from matinee.models.gnn.graph import Edges, Triple

ROWS = 8192
"""Targets summed at a time where the whole graph is propagated without training."""

Ids = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Subgraph:
    """A part of a graph.

    Args:
        nodes: by type, int64 positions in the whole graph, ascending.
        edges: every relation of the whole graph, with weights; ends are positions in `nodes`.
    """

    nodes: Mapping[str, Ids]
    edges: Sequence[Edges]

    @property
    def sizes(self) -> dict[str, int]:
        """Count of nodes by type."""
        return {kind: len(ids) for kind, ids in self.nodes.items()}


class Neighbours:
    """A graph by targets: each node's sources of each relation.

    Args:
        nodes: count by type.
        edges: every relation, without weights.
    """

    def __init__(self, nodes: Mapping[str, int], edges: Sequence[Edges]) -> None:
        self._kinds = list(nodes)
        self._relations = {relation.triple: _Incoming(relation, nodes) for relation in edges}

    def sample(self, titles: Ids, *, fanout: int, rounds: int, generator: np.random.Generator) -> Subgraph:
        """What `rounds` of propagation to `titles` read, at most `fanout` edges a node and relation.

        A node with more edges keeps `fanout` drawn with replacement, weighing for all. Nodes at the rim
        have no incoming edges: only the vectors of `titles` are estimates of the whole graph's.
        """
        reached = {kind: np.zeros(0, np.int64) for kind in self._kinds} | {"title": np.unique(titles)}
        summed = {kind: np.zeros(0, np.int64) for kind in self._kinds}
        drawn = {triple: [_nothing(triple)] for triple in self._relations}

        def draw(kinds: Sequence[str]) -> None:
            fresh = {kind: np.setdiff1d(reached[kind], summed[kind]) for kind in kinds}
            for triple, incoming in self._relations.items():
                source, _, target = triple
                if target in fresh:
                    found = incoming.draw(fresh[target], fanout, generator)
                    drawn[triple].append(found)
                    reached[source] = np.union1d(reached[source], found.source)
            for kind in kinds:
                summed[kind] = np.union1d(summed[kind], fresh[kind])

        attributes = [kind for kind in self._kinds if kind not in ("title", "member")]
        for back in range(rounds):
            # The last round updates titles alone; a member is summed anew from titles in every round.
            draw(["title", *attributes] if back else ["title"])
            draw(["member"])
        edges = [
            Edges(
                triple=triple,
                source=np.searchsorted(reached[triple[0]], np.concatenate([e.source for e in parts])),
                target=np.searchsorted(reached[triple[2]], np.concatenate([e.target for e in parts])),
                weight=np.concatenate([e.weight for e in parts if e.weight is not None]),
            )
            for triple, parts in drawn.items()
        ]
        return Subgraph(nodes=reached, edges=edges)

    @torch.no_grad()
    def gather(self, triple: Triple, vectors: torch.Tensor) -> torch.Tensor:
        """See `graph.Propagation`: all edges, `ROWS` targets at a time, without gradients."""
        return self._relations[triple].gather(vectors)


class _Incoming:
    """One relation by targets."""

    def __init__(self, relation: Edges, nodes: Mapping[str, int]) -> None:
        self.triple = relation.triple
        into = np.bincount(relation.target, minlength=nodes[relation.triple[2]])
        self.bounds = np.concatenate([[0], np.cumsum(into)])
        self.sources = relation.source[np.argsort(relation.target, kind="stable")]
        self.out = np.bincount(relation.source, minlength=nodes[relation.triple[0]])

    def draw(self, targets: Ids, fanout: int, generator: np.random.Generator) -> Edges:
        """At most `fanout` edges into each target, weighing for all of its edges."""
        start = self.bounds[targets]
        held = self.bounds[targets + 1] - start
        kept = np.minimum(held, fanout)
        row = np.repeat(np.arange(len(targets)), kept)
        slot = np.arange(len(row)) - np.repeat(np.cumsum(kept) - kept, kept)
        any_edge = (generator.random(len(row)) * held[row]).astype(np.int64)
        source = self.sources[start[row] + np.where(held[row] > fanout, any_edge, slot)]
        weight = np.sqrt(held[row] / self.out[source]) / kept[row]
        return Edges(triple=self.triple, source=source, target=targets[row], weight=weight.astype(np.float32))

    def gather(self, vectors: torch.Tensor) -> torch.Tensor:
        scale = torch.from_numpy(np.maximum(self.out, 1) ** -0.5).to(vectors)
        scaled = vectors * scale[:, None]
        into = torch.from_numpy(np.maximum(np.diff(self.bounds), 1) ** -0.5).to(vectors)
        blocks = []
        for first in range(0, len(self.bounds) - 1, ROWS):
            bounds = self.bounds[first : first + ROWS + 1]
            sources = torch.from_numpy(self.sources[bounds[0] : bounds[-1]]).to(vectors.device)
            offsets = torch.from_numpy(bounds[:-1] - bounds[0]).to(vectors.device)
            blocks.append(functional.embedding_bag(sources, scaled, offsets, mode="sum"))
        return torch.cat(blocks) * into[:, None]


def _nothing(triple: Triple) -> Edges:
    none = np.zeros(0, np.int64)
    return Edges(triple=triple, source=none, target=none, weight=np.zeros(0, np.float32))
