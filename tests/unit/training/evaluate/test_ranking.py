import math

import numpy as np
import pytest
from evaluation_examples import cases, positions
from hypothesis import given
from hypothesis import strategies as st

from matinee.models.base import Query, Scores
from matinee.training import evaluate


def plain_top(scores: np.ndarray, seen: list[int], k: int) -> list[int]:
    unseen = [title for title in range(len(scores)) if title not in set(seen)]
    best = sorted(unseen, key=lambda title: (-scores[title], title))[:k]
    return best + [-1] * (k - len(best))


def query(members: int) -> Query:
    histories = positions(*[[i] for i in range(members)])
    return Query(histories=histories, times=[np.zeros(1, np.int64)] * members, now=np.arange(members))


def test_top_orders_equal_scores_by_position():
    scores = np.array([[1, 2, 2, 0, 2, 1]], np.float32)
    assert evaluate.top(scores, positions([1]), 4).tolist() == [[2, 4, 0, 5]]


def test_top_pads_where_few_titles_are_unseen():
    scores = np.zeros((2, 3), np.float32)
    assert evaluate.top(scores, positions([0, 2], [0, 1, 2]), 4).tolist() == [[1, -1, -1, -1], [-1] * 4]


def test_top_leaves_the_scores_as_they_are():
    scores = np.zeros((1, 50), np.float32)
    evaluate.top(scores, positions([3]), 4)
    assert not scores.any()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_top_refuses_scores_that_are_not_finite(value: float):
    with pytest.raises(ValueError, match="finite"):
        evaluate.top(np.array([[0.0, value]], np.float32), positions([]), 1)


@given(st.data())
def test_top_is_the_head_of_a_stable_full_sort(data: st.DataObject):
    titles = data.draw(st.integers(1, 12))
    row = st.lists(st.integers(-2, 2), min_size=titles, max_size=titles)
    scores = np.array(data.draw(st.lists(row, min_size=1, max_size=4)), np.float32)
    seen = [sorted(data.draw(st.sets(st.integers(0, titles - 1)))) for _ in scores]
    k = data.draw(st.integers(1, 15))
    lists = evaluate.top(scores, positions(*seen), k).tolist()
    assert lists == [plain_top(values, left_out, k) for values, left_out in zip(scores, seen, strict=True)]


@pytest.mark.parametrize("levels", [1, 2, 40, 10**6])
@pytest.mark.parametrize("titles", [21, 1_501])
def test_top_of_many_is_exact_from_all_scores_alike_to_all_apart(levels: int, titles: int):
    generator = np.random.default_rng(levels)
    scores = generator.integers(0, levels, (40, titles)).astype(np.float32)
    seen = [generator.choice(titles, generator.integers(0, titles // 2), False).tolist() for _ in scores]
    lists = evaluate.top(scores, positions(*seen)).tolist()
    assert lists == [plain_top(values, left_out, 20) for values, left_out in zip(scores, seen, strict=True)]


@given(st.integers(0, 1000))
def test_top_follows_its_titles_where_they_are_renamed(seed: int):
    generator = np.random.default_rng(seed)
    scores, renamed = generator.permutation(200).astype(np.float32)[None], generator.permutation(200)
    lists = evaluate.top(scores, positions([]), 5)
    assert np.array_equal(renamed[evaluate.top(scores[:, renamed], positions([]), 5)], lists)


def test_rank_in_batches_is_rank_at_once():
    scores = np.random.default_rng(5).integers(0, 4, (10, 30)).astype(np.float32)

    def score(part: Query) -> Scores:
        return scores[part.now]

    whole = evaluate.rank(score, query(10))
    assert np.array_equal(evaluate.rank(score, query(10), batch=3), whole)


def test_rank_among_some_titles_orders_only_those():
    scores = np.array([[5, 9, 1, 5, 7], [1, 2, 3, 4, 5]], np.float32)
    among = np.array([[0, 2, 3], [-1, -1, 2]], np.int32)
    lists = evaluate.rank(lambda part: scores[part.now], query(2), k=4, among=among)
    assert lists.tolist() == [[0, 3, 2, -1], [2, -1, -1, -1]]


@given(st.data())
def test_sampled_titles_are_the_relevant_ones_and_as_many_others_unknown_to_the_member(data: st.DataObject):
    titles = data.draw(st.integers(2, 15))
    order = data.draw(st.permutations(range(titles)))
    known, asked = data.draw(st.integers(0, titles - 1)), data.draw(st.integers(1, 3))
    history, relevant = order[:known], order[known : known + asked]
    asked_of = cases([history], [relevant], titles)
    row = evaluate.sampled_titles(asked_of, negatives=4, seed=data.draw(st.integers(0, 99)))[0].tolist()
    assert row == sorted(set(row))
    assert set(relevant) <= set(row)
    assert not set(row) & set(history)
    assert len(row) == len(relevant) + min(4, titles - known - len(relevant))


def test_sampled_titles_are_drawn_evenly():
    asked_of = cases([[0, 5]] * 3_000, [[2]] * 3_000, 8)
    drawn = evaluate.sampled_titles(asked_of, negatives=2, seed=0)
    counts = np.bincount(drawn.ravel(), minlength=8)
    assert counts[[0, 5]].tolist() == [0, 0]
    assert counts[2] == 3_000
    assert counts[[1, 3, 4, 6, 7]] == pytest.approx([1_200] * 5, rel=0.1)


def test_sampled_titles_of_a_member_with_few_unknown_ones_are_fewer():
    asked_of = cases([[0, 1, 2], []], [[3], [3]], 5)
    assert evaluate.sampled_titles(asked_of, negatives=4, seed=0).tolist() == [
        [-1, -1, -1, 3, 4],
        [0, 1, 2, 3, 4],
    ]
