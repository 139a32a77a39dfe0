"""Requests that wait at the same time are scored in one pass.

Nobody waits for a batch to fill: a request that finds the model free scores what waits, itself included,
and hands over to the next. So a lone request is scored alone, and batches grow with the load.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from matinee.models.base import Query
from matinee.schema import Features

MOST = 32
"""Requests of one pass."""
STUCK_S = 2.0
"""A request that has waited so long waits for no pass of others any more; longer than a pass may take."""


class Rows(Protocol):
    """What a part says of m members: their scores, float32 [m, titles], or products."""

    def __getitem__(self, row: int, /) -> Any:
        """Of one member."""


T = TypeVar("T", bound=Rows)


@dataclass(kw_only=True)
class _Waiting(Generic[T]):
    """A request's query and, in the end, what became of it.

    Args:
        since: monotonic seconds: when it came or, later, when the pass began that it is in.
    """

    query: Query
    since: float = field(default_factory=time.monotonic)
    woken: threading.Event = field(default_factory=threading.Event)
    parts: Mapping[str, T] | None = None
    failure: BaseException | None = None


class Batches(Generic[T]):
    """Scores queries of one member each, those that wait together at once. Safe between threads.

    Args:
        score: gives what the parts say of a query of up to `MOST` members.
    """

    def __init__(self, score: Callable[[Query], Mapping[str, T]]) -> None:
        self._score = score
        self._lock = threading.Lock()
        self._waiting: list[_Waiting[T]] = []
        self._leader: _Waiting[T] | None = None

    def score(self, query: Query) -> Mapping[str, T]:
        """By part, what it says of a query of one member; raises what the model raised."""
        own: _Waiting[T] = _Waiting(query=query)
        with self._lock:
            self._waiting.append(own)
            if self._leader is None:
                self._lead_with(own)
        while not own.woken.wait(own.since + STUCK_S - time.monotonic()):
            if not self._may_wait(own):
                return _row(self._score(query), 0)
        if own.parts is None and own.failure is None:
            self._lead(own)
        if own.failure is not None:
            raise own.failure
        assert own.parts is not None
        return own.parts

    def _lead_with(self, one: _Waiting[T]) -> None:
        """Make a request that waits the leader of the next pass; the caller holds the lock."""
        self._leader = one
        one.woken.set()

    def _may_wait(self, own: _Waiting[T]) -> bool:
        """Whether a request that waited long will be woken; it leads now where another's pass is stuck."""
        with self._lock:
            if own in self._waiting and not own.woken.is_set():
                self._lead_with(own)
            return own.woken.is_set() or time.monotonic() < own.since + STUCK_S

    def _lead(self, own: _Waiting[T]) -> None:
        """Score what waits, then wake the next to do so, unless another has taken over meanwhile."""
        with self._lock:
            others = [each for each in self._waiting if each is not own]
            batch, self._waiting = [own, *others[: MOST - 1]], others[MOST - 1 :]
            for each in batch:
                each.since = time.monotonic()
        try:
            self._answer(batch)
        finally:
            for each in batch:
                each.woken.set()
            with self._lock:
                if self._leader is own:
                    self._leader = None
                    if self._waiting:
                        self._lead_with(self._waiting[0])

    def _answer(self, batch: Sequence[_Waiting[T]]) -> None:
        try:
            parts = self._score(joined([each.query for each in batch]))
        except BaseException as failure:
            if len(batch) == 1:
                batch[0].failure = failure
                return
            for each in batch:  # what one query brings about is its own
                self._answer([each])
            return
        for row, each in enumerate(batch):
            each.parts = _row(parts, row)


def joined(queries: Sequence[Query]) -> Query:
    """One query of all their members; without features where none of them has any, else NaN for theirs."""
    if len(queries) == 1:
        return queries[0]
    known = next((query.member_features for query in queries if query.member_features is not None), None)
    features = known and Features(
        names=known.names,
        values=np.concatenate(
            [
                np.full((len(query), len(known.names)), np.nan, np.float32)
                if query.member_features is None
                else query.member_features.values
                for query in queries
            ]
        ),
    )
    return Query(
        histories=[history for query in queries for history in query.histories],
        times=[times for query in queries for times in query.times],
        now=np.concatenate([query.now for query in queries]),
        member_features=features,
    )


def _row(parts: Mapping[str, T], row: int) -> dict[str, T]:
    return {name: values[row] for name, values in parts.items()}
