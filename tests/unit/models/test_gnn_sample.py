from __future__ import annotations

import numpy as np
import pytest
import torch
from contracts.model_contract import MEMBERS, TITLES, training_set
from hypothesis import given, settings
from hypothesis import strategies as st

from matinee.models.content import relations
from matinee.models.gnn.graph import Edges, SparsePropagation, propagation
from matinee.models.gnn.network import Propagator, graph_edges
from matinee.models.gnn.sample import Neighbours
from matinee.models.positions import positions

CPU = torch.device("cpu")
OF = ("a", "of", "title")


def whole() -> tuple[dict[str, int], list[Edges]]:
    data = training_set()
    return graph_edges(
        positions(data.interactions), relations(data.catalogue), members=MEMBERS, titles=TITLES, follows=2
    )


@given(layers=st.integers(1, 3), seed=st.integers(0, 99), backend=st.sampled_from(["dgl", "torch"]))
@settings(max_examples=12)
def test_with_every_neighbour_the_titles_asked_for_are_those_of_the_whole_graph(
    layers: int, seed: int, backend: str
) -> None:
    nodes, edges = whole()
    generator = np.random.default_rng(seed)
    titles = generator.choice(TITLES, 5, replace=False)
    propagator = Propagator(nodes, edges, width=4, layers=layers, features=torch.zeros(TITLES, 0))
    part = Neighbours(nodes, edges).sample(titles, fanout=10_000, rounds=layers, generator=generator)
    kept = {kind: torch.from_numpy(ids) for kind, ids in part.nodes.items()}
    with torch.no_grad():
        expected = propagator(propagation(nodes, edges, backend="torch", device=CPU))[titles]
        found = propagator(propagation(part.sizes, part.edges, backend=backend, device=CPU), kept)
    at = np.searchsorted(part.nodes["title"], titles)
    torch.testing.assert_close(found[at], expected, rtol=1e-4, atol=1e-5)


def test_sampled_sums_are_those_of_all_edges_on_average() -> None:
    generator = np.random.default_rng(0)
    source, target = generator.integers(0, 30, 200), generator.integers(0, 3, 200)
    nodes, edges = {"member": 0, "title": 3, "a": 30}, [Edges(triple=OF, source=source, target=target)]
    vectors = torch.from_numpy(generator.normal(size=(30, 2)))
    expected = SparsePropagation(nodes, edges, CPU).gather(OF, vectors.float()).numpy()
    neighbours = Neighbours(nodes, edges)
    sums = []
    for _ in range(2000):
        part = neighbours.sample(np.arange(3), fanout=8, rounds=1, generator=generator)
        edge = part.edges[0]
        assert np.bincount(edge.target, minlength=3).max() == 8
        taken = vectors.numpy()[part.nodes["a"]][edge.source] * edge.weight[:, None]
        sums.append([taken[edge.target == title].sum(0) for title in range(3)])
    spread = np.std(sums, axis=0) / np.sqrt(len(sums))
    assert (np.abs(np.mean(sums, axis=0) - expected) < 4 * spread).all()


def test_gathers_all_edges_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("matinee.models.gnn.sample.ROWS", 7)
    nodes, edges = whole()
    neighbours, expected = Neighbours(nodes, edges), SparsePropagation(nodes, edges, CPU)
    for relation in edges:
        vectors = torch.randn(nodes[relation.triple[0]], 3)
        torch.testing.assert_close(
            neighbours.gather(relation.triple, vectors),
            expected.gather(relation.triple, vectors),
            rtol=1e-4,
            atol=1e-5,
        )
