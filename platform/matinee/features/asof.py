"""The point-in-time join: for each asked row the latest row of its keys at or before its time. Pure.

Keys become dense codes, a row's code and time are packed into one integer, and one sort and one search
answer all columns at once; the columns are gathered at the end. Knows nothing of files, Feast or Ray.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from matinee.errors import InvalidInput

TIME = "event_timestamp"
"""The column that says from when on a row holds."""

Ints = npt.NDArray[np.int64]
Codes = npt.NDArray[np.signedinteger[Any]]
"""int32 or int64."""

_NEVER = np.iinfo(np.int64).min
"""Stands for a null time: before every time there is."""
_SLICE = 1_000_000
"""Rows that one thread looks up at a time."""


def join(
    asked: pa.Table,
    rows: pa.Table,
    *,
    keys: Sequence[str],
    columns: Sequence[str],
    names: Sequence[str] | None = None,
    row_keys: Sequence[str] | None = None,
    time: str = TIME,
    row_time: str = TIME,
    created: str | None = None,
    ttl_us: int = 0,
    known: bool = False,
) -> pa.Table:
    """Values of `rows` as of each asked row.

    Args:
        asked: with `keys` and `time`; order and repetitions stay.
        rows: with `row_keys`, `row_time`, `created` and `columns`, in any order.
        names: what `columns` are called in the answer; None: the same.
        row_keys: what `keys` are called in `rows`, in the same order; None: the same.
        created, ttl_us, known: as `positions` takes them.

    Returns:
        `names` alone, aligned with `asked`; null where no row qualifies.

    Raises:
        InvalidInput: a time column or a key's type that cannot be compared.
    """
    at = positions(
        [asked[key] for key in keys],
        asked[time],
        [rows[key] for key in (keys if row_keys is None else row_keys)],
        rows[row_time],
        created=None if created is None else rows[created],
        ttl_us=ttl_us,
        known=known,
    )
    return gather(rows, at, columns=columns, names=names)


def positions(
    asked_keys: Sequence[pa.ChunkedArray],
    asked_time: pa.ChunkedArray,
    row_keys: Sequence[pa.ChunkedArray],
    row_time: pa.ChunkedArray,
    *,
    created: pa.ChunkedArray | None = None,
    ttl_us: int = 0,
    known: bool = False,
) -> Ints:
    """For each asked row the position of the latest row of equal keys at or before its time.

    Args:
        asked_keys: join keys, any number (none: every row is of the one key there is) and of any type.
        asked_time: timestamps of any unit (naive ones count as UTC) or int64 microseconds.
        row_keys: aligned with `asked_keys`.
        created: decides between rows of equal keys and time, the latest wins, then the last row; a null is
            the earliest.
        ttl_us: a row older than this many microseconds counts as missing; 0: none is too old.
        known: leave out rows with `created` after the asked time, or without one.

    Returns:
        int64 [asked rows], -1 where no row qualifies. A null key or time matches nothing.
    """
    count_asked, count_rows = len(asked_time), len(row_time)
    nothing = np.full(count_asked, -1, np.int64)
    if not count_asked or not count_rows:
        return nothing
    times = [asked_time, row_time] if created is None else [asked_time, row_time, created]
    ticks, per_us = _ticks(times)
    asked_ticks, row_ticks = ticks[0], ticks[1]
    made = ticks[2] if created is not None else None
    asked_codes, row_codes, count = _codes(asked_keys, row_keys, count_asked, count_rows)
    asked_codes[asked_ticks == _NEVER] = -1
    row_codes[row_ticks == _NEVER] = -1
    if known and made is not None:
        row_codes[made == _NEVER] = -1
    kept: npt.NDArray[np.intp] | None = None
    unwanted = row_codes < 0
    if row_time.null_count or 4 * np.count_nonzero(unwanted) > count_rows:
        kept = np.flatnonzero(~unwanted)
        if not len(kept):
            return nothing
        row_codes, row_ticks = row_codes[kept], row_ticks[kept]
        made = None if made is None else made[kept]
    else:
        row_codes[unwanted] = count  # few: a key that nobody asks for costs less than leaving them out
    search = _search_known if known and made is not None else _search
    found = search(asked_codes, asked_ticks, row_codes, row_ticks, made, count + 1)
    hit = found >= 0
    if ttl_us:
        hit &= asked_ticks - row_ticks[found] <= ttl_us * per_us
    if kept is not None:
        found = kept[found]
    return np.where(hit, found, -1)


def gather(
    rows: pa.Table, at: Ints, *, columns: Sequence[str], names: Sequence[str] | None = None
) -> pa.Table:
    """`columns` of the rows at positions `at`, called `names`; null where a position is -1."""
    labels = list(columns if names is None else names)
    if not rows.num_rows:
        fields = [pa.nulls(len(at), rows.schema.field(column).type) for column in columns]
        return pa.table(fields, names=labels)
    missing = at < 0
    picks = pa.array(at, mask=missing) if missing.any() else pa.array(at)
    with ThreadPoolExecutor(max(1, min(pa.cpu_count(), len(columns)))) as pool:
        taken = list(pool.map(lambda column: rows[column].take(picks), columns))
    return pa.table(taken, names=labels)


def _search(
    asked_codes: Codes, asked_ticks: Ints, row_codes: Codes, row_ticks: Ints, made: Ints | None, count: int
) -> Ints:
    """Position of the latest row at or before each asked time, of equal code; -1 where there is none."""
    asked_packed, packed, bits = _packed(asked_codes, asked_ticks, row_codes, row_ticks, count)
    order, ordered = _grouped(row_codes, packed, count)
    if not (ordered[1:] >= ordered[:-1]).all():
        again = np.argsort(ordered)
        order, ordered = order[again], ordered[again]
        _settle_ties(order, ordered, made)
    elif made is not None:
        _settle_ties(order, ordered, made)
    by_value = np.argsort(asked_packed)  # searching in order touches each part of `ordered` once
    sorted_asked = asked_packed[by_value]
    at = np.searchsorted(ordered, sorted_asked, side="right") - 1
    hit = (at >= 0) & (ordered[at] >> bits == sorted_asked >> bits)
    found = np.empty(len(asked_packed), np.int64)
    found[by_value] = np.where(hit, order[at], -1)
    return found


def _search_known(
    asked_codes: Codes, asked_ticks: Ints, row_codes: Codes, row_ticks: Ints, made: Ints | None, count: int
) -> Ints:
    """As `_search`, among the rows that were created by the asked time.

    A row can be seen from the later of its two times on. In the order in which a key's rows come into
    sight, the best row seen so far is a running maximum of ranks.
    """
    assert made is not None
    ranked = np.lexsort((made, row_ticks, row_codes))
    codes = row_codes[ranked]
    sight = np.maximum(row_ticks, made)[ranked]
    seen = np.lexsort((sight, codes))
    best = np.maximum.accumulate(seen)
    at = _search(asked_codes, asked_ticks, codes[seen], sight[seen], None, count)
    return np.where(at >= 0, ranked[best[at]], -1)


def _packed(
    asked_codes: Codes, asked_ticks: Ints, row_codes: Codes, row_ticks: Ints, count: int
) -> tuple[Ints, Ints, int]:
    """Code and time of asked rows and of rows, each in one int64, and the bits that the time takes.

    Asked rows that cannot match are -1. Where the bits do not suffice, times are replaced by their rank.
    """
    low, high = int(row_ticks.min()), int(row_ticks.max())
    bits = (high - low).bit_length()
    if bits + count.bit_length() <= 63:
        rows = row_ticks - low
        asked = np.minimum(asked_ticks, high) - low
        before = asked_ticks < low
    else:
        distinct, ranks = np.unique(row_ticks, return_inverse=True)
        rows = ranks.astype(np.int64, copy=False)
        asked = np.searchsorted(distinct, asked_ticks, side="right") - 1
        before = asked < 0
        bits = len(distinct).bit_length()
    packed = row_codes.astype(np.int64)
    packed <<= bits
    packed |= rows
    wide = asked_codes.astype(np.int64)
    return np.where(before | (wide < 0), -1, wide << bits | asked), packed, bits


def _grouped(codes: Codes, packed: Ints, count: int) -> tuple[Codes, Ints]:
    """Rows by code, otherwise in their order: their positions, and `packed` in that order."""
    from scipy.sparse import csc_array

    assert codes.min() >= 0
    assert codes.max() < count
    width = np.int32 if max(len(codes), count) < 2**31 - 1 else np.int64
    ends = np.arange(len(codes) + 1, dtype=width)
    columns = csc_array((packed, codes.astype(width, copy=False), ends), shape=(count, len(codes)))
    grouped = columns.tocsr()  # a counting sort
    return grouped.indices, grouped.data


def _settle_ties(order: Codes, ordered: Ints, made: Ints | None) -> None:
    """Put rows of equal key and time in the order (created, row), in place: the last one counts."""
    equal = ordered[1:] == ordered[:-1]
    if not equal.any():
        return
    tied = np.zeros(len(ordered), bool)
    tied[1:] = equal
    tied[:-1] |= equal
    at = np.flatnonzero(tied)
    rows = order[at]
    by = (rows, ordered[at]) if made is None else (rows, made[rows], ordered[at])
    order[at] = rows[np.lexsort(by)]


def _ticks(columns: Sequence[pa.ChunkedArray]) -> tuple[list[Ints], int]:
    """Times as integers of one unit, and how many of them make a microsecond; nulls are `_NEVER`.

    The unit is the microsecond, and the nanosecond where a column has times between microseconds.
    """
    read = [_time_values(column) for column in columns]
    fine = [unit == "ns" and bool((values % 1000 != 0)[values != _NEVER].any()) for values, unit in read]
    if not any(fine):
        return [_scaled(values, unit, up=False) for values, unit in read], 1
    return [_scaled(values, unit, up=True) for values, unit in read], 1000


def _scaled(values: Ints, unit: str, *, up: bool) -> Ints:
    if (unit == "ns") == up:
        return values
    if up:
        limit = np.iinfo(np.int64).max // 1000
        return np.where(values == _NEVER, _NEVER, np.clip(values, -limit, limit) * 1000)
    return np.where(values == _NEVER, _NEVER, values // 1000)


def _time_values(column: pa.ChunkedArray) -> tuple[Ints, str]:
    kind = column.type
    unit = "us"
    try:
        if pa.types.is_timestamp(kind) and kind.unit == "ns":
            unit = "ns"
        elif pa.types.is_timestamp(kind):
            column = column.cast(pa.timestamp("us", kind.tz))
        elif pa.types.is_date(kind):
            column = column.cast(pa.timestamp("us"))
        elif not pa.types.is_integer(kind) and not pa.types.is_null(kind):
            raise InvalidInput(f"times are {kind}; accepted: timestamps, dates, int64 microseconds")
        whole = column.cast(pa.int64())
    except pa.ArrowInvalid as failure:
        raise InvalidInput(f"times of type {kind}: {failure}") from failure
    values: Ints = (whole.fill_null(_NEVER) if whole.null_count else whole).to_numpy()
    return values, unit


def _codes(
    asked: Sequence[pa.ChunkedArray], rows: Sequence[pa.ChunkedArray], count_asked: int, count_rows: int
) -> tuple[Codes, Codes, int]:
    """Dense codes of the key combinations that are asked for, and how many there are.

    Returns:
        Codes of asked rows, codes of rows (int32 or int64), and their number. -1: a null key, or one that
        nobody asks for.
    """
    of_asked: Codes = np.zeros(count_asked, np.int32)
    of_rows: Codes = np.zeros(count_rows, np.int32)
    count = 1
    for position, (one, other) in enumerate(zip(asked, rows, strict=True)):
        codes, held, distinct = _column_codes(one, other)
        if not position:
            of_asked, of_rows, count = codes, held, distinct
            continue
        pair = _pairs(of_asked, codes, distinct)
        combinations = np.unique(pair[pair >= 0])
        known = pa.array(combinations)
        of_asked = _looked_up(pa.chunked_array([pair]), known)
        of_rows = _looked_up(pa.chunked_array([_pairs(of_rows, held, distinct)]), known)
        count = len(combinations)
    return of_asked, of_rows, max(count, 1)


def _pairs(first: Codes, second: Codes, count: int) -> Ints:
    pair = first.astype(np.int64) * count + second
    pair[(first < 0) | (second < 0)] = -1
    return pair


def comparable(asked: pa.ChunkedArray, held: pa.DataType) -> pa.ChunkedArray:
    """A key as it is asked for, in the type in which it is compared with rows that hold it as `held`.

    Whole numbers are compared as int64, text as text, whatever their width and encoding.

    Raises:
        InvalidInput: the two cannot be compared.
    """
    kind = _compared(held)
    plain = asked.cast(asked.type.value_type) if pa.types.is_dictionary(asked.type) else asked
    if plain.type == kind:
        return plain
    try:
        mixed = _is_text(plain.type) != _is_text(kind)
        if mixed and not pa.types.is_null(plain.type) and not pa.types.is_null(kind):
            raise pa.ArrowInvalid("text equals text alone")
        return plain.cast(kind)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as failure:
        raise InvalidInput(
            f"a join key is {asked.type} where it is asked for and {held} where rows are held: {failure}"
        ) from failure


def _compared(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_integer(kind):
        return pa.int64()
    return pa.large_string() if pa.types.is_string_view(kind) else kind


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _column_codes(asked: pa.ChunkedArray, rows: pa.ChunkedArray) -> tuple[Codes, Codes, int]:
    encoded = comparable(asked, rows.type).combine_chunks().dictionary_encode()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.unify_dictionaries().combine_chunks()
    values = encoded.dictionary
    codes: Codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int32)
    return codes, _looked_up(rows, values), len(values)


def _looked_up(column: pa.ChunkedArray, values: pa.Array) -> Codes:
    """Each value's position in `values`, -1 where it is null or not among them."""
    slices = [column.slice(start, _SLICE) for start in range(0, len(column), _SLICE)]
    with ThreadPoolExecutor(max(1, min(pa.cpu_count(), len(slices)))) as pool:
        found = list(pool.map(lambda part: _slice_codes(part, values), slices))
    return np.concatenate(found) if found else np.zeros(0, np.int32)


def _slice_codes(column: pa.ChunkedArray, values: pa.Array) -> Codes:
    if pa.types.is_dictionary(column.type):
        return np.concatenate([_dictionary_codes(chunk, values) for chunk in column.chunks])
    positions = pc.index_in(column.cast(values.type), value_set=values, skip_nulls=True)
    codes: Codes = positions.fill_null(-1).to_numpy()
    return codes


def _dictionary_codes(chunk: pa.DictionaryArray, values: pa.Array) -> Codes:
    known = np.append(_slice_codes(pa.chunked_array([chunk.dictionary]), values), np.int32(-1))
    indices: Codes = chunk.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    picked: Codes = known[indices]
    return picked
