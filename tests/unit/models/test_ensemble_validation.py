from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matinee.models.ensemble.calibration import BENDS, calibrate, chances
from matinee.models.ensemble.cases import CUT, Cases
from matinee.models.ensemble.validation import COMBINATION, decide, estimated, validate
from matinee.models.ensemble.weights import SEGMENTS, learn, standardised

TITLES = 60


def planted(
    told: dict[str, float], *, count: int = 600, segment: int | None = None, seed: int = 0
) -> tuple[Cases, npt.NDArray[np.float64]]:
    """Cases whose next titles are drawn by a softmax of signals, and the chances they are drawn by.

    Args:
        told: by member, how strongly its signal tells; 0: it is noise.
    """
    generator = np.random.default_rng(seed)
    signals = np.stack(
        [standardised(generator.normal(size=(count, TITLES)).astype(np.float32)) for _ in told]
    )
    logits = np.einsum("s,sct->ct", list(told.values()), signals)
    watched = generator.random(logits.shape) < 0.1
    logits[watched] = -np.inf
    drawn = np.argsort(-(logits + generator.gumbel(size=logits.shape)), axis=1)[:, :3]
    answers = np.zeros(logits.shape, dtype=bool)
    np.put_along_axis(answers, drawn, True, 1)
    segments = generator.integers(len(SEGMENTS), size=count) if segment is None else np.full(count, segment)
    chances = np.exp(logits)
    cases = Cases(
        names=[(name, "score") for name in told],
        signals=signals,
        watched=watched,
        answers=answers,
        following=drawn[:, 0],
        segment=segments,
        member=(np.arange(count) // 2).astype(np.int32),
    )
    return cases, chances / chances.sum(1, keepdims=True)


def everyone(cases: Cases) -> npt.NDArray[np.bool_]:
    return np.ones(len(cases), dtype=bool)


@given(st.integers(0, 99), st.sampled_from([3, CUT, 60]))
def test_lists_are_the_best_titles_not_watched_ties_in_the_order_of_the_catalogue(
    seed: int, titles: int
) -> None:
    cases, _ = planted({"a": 1.0}, count=4, seed=seed)
    drawn = np.random.default_rng(seed).integers(-3, 3, (4, titles)).astype(np.float32) / 2 * np.float32(-1)
    kept = replace(cases, watched=cases.watched[:, :titles], answers=cases.answers[:, :titles] | (drawn > 0))
    lists, _ = kept.ranked(drawn)
    expected = np.argsort(np.where(kept.watched, np.inf, -drawn), axis=1, kind="stable")[:, :CUT]
    np.testing.assert_array_equal(lists, expected)


def test_where_signals_complete_each_other_their_combination_ranks() -> None:
    cases, _ = planted({"a": 1.5, "b": 1.5})
    weights, _, found = validate(cases, 1.0)
    assert {decision.chosen for decision in found.decisions} == {COMBINATION}
    assert all(decision.lead.value < 0 for decision in found.decisions)
    assert (weights > 0.5).all()
    assert min(each.low for each in found.contributions.values()) > 0.05


def test_where_one_tells_and_the_combination_misreads_it_it_ranks_alone() -> None:
    """A few titles far ahead make the regression timid: the crowd's signal then outweighs the telling one."""
    cases, _ = planted({"good": 3.0, "crowd": 0.3}, count=300, segment=3)
    signals = cases.signals.copy()
    signals[0] = standardised(np.sinh(2.5 * signals[0]))
    weights, _, found = validate(replace(cases, signals=signals), 1.0)
    decision = next(each for each in found.decisions if each.segments == ["long, back"])
    assert decision.chosen == decision.alone == "good.score"
    assert decision.lead.low > 0.03
    assert decision.reason.startswith("good.score alone leads by 0.")
    assert weights[SEGMENTS.index("long, back")].tolist() == [1, 0]
    assert found.ndcg == decision.best


@pytest.mark.parametrize(
    ("lead", "count", "certain", "chosen", "reason"),
    [
        (0.2, 80, True, "b.score", "b.score alone leads by 0.2"),
        (0.2, 40, True, COMBINATION, "40 cases are too few to decide on, 50 are needed"),
        (0.01, 80, True, COMBINATION, "no certain lead: b.score alone leads by 0.01"),
        (0.01, 80, False, "b.score", "b.score alone leads by 0.01"),
        (0.0, 80, False, COMBINATION, "no signal alone is better: b.score alone leads by 0.0000"),
    ],
)
def test_a_decision_and_its_reason(lead: float, count: int, certain: bool, chosen: str, reason: str) -> None:
    cases, _ = planted({"a": 1.0, "b": 1.0}, count=count, segment=2)
    apart = np.where(np.arange(count) // 2 % 2, 0.1, -0.1)
    combined, better = np.full(count, 0.5), 0.5 + lead + apart
    made = decide(cases, combined, np.stack([np.full(count, 0.1), better]), (2,), certain=certain)
    assert (made.chosen, made.segments, made.cases) == (chosen, ["short, in sitting"], count)
    assert made.reason.startswith(reason)
    assert made.lead.value == pytest.approx(lead)


def test_a_member_of_noise_adds_nothing_and_weighs_next_to_nothing() -> None:
    cases, _ = planted({"good": 2.0, "noise": 0.0}, segment=4)
    weights, _, found = validate(cases, 1.0)
    assert weights[4, 1] < 0.1 * weights[4, 0]
    assert abs(found.contributions["noise"].value) < 0.005
    assert found.contributions["good"].low > 0.2


def test_each_segment_has_its_own_best() -> None:
    first, _ = planted({"a": 2.5, "b": 0.0}, count=300, segment=0)
    second, _ = planted({"a": 0.0, "b": 2.5}, count=300, segment=4, seed=1)
    fields = {
        name: np.concatenate([getattr(first, name), getattr(second, name)])
        for name in ("watched", "answers", "following", "segment", "member")
    }
    cases = Cases(
        names=first.names, signals=np.concatenate([first.signals, second.signals], axis=1), **fields
    )
    weights, _, found = validate(cases, 1.0)
    assert weights[0, 0] > 5 * weights[0, 1]
    assert weights[4, 1] > 5 * weights[4, 0]
    assert {name for decision in found.decisions for name in decision.segments} == set(SEGMENTS)


@pytest.mark.parametrize("alone", [False, True])
def test_probabilities_are_those_the_titles_were_drawn_by(alone: bool) -> None:
    cases, drawn_by = planted({"a": 2.0} if alone else {"a": 2.0, "b": 1.0}, count=1_000, segment=3)
    weights, calibration, found = validate(cases, 1.0)
    scores = cases.combined(weights, everyone(cases))
    told = chances(scores, cases.watched, calibration[cases.segment])
    assert abs(told - drawn_by).sum(1).mean() < 0.1
    assert found.error < 0.01
    assert sum(each.titles for each in found.reliability) == len(cases) * CUT
    bounds = [bound for each in found.reliability for bound in (each.foreseen.low, each.foreseen.high)]
    assert bounds == sorted(bounds)


def test_scores_far_ahead_are_bent() -> None:
    """Where scores are no logits, but a power of them."""
    cases, drawn_by = planted({"a": 1.5}, count=1_000, segment=3)
    scores = np.sinh(3 * cases.signals[0])
    bent = calibrate(cases, scores, everyone(cases))
    told = chances(scores, cases.watched, bent[cases.segment])
    assert bent[3].tolist() == [pytest.approx(0.5, abs=0.05), 1]
    assert abs(told - drawn_by).sum(1).mean() < 0.1


@given(st.integers(0, 99), st.floats(0.01, 10), st.sampled_from(BENDS))
def test_probabilities_sum_to_1_and_keep_the_order(seed: int, scale: float, bend: float) -> None:
    cases, _ = planted({"a": 1.0}, count=5, seed=seed)
    told = chances(cases.signals[0], cases.watched, np.tile((scale, bend), (5, 1)))
    np.testing.assert_allclose(told.sum(1), 1, rtol=1e-5)
    assert not told[cases.watched].any()
    for row in range(5):
        left = np.flatnonzero(~cases.watched[row])
        assert (np.diff(told[row, left[np.argsort(cases.signals[0, row, left])]]) >= 0).all()


def test_segments_of_few_cases_mean_what_all_mean() -> None:
    cases, _ = planted({"a": 1.0}, count=200, segment=3)
    found = calibrate(cases, cases.signals[0], everyone(cases))
    np.testing.assert_array_equal(found, np.tile(found[3], (len(SEGMENTS), 1)))


@settings(max_examples=10)
@given(
    seed=st.integers(0, 99), count=st.integers(1, 30), told=st.lists(st.floats(0, 3), min_size=1, max_size=4)
)
def test_never_worse_than_any_signal_alone(seed: int, count: int, told: list[float]) -> None:
    cases, _ = planted({str(place): value for place, value in enumerate(told)}, count=count, seed=seed)
    weights, _, found = validate(cases, 1.0)
    alone = [cases.ranked(signal)[1].mean() for signal in cases.signals]
    assert found.ndcg.value >= max(alone) - 1e-9
    assert (weights >= 0).all()
    assert np.isfinite(weights).all()


def test_nothing_held_out_leaves_every_signal_its_share() -> None:
    cases, _ = planted({"a": 1.0, "b": 1.0}, count=0)
    weights, _, found = validate(cases, 1.0)
    np.testing.assert_array_equal(weights, 0.5)
    assert {decision.chosen for decision in found.decisions} == {COMBINATION}
    assert found.error == 0


def test_a_start_shortens_the_search_and_does_not_move_its_end() -> None:
    cases, _ = planted({"a": 1.5, "b": 0.5, "c": 0.0})
    plain = learn(cases, everyone(cases), 1.0)
    np.testing.assert_allclose(learn(cases, everyone(cases), 1.0, start=plain + 0.3), plain, atol=5e-3)


def test_without_a_member_its_signals_get_no_weight() -> None:
    cases, _ = planted({"a": 1.5, "b": 0.5})
    weights = learn(cases, everyone(cases), 1.0, without="a")
    assert not weights[:, 0].any()
    assert (weights[:, 1] > 0).all()


def test_an_interval_knows_that_cases_of_a_member_are_alike() -> None:
    values = np.repeat(np.random.default_rng(0).random(50), 20)
    one = estimated(values, np.repeat(np.arange(50), 20).astype(np.int32))
    each = estimated(values, np.arange(1_000, dtype=np.int32))
    assert one.value == each.value == pytest.approx(values.mean())
    assert one.high - one.low == pytest.approx(np.sqrt(20) * (each.high - each.low))
