"""Columns of titles from a replica's copies, in the order of a version."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa

from matinee.features.titles_copy import TitleValues
from matinee.serving.trends import Trends, longest, trend

DAY = 86_400_000_000


def values(times: list[int | None], **columns: list[float]) -> TitleValues:
    present = np.array([each is not None for each in times])
    return TitleValues(
        title_ids=[f"t{i}" for i in range(len(times))],
        present=present,
        event_time=np.array([each or 0 for each in times], np.int64),
        values={name: np.array(held) for name, held in columns.items()},
        missing=dict.fromkeys(columns, ~present),
        types=dict.fromkeys(columns, pa.float64()),
    )


POPULAR = values(
    [20 * DAY, 20 * DAY, 6 * DAY, None],
    plays_1d=[4, 0, 4, 9],
    plays_7d=[7, 7, 7, 9],
    plays_30d=[30, 30, 30, 9],
)


def test_a_trend_counts_lately_more_and_fades_from_a_titles_last_event() -> None:
    assert trend(POPULAR).tolist() == [6.0, 2.0, 1.5, 0.0]


def test_the_longest_watch_needs_stops_to_tell() -> None:
    found = longest(values([1, 1, None], longest_s=[60.0, 90.0, 1.0], stops=[3, 2, 9]))
    assert found[0] == 60
    assert np.isnan(found[1:]).all()


def test_columns_follow_the_version_and_the_copy() -> None:
    copy = SimpleNamespace(values=POPULAR)
    titles: Any = SimpleNamespace(copies={"title_popularity": copy})
    version: Any = SimpleNamespace(name="r/1", titles=Ids("t2", "new", "t0"))
    columns = Trends(titles)
    assert columns.longest(version) is None
    first = columns.trend(version)
    assert first is not None
    assert first.tolist() == [1.5, 0.0, 6.0]
    assert columns.trend(version) is first
    copy.values = values([None] * 4, plays_1d=[0] * 4, plays_7d=[0] * 4, plays_30d=[0] * 4)
    newer = columns.trend(version)
    assert newer is not None
    assert newer.tolist() == [0.0, 0.0, 0.0]


class Ids:
    """A version's titles, as far as columns read them."""

    def __init__(self, *ids: str) -> None:
        self.ids = ids

    def __len__(self) -> int:
        return len(self.ids)
