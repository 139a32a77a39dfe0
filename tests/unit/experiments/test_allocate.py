"""The laws of allocation: uniform, sticky, in proportion, and nobody moves without need."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from matinee.errors import InvalidInput
from matinee.experiments.allocate import allocate, bucket

KEYS = [f"member-{i}" for i in range(20_000)]
ARMS = st.dictionaries(st.sampled_from("abcdef"), st.floats(0.01, 100.0), min_size=1)


def cells(weights: dict[str, float], salt: str = "s", keys: list[str] = KEYS[:2000]) -> list[str]:
    return [allocate(key, salt, weights) for key in keys]


def test_a_bucket_is_the_same_everywhere() -> None:
    assert bucket("m1", "salt") == 0.25087992446579754
    assert bucket("mé", "") == 0.22664598131787705


def test_buckets_are_uniform() -> None:
    values = np.sort([bucket(key, "salt") for key in KEYS])
    distance = np.abs(values - (np.arange(len(values)) + 0.5) / len(values)).max()
    assert distance < 1.95 / math.sqrt(len(values))  # Kolmogorov-Smirnov at 0.1 %


def test_salts_are_independent() -> None:
    one, other = (np.array([bucket(key, salt) for key in KEYS]) for salt in ("a", "b"))
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.03


@given(st.text(), st.text())
def test_a_bucket_lies_in_the_unit_interval(key: str, salt: str) -> None:
    assert 0 <= bucket(key, salt) < 1


def test_salt_and_key_do_not_run_together() -> None:
    assert bucket("ab", "c") != bucket("a", "bc")


@given(st.text(), ARMS)
def test_sticky_whatever_the_order_and_scale_of_weights(key: str, weights: dict[str, float]) -> None:
    reordered = {arm: weights[arm] for arm in reversed(weights)}
    doubled = {arm: weight * 2 for arm, weight in weights.items()}
    assert allocate(key, "s", weights) == allocate(key, "s", reordered) == allocate(key, "s", doubled)


@pytest.mark.parametrize("weights", [{"a": 0.5, "b": 0.5}, {"a": 0.9, "b": 0.1}, {"a": 6, "b": 3, "c": 1}])
def test_weights_are_honoured(weights: dict[str, float]) -> None:
    found = cells(weights, keys=KEYS)
    total = sum(weights.values())
    for arm, weight in weights.items():
        share = weight / total
        assert found.count(arm) / len(KEYS) == pytest.approx(share, abs=4 * math.sqrt(share / len(KEYS)))


@given(ARMS, st.sampled_from("abcdefg"), st.floats(0.01, 100.0))
def test_changing_one_arm_moves_members_only_into_it_or_only_out_of_it(
    weights: dict[str, float], arm: str, weight: float
) -> None:
    before, after = cells(weights, keys=KEYS[:200]), cells(weights | {arm: weight}, keys=KEYS[:200])
    grows = weight >= weights.get(arm, 0.0)
    for old, new in zip(before, after, strict=True):
        assert old == new or (new if grows else old) == arm


def test_of_two_arms_only_the_difference_moves() -> None:
    before, after = cells({"a": 9, "b": 1}, keys=KEYS), cells({"a": 7, "b": 3}, keys=KEYS)
    moved = sum(old != new for old, new in zip(before, after, strict=True)) / len(KEYS)
    assert moved == pytest.approx(0.2, abs=0.012)


def test_an_arm_of_weight_zero_gets_nobody() -> None:
    assert set(cells({"a": 1, "b": 0})) == {"a"}


@pytest.mark.parametrize("weights", [{}, {"a": 0}, {"a": -1, "b": 2}, {"a": math.nan}, {"a": math.inf}])
def test_weights_that_name_nobody_are_refused(weights: dict[str, float]) -> None:
    with pytest.raises(InvalidInput, match="weight"):
        allocate("m", "s", weights)
