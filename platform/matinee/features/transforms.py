"""What the features are: pure functions from watches to rows, the same for the stream and the batch.

Every transform has the form `f(watches, rows, ...) -> table`. `watches` (WATCH_SCHEMA) holds the whole
watch history of the keys that `rows` names; `rows` (ROW_SCHEMA) says for which key and as of which moment
a feature row is wanted. A row sees the watches of its key with time <= its own and no others, so the
stream's latest row, the batch's latest row and the batch's history are the same computation asked for
different rows. Watches are put in the canonical order (time, partition, offset, event_id) here: the order
in which they are passed never matters, and equal watches give equal bits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from matinee.schema import TIMESTAMP, WATCH_TYPES, EventType

HOUR = 3_600_000_000
DAY = 24 * HOUR
HALF_LIFE = 30 * DAY
"""Microseconds after which a watch counts half in a member's genre affinity."""

LAST_TITLES = 50
"""Most titles of `last_title_ids`."""

STAR_UNITS = 1_000_000
"""Ratings are summed in millionths of a star, as integers: a mean does not depend on summation order."""

WATCH_SCHEMA = pa.schema(
    [
        pa.field("member_id", pa.string()),
        pa.field("title_id", pa.string()),
        pa.field("time", pa.int64()),
        pa.field("partition", pa.int32()),
        pa.field("offset", pa.int64()),
        pa.field("event_id", pa.string()),
        pa.field("stars", pa.float64()),
    ]
)
"""A watch: `time` in microseconds, `stars` null where the event was not a rating."""

WATCH_COLUMNS = ("event_id", "type", "member_id", "title_id", "event_time", "value", "partition", "offset")
"""The columns of an event that features read."""

ROW_SCHEMA = pa.schema([pa.field("key", pa.string()), pa.field("time", pa.int64())])

MEMBER_ACTIVITY = pa.schema(
    [
        pa.field("member_id", pa.string()),
        pa.field("plays_1h", pa.int64()),
        pa.field("plays_24h", pa.int64()),
        pa.field("plays_7d", pa.int64()),
        pa.field("last_title_ids", pa.list_(pa.string())),
        pa.field("last_event_time", pa.int64()),
        pa.field("event_timestamp", TIMESTAMP),
    ]
)
MEMBER_WATCHED = pa.schema(
    [
        pa.field("member_id", pa.string()),
        pa.field("watched_title_ids", pa.list_(pa.string())),
        pa.field("watched_times", pa.list_(pa.int64())),
        pa.field("event_timestamp", TIMESTAMP),
    ]
)
MEMBER_AFFINITY = pa.schema(
    [
        pa.field("member_id", pa.string()),
        pa.field("genres", pa.list_(pa.string())),
        pa.field("affinity", pa.list_(pa.float64())),
        pa.field("event_timestamp", TIMESTAMP),
    ]
)
TITLE_POPULARITY = pa.schema(
    [
        pa.field("title_id", pa.string()),
        pa.field("plays_1d", pa.int64()),
        pa.field("plays_7d", pa.int64()),
        pa.field("plays_30d", pa.int64()),
        pa.field("plays_all", pa.int64()),
        pa.field("rating_mean_30d", pa.float64()),
        pa.field("rating_mean_all", pa.float64()),
        pa.field("ratings_all", pa.int64()),
        pa.field("event_timestamp", TIMESTAMP),
    ]
)
TITLE_CONTENT = pa.schema(
    [
        pa.field("title_id", pa.string()),
        pa.field("release_year", pa.int64()),
        pa.field("maturity", pa.int64()),
        pa.field("genre_count", pa.int64()),
        pa.field("cast_count", pa.int64()),
        pa.field("keyword_count", pa.int64()),
        pa.field("event_timestamp", TIMESTAMP),
    ]
)

Genres = Mapping[str, Sequence[str]]
"""Title id to its genres; a title that is missing has none."""

Positions = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class View:
    """A feature view that events change.

    Args:
        name: as declared in the feature repository.
        key: the event column that names the entity, and the entity's join key.
        schema: of the rows.
        watches_only: True where only watches make a new row; else every event of the key does.
        history: True where the batch keeps a row for every distinct event time of a key, False where it
            keeps the latest alone (the value is a log: each row would repeat all before it).
        transform: called as (watches, rows, genres).
    """

    name: str
    key: str
    schema: pa.Schema
    watches_only: bool
    history: bool
    transform: Callable[[pa.Table, pa.Table, Genres], pa.Table]


