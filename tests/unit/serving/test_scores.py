from __future__ import annotations

import numpy as np

from matinee.serving.scores import EveryTitle


def test_the_best_come_by_score_then_by_place() -> None:
    values = np.array([1, 5, 3, 5, 0], np.float32)
    scores = EveryTitle(values=values, parts={"a": values * 0.5, "b": values * 0.5})
    assert scores.best(np.array([True, True, True, True, False]), 3).tolist() == [1, 3, 2]
    assert scores.ranked(np.array([4, 3, 2, 1]), 2).tolist() == [1, 3]
    assert scores.at(np.array([2, 0])).tolist() == [3, 1]
    assert {name: part.tolist() for name, part in scores.parts_at(np.array([2])).items()} == {
        "a": [1.5],
        "b": [1.5],
    }
