"""Whether a step propagates over the whole graph or over sampled neighbours. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from matinee.models.gnn.graph import Edges

EDGE_BYTES = 24
"""Of an edge in memory: int64 source and float32 weight, in the matrix and in its transpose."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """How a step propagates, and why."""

    sampling: Literal["full", "neighbours"]
    reason: str


def choose(
    nodes: Mapping[str, int],
    edges: Sequence[Edges],
    *,
    asked: Literal["auto", "full", "neighbours"],
    width: int,
    layers: int,
    batch: int,
    limit_mib: int,
) -> Choice:
    """The whole graph where a step over it stays within `limit_mib`, or where it was asked for."""
    if asked != "auto":
        return Choice(sampling=asked, reason=f"sampling is set to {asked}")
    needed = full_bytes(nodes, edges, width=width, layers=layers, batch=batch) / 2**20
    size = f"{sum(nodes.values()):,} nodes and {sum(len(e.source) for e in edges):,} edges"
    side = "within" if needed <= limit_mib else "above"
    return Choice(
        sampling="full" if needed <= limit_mib else "neighbours",
        reason=f"a step over {size} takes about {needed:,.0f} MiB, {side} the limit of {limit_mib:,}",
    )


def full_bytes(
    nodes: Mapping[str, int], edges: Sequence[Edges], *, width: int, layers: int, batch: int
) -> int:
    """About what a training step over the whole graph holds at once, in bytes.

    The graph; each node's parameter, gradient and two moments; each round's message per relation and its
    gradient; the batch's scores of all titles, their exponentials and their gradient.
    """
    vectors = 4 * width * sum(nodes.values())
    messages = 4 * width * layers * sum(nodes[relation.triple[2]] for relation in edges)
    scores = 4 * batch * nodes["title"]
    graph = EDGE_BYTES * sum(len(relation.source) for relation in edges)
    return graph + 4 * vectors + 2 * messages + 3 * scores
