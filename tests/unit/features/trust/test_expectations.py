"""Expectations against tables: ranges, nulls, distinct values, counting over micro-batches, and the gate."""

from __future__ import annotations

import pickle
from datetime import timedelta

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from matinee.errors import InvalidInput
from matinee.features.trust.expectations import (
    Policy,
    ViewExpectations,
    Violation,
    Violations,
    check,
    gate,
    merged,
)
from matinee.schema import Aggregate, AggregateView, Expectation, Function, Window


def expected(**features: Expectation) -> ViewExpectations:
    return ViewExpectations(view="v", features=features)


def found(table: dict[str, object], **features: Expectation) -> list[tuple[str, str, int, float]]:
    violations = check(expected(**features), pa.table(table))
    return [(each.feature, each.rule, each.count, each.found) for each in violations]


def test_values_out_of_range_are_counted_and_the_furthest_is_told() -> None:
    table = {"x": pa.array([1, -2, -5, None, 30, 9], pa.int64())}
    assert found(table, x=Expectation(low=0, high=10)) == [("x", "low", 2, -5), ("x", "high", 1, 30)]
    assert found(table, x=Expectation(low=-5, high=30)) == []


def test_nulls_and_nan_are_out_of_no_range_and_count_as_missing() -> None:
    table = {"x": pa.array([float("nan"), None, 1.0, 2.0])}
    assert found(table, x=Expectation(low=0, high=10)) == []
    assert found(table, x=Expectation(null_share=0.5)) == []
    assert found(table, x=Expectation(null_share=0.49)) == [("x", "null_share", 1, 0.5)]
    assert found({"x": pa.nulls(3, pa.float64())}, x=Expectation(low=0)) == []


def test_of_lists_and_texts_the_length_counts() -> None:
    lists = {"x": pa.array([["a"], ["a", "b", "c"], [], None])}
    assert found(lists, x=Expectation(low=1, high=2)) == [("x", "low", 1, 0), ("x", "high", 1, 3)]
    assert found({"x": pa.array(["ab", "abcd"])}, x=Expectation(high=3)) == [("x", "high", 1, 4)]


def test_distinct_values_of_lists_are_those_of_their_items() -> None:
    assert found({"x": pa.array([1, 1, 2, None])}, x=Expectation(distinct=1)) == [("x", "distinct", 1, 2)]
    lists = {"x": pa.array([["a", "b"], ["b", "c"]])}
    assert found(lists, x=Expectation(distinct=2)) == [("x", "distinct", 1, 3)]
    assert found(lists, x=Expectation(distinct=3)) == []


def test_no_rows_violate_nothing() -> None:
    assert found({"x": pa.array([], pa.int64())}, x=Expectation(low=0, null_share=0, distinct=0)) == []


def test_chunks_make_no_difference() -> None:
    column = pa.chunked_array([pa.array([1, -1]), pa.array([], pa.int64()), pa.array([None, -4])])
    (one,) = check(expected(x=Expectation(low=0)), pa.table({"x": column}))
    assert (one.count, one.rows, one.found, one.limit) == (2, 4, -4, 0)


@given(
    st.lists(st.one_of(st.none(), st.integers(-20, 20)), min_size=1), st.integers(-10, 0), st.integers(0, 10)
)
def test_counts_are_those_of_a_loop(values: list[int | None], low: int, high: int) -> None:
    counts = {
        rule: count
        for _, rule, count, _ in found({"x": pa.array(values, pa.int64())}, x=Expectation(low=low, high=high))
    }
    there = [value for value in values if value is not None]
    assert counts.get("low", 0) == sum(value < low for value in there)
    assert counts.get("high", 0) == sum(value > high for value in there)


def test_declared_on_aggregates_and_in_tags() -> None:
    plain = Aggregate(name="a", function=Function.COUNT, window=Window.tumbling(timedelta(hours=1)))
    watched = Aggregate(
        name="b",
        function=Function.COUNT,
        window=Window.tumbling(timedelta(hours=1)),
        expect=Expectation(low=0, distinct=9),
    )
    view = AggregateView(name="v", key="member_id", aggregates=(plain, watched))
    assert ViewExpectations.of(view).features == {"b": Expectation(low=0, distinct=9)}
    tags = {"x": '{"low": 0, "null_share": 0.1}'}
    assert ViewExpectations.of_tags("v", tags).features == {"x": Expectation(low=0, null_share=0.1)}


@pytest.mark.parametrize(
    "text", ["", "[]", "0", '{"lowest": 1}', '{"low": "0"}', '{"low": true}', '{"low": null}']
)
def test_a_tag_that_is_no_expectation_is_refused_by_name(text: str) -> None:
    with pytest.raises(InvalidInput, match=r"v\.x"):
        ViewExpectations.of_tags("v", {"x": text})


def test_micro_batches_are_counted_and_nulls_judged_over_enough_rows() -> None:
    violations = Violations(least_rows=10)
    rule = expected(x=Expectation(low=0, null_share=0.3))
    for _ in range(4):
        violations.add(rule, pa.table({"x": pa.array([None, -1, 1])}))
    assert [(each["rule"], each["count"]) for each in violations.status()] == [("low", 4), ("null_share", 1)]
    (nulls,) = [each for each in violations.status() if each["rule"] == "null_share"]
    assert (nulls["rows"], nulls["found"]) == (12, pytest.approx(1 / 3))
    assert violations.add(rule, pa.table({"x": pa.array([None], pa.int64())})) == []
    assert pickle.loads(pickle.dumps(violations)).status() == violations.status()


def violation(rule: str, count: int, found: float, rows: int = 100) -> Violation:
    return Violation(view="v", feature="x", rule=rule, count=count, rows=rows, found=found, limit=1.0)  # type: ignore[arg-type]


def test_violations_of_parts_become_one_with_the_worst_value() -> None:
    (low,) = merged([violation("low", 2, -3.0), violation("low", 5, -1.0)])
    assert (low.count, low.rows, low.found) == (7, 200, -3.0)
    (high,) = merged([violation("high", 2, 3.0), violation("high", 1, 9.0)])
    assert (high.count, high.found) == (3, 9.0)
    assert len(merged([violation("low", 1, 0), violation("high", 1, 2)])) == 2


def test_the_gate_holds_with_the_reason_and_tolerates_what_the_policy_does() -> None:
    assert gate([], Policy()).action == "publish"
    held = gate([violation("high", 2, 7.0)], Policy())
    assert (held.action, held.evidence) == ("hold", {"v.x.high": 2.0})
    assert held.reason == "v.x: 2 of 100 values over 1, as far as 7"
    assert gate([violation("high", 2, 7.0)], Policy(out_of_range=0.02)).action == "publish"
    assert gate([violation("high", 3, 7.0)], Policy(out_of_range=0.02)).action == "hold"
    assert gate([violation("null_share", 1, 0.5)], Policy(out_of_range=1.0)).action == "hold"
    reported = gate([violation("null_share", 1, 0.5)], Policy(report_only=True))
    assert (reported.action, list(reported.evidence)) == ("publish", ["v.x.null_share"])


def test_what_is_said_names_place_number_and_bound() -> None:
    assert str(violation("low", 2, -3.5)) == "v.x: 2 of 100 values under 1, as far as -3.5"
    assert (
        str(violation("null_share", 1, 0.5)) == "v.x: 50.00% of 100 rows are null, 100.00% at most expected"
    )
    assert str(violation("distinct", 1, 9)) == "v.x: 9 distinct values in 100 rows, 1 at most expected"
