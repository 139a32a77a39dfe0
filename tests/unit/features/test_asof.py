"""The point-in-time join against a loop that follows the rule word by word."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matinee.errors import InvalidInput
from matinee.features import asof

US = pa.timestamp("us", "UTC")
YEARS = 300 * 365 * 86_400_000_000


def reference(asked, rows, *, ttl=0, known=False, has_created=True):
    """asked: (key..., time); rows: (key..., time, created). One row at a time."""
    answer = []
    for *keys, time in asked:
        best = None
        for place, (*held, at, made) in enumerate(rows):
            if time is None or at is None or at > time or None in keys or held != keys:
                continue
            if known and (made is None or made > time):
                continue
            rank = (at, (-1 if made is None else made) if has_created else 0, place)
            best = max(best, rank) if best else rank
        late = best is not None and ttl and time - best[0] > ttl
        answer.append(-1 if best is None or late else best[2])
    return answer


def columns(entries, kinds):
    return [
        pa.chunked_array([pa.array([entry[i] for entry in entries], pa.int64()).cast(kind)])
        if pa.types.is_timestamp(kind)
        else pa.chunked_array([pa.array([entry[i] for entry in entries], kind)])
        for i, kind in enumerate(kinds)
    ]


def found(asked, rows, kinds, *, ttl=0, known=False, has_created=True):
    *asked_keys, asked_time = columns(asked, [*kinds, US])
    *row_keys, row_time, created = columns(rows, [*kinds, US, US])
    made = created if has_created else None
    at = asof.positions(asked_keys, asked_time, row_keys, row_time, created=made, ttl_us=ttl, known=known)
    return at.tolist()


NAMES = st.sampled_from(["a", "b", "c", None])
NUMBERS = st.sampled_from([1, 2, None])
TIMES = st.one_of(st.none(), st.integers(0, 12), st.sampled_from([YEARS, YEARS + 1]))


@given(
    rows=st.lists(st.tuples(NAMES, NUMBERS, TIMES, TIMES), max_size=40),
    asked=st.lists(st.tuples(NAMES, NUMBERS, TIMES), max_size=40),
    ttl=st.sampled_from([0, 1, 4]),
    known=st.booleans(),
    has_created=st.booleans(),
)
@settings(max_examples=300)
def test_every_row_sees_the_latest_of_its_keys(rows, asked, ttl, known, has_created):
    known = known and has_created
    options = {"ttl": ttl, "known": known, "has_created": has_created}
    assert found(asked, rows, [pa.string(), pa.int64()], **options) == reference(asked, rows, **options)


@given(
    rows=st.lists(st.tuples(NAMES, TIMES, TIMES), max_size=40),
    asked=st.lists(st.tuples(NAMES, TIMES), max_size=40),
    sort=st.booleans(),
)
@settings(max_examples=200)
def test_the_order_of_rows_decides_between_equal_times_alone(rows, asked, sort):
    if sort:
        rows = sorted(rows, key=lambda row: -1 if row[1] is None else row[1])
    want = reference(asked, rows, has_created=False)
    assert found(asked, rows, [pa.string()], has_created=False) == want
    times = [row[1] for row in rows]
    assert [times[at] if at >= 0 else None for at in want] == [
        times[at] if at >= 0 else None for at in reference(asked, rows)
    ]


def test_rows_of_no_key_hold_for_everybody():
    at = asof.positions(
        [], pa.chunked_array([pa.array([0, 5, 9])]), [], pa.chunked_array([pa.array([4, 8])]), ttl_us=3
    )
    assert at.tolist() == [-1, 0, 1]


@pytest.mark.parametrize("sort", [True, False])
@pytest.mark.parametrize("span", [10**9, 10**15])
def test_many_keys_over_a_long_time_agree_with_a_search_key_by_key(sort, span):
    draw = np.random.default_rng(3)
    keys, count = 40_000, 60_000
    held, times = draw.integers(0, keys, count), draw.integers(-span, span, count)
    if sort:
        times.sort()
    asked, asked_times = draw.integers(0, keys + 5, 2_000), draw.integers(-2 * span, 2 * span, 2_000)
    at = asof.positions(
        [pa.chunked_array([pa.array(asked)])],
        pa.chunked_array([pa.array(asked_times)]),
        [pa.chunked_array([pa.array(held[:7]), pa.array(held[7:])])],
        pa.chunked_array([pa.array(times)]),
    )
    for key, time, got in zip(asked, asked_times, at, strict=True):
        mine = np.flatnonzero((held == key) & (times <= time))
        want = mine[times[mine] == times[mine].max()][-1] if len(mine) else -1
        assert got == want


def key_table(kind, values, times):
    return pa.table({"k": pa.array(values, kind), "event_timestamp": pa.array(times, pa.int64()).cast(US)})


@pytest.mark.parametrize(
    ("asked", "held"),
    [
        (pa.string(), pa.large_string()),
        (pa.string_view(), pa.string()),
        (pa.dictionary(pa.int32(), pa.string()), pa.string()),
        (pa.string(), pa.dictionary(pa.int32(), pa.string())),
        (pa.dictionary(pa.int8(), pa.string()), pa.dictionary(pa.int32(), pa.string())),
    ],
)
def test_text_keys_match_however_they_are_held(asked, held):
    left = key_table(asked, ["b", "a", None, "z"], [5, 5, 5, 5])
    right = key_table(held, ["a", "b", None, "a"], [1, 2, 3, 9])
    rows = right.append_column("v", pa.array([10, 20, 30, 40]))
    assert asof.join(left, rows, keys=["k"], columns=["v"])["v"].to_pylist() == [20, 10, None, None]


@pytest.mark.parametrize(("asked", "held"), [("int64", "int32"), ("int8", "uint16"), ("float64", "int64")])
def test_whole_numbers_match_however_they_are_held(asked, held):
    left = key_table(asked, [2, None, 1], [5, 5, 5])
    right = key_table(held, [1, 2], [1, 2])
    rows = right.append_column("v", pa.array(["one", "two"]))
    assert asof.join(left, rows, keys=["k"], columns=["v"])["v"].to_pylist() == ["two", None, "one"]


def test_keys_that_cannot_be_compared_are_refused():
    left, right = key_table(pa.string(), ["1"], [5]), key_table(pa.int64(), [1], [1])
    with pytest.raises(InvalidInput, match="string where it is asked for and int64"):
        asof.join(left, right, keys=["k"], columns=["k"])


def test_times_between_microseconds_are_compared_as_they_are():
    rows = pa.table({"event_timestamp": pa.array([1_001], pa.timestamp("ns")), "v": [7]})
    asked = pa.table({"event_timestamp": pa.array([1_000, 1_001, 2_000], pa.timestamp("ns", "UTC"))})
    assert asof.join(asked, rows, keys=[], columns=["v"])["v"].to_pylist() == [None, 7, 7]
    coarse = pa.table({"event_timestamp": pa.array([1, 2], US)})
    assert asof.join(coarse, rows, keys=[], columns=["v"])["v"].to_pylist() == [None, 7]


@pytest.mark.parametrize("kind", [pa.timestamp("s"), pa.timestamp("ms", "UTC"), pa.timestamp("ns")])
def test_units_of_time_are_the_same_time(kind):
    rows = pa.table({"event_timestamp": pa.array([1_000_000], US), "v": [7]})
    one = {"s": 1, "ms": 1_000, "ns": 1_000_000_000}[kind.unit]
    asked = pa.table({"event_timestamp": pa.array([0, one], kind)})
    assert asof.join(asked, rows, keys=[], columns=["v"])["v"].to_pylist() == [None, 7]


def test_times_that_are_text_are_refused():
    rows = pa.table({"event_timestamp": ["2026-01-01"], "v": [7]})
    with pytest.raises(InvalidInput, match="times are string"):
        asof.join(rows, rows, keys=[], columns=["v"])


def test_no_rows_give_nulls_of_the_columns_types():
    rows = pa.table(
        {
            "k": pa.array([], pa.string()),
            "event_timestamp": pa.array([], US),
            "v": pa.array([], pa.list_(pa.int8())),
        }
    )
    got = asof.join(key_table(pa.string(), ["a"], [1]), rows, keys=["k"], columns=["v"], names=["w"])
    assert got.equals(pa.table({"w": pa.array([None], pa.list_(pa.int8()))}))
    assert asof.join(rows, rows, keys=["k"], columns=["v"]).num_rows == 0
