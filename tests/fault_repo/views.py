"""Views of the fault tests: every function and window, one policy for late events each."""

from datetime import timedelta

from feast import Entity, FeatureView, Field, FileSource, ValueType
from feast.types import Array, Float64, Int64, String

from matinee.schema import Aggregate, AggregateView, EventType, Function, Window

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
RECENT = Window.sliding(6 * HOUR, HOUR)
RATE = (EventType.RATE,)
ENTITIES = {
    key: Entity(name=key.removesuffix("_id"), join_keys=[key], value_type=ValueType.STRING)
    for key in ("member_id", "title_id")
}


def aggregates(other):
    return (
        Aggregate(name="events", function=Function.COUNT, window=Window.unbounded()),
        Aggregate(name="events_6h", function=Function.COUNT, window=RECENT),
        Aggregate(name="rated", function=Function.SUM, column="value", types=RATE, window=Window.unbounded()),
        Aggregate(name="stars", function=Function.MEAN, column="value", types=RATE, window=RECENT),
        Aggregate(name="worst", function=Function.MIN, column="value", types=RATE, window=RECENT),
        Aggregate(
            name="best", function=Function.MAX, column="value", types=RATE, window=Window.tumbling(HOUR)
        ),
        Aggregate(name="last", function=Function.LAST_N, column="surface", n=5, window=RECENT),
        Aggregate(
            name="latest", function=Function.LAST_N_DISTINCT, column=other, n=10, window=Window.unbounded()
        ),
        Aggregate(name="others", function=Function.COUNT_DISTINCT, column=other, window=RECENT),
        Aggregate(name="sketch", function=Function.APPROX_DISTINCT, column=other, window=RECENT),
        Aggregate(name="top", function=Function.TOP_K, column="surface", n=3, window=RECENT),
        Aggregate(name="warm", function=Function.DECAYED_COUNT, window=RECENT, half_life=HOUR),
        Aggregate(name="session", function=Function.COUNT, window=Window.session(10 * MINUTE)),
    )


VIEWS = (
    AggregateView(
        name="member_faults",
        key="member_id",
        lateness=HOUR,
        aggregates=aggregates("title_id"),
        late="dead_letter",
    ),
    AggregateView(name="title_faults", key="title_id", lateness=HOUR, aggregates=aggregates("member_id")),
)


def feast_view(view):
    types = {"int64": Int64, "double": Float64}
    return FeatureView(
        name=view.name,
        entities=[ENTITIES[view.key]],
        ttl=view.ttl,
        tags={"aggregate": view.to_json()},
        source=FileSource(name=view.name, path=view.name, timestamp_field="event_timestamp"),
        schema=[
            Field(name=each.name, dtype=types.get(str(each.type), Array(String))) for each in view.aggregates
        ],
    )


member, title = ENTITIES["member_id"], ENTITIES["title_id"]
member_faults, title_faults = map(feast_view, VIEWS)
