import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from matinee.models.base import Query, Scores
from matinee.schema import CATALOGUE_SCHEMA, Catalogue, Features, Interactions
from matinee.sources.dataset import Dataset
from matinee.training import evaluate

DISCOUNT = [1 / math.log2(place + 2) for place in range(20)]


def interactions(member: list[int], title: list[int], time: list[int] | None = None) -> Interactions:
    return Interactions(
        member_ids=[f"m{i}" for i in range(max(member, default=-1) + 1)],
        title_ids=[f"t{i}" for i in range(max(title, default=-1) + 1)],
        member=np.array(member, np.int32),
        title=np.array(title, np.int32),
        time=np.array(time or range(len(member)), np.int64),
        value=np.full(len(member), np.nan, np.float32),
    )


def positions(*rows: list[int]) -> list[np.ndarray]:
    return [np.array(row, np.int32) for row in rows]


def catalogue(genres: list[list[str]]) -> Catalogue:
    rows = [
        {"title_id": f"t{i}", "name": f"Title {i}", "genres": names, "cast": [], "keywords": []}
        for i, names in enumerate(genres)
    ]
    return Catalogue(table=pa.Table.from_pylist(rows, schema=CATALOGUE_SCHEMA))


def test_per_member_trains_on_the_first_four_fifths_of_each():
    split = evaluate.per_member(interactions([0, 1, 0, 0, 0, 0, 1], [0, 0, 1, 2, 3, 4, 5]))
    assert split.train_rows.tolist() == [0, 1, 2, 3, 4, 6]
    assert split.test_rows.tolist() == [5]


def test_per_member_rounds_up_and_keeps_arrival_order_of_ties():
    split = evaluate.per_member(interactions([0] * 6, [3, 1, 4, 0, 5, 2], [7] * 6))
    assert split.train.title.tolist() == [3, 1, 4, 0, 5]
    assert split.test.title.tolist() == [2]


def test_global_time_cuts_all_at_one_moment():
    split = evaluate.global_time(interactions([0, 0, 0, 1, 1, 2], [0, 1, 2, 0, 1, 0]))
    assert split.train_rows.tolist() == [0, 1, 2, 3, 4]
    assert split.test.member.tolist() == [2]


@pytest.mark.parametrize("share", [0.0, 1.0, -1.0, 2.0])
def test_share_outside_its_range_is_named(share: float):
    with pytest.raises(ValueError, match=str(share)):
        evaluate.per_member(interactions([0], [0]), share=share)


def test_cases_take_what_was_known_at_the_first_test_interaction():
    split = evaluate.global_time(
        interactions([0, 0, 0, 0, 1, 0], [0, 1, 2, 3, 0, 4], [10, 20, 30, 40, 50, 60])
    )
    features = Features(names=["plays"], values=np.array([[9.0]], np.float32))
    cases = evaluate.cases(split, member_features=features)
    assert cases.members.tolist() == [0]
    assert cases.query.histories[0].tolist() == [0, 1, 2, 3]
    assert cases.query.times[0].tolist() == [10, 20, 30, 40]
    assert cases.query.now.tolist() == [60]
    assert cases.query.member_features is not None
    assert cases.query.member_features.values.tolist() == [[9.0]]
    assert cases.relevant[0].tolist() == [4]
    assert cases.known.tolist() == [4]


def test_cases_give_a_cold_member_an_empty_history():
    cases = evaluate.cases(evaluate.global_time(interactions([0, 0, 0, 0, 1], [0, 1, 2, 3, 0])))
    assert cases.members.tolist() == [1]
    assert cases.known.tolist() == [0]


def test_top_orders_equal_scores_by_position():
    scores = np.array([[1, 2, 2, 0, 2, 1]], np.float32)
    assert evaluate.top(scores, positions([1]), 4).tolist() == [[2, 4, 0, 5]]


def test_top_pads_where_few_titles_are_unseen():
    scores = np.zeros((2, 3), np.float32)
    assert evaluate.top(scores, positions([0, 2], [0, 1, 2]), 4).tolist() == [[1, -1, -1, -1], [-1] * 4]


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
    for got, values, left_out in zip(evaluate.top(scores, positions(*seen), k), scores, seen, strict=True):
        unseen = [title for title in range(titles) if title not in left_out]
        best = sorted(unseen, key=lambda title: (-values[title], title))[:k]
        assert got.tolist() == best + [-1] * (k - len(best))


def test_rank_in_batches_is_rank_at_once():
    generator = np.random.default_rng(5)
    scores = generator.integers(0, 4, (10, 30)).astype(np.float32)
    query = Query(histories=positions(*[[i] for i in range(10)]), times=[], now=np.arange(10))
    query = Query(histories=query.histories, times=[np.zeros(1, np.int64)] * 10, now=query.now)

    def score(part: Query) -> Scores:
        return scores[part.now]

    whole = evaluate.rank(score, query)
    assert np.array_equal(evaluate.rank(score, query, batch=3), whole)


def test_metrics_of_a_list_worked_by_hand():
    lists = np.full((1, 20), -1, np.int32)
    lists[0, :4] = [4, 0, 2, 1]
    genres = evaluate.genre_matrix(catalogue([["A"], ["A", "B"], ["B"], [], ["A"]]))
    judged = evaluate.outcome(lists, positions([0, 1, 3]), genres)
    ideal = sum(DISCOUNT[:3])
    assert judged.values["recall@20"][0] == pytest.approx(2 / 3)
    assert judged.values["ndcg@20"][0] == pytest.approx((DISCOUNT[1] + DISCOUNT[3]) / ideal)
    # pairs: 4-0 same, 4-2 and 0-2 disjoint, 4-1, 0-1 and 2-1 share one genre of two
    assert judged.values["diversity"][0] == pytest.approx((0 + 1 + 1 + 0.5 + 0.5 + 0.5) / 6)
    assert evaluate.estimate(judged, seed=0)["coverage"].value == pytest.approx(4 / 5)


