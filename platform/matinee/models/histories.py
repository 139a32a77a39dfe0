"""Histories of unequal length as dense blocks, and the weights recency gives to their titles."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

SITTING_GAP_US = 3_600_000_000
"""A member away for longer than this has ended the sitting (one hour)."""


def last_block(
    histories: Sequence[npt.NDArray[np.int32]], length: int, *, empty: int
) -> npt.NDArray[np.int64]:
    """The last `length` titles of each history, int64 [m, length], right-aligned, padded with `empty`."""
    block = np.full((len(histories), length), empty, dtype=np.int64)
    for row, history in enumerate(histories):
        recent = history[-length:]
        if len(recent):
            block[row, length - len(recent) :] = recent
    return block


def recency_weights(count: int, half_life: float | None) -> npt.NDArray[np.float32]:
    """Weights of `count` titles, oldest first: 1 for the last, halved every `half_life` titles before it."""
    if half_life is None:
        return np.ones(count, dtype=np.float32)
    age = np.arange(count - 1, -1, -1, dtype=np.float32)
    weights: npt.NDArray[np.float32] = np.exp2(-age / np.float32(half_life)).astype(np.float32)
    return weights


def in_sitting(times: Sequence[npt.NDArray[np.int64]], now: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Per member, bool [m]: the last watch lies within `SITTING_GAP_US` of `now`. False without a history."""
    last = np.array([moments[-1] if len(moments) else np.iinfo(np.int64).min // 2 for moments in times])
    recent: npt.NDArray[np.bool_] = np.asarray(now, dtype=np.int64) - last <= SITTING_GAP_US
    return recent