def watches_of(events: pa.Table) -> pa.Table:
    """The watches among events that carry at least WATCH_COLUMNS."""
    kept = events.filter(pc.is_in(events["type"], value_set=pa.array(list(map(str, WATCH_TYPES)))))
    rated = pc.equal(kept["type"], str(EventType.RATE))
    return pa.table(
        [
            kept["member_id"],
            kept["title_id"],
            kept["event_time"].cast(pa.int64()),
            kept["partition"],
            kept["offset"],
            kept["event_id"],
            pc.if_else(rated, kept["value"], pa.scalar(None, pa.float64())),
        ],
        schema=WATCH_SCHEMA,
    ).combine_chunks()


def rows_of(events: pa.Table, view: View, *, latest: bool) -> pa.Table:
    """The (key, time) pairs at which `view` has rows, given all events (WATCH_COLUMNS) of those keys.

    Args:
        events: any order.
        latest: one row per key, its last; else one per distinct (key, event time).
    """
    frame = pl.DataFrame(pl.from_arrow(events.select(["type", view.key, "event_time"])))
    if view.watches_only:
        frame = frame.filter(pl.col("type").is_in(list(map(str, WATCH_TYPES))))
    frame = frame.select(key=pl.col(view.key), time=pl.col("event_time").cast(pl.Int64))
    frame = frame.group_by("key").agg(pl.col("time").max()) if latest else frame.unique()
    return frame.sort("key", "time").to_arrow().cast(ROW_SCHEMA)


def member_activity(watches: pa.Table, rows: pa.Table, genres: Genres) -> pa.Table:
    """Distinct titles watched in (t-w, t] for three windows, and the last titles, oldest first."""
    log = _Log(watches, "member_id", "title_id")
    asked = _Asked(rows, log)
    listed = _last_titles(log, asked)
    return pa.table(
        [
            asked.keys,
            pa.array(log.distinct_within(HOUR, asked)),
            pa.array(log.distinct_within(DAY, asked)),
            pa.array(log.distinct_within(7 * DAY, asked)),
            listed,
            pa.array(asked.time),
            asked.timestamps(),
        ],
        schema=MEMBER_ACTIVITY,
    )


def member_watched(watches: pa.Table, rows: pa.Table, genres: Genres) -> pa.Table:
    """Every distinct title in the order first watched, with the time of that first watch."""
    log = _Log(watches, "member_id", "title_id")
    asked = _Asked(rows, log)
    first = np.flatnonzero(log.previous < 0)
    counted = _Counter(log.key[first], log.time[first])
    begin, end = counted.begin(asked.code), counted.upto(asked.code, asked.time)
    picked, offsets = _ranges(begin, end)
    return pa.table(
        [
            asked.keys,
            _strings(offsets, log.others, log.other[first][picked]),
            pa.ListArray.from_arrays(offsets, pa.array(log.time[first][picked])),
            asked.timestamps(),
        ],
        schema=MEMBER_WATCHED,
    )


def member_affinity(watches: pa.Table, rows: pa.Table, genres: Genres) -> pa.Table:
    """Per genre, the sum of w * 2**-((t - ti) / HALF_LIFE) over watches; w is stars / 5, or 1 unrated.

    A title's weight is split evenly over its genres. Genres the member never watched are left out.
    """
    log = _Log(watches, "member_id", "title_id")
    asked = _Asked(rows, log)
    names = sorted({genre for title in log.others.to_pylist() for genre in genres.get(title, ())})
    place = {name: i for i, name in enumerate(names)}
    of_title = [sorted(place[genre] for genre in set(genres.get(t, ()))) for t in log.others.to_pylist()]
    count = np.array([len(each) for each in of_title], dtype=np.int64)
    flat = np.array([genre for each in of_title for genre in each], dtype=np.int64)
    starts = np.concatenate([[0], np.cumsum(count)]).astype(np.int64)

    origin = np.zeros(len(log.keys), dtype=np.int64)
    head = np.flatnonzero(np.diff(log.key, prepend=-1))
    origin[log.key[head]] = log.time[head]
    per_watch = count[log.other]
    weight = np.where(np.isnan(log.stars), 1.0, log.stars / 5.0) / np.maximum(per_watch, 1)
    grown = weight * np.exp2((log.time - origin[log.key]) / HALF_LIFE)

    member = np.repeat(log.key, per_watch)
    genre = flat[_ranges(starts[log.other], starts[log.other + 1])[0]] if len(log.other) else flat[:0]
    pairs = pl.DataFrame(
        {
            "member": member,
            "genre": genre,
            "time": np.repeat(log.time, per_watch),
            "grown": np.repeat(grown, per_watch),
        }
    ).sort("member", "genre", maintain_order=True)
    pairs = pairs.with_columns(total=pl.col("grown").cum_sum().over("member", "genre"))
    pair = pairs["member"].to_numpy() * max(len(names), 1) + pairs["genre"].to_numpy()
    groups, group = np.unique(pair, return_inverse=True)
    counter = _Counter(group, pairs["time"].to_numpy())

    owner = groups // max(len(names), 1)
    begin, end = np.searchsorted(owner, asked.code, "left"), np.searchsorted(owner, asked.code, "right")
    begin, end = np.where(asked.code < 0, 0, begin), np.where(asked.code < 0, 0, end)
    wanted, offsets = _ranges(begin, end)
    row = np.repeat(np.arange(len(asked.code)), end - begin)
    last = counter.upto(wanted, asked.time[row])
    known = last > counter.begin(wanted)
    row, wanted, last = row[known], wanted[known], last[known]
    faded = np.exp2((asked.time[row] - origin[asked.code[row]]) / -HALF_LIFE)
    value = pairs["total"].to_numpy()[last - 1] * faded
    offsets = pa.array(np.searchsorted(row, np.arange(len(asked.code) + 1)), pa.int32())
    return pa.table(
        [
            asked.keys,
            _strings(offsets, pa.array(names, pa.string()), groups[wanted] % max(len(names), 1)),
            pa.ListArray.from_arrays(offsets, pa.array(value)),
            asked.timestamps(),
        ],
        schema=MEMBER_AFFINITY,
    )


