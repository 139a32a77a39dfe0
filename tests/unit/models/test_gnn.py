from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from contracts.model_contract import TITLES, ModelContract, hit_rate, query, training_set

from matinee.models.base import Model
from matinee.models.gnn import SPEC
from matinee.models.gnn.graph import DglPropagation, Edges, SparsePropagation
from matinee.models.gnn.network import graph_edges
from matinee.models.popularity.config import PopularityConfig
from matinee.models.popularity.model import Popularity
from matinee.models.positions import positions

CPU = torch.device("cpu")


class TestGnn(ModelContract):
    def build(self) -> Model:
        return SPEC.model(SPEC.presets["test"])

    def test_beats_popularity(self) -> None:
        popularity = Popularity(PopularityConfig())
        popularity.fit(training_set(), seed=0)
        assert hit_rate(self.fitted(), training_set()) > 1.5 * hit_rate(popularity, training_set())

    def test_both_backends_train_the_same_model(self) -> None:
        pytest.importorskip("dgl")
        preset = replace(SPEC.presets["test"], backend="torch", steps=10)
        torch_model = SPEC.model(preset)
        dgl_model = SPEC.model(replace(preset, backend="dgl"))
        for model in (torch_model, dgl_model):
            model.fit(training_set(), seed=3)
        asked = query(training_set())
        np.testing.assert_allclose(torch_model.score(asked), dgl_model.score(asked), rtol=1e-3, atol=1e-3)


def test_both_backends_sum_alike_and_have_like_gradients() -> None:
    pytest.importorskip("dgl")
    data = training_set()
    nodes, edges = graph_edges(data, positions(data.interactions), 3)
    by_dgl, by_torch = DglPropagation(nodes, edges), SparsePropagation(nodes, edges, CPU)
    for relation in edges:
        left = torch.randn(nodes[relation.triple[0]], 8, requires_grad=True)
        right = left.detach().clone().requires_grad_()
        sums = by_dgl.gather(relation.triple, left), by_torch.gather(relation.triple, right)
        torch.testing.assert_close(*sums, rtol=1e-4, atol=1e-5)
        pull = torch.randn_like(sums[0])
        for total in sums:
            (total * pull).sum().backward()
        torch.testing.assert_close(left.grad, right.grad, rtol=1e-4, atol=1e-5)


def test_sums_are_normalised_by_both_degrees() -> None:
    source, target = np.array([0, 1, 1]), np.array([0, 0, 1])
    edges = [Edges(triple=("a", "of", "b"), source=source, target=target)]
    summed = SparsePropagation({"a": 2, "b": 2}, edges, CPU).gather(
        ("a", "of", "b"), torch.tensor([[1.0], [2.0]])
    )
    expected = [[1 / 2**0.5 + 2 / 2], [2 / 2**0.5]]
    np.testing.assert_allclose(summed.numpy(), expected, rtol=1e-6)


def test_content_reaches_titles_nobody_watched() -> None:
    data = training_set()
    _, edges = graph_edges(data, positions(data.interactions), 3)
    into = {edge.triple[0]: set(edge.target.tolist()) for edge in edges if edge.triple[2] == "title"}
    unseen = set(range(TITLES)) - set(data.interactions.title.tolist())
    assert unseen
    assert unseen <= into["genre"] | into["decade"] | into["language"]
    assert not unseen & into["member"]
