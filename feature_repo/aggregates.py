"""Feature views declared as aggregates over events: stream and batch compute them from this alone."""

from datetime import timedelta

from entities import member, title
from feast import FeatureView, Field, FileSource
from feast.types import Array, FeastType, Float64, Int64, String

from matinee.schema import AGGREGATE_TAG, Aggregate, AggregateView, EventType, Expectation, Function, Window

_HOUR, _DAY = timedelta(hours=1), timedelta(days=1)
_ENTITIES = {"member_id": member, "title_id": title}
_WATCHING = (EventType.PLAY, EventType.STOP, EventType.RATE)


def feast_view(view: AggregateView) -> FeatureView:
    """The view as Feast has it; the declaration travels in the tag "aggregate"."""
    return FeatureView(
        name=view.name,
        entities=[_ENTITIES[view.key]],
        ttl=view.ttl,
        description=view.description,
        owner=view.owner,
        tags={
            "owner": view.owner,
            "ttl": str(view.ttl) if view.ttl else "none",
            "freshness_s": f"{view.freshness.total_seconds():g}",
            "computed_by": "stream and batch",
            AGGREGATE_TAG: view.to_json(),
        },
        source=FileSource(
            name=view.name,
            path=view.name,
            timestamp_field="event_timestamp",
            description="A row for every distinct time of a key's events.",
            owner=view.owner,
        ),
        schema=[
            Field(name=each.name, dtype=_type(each), description=each.description, tags={"owner": view.owner})
            for each in view.aggregates
        ],
    )


def _type(aggregate: Aggregate) -> FeastType:
    kind = str(aggregate.type)
    kinds = {"int64": Int64, "double": Float64, "list<item: double>": Array(Float64)}
    return kinds.get(kind, Array(String))


def _counts(plural: str, kind: EventType, windows: dict[str, Window]) -> tuple[Aggregate, ...]:
    return tuple(
        Aggregate(
            name=f"{plural}_{name}",
            function=Function.COUNT,
            window=window,
            types=(kind,),
            description=f"Events of type {kind} in {name}.",
            expect=Expectation(low=0),
        )
        for name, window in windows.items()
    )


MEMBER_ENGAGEMENT = AggregateView(
    name="member_engagement",
    key="member_id",
    description="How a member uses the service lately: counts, ratings, the session that goes on.",
    owner="matinee",
    lateness=timedelta(days=2),
    aggregates=(
        *_counts(
            "impressions",
            EventType.IMPRESSION,
            {"1h": Window.sliding(_HOUR, _HOUR / 12), "7d": Window.sliding(7 * _DAY, 6 * _HOUR)},
        ),
        *_counts(
            "clicks",
            EventType.CLICK,
            {"1h": Window.sliding(_HOUR, _HOUR / 12), "7d": Window.sliding(7 * _DAY, 6 * _HOUR)},
        ),
        *_counts("searches", EventType.SEARCH, {"7d": Window.sliding(7 * _DAY, 6 * _HOUR)}),
        Aggregate(
            name="stars_mean_30d",
            function=Function.MEAN,
            column="value",
            types=(EventType.RATE,),
            window=Window.sliding(30 * _DAY, _DAY),
            description="Mean stars given in 30 days; null without a rating.",
            expect=Expectation(low=0, high=10),
        ),
        Aggregate(
            name="watches_decayed",
            function=Function.DECAYED_COUNT,
            types=_WATCHING,
            window=Window.sliding(90 * _DAY, _DAY),
            half_life=7 * _DAY,
            description="Watches, stops and ratings of 90 days, halved every 7 days.",
            expect=Expectation(low=0),
        ),
        Aggregate(
            name="session_events",
            function=Function.COUNT,
            window=Window.session(_HOUR / 2),
            description="Events of the session that goes on; half an hour of silence ends it.",
            expect=Expectation(low=1),
        ),
        Aggregate(
            name="surfaces_7d",
            function=Function.TOP_K,
            column="surface",
            n=3,
            window=Window.sliding(7 * _DAY, _DAY),
            description="The three surfaces used most in 7 days.",
        ),
    ),
)


