"""The point-in-time rule, and builds that readers see whole."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matinee.errors import NotFound
from matinee.features import offline
from matinee.schema import TIMESTAMP


def table(rows):
    """Rows of (key, time, value)."""
    return pa.table(
        {
            "member_id": pa.array([row[0] for row in rows], pa.string()),
            "event_timestamp": pa.array([row[1] for row in rows], pa.int64()).cast(TIMESTAMP),
            "value": pa.array([row[2] for row in rows], pa.int64()),
        }
    )


ROWS = st.lists(
    st.tuples(st.sampled_from(["a", "b", "c"]), st.integers(0, 12), st.integers(0, 999)), max_size=30
)
ASKED = st.lists(st.tuples(st.sampled_from(["a", "b", "nobody"]), st.integers(0, 14)), max_size=30)


@given(ROWS, ASKED, st.sampled_from([0, 3]))
@settings(max_examples=150, deadline=None)
def test_no_row_sees_its_future(rows, asked, ttl):
    want = []
    for key, time in asked:
        past = [(row[1], i, row[2]) for i, row in enumerate(rows) if row[0] == key and row[1] <= time]
        past = [each for each in past if not ttl or time - each[0] <= ttl]
        want.append(max(past)[2] if past else None)
    entity = table([(key, time, 0) for key, time in asked]).drop_columns("value")
    got = offline.join_as_of(entity, table(rows), key="member_id", columns=["value"], names=["v"], ttl_us=ttl)
    assert got["v"].to_pylist() == want


def test_a_build_is_seen_when_it_is_published(tmp_path):
    with pytest.raises(NotFound, match="build_features"):
        offline.read(tmp_path, "view")
    file = offline.write_part(tmp_path, "one", "view", "0", table([("a", 1, 1)]))
    with pytest.raises(NotFound):
        offline.read(tmp_path, "view")
    offline.publish(tmp_path, offline.Manifest(build="one", as_of=1, files={"view": [file]}))
    assert offline.read(tmp_path, "view", ["value"])["value"].to_pylist() == [1]


def test_the_build_before_stays_for_its_readers_and_older_ones_go(tmp_path):
    for build in ("one", "two", "three"):
        file = offline.write_part(tmp_path, build, "view", "0", table([("a", 1, 1)]))
        offline.publish(tmp_path, offline.Manifest(build=build, as_of=1, files={"view": [file]}))
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["three", "two"]


def test_appended_rows_follow_those_of_the_build(tmp_path):
    offline.append(tmp_path, "view", table([("a", 1, 1)]))
    offline.append(tmp_path, "view", table([("a", 1, 2)]))
    assert offline.read(tmp_path, "view")["value"].to_pylist() == [1, 2]
    entity = table([("a", 5, 0)]).drop_columns("value")
    rows = offline.read(tmp_path, "view")
    got = offline.join_as_of(entity, rows, key="member_id", columns=["value"], names=["value"])
    assert np.asarray(got["value"]).tolist() == [2]
