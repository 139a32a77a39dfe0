from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from contracts.model_contract import MEMBERS, TITLES, ModelContract, hit_rate, query, training_set

from matinee.errors import ConfigError
from matinee.models.base import Model, Scores, Start, TrainingSet
from matinee.models.content import relations
from matinee.models.gnn import SPEC
from matinee.models.gnn.graph import DglPropagation, Edges, SparsePropagation
from matinee.models.gnn.model import GraphNetwork
from matinee.models.gnn.network import graph_edges
from matinee.models.popularity.config import PopularityConfig
from matinee.models.popularity.model import Popularity
from matinee.models.positions import positions
from matinee.schema import Catalogue

CPU = torch.device("cpu")
TEST = SPEC.presets["test"]


def graph(data: TrainingSet) -> tuple[dict[str, int], list[Edges]]:
    return graph_edges(
        positions(data.interactions), relations(data.catalogue), members=MEMBERS, titles=TITLES, follows=3
    )


def fitted(data: TrainingSet, *, start: Start | None = None, **changes: object) -> GraphNetwork:
    model = GraphNetwork(replace(TEST, **changes))
    model.fit(data, seed=3, start=start)
    return model


class TestGnn(ModelContract):
    def build(self) -> Model:
        return SPEC.model(TEST)

    def test_beats_popularity(self) -> None:
        popularity = Popularity(PopularityConfig())
        popularity.fit(training_set(), seed=0)
        assert hit_rate(self.fitted(), training_set()) > 1.5 * hit_rate(popularity, training_set())


class TestSampledGnn(ModelContract):
    def build(self) -> Model:
        return SPEC.model(replace(TEST, memory_mib=0, fanout=4, layers=2))

    def test_beats_popularity(self) -> None:
        popularity = Popularity(PopularityConfig())
        popularity.fit(training_set(), seed=0)
        assert hit_rate(self.fitted(), training_set()) > 1.5 * hit_rate(popularity, training_set())


@pytest.mark.parametrize("sampling", ["full", "neighbours"])
def test_both_backends_train_the_same_model(sampling: str) -> None:
    pytest.importorskip("dgl")
    asked = query(training_set())
    by_torch, by_dgl = (
        fitted(training_set(), backend=backend, sampling=sampling, steps=10).score(asked)
        for backend in ("torch", "dgl")
    )
    np.testing.assert_allclose(by_torch, by_dgl, rtol=1e-3, atol=1e-3)


def test_sampling_every_neighbour_trains_as_the_whole_graph_does() -> None:
    # Every title is offered in a batch this large, but those that nobody watched.
    asked = query(training_set())
    whole, sampled = (
        fitted(training_set(), sampling=sampling, fanout=10_000, steps=10, batch=2048).score(asked)
        for sampling in ("full", "neighbours")
    )
    watched = np.unique(training_set().interactions.title)
    whole, sampled = (score[:, watched] - score[:, watched].mean() for score in (whole, sampled))
    assert np.abs(whole - sampled).max() < 0.05 * whole.std()


def test_goes_on_from_an_earlier_model_on_another_catalogue(tmp_path: Path) -> None:
    data = training_set(features=False)
    fitted(data).save(tmp_path)
    # The first title leaves, the others move up.
    left = data.interactions.title > 0
    kept = data.interactions.take(left)
    later = TrainingSet(
        interactions=replace(kept, title=kept.title - 1, title_ids=kept.title_ids[1:]),
        catalogue=Catalogue(table=data.catalogue.table.slice(1)),
    )
    start = Start(model=GraphNetwork.load(tmp_path), titles=np.arange(1, TITLES))
    before = fitted(data).score(query(data, features=False))[:, 1:]
    histories = [history[history > 0] - 1 for history in query(data).histories]
    asked = replace(query(data, features=False), histories=histories)
    short = {"further_steps": 1, "steps": 1, "learning_rate": 1e-6}
    going_on, anew = (fitted(later, start=each, **short).score(asked) for each in (start, None))

    def alike(scores: Scores) -> float:
        return float(np.corrcoef(scores.ravel(), before.ravel())[0, 1])

    assert alike(going_on) > 0.95 > alike(anew) + 0.3


def test_a_new_title_starts_as_it_would_in_a_new_model() -> None:
    data = training_set()
    first = fitted(data)
    titles = np.where(np.arange(TITLES) == 5, -1, np.arange(TITLES))
    learned = fitted(data, start=Start(model=first, titles=titles), further_steps=0)._learned
    anew = fitted(data, steps=0)._learned
    for name in ("propagator.start.title", "bias"):
        np.testing.assert_array_equal(learned.arrays[name][5], anew.arrays[name][5])
        np.testing.assert_array_equal(learned.arrays[name][6], first._learned.arrays[name][6])


def test_refuses_to_go_on_from_another_shape() -> None:
    start = Start(model=GraphNetwork(replace(TEST, width=8)), titles=np.arange(TITLES))
    with pytest.raises(ConfigError, match="width is 16, 8 in the model"):
        fitted(training_set(), start=start)


def test_refuses_to_go_on_from_another_model() -> None:
    start = Start(model=Popularity(PopularityConfig()), titles=np.arange(TITLES))
    with pytest.raises(ConfigError, match="go on from a Popularity"):
        fitted(training_set(), start=start)


def test_both_backends_sum_alike_and_have_like_gradients() -> None:
    pytest.importorskip("dgl")
    nodes, edges = graph(training_set())
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
    _, edges = graph(data)
    into = {edge.triple[0]: set(edge.target.tolist()) for edge in edges if edge.triple[2] == "title"}
    unseen = set(range(TITLES)) - set(data.interactions.title.tolist())
    assert unseen
    assert unseen <= into["genre"] | into["decade"] | into["language"]
    assert not unseen & into["member"]


def test_embeddings_are_of_length_one_in_the_width_asked() -> None:
    found = fitted(training_set(), steps=1).embeddings()
    assert found.shape == (TITLES, 256)
    assert found.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-5)
