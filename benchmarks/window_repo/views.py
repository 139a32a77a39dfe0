"""One feature view: what a member did in the last minute, moving by ten seconds; the stream peers' task."""

from datetime import timedelta

from feast import Entity, FeatureView, Field, FileSource, ValueType
from feast.types import Float64, Int64

from matinee.schema import Aggregate, AggregateView, Function, Window

_MINUTE = Window.sliding(timedelta(seconds=60), timedelta(seconds=10))

MEMBER_WINDOW = AggregateView(
    name="member_window",
    key="member_id",
    lateness=timedelta(seconds=5),
    aggregates=(
        Aggregate(name="events", function=Function.COUNT, window=_MINUTE),
        Aggregate(name="total", function=Function.SUM, column="value", window=_MINUTE),
    ),
)

member = Entity(name="member", join_keys=["member_id"], value_type=ValueType.STRING)
member_window = FeatureView(
    name=MEMBER_WINDOW.name,
    entities=[member],
    ttl=timedelta(0),
    tags={"aggregate": MEMBER_WINDOW.to_json()},
    source=FileSource(name="member_window", path="member_window", timestamp_field="event_timestamp"),
    schema=[Field(name="events", dtype=Int64), Field(name="total", dtype=Float64)],
)
