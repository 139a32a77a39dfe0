import dataclasses
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from matinee.errors import InvalidInput
from matinee.sources.dataset import MEMBER_SCHEMA, Dataset
from matinee.sources.ratings import catalogue, rating_events


@pytest.fixture
def dataset() -> Dataset:
    ratings = pl.DataFrame(
        {"member": ["a", "b", "a"], "title": ["1", "1", "2"], "value": [3, 4, 5], "seconds": [20, 10, 20]}
    )
    titles = catalogue(
        title_ids=["1", "2"], names=["One", "Two"], genres=[["Drama"], []], release_dates=[None, None]
    )
    members = pa.table({"member_id": ["a", "b"]}).append_column("age", pa.array([30, None], pa.int16()))
    for field in MEMBER_SCHEMA.names[2:]:
        members = members.append_column(field, pa.nulls(2, pa.string()))
    return Dataset(name="mine", catalogue=titles, events=rating_events("x", ratings), members=members)


def changed(dataset: Dataset, column: str, values: list[Any]) -> Dataset:
    at = dataset.events.schema.get_field_index(column)
    field = dataset.events.schema.field(at)
    return dataclasses.replace(
        dataset, events=dataset.events.set_column(at, field, pa.array(values, field.type))
    )


def test_a_whole_dataset_is_valid(dataset: Dataset) -> None:
    dataset.validate()


def test_ratings_are_ordered_by_time_and_ties_keep_their_order(dataset: Dataset) -> None:
    assert dataset.events["event_id"].to_pylist() == ["x-b-1", "x-a-1", "x-a-2"]
    assert dataset.events["value"].to_pylist() == [4.0, 3.0, 5.0]
    assert set(dataset.events["type"].to_pylist()) == {"rate"}


def test_arriving_restates_only_the_ingest_time(dataset: Dataset) -> None:
    events = dataset.arriving(7_000_000)
    assert events["ingest_time"].cast(pa.int64()).to_pylist() == [7_000_000] * 3
    assert events.drop_columns("ingest_time") == dataset.events.drop_columns("ingest_time")
    assert events.schema == dataset.events.schema


@pytest.mark.parametrize(
    ("column", "values", "said"),
    [
        ("event_id", ["x", "y", "x"], "event_id 'x' stands 2 times"),
        ("title_id", ["1", "9", "2"], "title '9'"),
        ("title_id", ["1", None, "2"], "event x-a-1 names no title"),
        ("type", ["rate", "rate", "watch"], "event type 'watch'"),
        ("member_id", ["a", "b", "z"], "member 'z'"),
        ("member_id", ["a", None, "b"], "member_id is null in row 1"),
    ],
)
def test_what_is_wrong_is_named(dataset: Dataset, column: str, values: list[Any], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        changed(dataset, column, values).validate()


def test_a_missing_or_unknown_column_is_named(dataset: Dataset) -> None:
    with pytest.raises(InvalidInput, match="lack the column cell"):
        dataclasses.replace(dataset, events=dataset.events.drop_columns("cell")).validate()
    odd = dataset.events.append_column("mood", pa.nulls(3))
    with pytest.raises(InvalidInput, match="unknown columns: mood"):
        dataclasses.replace(dataset, events=odd).validate()


def test_a_truth_of_another_shape_is_refused(dataset: Dataset) -> None:
    with pytest.raises(InvalidInput, match=r"truth has shape \(2, 3\)"):
        dataclasses.replace(dataset, truth=np.zeros((2, 3), np.float32)).validate()
