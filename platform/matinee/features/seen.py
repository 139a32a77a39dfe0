"""Which event ids a partition has had: 16 bytes an id, as sorted runs that are merged as they grow.

Events are keyed by member, so a repeat of an event comes through the partition of the first; the same id in
another partition is another member's event. What was seen depends on the partition's log alone, however
partitions are placed on workers.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from matinee.features.exact import Hashes, Integers, mix, stable_hash

_Run = tuple[Hashes, Integers]


class SeenIds:
    """Ids as hashes of 64 bits, with the partition's clock when they came."""

    def __init__(self) -> None:
        self._runs: list[_Run] = []

    def __len__(self) -> int:
        return sum(len(hashes) for hashes, _ in self._runs)

    def add(self, event_ids: pa.Array, partition: Integers, clock: Integers) -> npt.NDArray[np.bool_]:
        """Take ids in the order of arrival.

        Args:
            event_ids: strings [n].
            partition: [n].
            clock: [n], the latest event time of the partition up to and with the event, microseconds.

        Returns:
            bool [n]: True where the id is new.
        """
        codes = mix(stable_hash(event_ids) ^ (partition.astype(np.uint64) << np.uint64(48)))
        unique, first = np.unique(codes, return_index=True)
        known = np.zeros(len(unique), dtype=bool)
        for hashes, _ in self._runs:
            at = np.searchsorted(hashes, unique)
            inside = at < len(hashes)
            known[inside] |= hashes[at[inside]] == unique[inside]
        new = np.zeros(len(codes), dtype=bool)
        new[first[~known]] = True
        if not known.all():
            self._append((unique[~known], clock[first[~known]]))
        return new

    def forget(self, before: int) -> None:
        """Drop the ids that came while the clock was earlier: a repeat of them is late by the difference."""
        self._runs = [
            (hashes[kept], times[kept]) for hashes, times in self._runs if (kept := times >= before).any()
        ]

    def _append(self, run: _Run) -> None:
        self._runs.append(run)
        while len(self._runs) > 1 and len(self._runs[-2][0]) <= 2 * len(self._runs[-1][0]):
            hashes, times = (np.concatenate(held) for held in zip(*self._runs[-2:], strict=True))
            order = np.argsort(hashes, kind="stable")
            self._runs[-2:] = [(hashes[order], times[order])]
