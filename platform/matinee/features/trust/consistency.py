"""Whether what was served is what the lake says it should have been. Pure.

A served row has the time t of its key's newest event and the moment R of the read. The row is recomputed
as of t from the events that Matinee had when it was read, and compared feature by feature, to the bit.
That is not the same as recomputing from all events: one with an event time up to t that came after R
belongs into today's history and did not belong into the answer of that day. So:

- Events that arrived (`ingest_time`) after R are left out.
- Events that arrived in the `settle` before R may or may not have been applied when the row was read. The
  stream applies a partition in the order of its offsets, and a row's t says that an event of time t was
  applied; so the events that came before that one through its partition were applied too. A row for
  which this leaves doubt about an event up to t is set aside and counted as `unsettled`.
- Events newer than t don't take part: a row that lacks them is old, not wrong. Where such an event had
  arrived `settle` before the read, the row counts as `behind`: the figure beside the share that agrees.
- A read that found no row is wrong where the key had an event `settle` before, and says nothing where
  the key had none.
- A row whose t is no event of its key is wrong in every feature.

`ingest_time` must tell when Matinee took the event: the gateway and the stream stamp it by their clocks,
and `settle` has to cover their difference from the clocks of the serving processes. Events imported with an
older `ingest_time` of their own count as having been there all along.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from matinee.features.trust.served import READ_TIME, REQUEST_ID, TIME

Mask = npt.NDArray[np.bool_]
Integers = npt.NDArray[np.int64]

ROWS = pa.schema([pa.field("key", pa.string()), pa.field("time", pa.int64())])

EXAMPLES = 5
"""Most differing rows shown of a feature."""

AGREEMENT = pa.schema(
    [
        pa.field("feature", pa.string()),
        pa.field("compared", pa.int64()),
        pa.field("equal", pa.int64()),
        pa.field("share", pa.float64()),
        pa.field("examples", pa.string()),
    ]
)
"""A feature a row. `share`: equal / compared, null where nothing was compared. `examples`: JSON, a list of
{request_id, key, read_time, event_timestamp, served, recomputed, row}, times in microseconds; `row`:
"missing" where no row was served and events were there, "unexplained" where no event has the row's time,
else "there"."""


@dataclass(frozen=True, kw_only=True)
class Recomputer:
    """How a view's rows come out of events.

    Args:
        view: its name.
        key: the event column that names the entity.
        features: names compared.
        columns: event columns it needs, beside key, event_time, ingest_time, partition and offset.
        counted: the events that make rows of the view, of events of its keys.
        rows: called as (events, distinct rows of `ROWS`); a table with the key, the features and
            event_timestamp of the rows that exist, in any order.
    """

    view: str
    key: str
    features: Sequence[str]
    columns: Sequence[str]
    counted: Callable[[pa.Table], pa.Table]
    rows: Callable[[pa.Table, pa.Table], pa.Table]


@dataclass(frozen=True, kw_only=True)
class Standing:
    """What can be said of served rows, all bool [rows].

    Args:
        compared: the row can be held against the lake.
        unsettled: it cannot: an event may or may not have been applied.
        behind: an event newer than the row's had arrived long enough before the read.
        disturbed: an event up to the row's time arrived after the read.
        unexplained: the row is there and no event of its time is, or it is missing and events are.
        visible: int64 [rows], how many of the key's events, in the order of arrival, the read may have seen.
    """

    compared: Mask
    unsettled: Mask
    behind: Mask
    disturbed: Mask
    unexplained: Mask
    visible: Integers


@dataclass(frozen=True, kw_only=True)
class Consistency:
    """How one view's served rows compare.

    Args:
        rows: served rows looked at.
        compared: rows held against the lake.
        unsettled: rows set aside.
        behind: rows that lacked an event which had arrived.
        empty: reads that found no row where there was nothing to find.
        agreement: rows of `AGREEMENT`.
        newest: microseconds of the latest read looked at; None without rows.
    """

    view: str
    rows: int
    compared: int
    unsettled: int
    behind: int
    empty: int
    agreement: pa.Table
    newest: int | None = None


def compare(
    recomputer: Recomputer, served: pa.Table, events: pa.Table, *, settle_us: int, examples: int = EXAMPLES
) -> Consistency:
    """Hold served rows of one view against the lake's events of their keys.

    Args:
        served: rows of `served.schema`.
        events: every event of the keys in `served`, with the columns that `recomputer` needs.
        settle_us: microseconds after its arrival by which an event is sure to have been applied.
    """
    counted = recomputer.counted(events)
    found = standing(served, counted, key=recomputer.key, settle_us=settle_us)
    kept = pa.array(found.compared)
    rows = recompute(recomputer, served, events, counted, found).filter(kept)
    looked_at = served.filter(kept)
    features = [name for name in recomputer.features if name in served.column_names]
    empty = served.num_rows - int(found.compared.sum()) - int(found.unsettled.sum())
    return Consistency(
        view=recomputer.view,
        rows=served.num_rows,
        compared=looked_at.num_rows,
        unsettled=int(found.unsettled.sum()),
        behind=int(found.behind.sum()),
        empty=empty,
        agreement=agreement(
            looked_at,
            rows,
            features,
            key=recomputer.key,
            wrong=found.unexplained[found.compared],
            examples=examples,
        ),
        newest=int(_micros(served[READ_TIME]).max()) if served.num_rows else None,
    )


def standing(served: pa.Table, counted: pa.Table, *, key: str, settle_us: int) -> Standing:
    """What can be said of each served row, given the events that make rows of its view."""
    log = _Arrivals(counted, key)
    code = log.codes(served[key])
    there = _valid(served[TIME])
    time = np.where(there, _micros(served[TIME]), -1)
    read = _micros(served[READ_TIME])
    begin, end = log.bounds(code)
    settled = log.upto(code, read - settle_us)
    visible = log.upto(code, read)

    newest = log.latest_time(begin, settled)
    missing = ~there & (settled > begin)
    empty = ~there & (visible == begin)
    disturbed = there & (log.earliest_time(visible, end) <= time)
    behind = there & (newest > time)

    first = log.arrival(code, time)
    explained = there & (first <= read)
    doubted = _doubted(log, time, settled, visible, witnessed=first <= read - settle_us)
    unsettled = (there & doubted) | (~there & ~missing & ~empty)
    return Standing(
        compared=(there & ~unsettled) | missing,
        unsettled=unsettled,
        behind=behind,
        disturbed=disturbed,
        unexplained=missing | (there & ~explained),
        visible=visible - begin,
    )


def recompute(
    recomputer: Recomputer, served: pa.Table, events: pa.Table, counted: pa.Table, found: Standing
) -> pa.Table:
    """The features of each served row as of its time, from the events it may have seen.

    Returns:
        The features alone, aligned with `served`; null where the lake has no such row, and in rows that
        are not `compared`.
    """
    wanted = found.compared & ~found.unexplained
    time = np.where(wanted, _micros(served[TIME]), 0)
    number = np.arange(served.num_rows)
    asked = pl.DataFrame(
        {
            "key": pl.Series(pl.from_arrow(served[recomputer.key])),
            "time": time,
            "visible": np.where(found.disturbed, found.visible, -1),
            "number": number,
        }
    ).filter(pl.Series(wanted))
    classes = asked.select("key", "time", "visible").unique(maintain_order=True)
    classes = classes.with_columns(
        round=pl.when(pl.col("visible") < 0)
        .then(0)
        .otherwise(1 + pl.int_range(pl.len()).over("key", pl.col("visible") < 0))
    )
    names = [name for name in recomputer.features if name in served.column_names]
    results: list[pl.DataFrame] = []
    for each in sorted(classes["round"].unique().to_list()):
        part = classes.filter(pl.col("round") == each)
        seen = events if each == 0 else _seen(events, counted, recomputer.key, part)
        rows = part.select("key", "time").to_arrow().cast(ROWS)
        computed = recomputer.rows(seen, rows)
        frame = pl.DataFrame(pl.from_arrow(computed.select([recomputer.key, *names])))
        frame = frame.rename({recomputer.key: "key"}).with_columns(time=_micros(computed[TIME]))
        results.append(part.join(frame, on=["key", "time"], how="left"))
    if not results:
        return served.select(names).schema.empty_table().take(pa.nulls(served.num_rows, pa.int64()))
    answer = pl.concat(results).drop("round")
    aligned = asked.join(answer, on=["key", "time", "visible"], how="left", maintain_order="left")
    placed = pl.DataFrame({"number": number}).join(
        aligned.select("number", *names), on="number", how="left", maintain_order="left"
    )
    schema = pa.schema([served.schema.field(name) for name in names])
    return placed.select(names).to_arrow().cast(schema)


def agreement(
    served: pa.Table,
    recomputed: pa.Table,
    features: Sequence[str],
    *,
    key: str,
    wrong: Mask | None = None,
    examples: int = EXAMPLES,
) -> pa.Table:
    """Per feature, how many served values equal the recomputed ones.

    Floats must be equal to the bit (NaN equals NaN). A missing list and an empty one are equal: the online
    store cannot tell them apart.

    Args:
        served: rows of `served.schema`.
        recomputed: the features, aligned with `served`.
        wrong: bool [rows], rows that differ whatever their values are; None: there are none.

    Returns:
        Rows of `AGREEMENT`, in the order of `features`.
    """
    whole = np.zeros(served.num_rows, dtype=bool) if wrong is None else wrong
    rows = []
    for name in features:
        same = equal(served[name], recomputed[name]) & ~whole
        differing = np.flatnonzero(~same)[:examples]
        shown = [
            {
                "request_id": served[REQUEST_ID][i].as_py(),
                "key": served[key][i].as_py(),
                "read_time": served[READ_TIME][i].value,
                "event_timestamp": served[TIME][i].value,
                "served": _shown(served[name][i].as_py()),
                "recomputed": _shown(recomputed[name][i].as_py()),
                "row": "there" if not whole[i] else "unexplained" if served[TIME][i].is_valid else "missing",
            }
            for i in differing.tolist()
        ]
        rows.append(
            {
                "feature": name,
                "compared": len(same),
                "equal": int(same.sum()),
                "share": float(same.mean()) if len(same) else None,
                "examples": json.dumps(shown),
            }
        )
    return pa.Table.from_pylist(rows, schema=AGREEMENT)


def equal(left: pa.ChunkedArray, right: pa.ChunkedArray) -> Mask:
    """Row by row, whether two columns of one type hold the same, bool [rows]."""
    if pa.types.is_list(left.type) or pa.types.is_large_list(left.type):
        return _equal_lists(left, right)
    a, b = _normal(left), _normal(right)
    same = pc.fill_null(pc.equal(a, b), False)
    both = pc.and_(pc.is_null(a), pc.is_null(b))
    return np.asarray(pc.or_(same, both).to_numpy(zero_copy_only=False), dtype=bool)


def _equal_lists(left: pa.ChunkedArray, right: pa.ChunkedArray) -> Mask:
    a, b = _lengths(left), _lengths(right)
    same = a == b
    at = np.flatnonzero(same)
    chosen = pa.array(at)
    x = pc.list_flatten(left.take(chosen))
    y = pc.list_flatten(right.take(chosen))
    wrong = ~equal(_chunked(x), _chunked(y))
    row = np.repeat(np.arange(len(at)), a[at])
    same[at] = np.bincount(row[wrong], minlength=len(at)) == 0
    return np.asarray(same, dtype=bool)


def _lengths(column: pa.ChunkedArray) -> Integers:
    return np.asarray(pc.fill_null(pc.list_value_length(column), 0).to_numpy(), dtype=np.int64)


def _chunked(column: pa.Array | pa.ChunkedArray) -> pa.ChunkedArray:
    return column if isinstance(column, pa.ChunkedArray) else pa.chunked_array([column])


def _normal(column: pa.ChunkedArray) -> pa.Array:
    """One array; NaN as null."""
    array = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    if pa.types.is_floating(array.type):
        return pc.if_else(pc.is_nan(array), None, array)
    return array


def _shown(value: Any) -> Any:
    """A value for an example: of a long list its last ten items."""
    return ["…", *value[-10:]] if isinstance(value, list) and len(value) > 10 else value


class _Arrivals:
    """Events of keys in the order of their arrival within each key."""

    def __init__(self, events: pa.Table, key: str) -> None:
        encoded = _one(events[key]).dictionary_encode()
        self._keys = encoded.dictionary
        code = encoded.indices.to_numpy().astype(np.int64)
        ingest = _micros(events["ingest_time"])
        order = np.lexsort((_integers(events["offset"]), ingest, code))
        self.code = code[order]
        self.ingest = ingest[order]
        self.time = _micros(events["event_time"])[order]
        self.partition = _integers(events["partition"])[order]
        self.offset = _integers(events["offset"])[order]
        self._moments = np.unique(self.ingest)
        self._times = np.unique(self.time)
        self._packed = (self.code << 32) | (np.searchsorted(self._moments, self.ingest) + 1)
        rank = (self.code << 32) | np.searchsorted(self._times, self.time)
        self._highest = np.maximum.accumulate(rank) if len(rank) else rank
        self._lowest = np.minimum.accumulate(rank[::-1])[::-1] if len(rank) else rank
        by_time = np.lexsort((self.ingest, self.time, self.code))
        self._by_time = rank[by_time]
        self._by_time_ingest = self.ingest[by_time]

    def codes(self, keys: pa.ChunkedArray) -> Integers:
        """The code of each key; -1 where it has no event."""
        found = pc.fill_null(pc.index_in(_one(keys), value_set=self._keys), -1)
        return np.asarray(found.to_numpy(), dtype=np.int64)

    def bounds(self, code: Integers) -> tuple[Integers, Integers]:
        """Positions of the first event of each key and after its last; equal for code -1."""
        begin = np.searchsorted(self.code, code, "left")
        return begin, np.where(code < 0, begin, np.searchsorted(self.code, code, "right"))

    def upto(self, code: Integers, moment: Integers) -> Integers:
        """Position after the last event of each key that arrived up to a moment."""
        packed = (np.maximum(code, 0) << 32) | np.searchsorted(self._moments, moment, "right")
        return np.where(code < 0, 0, np.searchsorted(self._packed, packed, "right"))

    def latest_time(self, begin: Integers, stop: Integers) -> Integers:
        """The latest event time among [begin, stop), which starts a key; -1 where there is none."""
        return self._ranked(self._highest, stop - 1, stop > begin, -1)

    def earliest_time(self, start: Integers, end: Integers) -> Integers:
        """The earliest event time among [start, end), which ends a key; the largest where there is none."""
        return self._ranked(self._lowest, start, start < end, np.iinfo(np.int64).max)

    def arrival(self, code: Integers, time: Integers) -> Integers:
        """When the first event of each key with exactly this event time arrived; the largest without one."""
        place = np.searchsorted(self._times, time)
        inside = (place < len(self._times)) & (code >= 0)
        exact = inside.copy()
        exact[inside] = self._times[place[inside]] == time[inside]
        rank = (np.maximum(code, 0) << 32) | place
        at = np.searchsorted(self._by_time, rank, "left")
        exact &= at < len(self._by_time)
        exact[exact] = self._by_time[at[exact]] == rank[exact]
        answer = np.full(len(code), np.iinfo(np.int64).max)
        answer[exact] = self._by_time_ingest[at[exact]]
        return answer

    def _ranked(self, ranks: Integers, at: Integers, there: Mask, otherwise: int) -> Integers:
        answer = np.full(len(at), otherwise, dtype=np.int64)
        answer[there] = self._times[ranks[at[there]] & 0xFFFFFFFF]
        return answer


def _doubted(
    log: _Arrivals, time: Integers, settled: Integers, visible: Integers, *, witnessed: Mask
) -> Mask:
    """Rows with an event up to their time that may or may not have been applied.

    Args:
        settled, visible: the events of [settled, visible) had arrived shortly before the read.
        witnessed: an event of the row's own time had arrived before those.
    """
    count = visible - settled
    row = np.repeat(np.arange(len(count)), count)
    at = np.arange(count.sum()) + np.repeat(settled - np.concatenate([[0], np.cumsum(count)[:-1]]), count)
    upto = log.time[at] <= time[row]
    row, at = row[upto], at[upto]

    own = (log.time[at] == time[row]) & ~witnessed[row]
    rows = len(count)
    highest, lowest = np.full(rows, -1), np.full(rows, np.iinfo(np.int64).max)
    offset, ingest = lowest.copy(), lowest.copy()
    np.maximum.at(highest, row[own], log.partition[at[own]])
    np.minimum.at(lowest, row[own], log.partition[at[own]])
    np.minimum.at(offset, row[own], log.offset[at[own]])
    np.minimum.at(ingest, row[own], log.ingest[at[own]])
    one = highest == lowest
    applied = (
        one[row]
        & (log.partition[at] == highest[row])
        & (log.offset[at] <= offset[row])
        & (log.ingest[at] <= ingest[row])
    )
    doubted = np.zeros(rows, dtype=bool)
    doubted[row[~applied]] = True
    return doubted


def _seen(events: pa.Table, counted: pa.Table, key: str, part: pl.DataFrame) -> pa.Table:
    """Of the keys in `part`, once each, the events that arrived with the first `visible` counted ones."""
    arrived = pl.DataFrame(
        {
            "key": pl.Series(pl.from_arrow(counted[key])),
            "ingest": _micros(counted["ingest_time"]),
            "offset": _integers(counted["offset"]),
        }
    ).sort("key", "ingest", "offset")
    arrived = arrived.with_columns(number=pl.int_range(pl.len()).over("key"))
    limits = (
        part.select("key", "visible").join(arrived, on="key").filter(pl.col("number") == pl.col("visible"))
    )
    first_hidden = dict(zip(limits["key"].to_list(), limits["ingest"].to_list(), strict=True))
    keys = _one(events[key])
    names = pa.array(list(first_hidden), pa.string())
    place = pc.index_in(keys, value_set=names)
    hidden_from = np.array(list(first_hidden.values()), dtype=np.int64)
    index = pc.fill_null(place, -1).to_numpy()
    kept = index >= 0
    kept[kept] = _micros(events["ingest_time"])[kept] < hidden_from[index[kept]]
    return events.filter(pa.array(kept))


def _one(column: pa.ChunkedArray) -> pa.Array:
    text = column.cast(pa.string())
    return pa.concat_arrays(text.chunks) if text.num_chunks else pa.array([], pa.string())


def _micros(column: pa.ChunkedArray) -> Integers:
    """Microseconds; 0 for a null."""
    return np.asarray(pc.fill_null(column.cast(pa.int64()), 0).to_numpy(), dtype=np.int64)


def _integers(column: pa.ChunkedArray) -> Integers:
    return np.asarray(column.to_numpy(), dtype=np.int64)


def _valid(column: pa.ChunkedArray) -> Mask:
    return np.asarray(column.is_valid().to_numpy(), dtype=bool)
