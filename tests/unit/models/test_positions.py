from __future__ import annotations

import numpy as np
from contracts.model_contract import HOUR, START

from matinee.models.positions import positions
from matinee.schema import Interactions


def two_members() -> Interactions:
    """Member 1 watches 4, 5, 6 (a break before 6); member 0 watches 7, 8 in between."""
    return Interactions(
        member_ids=["a", "b"],
        title_ids=[f"t{i}" for i in range(9)],
        member=np.array([1, 0, 1, 0, 1], dtype=np.int32),
        title=np.array([4, 7, 5, 8, 6], dtype=np.int32),
        time=START + np.array([0, 1, 2, 3, 2 * HOUR], dtype=np.int64),
        value=np.full(5, np.nan, dtype=np.float32),
    )


def test_past_and_coming_stay_within_a_member() -> None:
    places = positions(two_members())
    assert places.title.tolist() == [7, 8, 4, 5, 6]
    at = np.array([2, 4])
    assert places.past(at, 3, empty=-1).tolist() == [[-1, -1, -1], [-1, 4, 5]]
    titles, weights = places.coming(at, 3, 0.5)
    assert titles[0].tolist() == [4, 5, 6]
    np.testing.assert_allclose(weights, [[4 / 7, 2 / 7, 1 / 7], [1, 0, 0]], rtol=1e-6)


def test_a_sitting_ends_with_a_break() -> None:
    assert positions(two_members()).sitting.tolist() == [0, 1, 0, 1, 0]