def _listed(name: str, function: Function, column: str, kind: EventType, n: int, text: str) -> Aggregate:
    return Aggregate(
        name=name,
        function=function,
        column=column,
        n=n,
        types=(kind,),
        window=Window.unbounded(),
        description=f"The last {n} {text}, oldest first.",
        expect=Expectation(high=n),
    )


MEMBER_PROGRESS = AggregateView(
    name="member_progress",
    key="member_id",
    description="What a member began, how far they came, and what they rated, which comes after watching.",
    owner="matinee",
    types=(EventType.PLAY, EventType.STOP, EventType.RATE),
    aggregates=(
        _listed(
            "played_title_ids",
            Function.LAST_N_DISTINCT,
            "title_id",
            EventType.PLAY,
            20,
            "distinct titles played",
        ),
        _listed(
            "rated_title_ids",
            Function.LAST_N_DISTINCT,
            "title_id",
            EventType.RATE,
            50,
            "distinct titles rated",
        ),
        _listed("stopped_title_ids", Function.LAST_N, "title_id", EventType.STOP, 50, "titles stopped"),
        _listed(
            "stopped_s", Function.LAST_N, "value", EventType.STOP, 50, "seconds watched, one for each stop"
        ),
    ),
)

TITLE_PROGRESS = AggregateView(
    name="title_progress",
    key="title_id",
    description="How long members watch a title.",
    owner="matinee",
    types=(EventType.STOP,),
    aggregates=(
        Aggregate(
            name="longest_s",
            function=Function.MAX,
            column="value",
            types=(EventType.STOP,),
            window=Window.unbounded(),
            description="The most seconds anyone watched it at a time; null where no stop tells.",
            expect=Expectation(low=0),
        ),
        Aggregate(
            name="stops",
            function=Function.COUNT,
            types=(EventType.STOP,),
            window=Window.unbounded(),
            description="How often it was stopped.",
            expect=Expectation(low=0),
        ),
    ),
)

TITLE_ENGAGEMENT = AggregateView(
    name="title_engagement",
    key="title_id",
    description="What members do with a title lately, and how many of them.",
    owner="matinee",
    lateness=timedelta(days=2),
    types=(EventType.IMPRESSION, EventType.CLICK, EventType.PLAY, EventType.RATE, EventType.ADD_TO_LIST),
    aggregates=(
        *_counts(
            "impressions",
            EventType.IMPRESSION,
            {"1h": Window.sliding(_HOUR, _HOUR / 12), "1d": Window.sliding(_DAY, _HOUR)},
        ),
        *_counts(
            "clicks",
            EventType.CLICK,
            {"1h": Window.sliding(_HOUR, _HOUR / 12), "1d": Window.sliding(_DAY, _HOUR)},
        ),
        *_counts(
            "plays",
            EventType.PLAY,
            {"1h": Window.sliding(_HOUR, _HOUR / 12), "1d": Window.sliding(_DAY, _HOUR)},
        ),
        *_counts("list_additions", EventType.ADD_TO_LIST, {"7d": Window.sliding(7 * _DAY, 6 * _HOUR)}),
        Aggregate(
            name="members_7d",
            function=Function.APPROX_DISTINCT,
            column="member_id",
            types=(EventType.PLAY, EventType.RATE),
            window=Window.sliding(7 * _DAY, _DAY),
            description="Distinct members who watched in 7 days, by a sketch within about 2%.",
            expect=Expectation(low=0),
        ),
        Aggregate(
            name="best_stars_30d",
            function=Function.MAX,
            column="value",
            types=(EventType.RATE,),
            window=Window.sliding(30 * _DAY, _DAY),
            description="Most stars given in 30 days; null without a rating.",
            expect=Expectation(low=0, high=10),
        ),
    ),
)

member_engagement = feast_view(MEMBER_ENGAGEMENT)
member_progress = feast_view(MEMBER_PROGRESS)
title_engagement = feast_view(TITLE_ENGAGEMENT)
title_progress = feast_view(TITLE_PROGRESS)
