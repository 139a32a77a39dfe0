"""Feature rows as bytes: one value holds all features of one entity in one view.

Pure: whole Arrow columns in, one `bytes` a row out, and back. Little-endian, except the event time:

    fingerprint   8 bytes   which layout (names and kinds of the features) the row was written in
    event time    8 bytes   microseconds, big-endian with the sign bit flipped: later is larger as bytes
    created time  8 bytes   microseconds; the smallest int64 where there is none
    nulls         a bit a feature
    slots         a feature each: the number itself, or where its variable part ends
    variable      texts, bytes and lists, one after the other

A row of another layout than the reader's is read by the features that both know under one name and kind.
A kind is "int64", "int32", "float64", "float32", "bool", "timestamp" (int64 microseconds), "string",
"bytes", "list:" before one of these, or "opaque": bytes that only the writer's serializer understands.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from itertools import pairwise
from operator import itemgetter
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from matinee.errors import InvalidInput
from matinee.schema import TIMESTAMP

Reading = Callable[[bytes, int, int], Any]

_NUMBERS = {
    "int64": ("q", "<i8", pa.int64()),
    "int32": ("i", "<i4", pa.int32()),
    "float64": ("d", "<f8", pa.float64()),
    "float32": ("f", "<f4", pa.float32()),
    "bool": ("?", "?", pa.bool_()),
    "timestamp": ("q", "<i8", TIMESTAMP),
}
_TEXTS = {"string": pa.string(), "bytes": pa.binary(), "opaque": pa.binary()}

_TIME = 8
_CREATED = struct.Struct("<q")
_HEADER = 24
_SIGN = 1 << 63
NO_TIME = -(1 << 63)
"""A created time that is none."""
_SEPARATOR = b"\0"
_JOINED, _COUNTED = 0, 1
"""First byte of a list of texts: joined by NUL, or each after its length (where a text holds a NUL)."""
_LENGTH = struct.Struct("<I")


@dataclass(frozen=True)
class Layout:
    """The features of a view, in order.

    Args:
        features: (name, kind) of each.

    Raises:
        InvalidInput: a kind that does not exist, or a name twice.
    """

    features: tuple[tuple[str, str], ...]

    def __post_init__(self) -> None:
        for name, kind in self.features:
            if kind not in _NUMBERS and kind not in _TEXTS and kind.removeprefix("list:") not in _ELEMENTS:
                raise InvalidInput(f"feature {name!r} has kind {kind!r}; see matinee.features.packed")
        if len(set(self.names)) < len(self.names):
            raise InvalidInput(f"features {', '.join(self.names)}: a name is there twice")

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Feature names in order."""
        return tuple(name for name, _ in self.features)

    @cached_property
    def kinds(self) -> Mapping[str, str]:
        """Kind by name."""
        return dict(self.features)

    @cached_property
    def text(self) -> str:
        """The layout as JSON; `parse` reads it."""
        return json.dumps(self.features, ensure_ascii=False, separators=(",", ":"))

    @cached_property
    def fingerprint(self) -> bytes:
        """Eight bytes that tell this layout from every other."""
        return blake2b(self.text.encode(), digest_size=8).digest()

    @classmethod
    def parse(cls, text: str) -> Layout:
        """The layout that `text` describes."""
        return cls(tuple((name, kind) for name, kind in json.loads(text)))

    @cached_property
    def nulls_end(self) -> int:
        """Where the slots begin."""
        return _HEADER + (len(self.features) + 7) // 8

    @cached_property
    def slots(self) -> struct.Struct:
        """The slots, for unpacking at `nulls_end`."""
        return struct.Struct("<" + "".join(_slot(kind) for _, kind in self.features))

    @cached_property
    def fixed(self) -> int:
        """Where the variable part begins."""
        return self.nulls_end + self.slots.size

    @cached_property
    def dtype(self) -> np.dtype[np.void]:
        """The first `fixed` bytes as NumPy reads them; slot i is the field str(i)."""
        fields: list[tuple[Any, ...]] = [
            ("fingerprint", "V8"),
            ("time", ">u8"),
            ("created", "<i8"),
            ("nulls", "u1", (self.nulls_end - _HEADER,)),
        ]
        for slot, (_, kind) in enumerate(self.features):
            fields.append((str(slot), _NUMBERS[kind][1] if kind in _NUMBERS else "<u4"))
        return np.dtype(fields)


