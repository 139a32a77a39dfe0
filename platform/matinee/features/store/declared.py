"""What a home's registry declares, as plain values: for whoever describes features without speaking Feast."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import pyarrow as pa

from matinee.config import Settings
from matinee.features import packed
from matinee.features.store.online_store import kind_of
from matinee.features.store.store import FeatureStore
from matinee.features.trust.expectations import ViewExpectations
from matinee.schema import AGGREGATE_TAG, AggregateView


@dataclass(frozen=True, kw_only=True)
class DeclaredFeature:
    """A feature of a view.

    Args:
        tags: as declared on the field; `expect` holds an expectation as JSON.
    """

    name: str
    type: pa.DataType
    description: str
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class DeclaredView:
    """A feature view.

    Args:
        key: join key of its entity.
        ttl: how long a row holds; zero: for ever.
        online: whether it is served online.
        tags: as declared on the view.
    """

    name: str
    key: str
    description: str
    owner: str
    ttl: timedelta
    online: bool
    features: Sequence[DeclaredFeature]
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def aggregate(self) -> AggregateView | None:
        """The declaration that stream and batch compute the view from; None where it has none."""
        text = self.tags.get(AGGREGATE_TAG)
        return None if text is None else AggregateView.from_json(text)

    @property
    def expected(self) -> ViewExpectations:
        """What values are expected to be: as the aggregates declare, else as the fields' tags `expect` do.

        Raises:
            InvalidInput: a tag is no expectation.
        """
        if self.aggregate is not None:
            return ViewExpectations.of(self.aggregate)
        given = {each.name: each.tags["expect"] for each in self.features if "expect" in each.tags}
        return ViewExpectations.of_tags(self.name, given)


@dataclass(frozen=True, kw_only=True)
class DeclaredService:
    """A feature service: what a reader is promised.

    Args:
        features: names by view.
    """

    name: str
    description: str
    owner: str
    features: Mapping[str, Sequence[str]]


@dataclass(frozen=True, kw_only=True)
class Declared:
    """Everything a registry declares, each by name in order."""

    views: Mapping[str, DeclaredView]
    services: Mapping[str, DeclaredService]


def declared(settings: Settings) -> Declared:
    """What the home's registry declares.

    Raises:
        Unavailable: nothing was applied yet.
    """
    opened = FeatureStore(settings)._open()
    views = {}
    for view in sorted(opened.list_feature_views(), key=lambda each: each.name):
        features = [
            DeclaredFeature(
                name=each.name,
                type=packed.arrow_type(kind_of(each.dtype)),
                description=each.description,
                tags=dict(each.tags),
            )
            for each in view.features
        ]
        views[view.name] = DeclaredView(
            name=view.name,
            key=view.join_keys[0],
            description=view.description,
            owner=view.owner,
            ttl=view.ttl or timedelta(0),
            online=view.online,
            features=features,
            tags=dict(view.tags),
        )
    services = {
        each.name: DeclaredService(
            name=each.name,
            description=each.description,
            owner=each.owner,
            features={
                projection.name: [feature.name for feature in projection.features]
                for projection in each.feature_view_projections
            },
        )
        for each in sorted(opened.list_feature_services(), key=lambda each: each.name)
    }
    return Declared(views=views, services=services)
