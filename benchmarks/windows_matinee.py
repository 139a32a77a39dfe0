"""Our side of the windows: a state of one view, fed micro-batches; windows given out as the watermark passes.

What the stream does with events once they are decoded: how late each is, the state, the windows that closed.
"""

from __future__ import annotations

import os
import time
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from matinee.features.aggregates import AggregateState
from matinee.schema import TIMESTAMP, Aggregate, AggregateView, Function, Window

BATCH = 50_000
"""Events of a micro-batch."""
LATENESS_US = 5_000_000
"""The watermark stays this far behind the latest event."""
_MICROSECOND = timedelta(microseconds=1)


def view(size_us: int, hop_us: int) -> AggregateView:
    """Count and sum over sliding windows."""
    window = Window.sliding(size_us * _MICROSECOND, hop_us * _MICROSECOND)
    return AggregateView(
        name="windows",
        key="member_id",
        lateness=LATENESS_US * _MICROSECOND,
        aggregates=(
            Aggregate(name="count", function=Function.COUNT, window=window),
            Aggregate(name="sum", function=Function.SUM, column="value", window=window),
        ),
    )


def run(path: Path | str, size_us: int, hop_us: int) -> tuple[float, pa.Table]:
    """Feed a file of events in the order of their arrival; one thread.

    Args:
        path: Parquet with key (text), time (int64 us), value (float64).

    Returns:
        Seconds from the first event to the last window, and the closed windows: key, window_start (us),
        count (int64), sum (float64).
    """
    os.environ["POLARS_MAX_THREADS"] = "1"
    pa.set_cpu_count(1)
    batches = pq.read_table(path).combine_chunks().to_batches(max_chunksize=BATCH)
    began = time.perf_counter()
    state = AggregateState([view(size_us, hop_us)], closed=["windows"])
    newest = np.iinfo(np.int64).min
    closed = []
    for batch in batches:
        times = batch["time"].to_numpy()
        reached = np.maximum(np.maximum.accumulate(times), newest)
        newest = reached[-1]
        state.apply(
            pa.table(
                {
                    "member_id": batch["key"],
                    "event_time": batch["time"].cast(TIMESTAMP),
                    "value": batch["value"],
                    "partition": np.zeros(len(batch), np.int32),
                    "late_by": reached - times,
                }
            )
        )
        closed.append(state.closed("windows", int(newest) - LATENESS_US))
    closed.append(state.closed("windows", int(newest) + size_us + hop_us))
    found = pa.concat_tables(closed)
    windows = pa.table(
        {
            "key": found["member_id"],
            "window_start": found["window_start"].cast(pa.int64()),
            "count": found["count"],
            "sum": found["sum"],
        }
    )
    return time.perf_counter() - began, windows