def arrow_type(kind: str) -> pa.DataType:
    """The Arrow type that columns of a kind have."""
    if kind.startswith("list:"):
        return pa.list_(arrow_type(kind.removeprefix("list:")))
    return _TEXTS[kind] if kind in _TEXTS else _NUMBERS[kind][2]


def encode(
    layout: Layout, table: pa.Table, *, time: npt.NDArray[np.int64], created: npt.NDArray[np.int64] | None
) -> list[bytes]:
    """Rows as bytes.

    Args:
        table: a column for each feature, castable to `arrow_type` of its kind. Other columns don't matter.
        time: int64 [rows], event times in microseconds.
        created: int64 [rows], or None where the rows have no created time.

    Raises:
        InvalidInput: a column is missing or of another type, or a list holds a null.
    """
    rows = table.num_rows
    fixed = np.zeros(rows, layout.dtype)
    fixed["fingerprint"] = np.void(layout.fingerprint)
    fixed["time"] = time.view(np.uint64) ^ np.uint64(_SIGN)
    fixed["created"] = NO_TIME if created is None else created
    nulls = np.zeros((rows, len(layout.features)), np.uint8)
    end = np.full(rows, layout.fixed, np.int64)
    variable: list[pa.Array] = []
    for slot, (name, kind) in enumerate(layout.features):
        column = _column(table, name, kind)
        if column.null_count:
            nulls[:, slot] = column.is_null().to_numpy(zero_copy_only=False)
        if kind in _NUMBERS:
            fixed[str(slot)] = _numbers(column, kind)
        else:
            part = _parts(column, name, kind)
            end += np.diff(_offsets(part))
            fixed[str(slot)] = end
            variable.append(part)
    if len(end) and int(end.max()) > np.iinfo(np.uint32).max:
        raise InvalidInput("a feature row is above 4 GiB")
    fixed["nulls"] = np.packbits(nulls, axis=1, bitorder="little")
    if not variable:
        whole = fixed.tobytes()
        return [whole[start : start + layout.fixed] for start in range(0, rows * layout.fixed, layout.fixed)]
    heads = pa.Array.from_buffers(
        pa.large_binary(),
        rows,
        [None, pa.py_buffer(np.arange(rows + 1, dtype=np.int64) * layout.fixed), pa.py_buffer(fixed)],
    )
    return as_bytes(pc.binary_join_element_wise(heads, *variable, pa.scalar(b"", pa.large_binary())))


def as_bytes(column: pa.Array) -> list[bytes]:
    """A column of binary without nulls as Python bytes."""
    held = column.cast(pa.large_binary())
    bounds = _offsets(held)
    data = held.buffers()[2]
    whole = b"" if data is None else data.to_pybytes()
    ends = bounds.tolist()
    return [whole[start:end] for start, end in pairwise(ends)]


def event_time(value: bytes) -> int:
    """Event time of a row, microseconds."""
    return int.from_bytes(value[_TIME:16], "big") - _SIGN


def created_time(value: bytes) -> int | None:
    """Created time of a row, microseconds; None where it has none."""
    (time,) = _CREATED.unpack_from(value, 16)
    return None if time == NO_TIME else int(time)


