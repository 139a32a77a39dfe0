"""Held-out cases beside what signals say of them: what weighing and validating work on. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from matinee.models.base import Scores
from matinee.models.ensemble.holdout import Holdout

CUT = 20
"""Places of a list that count."""

BLOCK = 512
"""Cases that are ranked at a time."""

Rows = npt.NDArray[np.bool_]
Values = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Cases:
    """Cases of a hold-out, c of them.

    Args:
        names: of the signals, (member model, signal).
        signals: standardised, float32 [signals, c, titles].
        watched: bool [c, titles], titles that are not ranked.
        answers: bool [c, titles], titles watched afterwards.
        following: int64 [c], the first of them.
        segment: int64 [c], position in `SEGMENTS`.
        member: int32 [c], whose case it is.
    """

    names: Sequence[tuple[str, str]]
    signals: Scores
    watched: Rows
    answers: Rows
    following: npt.NDArray[np.int64]
    segment: npt.NDArray[np.int64]
    member: npt.NDArray[np.int32]

    @classmethod
    def of(
        cls, holdout: Holdout, signals: Mapping[tuple[str, str], Scores], segment: npt.NDArray[np.int64]
    ) -> Cases:
        """The hold-out's cases.

        Args:
            signals: standardised, by member model and signal, float32 [c, titles].
        """
        stacked = np.stack(list(signals.values()))
        watched = np.zeros(stacked.shape[1:], dtype=bool)
        answers = np.zeros_like(watched)
        for row, (history, answer) in enumerate(zip(holdout.query.histories, holdout.answers, strict=True)):
            watched[row, history] = True
            answers[row, answer] = True
        return cls(
            names=list(signals),
            signals=stacked,
            watched=watched,
            answers=answers,
            following=np.array([answer[0] for answer in holdout.answers], dtype=np.int64),
            segment=segment,
            member=holdout.members,
        )

    def __len__(self) -> int:
        return len(self.segment)

    def combined(self, weights: Values, rows: Rows) -> Scores:
        """Weighted sums of the marked cases' signals, float32 [cases, titles].

        Args:
            weights: float64 [segments, signals].
        """
        each = weights[self.segment[rows]].T[:, :, None].astype(np.float32)
        total: Scores = np.einsum("sct,sci->ct", self.signals[:, rows], each)
        return total

    def ranked(self, scores: Scores) -> tuple[npt.NDArray[np.int64], Values]:
        """Each case's best `CUT` titles that are not watched, int64 [c, CUT], and the NDCG of that list.

        Equal scores are in the order of the catalogue; a catalogue that has fewer titles gives shorter lists.
        """
        blocks = [slice(start, start + BLOCK) for start in range(0, len(scores), BLOCK)]
        none = np.zeros((0, min(CUT, scores.shape[1])), dtype=np.int64)
        lists = np.concatenate([none, *(_first(scores[rows], self.watched[rows]) for rows in blocks)])
        discount = 1 / np.log2(np.arange(2, lists.shape[1] + 2))
        best = np.cumsum(discount)[np.minimum(self.answers.sum(1), len(discount)) - 1]
        found: Values = np.take_along_axis(self.answers, lists, 1) @ discount / best
        return lists, found


def _first(scores: Scores, watched: Rows) -> npt.NDArray[np.int64]:
    """The first `CUT` titles of each row, by keys that hold the score above the place in the catalogue."""
    bits = (np.where(watched, np.float32(np.inf), -scores) + np.float32(0)).view(np.int32)
    ordered = (bits ^ ((bits >> 31) & 0x7FFFFFFF)).astype(np.int64)
    keys = (ordered << 32) | np.arange(scores.shape[1])
    if scores.shape[1] > CUT:
        keys = np.partition(keys, CUT - 1, axis=1)[:, :CUT]
    found: npt.NDArray[np.int64] = np.sort(keys, axis=1) & 0xFFFFFFFF
    return found
