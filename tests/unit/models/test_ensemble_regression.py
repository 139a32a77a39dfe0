"""Softmax regression: nothing nearby is likelier, whatever the signals are like."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matinee.models.ensemble import regression
from matinee.models.ensemble.cases import Cases
from matinee.models.ensemble.regression import Regression
from matinee.models.ensemble.weights import learn


def drawn(seed: int, count: int, cases: int, titles: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Signals of which the first tells the answers best and the last is against them."""
    draw = np.random.default_rng(seed)
    signals = draw.normal(size=(count, cases, titles)).astype(np.float32)
    liking = 2 * signals[0] - signals[-1] + draw.gumbel(size=(cases, titles))
    watched = draw.random((cases, titles)) < 0.2
    watched[:, 0] = False
    best = np.where(watched, -np.inf, liking)
    answers = best >= np.sort(best, axis=1)[:, -min(2, titles) :][:, :1]
    return signals, watched, answers & ~watched


def regression_of(signals: np.ndarray, watched: np.ndarray, answers: np.ndarray) -> Regression:
    """Over all of it."""
    heard, rows = (np.ones(size, dtype=bool) for size in signals.shape[:2])
    return Regression(signals, watched, answers, heard=heard, rows=rows)


def gradient_at(
    signals: np.ndarray,
    watched: np.ndarray,
    answers: np.ndarray,
    towards: np.ndarray,
    strength: float,
    weights: np.ndarray,
) -> np.ndarray:
    """Of the loss, in double precision, title by title."""
    exact = signals.astype(np.float64)
    logits = np.where(watched, -np.inf, np.tensordot(weights, exact, 1))
    likely = np.exp(logits - logits.max(axis=1, keepdims=True))
    likely /= likely.sum(axis=1, keepdims=True)
    shares = answers / answers.sum(axis=1, keepdims=True)
    gradient: np.ndarray = ((likely - shares) * exact).sum(axis=(1, 2)) + 2 * strength * (weights - towards)
    return gradient


@settings(max_examples=60)
@given(
    st.integers(0, 10**6),
    st.integers(1, 5),
    st.integers(1, 40),
    st.integers(2, 30),
    st.sampled_from([0.1, 1.0, 10.0]),
    st.sampled_from([1, 60, 10**6]),
)
def test_no_weight_can_move_for_the_better(
    seed: int, count: int, cases: int, titles: int, strength: float, block: int
) -> None:
    problem = drawn(seed, count, cases, titles)
    towards = np.abs(np.random.default_rng(seed).normal(size=count))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(regression, "BLOCK", block)
        found = regression_of(*problem).solve(towards, strength, towards[::-1])
    gradient = gradient_at(*problem, towards, strength, found)
    assert (found >= 0).all()
    reach = 1e-3 * max(1, cases)
    assert (gradient > -reach).all()
    assert (np.abs(gradient[found > 1e-4]) < reach).all()


def test_a_start_that_is_far_away_ends_at_the_same_weights() -> None:
    problem = drawn(1, 4, 200, 50)
    near, far = (
        regression_of(*problem).solve(np.full(4, 0.25), 1.0, np.full(4, start)) for start in (0.25, 40.0)
    )
    np.testing.assert_allclose(near, far, atol=1e-3)
    assert near[0] > 1
    assert near[-1] == 0


def test_signals_that_are_alike_or_silent() -> None:
    signals, watched, answers = drawn(2, 2, 80, 20)
    doubled = np.concatenate([signals, signals[:1], np.zeros_like(signals[:1])])
    told = regression_of(doubled, watched, answers)
    assert told.varied.tolist() == [True, True, True, False]
    once = regression_of(signals, watched, answers).solve(np.zeros(2), 0.0, np.full(2, 0.5))
    twice = told.solve(np.zeros(4), 0.0, np.full(4, 0.5))
    assert twice[0] + twice[2] == pytest.approx(once[0], abs=0.01)
    assert twice[1] == pytest.approx(once[1], abs=0.01)


def test_only_what_counts_is_learned_from() -> None:
    signals, watched, answers = drawn(3, 3, 60, 20)
    heard, rows = np.array([True, False, True]), np.arange(60) % 3 == 0
    part = Regression(signals, watched, answers, heard=heard, rows=rows)
    alone = regression_of(signals[heard][:, rows], watched[rows], answers[rows])
    at = np.full(2, 0.5)
    np.testing.assert_array_equal(part.solve(at, 1.0, at), alone.solve(at, 1.0, at))


@pytest.mark.parametrize(("seed", "strength", "begin"), [(0, 0.001, 40.0), (1, 0.001, 40.0), (3, 0.001, 5.0)])
def test_a_start_where_one_title_is_all_but_certain(seed: int, strength: float, begin: float) -> None:
    signals, watched, answers = drawn(seed, 3, 60, 20)
    problem = signals * np.float32(20), watched, answers
    found = regression_of(*problem).solve(np.zeros(3), strength, np.full(3, begin))
    assert (found >= 0).all()
    assert np.isfinite(found).all()


def test_a_signal_that_is_silent_in_every_case_gets_no_say() -> None:
    signals, watched, answers = drawn(4, 2, 80, 20)
    cases = Cases(
        names=[("cf", "score"), ("gnn", "score"), ("dnn", "score")],
        signals=np.concatenate([signals, np.zeros_like(signals[:1])]),
        watched=watched,
        answers=answers,
        following=answers.argmax(axis=1),
        segment=np.full(80, 3),
        member=np.arange(80, dtype=np.int32),
    )
    weights = learn(cases, np.ones(80, dtype=bool), 10.0)
    assert weights[3, 0] > 0
    assert weights[3, 2] == 0
