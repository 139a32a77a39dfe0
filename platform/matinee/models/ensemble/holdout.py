"""Which interactions teach the ensemble its weights. Pure: no model is run here.

Members are fitted on the inner part and asked about cases whose answers were held out. Cases stand for
the situations a ranking is asked in: an unknown member, a few titles into a first sitting, in the middle
of a sitting, and back after a break.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from matinee.models.base import Query, TrainingSet
from matinee.models.histories import SITTING_GAP_US
from matinee.schema import Features

NEWCOMERS = 0.1
"""Share of members held out whole: those who joined last."""
HELD_OUT = 0.2
"""Share of a member's watches held out where no break offers a better cut."""
LEAST_KNOWN = 5
"""Fewest watches a member keeps in the inner part."""
SHORT = (1, 3, 6, 9)
"""Titles known of a newcomer in the cases that stand for short histories."""


@dataclass(frozen=True, kw_only=True)
class Holdout:
    """The inner part and the cases.

    Args:
        inner: bool [n], True for rows of the training interactions that members are fitted on.
        query: the cases.
        answers: per case, int32 positions of the titles watched after its history, in time order.
        members: int32, whose case each is.
    """

    inner: npt.NDArray[np.bool_]
    query: Query
    answers: list[npt.NDArray[np.int32]]
    members: npt.NDArray[np.int32]


def split_holdout(data: TrainingSet, *, seed: int) -> Holdout:
    """Hold out the latest newcomers whole and the last part of everyone else's history.

    A member with a break between sittings is cut at the last break, others at the last fifth. `seed`
    decides only how many titles are known of each newcomer.
    """
    watched = data.interactions
    order = np.argsort(watched.member, kind="stable")
    bounds = np.searchsorted(watched.member[order], np.arange(len(watched.member_ids) + 1))
    rows = [order[bounds[i] : bounds[i + 1]] for i in range(len(watched.member_ids))]
    active = [i for i, mine in enumerate(rows) if len(mine)]
    joined = sorted(active, key=lambda i: int(watched.time[rows[i][0]]))
    newcomers = set(joined[len(joined) - int(len(joined) * NEWCOMERS) :])
    generator = np.random.default_rng(seed)
    inner = np.ones(len(watched), dtype=bool)
    cases: list[tuple[npt.NDArray[np.intp], int]] = []
    for member in active:
        mine = rows[member]
        if member in newcomers:
            inner[mine] = False
            cases.append((mine, 0))
            known = int(generator.choice(SHORT))
            if known < len(mine):
                cases.append((mine, known))
        else:
            cut = _cut(watched.time[mine])
            inner[mine[cut:]] = False
            if cut < len(mine):
                cases.append((mine, cut))
    query = Query(
        histories=[watched.title[mine[:cut]] for mine, cut in cases],
        times=[watched.time[mine[:cut]] for mine, cut in cases],
        now=np.array([watched.time[mine[cut]] for mine, cut in cases], dtype=np.int64),
        member_features=_before(data.member_features, [mine[cut] for mine, cut in cases]),
    )
    return Holdout(
        inner=inner,
        query=query,
        answers=[watched.title[mine[cut:]] for mine, cut in cases],
        members=np.array([watched.member[mine[0]] for mine, _ in cases], dtype=np.int32),
    )


def inner_set(data: TrainingSet, holdout: Holdout, *, title_features: Features | None = None) -> TrainingSet:
    """The rows members are fitted on before weighing.

    Args:
        title_features: as of the inner rows alone; without them the whole training set's stand in, whose
            counts then include the held-out watches.
    """
    features = data.member_features
    interactions = data.interactions.take(holdout.inner)
    return replace(
        data,
        interactions=interactions,
        outcomes=data.outcomes and data.outcomes.known_from(interactions),
        member_features=features and Features(names=features.names, values=features.values[holdout.inner]),
        title_features=title_features or data.title_features,
    )


def _cut(times: npt.NDArray[np.int64]) -> int:
    """How many of a member's watches stay in the inner part."""
    breaks = np.flatnonzero(np.diff(times) > SITTING_GAP_US) + 1
    breaks = breaks[breaks >= LEAST_KNOWN]
    if len(breaks):
        return int(breaks[-1])
    return max(int(np.ceil(len(times) * (1 - HELD_OUT))), min(LEAST_KNOWN, len(times)))


def _before(features: Features | None, rows: list[np.intp]) -> Features | None:
    """Point-in-time rows of the first held-out watches: what was known when the ranking was due."""
    return features and Features(names=features.names, values=features.values[np.array(rows, dtype=np.intp)])
