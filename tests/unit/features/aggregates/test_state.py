"""The state against the reference that looks at one event at a time, however the events come."""

from datetime import timedelta

import numpy as np
import pyarrow as pa
import pytest
from aggregate_reference import EPOCH, MICROSECOND, reference_closed, reference_late, reference_rows
from hypothesis import given, settings
from hypothesis import strategies as st

from matinee.errors import InvalidInput
from matinee.features.aggregates import TEXTS, AggregateState, latest
from matinee.schema import LAKE_SCHEMA, Aggregate, AggregateView, EventType, Function, Window

SECOND = timedelta(seconds=1)
TYPES = (EventType.PLAY, EventType.RATE, EventType.CLICK)
SLIDING = Window.sliding(6 * SECOND, 2 * SECOND)
WINDOWS = (
    Window.unbounded(),
    SLIDING,
    Window.sliding(20 * SECOND, 2 * SECOND),
    Window.tumbling(5 * SECOND),
    Window.session(3 * SECOND),
)
LISTS = (Function.LAST_N, Function.LAST_N_DISTINCT, Function.TOP_K)
DECAYED = (Function.DECAYED_COUNT, Function.DECAYED_SUM)
NUMERIC = (Function.SUM, Function.MEAN, Function.MIN, Function.MAX, Function.DECAYED_SUM)
IN_SESSIONS = (Function.COUNT, Function.SUM, Function.MEAN, Function.MIN, Function.MAX)


def lake(events):
    columns = []
    for field in LAKE_SCHEMA:
        columns.append(pa.array([event.get(field.name) for event in events], field.type))
    return pa.table(columns, schema=LAKE_SCHEMA)


def rows(view, events):
    return reference_rows(view, events, latest=True)


@st.composite
def aggregates(draw, name, types, windows=WINDOWS):
    function = draw(st.sampled_from(list(Function)))
    window = draw(st.sampled_from(windows))
    if window.kind == "session" and function not in IN_SESSIONS:
        window = SLIDING
    if window.kind == "unbounded" and function in DECAYED:
        window = SLIDING
    if function in NUMERIC:
        column = draw(st.sampled_from(["value", "position"]))
    elif function in (Function.COUNT, Function.DECAYED_COUNT):
        column = draw(st.sampled_from(["", "value", "title_id", "surface"]))
    else:
        column = draw(st.sampled_from(["title_id", "type", "surface"]))
    mine = draw(st.lists(st.sampled_from(types or TYPES), unique=True, min_size=1 if types else 0))
    return Aggregate(
        name=name,
        function=function,
        window=window,
        column=column,
        types=tuple(mine),
        n=draw(st.integers(1, 3)) if function in LISTS else 0,
        half_life=4 * SECOND if function in DECAYED else timedelta(0),
    )


@st.composite
def views(draw, name="v"):
    types = tuple(draw(st.lists(st.sampled_from(TYPES), unique=True)))
    count = draw(st.integers(1, 5))
    return AggregateView(
        name=name,
        key=draw(st.sampled_from(["member_id", "title_id"])),
        types=types,
        lateness=draw(st.sampled_from([None, 2 * SECOND, 5 * SECOND])),
        late=draw(st.sampled_from(["drop", "dead_letter"])),
        aggregates=tuple(draw(aggregates(f"{name}{i}", types)) for i in range(count)),
    )


@st.composite
def event_lists(draw, partitions=3, largest=40):
    """Events in order of arrival, out of order in time, each partition with its own offsets and lateness."""
    count = draw(st.integers(0, largest))
    seconds = st.integers(-20, 40)
    newest, events = {}, []
    for i in range(count):
        partition = draw(st.integers(0, partitions - 1))
        time = draw(seconds) * 500_000 + draw(st.sampled_from([0, 0, 1, 999]))
        newest[partition] = max(newest.get(partition, time), time)
        late_by = newest[partition] - time
        events.append(
            {
                "schema_version": 1,
                "event_id": f"e{i}",
                "type": draw(st.sampled_from(TYPES)).value,
                "member_id": f"m{draw(st.integers(0, 2))}",
                "title_id": draw(st.sampled_from(["t0", "t1", "title number two", None])),
                "surface": draw(st.sampled_from(["home", "é", "", None])),
                "value": draw(st.sampled_from([None, 0.0, 0.1, -2.5, 3.7, 5e9, 1e-7])),
                "position": draw(st.sampled_from([None, 0, 1, -7])),
                "event_time": time,
                "ingest_time": time,
                "partition": partition,
                "offset": i,
                "late_by": late_by or draw(st.sampled_from([0, None])),
            }
        )
    return events


