import math

import numpy as np
import pyarrow as pa
import pytest
from evaluation_examples import cases, positions
from hypothesis import given
from hypothesis import strategies as st

from matinee.schema import CATALOGUE_SCHEMA, Catalogue
from matinee.training import evaluate

DISCOUNT = [1 / math.log2(place + 2) for place in range(20)]


def catalogue(genres: list[list[str]]) -> Catalogue:
    rows = [
        {"title_id": f"t{i}", "name": f"Title {i}", "genres": names, "cast": [], "keywords": []}
        for i, names in enumerate(genres)
    ]
    return Catalogue(table=pa.Table.from_pylist(rows, schema=CATALOGUE_SCHEMA))


def listed(*titles: int) -> np.ndarray:
    return np.array([[*titles, *[-1] * (20 - len(titles))]], np.int32)


def test_metrics_of_a_list_worked_by_hand():
    genres = evaluate.genre_matrix(catalogue([["A"], ["A", "B"], ["B"], [], ["A"]]))
    judged = evaluate.outcome(listed(4, 0, 2, 1), cases([[]], [[0, 1, 3]], 5), genres)
    found = {name: value[0] for name, value in judged.values.items()}
    assert found["recall@20"] == pytest.approx(2 / 3)
    assert found["ndcg@20"] == pytest.approx((DISCOUNT[1] + DISCOUNT[3]) / sum(DISCOUNT[:3]))
    assert found["map@20"] == pytest.approx((1 / 2 + 2 / 4) / 3)
    assert found["mrr@20"] == 1 / 2
    assert found["hit@20"] == 1
    # pairs: 4-0 same, 4-2 and 0-2 disjoint, 4-1, 0-1 and 2-1 share one genre of two
    assert found["diversity"] == pytest.approx((0 + 1 + 1 + 0.5 + 0.5 + 0.5) / 6)
    assert evaluate.estimate(judged, seed=0)["coverage"].value == pytest.approx(4 / 5)


def test_novelty_and_popularity_worked_by_hand():
    # watches: title 0 by four members, 1 by two, 2 by one, 3 by none
    asked = cases([[0, 1], [0, 1], [0], [0, 2]], [[3], [3], [3], [3]], 4)
    lists = np.concatenate([listed(2, 3), listed(2), listed(1, 2, 3), listed(1)])
    values = evaluate.outcome(lists, asked, np.zeros((4, 1), np.bool_)).values
    assert values["novelty"] == pytest.approx([2, 2, (1 + 2 + 2) / 3, 1])
    assert values["popularity_lift"] == pytest.approx([0.5 / 3 - 1, 1 / 3 - 1, 1 / 4 - 1, 2 / 2.5 - 1])


def test_what_is_not_defined_is_left_out_of_the_mean():
    asked = cases([[0], []], [[1], [1]], 2)
    values = evaluate.outcome(np.concatenate([listed(1), listed()]), asked, np.zeros((2, 1), np.bool_)).values
    assert values["popularity_lift"][0] == -1
    assert np.isnan(values["popularity_lift"][1])
    assert np.isnan(values["novelty"][1])


@pytest.mark.parametrize(("shown", "expected"), [([0, 1], 0.0), ([0, 0], 0.5)])
def test_gini_is_0_where_titles_are_shown_alike_and_high_where_one_takes_all(shown, expected):
    asked = cases([[], []], [[0], [1]], 2)
    lists = np.concatenate([listed(title) for title in shown])
    judged = evaluate.outcome(lists, asked, np.zeros((2, 1), np.bool_))
    assert evaluate.estimate(judged, seed=0)["gini"].value == pytest.approx(expected)


def test_ndcg_at_10_ignores_later_places():
    values = evaluate.accuracy(np.arange(20, dtype=np.int32)[None], positions([10, 11]), 20)
    assert {
        name: values[f"{name}@10"][0] for name in ("ndcg", "recall", "map", "mrr", "hit")
    } == dict.fromkeys(("ndcg", "recall", "map", "mrr", "hit"), 0)
    assert values["ndcg@20"][0] > 0
    assert values["mrr@20"][0] == pytest.approx(1 / 11)


