"""The nouns that cross rooms. Values only: nothing here talks to a vendor or does work at import.

Times are UTC. In Arrow they are `timestamp("us", "UTC")`; in NumPy they are int64 microseconds
since the epoch. Ids are strings outside a model and int32 positions in a vocabulary inside one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Self

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

LAKE_SCHEMA = EVENT_SCHEMA.append(pa.field("partition", pa.int32(), nullable=False)).append(
    pa.field("offset", pa.int64(), nullable=False)
)
"""An event at rest. Ties of `event_time` are ordered by (partition, offset): the order of arrival."""


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
