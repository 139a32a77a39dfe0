from __future__ import annotations

import numpy as np
import torch
from contracts.model_contract import START, ModelContract, hit_rate, query, training_set

from matinee.models.base import Model, Query
from matinee.models.dnn import SPEC
from matinee.models.dnn.network import MemberTower
from matinee.models.popularity.config import PopularityConfig
from matinee.models.popularity.model import Popularity
from matinee.schema import Features


class TestDnn(ModelContract):
    def build(self) -> Model:
        return SPEC.model(SPEC.presets["test"])

    def test_beats_popularity(self) -> None:
        popularity = Popularity(PopularityConfig())
        popularity.fit(training_set(), seed=0)
        assert hit_rate(self.fitted(), training_set()) > 1.5 * hit_rate(popularity, training_set())

    def test_the_order_of_a_history_matters(self) -> None:
        titles, times = np.arange(5, dtype=np.int32), START + np.arange(5, dtype=np.int64)
        asked = Query(histories=[titles, titles[::-1]], times=[times, times], now=np.full(2, START + 9))
        scores = self.fitted().score(asked)
        assert not np.allclose(scores[0], scores[1])

    def test_features_are_read_by_name(self) -> None:
        asked = query(training_set(), members=5)
        given = asked.member_features
        assert given is not None
        turned = Features(names=given.names[::-1], values=given.values[:, ::-1])
        other = Query(histories=asked.histories, times=asked.times, now=asked.now, member_features=turned)
        np.testing.assert_array_equal(self.fitted().score(asked), self.fitted().score(other))


def test_a_state_sees_no_later_title() -> None:
    torch.manual_seed(0)
    tower = MemberTower(width=8, heads=2, layers=2, length=6, recency=3, dropout=0.5, features=0).eval()
    titles, known = torch.randn(1, 6, 8), torch.ones(1, 6, dtype=torch.bool)
    changed = titles.clone()
    changed[0, 4:] = torch.randn(2, 8)
    with torch.no_grad():
        before, after = tower.encode(titles, known), tower.encode(changed, known)
    torch.testing.assert_close(before[:, :5], after[:, :5])
    assert not torch.allclose(before[:, 5], after[:, 5])
