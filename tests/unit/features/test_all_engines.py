"""Stream, batch and offline store against a reference that looks at one event at a time, to the bit."""

import random

import pyarrow as pa
from aggregate_examples import HOUR, any_log, any_view, table_of
from aggregate_reference import reference_rows
from hypothesis import given, settings
from hypothesis import strategies as st

from matinee.features import asof
from matinee.features.aggregates import AggregateState
from matinee.features.history_rows import columns_of, history_rows
from matinee.schema import TIMESTAMP


@settings(max_examples=150)
@given(seed=st.integers(0, 1 << 32), count=st.integers(0, 60))
def test_batch_rows_are_those_of_the_reference(seed, count):
    draw = random.Random(seed)
    view, log = any_view(draw), any_log(draw, count)
    shuffled = table_of(draw.sample(log, len(log))).select(columns_of(view))
    expected = reference_rows(view, log, latest=False)
    found = history_rows(view, shuffled)
    assert found.schema == view.schema
    assert found.to_pylist() == expected
    latest = history_rows(view, shuffled, times="latest")
    assert latest.to_pylist() == reference_rows(view, log, latest=True)
    last = {(row[view.key], row["event_timestamp"].date()): row for row in expected}
    assert history_rows(view, shuffled, times="days").to_pylist() == list(last.values())


@settings(max_examples=60)
@given(seed=st.integers(0, 1 << 32), count=st.integers(0, 60), asked=st.integers(0, 20))
def test_the_offline_join_gives_the_row_as_of_the_entity_row_s_time(seed, count, asked):
    draw = random.Random(seed)
    view, log = any_view(draw), any_log(draw, count)
    keys = [draw.choice(["m0", "m1", "t0", "t1", "nobody"]) for _ in range(asked)]
    times = [draw.choice(log)["event_time"] + draw.choice([-1, 0, 1, HOUR]) if log else 0 for _ in keys]
    entities = pa.table({view.key: pa.array(keys, pa.string()), asof.TIME: pa.array(times, pa.int64())})
    entities = entities.set_column(1, asof.TIME, entities[1].cast(TIMESTAMP))
    names = [each.name for each in view.aggregates]
    found = asof.join(
        entities, history_rows(view, table_of(log)), keys=[view.key], columns=names, names=names
    )
    expected = []
    for key, time in zip(keys, times, strict=True):
        known = [each for each in log if each["event_time"] <= time and each[view.key] == key]
        rows = reference_rows(view, known, latest=True) or [{}]
        expected.append({name: rows[0].get(name) for name in names})
    assert found.to_pylist() == expected


@settings(max_examples=100)
@given(seed=st.integers(0, 1 << 32), count=st.integers(0, 80))
def test_the_stream_s_rows_are_those_of_the_reference_through_restores(seed, count):
    draw = random.Random(seed)
    views = [any_view(draw, name) for name in ("a", "b")]
    log = any_log(draw, count)
    expected = {view.name: reference_rows(view, log, latest=True) for view in views}
    state = AggregateState(views)
    held = state.snapshot()
    while log:
        size = draw.randint(1, 20)
        batch, log = log[:size], log[size:]
        state.apply(table_of(draw.sample(batch, len(batch))))
        held.update(state.snapshot())
        if draw.random() < 0.3:
            state = AggregateState(views)
            state.restore(held)
    for view in views:
        assert state.rows(view.name).to_pylist() == expected[view.name]
        keys = [row[view.key] for row in expected[view.name]][::2]
        assert state.rows(view.name, keys).to_pylist() == expected[view.name][::2]
