"""The transforms against a reference that looks at one event at a time, and the laws of the state."""

import math
from collections import defaultdict

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matinee.features.history import History
from matinee.features.transforms import (
    DAY,
    HALF_LIFE,
    HOUR,
    LAST_TITLES,
    VIEWS,
    rows_of,
    title_content,
    watches_of,
)
from matinee.schema import CATALOGUE_SCHEMA, LAKE_SCHEMA

GENRES = {"t0": ["Drama"], "t1": ["Comedy", "Drama"], "t2": [], "t3": ["War", "Comedy", "Noir"]}


def lake(events):
    """Events as (id, type, member, title, time, value, partition, offset) to rows of LAKE_SCHEMA."""
    names = ("event_id", "type", "member_id", "title_id", "event_time", "value", "partition", "offset")
    columns = dict(zip(names, zip(*events, strict=True), strict=True)) if events else {n: [] for n in names}
    columns["ingest_time"] = columns["event_time"]
    columns["schema_version"] = [1] * len(events)
    arrays = []
    for field in LAKE_SCHEMA:
        values = columns.get(field.name)
        array = pa.nulls(len(events), field.type) if values is None else pa.array(values)
        arrays.append(array.cast(field.type))
    return pa.table(arrays, schema=LAKE_SCHEMA)


def reference(events, view, key, time):
    """One row of a view, straight from its words. `events` are distinct; order does not matter."""
    seen = sorted((e for e in events if e[4] <= time), key=lambda e: (e[4], e[6], e[7], e[0]))
    watches = [e for e in seen if e[1] in ("play", "rate")]
    if view == "title_popularity":
        mine = [e for e in watches if e[3] == key]

        def members(window):
            return len({e[2] for e in mine if e[4] > time - window})

        def mean(window):
            stars = [round(e[5] * 1e6) for e in mine if e[1] == "rate" and e[4] > time - window]
            return sum(stars) / len(stars) / 1e6 if stars else None

        rated = sum(e[1] == "rate" for e in mine)
        forever = 1 << 60
        counts = [members(DAY), members(7 * DAY), members(30 * DAY), members(forever)]
        return [key, *counts, mean(30 * DAY), mean(forever), rated]
    mine = [e for e in watches if e[2] == key]
    if view == "member_activity":
        counts = [len({e[3] for e in mine if e[4] > time - w}) for w in (HOUR, DAY, 7 * DAY)]
        last = {}
        for e in mine:
            last.pop(e[3], None)
            last[e[3]] = None
        return [key, *counts, list(last)[-LAST_TITLES:], time]
    if view == "member_watched":
        first = {}
        for e in mine:
            first.setdefault(e[3], e[4])
        return [key, list(first), list(first.values())]
    weights = defaultdict(float)
    for e in mine:
        weight = e[5] / 5 if e[1] == "rate" else 1.0
        for genre in set(GENRES.get(e[3], ())):
            weights[genre] += weight / len(GENRES[e[3]]) * 2 ** -((time - e[4]) / HALF_LIFE)
    return [key, sorted(weights), [weights[genre] for genre in sorted(weights)]]


def same(left, right):
    if isinstance(left, float) and isinstance(right, float):
        return math.isclose(left, right, rel_tol=1e-11)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    return left == right


def rows(table):
    columns = [table[name].to_pylist() for name in table.column_names[:-1]]
    return [list(row) for row in zip(*columns, strict=True)]


TIMES = st.one_of(
    st.integers(0, 5),
    st.integers(0, 8).map(lambda n: n * HOUR),
    st.integers(0, 60).map(lambda n: n * DAY),
    st.integers(0, 40 * 365 * DAY),
)


@st.composite
def event_lists(draw, min_size=0):
    """Distinct events, each with its place in one of two partitions; a member keeps to one partition."""
    n = draw(st.integers(min_size, 25))
    offsets = defaultdict(int)
    events = []
    for i in range(n):
        kind = draw(st.sampled_from(["play", "rate", "click", "search"]))
        member = draw(st.integers(0, 2))
        title = None if kind == "search" else f"t{draw(st.integers(0, 4))}"
        value = draw(st.sampled_from([0.5, 1.0, 3.7, 5.0])) if kind == "rate" else None
        partition = member % 2
        event = (f"e{i}", kind, f"m{member}", title, draw(TIMES), value, partition, offsets[partition])
        offsets[partition] += 1
        events.append(event)
    return events


@given(event_lists())
@settings(max_examples=60)
def test_every_row_of_the_history_equals_the_reference(events):
    table = lake(events)
    for view in VIEWS.values():
        asked = rows_of(table, view, latest=False)
        got = rows(view.transform(watches_of(table), asked, GENRES))
        want = [reference(events, view.name, r["key"], r["time"]) for r in asked.to_pylist()]
        assert all(map(same, got, want)), (view.name, got, want)
        assert len(got) == len(want)


