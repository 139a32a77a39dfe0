"""A group of partitions and the keeper: the log decides, not how it was cut, moved, or told twice."""

from datetime import timedelta
from itertools import pairwise

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from matinee.features import aggregates
from matinee.features.group import PartitionGroup, Views
from matinee.features.keeper import Keeper
from matinee.features.transforms import rows_of, watches_of
from matinee.schema import (
    LAKE_SCHEMA,
    TIMESTAMP,
    Aggregate,
    AggregateView,
    EventType,
    Function,
    Window,
)

HOUR = timedelta(hours=1)
HOUR_US = 3_600_000_000
GENRES = {"t0": ["Drama"], "t1": ["Drama", "Noir"]}


def view(key, other):
    return AggregateView(
        name=f"{key}_view",
        key=key,
        lateness=HOUR,
        late="dead_letter" if key == "member_id" else "drop",
        aggregates=(
            Aggregate(name="recent", function=Function.COUNT, window=Window.sliding(2 * HOUR, HOUR)),
            Aggregate(name="stars", function=Function.SUM, column="value", window=Window.unbounded()),
            Aggregate(name="last", function=Function.LAST_N, column=other, n=3, window=Window.unbounded()),
            Aggregate(name="run", function=Function.COUNT, window=Window.session(HOUR / 4)),
            Aggregate(
                name="others",
                function=Function.COUNT_DISTINCT,
                column=other,
                window=Window.sliding(3 * HOUR, HOUR),
            ),
        ),
    )


BOTH = Views(aggregates=[view("member_id", "title_id"), view("title_id", "member_id")])
ONLY = Views(aggregates=BOTH.aggregates, histories=[])

