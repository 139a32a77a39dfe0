"""Random aggregate views and logs of events, for the tests that compare engines."""

from datetime import timedelta

import pyarrow as pa

from matinee.schema import (
    LAKE_SCHEMA,
    NUMERIC_COLUMNS,
    TEXT_COLUMNS,
    Aggregate,
    AggregateView,
    EventType,
    Function,
    Window,
)

MINUTE = 60_000_000
HOUR = 60 * MINUTE
DAY = 24 * HOUR
BEGIN = 900_000_000_000_000
NUMERIC = (Function.SUM, Function.MEAN, Function.MIN, Function.MAX, Function.DECAYED_SUM)
LISTS = (Function.LAST_N, Function.LAST_N_DISTINCT, Function.TOP_K)
SESSIONS = (Function.COUNT, Function.SUM, Function.MEAN, Function.MIN, Function.MAX)


def micros(time):
    return timedelta(microseconds=time)


def any_window(draw, function):
    decayed = function in (Function.DECAYED_COUNT, Function.DECAYED_SUM)
    kinds = ["sliding", "tumbling"] if decayed else ["sliding", "tumbling", "unbounded"]
    kind = draw.choice([*kinds, "session"] if function in SESSIONS else kinds)
    hop = draw.choice([7_000_003, MINUTE, 20 * MINUTE, HOUR, 6 * HOUR, DAY, 3 * DAY])
    if kind == "sliding":
        return Window.sliding(micros(hop * draw.choice([1, 2, 3, 7])), micros(hop))
    if kind == "tumbling":
        return Window.tumbling(micros(hop))
    return Window.session(micros(hop)) if kind == "session" else Window.unbounded()


def any_aggregate(draw, name, types):
    function = draw.choice(list(Function))
    if function in NUMERIC:
        columns = NUMERIC_COLUMNS
    elif function is Function.LAST_N:
        columns = (*NUMERIC_COLUMNS, *TEXT_COLUMNS)
    elif function in (Function.COUNT, Function.DECAYED_COUNT):
        columns = ("", *NUMERIC_COLUMNS, *TEXT_COLUMNS)
    else:
        columns = TEXT_COLUMNS
    decayed = function in (Function.DECAYED_COUNT, Function.DECAYED_SUM)
    some = types or (() if draw.random() < 0.5 else tuple(EventType))
    return Aggregate(
        name=name,
        function=function,
        window=any_window(draw, function),
        column=draw.choice(columns),
        types=tuple(draw.sample(some, draw.randint(1, len(some)))) if some else (),
        n=draw.randint(1, 4) if function in LISTS else 0,
        half_life=micros(draw.choice([MINUTE, 5 * HOUR, DAY])) if decayed else timedelta(0),
    )


def any_view(draw, name="view"):
    """A view of up to eight aggregates."""
    types = tuple(draw.sample(list(EventType), draw.randint(1, 3))) if draw.random() < 0.4 else ()
    return AggregateView(
        name=name,
        key=draw.choice(["member_id", "title_id"]),
        aggregates=tuple(any_aggregate(draw, f"f{i}", types) for i in range(draw.randint(1, 8))),
        types=types,
        lateness=draw.choice([None, None, timedelta(0), micros(HOUR), micros(DAY)]),
    )


def any_log(draw, count, partitions=3):
    """Events as dicts of LAKE_SCHEMA in the order of arrival, repeats removed; times are int microseconds."""
    keys, titles = draw.randint(1, 5), draw.randint(1, 6)
    grid = draw.choice([1, MINUTE, HOUR, 6 * HOUR])
    span = draw.choice([HOUR, DAY, 9 * DAY])
    ahead, offsets, seen = [-(1 << 60)] * partitions, [0] * partitions, set()
    log = []
    for i in range(count):
        partition = draw.randrange(partitions)
        event_id = f"e{i - draw.randint(1, 3) if draw.random() < 0.1 else i}"
        time = BEGIN + draw.randrange(span) // grid * grid
        late_by = max(ahead[partition] - time, 0)
        ahead[partition] = max(ahead[partition], time)
        offset = offsets[partition]
        offsets[partition] += 1
        if event_id in seen:
            continue
        seen.add(event_id)
        log.append(
            {
                "schema_version": 1,
                "event_id": event_id,
                "type": str(draw.choice(list(EventType))),
                "member_id": f"m{draw.randrange(keys)}",
                "title_id": draw.choice([None, *(f"t{i}" for i in range(titles))]),
                "event_time": time,
                "ingest_time": BEGIN + 20 * DAY + i,
                "session": draw.choice([None, "s1", "s2", "à la carte", ""]),
                "surface": draw.choice(["home", "row", None]),
                "position": draw.choice([None, 0, 3, -2]),
                "value": draw.choice([None, 0.1, 0.2, 4.5, -3.25, 1e12, 1 / 3]),
                "request_id": f"r{i}",
                "model_version": None,
                "cell": draw.choice(["a", "b"]),
                "context": None,
                "partition": partition,
                "offset": offset,
                "late_by": draw.choice([late_by, None]) if late_by == 0 else late_by,
            }
        )
    return log


def table_of(log):
    """Events as rows of LAKE_SCHEMA."""
    columns = [pa.array([each[field.name] for each in log]).cast(field.type) for field in LAKE_SCHEMA]
    return pa.table(columns, schema=LAKE_SCHEMA)
