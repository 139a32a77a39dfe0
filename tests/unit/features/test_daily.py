"""Rows kept up to date by the day: what a run computes, and that it leaves what a run from nothing leaves."""

import random
from datetime import timedelta

import pytest
from aggregate_examples import BEGIN, DAY, any_log, any_view, table_of
from hypothesis import given, settings
from hypothesis import strategies as st

from matinee.events import lake
from matinee.features import daily, offline
from matinee.features.daily import Ledger, Plan, Span
from matinee.features.history_rows import history_rows
from matinee.schema import Aggregate, AggregateView, Function, Window

FIRST = BEGIN // DAY
SORTED = [("event_timestamp", "ascending")]


def counting(window, name="view", description=""):
    counted = Aggregate(name="n", function=Function.COUNT, window=window, description=description)
    return AggregateView(name=name, key="member_id", aggregates=(counted,))


DAILY = counting(Window.tumbling(timedelta(days=1)), "daily")
WEEKLY = counting(Window.sliding(timedelta(days=7), timedelta(days=1)), "weekly")
EVER = counting(Window.unbounded(), "ever")
SESSION = counting(Window.session(timedelta(hours=1)), "session")
VIEWS = {view.name: view for view in (DAILY, WEEKLY, EVER, SESSION)}


def run(home, views, *, until=None, times="events", span_events=1):
    """One run as the batch makes it; returns its plans."""
    events, root = home / "lake", home / "offline"
    before = daily.read_ledger(root)
    parts = daily.read_parts(events, before)
    plans = daily.plan(before, parts, views, until=until, times=times, span_events=span_events)
    build = f"build-{len(list(root.glob('*')))}-{random.random()}"
    built = daily.update(
        events,
        root,
        build,
        views,
        parts=parts,
        plans=plans,
        scratch=home / "scratch",
        until=until,
        times=times,
    )
    ledger = Ledger(until=until, times=times, parts=parts, views=built)
    daily.write_ledger(root, build, ledger)
    files = {name: [file for span in each.spans for file in span.files] for name, each in built.items()}
    rows = {name: sum(span.rows for span in each.spans) for name, each in built.items()}
    offline.publish(root, offline.Manifest(build=build, as_of=until or 0, files=files, rows=rows))
    return plans


def stored(home, view):
    manifest = offline.read_manifest(home / "offline")
    if not manifest.files[view.name]:
        return []
    rows = offline.read(home / "offline", view.name)
    assert rows.num_rows == manifest.rows[view.name]
    return rows.sort_by([(view.key, "ascending"), *SORTED]).to_pylist()


def add(home, log):
    for part in lake.write_part(home / "lake", table_of(log), cluster="c") if log else ():
        assert part.exists()


def on_days(*days):
    """An event on each of the days, counted from FIRST."""
    log = any_log(random.Random(7), 3 * len(days), partitions=1)[: len(days)]
    for i, (event, day) in enumerate(zip(log, days, strict=True)):
        event.update(event_time=(FIRST + day) * DAY + i, late_by=0)
    return log


def later(log, offset):
    for i, event in enumerate(log):
        event.update(offset=offset + i, event_id=f"later-{offset + i}")
    return log


def computed(plan):
    return [day - FIRST for span in plan.compute for day in range(span.first, span.last + 1)]


@settings(max_examples=40)
@given(seed=st.integers(0, 1 << 32), count=st.integers(0, 60))
def test_runs_leave_what_one_run_over_the_whole_lake_leaves(seed, count, tmp_path_factory):
    draw = random.Random(seed)
    home = tmp_path_factory.mktemp("home")
    views = {name: any_view(draw, name) for name in ("a", "b")}
    times = draw.choice(["events", "days"])
    log = any_log(draw, count)
    for event in log:
        event["late_by"] = event["late_by"] or 0
    arrived = []
    while True:
        taken = [log.pop(0) for _ in range(min(len(log), draw.randint(0, 30)))]
        arrived += taken
        add(home, taken)
        until = draw.choice([None, None, BEGIN + draw.randrange(9 * DAY)])
        run(home, views, until=until, times=times, span_events=draw.choice([1, 10, 1000]))
        for view in views.values():
            known = [event for event in arrived if until is None or event["event_time"] <= until]
            assert stored(home, view) == history_rows(view, table_of(known), times=times).to_pylist()
        if not log:
            break


def test_a_second_run_computes_nothing(tmp_path):
    add(tmp_path, on_days(0, 1, 2))
    run(tmp_path, VIEWS)
    plans = run(tmp_path, VIEWS)
    assert [plan.compute for plan in plans.values()] == [[]] * len(VIEWS)


