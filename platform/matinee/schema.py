"""The nouns that cross rooms. Values only: nothing here talks to a vendor or does work at import.

Times are UTC. In Arrow they are `timestamp("us", "UTC")`; in NumPy they are int64 microseconds
since the epoch. Ids are strings outside a model and int32 positions in a vocabulary inside one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

EVENT_SCHEMA_VERSION = 1
"""Carried by every event; a consumer refuses versions it does not know."""

TIMESTAMP = pa.timestamp("us", "UTC")


class EventType(StrEnum):
    """What a member did."""

    IMPRESSION = "impression"
    CLICK = "click"
    PLAY = "play"
    STOP = "stop"
    RATE = "rate"
    SEARCH = "search"
    ADD_TO_LIST = "add_to_list"


WATCH_TYPES = (EventType.PLAY, EventType.RATE)
"""Event types that say the member watched the title (a rating is given after watching)."""

TITLE_TYPES = tuple(kind for kind in EventType if kind is not EventType.SEARCH)
"""Event types that must name a title."""

EVENT_SCHEMA = pa.schema(
    [
        pa.field("schema_version", pa.int16(), nullable=False),
        pa.field("event_id", pa.string(), nullable=False),
        pa.field("type", pa.string(), nullable=False),
        pa.field("member_id", pa.string(), nullable=False),
        pa.field("title_id", pa.string()),
        pa.field("event_time", TIMESTAMP, nullable=False),
        pa.field("ingest_time", TIMESTAMP, nullable=False),
        pa.field("session", pa.string()),
        pa.field("surface", pa.string()),
        pa.field("position", pa.int32()),
        pa.field("value", pa.float64()),
        pa.field("request_id", pa.string()),
        pa.field("model_version", pa.string()),
        pa.field("cell", pa.string()),
        pa.field("context", pa.string()),
    ]
)
"""One event a row. `value`: stars for rate, seconds for play and stop. `context`: a JSON object as text."""

LAKE_SCHEMA = pa.schema(
    [
        *EVENT_SCHEMA,
        pa.field("partition", pa.int32(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("late_by", pa.int64()),
    ]
)
"""An event at rest. Ties of `event_time` are ordered by (partition, offset): the order of arrival.
`late_by`: microseconds by which an event before it in its partition was ahead in event time, at most; 0
where none was. It depends on the log alone, so stream and batch call the same events late. Null: 0.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """One event, as an application states it. Field meanings as in `EVENT_SCHEMA`.

    Times are int microseconds since the epoch, UTC.
    """

    event_id: str
    type: EventType
    member_id: str
    event_time: int
    title_id: str | None = None
    ingest_time: int | None = None
    session: str | None = None
    surface: str | None = None
    position: int | None = None
    value: float | None = None
    request_id: str | None = None
    model_version: str | None = None
    cell: str | None = None
    context: Mapping[str, object] = field(default_factory=dict)
    schema_version: int = EVENT_SCHEMA_VERSION


CATALOGUE_SCHEMA = pa.schema(
    [
        pa.field("title_id", pa.string(), nullable=False),
        pa.field("name", pa.string(), nullable=False),
        pa.field("genres", pa.list_(pa.string()), nullable=False),
        pa.field("release_date", pa.date32()),
        pa.field("language", pa.string()),
        pa.field("maturity", pa.int16()),
        pa.field("cast", pa.list_(pa.string()), nullable=False),
        pa.field("keywords", pa.list_(pa.string()), nullable=False),
    ]
)
"""One title a row. `maturity`: the least age in years the title is suitable for; null where unknown."""


@dataclass(frozen=True, kw_only=True)
class Catalogue:
    """The titles a service offers.

    Args:
        table: rows of `CATALOGUE_SCHEMA`, `title_id` unique.
    """

    table: pa.Table

    @property
    def title_ids(self) -> list[str]:
        """Ids in table order: position i is title i everywhere a model counts titles."""
        ids: list[str] = self.table["title_id"].to_pylist()
        return ids

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read what `write` wrote; raises FileNotFoundError where it is missing."""
        return cls(table=pq.read_table(path, schema=CATALOGUE_SCHEMA))

    def write(self, path: Path) -> None:
        """Write as one Parquet file, whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(".draft")
        pq.write_table(self.table.cast(CATALOGUE_SCHEMA), draft)
        draft.replace(path)


