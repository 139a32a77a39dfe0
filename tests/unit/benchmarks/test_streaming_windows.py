from collections import defaultdict

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from benchmarks.streaming_windows import (
    HOP_US,
    LATENESS_US,
    RATE,
    SIZE_US,
    UNIT,
    expected,
    in_units,
    write_events,
)


def test_the_same_seed_writes_the_same_events(tmp_path):
    one = write_events(tmp_path / "one.parquet", events=2_000, keys=50)
    other = write_events(tmp_path / "other.parquet", events=2_000, keys=50)
    assert pq.read_table(one).equals(pq.read_table(other))
    changed = write_events(tmp_path / "changed.parquet", events=2_000, keys=50, seed=8)
    assert not pq.read_table(one).equals(pq.read_table(changed))


def test_events_come_out_of_order_but_never_later_than_the_lateness(tmp_path):
    events = pq.read_table(write_events(tmp_path / "events.parquet", events=20_000, keys=50))
    time = events["time"].to_numpy()
    behind = np.maximum.accumulate(time) - time
    assert 0.02 < (behind > 0).mean() < 0.2
    assert behind.max() < LATENESS_US
    assert time.max() - time.min() <= 20_000 * UNIT // RATE


def test_values_are_whole_millionths_and_some_keys_come_often(tmp_path):
    events = pq.read_table(write_events(tmp_path / "events.parquet", events=20_000, keys=1_000))
    units = events["value"].to_numpy() * UNIT
    assert np.abs(units - np.rint(units)).max() < 1e-6
    counts = np.sort(np.unique(events["key"].to_numpy(), return_counts=True)[1])
    assert counts[-10:].mean() > 10 * counts[: len(counts) // 2].mean()


def test_the_expected_windows_are_those_of_a_loop_over_events(tmp_path):
    path = write_events(tmp_path / "events.parquet", events=500, keys=7)
    count, total = defaultdict(int), defaultdict(int)
    for event in pq.read_table(path).to_pylist():
        start = event["time"] - event["time"] % HOP_US
        while start > event["time"] - SIZE_US:
            count[event["key"], start] += 1
            total[event["key"], start] += round(event["value"] * UNIT)
            start -= HOP_US
    places = sorted(count)
    assert expected(path).to_pylist() == [
        {"key": key, "window_start": start, "count": count[key, start], "sum": total[key, start]}
        for key, start in places
    ]


def test_an_output_is_compared_by_whole_millionths_in_any_order():
    found = pa.table(
        {
            "sum": [0.1 + 0.2, 1.0],
            "count": [2, 1],
            "window_start": [10, 0],
            "key": ["b", "a"],
        }
    )
    assert in_units(found).to_pylist() == [
        {"key": "a", "window_start": 0, "count": 1, "sum": 1_000_000},
        {"key": "b", "window_start": 10, "count": 2, "sum": 300_000},
    ]