class Decoder:
    """Reads rows of one view, whichever layout they were written in. Safe in many threads.

    Args:
        layout: what the view is now.
        wanted: features to read, in the order in which they are answered.
        find: the layout of a fingerprint that is not the view's own; None where nobody knows it.
        opaque: a value of kind "opaque" from its bytes.

    Raises:
        InvalidInput: a wanted feature is not the view's.
    """

    def __init__(
        self,
        layout: Layout,
        wanted: Sequence[str],
        *,
        find: Callable[[bytes], Layout | None] = lambda _: None,
        opaque: Reading = lambda value, start, end: value[start:end],
    ) -> None:
        for name in wanted:
            if name not in layout.kinds:
                raise InvalidInput(f"feature {name!r} is not one of {', '.join(layout.names)}")
        self.layout = layout
        self.wanted = tuple(wanted)
        self._find = find
        self._opaque = opaque
        self._plans = {layout.fingerprint: _Plan(layout, layout, self.wanted, opaque)}

    def decode(self, value: bytes) -> list[Any]:
        """Values of the wanted features; None for a null and for one the row was written without."""
        plan = self._plans.get(value[:8]) or self._learn(value[:8])
        slots = plan.unpack(value, plan.nulls_end)
        found = list(plan.pick(slots))
        for position, slot, before, read in plan.variable:
            found[position] = read(value, slots[before] if before >= 0 else plan.fixed, slots[slot])
        if value[_HEADER : plan.nulls_end] != plan.no_nulls:
            bits = int.from_bytes(value[_HEADER : plan.nulls_end], "little")
            for position, slot in plan.sources:
                if bits >> slot & 1:
                    found[position] = None
        for position in plan.absent:
            found[position] = None
        return found

    def known(self, value: bytes) -> Sequence[str]:
        """Those of the wanted features that a row was written with."""
        plan = self._plans.get(value[:8]) or self._learn(value[:8])
        return [name for position, name in enumerate(self.wanted) if position not in plan.absent]

    def columns(self, values: Sequence[bytes]) -> dict[str, tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]]:
        """Rows as columns.

        Returns:
            By wanted feature: values [rows] (in the kind's NumPy type; objects for texts, bytes and
            lists) and where they are missing, bool [rows].
        """
        count = len(values)
        own = self.layout.fingerprint
        if any(value[:8] != own for value in values) or any(
            self.layout.kinds[name] not in _NUMBERS for name in self.wanted
        ):
            rows = [self.decode(value) for value in values]
            return {
                name: _column_of([row[position] for row in rows], self.layout.kinds[name])
                for position, name in enumerate(self.wanted)
            }
        fixed = self.layout.fixed
        held = np.frombuffer(b"".join([value[:fixed] for value in values]), self.layout.dtype, count)
        nulls = np.unpackbits(held["nulls"], axis=1, bitorder="little").astype(bool)
        slot_of = {name: slot for slot, name in enumerate(self.layout.names)}
        return {name: (held[str(slot_of[name])], nulls[:, slot_of[name]]) for name in self.wanted}

    def _learn(self, fingerprint: bytes) -> _Plan:
        written = self._find(fingerprint) or Layout(())
        plan = _Plan(written, self.layout, self.wanted, self._opaque)
        if written.features:
            self._plans[fingerprint] = plan
        return plan


class _Plan:
    """How to read the wanted features out of rows of one layout."""

    def __init__(self, written: Layout, current: Layout, wanted: Sequence[str], opaque: Reading) -> None:
        place = {name: slot for slot, name in enumerate(written.names)}
        self.fixed = written.fixed
        self.nulls_end = written.nulls_end
        self.no_nulls = bytes(written.nulls_end - _HEADER)
        self.unpack = written.slots.unpack_from
        self.absent = [
            position
            for position, name in enumerate(wanted)
            if written.kinds.get(name) not in (current.kinds[name], "opaque")
        ]
        self.sources = [
            (position, place[name]) for position, name in enumerate(wanted) if position not in self.absent
        ]
        variable = [slot for slot, (_, kind) in enumerate(written.features) if kind not in _NUMBERS]
        before = dict(zip(variable, [-1, *variable], strict=False))
        self.variable = [
            (position, slot, before[slot], _reading(written.features[slot][1], opaque))
            for position, slot in self.sources
            if slot in before
        ]
        source = dict(self.sources)
        self.pick = _picker([source.get(position, -1) for position in range(len(wanted))])


def _picker(slots: Sequence[int]) -> Callable[[tuple[Any, ...]], Sequence[Any]]:
    if -1 in slots:
        return lambda held: [None if slot < 0 else held[slot] for slot in slots]
    if len(slots) < 2:
        return lambda held: [held[slot] for slot in slots]
    return itemgetter(*slots)


def _slot(kind: str) -> str:
    return _NUMBERS[kind][0] if kind in _NUMBERS else "I"


def _reading(kind: str, opaque: Reading) -> Reading:
    if kind == "opaque":
        return opaque
    if kind == "string":
        return lambda value, start, end: value[start:end].decode()
    if kind == "bytes":
        return lambda value, start, end: value[start:end]
    if kind == "list:string":
        return _texts
    if kind == "list:bytes":
        return _byte_strings
    code: Any = _NUMBERS[kind.removeprefix("list:")][0]
    return lambda value, start, end: memoryview(value)[start:end].cast(code).tolist()


def _texts(value: bytes, start: int, end: int) -> list[str]:
    if start == end:
        return []
    if value[start] == _JOINED:
        return value[start + 1 : end].decode().split("\0")
    return [each.decode() for each in _counted(value, start + 1, end)]