def pieces(draw, events):
    """The events in some order, cut into batches."""
    events = draw(st.permutations(events))
    cuts = sorted(draw(st.lists(st.integers(0, len(events)), max_size=5)))
    return [events[i:j] for i, j in zip([0, *cuts], [*cuts, len(events)], strict=True)]


def same(table, view, events):
    assert table.schema.equals(view.schema)
    assert table.to_pylist() == rows(view, events)


@given(st.data())
@settings(max_examples=150)
def test_any_view_over_any_batches_equals_the_reference(data):
    view, events = data.draw(views()), data.draw(event_lists())
    state = AggregateState([view])
    refused = 0
    for piece in pieces(data.draw, events):
        applied = state.apply(lake(piece))
        refused += applied.late["v"]
        if view.late == "dead_letter":
            ids = {e["event_id"] for e, late in zip(piece, applied.late_rows["v"], strict=True) if late}
            assert ids == reference_late(view, piece)
    same(state.rows("v"), view, events)
    assert refused == len(reference_late(view, events))


@given(st.data())
@settings(max_examples=40)
def test_touched_names_every_key_whose_row_changed(data):
    view, events = data.draw(views()), data.draw(event_lists())
    state, before = AggregateState([view]), {}
    for piece in pieces(data.draw, events):
        touched = state.apply(lake(piece)).touched["v"]
        after = {row[view.key]: row for row in state.rows("v").to_pylist()}
        assert {key for key, row in after.items() if before.get(key) != row} <= set(touched)
        chosen = state.rows("v", [*touched, "unknown"]).to_pylist()
        assert chosen == [after[key] for key in sorted(touched)]
        before = after


@given(st.data())
@settings(max_examples=60)
def test_a_base_and_its_deltas_restore_the_state(data):
    chosen = [data.draw(views(name)) for name in ("a", "b")]
    events = data.draw(event_lists())
    state, kept = AggregateState(chosen), []
    for i, piece in enumerate(pieces(data.draw, events)):
        state.apply(lake(piece))
        if i == 1:
            state.changes()
            kept = [state.snapshot()]
        elif i > 1:
            kept.append(state.changes())
        if data.draw(st.booleans()):
            other = AggregateState(chosen)
            other.restore(state.snapshot())
            state = other if i < 1 else state
    if not kept:
        kept = [state.snapshot()]
    restored = AggregateState(chosen)
    for tables in [*kept, *kept[-1:]]:
        restored.restore(tables)
    for view in chosen:
        same(restored.rows(view.name), view, events)
    assert not any(rows.num_rows for rows in restored.changes().values())


@given(st.data())
@settings(max_examples=60)
def test_states_of_several_workers_unite(data):
    view, events = data.draw(views()), data.draw(event_lists())
    owner = {0: 0, 1: 1, 2: 0}
    workers = [AggregateState([view]), AggregateState([view])]
    merged, seen = AggregateState([view]), {}
    for piece in pieces(data.draw, events):
        for number, worker in enumerate(workers):
            worker.apply(lake([event for event in piece if owner[event["partition"]] == number]))
            pushed = worker.changes()
            touched = merged.touched_by(pushed)
            merged.restore(pushed)
            assert merged.touched_by(pushed) == touched
            now = {row[view.key]: row for row in merged.rows("v").to_pylist()}
            assert {key for key, row in now.items() if seen.get(key) != row} <= set(touched.get("v", []))
            seen = now
    same(merged.rows("v"), view, events)
    moved = AggregateState([view])
    for worker in workers:
        moved.restore(worker.snapshot(), partitions=[1, 2])
    same(moved.rows("v"), view, [event for event in events if event["partition"] in (1, 2)])


