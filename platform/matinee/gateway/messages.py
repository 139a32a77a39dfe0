"""What the API takes and gives, as OpenAPI shows it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from matinee.schema import EventType

MemberId = Annotated[str, Field(min_length=1, max_length=256)]
Name = Annotated[str, Field(min_length=1, max_length=128)]
Why = Annotated[str, Field(min_length=1, max_length=1000)]
ColdReason = Literal["unknown_member", "no_known_titles", "features_unavailable", "model_unavailable"]
FALLBACK = (
    "What stood in for the version's own scores: part:NAME (a model inside it), cached (an earlier page), "
    "popular; null: nothing."
)


class Body(BaseModel):
    """A request body: types are taken as they are, and unknown fields are refused."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class TitleFilters(Body):
    """Which titles may be shown. A title whose value is unknown fails the filter on it."""

    max_maturity: int | None = Field(
        None, ge=0, le=150, description="The viewer's age in years: only titles suitable from that age."
    )
    languages: list[Name] = Field([], max_length=100, description="Accepted languages; empty: any.")
    genres: list[Name] = Field([], max_length=100, description="One of these is needed; empty: any.")
    exclude_watched: bool = Field(True, description="Leave out titles the member watched.")


class RecommendationRequest(Body):
    """A page to fill for a member."""

    member_id: MemberId
    k: int = Field(20, description="Most titles of the answer; at least 1.", json_schema_extra={"minimum": 1})
    surface: Name = Field("home", description="The place in the product; splits are per surface.")
    filters: TitleFilters = TitleFilters()
    context: dict[Name, Name] = Field(
        {},
        max_length=16,
        description="What is known of the request, for segments and, by its country, what is on offer.",
    )


class Answered(BaseModel):
    """What each answer about a member says of itself.

    `request_id`, `model_version` and `cell` go into the events that follow from it.
    """

    request_id: str
    member_id: str
    surface: str
    model_version: str
    cell: str
    answer: Literal["personal", "cold_start"]
    reason: ColdReason | None = Field(description="Why the answer is a cold start.")
    features_time: str | None = Field(description="The member's latest event that counted, RFC 3339.")
    fallback: str | None = Field(description=FALLBACK)


class Item(BaseModel):
    """A ranked title."""

    title_id: str
    name: str
    position: int = Field(description="Place in the list, from 0.")
    score: float
    contributions: dict[str, float] = Field(
        description="What each member model added; they sum to the score."
    )


class Recommendations(Answered):
    """A ranking."""

    time: str = Field(description="When the ranking was made, RFC 3339.")
    age_s: float = Field(description="Seconds since what the ranking was made from was scored.")
    items: list[Item]


class EventBody(Body):
    """Something a member did. The service sets `ingest_time`."""

    type: EventType
    member_id: MemberId
    event_time: int | str = Field(description="Microseconds since the epoch, or RFC 3339.")
    event_id: MemberId | None = Field(
        None, description="Made by the service where absent; give one to be able to repeat a post safely."
    )
    title_id: MemberId | None = Field(None, description="Needed for every type but search.")
    session: str | None = None
    surface: str | None = None
    position: int | None = Field(None, ge=0)
    value: float | None = Field(None, description="Stars for rate, seconds for play and stop.")
    request_id: str | None = None
    model_version: str | None = None
    cell: str | None = None
    context: dict[str, Any] | None = None
    schema_version: int | None = None


class EventResult(BaseModel):
    """What became of one event of a post."""

    event_id: str | None
    accepted: bool
    reason: str | None = Field(None, description="Why it was refused.")


class EventsAnswer(BaseModel):
    """What became of a post. Accepted events are acknowledged by the broker."""

    accepted: int
    rejected: int
    event_ids: list[str] = Field(description="Of the accepted ones, in their order.")
    results: list[EventResult] = Field(description="One for each event of the post, in its order.")


class MemberFeatures(BaseModel):
    """What the online store holds for a member."""

    member_id: str
    event_time: str | None = Field(description="The member's latest event that counted, RFC 3339.")
    features: dict[str, Any]


class TitleView(BaseModel):
    """A title's row of one feature view."""

    view: str
    event_time: str | None = Field(description="The latest event that counted, RFC 3339.")
    age_s: float = Field(description="Seconds since the copy was known to be what the store holds.")
    features: dict[str, Any]


class TitleFeaturesAnswer(BaseModel):
    """What the serving process holds of a title; views without a row are left out."""

    title_id: str
    views: list[TitleView]


class SplitRequest(Body):
    """New weights of a surface."""

    weights: dict[Name, int | float] = Field(
        max_length=16, description="Version to weight; only ratios count. Empty: back to the champion."
    )
    who: Name
    why: Why


class SplitChange(BaseModel):
    """One change of a split."""

    weights: dict[str, float] = Field(description="Version to share; empty: back to the champion.")
    who: str
    why: str
    time: str


class SplitState(BaseModel):
    """The split of a surface."""

    surface: str
    weights: dict[str, float] = Field(description="Decided shares by version; empty: the champion serves.")
    applied: dict[str, float] = Field(description="Shares that the answering replica applies at this moment.")
    history: list[SplitChange] = Field(description="Newest first.")
    rules: dict[str, Any] = Field(description="The trial, the overrides and the shadow in force beside it.")


class Health(BaseModel):
    """The process answers."""

    status: Literal["ok"]