EVENT = st.fixed_dictionaries(
    {
        "id": st.integers(0, 60),
        "member": st.integers(0, 3),
        "title": st.integers(0, 2),
        "kind": st.sampled_from(["play", "rate", "click"]),
        "time": st.integers(0, 24).map(lambda quarter: quarter * HOUR_US // 4),
        "value": st.sampled_from([0.5, 3.0, 4.7]),
    }
)
LOG = st.lists(EVENT, min_size=1, max_size=40)
CUTS = st.lists(st.integers(0, 40), max_size=6)


def log_of(drawn):
    """Rows of LAKE_SCHEMA in the order of arrival; member i lies in partition i % 2."""
    offsets = {0: 0, 1: 0}
    columns = {field.name: [] for field in LAKE_SCHEMA}
    for event in drawn:
        partition = event["member"] % 2
        row = {
            "schema_version": 1,
            "event_id": f"e{event['id']}-{event['member']}",
            "type": event["kind"],
            "member_id": f"m{event['member']}",
            "title_id": f"t{event['title']}",
            "event_time": event["time"],
            "ingest_time": 0,
            "value": event["value"] if event["kind"] == "rate" else None,
            "partition": partition,
            "offset": offsets[partition],
        }
        offsets[partition] += 1
        for name, values in columns.items():
            values.append(row.get(name))
    return pa.table([pa.array(columns[f.name], f.type) for f in LAKE_SCHEMA], schema=LAKE_SCHEMA)


def expected_lake(events):
    """First of each id in its partition, with `late_by` from the rule's own words."""
    newest, seen, late_by, kept = {}, set(), [], []
    for row in events.to_pylist():
        time = row["event_time"].timestamp() * 1e6
        partition = row["partition"]
        behind = max(0, newest.get(partition, time) - time)
        newest[partition] = max(time, newest.get(partition, time))
        kept.append((partition, row["event_id"]) not in seen)
        seen.add((partition, row["event_id"]))
        late_by.append(int(behind))
    place = events.schema.get_field_index("late_by")
    events = events.set_column(place, LAKE_SCHEMA.field("late_by"), pa.array(late_by, pa.int64()))
    return events.filter(pa.array(kept))


def batches(events, cuts):
    bounds = [0, *sorted(min(cut, events.num_rows) for cut in cuts), events.num_rows]
    return [events.slice(a, b - a) for a, b in pairwise(bounds) if b > a]


class Online:
    def __init__(self):
        self.rows = {}
        self.lost = "a"

    def write_online(self, view, table):
        for row in table.to_pylist():
            held = self.rows.get((view, row[table.schema.names[0]]))
            if held is None or row["event_timestamp"] >= held["event_timestamp"]:
                self.rows[view, row[table.schema.names[0]]] = row

    def generation(self):
        return self.lost


def publish(group, online):
    for name, due in group.due.items():
        if due:
            online.write_online(name, group.rows(name))
            due.clear()


def wanted(lake, views):
    found = {}
    for each in views.aggregates:
        for row in aggregates.latest(each, lake).to_pylist():
            found[each.name, row[each.key]] = row
    for each in views.histories:
        rows = rows_of(lake, each, latest=True)
        for row in each.transform(watches_of(lake), rows, GENRES).to_pylist():
            found[each.name, row[each.key]] = row
    return found


def tell(keeper, group, ends):
    keeper.push(group.push("c", ends))


def ends_of(events):
    partition, offset = events["partition"].to_numpy(), events["offset"].to_numpy()
    return {int(p): int(offset[partition == p].max()) + 1 for p in np.unique(partition)}


@settings(max_examples=60)
@given(LOG, CUTS)
def test_any_cut_of_the_log_leaves_what_batch_says(drawn, cuts):
    events = log_of(drawn)
    online = Online()
    keeper = Keeper(views=BOTH.of("title_id"), genres=GENRES, online=online)
    group = PartitionGroup(views=BOTH, genres=GENRES)
    taken = []
    late = {}
    letters = 0
    for batch in batches(events, cuts):
        result = group.take(batch)
        taken.append(result.events)
        letters += int(result.letters["member_id_view"].sum())
        for name, count in result.late.items():
            late[name] = late.get(name, 0) + count
        tell(keeper, group, ends_of(batch))
        publish(group, online)
        group.prune()
    lake = pa.concat_tables(taken)
    assert lake.equals(expected_lake(events))
    refused = int((lake["late_by"].to_numpy() > HOUR_US).sum())
    assert late == dict.fromkeys(late, refused)
    assert letters == refused
    assert online.rows == wanted(lake, BOTH)


@settings(max_examples=60)
@given(LOG, CUTS, st.integers(0, 40), st.integers(0, 40))
def test_a_worker_that_dies_and_one_that_takes_its_partition_leave_the_same(drawn, cuts, committed, read):
    """The first worker commits after `committed` events and dies after `read`; two others go on."""
    events = log_of(drawn)
    committed, read = sorted(min(each, events.num_rows) for each in (committed, read))
    online = Online()
    keeper = Keeper(views=ONLY.of("title_id"), genres=GENRES, online=online)
    first = PartitionGroup(views=ONLY, genres=GENRES)
    before = events.slice(0, committed)
    taken = [first.take(batch).events for batch in batches(before, cuts)]
    tell(keeper, first, ends_of(before) if committed else {})
    publish(first, online)
    saved = first.snapshot()
    for batch in batches(events.slice(committed, read - committed), cuts):
        first.take(batch)
        tell(keeper, first, ends_of(batch))
        publish(first, online)
    lake = pa.concat_tables([LAKE_SCHEMA.empty_table(), *taken])
    rest = events.slice(committed)
    for partition in (0, 1):
        mine = rest.filter(pa.array(rest["partition"].to_numpy() == partition))
        heir = PartitionGroup(views=ONLY, genres=GENRES)
        for tables in saved:
            heir.restore(tables, [partition])
        heir.remember(lake.filter(pa.array(lake["partition"].to_numpy() == partition)))
        heir.publish_all()
        begin = {partition: ends_of(before).get(partition, 0)} if committed else {partition: 0}
        keeper.push(heir.push("c", begin, whole=True))
        publish(heir, online)
        for batch in batches(mine, cuts):
            heir.take(batch)
            tell(keeper, heir, ends_of(batch))
            publish(heir, online)
    assert online.rows == wanted(expected_lake(events), ONLY)


def one(number, time, *, title=0, member=0):
    return {"id": number, "member": member, "title": title, "kind": "play", "time": time, "value": 1.0}


def test_what_a_restarted_worker_tells_again_takes_no_title_back():
    events = log_of([one(i, i * HOUR_US // 4) for i in range(4)])
    online = Online()
    keeper = Keeper(views=ONLY.of("title_id"), genres=GENRES, online=online)
    first, again = PartitionGroup(views=ONLY, genres=GENRES), PartitionGroup(views=ONLY, genres=GENRES)
    first.take(events)
    tell(keeper, first, ends_of(events))
    held = dict(online.rows)
    again.take(events.slice(0, 2))
    tell(keeper, again, ends_of(events.slice(0, 2)))
    state = keeper._state.rows("title_id_view").to_pylist()
    assert state == list(held.values()) == list(online.rows.values())
    keeper.push(again.push("another cluster", {0: 2}, whole=True))
    assert keeper._state.rows("title_id_view")["last"].to_pylist() == [["m0", "m0"]]


def test_a_repeat_of_an_event_that_came_late_is_known_while_the_clock_stands():
    events = log_of([one(1, 10 * HOUR_US), one(2, 2 * HOUR_US), one(2, 2 * HOUR_US)])
    group = PartitionGroup(views=ONLY, genres=GENRES)
    taken = group.take(events.slice(0, 2))
    assert taken.late == {"member_id_view": 1, "title_id_view": 1}
    group.prune()
    assert group.take(events.slice(2)).duplicates == 1


def test_a_session_stays_while_an_event_in_time_can_reach_it():
    quarter = HOUR_US // 4
    drawn = [one(1, 0), one(2, 3 * quarter), one(3, quarter), one(4, 2 * quarter)]
    events = log_of(drawn)
    group = PartitionGroup(views=ONLY, genres=GENRES)
    for row in range(4):
        group.take(events.slice(row, 1))
        group.prune()
    assert group.rows("member_id_view")["run"].to_pylist() == [4]


def test_titles_are_published_again_where_the_store_lost_them():
    events = log_of([{"id": 1, "member": 0, "title": 0, "kind": "play", "time": 0, "value": 1.0}])
    online = Online()
    keeper = Keeper(views=BOTH.of("title_id"), genres=GENRES, online=online)
    group = PartitionGroup(views=BOTH, genres=GENRES)
    group.take(events)
    tell(keeper, group, {0: 1})
    held = dict(online.rows)
    assert {name for name, _ in held} == {"title_id_view", "title_popularity"}
    online.rows.clear()
    online.lost = "b"
    tell(keeper, group, {0: 1})
    assert online.rows == held


def test_views_say_what_is_late_for_all_of_them():
    assert ONLY.lateness == HOUR_US
    assert ONLY.bounded
    assert not BOTH.bounded
    assert BOTH.of("title_id").names == ["title_id_view", "title_popularity"]


def test_ids_and_state_of_long_ago_are_dropped_where_every_view_has_a_lateness():
    times = [0, 100, 200]
    drawn = [
        {"id": i, "member": 0, "title": 0, "kind": EventType.PLAY, "time": t * HOUR_US, "value": 1.0}
        for i, t in enumerate(times)
    ]
    group = PartitionGroup(views=ONLY, genres=GENRES)
    group.take(log_of(drawn))
    before = group.rows("member_id_view")
    group.prune()
    assert len(group._seen) == 1
    group.due["member_id_view"].add("m0")
    assert group.rows("member_id_view").equals(before)
    assert before["event_timestamp"].cast(pa.int64()).to_pylist() == [200 * HOUR_US]
    assert before.schema.field("event_timestamp").type == TIMESTAMP
