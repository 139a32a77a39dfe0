"""Ranks beside scipy's, and the laws of a shift."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu

from matinee.canary.judge.ranks import ROOT_TOLERANCE, Ranks
from matinee.canary.judge.rows import Rows, pad

DRAWS = {
    "normal": lambda draw, size: draw.normal(10, 1, size),
    "counts": lambda draw, size: draw.poisson(3, size).astype(float),
    "mostly zero": lambda draw, size: np.where(draw.random(size) < 0.7, 0.0, draw.lognormal(size=size)),
}
SAMPLES = st.lists(st.integers(-4, 4).map(lambda value: value / 2), min_size=2, max_size=12)


def rows(*samples: list[float] | np.ndarray) -> Rows:
    return Rows(pad([np.asarray(each, np.float64) for each in samples])[0])


@pytest.mark.parametrize("kind", DRAWS)
@pytest.mark.parametrize(("n", "m"), [(60, 60), (7, 31)])
def test_p_values_and_superiority_are_those_of_scipy(kind: str, n: int, m: int) -> None:
    draw = np.random.default_rng(0)
    x, y = DRAWS[kind](draw, (20, n)), DRAWS[kind](draw, (20, m))
    wanted = [mannwhitneyu(*pair, method="asymptotic") for pair in zip(x, y, strict=True)]
    ranks = Ranks(Rows(x), Rows(y))
    assert ranks.p_value() == pytest.approx([each.pvalue for each in wanted], rel=1e-12)
    assert ranks.superiority() == pytest.approx([each.statistic / (n * m) for each in wanted], rel=1e-12)


def test_kinds_mixed_in_one_canary_are_as_scipy_says_with_values_missing_or_not() -> None:
    draw = np.random.default_rng(4)
    x, y = (np.concatenate([of(draw, (8, 40)) for of in DRAWS.values()] * 2) for _ in range(2))
    x[:24][draw.random((24, 40)) < 0.1] = np.nan
    x[30:34] = np.round(x[30:34], 1)
    y[30:34] = np.round(y[30:34], 1)
    wanted = [
        mannwhitneyu(*pair, method="asymptotic", nan_policy="omit").pvalue for pair in zip(x, y, strict=True)
    ]
    assert Ranks(Rows(x), Rows(y)).p_value() == pytest.approx(wanted, rel=1e-12)


@settings(max_examples=60)
@given(SAMPLES, SAMPLES, st.integers(-8, 8).map(lambda value: value / 4))
def test_a_statistic_at_a_shift_is_that_of_shifted_values(
    x: list[float], y: list[float], shift: float
) -> None:
    moved = Ranks(rows([value - shift for value in x]), rows(y)).z(np.zeros(1))
    assert Ranks(rows(x), rows(y)).z(np.array([shift])).tolist() == pytest.approx(moved.tolist(), nan_ok=True)


@pytest.mark.parametrize("kind", DRAWS)
def test_rows_of_different_lengths_are_as_alone(kind: str) -> None:
    draw = np.random.default_rng(1)
    pairs = [(DRAWS[kind](draw, n), DRAWS[kind](draw, 3 + 2 * n)) for n in (4, 30, 11)]
    together = Ranks(rows(*(x for x, _ in pairs)), rows(*(y for _, y in pairs))).shift(0.98)
    alone = [Ranks(rows(x), rows(y)).shift(0.98) for x, y in pairs]
    for name in ("low", "high", "estimate"):
        assert getattr(together, name).tolist() == [getattr(each, name)[0] for each in alone]


def test_the_shift_follows_the_samples() -> None:
    draw = np.random.default_rng(2)
    x, y = draw.normal(size=(2, 40))
    plain, moved = Ranks(rows(x), rows(y)).shift(0.98), Ranks(rows(x + 5), rows(y)).shift(0.98)
    swapped = Ranks(rows(y), rows(x)).shift(0.98)
    tolerance = 3 * ROOT_TOLERANCE
    assert moved.low - plain.low == pytest.approx(5, abs=tolerance)
    assert moved.estimate - plain.estimate == pytest.approx(5, abs=tolerance)
    assert swapped.low == pytest.approx(-plain.high, abs=tolerance)
    assert plain.estimate == pytest.approx(np.median(x[:, None] - y[None]), abs=0.05)


@settings(max_examples=60)
@given(SAMPLES, SAMPLES, st.sampled_from([0.8, 0.95, 0.98]))
def test_an_interval_that_is_not_open_holds_zero(x: list[float], y: list[float], confidence: float) -> None:
    ranks = Ranks(rows(x), rows(y))
    if ranks.least[0] < ranks.most[0] and not len(ranks.open(confidence)):
        shift = ranks.shift(confidence)
        assert shift.low[0] <= 0 <= shift.high[0]


def test_most_intervals_without_a_difference_are_not_open() -> None:
    draw = np.random.default_rng(3)
    ranks = Ranks(*(Rows(draw.normal(size=(500, 60))) for _ in range(2)))
    assert len(ranks.open(0.98)) < 0.05 * 500
