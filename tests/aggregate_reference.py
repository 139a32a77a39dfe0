"""Aggregate views computed straight from their words: one event, one key, one window at a time.

Events are dicts with the fields of LAKE_SCHEMA (missing ones count as null). Times are microseconds or
aware datetimes. Rows are dicts as `pa.Table.to_pylist` gives them for `view.schema`.
"""

from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa

from matinee.features import exact
from matinee.schema import NUMERIC_COLUMNS, Function

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


def reference_rows(view, events, *, latest):
    """The rows of a view, by key and time.

    Args:
        latest: only the latest row of each key; else one for each distinct time of its counted events.
    """
    rows = []
    for key, mine in sorted(_counted(view, events).items()):
        times = sorted({event["event_time"] for event in mine})
        for time in times[-1:] if latest else times:
            seen = [event for event in mine if event["event_time"] <= time]
            values = {each.name: value(each, seen, time) for each in view.aggregates}
            rows.append({view.key: key, **values, "event_timestamp": EPOCH + time * MICROSECOND})
    return rows


def reference_closed(view, events, until, since=None):
    """Windows that end after `since` and at or before `until`, with the values they closed with.

    The view's aggregates share one sliding or tumbling window.

    Returns:
        Dicts of key, window_start, window_end (datetimes) and the aggregates, by key and end.
    """
    window = view.aggregates[0].window
    hop, size = window.hop // MICROSECOND, window.size // MICROSECOND
    rows = []
    for key, mine in sorted(_counted(view, events).items()):
        ends = {
            (event["event_time"] // hop + 1 + later) * hop for event in mine for later in range(size // hop)
        }
        for end in sorted(ends):
            if end > until or (since is not None and end <= since):
                continue
            seen = [event for event in mine if event["event_time"] < end]
            values = {each.name: value(each, seen, end - 1) for each in view.aggregates}
            start_and_end = {
                "window_start": EPOCH + (end - size) * MICROSECOND,
                "window_end": EPOCH + end * MICROSECOND,
            }
            rows.append({view.key: key, **start_and_end, **values})
    return rows


def reference_late(view, events):
    """The event ids that the view refuses as late."""
    return {
        event["event_id"]
        for event in events
        if event.get(view.key) is not None
        and (not view.types or event["type"] in view.types)
        and not _in_time(view, event)
    }


def value(aggregate, events, time):
    """One aggregate as of `time` over a key's counted events, none later than `time`."""
    column = aggregate.column
    mine = [
        event
        for event in events
        if (not aggregate.types or event["type"] in aggregate.types)
        and (not column or event.get(column) is not None or _lists_numbers(aggregate))
    ]
    mine = sorted(_in_window(aggregate.window, mine, time), key=_order)
    function = aggregate.function
    if function is Function.COUNT:
        return len(mine)
    if function in (Function.SUM, Function.MEAN, Function.MIN, Function.MAX):
        units = [_units(event[column]) for event in mine]
        if function is Function.SUM:
            return float(exact.from_units(np.int64(sum(units))))
        if not units:
            return None
        if function is Function.MEAN:
            return float(exact.mean(np.array([sum(units)]), np.array([len(units)]))[0])
        return float(exact.from_units(np.int64(min(units) if function is Function.MIN else max(units))))
    if function in (Function.DECAYED_COUNT, Function.DECAYED_SUM):
        hop = aggregate.window.hop // MICROSECOND
        total = 0
        for event in mine:
            age = time // hop - event["event_time"] // hop
            weight = int(exact.decay(np.array([age]), aggregate)[0])
            total += weight * (1 if function is Function.DECAYED_COUNT else _units(event[column]))
        if function is Function.DECAYED_COUNT:
            return total / exact.DECAY_UNIT
        return total / exact.DECAY_UNIT / exact.UNIT
    if _lists_numbers(aggregate):
        return [_units(event.get(column) or 0.0) / exact.UNIT for event in mine][-aggregate.n :]
    texts = [event[column] for event in mine]
    if function is Function.LAST_N:
        return texts[-aggregate.n :]
    if function is Function.LAST_N_DISTINCT:
        return list(dict.fromkeys(reversed(texts)))[: aggregate.n][::-1]
    if function is Function.COUNT_DISTINCT:
        return len(set(texts))
    if function is Function.TOP_K:
        return sorted(set(texts), key=lambda text: (-texts.count(text), text))[: aggregate.n]
    assert function is Function.APPROX_DISTINCT, function
    ranks = {}
    for register, rank in zip(*exact.registers(exact.stable_hash(pa.array(texts, pa.string()))), strict=True):
        ranks[int(register)] = max(ranks.get(int(register), 0), int(rank))
    held = np.array(list(ranks.values()), np.int64)
    return int(exact.cardinality(held, np.zeros(len(held), np.int64), 1)[0])


def _lists_numbers(aggregate):
    return aggregate.function is Function.LAST_N and aggregate.column in NUMERIC_COLUMNS


def _counted(view, events):
    """Counted events by key, times in microseconds."""
    mine = {}
    for event in events:
        key = event.get(view.key)
        if key is None or (view.types and event["type"] not in view.types) or not _in_time(view, event):
            continue
        time = event["event_time"]
        if isinstance(time, datetime):
            time = (time - EPOCH) // MICROSECOND
        mine.setdefault(key, []).append({**event, "event_time": time})
    return mine


def _in_time(view, event):
    return view.lateness is None or (event.get("late_by") or 0) <= view.lateness // MICROSECOND


def _in_window(window, events, time):
    if window.kind == "unbounded":
        return events
    if window.kind == "session":
        gap = window.gap // MICROSECOND
        run = []
        for event in sorted(events, key=_order):
            if run and event["event_time"] - run[-1]["event_time"] > gap:
                run = []
            run.append(event)
        return run if run and time - run[-1]["event_time"] <= gap else []
    hop = window.hop // MICROSECOND
    last = time // hop
    first = last - (window.size // window.hop - 1)
    return [event for event in events if first <= event["event_time"] // hop <= last]


def _order(event):
    return event["event_time"], event["partition"], event["offset"]


def _units(held):
    return int(exact.units(np.array([float(held)]))[0])
