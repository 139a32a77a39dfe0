"""Offline evaluation: no model, no store and no cluster is needed to judge a score matrix.

`protocols` divides interactions and asks questions, `ranking` turns scores into exact lists, `metrics`
judges them case by case, `intervals` says how sure that is, `segments` looks at a part, `report` shows it.
"""

from matinee.training.evaluate.intervals import difference, estimate, ratio
from matinee.training.evaluate.metrics import (
    ACCURACY,
    CUTOFFS,
    HEADLINE,
    METRICS,
    Outcome,
    accuracy,
    genre_matrix,
    outcome,
)
from matinee.training.evaluate.protocols import (
    Cases,
    Positions,
    Rows,
    Split,
    cases,
    given,
    global_time,
    leave_one_out,
    per_member,
    replay,
    subset,
    times,
)
from matinee.training.evaluate.ranking import LIST_LENGTH, rank, sampled_titles, top
from matinee.training.evaluate.segments import WARM_EVENTS, Segment, member_segments, title_segments, within

__all__ = [
    "ACCURACY",
    "CUTOFFS",
    "HEADLINE",
    "LIST_LENGTH",
    "METRICS",
    "WARM_EVENTS",
    "Cases",
    "Outcome",
    "Positions",
    "Rows",
    "Segment",
    "Split",
    "accuracy",
    "cases",
    "difference",
    "estimate",
    "genre_matrix",
    "given",
    "global_time",
    "leave_one_out",
    "member_segments",
    "outcome",
    "per_member",
    "rank",
    "ratio",
    "replay",
    "sampled_titles",
    "subset",
    "times",
    "title_segments",
    "top",
    "within",
]
