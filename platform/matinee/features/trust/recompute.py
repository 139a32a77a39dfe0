"""The served log held against the lake, and how each view is recomputed for that."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from matinee.config import Settings
from matinee.errors import Unavailable
from matinee.events import lake
from matinee.features.history_rows import columns_of, history_rows
from matinee.features.titles import genres_of, read_catalogue
from matinee.features.transforms import VIEWS, WATCH_COLUMNS, Genres, View, watches_of
from matinee.features.trust import served
from matinee.features.trust.consistency import Consistency, Recomputer, compare
from matinee.schema import LAKE_SCHEMA, TIMESTAMP, WATCH_TYPES, AggregateView

ROWS = 2_000
"""Reads of a view that are compared: the latest ones."""

_OWN = ("event_time", "ingest_time", "partition", "offset")
_ATTEMPTS = 10


def consistency(
    settings: Settings,
    *,
    aggregates: Sequence[AggregateView] = (),
    rows: int = ROWS,
    settle_s: float | None = None,
    now: int | None = None,
) -> list[Consistency]:
    """Every view of the served log against the lake; views that nothing recomputes are left out.

    Args:
        aggregates: views that are declared as aggregates.
        rows: most reads compared of a view, the latest ones.
        settle_s: see `consistency.compare`; None: the setting.
        now: microseconds; reads later than `settle_s` before it are left out, since the lake may not hold
            yet what they saw. None: by the clock.

    Raises:
        NotFound: the home has no catalogue.
        Unavailable: the lake changed all the time while it was read.
    """
    root = settings.paths.served
    settle_us = int((settings.monitoring.settle_s if settle_s is None else settle_s) * 1e6)
    until = (time.time_ns() // 1000 if now is None else now) - settle_us
    logged = set(served.views(root))
    known = recomputers(settings, aggregates) if logged else {}
    found = []
    for name, recomputer in known.items():
        reads = served.read(root, name, rows=rows, until=until) if name in logged else None
        if reads is not None and recomputer.key in reads.column_names:
            events = events_of(settings.paths.events, recomputer, reads[recomputer.key])
            found.append(compare(recomputer, reads, events, settle_us=settle_us))
    return found


def recomputers(settings: Settings, aggregates: Sequence[AggregateView] = ()) -> Mapping[str, Recomputer]:
    """How each view is recomputed, by name.

    Raises:
        NotFound: the home has no catalogue.
    """
    genres = genres_of(read_catalogue(settings))
    known = {name: _of_view(view, genres) for name, view in VIEWS.items()}
    return known | {view.name: _of_aggregates(view) for view in aggregates}


def events_of(root: Path, recomputer: Recomputer, keys: pa.ChunkedArray) -> pa.Table:
    """The lake's events of some keys, with the columns that a recomputer needs, in any order.

    Raises:
        Unavailable: parts came and went all the time while reading.
    """
    columns = list(dict.fromkeys([recomputer.key, *_OWN, *recomputer.columns]))
    wanted = pc.unique(keys).to_pylist()
    for _ in range(_ATTEMPTS):
        files = [str(part.path) for part in lake.parts(root)]
        held = ds.dataset(files, schema=LAKE_SCHEMA, format="parquet")
        try:
            return held.to_table(columns=columns, filter=ds.field(recomputer.key).isin(wanted))
        except FileNotFoundError:
            continue
    raise Unavailable(f"lake {root}: parts went away during each of {_ATTEMPTS} readings")


def _of_view(view: View, genres: Genres) -> Recomputer:
    return Recomputer(
        view=view.name,
        key=view.key,
        features=[name for name in view.schema.names if name not in (view.key, served.TIME)],
        columns=WATCH_COLUMNS,
        counted=_watches if view.watches_only else _all,
        rows=partial(_transformed, view, genres),
    )


def _transformed(view: View, genres: Genres, events: pa.Table, rows: pa.Table) -> pa.Table:
    return view.transform(watches_of(events), rows, genres)


def _watches(events: pa.Table) -> pa.Table:
    return events.filter(pc.is_in(events["type"], value_set=pa.array(list(map(str, WATCH_TYPES)))))


def _all(events: pa.Table) -> pa.Table:
    return events


def _of_aggregates(view: AggregateView) -> Recomputer:
    return Recomputer(
        view=view.name,
        key=view.key,
        features=[each.name for each in view.aggregates],
        columns=list(dict.fromkeys(["type", "late_by", *columns_of(view)])),
        counted=partial(counted, view),
        rows=partial(_history, view),
    )


def counted(view: AggregateView, events: pa.Table) -> pa.Table:
    """The events that make rows of an aggregate view (`key`, `type` and `late_by` are read)."""
    kept = pc.is_valid(events[view.key])
    if view.types:
        kept = pc.and_(kept, pc.is_in(events["type"], value_set=pa.array(list(map(str, view.types)))))
    if view.lateness is not None:
        limit = view.lateness // timedelta(microseconds=1)
        kept = pc.and_(kept, pc.less_equal(pc.fill_null(events["late_by"], 0), limit))
    return events.filter(kept)


def _history(view: AggregateView, events: pa.Table, rows: pa.Table) -> pa.Table:
    held = history_rows(view, events)
    asked = rows.rename_columns([view.key, served.TIME])
    asked = asked.set_column(1, served.TIME, asked[served.TIME].cast(TIMESTAMP))
    place = pl.DataFrame(pl.from_arrow(held.select([view.key, served.TIME]))).with_row_index("__row")
    wanted = pl.DataFrame(pl.from_arrow(asked)).join(place, on=[view.key, served.TIME])["__row"]
    return held.take(pa.array(wanted.to_numpy().astype(np.int64)))
