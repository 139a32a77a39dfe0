"""The arithmetic that stream, batch and offline store share: exact in any order and on any machine.

Pure functions on NumPy and Arrow arrays. Whoever computes an aggregate uses these, so that equal events
give equal bits whichever way they came.
"""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from matinee.schema import LARGEST_VALUE, UNIT, Aggregate, Window

Integers = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]

DECAY_UNIT = 1 << 20
"""Decay weights are integers in this unit, so decayed sums don't depend on their order either."""
REGISTER_BITS = 12
"""A sketch has 2**12 registers: a standard error of 1.6% (1.04 / sqrt(4096))."""

_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


def units(values: npt.NDArray[np.float64]) -> Integers:
    """Values in millionths, magnitudes above LARGEST_VALUE cut to it; 0 for NaN."""
    held = np.clip(np.nan_to_num(values, nan=0.0), -LARGEST_VALUE, LARGEST_VALUE)
    return np.rint(held * UNIT).astype(np.int64)


def from_units(total: Integers) -> npt.NDArray[np.float64]:
    """The inverse of `units`, for sums, minima and maxima."""
    return total / UNIT


def mean(total: Integers, count: Integers) -> npt.NDArray[np.float64]:
    """Mean of `count` values whose units sum to `total`; NaN where there are none."""
    return np.where(count > 0, total / np.maximum(count, 1) / UNIT, np.nan)


def hop_us(window: Window) -> int:
    """Microseconds of a tile; 0 for windows that have none."""
    return window.hop // _MICROSECOND


def tiles(times: Integers, hop: int) -> Integers:
    """The tile of each time (microseconds); 0 for all where `hop` is 0 (unbounded)."""
    return times // hop if hop else np.zeros_like(times)


def first_tile(times: Integers, window: Window) -> Integers:
    """The earliest tile that a sliding window as of each time counts."""
    return np.asarray(times // hop_us(window) - (window.size // window.hop - 1))


def decay(age: Integers, aggregate: Aggregate) -> Integers:
    """Weights in DECAY_UNIT of tiles that are `age` tiles (0, 1, ...) older than the row's own."""
    weight = np.exp2(np.maximum(age, 0) * -(aggregate.window.hop / aggregate.half_life))
    return np.asarray(np.rint(weight * DECAY_UNIT), dtype=np.int64)


def stable_hash(texts: pa.Array | pa.ChunkedArray) -> Hashes:
    """64 bits of each text, the same everywhere and always (multiply and mix over 8-byte words).

    Args:
        texts: strings; a null hashes like the empty text.
    """
    array = texts.combine_chunks() if isinstance(texts, pa.ChunkedArray) else texts
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks)
    array = array.cast(pa.large_string()).fill_null("")
    n = len(array)
    _, offsets_buffer, data = array.buffers()
    offsets = np.frombuffer(offsets_buffer, np.int64)[array.offset : array.offset + n + 1]
    found = np.zeros(n, np.uint64)
    if not n:
        return found
    length = np.diff(offsets)
    raw = np.zeros(int(offsets[-1]) + 8, np.uint8)
    if data is not None:
        raw[: offsets[-1]] = np.frombuffer(data, np.uint8)[: offsets[-1]]
    lanes = np.arange(8)
    for word in range(-(-int(length.max(initial=0)) // 8)):
        rows = np.flatnonzero(length > 8 * word)
        at = offsets[rows] + 8 * word
        kept = lanes < (length[rows] - 8 * word)[:, None]
        block = np.where(kept, raw[at[:, None] + lanes], 0).astype(np.uint8)
        value = block.view("<u8").reshape(-1)
        found[rows] = mix((found[rows] ^ value) * _MULTIPLIER + np.uint64(word))
    return mix(found ^ (length.astype(np.uint64) * _MULTIPLIER))


def mix(values: Hashes) -> Hashes:
    """Spreads every bit over all 64 (the finaliser of SplitMix64, Steele et al. 2014)."""
    values = (values ^ (values >> np.uint64(30))) * _MIX_1
    values = (values ^ (values >> np.uint64(27))) * _MIX_2
    return values ^ (values >> np.uint64(31))


def registers(hashes: Hashes) -> tuple[Integers, Integers]:
    """The sketch register of each hash, and the rank (leading zeros of the other bits, plus one)."""
    register = (hashes >> np.uint64(64 - REGISTER_BITS)).astype(np.int64)
    rest = hashes << np.uint64(REGISTER_BITS)
    width = 64 - REGISTER_BITS
    # frexp is exact for the top 52 bits that `rest` keeps: its exponent is the place of the highest one.
    exponent = np.frexp((rest >> np.uint64(REGISTER_BITS)).astype(np.float64))[1]
    return register, (width - exponent + 1).astype(np.int64)


def cardinality(ranks: npt.NDArray[np.int64], group: Integers, groups: int) -> Integers:
    """Distinct values that sketches have seen, rounded (the improved estimator of Ertl 2017).

    Args:
        ranks: the non-zero registers of all sketches, one rank each.
        group: of each rank, the sketch it belongs to: 0 to groups - 1.
    """
    width = 64 - REGISTER_BITS
    m = float(1 << REGISTER_BITS)
    histogram = np.zeros((groups, width + 2))
    np.add.at(histogram, (group, ranks), 1)
    histogram[:, 0] = m - histogram[:, 1:].sum(axis=1)
    z = m * _tau(1 - histogram[:, width + 1] / m)
    for rank in range(width, 0, -1):
        z = 0.5 * (z + histogram[:, rank])
    z = z + m * _sigma(histogram[:, 0] / m)
    with np.errstate(divide="ignore"):
        estimate = m * m / (2 * np.log(2)) / z
    return np.rint(np.where(np.isfinite(estimate), estimate, 0)).astype(np.int64)


def _sigma(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The correction for registers that are still zero; infinite at 1 (an empty sketch)."""
    power, y, total = x.copy(), 1.0, x.copy()
    for _ in range(64):
        power = power * power
        total = total + power * y
        y = y + y
    return np.where(x >= 1, np.inf, total)


def _tau(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The correction for saturated registers."""
    power, y, total = x.copy(), 1.0, 1 - x
    for _ in range(64):
        power = np.sqrt(power)
        y = 0.5 * y
        total = total - (1 - power) ** 2 * y
    return np.where((x <= 0) | (x >= 1), 0.0, total / 3)


_MICROSECOND = timedelta(microseconds=1)
