"""Keyed containers on NumPy arrays: a hash index, a registry of texts, keys per partition, rows per key.

They know nothing of events or aggregates. Everything is vectorised; nothing here is safe between threads.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from matinee.features.exact import Hashes, Integers, mix

Columns = dict[str, npt.NDArray[Any]]

_EMPTY = np.uint64(0)
_SMALLEST = 1 << 10
_LEAST_ROOM = 2


class Index:
    """From 64-bit hashes to int32 places: open addressing with linear probing, at most half full."""

    def __init__(self) -> None:
        self._hashes = np.zeros(_SMALLEST, np.uint64)
        self._places = np.zeros(_SMALLEST, np.int32)
        self._count = 0

    @property
    def nbytes(self) -> int:
        """Memory held."""
        return int(self._hashes.nbytes + self._places.nbytes)

    def find(self, hashes: Hashes) -> Integers:
        """The place of each hash; -1 where it is not held."""
        hashes = _not_empty(hashes)
        mask = np.uint64(len(self._hashes) - 1)
        at = (hashes & mask).astype(np.intp)
        held = self._hashes[at]
        found = np.where(held == hashes, self._places[at], -1).astype(np.int64)
        left = np.flatnonzero((held != hashes) & (held != _EMPTY))
        at = at[left]
        while len(left):
            at = (at + 1) & int(mask)
            held = self._hashes[at]
            same = held == hashes[left]
            found[left[same]] = self._places[at[same]]
            going = ~same & (held != _EMPTY)
            left, at = left[going], at[going]
        return found

    def add(self, hashes: Hashes, places: Integers) -> None:
        """Hold hashes that are distinct and not held."""
        self._count += len(hashes)
        if 2 * self._count > len(self._hashes):
            held = self._hashes != _EMPTY
            old_hashes, old_places = self._hashes[held], self._places[held]
            size = _power_of_two(4 * self._count)
            self._hashes, self._places = np.zeros(size, np.uint64), np.zeros(size, np.int32)
            self._place(old_hashes, old_places.astype(np.int64))
        self._place(_not_empty(hashes), places)

    def _place(self, hashes: Hashes, places: Integers) -> None:
        mask = len(self._hashes) - 1
        at = (hashes & np.uint64(mask)).astype(np.intp)
        left = np.arange(len(hashes))
        while len(left):
            free = self._hashes[at] == _EMPTY
            # Of several that want one free place the last writes it; reading back says which did.
            self._hashes[at[free]] = hashes[left[free]]
            won = free & (self._hashes[at] == hashes[left])
            self._places[at[won]] = places[left[won]]
            left, at = left[~won], (at[~won] + 1) & mask


class Texts:
    """Texts in the order they came first, by their `exact.stable_hash`. Append only."""

    def __init__(self) -> None:
        self._index = Index()
        self._hashes = np.zeros(_SMALLEST, np.uint64)
        self._offsets = np.zeros(_SMALLEST + 1, np.int64)
        self._data = np.zeros(16 * _SMALLEST, np.uint8)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def nbytes(self) -> int:
        """Memory held."""
        return int(self._index.nbytes + self._hashes.nbytes + self._offsets.nbytes + self._data.nbytes)

    def find(self, hashes: Hashes) -> Integers:
        """The code (position in this registry) of each hash; -1 where its text has not come."""
        return self._index.find(hashes)

    def add(self, hashes: Hashes, texts: pa.Array) -> Integers:
        """The code of each text, new or not.

        Args:
            hashes: of `texts`, distinct.
            texts: strings without nulls.
        """
        codes = self.find(hashes)
        new = np.flatnonzero(codes < 0)
        if not len(new):
            return codes
        fresh = texts.cast(pa.large_string()).take(pa.array(new))
        _, offset_buffer, data_buffer = fresh.buffers()
        offsets = np.frombuffer(offset_buffer, np.int64)[fresh.offset : fresh.offset + len(new) + 1]
        start, end = self._count, self._count + len(new)
        used = int(self._offsets[start])
        size = int(offsets[-1] - offsets[0])
        self._hashes = grown(self._hashes, end)
        self._offsets = grown(self._offsets, end + 1)
        self._data = grown(self._data, used + size)
        self._hashes[start:end] = hashes[new]
        self._offsets[start + 1 : end + 1] = used + offsets[1:] - offsets[0]
        if size:
            self._data[used : used + size] = np.frombuffer(data_buffer, np.uint8)[offsets[0] : offsets[-1]]
        codes[new] = np.arange(start, end)
        self._index.add(hashes[new], codes[new])
        self._count = end
        return codes

    def take(self, codes: Integers) -> pa.Array:
        """The texts of codes, as strings."""
        buffers = [None, pa.py_buffer(self._offsets[: self._count + 1]), pa.py_buffer(self._data)]
        held = pa.Array.from_buffers(pa.large_string(), self._count, buffers)
        return held.take(pa.array(codes)).cast(pa.string())

    def hashes(self, codes: Integers | slice) -> Hashes:
        """The hashes of codes."""
        return self._hashes[: self._count][codes]


class Slots:
    """The keys of each partition, numbered: slot s is key `code[s]` in partition `partition[s]`."""

    def __init__(self) -> None:
        self._index = Index()
        self._partition = np.zeros(_SMALLEST, np.int32)
        self._code = np.zeros(_SMALLEST, np.int32)
        self._next = np.zeros(_SMALLEST, np.int32)
        self._first = np.full(_SMALLEST, -1, np.int32)
        """Of each code one slot; `_next` leads from it to those of other partitions."""
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def nbytes(self) -> int:
        """Memory held."""
        own = self._partition.nbytes + self._code.nbytes + self._next.nbytes + self._first.nbytes
        return self._index.nbytes + int(own)

    @property
    def partition(self) -> npt.NDArray[np.int32]:
        """Of each slot."""
        return self._partition[: self._count]

    @property
    def code(self) -> npt.NDArray[np.int32]:
        """Of each slot the key, as `Texts` numbers it."""
        return self._code[: self._count]

    def find(self, hashes: Hashes, partitions: Integers) -> Integers:
        """The slot of each pair; -1 where there is none yet."""
        return self._index.find(_pair(hashes, partitions))

    def add(self, hashes: Hashes, partitions: Integers, codes: Integers) -> Integers:
        """New slots of pairs that are distinct and have none."""
        start, end = self._count, self._count + len(codes)
        self._partition = grown(self._partition, end)
        self._code = grown(self._code, end)
        self._next = grown(self._next, end)
        self._first = grown(self._first, int(codes.max(initial=0)) + 1, fill=-1)
        slots = np.arange(start, end)
        self._partition[slots], self._code[slots] = partitions, codes
        order = np.argsort(codes, kind="stable")
        held, by_code = codes[order], slots[order]
        first, last = np.ones(len(held), np.bool_), np.ones(len(held), np.bool_)
        first[1:] = last[:-1] = held[1:] != held[:-1]
        self._next[by_code[~last]] = by_code[1:][~last[:-1]]
        self._next[by_code[last]] = self._first[held[last]]
        self._first[held[first]] = by_code[first]
        self._index.add(_pair(hashes, partitions), slots)
        self._count = end
        return slots

    def alone(self, slots: Integers) -> npt.NDArray[np.bool_]:
        """Whether each slot is the only one of its key."""
        return np.asarray((self._next[slots] < 0) & (self._first[self._code[slots]] == slots))

    def of(self, codes: Integers) -> Integers:
        """All slots of keys given by distinct codes."""
        slots = self._first[codes[codes < len(self._first)]].astype(np.int64)
        found = []
        while len(slots):
            slots = slots[slots >= 0]
            found.append(slots)
            slots = self._next[slots].astype(np.int64)
        return np.concatenate(found) if found else np.zeros(0, np.int64)


class Arena:
    """Rows of slots: each slot has an extent, in which its rows stand side by side.

    Args:
        dtypes: of the columns.
    """

    def __init__(self, dtypes: Mapping[str, npt.DTypeLike]) -> None:
        self._columns = {name: np.zeros(_SMALLEST, dtype) for name, dtype in dtypes.items()}
        self._start = np.zeros(_SMALLEST, np.int64)
        self._length = np.zeros(_SMALLEST, np.int32)
        self._room = np.zeros(_SMALLEST, np.int32)
        self._used = 0
        self._kept = 0
        """Room of all extents; `_used - _kept` is garbage."""

    @property
    def nbytes(self) -> int:
        """Memory held."""
        extents = self._start.nbytes + self._length.nbytes + self._room.nbytes
        return int(extents) + sum(int(each.nbytes) for each in self._columns.values())

    def slots(self) -> Integers:
        """Those that have rows."""
        return np.flatnonzero(self._length)

    def length(self, slots: Integers) -> npt.NDArray[np.int32]:
        """Rows of each slot."""
        self._cover(slots)
        return self._length[slots]

    def fits(self, slots: Integers, counts: Integers) -> npt.NDArray[np.bool_]:
        """Whether a slot's extent has room for `counts` more rows."""
        self._cover(slots)
        return self._length[slots] + counts <= self._room[slots]

    def last(self, slots: Integers, name: str) -> npt.NDArray[Any]:
        """A column's value in the last row of each slot; slots have rows."""
        return np.asarray(self._columns[name][self._start[slots] + self._length[slots] - 1])

    def fold_last(self, slots: Integers, name: str, combine: np.ufunc, values: npt.NDArray[Any]) -> None:
        """Combine values into a column in the last row of distinct slots that have rows."""
        at = self._start[slots] + self._length[slots] - 1
        column = self._columns[name]
        column[at] = combine(column[at], values)

    def gather(self, slots: Integers) -> tuple[Integers, Columns]:
        """Rows of slots: how many each has, and the columns, slot after slot."""
        self._cover(slots)
        counts = self._length[slots].astype(np.int64)
        at = spread(self._start[slots], counts)
        return counts, {name: column[at] for name, column in self._columns.items()}

    def append(self, slots: Integers, counts: Integers, rows: Mapping[str, npt.NDArray[Any]]) -> None:
        """Add rows, given slot after slot, to distinct slots that have room for them."""
        at = spread(self._start[slots] + self._length[slots], counts)
        for name, column in self._columns.items():
            column[at] = rows[name]
        self._length[slots] += counts.astype(np.int32)

    def replace(self, slots: Integers, counts: Integers, rows: Mapping[str, npt.NDArray[Any]]) -> None:
        """Make rows, given slot after slot, the only ones of distinct slots.

        An extent that would be more than three quarters full gives way to one that is half full.
        """
        self._cover(slots)
        short = np.flatnonzero(4 * counts > 3 * self._room[slots].astype(np.int64))
        if len(short):
            self._extend(slots[short], counts[short])
        self._length[slots] = counts
        at = spread(self._start[slots], counts)
        for name, column in self._columns.items():
            column[at] = rows[name]

    def _extend(self, slots: Integers, counts: Integers) -> None:
        """New extents, empty, twice as long as `counts`."""
        self._length[slots] = 0
        self._kept -= int(self._room[slots].sum())
        self._room[slots] = 0
        room = np.maximum(2 * counts, _LEAST_ROOM)
        total = int(room.sum())
        capacity = len(next(iter(self._columns.values())))
        if self._used + total > capacity and 2 * (self._kept + total) < self._used + total:
            self._compact()
        self._start[slots] = self._used + np.cumsum(room) - room
        self._room[slots] = room
        self._kept += total
        self._used += total
        for name, column in self._columns.items():
            self._columns[name] = grown(column, self._used)

    def _compact(self) -> None:
        """Move the extents together."""
        slots = np.flatnonzero(self._room)
        room = self._room[slots].astype(np.int64)
        counts, rows = self.gather(slots)
        self._start[slots] = np.cumsum(room) - room
        self._used = int(room.sum())
        at = spread(self._start[slots], counts)
        for name, column in self._columns.items():
            fresh = np.zeros(max(_SMALLEST, self._used + self._used // 2), column.dtype)
            fresh[at] = rows[name]
            self._columns[name] = fresh

    def _cover(self, slots: Integers) -> None:
        size = int(slots.max(initial=-1)) + 1
        if size > len(self._start):
            self._start = grown(self._start, size)
            self._length = grown(self._length, size)
            self._room = grown(self._room, size)


def grown(array: npt.NDArray[Any], size: int, fill: int = 0) -> npt.NDArray[Any]:
    """The array, with room for `size` values: half as many again as needed where it must be copied."""
    if size <= len(array):
        return array
    fresh = np.full(max(size + size // 2, _SMALLEST), fill, array.dtype)
    fresh[: len(array)] = array
    return fresh


def distinct(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The distinct values, ascending."""
    ordered = np.sort(array)
    new = np.ones(len(ordered), np.bool_)
    new[1:] = ordered[1:] != ordered[:-1]
    return ordered[new]


def spread(starts: Integers, counts: Integers) -> Integers:
    """Positions start, start + 1, ..., `counts` of them for each start, one after the other."""
    total = int(counts.sum())
    if total == len(counts) and (counts == 1).all():
        return starts
    before = np.cumsum(counts) - counts
    return np.repeat(starts - before, counts) + np.arange(total)


def _pair(hashes: Hashes, partitions: Integers) -> Hashes:
    return mix(hashes ^ mix(partitions.astype(np.uint64) + np.uint64(1)))


def _not_empty(hashes: Hashes) -> Hashes:
    """Zero marks a free place, so it is held as one: no likelier to meet another than any two hashes."""
    return np.maximum(hashes, np.uint64(1))


def _power_of_two(size: int) -> int:
    return 1 << max(10, (size - 1).bit_length())
