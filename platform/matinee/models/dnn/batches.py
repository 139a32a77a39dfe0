"""Which runs of histories a training step looks at: a function of the seed and the step's number."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from matinee.models.positions import Positions

Rows = npt.NDArray[np.int64]


class Batches:
    """Batches of runs over some epochs. A run is [first place, place after the last].

    Args:
        length: most interactions of a run.
        size: runs of a batch; an epoch's last batch may hold fewer.
    """

    def __init__(self, places: Positions, *, length: int, size: int, epochs: int, seed: int) -> None:
        self._cuts = [runs(places, length, epoch) for epoch in range(2)]
        self._size, self._seed = size, seed
        lengths = [-(-len(self._cuts[epoch % 2]) // size) for epoch in range(epochs)]
        self._ends = np.cumsum(lengths)
        self.steps = int(self._ends[-1]) if epochs else 0
        self._order = lru_cache(maxsize=1)(self._shuffled)

    def at(self, step: int) -> Rows:
        """The batch of a step, int64 [at most size, 2]."""
        epoch = int(np.searchsorted(self._ends, step, side="right"))
        first = step - (int(self._ends[epoch - 1]) if epoch else 0)
        return self._order(epoch)[first * self._size : (first + 1) * self._size]

    def _shuffled(self, epoch: int) -> Rows:
        cut = self._cuts[epoch % 2]
        return cut[np.random.default_rng([self._seed, epoch]).permutation(len(cut))]


def runs(places: Positions, length: int, epoch: int) -> Rows:
    """Cut histories into runs of at most `length`, int64 [runs, 2]; epochs cut at different places.

    A member's first run is shorter in odd epochs, so that a title is seen early and late in runs.
    """
    firsts = np.flatnonzero(places.start == np.arange(len(places)))
    stops = places.stop[firsts]
    cut = firsts - (length // 2 if epoch % 2 else 0)
    counts = -(-(stops - cut) // length)
    owner = np.repeat(np.arange(len(firsts)), counts)
    turn = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    begin = cut[owner] + turn * length
    return np.stack([np.maximum(begin, firsts[owner]), np.minimum(begin + length, stops[owner])], axis=1)
