import numpy as np
import pytest
from evaluation_examples import cases, interactions

from matinee.training import evaluate

GENRES = np.array([[1, 0], [1, 0], [0, 1], [0, 1], [1, 1], [0, 0]], np.bool_)
ASKED = cases([[], [0], [0, 1], [0, 1, 2, 3]], [[0], [5], [4, 5], [4]], 6)


def test_members_are_new_light_or_heavy():
    found = evaluate.member_segments(ASKED)
    assert {name: segment.cases.tolist() for name, segment in found.items()} == {
        "new members": [True, False, False, False],
        "light members": [False, True, True, False],
        "heavy members": [False, False, False, True],
    }


def test_what_is_known_of_members_makes_segments():
    found = evaluate.member_segments(ASKED, {"country": ["SE", None, "DE", "SE"]})
    assert found["country SE"].cases.tolist() == [True, False, False, True]
    assert found["country DE"].cases.tolist() == [False, False, True, False]
    assert len(found) == 5


def test_members_of_a_replay_are_told_apart_by_what_the_model_learned():
    split = evaluate.global_time(interactions([0, 1, 1, 1], [0, 0, 1, 2]), share=0.25)
    assert evaluate.member_segments(evaluate.replay(split))["new members"].cases.tolist() == [True] * 3


def test_titles_are_new_or_of_a_genre():
    found = evaluate.title_segments(ASKED, GENRES, ["A", "B"])
    assert found["new titles"].titles.tolist() == [False] * 4 + [True] * 2
    assert found["genre A"].titles.tolist() == [True, True, False, False, True, False]
    assert list(found) == ["new titles", "genre A", "genre B"]


def test_within_a_segment_only_its_cases_and_its_titles_count():
    lists = np.full((4, 20), -1, np.int32)
    lists[:, :2] = [[1, 0], [2, 3], [5, 3], [5, 4]]
    judged = evaluate.outcome(lists, ASKED, GENRES)
    members = evaluate.within(evaluate.member_segments(ASKED)["light members"], judged, ASKED)
    assert members.members.tolist() == [1, 2]
    assert members.values["recall@20"].tolist() == [0, 0.5]
    assert members.values["diversity"].shape == (2,)
    titles = evaluate.within(evaluate.title_segments(ASKED, GENRES, ["A", "B"])["genre A"], judged, ASKED)
    assert titles.members.tolist() == [0, 2, 3]
    assert titles.values["recall@20"].tolist() == [1, 0, 1]
    assert titles.values["mrr@20"] == pytest.approx([1 / 2, 0, 1 / 2])
    assert set(titles.values) == set(evaluate.ACCURACY)
