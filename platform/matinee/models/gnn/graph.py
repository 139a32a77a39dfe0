"""The DGL door: a heterograph's relations, and weighted sums over them by DGL or by torch sparse.

DGL's compiled graphbolt knows only older torch releases and is never called here; an empty module takes
its place before DGL is imported.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from types import ModuleType
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse

from matinee.models.matrices import csr

Triple = tuple[str, str, str]


@dataclass(frozen=True, kw_only=True)
class Edges:
    """One relation of the graph.

    Args:
        triple: (source node type, relation, target node type).
        source: int64 [edges]; a pair that repeats weighs as often.
        target: int64 [edges].
        weight: float32 [edges]; None: 1 / sqrt(the source's edges of this relation x the target's).
    """

    triple: Triple
    source: npt.NDArray[np.int64]
    target: npt.NDArray[np.int64]
    weight: npt.NDArray[np.float32] | None = None


class Propagation(Protocol):
    """Weighted sums of source vectors at each relation's targets."""

    def gather(self, triple: Triple, vectors: torch.Tensor) -> torch.Tensor:
        """[sources, width] to [targets, width]: the sum over the target's edges of weight times source."""
        ...


def propagation(
    nodes: Mapping[str, int], edges: Sequence[Edges], *, backend: str, device: torch.device
) -> Propagation:
    """The graph of `edges` over `nodes` (count by type), ready to sum with `backend` on `device`.

    Torch sparse stands in for DGL on a GPU, and where DGL has no wheel for the machine.
    """
    if backend == "dgl" and device.type == "cpu" and find_spec("dgl"):
        return DglPropagation(nodes, edges)
    return SparsePropagation(nodes, edges, device)


def import_dgl() -> Any:
    """The dgl module."""
    # Without a named backend DGL writes a settings file into the user's home.
    os.environ.setdefault("DGLBACKEND", "pytorch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sys.modules.setdefault("dgl.graphbolt", ModuleType("dgl.graphbolt"))
        import dgl
        import dgl.ops
    return dgl


class DglPropagation:
    """Propagates over a DGL heterograph, on the CPU."""

    def __init__(self, nodes: Mapping[str, int], edges: Sequence[Edges]) -> None:
        dgl = import_dgl()
        pairs = {e.triple: (torch.from_numpy(e.source), torch.from_numpy(e.target)) for e in edges}
        self.graph = dgl.heterograph(pairs, num_nodes_dict=dict(nodes))
        self._ops = dgl.ops
        self._scales: dict[Triple, tuple[torch.Tensor, torch.Tensor]] = {}
        self._weights: dict[Triple, torch.Tensor] = {}
        for relation in edges:
            if relation.weight is not None:
                self._weights[relation.triple] = torch.from_numpy(relation.weight)[:, None]
                continue
            part = self.graph[relation.triple]
            # Plain sums between scaled nodes: ten times faster here than edge weights.
            self._scales[relation.triple] = _scale(part.out_degrees()), _scale(part.in_degrees())

    def gather(self, triple: Triple, vectors: torch.Tensor) -> torch.Tensor:
        """See `Propagation`."""
        part = self.graph[triple]
        if triple in self._weights:
            weighted: torch.Tensor = self._ops.u_mul_e_sum(part, vectors, self._weights[triple])
            return weighted
        out, into = self._scales[triple]
        result: torch.Tensor = self._ops.copy_u_sum(part, vectors * out) * into
        return result


def _scale(degrees: torch.Tensor) -> torch.Tensor:
    scale: torch.Tensor = degrees.clamp(min=1).float().rsqrt()[:, None]
    return scale


def degree_weights(relation: Edges, shape: tuple[int, int]) -> npt.NDArray[np.float32]:
    """1 / sqrt(the source's edges x the target's) of each edge, float32 [edges].

    Args:
        shape: (targets, sources).
    """
    into = np.bincount(relation.target, minlength=shape[0])[relation.target]
    out = np.bincount(relation.source, minlength=shape[1])[relation.source]
    weight: npt.NDArray[np.float32] = (1 / np.sqrt(into.astype(np.float64) * out)).astype(np.float32)
    return weight


class SparsePropagation:
    """Propagates by products with CSR matrices, on any device."""

    def __init__(self, nodes: Mapping[str, int], edges: Sequence[Edges], device: torch.device) -> None:
        self._matrices: dict[Triple, tuple[torch.Tensor, torch.Tensor]] = {}
        for relation in edges:
            shape = nodes[relation.triple[2]], nodes[relation.triple[0]]
            weight = degree_weights(relation, shape) if relation.weight is None else relation.weight
            matrix = sparse.csr_matrix((weight, (relation.target, relation.source)), shape=shape)
            self._matrices[relation.triple] = (csr(matrix, device), csr(matrix.T.tocsr(), device))

    def gather(self, triple: Triple, vectors: torch.Tensor) -> torch.Tensor:
        """See `Propagation`."""
        matrix, transpose = self._matrices[triple]
        result: torch.Tensor = _Product.apply(matrix, transpose, vectors)  # type: ignore[no-untyped-call]
        return result


class _Product(torch.autograd.Function):
    """matrix @ vectors, its gradient by the transpose that is at hand."""

    @staticmethod
    def forward(ctx: Any, matrix: torch.Tensor, transpose: torch.Tensor, vectors: torch.Tensor) -> Any:
        ctx.transpose = transpose
        return matrix @ vectors

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        return None, None, ctx.transpose @ gradients[0].contiguous()