def _byte_strings(value: bytes, start: int, end: int) -> list[bytes]:
    if start == end:
        return []
    if value[start] == _JOINED:
        return value[start + 1 : end].split(_SEPARATOR)
    return _counted(value, start + 1, end)


def _counted(value: bytes, start: int, end: int) -> list[bytes]:
    found = []
    while start < end:
        (length,) = _LENGTH.unpack_from(value, start)
        found.append(value[start + 4 : start + 4 + length])
        start += 4 + length
    return found


def _column(table: pa.Table, name: str, kind: str) -> pa.Array:
    if name not in table.column_names:
        raise InvalidInput(f"feature {name!r} is missing; the table has {', '.join(table.column_names)}")
    column = table[name].combine_chunks()
    if isinstance(column, pa.ChunkedArray):
        column = pa.concat_arrays(column.chunks)
    try:
        return column if column.type == arrow_type(kind) else column.cast(arrow_type(kind))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as failure:
        raise InvalidInput(f"feature {name!r} is {column.type}; accepted: {arrow_type(kind)}") from failure


def _numbers(column: pa.Array, kind: str) -> npt.NDArray[Any]:
    if kind == "timestamp":
        column = column.cast(pa.int64())
    if column.null_count:
        column = column.fill_null(False if kind == "bool" else 0)
    return np.asarray(column.to_numpy(zero_copy_only=False))


def _parts(column: pa.Array, name: str, kind: str) -> pa.Array:
    """The variable part of each row, as large_binary without nulls."""
    if kind in _TEXTS:
        held = column.cast(pa.large_string() if kind == "string" else pa.large_binary())
        return held.cast(pa.large_binary()).fill_null(b"")
    column = column.fill_null(pa.scalar([], column.type)) if column.null_count else column
    values = column.flatten()
    if values.null_count:
        raise InvalidInput(f"feature {name!r}: a list holds a null; accepted: lists of values")
    element = kind.removeprefix("list:")
    if element in _TEXTS:
        return _joined(column, values)
    if element == "bool":
        numbers = values.to_numpy(zero_copy_only=False).astype(np.uint8)
    else:
        numbers = _numbers(values, element)
    lengths = column.value_lengths().to_numpy().astype(np.int64)
    ends = np.concatenate([[0], np.cumsum(lengths)]) * numbers.dtype.itemsize
    data = np.ascontiguousarray(numbers)
    return pa.Array.from_buffers(
        pa.large_binary(), len(column), [None, pa.py_buffer(ends.astype(np.int64)), pa.py_buffer(data)]
    )


def _joined(column: pa.Array, values: pa.Array) -> pa.Array:
    plain = column.cast(pa.list_(pa.binary()))
    joined = pc.binary_join(plain, _SEPARATOR).cast(pa.large_binary())
    empty = pc.equal(column.value_lengths(), 0)
    tag = pa.scalar(bytes([_JOINED]), pa.large_binary())
    nothing = pa.scalar(b"", pa.large_binary())
    tagged = pc.binary_join_element_wise(tag, joined, nothing)
    parts = pc.if_else(empty, nothing, tagged)
    if not pc.any(pc.match_substring(values.cast(pa.binary()), _SEPARATOR)).as_py():
        return parts
    held = parts.to_pylist()
    for row, texts in enumerate(plain.to_pylist()):
        if any(_SEPARATOR in text for text in texts):
            counted = b"".join(_LENGTH.pack(len(text)) + text for text in texts)
            held[row] = bytes([_COUNTED]) + counted
    return pa.array(held, pa.large_binary())


def _offsets(column: pa.Array) -> npt.NDArray[np.int64]:
    """Offsets of a large_binary array, int64 [rows + 1]."""
    bounds = column.buffers()[1]
    if bounds is None:
        return np.zeros(1, np.int64)
    return np.frombuffer(bounds, np.int64)[column.offset : column.offset + len(column) + 1]


def _column_of(values: Sequence[Any], kind: str) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
    missing = np.array([value is None for value in values], bool)
    if kind in _NUMBERS:
        return np.array([0 if value is None else value for value in values], _NUMBERS[kind][1]), missing
    held = np.empty(len(values), object)
    held[:] = values
    return held, missing


_ELEMENTS = {*_NUMBERS, "string", "bytes"}
