from __future__ import annotations

from collections.abc import Callable

import numpy as np

from matinee.monitoring.exposures import parse
from matinee.monitoring.window import VERSIONS, Window

Message = Callable[..., bytes]


def test_a_row_is_the_features_and_the_two_scores(message: Message) -> None:
    window = Window(10)
    titles = [{"title_id": str(i), "position": i, "score": 30 - i} for i in range(30)]
    window.add(parse(message(titles=titles)))
    (row,) = window.frame("recommender/1").to_dict("records")
    assert row["plays_1h"] == 3
    assert np.isnan(row["affinity[Drama]"])
    assert row["score_top"] == 30
    assert row["score_mean"] == np.mean(np.arange(30, 10, -1))


def test_a_page_counts_by_its_best_titles_and_a_fallback_not_at_all(message: Message) -> None:
    window = Window(10)
    titles = [
        {"title_id": str(i), "position": i, "score": float(score)} for i, score in enumerate((99, 3, 7))
    ]
    rows = [
        {"kind": "continue_watching", "because": None, "first": 0, "count": 1},
        {"kind": "top_picks", "because": None, "first": 1, "count": 2},
    ]
    window.add(parse(message(titles=titles, rows=rows)))
    window.add(parse(message(fallback="part:cf")))
    (row,) = window.frame("recommender/1").to_dict("records")
    assert (row["score_top"], row["score_mean"]) == (7, 5)


def test_is_bounded_and_keeps_the_newest(message: Message) -> None:
    window = Window(100)
    for number in range(250):
        window.add(parse(message(number, features={"n": number})))
    assert window.rows("recommender/1") == 100
    assert window.frame("recommender/1")["n"].min() == 150


def test_a_member_counts_once_with_the_latest_answer(message: Message) -> None:
    window = Window(100)
    for number in range(9):
        window.add(parse(message(number, member_id=f"m{number % 3}", features={"n": number})))
    assert sorted(window.frame("recommender/1")["n"]) == [6, 7, 8]
    assert window.rows("recommender/1") == 9


def test_cold_starts_are_counted_and_left_out(message: Message) -> None:
    window = Window(100)
    for number in range(4):
        answer = "cold_start" if number == 0 else "personal"
        window.add(parse(message(number, answer=answer, features={} if number == 0 else {"n": 1})))
    assert window.cold_share("recommender/1") == 0.25
    assert len(window.frame("recommender/1")) == 3


def test_versions_are_apart_and_few(message: Message) -> None:
    window = Window(100)
    for number in range(VERSIONS + 2):
        window.add(parse(message(number, model_version=f"recommender/{number}")))
    assert window.rows("recommender/0") == 0
    assert window.rows(f"recommender/{VERSIONS + 1}") == 1
    assert window.newest == f"recommender/{VERSIONS + 1}"


def test_of_an_unknown_version_nothing(message: Message) -> None:
    window = Window(100)
    assert window.newest == ""
    assert window.frame("x").empty
    assert window.cold_share("x") is None


def test_a_copy_does_not_move(message: Message) -> None:
    window = Window(100)
    window.add(parse(message(0)))
    copy = window.copy()
    window.add(parse(message(1)))
    assert (copy.rows("recommender/1"), window.rows("recommender/1")) == (1, 2)


def test_an_answer_without_titles_has_no_scores(message: Message) -> None:
    window = Window(100)
    window.add(parse(message(titles=[])))
    assert "score_top" not in window.frame("recommender/1")