@dataclass(frozen=True, kw_only=True)
class Interactions:
    """Which member watched which title when: the implicit feedback models learn from.

    Rows are ordered by time, ties by arrival. A (member, title) pair stands once.

    Args:
        member_ids: vocabulary of members, length M.
        title_ids: vocabulary of titles, length T: the catalogue's order.
        member: int32 [n], positions in `member_ids`.
        title: int32 [n], positions in `title_ids`.
        time: int64 [n], microseconds since the epoch.
        value: float32 [n], stars where the event was a rating, else NaN.
    """

    member_ids: Sequence[str]
    title_ids: Sequence[str]
    member: npt.NDArray[np.int32]
    title: npt.NDArray[np.int32]
    time: npt.NDArray[np.int64]
    value: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.member)

    def take(self, rows: npt.NDArray[np.bool_] | npt.NDArray[np.intp]) -> Interactions:
        """The same vocabularies with only `rows` (a mask or ascending positions)."""
        return Interactions(
            member_ids=self.member_ids,
            title_ids=self.title_ids,
            member=self.member[rows],
            title=self.title[rows],
            time=self.time[rows],
            value=self.value[rows],
        )

    def histories(self) -> list[npt.NDArray[np.int32]]:
        """Per member of the vocabulary, the titles watched, oldest first."""
        order = np.argsort(self.member, kind="stable")
        bounds = np.searchsorted(self.member[order], np.arange(len(self.member_ids) + 1))
        titles = self.title[order]
        return [titles[bounds[i] : bounds[i + 1]] for i in range(len(self.member_ids))]


@dataclass(frozen=True, kw_only=True)
class Outcomes:
    """What came of showing titles to members: a row for each title in each session.

    Args:
        member: int32 [n], positions in the interactions' `member_ids`.
        title: int32 [n], positions in the interactions' `title_ids`.
        time: int64 [n], microseconds since the epoch: when the title was first shown.
        ended: int64 [n], likewise: the last event of the session. Before it, an outcome was not settled.
        click: float32 [n], 1 or 0; NaN where it is not known.
        play: likewise.
        completion: float32 [n], share of the title that was watched, 0 to 1; NaN where it is not known.
    """

    member: npt.NDArray[np.int32]
    title: npt.NDArray[np.int32]
    time: npt.NDArray[np.int64]
    ended: npt.NDArray[np.int64]
    click: npt.NDArray[np.float32]
    play: npt.NDArray[np.float32]
    completion: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.member)

    def take(self, rows: npt.NDArray[np.bool_]) -> Outcomes:
        """Only the marked rows."""
        return Outcomes(**{name: values[rows] for name, values in vars(self).items()})

    def known_from(self, interactions: Interactions) -> Outcomes:
        """Those of sessions that were over at their member's last interaction in `interactions`.

        A session counts whole or not at all: that a title is missing among the others of its page would
        tell that something came of it later. Completion is measured anew, by the longest watch left.
        """
        last = np.full(len(interactions.member_ids), np.iinfo(np.int64).min)
        np.maximum.at(last, interactions.member, interactions.time)
        known = self.take(self.ended <= last[self.member])
        longest = np.zeros(len(interactions.title_ids), np.float32)
        np.fmax.at(longest, known.title, known.completion)
        with np.errstate(invalid="ignore"):
            return replace(known, completion=known.completion / longest[known.title])


@dataclass(frozen=True, kw_only=True)
class Features:
    """Feature-store values, aligned with something: rows with members or interactions or titles.

    Args:
        names: feature names, length f; the order is the model's contract with the feature service.
        values: float32 [rows, f]; NaN where the store knows nothing.
    """

    names: Sequence[str]
    values: npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A title with its score and what each member model added to it."""

    title_id: str
    score: float
    contributions: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """An answer to one request: candidates best first, and everything that explains them.

    Args:
        answer: "personal" where the member's history was used, "cold_start" where none is known.
    """

    request_id: str
    member_id: str
    surface: str
    model_version: str
    cell: str
    answer: str
    candidates: Sequence[Candidate]


@dataclass(frozen=True, kw_only=True)
class ModelVersion:
    """A registered model: what it is, where it lies, and from which run it came."""

    name: str
    version: str
    run_id: str
    path: str
    metrics: Mapping[str, float] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What a policy decided, and why. Policies return it; other code acts on it."""

    action: str
    reason: str
    evidence: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A measured mean with its bootstrap interval."""

    value: float
    low: float
    high: float


class Function(StrEnum):
    """What an aggregate computes over the events of its window. `column`: the event column it reads."""

    COUNT = "count"
    """Events; with a column, those where it is not null."""
    SUM = "sum"
    MEAN = "mean"
    MIN = "min"
    MAX = "max"
    """Of a numeric column, kept in millionths (UNIT): exact in any order."""
    LAST_N = "last_n"
    """The n latest values of a text column, oldest first. Of a numeric one a null stands as 0, so that lists
    of title_id and of value over the same events go together."""
    LAST_N_DISTINCT = "last_n_distinct"
    """The n values of a text column that came latest, each at its latest event, oldest first."""
    COUNT_DISTINCT = "count_distinct"
    """Distinct values of a text column, exact."""
    APPROX_DISTINCT = "approx_distinct"
    """Distinct values by a HyperLogLog sketch, within about 2%."""
    TOP_K = "top_k"
    """The n most frequent values of a text column; ties in the order of the text."""
    DECAYED_COUNT = "decayed_count"
    DECAYED_SUM = "decayed_sum"
    """Events, or a numeric column, halved each `half_life` a tile of the window is older than the newest."""


UNIT = 1_000_000
"""Numeric columns are aggregated as integers in millionths: sums don't depend on their order."""
LARGEST_VALUE = 1e9
"""Larger magnitudes of a numeric column count as this one."""

