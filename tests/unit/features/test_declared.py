"""What a registry declares, as plain values."""

from datetime import timedelta

import pyarrow as pa
import pytest

from matinee.errors import InvalidInput
from matinee.features.store.declared import DeclaredFeature, DeclaredView
from matinee.schema import AGGREGATE_TAG, Aggregate, AggregateView, Expectation, Function, Window

AGGREGATE = AggregateView(
    name="v",
    key="member_id",
    aggregates=(
        Aggregate(name="a", function=Function.COUNT, window=Window.unbounded(), expect=Expectation(high=9)),
    ),
)


def view(tags, **expect):
    features = [
        DeclaredFeature(name=name, type=pa.int64(), description="", tags=held)
        for name, held in expect.items()
    ]
    return DeclaredView(
        name="v",
        key="member_id",
        description="",
        owner="x",
        ttl=timedelta(0),
        online=True,
        features=features,
        tags=tags,
    )


def test_a_view_says_how_it_is_aggregated():
    assert view({AGGREGATE_TAG: AGGREGATE.to_json()}).aggregate == AGGREGATE
    assert view({"owner": "x"}).aggregate is None


def test_expectations_stand_beside_aggregates_or_in_the_fields_tags():
    low = {"expect": '{"low": 1}', "owner": "x"}
    found = view({}, a=low, b={"owner": "x"})
    assert found.expected.features == {"a": Expectation(low=1)}
    found = view({AGGREGATE_TAG: AGGREGATE.to_json()}, a=low)
    assert found.expected.features == {"a": Expectation(high=9)}
    with pytest.raises(InvalidInput, match=r"v\.a"):
        assert view({}, a={"expect": "no"}).expected
