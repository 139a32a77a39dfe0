from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matinee.models import discover
from matinee.models.space import Choice, Dimension, Real, Whole, nearest

PLACES = st.floats(0, 1)
SPECS = discover()


@st.composite
def numbers(draw: st.DrawFn) -> Dimension:
    log = draw(st.booleans())
    if draw(st.booleans()):
        low = draw(st.floats(1e-6, 1e3))
        return Real(low, low * draw(st.floats(1.5, 1e4)), log)
    first = draw(st.integers(1, 1000))
    return Whole(first, first + draw(st.integers(1, 1000)), log)


@given(numbers(), PLACES)
def test_a_value_stands_where_it_was_taken(dimension: Dimension, place: float) -> None:
    value = dimension.at(place)
    assert dimension.low <= value <= dimension.high
    assert dimension.nearest(value) == value
    again = dimension.at(dimension.place(value))
    assert again == value if isinstance(dimension, Whole) else math.isclose(again, value)


@given(numbers(), PLACES, PLACES)
def test_places_keep_the_order_of_values(dimension: Dimension, one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert dimension.at(low) <= dimension.at(high)


@given(numbers())
def test_the_ends_are_reached_and_nothing_lies_outside(dimension: Dimension) -> None:
    assert dimension.at(0) == dimension.nearest(dimension.low - 5) == dimension.low
    assert dimension.at(1) == dimension.nearest(dimension.high + 5) == dimension.high


def test_equal_factors_are_equally_far_apart() -> None:
    assert Real(0.01, 1, log=True).at(0.5) == pytest.approx(0.1)
    assert Whole(1, 100, log=True).place(10) == pytest.approx(0.5)
    assert Real(0, 1).place(0.25) == 0.25


def test_each_choice_has_its_place() -> None:
    dimension = Choice((None, 7.0, "x"))
    assert [dimension.at(dimension.place(value)) for value in dimension.values] == [None, 7.0, "x"]
    assert dimension.nearest("y") is None


@pytest.mark.parametrize("name", SPECS)
def test_the_default_lies_inside(name: str) -> None:
    spec = SPECS[name]
    default = spec.presets["default"]
    assert spec.space, "a model without a space cannot be tuned"
    assert nearest(spec.space, default) == {field: getattr(default, field) for field in spec.space}


@pytest.mark.parametrize("name", SPECS)
@given(data=st.data())
def test_every_point_builds_a_model(name: str, data: st.DataObject) -> None:
    spec = SPECS[name]
    point: dict[str, Any] = {
        field: dimension.at(data.draw(PLACES, field)) for field, dimension in spec.space.items()
    }
    config = dataclasses.replace(spec.presets["default"], **point)
    assert spec.model(config) is not None
    assert {field: getattr(config, field) for field in point} == point
