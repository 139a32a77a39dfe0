"""A feature's values as a small distribution: bars, nulls, ends. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

BARS = 20
"""Bars of numbers with many values."""
TOP = 8
"""Bars of texts: the most frequent ones."""

_LARGEST = 1e300
"""Larger magnitudes are drawn as this one: the width of the bars stays a number."""
_YEAR_2000 = 946_684_800_000_000
_YEAR_2100 = 4_102_444_800_000_000


@dataclass(frozen=True, kw_only=True)
class Bar:
    """Values that are shown together.

    Args:
        label: the value, or the range of values.
        count: how many.
    """

    label: str
    count: int


@dataclass(frozen=True, kw_only=True)
class Distribution:
    """How a column's values lie.

    Args:
        kind: what the bars count: values, times, texts (the most frequent), or lengths of lists.
        rows: values, nulls among them.
        nulls: null and NaN values.
        bars: of numbers and lengths in their order, of texts the most frequent first.
        low, median, high: as text; empty where there is no value.
        top: the most frequent items of lists of texts.
    """

    kind: Literal["number", "time", "text", "length"]
    rows: int
    nulls: int
    bars: Sequence[Bar]
    low: str = ""
    median: str = ""
    high: str = ""
    top: Sequence[Bar] = ()

    @property
    def null_share(self) -> float | None:
        """Nulls over rows; None without rows."""
        return self.nulls / self.rows if self.rows else None


def distribution(column: pa.ChunkedArray) -> Distribution:
    """The distribution of a column of numbers, texts, or lists of either."""
    kind = column.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        lengths = _numbers(pc.list_value_length(column))
        items = pc.list_flatten(column)
        top = _top(items) if pa.types.is_string(items.type) else ()
        return _of_numbers("length", lengths, len(column), top=top)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return Distribution(kind="text", rows=len(column), nulls=int(column.null_count), bars=_top(column))
    if pa.types.is_timestamp(kind):
        column = column.cast(pa.timestamp("us", "UTC")).cast(pa.int64())
    if pa.types.is_boolean(kind):
        column = column.cast(pa.int8())
    values = _numbers(column)
    times = pa.types.is_integer(column.type) and len(values) and values.min() >= _YEAR_2000
    if times and values.max() <= _YEAR_2100:
        return _of_numbers("time", values, len(column))
    return _of_numbers("number", values, len(column))


def _of_numbers(
    kind: Literal["number", "time", "length"],
    values: npt.NDArray[np.float64],
    rows: int,
    top: Sequence[Bar] = (),
) -> Distribution:
    if not len(values):
        return Distribution(kind=kind, rows=rows, nulls=rows, bars=(), top=top)
    shown = _moment if kind == "time" else _number
    distinct, counts = np.unique(values, return_counts=True)
    if len(distinct) <= BARS:
        pairs = zip(distinct.tolist(), counts.tolist(), strict=True)
        bars = [Bar(label=shown(value), count=count) for value, count in pairs]
    else:
        bars = _histogram(values, shown)
    return Distribution(
        kind=kind,
        rows=rows,
        nulls=rows - len(values),
        bars=bars,
        low=shown(float(distinct[0])),
        median=shown(float(np.quantile(values, 0.5, method="lower"))),
        high=shown(float(distinct[-1])),
        top=top,
    )


def _histogram(values: npt.NDArray[np.float64], shown: object) -> list[Bar]:
    """Bars of equal width up to the 99th percentile; what lies above stands in the last one."""
    assert callable(shown)
    low, high = float(values.min()), float(np.quantile(values, 0.99))
    top = float(values.max())
    if high <= low:
        high = top
    edges = np.linspace(low, high, BARS + 1)
    counts, _ = np.histogram(np.minimum(values, high), edges)
    ends = [*edges[1:-1].tolist(), top]
    starts = edges[:-1].tolist()
    return [
        Bar(label=f"{shown(start)} to {shown(end)}", count=count)
        for start, end, count in zip(starts, ends, counts.tolist(), strict=True)
    ]


def _top(column: pa.ChunkedArray | pa.Array) -> list[Bar]:
    """The most frequent texts, ties in their order."""
    counted = pc.value_counts(column.drop_null())
    pairs = zip(counted.field("values").to_pylist(), counted.field("counts").to_pylist(), strict=True)
    ordered = sorted(pairs, key=lambda pair: (-pair[1], pair[0]))
    return [Bar(label=label, count=count) for label, count in ordered[:TOP]]


def _numbers(column: pa.ChunkedArray) -> npt.NDArray[np.float64]:
    """The values that are numbers, float64; infinities are left out too."""
    values = column.drop_null().cast(pa.float64(), safe=False).to_numpy().astype(np.float64)
    finite: npt.NDArray[np.float64] = np.clip(values[np.isfinite(values)], -_LARGEST, _LARGEST)
    return finite


def _number(value: float) -> str:
    return f"{value:.0f}" if value == round(value) and abs(value) < 1e9 else f"{value:.4g}"


def _moment(value: float) -> str:
    return f"{datetime.fromtimestamp(value / 1e6, UTC):%Y-%m-%d %H:%M}"
