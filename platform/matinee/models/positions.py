"""Training positions of sequence models: moments in members' histories and the titles watched next."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from matinee.models.histories import SITTING_GAP_US
from matinee.schema import Interactions


@dataclass(frozen=True, kw_only=True)
class Positions:
    """Interactions grouped by member, in time order inside a member.

    Args:
        row: int64 [n], the interaction's row in the source.
        member: int64 [n], member of each.
        title: int64 [n], title of each.
        start: int64 [n], place in these arrays of the member's first interaction.
        stop: int64 [n], place after the member's last interaction.
        sitting: float32 [n], 1 where the previous watch of the member lies in the same sitting.
    """

    row: npt.NDArray[np.int64]
    member: npt.NDArray[np.int64]
    title: npt.NDArray[np.int64]
    start: npt.NDArray[np.int64]
    stop: npt.NDArray[np.int64]
    sitting: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.row)

    def past(self, at: npt.NDArray[np.int64], length: int, *, empty: int) -> npt.NDArray[np.int64]:
        """The `length` titles before each place, int64 [len(at), length], right-aligned."""
        places = at[:, None] - np.arange(length, 0, -1)[None, :]
        held = places >= self.start[at][:, None]
        return np.where(held, self.title[np.maximum(places, 0)], empty)

    def coming(
        self, at: npt.NDArray[np.int64], count: int, decay: float
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """The next `count` titles from each place on, [len(at), count], and weights that sum to 1 a row."""
        places = at[:, None] + np.arange(count)[None, :]
        held = places < self.stop[at][:, None]
        titles = np.where(held, self.title[np.minimum(places, len(self) - 1)], 0)
        weights = held * decay ** np.arange(count)[None, :]
        scaled = weights / np.maximum(weights.sum(1, keepdims=True), 1e-9)
        return titles, scaled.astype(np.float32)


def positions(interactions: Interactions) -> Positions:
    """Group interactions by member."""
    order = np.argsort(interactions.member, kind="stable").astype(np.int64)
    member = interactions.member[order].astype(np.int64)
    time = interactions.time[order]
    same = np.zeros(len(order), dtype=bool)
    same[1:] = member[1:] == member[:-1]
    near = np.zeros(len(order), dtype=bool)
    near[1:] = np.diff(time) <= SITTING_GAP_US
    return Positions(
        row=order,
        member=member,
        title=interactions.title[order].astype(np.int64),
        start=np.searchsorted(member, member, side="left").astype(np.int64),
        stop=np.searchsorted(member, member, side="right").astype(np.int64),
        sitting=(same & near).astype(np.float32),
    )
