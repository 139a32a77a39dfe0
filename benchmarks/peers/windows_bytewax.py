"""bytewax: sliding windows folded to (count, sum); the source hands out Python tuples in batches.

In memory before the clock starts: a list of (key, (datetime, value)).
"""

import time
from datetime import UTC, datetime, timedelta

import bytewax.operators as op
import bytewax.operators.windowing as win
import pyarrow.parquet as pq
from bytewax.dataflow import Dataflow
from bytewax.operators.windowing import EventClock, SlidingWindower
from bytewax.testing import TestingSink, TestingSource, run_main
from exchange import answer, request, write_windows

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
BATCH = 10_000
"""Items a turn: larger ones were not faster."""


def load(path: str) -> list[tuple[str, tuple[datetime, float]]]:
    table = pq.read_table(path)
    times = [EPOCH + timedelta(microseconds=time_us) for time_us in table["time"].to_pylist()]
    return list(
        zip(table["key"].to_pylist(), zip(times, table["value"].to_pylist(), strict=True), strict=True)
    )


def add(held: tuple[int, float], event: tuple[datetime, float]) -> tuple[int, float]:
    return held[0] + 1, held[1] + event[1]


def merge(one: tuple[int, float], other: tuple[int, float]) -> tuple[int, float]:
    return one[0] + other[0], one[1] + other[1]


def dataflow(events: list, size: timedelta, hop: timedelta, lateness: timedelta, found: list) -> Dataflow:
    flow = Dataflow("windows")
    stream = op.input("events", flow, TestingSource(events, batch_size=BATCH))
    now = datetime.now(UTC)
    clock = EventClock(lambda event: event[0], wait_for_system_duration=lateness, now_getter=lambda: now)
    windower = SlidingWindower(length=size, offset=hop, align_to=EPOCH)
    windows = win.fold_window("fold", stream, clock, windower, lambda: (0, 0.0), add, merge)
    op.output("found", windows.down, TestingSink(found))
    return flow


def main() -> None:
    asked = request()
    size, hop, lateness = (
        timedelta(microseconds=asked[name]) for name in ("size_us", "hop_us", "lateness_us")
    )
    events = load(asked["path"])
    found: list = []
    flow = dataflow(events, size, hop, lateness, found)
    began = time.perf_counter()
    run_main(flow)
    seconds = time.perf_counter() - began
    write_windows(
        asked["output"],
        [key for key, _ in found],
        [window * asked["hop_us"] for _, (window, _) in found],
        [count for _, (_, (count, _)) in found],
        [total for _, (_, (_, total)) in found],
    )
    answer(seconds=seconds)


if __name__ == "__main__":
    main()
