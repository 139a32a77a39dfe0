"""Figures of simple models on real data, known from elsewhere."""

import numpy as np
import pytest

from matinee.schema import Interactions
from matinee.sources.dataset import Dataset
from matinee.training import evaluate


@pytest.fixture(scope="module")
def movielens(movielens_100k: Dataset) -> Interactions:
    table = movielens_100k.events
    members = {name: i for i, name in enumerate(sorted(set(table["member_id"].to_pylist())))}
    titles = {name: i for i, name in enumerate(movielens_100k.catalogue.title_ids)}
    return Interactions(
        member_ids=list(members),
        title_ids=list(titles),
        member=np.array([members[name] for name in table["member_id"].to_pylist()], np.int32),
        title=np.array([titles[name] for name in table["title_id"].to_pylist()], np.int32),
        time=table["event_time"].cast("int64").to_numpy(),
        value=table["value"].to_numpy().astype(np.float32),
    )


def popularity(split: evaluate.Split) -> tuple[evaluate.Outcome, evaluate.Cases]:
    counts = np.bincount(split.train.title, minlength=1682).astype(np.float32)
    cases = evaluate.cases(split)
    lists = evaluate.rank(lambda query: np.tile(counts, (len(query), 1)), cases.query)
    return evaluate.outcome(lists, cases, np.zeros((1682, 1), np.bool_)), cases


def test_popularity_per_member_on_movielens_100k(movielens: Interactions):
    judged, cases = popularity(evaluate.per_member(movielens))
    assert len(cases) == 943
    found = evaluate.estimate(judged, seed=0)["ndcg@20"]
    assert found.value == pytest.approx(0.1221, abs=5e-5)
    assert found.low < 0.1221 < found.high


def test_ease_per_member_on_movielens_100k(movielens: Interactions):
    split = evaluate.per_member(movielens)
    watched = np.zeros((943, 1682), np.float32)
    watched[split.train.member, split.train.title] = 1
    gram = (watched.T @ watched).astype(np.float64) + 100 * np.eye(1682)
    inverse = np.linalg.inv(gram)
    weights = inverse / -np.diag(inverse)
    np.fill_diagonal(weights, 0)
    cases = evaluate.cases(split)
    scores = (watched @ weights).astype(np.float32)
    lists = evaluate.top(scores[cases.members], cases.query.histories)
    judged = evaluate.outcome(lists, cases, np.zeros((1682, 1), np.bool_))
    assert judged.values["ndcg@20"].mean() == pytest.approx(0.2195, abs=5e-4)


def test_popularity_global_on_movielens_100k(movielens: Interactions):
    judged, cases = popularity(evaluate.global_time(movielens))
    ndcg = judged.values["ndcg@20"]
    assert len(cases) == 301
    assert ndcg.mean() == pytest.approx(0.315, abs=5e-4)
    assert ndcg[cases.known >= evaluate.WARM_EVENTS].mean() == pytest.approx(0.1485, abs=5e-5)
    assert ndcg[cases.known == 0].mean() == pytest.approx(0.407, abs=5e-4)