def title_popularity(watches: pa.Table, rows: pa.Table, genres: Genres) -> pa.Table:
    """Distinct members who watched in (t-w, t] and ever; mean of ratings in 30 days and ever."""
    log = _Log(watches, "title_id", "member_id")
    asked = _Asked(rows, log)
    rated = np.flatnonzero(~np.isnan(log.stars))
    counter = _Counter(log.key[rated], log.time[rated])
    units = np.rint(log.stars[rated] * STAR_UNITS).astype(np.int64)
    total = np.concatenate([[0], np.cumsum(units)])
    begin, end = counter.begin(asked.code), counter.upto(asked.code, asked.time)
    recent = counter.upto(asked.code, asked.time - 30 * DAY)
    first = np.flatnonzero(log.previous < 0)
    ever = _Counter(log.key[first], log.time[first])
    return pa.table(
        [
            asked.keys,
            pa.array(log.distinct_within(DAY, asked)),
            pa.array(log.distinct_within(7 * DAY, asked)),
            pa.array(log.distinct_within(30 * DAY, asked)),
            pa.array(ever.upto(asked.code, asked.time) - ever.begin(asked.code)),
            _mean(total[end] - total[recent], end - recent),
            _mean(total[end] - total[begin], end - begin),
            pa.array(end - begin),
            asked.timestamps(),
        ],
        schema=TITLE_POPULARITY,
    )


def title_content(catalogue: pa.Table, time: int) -> pa.Table:
    """What the catalogue says of each title (`schema.CATALOGUE_SCHEMA`), as rows of `time`."""
    lengths = [
        pc.list_value_length(catalogue[name]).cast(pa.int64()) for name in ("genres", "cast", "keywords")
    ]
    return pa.table(
        [
            catalogue["title_id"],
            pc.year(catalogue["release_date"]),
            catalogue["maturity"].cast(pa.int64()),
            *lengths,
            pa.array(np.full(catalogue.num_rows, time)).cast(TIMESTAMP),
        ],
        schema=TITLE_CONTENT,
    )


VIEWS: Mapping[str, View] = {
    view.name: view
    for view in (
        View(
            name="member_watched",
            key="member_id",
            schema=MEMBER_WATCHED,
            watches_only=True,
            history=False,
            transform=member_watched,
        ),
        View(
            name="member_affinity",
            key="member_id",
            schema=MEMBER_AFFINITY,
            watches_only=True,
            history=True,
            transform=member_affinity,
        ),
        View(
            name="title_popularity",
            key="title_id",
            schema=TITLE_POPULARITY,
            watches_only=True,
            history=True,
            transform=title_popularity,
        ),
        View(
            name="member_activity",
            key="member_id",
            schema=MEMBER_ACTIVITY,
            watches_only=False,
            history=True,
            transform=member_activity,
        ),
    )
}
"""The views that events change, by name. `title_content` comes from the catalogue instead.

They are published in this order: who sees an event in member_activity sees it in every view.
"""