@given(st.data())
@settings(max_examples=60)
def test_pruning_changes_no_row_now_or_later(data):
    view, events = data.draw(views()), data.draw(event_lists(partitions=1))
    events = [{**event, "partition": int(event["member_id"][1:])} for event in events]
    newest = {}
    for event in events:
        at = event["partition"]
        newest[at] = max(newest.get(at, event["event_time"]), event["event_time"])
        event["late_by"] = newest[at] - event["event_time"]
    lateness = (view.lateness or timedelta(0)) // MICROSECOND
    state, reached = AggregateState([view]), {}
    for start in range(0, len(events), 7):
        piece = events[start : start + 7]
        state.apply(lake(piece))
        for event in piece:
            at = event["partition"]
            reached[at] = max(reached.get(at, event["event_time"]), event["event_time"])
        if len(reached) == 3:
            state.prune(min(reached.values()) - lateness)
        same(state.rows("v"), view, events[: start + 7])


@given(st.data())
@settings(max_examples=40)
def test_back_filling_tables_equals_having_had_them(data):
    old, new = data.draw(views("a")), data.draw(views("b"))
    events = data.draw(event_lists())
    before = AggregateState([old])
    before.apply(lake(events))
    state = AggregateState([old, new])
    known = before.tables()
    missing = [name for name, digest in state.tables().items() if known.get(name) != digest]
    held = {name: rows for name, rows in before.snapshot().items() if name not in missing}
    state.restore(held)
    for piece in pieces(data.draw, events):
        state.apply_to(lake(piece), missing)
    for view in (old, new):
        same(state.rows(view.name), view, events)


@given(st.data())
@settings(max_examples=80)
def test_closed_windows_equal_the_reference(data):
    window = data.draw(st.sampled_from([SLIDING, Window.tumbling(5 * SECOND)]))
    drawn = [data.draw(aggregates(f"a{i}", (), (window,))) for i in range(3)]
    drawn = [each for each in drawn if not each.function.startswith("last_n")]
    count = Aggregate(name="n", function=Function.COUNT, window=window)
    view = AggregateView(name="v", key="member_id", aggregates=(*drawn, count))
    events = sorted(data.draw(event_lists()), key=lambda event: event["event_time"])
    state = AggregateState([view], closed=["v"])
    since = None
    for i, piece in enumerate([events[:15], events[15:30], events[30:]]):
        state.apply(lake(piece))
        if data.draw(st.booleans()):
            state.prune(-(1 << 60))
        if not piece:
            continue
        until = piece[-1]["event_time"] if i < 2 else 100_000_000
        expected = reference_closed(view, events, until, since)
        found = state.closed("v", until).sort_by([("member_id", "ascending"), ("window_end", "ascending")])
        assert found.to_pylist() == expected
        since = until // (window.hop // MICROSECOND) * (window.hop // MICROSECOND)
    same(state.rows("v"), view, events)


def simple(**changes):
    each = Aggregate(name="n", function=Function.COUNT, window=SLIDING)
    return AggregateView(**{"name": "v", "key": "member_id", "aggregates": (each,), **changes})


def event(time, **changes):
    base = {
        "schema_version": 1,
        "event_id": f"e{time}",
        "type": "play",
        "member_id": "m0",
        "event_time": time,
    }
    return {**base, "ingest_time": time, "partition": 0, "offset": time, **changes}


def test_a_thousand_features_share_a_handful_of_tables():
    day = timedelta(days=1)
    functions = [
        (Function.COUNT, ""),
        (Function.SUM, "value"),
        (Function.MEAN, "value"),
        (Function.MAX, "position"),
        (Function.COUNT_DISTINCT, "title_id"),
    ]
    chosen = []
    for number in range(50):
        each = []
        for days in (1, 7, 30, 90):
            for function, column in functions:
                each.append(
                    Aggregate(
                        name=f"{function}{days}",
                        function=function,
                        column=column,
                        types=(list(EventType)[number % 7],),
                        window=Window.sliding(days * day, day),
                    )
                )
        key = ("member_id", "title_id")[number % 2]
        chosen.append(simple(name=f"v{number}", key=key, aggregates=tuple(each)))
    assert sum(len(view.aggregates) for view in chosen) == 1000
    assert len(AggregateState(chosen).tables()) == 6


def test_state_is_bounded_by_the_window_of_each_key():
    state = AggregateState([simple()])
    for start in range(0, 4000, 50):
        state.apply(lake([event(1_000_000 * time) for time in range(start, start + 50)]))
    tiles = next(rows for name, rows in state.snapshot().items() if name.startswith("tiles"))
    assert tiles.num_rows == 3


def test_sums_of_decayed_values_exceed_64_bits_exactly():
    each = Aggregate(
        name="d", function=Function.DECAYED_SUM, column="value", window=SLIDING, half_life=4 * SECOND
    )
    view = simple(aggregates=(each,))
    events = [event(time, value=1e9) for time in range(40)]
    same(latest(view, lake(events)), view, events)


