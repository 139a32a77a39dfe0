"""Laws of rows that combine: at once or part by part, in any order, they come to the same."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from matinee.features.aggregates.plan import LEAST, Kind, Measure, Partial, StateTable
from matinee.features.aggregates.tables import combined, groups

PARTIALS = tuple(
    sorted(
        (
            Partial(measure=Measure.COUNT),
            Partial(measure=Measure.SUM, column="value"),
            Partial(measure=Measure.MIN, column="value"),
            Partial(measure=Measure.MAX, column="value"),
        ),
        key=lambda each: each.name,
    )
)
DEFINITIONS = (
    StateTable(kind=Kind.TILES, key="member_id", lateness=None, hop=5, partials=PARTIALS),
    StateTable(kind=Kind.ITEMS, key="member_id", lateness=None, hop=5, column="type", partials=PARTIALS),
    StateTable(kind=Kind.LATEST, key="member_id", lateness=None, column="type", n=3),
    StateTable(kind=Kind.LATEST_DISTINCT, key="member_id", lateness=None, column="type", n=2),
    StateTable(kind=Kind.SESSIONS, key="member_id", lateness=None, hop=4, partials=PARTIALS),
)


def rows_of(table, events):
    """Rows of single events (owner, time, item, value)."""
    owner, time, item, value = (np.array([event[i] for event in events], np.int64) for i in range(4))
    held = {
        "tile": time // 5,
        "item": item.astype(np.uint64),
        "time": time,
        "offset": np.arange(len(events)),
        "start": time,
        "end": time,
    }
    for each in table.partials:
        held[each.name] = np.ones(len(events), np.int64) if each.measure is Measure.COUNT else value
    names = [name for name in table.schema.names if name not in ("partition", "key")]
    return owner, {name: held[name] for name in names}


def as_set(owner, rows):
    columns = [owner.tolist(), *(rows[name].tolist() for name in sorted(rows))]
    return sorted(zip(*columns, strict=True))


@given(
    st.sampled_from(DEFINITIONS),
    st.lists(
        st.tuples(st.integers(0, 2), st.integers(-30, 30), st.integers(0, 2**64 - 1), st.integers(-9, 9)),
        min_size=1,
        max_size=30,
    ),
    st.integers(0, 30),
    st.randoms(use_true_random=False),
)
def test_parts_combine_to_the_whole(table, events, cut, random):
    events = [
        (owner, time, item % 3 if table.n else item >> 62, value) for owner, time, item, value in events
    ]
    owner, rows = rows_of(table, events)
    everything = np.full(3, LEAST)
    whole = combined(table, owner, rows, everything)
    assert (np.diff(whole[0]) >= 0).all()
    order = np.array(random.sample(range(len(events)), len(events)))
    parts = []
    for part in (order[:cut], order[cut:]):
        parts.append(
            combined(table, owner[part], {name: each[part] for name, each in rows.items()}, everything)
        )
    united = {name: np.concatenate([part[1][name] for part in parts]) for name in rows}
    assert as_set(
        *combined(table, np.concatenate([part[0] for part in parts]), united, everything)
    ) == as_set(*whole)


@given(
    st.lists(
        st.tuples(
            st.integers(0, 3),
            st.integers(-(2**62), 2**62) | st.integers(0, 2),
            st.integers(0, 2**64 - 1) | st.integers(0, 1),
        )
    ),
    st.integers(1, 3),
)
def test_groups_order_by_all_columns_and_tell_apart_by_some(rows, identity):
    columns = [
        np.array([row[0] for row in rows], np.int64),
        np.array([row[1] for row in rows], np.int64),
        np.array([row[2] for row in rows], np.uint64).view(np.int64),
    ]
    order, starts = groups(columns, identity)
    ordered = [tuple(int(column[at]) for column in columns) for at in order]
    assert ordered == sorted(ordered)
    heads = [at for at, row in enumerate(ordered) if not at or row[:identity] != ordered[at - 1][:identity]]
    assert starts.tolist() == heads


def test_old_tiles_go_and_sessions_stay_while_an_event_can_reach_them():
    tiles, sessions = DEFINITIONS[0], DEFINITIONS[4]
    events = [(0, 0, 0, 1), (0, 10, 0, 1), (0, 20, 0, 1), (1, 0, 0, 1)]
    owner, rows = combined(tiles, *rows_of(tiles, events), np.array([2, LEAST]))
    assert list(zip(owner.tolist(), rows["tile"].tolist(), strict=True)) == [(0, 2), (0, 4), (1, 0)]
    owner, rows = combined(sessions, *rows_of(sessions, events), np.array([5, 5]))
    assert list(zip(owner.tolist(), rows["end"].tolist(), strict=True)) == [(0, 10), (0, 20), (1, 0)]
