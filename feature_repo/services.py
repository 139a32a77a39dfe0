"""Feature services: what each reader is promised. A model version pins the service it was trained on."""

from aggregates import member_engagement, member_progress, title_engagement, title_progress
from feast import FeatureService
from views import member_activity, member_affinity, member_watched, title_content, title_popularity

_TAGS = {"owner": "matinee"}

dnn = FeatureService(
    name="dnn",
    features=[
        member_activity[["plays_1h", "plays_24h", "plays_7d"]],
        member_affinity,
    ],
    description="What the two-tower model knows of a member beside the titles watched.",
    owner="matinee",
    tags=_TAGS,
)

gnn = FeatureService(
    name="gnn",
    features=[title_popularity, title_content],
    description="What the graph model knows of a title beside its place in the graph.",
    owner="matinee",
    tags=_TAGS,
)

serving = FeatureService(
    name="serving",
    features=[member_activity, member_watched, member_affinity, member_progress],
    description="All that an answer to a member reads.",
    owner="matinee",
    tags=_TAGS,
)

progress = FeatureService(
    name="progress",
    features=[title_progress],
    description="How long titles are watched: what a replica's copy tells finished titles by.",
    owner="matinee",
    tags=_TAGS,
)

engagement = FeatureService(
    name="engagement",
    features=[member_engagement, title_engagement],
    description="How members use the service and its titles lately.",
    owner="matinee",
    tags=_TAGS,
)
