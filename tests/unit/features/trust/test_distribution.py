"""Bars, ends and nulls of columns of every kind."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from matinee.features.trust.distribution import BARS, distribution
from matinee.schema import TIMESTAMP

START = 1_700_000_000_000_000


def column(values: list[object], kind: pa.DataType | None = None) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(values, kind)])


@given(st.lists(st.one_of(st.none(), st.floats(allow_infinity=False)), max_size=200))
def test_every_value_stands_in_one_bar(values: list[float | None]) -> None:
    found = distribution(column(list(values), pa.float64()))
    there = [value for value in values if value is not None and not np.isnan(value)]
    assert sum(bar.count for bar in found.bars) == len(there)
    assert found.nulls == len(values) - len(there)
    assert len(found.bars) <= BARS


def test_few_values_have_a_bar_each_and_many_share_them() -> None:
    few = distribution(column([3, 1, 1, None], pa.int64()))
    assert [(bar.label, bar.count) for bar in few.bars] == [("1", 2), ("3", 1)]
    assert (few.kind, few.low, few.median, few.high, few.null_share) == ("number", "1", "1", "3", 0.25)
    many = distribution(column(list(range(1000)), pa.int64()))
    assert len(many.bars) == BARS
    assert many.bars[-1].label.endswith("to 999")


def test_an_outlier_takes_no_room() -> None:
    values = [float(value) for value in range(1000)] + [1e12]
    bars = distribution(column(list(values))).bars
    assert max(bar.count for bar in bars) < 100


def test_texts_show_the_most_frequent_and_lists_their_lengths() -> None:
    texts = distribution(column(["b", "a", "b", None, "c"]))
    assert [(bar.label, bar.count) for bar in texts.bars] == [("b", 2), ("a", 1), ("c", 1)]
    assert (texts.kind, texts.nulls) == ("text", 1)
    lists = distribution(column([["a", "b"], [], None, ["a"]], pa.list_(pa.string())))
    assert [(bar.label, bar.count) for bar in lists.bars] == [("0", 1), ("1", 1), ("2", 1)]
    assert [(bar.label, bar.count) for bar in lists.top] == [("a", 2), ("b", 1)]
    assert distribution(column([[1.5], [2.5, 3.0]])).top == ()


def test_times_read_as_times() -> None:
    assert distribution(column([START, START + 60_000_000], pa.int64())).low == "2023-11-14 22:13"
    assert distribution(column([START], TIMESTAMP)).kind == "time"
    assert distribution(column([START, 5], pa.int64())).kind == "number"


def test_nothing_is_nothing() -> None:
    found = distribution(column([], pa.int64()))
    assert (found.rows, found.null_share, list(found.bars)) == (0, None, [])
    assert distribution(column([None, None], pa.float64())).nulls == 2
