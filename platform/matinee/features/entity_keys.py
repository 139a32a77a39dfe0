"""Entity keys as bytes, as Feast's serialization 3 makes them, on whole columns and without Feast."""

from __future__ import annotations

import struct

import pyarrow as pa
import pyarrow.compute as pc

from matinee.errors import InvalidInput
from matinee.features import packed

_STRING, _INT64 = 2, 4
"""Feast's numbers of these types."""


def entity_prefix(join_key: str) -> bytes:
    """How every entity key of one join key begins (Feast's serialization 3)."""
    name = join_key.encode()
    return struct.pack("<III", 1, _STRING, len(name)) + name


def text_key(prefix: bytes, value: str) -> bytes:
    """The entity key of a text."""
    text = value.encode()
    return prefix + struct.pack("<II", _STRING, len(text)) + text


def entity_keys(join_key: str, column: pa.ChunkedArray) -> list[bytes]:
    """The entity keys of a column, as `serialize_entity_key` makes them.

    Raises:
        InvalidInput: the column is neither text nor int64, or holds a null.
    """
    held = column.combine_chunks()
    if isinstance(held, pa.ChunkedArray):
        held = pa.concat_arrays(held.chunks)
    if held.null_count:
        raise InvalidInput(f"{join_key}: {held.null_count} keys are null")
    if pa.types.is_string(held.type) or pa.types.is_large_string(held.type):
        values = held.cast(pa.large_string()).cast(pa.large_binary())
        number = _STRING
    elif held.type == pa.int64():
        values = held.view(pa.binary(8)).cast(pa.large_binary())
        number = _INT64
    else:
        raise InvalidInput(f"{join_key} is {held.type}; accepted: string, int64")
    lengths = pc.binary_length(values).to_numpy().astype("<u4")
    sizes = pa.Array.from_buffers(pa.binary(4), len(held), [None, pa.py_buffer(lengths)])
    head = pa.scalar(entity_prefix(join_key) + struct.pack("<I", number), pa.large_binary())
    nothing = pa.scalar(b"", pa.large_binary())
    return packed.as_bytes(pc.binary_join_element_wise(head, sizes.cast(pa.large_binary()), values, nothing))
