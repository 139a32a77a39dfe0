"""Rows of aggregate views from all events at once. test_all_engines.py compares them with a reference."""

import random
from datetime import timedelta

import numpy as np
import pyarrow as pa
import pytest
from aggregate_examples import DAY, HOUR, any_log, any_view, table_of
from aggregate_reference import reference_rows
from hypothesis import given, settings
from hypothesis import strategies as st

from matinee.features import history_rows as module
from matinee.features.history_rows import columns_of, history_rows
from matinee.schema import (
    LAKE_SCHEMA,
    TEXT_COLUMNS,
    Aggregate,
    AggregateView,
    EventType,
    Function,
    Window,
)

SEEDS = st.integers(0, 1 << 32)
HOURS = timedelta(hours=1)


def view_of(*aggregates, **more):
    named = [Aggregate(name=f"f{i}", **each) for i, each in enumerate(aggregates)]
    return AggregateView(name="view", key="member_id", aggregates=tuple(named), **more)


def log_of(*events):
    """Events of member m as (time, value, title)."""
    plain = {"schema_version": 1, "type": "play", "member_id": "m", "ingest_time": 0, "partition": 0}
    return [
        {
            **dict.fromkeys(LAKE_SCHEMA.names),
            **plain,
            "event_id": f"e{i}",
            "event_time": time,
            "value": value,
            "title_id": title,
            "offset": i,
        }
        for i, (time, value, title) in enumerate(events)
    ]


def test_a_row_for_each_time_counts_what_its_window_holds():
    view = view_of(
        {"function": Function.COUNT, "window": Window.sliding(2 * HOURS, HOURS)},
        {"function": Function.SUM, "column": "value", "window": Window.unbounded()},
        {"function": Function.MIN, "column": "value", "window": Window.tumbling(HOURS)},
        {"function": Function.COUNT_DISTINCT, "column": "title_id", "window": Window.tumbling(HOURS)},
        {"function": Function.LAST_N, "column": "title_id", "n": 2, "window": Window.unbounded()},
    )
    log = log_of((HOUR, 2.0, "a"), (HOUR, 0.1, "b"), (2 * HOUR - 1, None, "a"), (3 * HOUR, 0.2, None))
    rows = [list(row.values())[1:-1] for row in history_rows(view, table_of(log)).to_pylist()]
    assert rows == [
        [2, 2.1, 0.1, 2, ["a", "b"]],
        [3, 2.1, 0.1, 2, ["b", "a"]],
        [1, 2.3, 0.2, 0, ["b", "a"]],
    ]


def test_a_session_holds_while_its_gap_lasts():
    window = Window.session(timedelta(microseconds=10))
    view = view_of(
        {"function": Function.COUNT, "window": window, "types": (EventType.PLAY,)},
        {"function": Function.MAX, "column": "value", "window": window},
    )
    log = log_of((100, 1.0, "a"), (110, 3.0, "a"), (120, 2.0, "a"), (131, 5.0, "a"), (142, None, "a"))
    log[3]["type"] = "stop"
    rows = [list(row.values())[1:-1] for row in history_rows(view, table_of(log)).to_pylist()]
    assert rows == [[1, 1.0], [2, 3.0], [3, 3.0], [0, 5.0], [1, None]]


@settings(max_examples=40)
@given(seed=SEEDS, count=st.integers(1, 60))
def test_the_size_of_groups_and_chunks_changes_nothing(seed, count):
    draw = random.Random(seed)
    view, events = any_view(draw), table_of(any_log(draw, count))
    with pytest.MonkeyPatch.context() as patch:
        for times in ("events", "days", "latest"):
            patch.undo()
            expected = history_rows(view, events, times=times)
            patch.setattr(module, "AT_ONCE", draw.choice([1, 7]))
            patch.setattr(module, "CHUNK", draw.choice([1, 7]))
            assert history_rows(view, events, times=times).to_pylist() == expected.to_pylist()


@settings(max_examples=40)
@given(seed=SEEDS, count=st.integers(0, 60))
def test_dictionaries_in_chunks_are_texts(seed, count):
    draw = random.Random(seed)
    view, log = any_view(draw), any_log(draw, count)
    coded = pa.concat_tables([table_of(log[:20]), table_of(log[20:])])
    for name in TEXT_COLUMNS:
        chunks = [chunk.dictionary_encode() for chunk in coded[name].chunks]
        coded = coded.set_column(coded.schema.get_field_index(name), name, pa.chunked_array(chunks))
    coded = coded.select(columns_of(view))
    assert history_rows(view, coded).to_pylist() == history_rows(view, table_of(log)).to_pylist()


@settings(max_examples=40)
@given(seed=SEEDS, count=st.integers(1, 60), times=st.sampled_from(["events", "days", "latest"]))
def test_since_leaves_out_rows_and_not_what_they_stand_for(seed, count, times):
    draw = random.Random(seed)
    view, log = any_view(draw), any_log(draw, count)
    since = draw.choice(log)["event_time"] + draw.choice([0, 1])
    rows = history_rows(view, table_of(log), times=times)
    kept = rows.filter(pa.array(rows["event_timestamp"].cast(pa.int64()).to_numpy() >= since))
    assert history_rows(view, table_of(log), times=times, since=since).to_pylist() == kept.to_pylist()


@settings(max_examples=40)
@given(seed=SEEDS, count=st.integers(1, 60))
def test_centuries_between_events_are_no_obstacle(seed, count):
    draw = random.Random(seed)
    view, log = any_view(draw), any_log(draw, count)
    for event in log:
        event["event_time"] += draw.choice([0, 0, 2_000_000 * DAY])
        event["member_id"] = f"m{draw.randrange(50)}"
    assert history_rows(view, table_of(log)).to_pylist() == reference_rows(view, log, latest=False)
    latest = history_rows(view, table_of(log), times="latest").to_pylist()
    assert latest == reference_rows(view, log, latest=True)


def test_a_sketch_of_many_values_is_within_its_error():
    log = log_of(*((i, 0.0, f"title {i % 20_000}") for i in range(40_000)))
    aggregate = {"function": Function.APPROX_DISTINCT, "column": "title_id", "window": Window.unbounded()}
    rows = history_rows(view_of(aggregate), table_of(log))["f0"].to_numpy()
    exact = np.minimum(np.arange(1, 40_001), 20_000)
    assert np.max(np.abs(rows / exact - 1)) < 0.08
    assert abs(rows[-1] / 20_000 - 1) < 0.04


def test_decayed_sums_of_the_largest_values_do_not_overflow():
    log = log_of(*((i, 1e9, "a") for i in range(100)))
    aggregate = {
        "function": Function.DECAYED_SUM,
        "column": "value",
        "window": Window.tumbling(HOURS),
        "half_life": HOURS,
    }
    assert history_rows(view_of(aggregate), table_of(log), times="latest")["f0"].to_pylist() == [1e11]


def test_nothing_counted_gives_no_rows():
    view = view_of({"function": Function.COUNT, "window": Window.unbounded()}, lateness=timedelta(0))
    log = log_of((HOUR, None, None))
    log[0]["late_by"] = 1
    for events in (table_of(log), LAKE_SCHEMA.empty_table()):
        assert history_rows(view, events).equals(view.schema.empty_table())
