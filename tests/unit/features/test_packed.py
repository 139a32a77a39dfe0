"""Packed rows: what is encoded is what is decoded, and a row of another layout gives what both know."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from matinee.errors import InvalidInput
from matinee.features import packed
from matinee.features.packed import Decoder, Layout

_INT64 = st.integers(-(2**63), 2**63 - 1)
_SINGLE = {
    "int64": _INT64,
    "int32": st.integers(-(2**31), 2**31 - 1),
    "float64": st.floats(allow_nan=False),
    "float32": st.floats(allow_nan=False, width=32),
    "bool": st.booleans(),
    "timestamp": st.integers(-(2**61), 2**61),
    "string": st.text(max_size=5),
    "bytes": st.binary(max_size=5),
}
_VALUES = {
    **_SINGLE,
    "opaque": st.binary(max_size=5),
    **{f"list:{kind}": st.lists(values, max_size=4) for kind, values in _SINGLE.items()},
}


def encoded(layout, rows, times=None, created=None):
    columns = {}
    for slot, (name, kind) in enumerate(layout.features):
        values = [row[slot] for row in rows]
        if kind.endswith("timestamp"):
            plain = pa.list_(pa.int64()) if kind.startswith("list:") else pa.int64()
            columns[name] = pa.array(values, plain).cast(packed.arrow_type(kind))
        else:
            columns[name] = pa.array(values, packed.arrow_type(kind))
    times = np.zeros(len(rows), np.int64) if times is None else np.array(times, np.int64)
    return packed.encode(layout, pa.table(columns), time=times, created=created)


@st.composite
def layouts_and_rows(draw):
    kinds = draw(st.lists(st.sampled_from(sorted(_VALUES)), min_size=1, max_size=20))
    layout = Layout(tuple((f"f{place}", kind) for place, kind in enumerate(kinds)))
    row = st.tuples(*(st.none() | _VALUES[kind] for kind in kinds))
    return layout, draw(st.lists(row, min_size=1, max_size=5))


@given(layouts_and_rows())
def test_rows_come_back_as_they_were_written(drawn):
    layout, rows = drawn
    decoder = Decoder(layout, layout.names)
    written = encoded(layout, rows)
    assert [tuple(decoder.decode(value)) for value in written] == rows
    columns = decoder.columns(written)
    for slot, (name, _) in enumerate(layout.features):
        values, missing = columns[name]
        held = [None if gone else value for value, gone in zip(values.tolist(), missing, strict=True)]
        assert held == [row[slot] for row in rows]


@given(layouts_and_rows(), st.data())
def test_any_of_the_features_can_be_read_in_any_order(drawn, data):
    layout, rows = drawn
    wanted = data.draw(st.lists(st.sampled_from(layout.names), unique=True))
    decoder = Decoder(layout, wanted)
    places = [layout.names.index(name) for name in wanted]
    for value, row in zip(encoded(layout, rows), rows, strict=True):
        assert list(decoder.decode(value)) == [row[place] for place in places]


@given(st.lists(_INT64, min_size=2, max_size=2), st.none() | st.integers(-(2**62), 2**62))
def test_times_come_back_and_order_the_bytes(times, created):
    layout = Layout((("a", "int64"),))
    made = None if created is None else np.full(2, created)
    first, second = encoded(layout, [(1,), (2,)], times=times, created=made)
    assert [packed.event_time(first), packed.event_time(second)] == times
    assert packed.created_time(first) == created
    assert (first[8:16] < second[8:16]) == (times[0] < times[1])


def test_a_row_of_an_older_layout_gives_the_features_both_know():
    old = Layout((("same", "string"), ("retyped", "int64"), ("gone", "list:int64"), ("last", "float64")))
    new = Layout((("added", "int64"), ("last", "float64"), ("retyped", "float64"), ("same", "string")))
    (value,) = encoded(old, [("x", 3, [1, 2], 0.5)])
    asked = []

    def find(fingerprint):
        asked.append(fingerprint)
        return old

    decoder = Decoder(new, new.names, find=find)
    for _ in range(2):
        assert list(decoder.decode(value)) == [None, 0.5, None, "x"]
    assert asked == [old.fingerprint]
    assert decoder.known(value) == ["last", "same"]
    values, missing = decoder.columns([value])["last"]
    assert (values.tolist(), missing.tolist()) == ([0.5], [False])


def test_a_row_of_a_layout_that_nobody_knows_gives_nulls_until_somebody_does():
    old, new = Layout((("a", "int64"), ("b", "string"))), Layout((("b", "string"),))
    (value,) = encoded(old, [(1, "x")])
    known = {}
    decoder = Decoder(new, ["b"], find=known.get)
    assert list(decoder.decode(value)) == [None]
    known[old.fingerprint] = old
    assert list(decoder.decode(value)) == ["x"]


def test_a_layout_is_told_by_names_kinds_and_order():
    layouts = [
        Layout((("a", "int64"), ("b", "string"))),
        Layout((("b", "string"), ("a", "int64"))),
        Layout((("a", "int64"), ("c", "string"))),
        Layout((("a", "int32"), ("b", "string"))),
    ]
    assert len({layout.fingerprint for layout in layouts}) == 4
    assert [Layout.parse(layout.text) for layout in layouts] == layouts


def test_texts_with_the_separator_come_back():
    layout = Layout((("a", "list:string"), ("b", "list:bytes")))
    rows = [(["", "a\0b", "\0"], [b"\0\0"]), ([""], [b"", b""]), ([], [])]
    decoder = Decoder(layout, layout.names)
    assert [tuple(decoder.decode(value)) for value in encoded(layout, rows)] == rows


def test_slices_are_encoded_as_what_they_show():
    layout = Layout((("a", "list:int64"), ("b", "string"), ("c", "bool")))
    table = pa.table(
        {"a": [[1], [2, 3], [], None], "b": ["x", "yy", None, "z"], "c": [True, None, False, True]}
    )
    decoder = Decoder(layout, layout.names)
    rows = packed.encode(layout, table.slice(1, 2), time=np.zeros(2, np.int64), created=None)
    assert [list(decoder.decode(value)) for value in rows] == [[[2, 3], "yy", None], [[], None, False]]


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ({"b": [1]}, "'a' is missing"),
        ({"a": ["x"]}, "'a' is string; accepted: list"),
        ({"a": pa.array([[1, None]], pa.list_(pa.int64()))}, "'a': a list holds a null"),
    ],
)
def test_columns_that_cannot_be_written_are_refused(column, message):
    layout = Layout((("a", "list:int64"),))
    with pytest.raises(InvalidInput, match=message):
        packed.encode(layout, pa.table(column), time=np.zeros(1, np.int64), created=None)


def test_layouts_that_make_no_sense_are_refused():
    with pytest.raises(InvalidInput, match="kind 'text'"):
        Layout((("a", "text"),))
    with pytest.raises(InvalidInput, match="twice"):
        Layout((("a", "int64"), ("a", "int64")))
    with pytest.raises(InvalidInput, match="not one of a"):
        Decoder(Layout((("a", "int64"),)), ["b"])