def test_ndcg_at_10_ignores_later_places():
    lists = np.arange(20, dtype=np.int32)[None]
    judged = evaluate.outcome(lists, positions([10, 11]), np.zeros((20, 1), np.bool_))
    assert judged.values["ndcg@10"][0] == 0
    assert judged.values["ndcg@20"][0] > 0


def test_titles_without_genres_are_alike():
    judged = evaluate.outcome(
        np.arange(20, dtype=np.int32)[None], positions([0]), np.zeros((20, 0), np.bool_)
    )
    assert judged.values["diversity"][0] == 0


def test_a_member_without_relevant_titles_is_refused():
    with pytest.raises(ValueError, match="relevant"):
        evaluate.outcome(np.zeros((1, 20), np.int32), positions([]), np.zeros((2, 1), np.bool_))


@given(st.integers(1, 6), st.integers(1, 30), st.integers(0, 1000))
def test_metrics_equal_a_plain_count(members: int, titles: int, seed: int):
    generator = np.random.default_rng(seed)
    scores = generator.integers(0, 3, (members, titles)).astype(np.float32)
    relevant = [generator.permutation(titles)[: generator.integers(1, titles + 1)] for _ in range(members)]
    kinds = generator.random((titles, 3)) < 0.5
    lists = evaluate.top(scores, positions(*[[]] * members))
    judged = evaluate.outcome(lists, positions(*relevant), kinds)
    for row in range(members):
        shown = [title for title in lists[row].tolist() if title >= 0]
        wanted = set(relevant[row].tolist())
        hits = [title in wanted for title in shown]
        assert judged.values["recall@20"][row] == pytest.approx(sum(hits) / len(wanted))
        for k in (10, 20):
            gained = sum(weight for weight, hit in zip(DISCOUNT[:k], hits[:k], strict=False) if hit)
            ideal = sum(DISCOUNT[: min(k, len(wanted))])
            assert judged.values[f"ndcg@{k}"][row] == pytest.approx(gained / ideal)
        sets = [set(np.flatnonzero(kinds[title]).tolist()) for title in shown]
        distances = [
            1 - len(a & b) / len(a | b) if a | b else 0.0 for i, a in enumerate(sets) for b in sets[i + 1 :]
        ]
        assert judged.values["diversity"][row] == pytest.approx(
            sum(distances) / max(len(distances), 1), abs=1e-6
        )


def outcome_of(values: list[float]) -> evaluate.Outcome:
    value = np.array(values)
    names = [name for name in evaluate.METRICS if name != "coverage"]
    lists = np.arange(len(values) * 20, dtype=np.int32).reshape(-1, 20) % 400
    return evaluate.Outcome(values=dict.fromkeys(names, value), lists=lists, titles=500)


def test_interval_has_the_width_theory_gives():
    values = np.random.default_rng(1).normal(0.3, 0.1, 2000)
    found = evaluate.estimate(outcome_of(values.tolist()), seed=0)["ndcg@20"]
    half = 1.96 * values.std() / math.sqrt(2000)
    assert found.value == pytest.approx(values.mean())
    assert found.high - found.value == pytest.approx(half, rel=0.15)
    assert found.value - found.low == pytest.approx(half, rel=0.15)


def test_coverage_interval_stands_around_its_value():
    found = evaluate.estimate(outcome_of([0.1] * 25), seed=0)["coverage"]
    assert found.value == pytest.approx(0.8)
    assert found.low < found.value < found.high


def test_estimates_repeat_with_their_seed():
    judged = outcome_of(np.random.default_rng(2).random(50).tolist())
    assert evaluate.estimate(judged, seed=3) == evaluate.estimate(judged, seed=3)
    assert evaluate.estimate(judged, seed=3) != evaluate.estimate(judged, seed=4)


def test_difference_is_paired():
    values = np.random.default_rng(2).random(50)
    gap = evaluate.difference(
        outcome_of((values + 0.01).tolist()), outcome_of(values.tolist()), "ndcg@20", seed=0
    )
    assert (gap.value, gap.low, gap.high) == pytest.approx((0.01, 0.01, 0.01))


def test_nobody_to_judge_is_an_error():
    with pytest.raises(ValueError, match="nothing to evaluate"):
        evaluate.estimate(outcome_of([0.0]).take(np.array([], np.intp)), seed=0)


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
    return evaluate.outcome(lists, cases.relevant, np.zeros((1682, 1), np.bool_)), cases


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
    judged = evaluate.outcome(lists, cases.relevant, np.zeros((1682, 1), np.bool_))
    assert judged.values["ndcg@20"].mean() == pytest.approx(0.2195, abs=5e-4)


def test_popularity_global_on_movielens_100k(movielens: Interactions):
    judged, cases = popularity(evaluate.global_time(movielens))
    ndcg = judged.values["ndcg@20"]
    assert len(cases) == 301
    assert ndcg.mean() == pytest.approx(0.315, abs=5e-4)
    assert ndcg[cases.known >= evaluate.WARM_EVENTS].mean() == pytest.approx(0.1485, abs=5e-5)
    assert ndcg[cases.known == 0].mean() == pytest.approx(0.407, abs=5e-4)
