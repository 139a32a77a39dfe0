"""Ids that were seen: each new once in its partition, whatever the batches."""

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from matinee.features.seen import SeenIds

EVENT = st.tuples(
    st.sampled_from(["a", "b", "c", "a-long-event-id-1", "a-long-event-id-2", "é"]), st.integers(0, 2)
)


def add(seen, batch, time=0):
    ids = pa.array([each for each, _ in batch], pa.string())
    partition = np.array([place for _, place in batch], dtype=np.int64)
    return seen.add(ids, partition, np.full(len(batch), time, dtype=np.int64)).tolist()


@given(st.lists(st.lists(EVENT, max_size=6), max_size=12))
def test_an_id_is_new_once_in_its_partition(batches):
    seen, known = SeenIds(), set()
    for batch in batches:
        expected = []
        for event in batch:
            expected.append(event not in known)
            known.add(event)
        assert add(seen, batch) == expected
    assert len(seen) == len(known)


def test_many_ids_are_told_apart():
    seen = SeenIds()
    for begin in range(0, 50_000, 5_000):
        assert all(add(seen, [(f"event-{i}", i % 3) for i in range(begin, begin + 5_000)]))
    assert not any(add(seen, [(f"event-{i}", i % 3) for i in range(0, 50_000, 7)]))
    assert len(seen._runs) < 20


def test_ids_that_came_long_ago_are_forgotten():
    seen = SeenIds()
    add(seen, [("old", 0)], time=10)
    add(seen, [("new", 0)], time=20)
    seen.forget(20)
    assert len(seen) == 1
    assert add(seen, [("old", 0), ("new", 0)]) == [True, False]
