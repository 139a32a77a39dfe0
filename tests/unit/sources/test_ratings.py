import polars as pl
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from matinee.schema import EVENT_SCHEMA
from matinee.sources.ratings import rating_events

ROWS = st.lists(
    st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(1, 10), st.integers(0, 3)),
    unique_by=lambda row: row[:2],
    max_size=12,
)


@given(ROWS)
def test_each_rating_is_one_event_in_a_stable_order(rows: list[tuple[int, int, int, int]]) -> None:
    frame = pl.DataFrame(
        {
            "member": [str(row[0]) for row in rows],
            "title": [str(row[1]) for row in rows],
            "value": [row[2] / 2 for row in rows],
            "seconds": [row[3] for row in rows],
        },
        schema={"member": pl.String, "title": pl.String, "value": pl.Float64, "seconds": pl.Int64},
    )
    events = rating_events("x", frame)
    assert events.schema == EVENT_SCHEMA
    ordered = sorted(rows, key=lambda row: row[3])
    assert events["event_id"].to_pylist() == [f"x-{member}-{title}" for member, title, _, _ in ordered]
    assert events["value"].to_pylist() == [value / 2 for _, _, value, _ in ordered]
    seconds = [time // 1_000_000 for time in events["event_time"].cast(pa.int64()).to_pylist()]
    assert seconds == [row[3] for row in ordered]
    assert events["ingest_time"] == events["event_time"]
