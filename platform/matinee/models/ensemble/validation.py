"""Whether the combination earns its place, what each member adds, and what its scores mean. Pure.

Weights are judged on cases of members that they were not learned from (cross-fitting). Where a signal alone
ranks better, it ranks alone; so on validation the ensemble is never worse than its best member.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from matinee.models.base import Scores
from matinee.models.ensemble.calibration import Calibration, calibrate, chances
from matinee.models.ensemble.cases import Cases, Values
from matinee.models.ensemble.weights import SEGMENTS, learn
from matinee.schema import Estimate

FOLDS = 3
"""Parts of the members, each judged with weights learned from the others."""
LEAST_CASES = 50
"""Fewest cases of a segment that is decided by itself."""
BINS = 10
"""Rows of the reliability table."""
COMBINATION = "combination"
KNOWN = tuple(range(1, len(SEGMENTS)))
"""Places in `SEGMENTS` of members with a history."""


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What ranks in some segments.

    Args:
        segments: names of them.
        cases: how many were judged.
        chosen: `COMBINATION`, or "member.signal" that ranks alone.
        combination: NDCG@20; where segments were decided before, as decided.
        alone: name of the best signal by itself.
        best: its NDCG@20.
        lead: how much higher it is (paired).
        reason: why.
    """

    segments: Sequence[str]
    cases: int
    chosen: str
    combination: Estimate
    alone: str
    best: Estimate
    lead: Estimate
    reason: str


@dataclass(frozen=True, kw_only=True)
class Bin:
    """Titles of lists of 20 that were foreseen as about equally likely to be watched next.

    Args:
        titles: how many.
        foreseen: mean probability, the least and the greatest.
        came: share that was watched next.
    """

    titles: int
    foreseen: Estimate
    came: Estimate


@dataclass(frozen=True, kw_only=True)
class Validation:
    """What the hold-out says of an ensemble, cross-fitted.

    Args:
        ndcg: NDCG@20 as decided.
        decisions: in the order they were made; a later one of a segment holds.
        contributions: by member model, NDCG@20 lost with weights learned and decisions made without it.
        reliability: from the least likely to the most.
        error: expected calibration error: mean difference of foreseen and came, weighed by titles.
    """

    ndcg: Estimate
    decisions: Sequence[Decision]
    contributions: Mapping[str, Estimate]
    reliability: Sequence[Bin]
    error: float

    @classmethod
    def read(cls, facts: Mapping[str, Any]) -> Self:
        """From what `dataclasses.asdict` made of one."""
        decisions = [
            Decision(**{**one, **{name: Estimate(**one[name]) for name in ("combination", "best", "lead")}})
            for one in facts["decisions"]
        ]
        return cls(
            ndcg=Estimate(**facts["ndcg"]),
            decisions=decisions,
            contributions={name: Estimate(**one) for name, one in facts["contributions"].items()},
            reliability=[
                Bin(
                    titles=one["titles"],
                    foreseen=Estimate(**one["foreseen"]),
                    came=Estimate(**one["came"]),
                )
                for one in facts["reliability"]
            ],
            error=facts["error"],
        )


def decide(
    cases: Cases, combined: Values, alone: Values, places: Sequence[int], *, certain: bool
) -> Decision:
    """The combination, unless the best signal alone has a higher mean NDCG in some segments.

    Args:
        combined: NDCG of the combination, float64 [c].
        alone: of each signal, float64 [signals, c].
        places: of `SEGMENTS`.
        certain: its lead must be certain (95%), over `LEAST_CASES` cases or more.
    """
    rows = np.isin(cases.segment, places)
    count, member = int(rows.sum()), cases.member[rows]
    first = int(alone[:, rows].mean(1).argmax()) if count else 0
    name = ".".join(cases.names[first])
    lead = estimated(alone[first, rows] - combined[rows], member)
    told = f"{name} alone leads by {lead.value:.4f} [{lead.low:.4f}, {lead.high:.4f}]"
    if certain and count < LEAST_CASES:
        better, reason = False, f"{count} cases are too few to decide on, {LEAST_CASES} are needed"
    elif certain:
        better = lead.low > 0
        reason = told if better else f"no certain lead: {told}"
    else:
        better = lead.value > 0
        reason = told if better else f"no signal alone is better: {told}"
    return Decision(
        segments=[SEGMENTS[place] for place in places],
        cases=count,
        chosen=name if better else COMBINATION,
        combination=estimated(combined[rows], member),
        alone=name,
        best=estimated(alone[first, rows], member),
        lead=lead,
        reason=reason,
    )


