"""Figures of models on the members a protocol tests, overall and by segment. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from matinee.errors import InvalidInput
from matinee.models.base import Model
from matinee.schema import Estimate
from matinee.training import evaluate
from matinee.training.evaluate import WARM_EVENTS, Cases, Outcome

Figures = Mapping[str, Estimate]

BASELINE = "popularity"

BANDS = ((0, 0), (1, WARM_EVENTS - 1), (WARM_EVENTS, 25), (26, 100), (101, None))
"""Known interactions by which members are told apart: least and most."""


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What the models of one protocol achieved on the same members.

    Args:
        outcomes: by model.
        known: int64 [m], training interactions of each member.
    """

    outcomes: Mapping[str, Outcome]
    known: npt.NDArray[np.int64]


def judge(models: Mapping[str, Model], cases: Cases, genres: npt.NDArray[np.bool_]) -> Judged:
    """Rank for each member with each model and compare with what the member watched next.

    Raises:
        InvalidInput: there is no member to test.
    """
    if not len(cases):
        raise InvalidInput(
            "no member has an interaction to test on: at least two watches of one member are needed"
        )
    outcomes = {
        name: evaluate.outcome(evaluate.rank(model.score, cases.query), cases.relevant, genres)
        for name, model in models.items()
    }
    return Judged(outcomes=outcomes, known=cases.known)


def overall(judged: Judged, *, seed: int) -> dict[str, Figures]:
    """Every model's estimates over all members."""
    return {name: evaluate.estimate(outcome, seed=seed) for name, outcome in judged.outcomes.items()}


def warmth(judged: Judged, *, seed: int) -> dict[str, dict[str, Figures]]:
    """Every model's estimates over warm, cold and all members; a segment without members is left out."""
    masks = {
        "warm": judged.known >= WARM_EVENTS,
        "cold": judged.known == 0,
        "all": np.ones(len(judged.known), np.bool_),
    }
    return {
        name: {
            segment: evaluate.estimate(outcome.take(mask), seed=seed)
            for segment, mask in masks.items()
            if mask.any()
        }
        for name, outcome in judged.outcomes.items()
    }


def bands(judged: Judged, model: str, *, seed: int) -> dict[str, tuple[int, Figures]]:
    """One model's estimates by how much is known of the member, with the members of each band."""
    found: dict[str, tuple[int, Figures]] = {}
    for least, most in BANDS:
        mask = (judged.known >= least) & (judged.known <= (np.inf if most is None else most))
        if mask.any():
            figures = evaluate.estimate(judged.outcomes[model].take(mask), seed=seed)
            found[_band(least, most)] = (int(mask.sum()), figures)
    return found


def _band(least: int, most: int | None) -> str:
    if most is None:
        return f"{least} or more known"
    return f"{least} known" if least == most else f"{least} to {most} known"


def margins(judged: Judged, model: str, *, seed: int, metric: str = "ndcg@20") -> dict[str, Estimate]:
    """How much higher a model is than each other one on the same members (paired)."""
    own = judged.outcomes[model]
    return {
        name: evaluate.difference(own, outcome, metric, seed=seed)
        for name, outcome in judged.outcomes.items()
        if name != model
    }


def flat(figures: Figures) -> dict[str, Any]:
    """For JSON: each metric's value, and its "<metric>_interval" as [low, high]."""
    found: dict[str, Any] = {}
    for name, estimate in figures.items():
        found[name] = estimate.value
        found[f"{name}_interval"] = [estimate.low, estimate.high]
    return found