NUMERIC_COLUMNS = ("value", "position")
TEXT_COLUMNS = (
    "type",
    "member_id",
    "title_id",
    "session",
    "surface",
    "request_id",
    "model_version",
    "cell",
)


@dataclass(frozen=True, kw_only=True)
class Window:
    """Over which events an aggregate runs, for a row as of time t. Only events up to t ever count.

    Time is cut into tiles [k * hop, (k + 1) * hop) since the epoch. A sliding window counts the events of
    the tile of t and of the size / hop - 1 tiles before it: at the end of a tile it spans exactly `size`,
    never more. A tumbling window is one with `hop` = `size`. A session is a run of events of which none
    comes more than `gap` after the one before; the value is that of the session that still goes on at t.

    Args:
        size: of sliding and tumbling windows, a multiple of `hop`.
        hop: of sliding windows.
        gap: of session windows.
    """

    kind: Literal["unbounded", "sliding", "tumbling", "session"]
    size: timedelta = timedelta(0)
    hop: timedelta = timedelta(0)
    gap: timedelta = timedelta(0)

    def __post_init__(self) -> None:
        if self.kind == "tumbling":
            object.__setattr__(self, "hop", self.size)
        if self.kind in ("sliding", "tumbling") and (
            self.hop <= timedelta(0) or self.size < self.hop or self.size % self.hop
        ):
            raise ValueError(f"{self.kind} window: size {self.size}, hop {self.hop}; a size of whole hops")
        if self.kind == "session" and self.gap <= timedelta(0):
            raise ValueError(f"session window: gap {self.gap}; a gap above zero is accepted")

    @classmethod
    def sliding(cls, size: timedelta, hop: timedelta) -> Self:
        """The last `size`, moving by `hop`."""
        return cls(kind="sliding", size=size, hop=hop)

    @classmethod
    def tumbling(cls, size: timedelta) -> Self:
        """The current one of the windows that lie side by side since the epoch."""
        return cls(kind="tumbling", size=size)

    @classmethod
    def session(cls, gap: timedelta) -> Self:
        """The current run of events no more than `gap` apart."""
        return cls(kind="session", gap=gap)

    @classmethod
    def unbounded(cls) -> Self:
        """All events."""
        return cls(kind="unbounded")


@dataclass(frozen=True, kw_only=True)
class Expectation:
    """What a feature's values are expected to be; a violation is counted and reported.

    Args:
        low: least value, or least length of a list.
        high: greatest value, or greatest length of a list.
        null_share: most nulls, 0 to 1.
        distinct: most distinct values in a batch of rows.
    """

    low: float | None = None
    high: float | None = None
    null_share: float | None = None
    distinct: int | None = None


_NUMERIC = (Function.SUM, Function.MEAN, Function.MIN, Function.MAX, Function.DECAYED_SUM)
_PLAIN = (Function.COUNT, Function.DECAYED_COUNT)
_DECAYED = (Function.DECAYED_COUNT, Function.DECAYED_SUM)
_LISTS = (Function.LAST_N, Function.LAST_N_DISTINCT, Function.TOP_K)


