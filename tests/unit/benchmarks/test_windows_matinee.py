"""Our side of the windows benchmark gives every window of every key once."""

from benchmarks.streaming_windows import HOP_US, SIZE_US, expected, in_units, write_events
from benchmarks.windows_matinee import run


def test_closed_windows_equal_those_grouped_by_arrow(tmp_path):
    path = write_events(tmp_path / "events.parquet", events=120_000, keys=50)
    seconds, windows = run(path, SIZE_US, HOP_US)
    assert seconds > 0
    assert in_units(windows).equals(expected(path))