def test_the_best_of_lists_is_1_for_more_relevant_titles_than_places():
    values = evaluate.accuracy(np.arange(20, dtype=np.int32)[None], positions(range(25)), 30)
    assert values["recall@20"][0] == 20 / 25
    assert values["ndcg@20"][0] == values["map@20"][0] == pytest.approx(1)


def test_titles_without_genres_are_alike():
    lists = np.arange(20, dtype=np.int32)[None]
    judged = evaluate.outcome(lists, cases([[]], [[0]], 20), np.zeros((20, 0), np.bool_))
    assert judged.values["diversity"][0] == 0


def test_a_case_without_relevant_titles_is_refused():
    with pytest.raises(ValueError, match="relevant"):
        evaluate.accuracy(np.zeros((1, 20), np.int32), positions([]), 2)


def random_lists(members: int, titles: int, seed: int) -> tuple[np.ndarray, list[np.ndarray]]:
    generator = np.random.default_rng(seed)
    scores = generator.integers(0, 3, (members, titles)).astype(np.float32)
    relevant = [generator.permutation(titles)[: generator.integers(1, titles + 1)] for _ in range(members)]
    return evaluate.top(scores, positions(*[[]] * members)), positions(*relevant)


@given(st.integers(1, 6), st.integers(1, 30), st.integers(0, 1000))
def test_accuracy_equals_a_plain_count(members: int, titles: int, seed: int):
    lists, relevant = random_lists(members, titles, seed)
    values = evaluate.accuracy(lists, relevant, titles)
    for row in range(members):
        wanted = set(relevant[row].tolist())
        hits = [title in wanted for title in lists[row].tolist()]
        for k in (10, 20):
            ranks = [rank for rank, hit in enumerate(hits[:k], 1) if hit]
            ideal = sum(DISCOUNT[: min(k, len(wanted))])
            precisions = [sum(hits[:rank]) / rank for rank in ranks]
            expected = {
                "recall": len(ranks) / len(wanted),
                "ndcg": sum(DISCOUNT[rank - 1] for rank in ranks) / ideal,
                "map": sum(precisions) / min(k, len(wanted)),
                "mrr": 1 / ranks[0] if ranks else 0,
                "hit": float(bool(ranks)),
            }
            assert {name: values[f"{name}@{k}"][row] for name in expected} == pytest.approx(expected)


@given(st.integers(1, 6), st.integers(1, 30), st.integers(0, 1000))
def test_diversity_equals_a_plain_count(members: int, titles: int, seed: int):
    lists, relevant = random_lists(members, titles, seed)
    kinds = np.random.default_rng(seed).random((titles, 3)) < 0.5
    judged = evaluate.outcome(lists, cases([[]] * members, relevant, titles), kinds)
    for row in range(members):
        sets = [set(np.flatnonzero(kinds[title]).tolist()) for title in lists[row] if title >= 0]
        distances = [
            1 - len(a & b) / len(a | b) if a | b else 0.0 for i, a in enumerate(sets) for b in sets[i + 1 :]
        ]
        expected = sum(distances) / max(len(distances), 1)
        assert judged.values["diversity"][row] == pytest.approx(expected, abs=1e-6)


@given(st.integers(1, 6), st.integers(1, 30), st.integers(0, 1000))
def test_accuracy_keeps_its_laws(members: int, titles: int, seed: int):
    lists, relevant = random_lists(members, titles, seed)
    values = evaluate.accuracy(lists, relevant, titles)
    assert all(((value >= 0) & (value <= 1 + 1e-12)).all() for value in values.values())
    for k in (10, 20):
        hit = values[f"hit@{k}"]
        assert all((hit >= values[f"{name}@{k}"] - 1e-12).all() for name in ("recall", "ndcg", "map", "mrr"))
        assert all(
            ((values[f"{name}@{k}"] > 0) == (hit > 0)).all() for name in ("recall", "ndcg", "map", "mrr")
        )
    assert all((values[f"{name}@20"] >= values[f"{name}@10"]).all() for name in ("recall", "mrr", "hit"))
    order = np.random.default_rng(seed).permutation(members)
    shuffled = evaluate.accuracy(lists[order], [relevant[row][::-1] for row in order], titles)
    assert all(np.allclose(shuffled[name], value[order], rtol=1e-12) for name, value in values.items())