@dataclass(frozen=True, kw_only=True)
class Aggregate:
    """One feature of an aggregate view.

    Args:
        column: the event column; none for counting events.
        types: event types that count; empty: all.
        n: of LAST_N, LAST_N_DISTINCT, TOP_K.
        half_life: of the decayed functions, whose window is sliding.
        expect: what values are expected to be.
    """

    name: str
    function: Function
    window: Window
    column: str = ""
    types: tuple[EventType, ...] = ()
    n: int = 0
    half_life: timedelta = timedelta(0)
    description: str = ""
    expect: Expectation | None = None

    def __post_init__(self) -> None:
        accepted: tuple[str, ...] = NUMERIC_COLUMNS if self.function in _NUMERIC else TEXT_COLUMNS
        if self.function is Function.LAST_N:
            accepted = (*NUMERIC_COLUMNS, *TEXT_COLUMNS)
        if self.function in _PLAIN:
            accepted = ("", *NUMERIC_COLUMNS, *TEXT_COLUMNS)
        if self.column not in accepted:
            raise ValueError(f"{self.name}: column {self.column!r}; {', '.join(accepted)} are accepted")
        if (self.n > 0) != (self.function in _LISTS):
            raise ValueError(f"{self.name}: n is {self.n} for {self.function}")
        if self.function in _DECAYED and (
            self.half_life <= timedelta(0) or self.window.kind not in ("sliding", "tumbling")
        ):
            raise ValueError(f"{self.name}: decay needs a half_life above zero and a sliding window")
        if self.window.kind == "session" and self.function not in (Function.COUNT, *_NUMERIC[:4]):
            raise ValueError(f"{self.name}: {self.function} over sessions; count, sum, mean, min, max are")

    @property
    def type(self) -> pa.DataType:
        """Of its values. Counts are never null; means, minima and maxima are where nothing counted."""
        if self.function in _LISTS:
            return pa.list_(pa.float64() if self.column in NUMERIC_COLUMNS else pa.string())
        if self.function in (Function.COUNT, Function.COUNT_DISTINCT, Function.APPROX_DISTINCT):
            return pa.int64()
        return pa.float64()


AGGREGATE_TAG = "aggregate"
"""The tag of a feature view that holds `AggregateView.to_json`."""


@dataclass(frozen=True, kw_only=True)
class AggregateView:
    """A feature view that is declared as aggregates over events and computed by stream and batch alike.

    A row of a key holds the values as of its latest event; the batch also has the earlier ones.

    Args:
        key: the event column that names the entity.
        types: event types that make a new row; empty: all. An aggregate's types are among them.
        lateness: an event further behind its partition's latest event time counts nowhere in the view
            (see `LAKE_SCHEMA.late_by`); None: every event counts, and state is kept for ever.
        late: what happens to events later than that: "drop" counts them, "dead_letter" sends them there
            as well.
        ttl: how long a row holds; zero: for ever.
        freshness: from an event's arrival to its values being readable: the objective.
    """

    name: str
    key: Literal["member_id", "title_id"]
    aggregates: tuple[Aggregate, ...]
    types: tuple[EventType, ...] = ()
    lateness: timedelta | None = None
    late: Literal["drop", "dead_letter"] = "drop"
    ttl: timedelta = timedelta(0)
    freshness: timedelta = timedelta(seconds=5)
    owner: str = ""
    description: str = ""

    def __post_init__(self) -> None:
        names = [each.name for each in self.aggregates]
        if len(set(names)) < len(names):
            raise ValueError(f"view {self.name}: a name stands twice among {', '.join(names)}")
        if self.types:
            for each in self.aggregates:
                if not each.types or not set(each.types) <= set(self.types):
                    raise ValueError(f"{self.name}.{each.name}: its types must be among the view's")

    @property
    def schema(self) -> pa.Schema:
        """Of its rows: the key, each feature, event_timestamp."""
        features = [pa.field(each.name, each.type) for each in self.aggregates]
        return pa.schema([pa.field(self.key, pa.string()), *features, pa.field("event_timestamp", TIMESTAMP)])

    def to_json(self) -> str:
        """As text; equal views have equal texts. Times in microseconds."""
        return json.dumps(asdict(self), default=lambda each: each // timedelta(microseconds=1))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """What `to_json` wrote."""
        stored: dict[str, Any] = json.loads(text)
        aggregates = []
        for each in stored.pop("aggregates"):
            window: dict[str, Any] = {
                name: held if name == "kind" else _time(held) for name, held in each["window"].items()
            }
            expect = each["expect"] and Expectation(**each["expect"])
            changed = {"window": Window(**window), "function": Function(each["function"]), "expect": expect}
            types = tuple(map(EventType, each["types"]))
            half_life = _time(each["half_life"])
            aggregates.append(Aggregate(**{**each, **changed, "types": types, "half_life": half_life}))
        lateness = None if stored["lateness"] is None else _time(stored["lateness"])
        times = {"lateness": lateness, "ttl": _time(stored["ttl"]), "freshness": _time(stored["freshness"])}
        types = tuple(map(EventType, stored["types"]))
        return cls(**{**stored, **times, "types": types, "aggregates": tuple(aggregates)})


def _time(microseconds: int) -> timedelta:
    return timedelta(microseconds=microseconds)