def validate(cases: Cases, shrinkage: float) -> tuple[Values, Calibration, Validation]:
    """The weights of each segment, what their scores mean, and what the hold-out says of them."""
    every = np.ones(len(cases), dtype=bool)
    weights = learn(cases, every, shrinkage)
    fold = np.unique(cases.member, return_inverse=True)[1] % FOLDS
    crossed = [learn(cases, fold != part, shrinkage, start=weights) for part in range(FOLDS)]
    alone = np.stack([cases.ranked(signal)[1] for signal in cases.signals])
    scores, ndcg, decisions = _decided(cases, crossed, fold, alone)
    contributions = {}
    for name in dict.fromkeys(member for member, _ in cases.names):
        kept = np.array([member != name for member, _ in cases.names])
        if kept.any():
            fewer = [
                learn(cases, fold != part, shrinkage, start=crossed[part], without=name)
                for part in range(FOLDS)
            ]
            _, without, _ = _decided(cases, fewer, fold, np.where(kept[:, None], alone, -1.0))
            contributions[name] = estimated(ndcg - without, cases.member)
    for decision in decisions:
        if decision.chosen != COMBINATION:
            chosen = [".".join(name) == decision.chosen for name in cases.names]
            weights[[SEGMENTS.index(segment) for segment in decision.segments]] = chosen
    told = np.zeros_like(scores)
    for part in range(FOLDS):
        judged = fold == part
        learned = calibrate(cases, scores, ~judged)
        told[judged] = chances(scores[judged], cases.watched[judged], learned[cases.segment[judged]])
    bins = reliability(cases, told)
    wrong = sum(one.titles * abs(one.foreseen.value - one.came.value) for one in bins)
    found = Validation(
        ndcg=estimated(ndcg, cases.member),
        decisions=decisions,
        contributions=contributions,
        reliability=bins,
        error=wrong / max(sum(one.titles for one in bins), 1),
    )
    return weights, calibrate(cases, scores, every), found


def reliability(cases: Cases, told: Scores) -> list[Bin]:
    """Titles of each case's list of 20, in bins of equal size by how likely they were foreseen.

    Args:
        told: probabilities, float32 [c, titles].
    """
    lists, _ = cases.ranked(told)
    foreseen = np.take_along_axis(told, lists, 1)
    came = (lists == cases.following[:, None]).astype(np.float64).ravel()
    member = np.repeat(cases.member, lists.shape[1])
    values = foreseen.ravel().astype(np.float64)
    return [
        Bin(
            titles=len(rows),
            foreseen=Estimate(
                value=float(values[rows].mean()), low=float(values[rows[0]]), high=float(values[rows[-1]])
            ),
            came=estimated(came[rows], member[rows]),
        )
        for rows in np.array_split(np.argsort(values, kind="stable"), BINS)
        if len(rows)
    ]


def estimated(values: Values, member: npt.NDArray[np.int32]) -> Estimate:
    """The mean and its 95% interval from the spread between members (cluster-robust, normal)."""
    if not len(values):
        return Estimate(value=0.0, low=0.0, high=0.0)
    mean = float(values.mean())
    apart = np.bincount(np.unique(member, return_inverse=True)[1], values - mean)
    reach = 1.96 * float(np.sqrt(np.square(apart).sum())) / len(values)
    return Estimate(value=mean, low=mean - reach, high=mean + reach)


def _decided(
    cases: Cases, crossed: Sequence[Values], fold: npt.NDArray[np.intp], alone: Values
) -> tuple[Scores, Values, list[Decision]]:
    """Scores of each case as decided, their NDCG, and the decisions in the order they were made.

    First of each segment of known members, where a lead must be certain; then of all of them, and of the
    cold segment, where what a history tells is silent.
    """
    scores = np.zeros(cases.watched.shape, dtype=np.float32)
    for part, weights in enumerate(crossed):
        scores[fold == part] = cases.combined(weights, fold == part)
    _, ndcg = cases.ranked(scores)
    names = [".".join(name) for name in cases.names]
    decisions = []
    for places in (*((place,) for place in KNOWN), KNOWN, (0,)):
        decision = decide(cases, ndcg, alone, places, certain=len(places) == 1 and places != (0,))
        if decision.chosen != COMBINATION:
            rows, first = np.isin(cases.segment, places), names.index(decision.chosen)
            scores[rows], ndcg[rows] = cases.signals[first, rows], alone[first, rows]
        decisions.append(decision)
    return scores, ndcg, decisions
