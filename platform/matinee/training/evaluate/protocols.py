"""Protocols: which interactions a model may learn from, and which questions it is asked afterwards. Pure.

A split divides interactions; cases are the questions it poses: what was known of a member, when, and
which titles came next. `cases` asks once for each tested member, `replay` once for each tested event.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from matinee.models.base import Query
from matinee.schema import Features, Interactions

Positions = npt.NDArray[np.int32]
Rows = npt.NDArray[np.intp]


@dataclass(frozen=True, kw_only=True)
class Split:
    """Interactions divided into what a model may learn from and what it must foresee.

    Args:
        train: the known part, in time order.
        test: the held-out part, in time order.
        train_rows: positions of `train` in the interactions that were split.
        test_rows: positions of `test` in the same.
    """

    train: Interactions
    test: Interactions
    train_rows: Rows
    test_rows: Rows


def per_member(interactions: Interactions, *, share: float = 0.8) -> Split:
    """Train on the first ceil(share) of each member's interactions, test on the rest of each."""
    rank, counts = _ranks(interactions)
    return _split(interactions, rank < _ceil_share(counts, share)[interactions.member])


def global_time(interactions: Interactions, *, share: float = 0.8) -> Split:
    """Train on the first ceil(share) of all interactions in time, test on what came later."""
    known = int(_ceil_share(np.array([len(interactions)]), share)[0])
    return _split(interactions, np.arange(len(interactions)) < known)


def leave_one_out(interactions: Interactions, *, least: int = 2) -> Split:
    """Test on the last interaction of each member, train on all others.

    The last but one is validation when the training part is split again.

    Args:
        least: members with fewer interactions are trained on whole.
    """
    rank, counts = _ranks(interactions)
    own = counts[interactions.member]
    return _split(interactions, (rank < own - 1) | (own < least))


def given(train: Interactions, test: Interactions) -> Split:
    """A split that somebody else made, such as the user split of LightGCN (`sources.published`)."""
    rows = np.arange(len(train) + len(test))
    return Split(train=train, test=test, train_rows=rows[: len(train)], test_rows=rows[len(train) :])


def _ranks(interactions: Interactions) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """How many of a member's interactions come before each one [n], and how many there are [members]."""
    order, starts = _timelines(interactions)
    rank = np.empty(len(interactions), np.int64)
    rank[order] = np.arange(len(interactions)) - starts[interactions.member[order]]
    return rank, np.diff(starts)


def _timelines(interactions: Interactions) -> tuple[Rows, npt.NDArray[np.int64]]:
    """Rows member by member, oldest first, and where each member's begin: int64 [members + 1]."""
    order = np.argsort(interactions.member, kind="stable")
    members = np.arange(len(interactions.member_ids) + 1)
    return order, np.searchsorted(interactions.member[order], members).astype(np.int64)


def _ceil_share(counts: npt.NDArray[np.int64], share: float) -> npt.NDArray[np.int64]:
    if not 0 < share < 1:
        raise ValueError(f"share is {share!r}: accepted are numbers between 0 and 1, both excluded")
    return np.ceil(np.round(counts * share, 9)).astype(np.int64)


def _split(interactions: Interactions, known: npt.NDArray[np.bool_]) -> Split:
    train, test = np.flatnonzero(known), np.flatnonzero(~known)
    return Split(
        train=interactions.take(train), test=interactions.take(test), train_rows=train, test_rows=test
    )


@dataclass(frozen=True, kw_only=True)
class Cases:
    """The questions of a protocol, m of them, each about one member at one moment.

    Args:
        members: int32 [m], positions in the split's member vocabulary; ascending unless replayed.
        query: what is known of the member at that moment.
        relevant: per case, int32 positions of the titles to be foreseen, each once; at least one.
        trained: int64 [m], interactions of the member among those the model was fitted on.
        watches: int64 [titles], members who watched each title, among those interactions.
        watchers: members with any of those interactions.
    """

    members: Positions
    query: Query
    relevant: Sequence[Positions]
    trained: npt.NDArray[np.int64]
    watches: npt.NDArray[np.int64]
    watchers: int

    def __len__(self) -> int:
        return len(self.members)

    @property
    def titles(self) -> int:
        """Size of the catalogue."""
        return len(self.watches)

    @property
    def known(self) -> npt.NDArray[np.int64]:
        """Length of each case's history, int64 [m]."""
        return np.array([len(history) for history in self.query.histories], np.int64)


