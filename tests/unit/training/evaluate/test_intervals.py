import math

import numpy as np
import pytest

from matinee.training import evaluate


def outcome_of(values, members=None) -> evaluate.Outcome:
    value = np.array(values, np.float64)
    lists = np.arange(len(value) * 20, dtype=np.int32).reshape(-1, 20) % 400
    owners = np.arange(len(value)) if members is None else np.array(members)
    return evaluate.Outcome(
        values={"ndcg@20": value}, lists=lists, titles=500, members=owners.astype(np.int32)
    )


def test_interval_has_the_width_theory_gives():
    values = np.random.default_rng(1).normal(0.3, 0.1, 2000)
    found = evaluate.estimate(outcome_of(values), seed=0)["ndcg@20"]
    half = 1.96 * values.std() / math.sqrt(2000)
    assert found.value == pytest.approx(values.mean())
    assert found.high - found.value == pytest.approx(half, rel=0.15)
    assert found.value - found.low == pytest.approx(half, rel=0.15)


def test_cases_of_one_member_are_no_independent_witnesses():
    values = np.random.default_rng(1).normal(0.3, 0.1, 200)
    apart = evaluate.estimate(outcome_of(values), seed=0)["ndcg@20"]
    alike = evaluate.estimate(outcome_of(np.repeat(values, 9), np.repeat(np.arange(200), 9)), seed=0)[
        "ndcg@20"
    ]
    assert (alike.value, alike.low, alike.high) == pytest.approx((apart.value, apart.low, apart.high))


def test_a_case_without_a_value_counts_in_no_mean():
    found = evaluate.estimate(outcome_of([0.25, math.nan, 0.5]), seed=0)["ndcg@20"]
    assert found.value == pytest.approx(0.375)
    assert 0.25 <= found.low <= found.high <= 0.5
    assert "ndcg@20" not in evaluate.estimate(outcome_of([math.nan] * 3), seed=0)


def test_coverage_interval_stands_around_its_value():
    found = evaluate.estimate(outcome_of([0.1] * 25), seed=0)["coverage"]
    assert found.value == pytest.approx(0.8)
    assert found.low < found.value < found.high


def test_estimates_repeat_with_their_seed():
    judged = outcome_of(np.random.default_rng(2).random(50))
    assert evaluate.estimate(judged, seed=3) == evaluate.estimate(judged, seed=3)
    assert evaluate.estimate(judged, seed=3) != evaluate.estimate(judged, seed=4)


def test_only_the_metrics_asked_for_are_estimated():
    assert list(evaluate.estimate(outcome_of([0.1] * 3), seed=0, metrics=["coverage"])) == ["coverage"]


def test_comparisons_are_paired():
    values = np.random.default_rng(2).random(50)
    gap = evaluate.difference(outcome_of(values + 0.01), outcome_of(values), "ndcg@20", seed=0)
    assert (gap.value, gap.low, gap.high) == pytest.approx((0.01, 0.01, 0.01))
    times = evaluate.ratio(outcome_of(values * 1.02), outcome_of(values), "ndcg@20", seed=0)
    assert (times.value, times.low, times.high) == pytest.approx((1.02, 1.02, 1.02))


def test_a_ratio_covers_the_true_one_as_often_as_it_says():
    covered = 0
    for seed in range(100):
        generator = np.random.default_rng(seed)
        ease = generator.exponential(1, 80)
        own, other = ease + generator.exponential(1, 80), ease + generator.exponential(0.6, 80)
        found = evaluate.ratio(outcome_of(own), outcome_of(other), "ndcg@20", seed=seed, resamples=200)
        covered += found.low <= 2 / 1.6 <= found.high
    assert 87 <= covered <= 99


def test_a_ratio_to_nothing_is_refused_and_to_next_to_nothing_has_no_upper_end():
    with pytest.raises(ValueError, match="not above zero"):
        evaluate.ratio(outcome_of([1.0]), outcome_of([0.0]), "ndcg@20", seed=0)
    rare = outcome_of([0.0] * 49 + [1.0])
    assert evaluate.ratio(outcome_of([0.5] * 50), rare, "ndcg@20", seed=0).high == math.inf


def test_models_of_other_cases_are_not_compared():
    with pytest.raises(ValueError, match="same cases"):
        evaluate.difference(outcome_of([0.0, 1.0]), outcome_of([0.0, 1.0], [0, 2]), "ndcg@20", seed=0)


def test_nobody_to_judge_is_an_error():
    with pytest.raises(ValueError, match="nothing to evaluate"):
        evaluate.estimate(outcome_of([0.0]).take(np.array([], np.intp)), seed=0)