@given(event_lists(min_size=1), st.data())
@settings(max_examples=60)
def test_a_row_of_the_history_is_the_latest_row_as_of_its_time_bit_for_bit(events, data):
    moment = data.draw(st.sampled_from([e[4] for e in events]))
    whole, past = lake(events), lake([e for e in events if e[4] <= moment])
    for view in VIEWS.values():
        history = view.transform(watches_of(whole), rows_of(whole, view, latest=False), GENRES)
        latest = view.transform(watches_of(past), rows_of(past, view, latest=True), GENRES)
        held = history.to_pylist()
        assert all(row in held for row in latest.to_pylist())


@given(event_lists(), st.data())
@settings(max_examples=80)
def test_any_split_and_any_order_leave_the_same_rows_bit_for_bit(events, data):
    arrivals = data.draw(st.permutations(events))
    histories = {key: History(key) for key in ("member_id", "title_id")}
    published = {view: {} for view in VIEWS}
    start = 0
    while start < len(arrivals):
        size = data.draw(st.integers(1, len(arrivals)))
        batch = lake(arrivals[start : start + size])
        start += size
        added = {key: history.add(batch) for key, history in histories.items()}
        for view in VIEWS.values():
            table = histories[view.key].latest(view, added[view.key].touched(view), GENRES)
            for row in table.to_pylist():
                published[view.name][row[view.key]] = row
    table = lake(events)
    for view in VIEWS.values():
        batch = view.transform(watches_of(table), rows_of(table, view, latest=True), GENRES)
        assert {row[view.key]: row for row in batch.to_pylist()} == published[view.name]
        everyone = histories[view.key].all.touched(view)
        assert set(published[view.name]) == set(everyone)


def test_a_late_event_changes_the_values_and_leaves_the_row_time():
    history = History("member_id")
    history.add(lake([("e1", "play", "m1", "t1", 10 * DAY, None, 0, 0)]))
    history.add(lake([("e2", "play", "m1", "t0", 9 * DAY + DAY // 2, None, 0, 1)]))
    (row,) = history.latest(VIEWS["member_activity"], ["m1"], GENRES).to_pylist()
    assert row["plays_24h"] == 2
    assert row["last_title_ids"] == ["t0", "t1"]
    assert row["last_event_time"] == 10 * DAY


def test_windows_open_after_t_minus_w_and_close_at_t():
    events = [
        ("e0", "play", "m", "t0", 0, None, 0, 0),
        ("e1", "play", "m", "t1", 1, None, 0, 1),
        ("e2", "play", "m", "t2", HOUR, None, 0, 2),
    ]
    table = lake(events)
    view = VIEWS["member_activity"]
    got = view.transform(watches_of(table), rows_of(table, view, latest=True), GENRES)
    assert got["plays_1h"].to_pylist() == [2]


def test_a_member_without_a_watch_has_a_row_of_nothing():
    history = History("member_id")
    history.add(lake([("e1", "search", "m1", None, 10, None, 0, 0)]))
    (row,) = history.latest(VIEWS["member_activity"], ["m1"], GENRES).to_pylist()
    assert (row["plays_7d"], row["last_title_ids"], row["last_event_time"]) == (0, [], 10)
    assert history.latest(VIEWS["member_watched"], ["m1"], GENRES).num_rows == 0


@pytest.mark.parametrize("watches", [LAST_TITLES, LAST_TITLES + 1])
def test_last_titles_are_bounded_and_drop_the_oldest(watches):
    events = [(f"e{i}", "play", "m", f"x{i}", i, None, 0, i) for i in range(watches)]
    table = lake(events)
    view = VIEWS["member_activity"]
    (row,) = view.transform(watches_of(table), rows_of(table, view, latest=True), {}).to_pylist()
    assert row["last_title_ids"] == [f"x{i}" for i in range(watches)][-LAST_TITLES:]


def test_catalogue_rows_hold_from_the_time_given():
    columns = {
        "title_id": ["a"],
        "name": ["A"],
        "genres": [["Drama", "War"]],
        "cast": [[]],
        "keywords": [["x"]],
    }
    arrays = [
        pa.array(columns[f.name], f.type) if f.name in columns else pa.nulls(1, f.type)
        for f in CATALOGUE_SCHEMA
    ]
    (row,) = title_content(pa.table(arrays, schema=CATALOGUE_SCHEMA), 0).to_pylist()
    assert (row["genre_count"], row["cast_count"], row["keyword_count"], row["release_year"]) == (
        2,
        0,
        1,
        None,
    )
    assert row["event_timestamp"].timestamp() == 0


def test_affinity_spans_decades_without_overflow():
    span = 55 * 365 * DAY
    events = [("e0", "play", "m", "t0", 0, None, 0, 0), ("e1", "play", "m", "t0", span, None, 0, 1)]
    table = lake(events)
    view = VIEWS["member_affinity"]
    (row,) = view.transform(watches_of(table), rows_of(table, view, latest=True), GENRES).to_pylist()
    assert np.isclose(row["affinity"][0], 1.0)