def cases(split: Split, *, member_features: Features | None = None) -> Cases:
    """One case for each tested member: all of its test interactions are to be foreseen at once.

    Args:
        member_features: rows aligned with `split.test`: what the store knew just before each. A member
            takes the row of its first test interaction, so that no value knows a test interaction.
    """
    members, first = np.unique(split.test.member, return_index=True)
    histories, relevant = split.train.histories(), split.test.histories()
    watched = times(split.train)
    query = Query(
        histories=[histories[member] for member in members],
        times=[watched[member] for member in members],
        now=split.test.time[first],
        member_features=_take(member_features, first),
    )
    return _cases(split, members.astype(np.int32), query, [relevant[member] for member in members])


def replay(
    split: Split, *, member_features: Features | None = None, limit: int | None = None, seed: int = 0
) -> Cases:
    """Prequential: one case for each test interaction in time order, asked just before it happened.

    The history of a case holds everything of the member before the event, tested events included: it goes
    on growing while the model stays as it was fitted. Events of one moment are known in order of arrival.
    The single title to be foreseen is always an unseen one. Histories are views of one array.

    Dawid, "Present position and potential developments: some personal views: statistical theory: the
    prequential approach", 1984; Vinagre, Jorge, Gama, "Evaluation of recommender systems in streaming
    environments", 2014.

    Args:
        split: one in time: nothing of `train` is later than anything of `test`.
        member_features: rows aligned with `split.test`: what the store knew just before each.
        limit: most events; of more, this many are drawn without replacement. None: all.
        seed: of the draw.

    Raises:
        ValueError: the split is not one in time.
    """
    train, test = split.train, split.test
    if len(train) and len(test) and train.time[-1] > test.time[0]:
        raise ValueError("replay needs a split in time: a training interaction is later than a tested one")
    rows = np.arange(len(test))
    if limit is not None and limit < len(test):
        rows = np.sort(np.random.default_rng(seed).choice(len(test), limit, replace=False))
    whole = Interactions(
        member_ids=train.member_ids,
        title_ids=train.title_ids,
        member=np.concatenate([train.member, test.member]),
        title=np.concatenate([train.title, test.title]),
        time=np.concatenate([train.time, test.time]),
        value=np.concatenate([train.value, test.value]),
    )
    order, starts = _timelines(whole)
    place = np.empty(len(whole), np.int64)
    place[order] = np.arange(len(whole))
    at, members = place[len(train) + rows], test.member[rows]
    titles, begun = whole.title[order], starts[members]
    query = Query(
        histories=_Runs(titles, begun, at),
        times=_Runs(whole.time[order], begun, at),
        now=test.time[rows],
        member_features=_take(member_features, rows),
    )
    return _cases(split, members, query, _Runs(titles, at, at + 1))


class _Runs(Sequence[npt.NDArray[Any]]):
    """Stretches [start, stop) of one array, each a view made when it is asked for."""

    def __init__(
        self, values: npt.NDArray[Any], starts: npt.NDArray[np.int64], stops: npt.NDArray[np.int64]
    ) -> None:
        self._values, self._starts, self._stops = values, starts, stops

    def __len__(self) -> int:
        return len(self._starts)

    @overload
    def __getitem__(self, row: int) -> npt.NDArray[Any]: ...
    @overload
    def __getitem__(self, row: slice) -> _Runs: ...
    def __getitem__(self, row: int | slice) -> npt.NDArray[Any] | _Runs:
        if isinstance(row, slice):
            return _Runs(self._values, self._starts[row], self._stops[row])
        return self._values[self._starts[row] : self._stops[row]]


def _cases(split: Split, members: Positions, query: Query, relevant: Sequence[Positions]) -> Cases:
    trained = np.bincount(split.train.member, minlength=len(split.train.member_ids))
    return Cases(
        members=members,
        query=query,
        relevant=relevant,
        trained=trained[members],
        watches=np.bincount(split.train.title, minlength=len(split.train.title_ids)),
        watchers=int((trained > 0).sum()),
    )


def times(interactions: Interactions) -> list[npt.NDArray[np.int64]]:
    """Per member of the vocabulary, when each title of `histories` was watched, oldest first."""
    order, starts = _timelines(interactions)
    return np.split(interactions.time[order], starts[1:-1])


def subset(query: Query, rows: Rows) -> Query:
    """The same query for some of its members."""
    return Query(
        histories=[query.histories[row] for row in rows],
        times=[query.times[row] for row in rows],
        now=query.now[rows],
        member_features=_take(query.member_features, rows),
    )


def _take(features: Features | None, rows: Rows) -> Features | None:
    return None if features is None else Features(names=features.names, values=features.values[rows])
