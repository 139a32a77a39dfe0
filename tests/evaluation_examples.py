"""Small inputs of the evaluator, for its tests."""

from collections.abc import Sequence

import numpy as np

from matinee.schema import Interactions
from matinee.training import evaluate


def interactions(member: Sequence[int], title: Sequence[int], time: Sequence[int] = ()) -> Interactions:
    return Interactions(
        member_ids=[f"m{i}" for i in range(max(member, default=-1) + 1)],
        title_ids=[f"t{i}" for i in range(max(title, default=-1) + 1)],
        member=np.array(member, np.int32),
        title=np.array(title, np.int32),
        time=np.array(time or range(len(member)), np.int64),
        value=np.full(len(member), np.nan, np.float32),
    )


def positions(*rows: Sequence[int]) -> list[np.ndarray]:
    return [np.array(row, np.int32) for row in rows]


def cases(
    histories: Sequence[Sequence[int]], relevant: Sequence[Sequence[int]], titles: int
) -> evaluate.Cases:
    """Members who are asked once each: what they watched first, and what they watch next."""
    known = [(member, title) for member, row in enumerate(histories) for title in row]
    asked = [(member, title) for member, row in enumerate(relevant) for title in row]
    rows = np.array(known + asked, np.int32).reshape(-1, 2)
    whole = Interactions(
        member_ids=[f"m{i}" for i in range(len(histories))],
        title_ids=[f"t{i}" for i in range(titles)],
        member=rows[:, 0],
        title=rows[:, 1],
        time=np.arange(len(rows)),
        value=np.full(len(rows), np.nan, np.float32),
    )
    place = np.arange(len(rows))
    return evaluate.cases(evaluate.given(whole.take(place < len(known)), whole.take(place >= len(known))))
