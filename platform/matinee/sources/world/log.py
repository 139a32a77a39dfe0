"""Turns reactions into rows of `EVENT_SCHEMA`. Decides nothing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from matinee.schema import EVENT_SCHEMA, EVENT_SCHEMA_VERSION, TIMESTAMP, EventType
from matinee.sources.world.behaviour import Mask, Reaction

_KINDS = tuple(kind.value for kind in EventType)
_ORDER = (
    *(EventType.SEARCH, EventType.IMPRESSION, EventType.CLICK, EventType.ADD_TO_LIST),
    *(EventType.PLAY, EventType.STOP, EventType.RATE),
)
"""Events of one moment follow this order, causes first."""


@dataclass(frozen=True, kw_only=True)
class Visits:
    """Who was there in one slot of time, and what they were shown. V visitors.

    Args:
        label: begins session ids and event ids; unlike that of any other slot.
        member_ids: [V].
        start: int64 [V], microseconds since the epoch.
        page: int32 [V, 1 + k] title positions, column 0 the searched one; -1 for none.
        queries: [V], text searched for; None where there was no search.
        request_ids: [V], the request that made the page.
        model_versions: [V], which model made it, where known.
        cells: [V], the experiment cell, where known.
    """

    label: str
    member_ids: Sequence[str]
    start: npt.NDArray[np.int64]
    page: npt.NDArray[np.int32]
    queries: Sequence[str | None]
    request_ids: Sequence[str | None]
    model_versions: Sequence[str | None]
    cells: Sequence[str | None]


def events(visits: Visits, reaction: Reaction, title_ids: pa.Array) -> pa.Table:
    """The visits' events in time order.

    A click names its impression, a play its click, a stop and a rating their play, and what a search found
    its search, as `from` in the context.
    """
    rows = _Rows(visits)
    searched = np.zeros_like(reaction.shown)
    searched[:, 0] = [query is not None for query in visits.queries]
    search = rows.add(EventType.SEARCH, searched, np.zeros(searched.shape))
    shown = rows.add(EventType.IMPRESSION, reaction.shown, reaction.shown_at, cause=search)
    clicked = rows.add(EventType.CLICK, reaction.clicked, reaction.clicked_at, cause=shown)
    rows.add(EventType.ADD_TO_LIST, reaction.listed, reaction.clicked_at + 2, cause=clicked)
    play_at = reaction.clicked_at + 3
    played = rows.add(EventType.PLAY, reaction.played, play_at, cause=clicked)
    stop_at = play_at + reaction.watched_s
    rows.add(EventType.STOP, reaction.played, stop_at, cause=played, value=reaction.watched_s)
    rows.add(EventType.RATE, reaction.rated, stop_at + 4, cause=played, value=reaction.stars)
    return rows.table(title_ids)


class _Rows:
    """Flat rows gathered kind by kind, put in order at the end."""

    def __init__(self, visits: Visits) -> None:
        self._visits = visits
        self._parts: list[dict[str, npt.NDArray[np.generic]]] = []
        self._count = 0

    def add(
        self,
        kind: EventType,
        mask: Mask,
        seconds: npt.NDArray[np.float64],
        *,
        cause: npt.NDArray[np.int64] | None = None,
        value: npt.NDArray[np.float64] | None = None,
    ) -> npt.NDArray[np.int64]:
        """Add one row where `mask` holds; returns [V, 1 + k] row numbers, -1 where there is none."""
        visitor, column = np.nonzero(mask)
        number = np.full(mask.shape, -1, np.int64)
        number[visitor, column] = np.arange(self._count, self._count + len(visitor))
        self._count += len(visitor)
        whole = np.full(len(visitor), np.nan) if value is None else np.round(value[visitor, column], 1)
        self._parts.append(
            {
                "kind": np.full(len(visitor), _KINDS.index(kind)),
                "rank": np.full(len(visitor), _ORDER.index(kind)),
                "visitor": visitor,
                "column": column,
                "time": self._visits.start[visitor] + (seconds[visitor, column] * 1e6).astype(np.int64),
                "value": whole,
                "cause": np.full(len(visitor), -1) if cause is None else cause[visitor, column],
            }
        )
        return number

    def table(self, title_ids: pa.Array) -> pa.Table:
        flat = {name: np.concatenate([part[name] for part in self._parts]) for name in self._parts[0]}
        order = np.lexsort((flat["column"], flat["rank"], flat["visitor"], flat["time"]))
        place = np.empty(self._count, np.int64)
        place[order] = np.arange(self._count)
        cause = np.where(flat["cause"] >= 0, place[flat["cause"]], -1)[order]
        rows = {name: values[order] for name, values in flat.items()}
        visits, visitor, column = self._visits, rows["visitor"], rows["column"]
        kind, count = rows["kind"], self._count
        event_ids = _join(f"{visits.label}-", np.arange(count))
        is_search = kind == _KINDS.index(EventType.SEARCH)
        on_page = column > 0
        placed = ~np.isin(kind, [_KINDS.index(name) for name in ("search", "stop", "rate")])
        times = pa.array(rows["time"], pa.int64()).cast(TIMESTAMP)
        sessions = _join_texts(f"{visits.label}-", pa.array(visits.member_ids, pa.string()))
        title = np.where(is_search, -1, visits.page[visitor, column])
        columns = {
            "schema_version": pa.array(np.full(count, EVENT_SCHEMA_VERSION, np.int16)),
            "event_id": event_ids,
            "type": pa.array(_KINDS).take(pa.array(kind)),
            "member_id": pa.array(visits.member_ids, pa.string()).take(pa.array(visitor)),
            "title_id": title_ids.take(_or_null(title)),
            "event_time": times,
            "ingest_time": times,
            "session": sessions.take(pa.array(visitor)),
            "surface": pa.array(["search", "home"]).take(pa.array(on_page.astype(np.int8))),
            "position": pa.array(np.maximum(column - 1, 0).astype(np.int32), mask=~placed),
            "value": pa.array(rows["value"], from_pandas=True),
            "context": self._contexts(event_ids, cause, is_search, visitor),
        }
        page_visitor = _or_null(np.where(on_page, visitor, -1))
        for name, texts in (
            ("request_id", visits.request_ids),
            ("model_version", visits.model_versions),
            ("cell", visits.cells),
        ):
            columns[name] = pa.array(texts, pa.string()).take(page_visitor)
        return pa.Table.from_arrays([columns[field.name] for field in EVENT_SCHEMA], schema=EVENT_SCHEMA)

    def _contexts(
        self,
        event_ids: pa.Array,
        cause: npt.NDArray[np.int64],
        is_search: Mask,
        visitor: npt.NDArray[np.intp],
    ) -> pa.Array:
        told = event_ids.take(_or_null(cause))
        causes = pc.binary_join_element_wise('{"from":"', told, '"}', "")
        queries = [None if text is None else json.dumps({"query": text}) for text in self._visits.queries]
        searches = pa.array(queries, pa.string()).take(_or_null(np.where(is_search, visitor, -1)))
        return pc.coalesce(searches, causes)


def _or_null(positions: npt.NDArray[np.integer]) -> pa.Array:
    return pa.array(positions, mask=positions < 0)


def _join(prefix: str, numbers: npt.NDArray[np.integer]) -> pa.Array:
    return _join_texts(prefix, pa.array(numbers).cast(pa.string()))


def _join_texts(prefix: str, texts: pa.Array) -> pa.Array:
    return pc.binary_join_element_wise(prefix, texts, "")