def test_only_days_that_can_see_a_new_event_are_computed(tmp_path):
    add(tmp_path, on_days(*range(12)))
    first = run(tmp_path, VIEWS)
    assert all(computed(plan) == list(range(12)) for plan in first.values())
    add(tmp_path, later(on_days(3), 100))
    second = run(tmp_path, VIEWS)
    assert computed(second["daily"]) == [3]
    assert computed(second["weekly"]) == [3, 4, 5, 6, 7, 8, 9]
    assert computed(second["ever"]) == computed(second["session"]) == list(range(3, 12))


def test_a_part_that_went_away_takes_its_rows_with_it(tmp_path):
    add(tmp_path, on_days(0, 1))
    (gone,) = lake.write_part(tmp_path / "lake", table_of(later(on_days(1, 1, 5), 100)), cluster="c")
    run(tmp_path, VIEWS)
    gone.unlink()
    assert computed(run(tmp_path, VIEWS)["daily"]) == [1, 5]
    assert len(stored(tmp_path, DAILY)) == 2


def test_a_view_whose_meaning_changed_is_computed_anew_and_no_other(tmp_path):
    add(tmp_path, on_days(0, 1))
    run(tmp_path, VIEWS)
    said = counting(WEEKLY.aggregates[0].window, "weekly", description="Events of the week.")
    other = counting(Window.sliding(timedelta(days=3), timedelta(days=1)), "daily")
    plans = run(tmp_path, {**VIEWS, "weekly": said, "daily": other})
    assert {name: computed(plan) for name, plan in plans.items() if plan.compute} == {"daily": [0, 1]}


def test_small_days_share_a_span_and_the_last_one_grows(tmp_path):
    add(tmp_path, on_days(0, 0, 1, 2, 2, 2, 3))
    run(tmp_path, {"daily": DAILY}, span_events=4)
    spans = daily.read_ledger(tmp_path / "offline").views["daily"].spans
    assert [(span.first - FIRST, span.last - FIRST) for span in spans] == [(0, 1), (2, 3)]
    add(tmp_path, later(on_days(-2, -1, 4), 100))
    run(tmp_path, {"daily": DAILY}, span_events=5)
    spans = daily.read_ledger(tmp_path / "offline").views["daily"].spans
    assert [(span.first - FIRST, span.last - FIRST) for span in spans] == [(-2, -1), (0, 1), (2, 4)]


def test_a_run_that_dies_leaves_the_build_before_and_the_next_one_completes(tmp_path, monkeypatch):
    add(tmp_path, on_days(0, 1))
    run(tmp_path, VIEWS)
    held = stored(tmp_path, EVER)
    add(tmp_path, later(on_days(1, 2), 100))
    whole = offline.write_part

    def dying(root, build, view, name, table):
        if view == "ever":
            raise KeyboardInterrupt
        return whole(root, build, view, name, table)

    monkeypatch.setattr(offline, "write_part", dying)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, VIEWS)
    monkeypatch.undo()
    assert stored(tmp_path, EVER) == held
    run(tmp_path, VIEWS)
    events = lake.read_events(tmp_path / "lake")
    for view in VIEWS.values():
        assert stored(tmp_path, view) == history_rows(view, events).to_pylist()


def test_an_event_s_reach_ends_with_its_windows():
    window = Window.sliding(timedelta(hours=36), timedelta(hours=12))
    parts = {"a": dict.fromkeys(range(10), 1)}
    views = {"view": counting(window)}
    built = daily.Built(
        definition=daily.definition(views["view"]), spans=[Span(first=day, last=day) for day in range(10)]
    )
    before = Ledger(parts=parts, views={"view": built})
    plans = daily.plan(before, {**parts, "b": {4: 1}}, views, span_events=1)
    assert plans == {
        "view": Plan(compute=[built.spans[4], built.spans[5]], keep=[*built.spans[:4], *built.spans[6:]])
    }


def test_parts_that_were_joined_leave_their_days_as_they_were():
    def name(first, last, size, partition=0):
        return f"date=2026-01-01/c.{partition:05d}.{first:020d}-{last:020d}.parquet:{size}"

    small = {name(0, 4, 10): {1: 3, 2: 2}, name(6, 9, 11): {2: 4}}
    before = daily.Ledger(until=None, parts=small)
    joined = {name(0, 9, 30): {1: 3, 2: 6}}
    assert daily._changed_days(before, joined, None) == []
    assert daily._changed_days(before, {name(0, 9, 30): {1: 3, 2: 7}}, None) == [1, 2]
    assert daily._changed_days(before, {**joined, name(10, 11, 5): {7: 2}}, None) == [7]
    assert daily._changed_days(before, {name(0, 9, 30, partition=1): {1: 3, 2: 6}}, None) == [1, 2]