def test_digests_change_with_what_a_table_holds_and_not_with_its_views_windows():
    wide = Window.sliding(8 * SECOND, 2 * SECOND)
    base = simple()
    play = Aggregate(name="n", function=Function.COUNT, window=wide, types=(EventType.PLAY,))
    wider = simple(aggregates=(Aggregate(name="n", function=Function.COUNT, window=wide),))
    first = AggregateState([base]).tables()
    assert AggregateState([wider]).tables() == first
    other = simple(name="w", types=(EventType.PLAY,), aggregates=(play,))
    both = AggregateState([base, other]).tables()
    assert both.keys() == first.keys()
    assert all(both[name] != digest for name, digest in first.items())


def test_restore_refuses_rows_of_another_definition_and_unknown_keys():
    state = AggregateState([simple()])
    state.apply(lake([event(1)]))
    tables = state.snapshot()
    name = next(name for name in tables if name.startswith("tiles"))
    with pytest.raises(InvalidInput, match="back-fill"):
        AggregateState([simple()]).restore({name: tables[name].drop_columns(["tile"])})
    with pytest.raises(InvalidInput, match="without a text"):
        AggregateState([simple()]).restore({name: tables[name]})
    AggregateState([simple()]).restore({"unknown": tables[name], TEXTS: tables[TEXTS]})


def test_closed_windows_must_be_asked_for_and_close():
    with pytest.raises(InvalidInput, match="not asked for"):
        AggregateState([simple()]).closed("v", 0)
    with pytest.raises(InvalidInput, match="unknown"):
        AggregateState([simple()], closed=["w"])
    each = Aggregate(name="n", function=Function.COUNT, window=Window.unbounded())
    with pytest.raises(InvalidInput, match="windows close"):
        AggregateState([simple(aggregates=(each,))], closed=["v"])


def test_names_stand_once():
    with pytest.raises(ValueError, match="twice"):
        AggregateState([simple(), simple()])


def test_no_events_leave_no_rows_and_text_columns_may_be_dictionaries():
    view = simple(late="dead_letter")
    state = AggregateState([view])
    applied = state.apply(lake([]))
    assert (applied.touched["v"], applied.late["v"], len(applied.late_rows["v"])) == ([], 0, 0)
    assert state.rows("v").num_rows == 0
    assert state.snapshot()[TEXTS].num_rows == 0
    events = [event(time, member_id=f"m{time % 3}") for time in range(10)]
    table = lake(events)
    column = table["member_id"].combine_chunks().dictionary_encode()
    slim = table.select(["event_time", "partition", "late_by"]).append_column("member_id", column)
    state.apply(slim)
    same(state.rows("v"), view, events)
    assert state.nbytes > 0
    assert state.rows("v")["event_timestamp"][0].as_py() == EPOCH + 9 * MICROSECOND


def test_many_keys_in_many_batches():
    rng = np.random.default_rng(0)
    mean = Aggregate(name="m", function=Function.MEAN, column="value", window=SLIDING)
    lists = Aggregate(name="l", function=Function.LAST_N, column="title_id", window=SLIDING, n=5)
    view = simple(aggregates=(mean, lists))
    events = [
        event(
            int(time),
            event_id=f"e{i}",
            member_id=f"m{rng.integers(700)}",
            title_id=f"t{rng.integers(3000)}",
            value=float(rng.normal()),
            partition=int(rng.integers(5)),
            offset=i,
        )
        for i, time in enumerate(np.arange(6000) * 3_000 + rng.integers(0, 2_000_000, 6000))
    ]
    state = AggregateState([view])
    for start in range(0, len(events), 500):
        state.apply(lake(events[start : start + 500]))
    same(state.rows("v"), view, events)


def test_tiny_tiles_over_millennia():
    hop = timedelta(microseconds=1)
    each = Aggregate(name="n", function=Function.TOP_K, column="title_id", window=Window.tumbling(hop), n=2)
    view = simple(aggregates=(each,))
    times = np.random.default_rng(1).integers(-(10**16), 10**17, 6000).tolist()
    events = [
        event(time, member_id=f"m{i % 3000}", title_id=f"t{i}", offset=i) for i, time in enumerate(times)
    ]
    same(latest(view, lake(events)), view, events)
