"""Figures of models on the cases of a protocol, overall and by segment. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from matinee.errors import InvalidInput
from matinee.models.base import Model
from matinee.schema import Estimate
from matinee.training import evaluate
from matinee.training.evaluate import HEADLINE, WARM_EVENTS, Cases, Outcome, Positions
from matinee.training.evaluate.report import Figures, Panels

BASELINE = "popularity"

BANDS = ((0, 0), (1, WARM_EVENTS - 1), (WARM_EVENTS, 25), (26, 100), (101, None))
"""Known interactions by which cases are told apart: least and most."""

LEAST_MEMBERS = 20
"""Fewest members of a segment whose figures are shown: below, an interval says nothing."""


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What the models of one protocol achieved on the same cases.

    Args:
        outcomes: by model.
        cases: what was asked.
    """

    outcomes: Mapping[str, Outcome]
    cases: Cases


def judge(
    models: Mapping[str, Model],
    cases: Cases,
    genres: npt.NDArray[np.bool_],
    *,
    among: Positions | None = None,
) -> Judged:
    """Rank for each case with each model and compare with what the member watched next.

    Args:
        among: as in `evaluate.rank`.

    Raises:
        InvalidInput: there is no case.
    """
    if not len(cases):
        raise InvalidInput(
            "no member has an interaction to test on: at least two watches of one member are needed"
        )
    outcomes = {
        name: evaluate.outcome(evaluate.rank(model.score, cases.query, among=among), cases, genres)
        for name, model in models.items()
    }
    return Judged(outcomes=outcomes, cases=cases)


def overall(judged: Judged, *, seed: int) -> dict[str, Figures]:
    """Every model's estimates over all cases."""
    return {name: evaluate.estimate(outcome, seed=seed) for name, outcome in judged.outcomes.items()}


def warmth(judged: Judged, *, seed: int) -> dict[str, dict[str, Figures]]:
    """Every model's estimates over warm, cold and all members; a segment without members is left out."""
    trained = judged.cases.trained
    masks = {
        "warm": trained >= WARM_EVENTS,
        "cold": trained == 0,
        "all": np.ones(len(trained), np.bool_),
    }
    return {
        name: {
            segment: evaluate.estimate(outcome.take(mask), seed=seed)
            for segment, mask in masks.items()
            if mask.any()
        }
        for name, outcome in judged.outcomes.items()
    }


def panels(
    figures: Mapping[str, Mapping[str, Figures]], by_warmth: Mapping[str, Mapping[str, Figures]]
) -> Panels:
    """What a report shows of every model: each protocol, and the one global in time by segment.

    Args:
        figures: by protocol and model.
        by_warmth: of the protocol global in time, by model and segment; empty where it was not run.
    """
    found = {TITLES[protocol]: models for protocol, models in figures.items() if protocol != "global_time"}
    for segment in next(iter(by_warmth.values()), {}):
        rows = {name: parts[segment] for name, parts in by_warmth.items()}
        found[f"{TITLES['global_time']}, {segment} members"] = rows
    return found


TITLES = {
    "prequential": "prequential replay",
    "per_member": "per member",
    "global_time": "global in time",
    "leave_one_out": "leave-one-out",
    "leave_one_out_sampled": "leave-one-out among 100 sampled titles",
}
"""Protocols as a report calls them."""


def bands(judged: Judged, model: str, *, seed: int) -> dict[str, tuple[int, Figures]]:
    """One model's estimates by how much is known at the moment, with the members of each band."""
    known = judged.cases.known
    return _parts(
        {
            _band(least, most): judged.outcomes[model].take(
                (known >= least) & (known <= (np.inf if most is None else most))
            )
            for least, most in BANDS
        },
        least=1,
        seed=seed,
    )


def segments(
    judged: Judged,
    model: str,
    genres: npt.NDArray[np.bool_],
    names: Sequence[str],
    *,
    labels: Mapping[str, Sequence[str | None]] | None = None,
    seed: int,
) -> dict[str, tuple[int, Figures]]:
    """One model's estimates by kind of member and of title, with the members of each.

    Args:
        names: of the genres.
        labels: as in `evaluate.member_segments`.
    """
    cases = judged.cases
    found = evaluate.member_segments(cases, labels) | evaluate.title_segments(cases, genres, names)
    outcomes = {
        name: evaluate.within(segment, judged.outcomes[model], cases) for name, segment in found.items()
    }
    return _parts(outcomes, least=LEAST_MEMBERS, seed=seed)


def _parts(outcomes: Mapping[str, Outcome], *, least: int, seed: int) -> dict[str, tuple[int, Figures]]:
    members = {name: len(np.unique(outcome.members)) for name, outcome in outcomes.items()}
    return {
        name: (members[name], evaluate.estimate(outcome, metrics=HEADLINE, seed=seed))
        for name, outcome in outcomes.items()
        if members[name] >= least
    }


def _band(least: int, most: int | None) -> str:
    if most is None:
        return f"{least} or more known"
    return f"{least} known" if least == most else f"{least} to {most} known"


def margins(judged: Judged, model: str, *, seed: int, metric: str = "ndcg@20") -> dict[str, Estimate]:
    """How much higher a model is than each other one on the same cases (paired)."""
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
