"""The feature views. A row's values are as of its event_timestamp: the latest event of its key.

A watch is a play or a rating. No view has a time to live: a row holds until the next event of its key.
"""

from datetime import timedelta

import sources
from entities import member, title
from feast import FeatureView, Field
from feast.types import Array, Float64, Int64, String

_FOREVER = timedelta(0)
_TAGS = {"owner": "matinee", "ttl": "none"}
_COUNT = {**_TAGS, "expect": '{"low": 0}'}
_STARS = {**_TAGS, "expect": '{"low": 0, "high": 10}'}
_STREAMED = {**_TAGS, "computed_by": "stream and batch", "freshness_s": "5"}

member_activity = FeatureView(
    name="member_activity",
    entities=[member],
    ttl=_FOREVER,
    description="What a member watched lately.",
    owner="matinee",
    tags=_STREAMED,
    source=sources.member_activity,
    schema=[
        Field(
            name="plays_1h",
            dtype=Int64,
            description="Distinct titles watched in the last hour.",
            tags={**_COUNT, "window": "last hour"},
        ),
        Field(
            name="plays_24h",
            dtype=Int64,
            description="Distinct titles watched in 24 hours.",
            tags={**_COUNT, "window": "last 24 hours"},
        ),
        Field(
            name="plays_7d",
            dtype=Int64,
            description="Distinct titles watched in 7 days.",
            tags={**_COUNT, "window": "last 7 days"},
        ),
        Field(
            name="last_title_ids",
            dtype=Array(String),
            description="The last 50 distinct titles, oldest first, each at its latest watch.",
            tags={**_TAGS, "expect": '{"high": 50}', "window": "all events"},
        ),
        Field(
            name="last_event_time",
            dtype=Int64,
            description="Latest event of any type, microseconds since the epoch.",
            tags={**_COUNT, "window": "all events"},
        ),
    ],
)

member_watched = FeatureView(
    name="member_watched",
    entities=[member],
    ttl=_FOREVER,
    description="Everything a member ever watched.",
    owner="matinee",
    tags=_STREAMED,
    source=sources.member_watched,
    schema=[
        Field(
            name="watched_title_ids",
            dtype=Array(String),
            description="Every distinct title in the order first watched.",
            tags={**_TAGS, "window": "all events"},
        ),
        Field(
            name="watched_times",
            dtype=Array(Int64),
            description="Time of each title's first watch, microseconds since the epoch.",
            tags={**_TAGS, "window": "all events"},
        ),
    ],
)

member_affinity = FeatureView(
    name="member_affinity",
    entities=[member],
    ttl=_FOREVER,
    description="How much a member watches each genre, an older watch counting less (half life 30 days).",
    owner="matinee",
    tags=_STREAMED,
    source=sources.member_affinity,
    schema=[
        Field(
            name="genres",
            dtype=Array(String),
            description="Genres watched, sorted.",
            tags={**_TAGS, "window": "all events, decayed"},
        ),
        Field(
            name="affinity",
            dtype=Array(Float64),
            description="Decayed weight of each of `genres`; a watch weighs stars / 5, or 1 unrated.",
            tags={**_TAGS, "window": "all events, decayed"},
        ),
    ],
)

title_popularity = FeatureView(
    name="title_popularity",
    entities=[title],
    ttl=_FOREVER,
    description="Who watched a title, and how they rated it.",
    owner="matinee",
    tags=_STREAMED,
    source=sources.title_popularity,
    schema=[
        Field(
            name="plays_1d",
            dtype=Int64,
            description="Distinct members who watched in a day.",
            tags={**_COUNT, "window": "last day"},
        ),
        Field(
            name="plays_7d",
            dtype=Int64,
            description="Distinct members who watched in 7 days.",
            tags={**_COUNT, "window": "last 7 days"},
        ),
        Field(
            name="plays_30d",
            dtype=Int64,
            description="Distinct members who watched in 30 days.",
            tags={**_COUNT, "window": "last 30 days"},
        ),
        Field(
            name="plays_all",
            dtype=Int64,
            description="Distinct members who ever watched.",
            tags={**_COUNT, "window": "all events"},
        ),
        Field(
            name="rating_mean_30d",
            dtype=Float64,
            description="Mean stars of the ratings of 30 days; null without one.",
            tags={**_STARS, "window": "last 30 days"},
        ),
        Field(
            name="rating_mean_all",
            dtype=Float64,
            description="Mean stars of all ratings; null without one.",
            tags={**_STARS, "window": "all events"},
        ),
        Field(
            name="ratings_all",
            dtype=Int64,
            description="Ratings ever given.",
            tags={**_COUNT, "window": "all events"},
        ),
    ],
)

title_content = FeatureView(
    name="title_content",
    entities=[title],
    ttl=_FOREVER,
    online=False,
    description="What the catalogue says of a title; the batch alone writes it, offline.",
    owner="matinee",
    tags={**_TAGS, "computed_by": "batch"},
    source=sources.title_content,
    schema=[
        Field(
            name="release_year", dtype=Int64, description="Year of release; null where unknown.", tags=_TAGS
        ),
        Field(
            name="maturity", dtype=Int64, description="Least suitable age; null where unknown.", tags=_TAGS
        ),
        Field(name="genre_count", dtype=Int64, description="Number of genres.", tags=_COUNT),
        Field(name="cast_count", dtype=Int64, description="Number of named cast members.", tags=_COUNT),
        Field(name="keyword_count", dtype=Int64, description="Number of keywords.", tags=_COUNT),
    ],
)
