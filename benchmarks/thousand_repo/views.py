"""A thousand features in fifty views: counts, sums, means, extremes and decay over many windows and types."""

from datetime import timedelta

from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType
from feast.types import Float64, Int64

from matinee.schema import AGGREGATE_TAG, Aggregate, AggregateView, EventType, Function, Window

VIEWS = 50
FEATURES = 20

_HOUR = timedelta(hours=1)
_KINDS = (EventType.PLAY, EventType.RATE, EventType.CLICK, EventType.IMPRESSION, EventType.STOP)
_NUMERIC = (Function.SUM, Function.MEAN, Function.MIN, Function.MAX)
_WINDOWS = (
    Window.sliding(_HOUR, _HOUR / 12),
    Window.sliding(6 * _HOUR, _HOUR),
    Window.sliding(24 * _HOUR, _HOUR),
    Window.sliding(7 * 24 * _HOUR, 24 * _HOUR),
    Window.tumbling(24 * _HOUR),
)


def aggregate(number: int) -> Aggregate:
    """The features in turn: every window, then every type, then every function."""
    window = _WINDOWS[number % len(_WINDOWS)]
    types = (_KINDS[number // len(_WINDOWS) % len(_KINDS)],)
    function = (Function.COUNT, Function.DECAYED_COUNT, *_NUMERIC)[number // 25 % 6]
    return Aggregate(
        name=f"f{number:04d}",
        function=function,
        window=window,
        types=types,
        column="value" if function in _NUMERIC else "",
        half_life=window.size / 4 if function is Function.DECAYED_COUNT else timedelta(0),
    )


DECLARED = [
    AggregateView(
        name=f"thousand_{view:02d}",
        key="member_id" if view % 2 == 0 else "title_id",
        lateness=_HOUR,
        aggregates=tuple(aggregate(view // 2 * FEATURES + place) for place in range(FEATURES)),
    )
    for view in range(VIEWS)
]

_ENTITIES = {
    key: Entity(name=key.removesuffix("_id"), join_keys=[key], value_type=ValueType.STRING)
    for key in ("member_id", "title_id")
}
_FEAST = {
    view.name: FeatureView(
        name=view.name,
        entities=[_ENTITIES[view.key]],
        ttl=view.ttl,
        tags={AGGREGATE_TAG: view.to_json()},
        source=FileSource(name=view.name, path=view.name, timestamp_field="event_timestamp"),
        schema=[
            Field(name=each.name, dtype=Int64 if str(each.type) == "int64" else Float64)
            for each in view.aggregates
        ],
    )
    for view in DECLARED
}

member, title = _ENTITIES["member_id"], _ENTITIES["title_id"]
members = FeatureService(name="members", features=[_FEAST[v.name] for v in DECLARED if v.key == "member_id"])
globals().update(_FEAST)
