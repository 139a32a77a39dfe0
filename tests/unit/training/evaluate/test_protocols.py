import numpy as np
import pytest
from evaluation_examples import interactions
from hypothesis import given
from hypothesis import strategies as st

from matinee.schema import Features
from matinee.training import evaluate

PAIRS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 6)), min_size=1, max_size=25, unique=True)


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


def test_leave_one_out_tests_the_last_and_then_the_last_but_one():
    watched = interactions([0, 1, 0, 2, 0, 1], [0, 0, 1, 0, 2, 3])
    tested = evaluate.leave_one_out(watched)
    assert tested.test_rows.tolist() == [4, 5]
    validated = evaluate.leave_one_out(tested.train)
    assert validated.test.title.tolist() == [1]
    assert evaluate.leave_one_out(watched, least=3).test_rows.tolist() == [4]


@given(PAIRS, st.sampled_from([evaluate.per_member, evaluate.global_time, evaluate.leave_one_out]))
def test_a_split_parts_its_interactions_and_knows_no_later_one_of_a_member(pairs, divide):
    watched = interactions(*zip(*pairs, strict=True))
    split = divide(watched)
    assert sorted([*split.train_rows, *split.test_rows]) == list(range(len(watched)))
    for member in range(len(watched.member_ids)):
        known = split.train.time[split.train.member == member]
        asked = split.test.time[split.test.member == member]
        assert max(known, default=-1) < min(asked, default=len(watched))


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
    assert cases.known.tolist() == cases.trained.tolist() == [4]
    assert cases.watches.tolist() == [2, 1, 1, 1, 0]
    assert cases.watchers == 2


def test_cases_give_a_cold_member_an_empty_history():
    cases = evaluate.cases(evaluate.global_time(interactions([0, 0, 0, 0, 1], [0, 1, 2, 3, 0])))
    assert cases.members.tolist() == [1]
    assert cases.known.tolist() == [0]


@given(PAIRS, st.integers(1, 9))
def test_replay_asks_about_each_event_from_everything_before_it(pairs, tenths):
    watched = interactions(*zip(*pairs, strict=True))
    split = evaluate.global_time(watched, share=tenths / 10)
    values = split.test_rows[:, None].astype(np.float32)
    cases = evaluate.replay(split, member_features=Features(names=["row"], values=values))
    assert len(cases) == len(split.test)
    for case, row in enumerate(split.test_rows.tolist()):
        member, title = pairs[row]
        before = [i for i in range(row) if pairs[i][0] == member]
        assert cases.members[case] == member
        assert cases.query.histories[case].tolist() == [pairs[i][1] for i in before]
        assert cases.query.times[case].tolist() == before
        assert cases.query.now[case] == row
        assert cases.query.member_features.values[case, 0] == row
        assert cases.relevant[case].tolist() == [title]
        assert cases.trained[case] == (split.train.member == member).sum()
    assert cases.watches.tolist() == np.bincount(split.train.title, minlength=cases.titles).tolist()


def test_replay_of_many_is_a_sample_that_repeats_with_its_seed():
    split = evaluate.global_time(interactions(list(range(100)), [0] * 100), share=0.5)
    drawn = evaluate.replay(split, limit=10, seed=1)
    assert len(np.unique(drawn.query.now)) == 10
    assert drawn.query.now.tolist() == evaluate.replay(split, limit=10, seed=1).query.now.tolist()
    assert drawn.query.now.tolist() != evaluate.replay(split, limit=10, seed=2).query.now.tolist()


def test_replay_refuses_a_split_that_is_not_one_in_time():
    split = evaluate.per_member(interactions([0, 0, 1, 1], [0, 1, 0, 1]), share=0.5)
    with pytest.raises(ValueError, match="split in time"):
        evaluate.replay(split)


def test_a_subset_of_a_replay_keeps_its_rows():
    query = evaluate.replay(evaluate.global_time(interactions([0] * 6, range(6)), share=0.5)).query
    part = evaluate.subset(query, np.array([2, 0]))
    assert [history.tolist() for history in part.histories] == [[0, 1, 2, 3, 4], [0, 1, 2]]
    assert part.now.tolist() == [5, 3]
    assert [history.tolist() for history in query.histories[1:]] == [[0, 1, 2, 3], [0, 1, 2, 3, 4]]