class _Log:
    """Watches in canonical order within each key, as codes into the vocabularies `keys` and `others`."""

    def __init__(self, watches: pa.Table, key: str, other: str) -> None:
        frame = pl.DataFrame(pl.from_arrow(watches))
        frame = frame.sort("time", "partition", "offset", "event_id")
        key_codes, self.keys = _encode(frame[key])
        other_codes, self.others = _encode(frame[other])
        order = np.argsort(key_codes, kind="stable")
        self.key = key_codes[order]
        self.other = other_codes[order]
        self.time: Positions = frame["time"].to_numpy()[order].astype(np.int64)
        self.stars: npt.NDArray[np.float64] = frame["stars"].fill_null(float("nan")).to_numpy()[order]
        self.previous, self.following = self._neighbours()

    def _neighbours(self) -> tuple[Positions, Positions]:
        """Per watch, where the same key's watch of the same other comes before and after it; -1: none."""
        n = len(self.key)
        pair = self.key * max(len(self.others), 1) + self.other
        order = np.argsort(pair, kind="stable")
        same = pair[order][1:] == pair[order][:-1]
        previous, following = np.full(n, -1), np.full(n, -1)
        previous[order[1:][same]] = order[:-1][same]
        following[order[:-1][same]] = order[1:][same]
        return previous, following

    def distinct_within(self, window: int, asked: _Asked) -> Positions:
        """Per asked row, how many distinct others its key has in (t - window, t].

        An other counts at t when t lies in the union of [ti, ti + window) over its watches: the starts
        of that union's pieces up to t, less their ends.
        """
        time, before, after = self.time, self.previous, self.following
        starts = (before < 0) | (time[before] + window <= time)
        ends = (after < 0) | (time[after] >= time + window)
        begun = _Counter(self.key[starts], time[starts])
        over = _Counter(*_by_key(self.key[ends], time[ends] + window))
        return begun.count(asked.code, asked.time) - over.count(asked.code, asked.time)


class _Asked:
    """The rows wanted: `code` is the key's position in the log's vocabulary, -1 where it has no watch."""

    def __init__(self, rows: pa.Table, log: _Log) -> None:
        self.keys = rows["key"]
        self.time: Positions = rows["time"].to_numpy()
        self.code: Positions = (
            pc.fill_null(pc.index_in(rows["key"], log.keys), -1).to_numpy().astype(np.int64)
        )

    def timestamps(self) -> pa.Array:
        return pa.array(self.time).cast(TIMESTAMP)


class _Counter:
    """Counts items of a key up to a moment. Items come sorted by (key, time)."""

    def __init__(self, key: Positions, time: Positions) -> None:
        self._times = np.unique(time)
        self._key = key
        self._packed = (key << 32) | (np.searchsorted(self._times, time) + 1)

    def begin(self, key: Positions) -> Positions:
        """Position of the key's first item; 0 for key -1."""
        return np.asarray(np.searchsorted(self._key, key, "left"))

    def upto(self, key: Positions, time: Positions) -> Positions:
        """Position just after the key's last item with time <= `time`; 0 for key -1."""
        packed = (key << 32) | np.searchsorted(self._times, time, "right")
        return np.where(key < 0, 0, np.searchsorted(self._packed, packed, "right"))

    def count(self, key: Positions, time: Positions) -> Positions:
        return self.upto(key, time) - self.begin(key)


def _last_titles(log: _Log, asked: _Asked) -> pa.Array:
    """Per asked row, its key's LAST_TITLES latest distinct others, each at its latest watch."""
    counter = _Counter(log.key, log.time)
    begin, end = counter.begin(asked.code), counter.upto(asked.code, asked.time)
    lists: list[list[int]] = [[]] * len(begin)
    other = log.other.tolist()
    code, done = -1, 0
    held: dict[int, None] = {}
    for row in np.lexsort((end, asked.code)).tolist():
        if asked.code[row] < 0:
            continue
        if asked.code[row] != code:
            code, done, held = int(asked.code[row]), int(begin[row]), {}
        for watched in other[done : end[row]]:
            held.pop(watched, None)
            held[watched] = None
        done = int(end[row])
        lists[row] = list(islice(reversed(held), LAST_TITLES))[::-1]
    offsets = np.concatenate([[0], np.cumsum([len(each) for each in lists])])
    flat = np.array([watched for each in lists for watched in each], dtype=np.int64)
    return _strings(pa.array(offsets, pa.int32()), log.others, flat)


def _mean(units: Positions, count: Positions) -> pa.Array:
    return pa.array(units / np.maximum(count, 1) / STAR_UNITS, mask=count == 0)


def _encode(values: pl.Series) -> tuple[Positions, pa.Array]:
    encoded = values.to_arrow().cast(pa.string()).dictionary_encode()
    return encoded.indices.to_numpy().astype(np.int64), encoded.dictionary


def _by_key(key: Positions, time: Positions) -> tuple[Positions, Positions]:
    order = np.lexsort((time, key))
    return key[order], time[order]


def _ranges(begin: Positions, end: Positions) -> tuple[Positions, pa.Array]:
    """All positions of the ranges [begin, end), one range after the other, and the ranges' offsets."""
    lengths = end - begin
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    flat = np.arange(offsets[-1]) + np.repeat(begin - offsets[:-1], lengths)
    return flat, pa.array(offsets, pa.int32())


def _strings(offsets: pa.Array, vocabulary: pa.Array, codes: Positions) -> pa.Array:
    return pa.ListArray.from_arrays(offsets, vocabulary.take(pa.array(codes)))
