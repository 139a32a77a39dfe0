"""Which runs of histories a training step looks at: a function of the seed and the step's number."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch

from matinee.models.gradients import greatest, shard, workers
from matinee.models.positions import Positions

Rows = npt.NDArray[np.int64]


class Batches:
    """Batches of runs over some epochs. A run is [first place, place after the last].

    Args:
        length: most interactions of a run.
        size: runs of a batch over all workers; an epoch's last batch may hold fewer.
        sharded: `places` are those of this worker's members. An epoch then has as many steps everywhere
            as the worker with the most runs needs; the others meet some of theirs again.
    """

    def __init__(
        self, places: Positions, *, length: int, size: int, epochs: int, seed: int, sharded: bool = False
    ) -> None:
        self._cuts = [runs(places, length, epoch) for epoch in range(2)]
        self._size, self._seed, self._sharded = -(-size // workers()) if sharded else size, seed, sharded
        needed = [-(-len(cut) // self._size) for cut in self._cuts]
        self._lengths = [greatest(count) for count in needed] if sharded else needed
        self._ends = np.cumsum([self._lengths[epoch % 2] for epoch in range(epochs)])
        self.steps = int(self._ends[-1]) if epochs else 0
        self._order = lru_cache(maxsize=1)(self._shuffled)

    def at(self, step: int) -> Rows:
        """This worker's part of a step's batch, int64 [at most size, 2]."""
        epoch = int(np.searchsorted(self._ends, step, side="right"))
        first = step - (int(self._ends[epoch - 1]) if epoch else 0)
        drawn = self._order(epoch)[first * self._size : (first + 1) * self._size]
        return drawn if self._sharded else drawn[shard(torch.arange(len(drawn))).numpy()]

    def _shuffled(self, epoch: int) -> Rows:
        cut = self._cuts[epoch % 2]
        order = cut[np.random.default_rng([self._seed, epoch]).permutation(len(cut))]
        return np.resize(order, (self._lengths[epoch % 2] * self._size, 2)) if self._sharded else order


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
