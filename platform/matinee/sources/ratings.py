"""Turns ratings into events and titles into a catalogue. One rating is one `rate` event, nothing else."""

from __future__ import annotations

import datetime
from collections.abc import Sequence

import numpy as np
import polars as pl
import pyarrow as pa

from matinee.schema import CATALOGUE_SCHEMA, EVENT_SCHEMA, EVENT_SCHEMA_VERSION, Catalogue, EventType


def rating_events(prefix: str, ratings: pl.DataFrame) -> pa.Table:
    """Rows of `EVENT_SCHEMA` ordered by time, ties in the order given.

    Args:
        prefix: begins each event id, which goes on with member and title: sent twice, it is one event.
        ratings: columns member (text), title (text), value (float), seconds (int, since the epoch).
    """
    ordered = ratings.sort("seconds", maintain_order=True)
    events = ordered.select(
        schema_version=pl.lit(EVENT_SCHEMA_VERSION, pl.Int16),
        event_id=pl.concat_str(pl.lit(prefix), pl.col("member"), pl.col("title"), separator="-"),
        type=pl.lit(EventType.RATE.value),
        member_id=pl.col("member"),
        title_id=pl.col("title"),
        event_time=pl.from_epoch(pl.col("seconds") * 1_000_000, "us").dt.replace_time_zone("UTC"),
        value=pl.col("value").cast(pl.Float64),
        surface=pl.lit("import"),
    ).with_columns(ingest_time=pl.col("event_time"))
    return fit_events(events)


def fit_events(events: pl.DataFrame) -> pa.Table:
    """The frame's columns as `EVENT_SCHEMA`; columns it lacks are null."""
    found = events.to_arrow()
    columns = []
    for field in EVENT_SCHEMA:
        if field.name in found.column_names:
            columns.append(found[field.name].cast(field.type))
        else:
            columns.append(pa.chunked_array([pa.nulls(found.num_rows, field.type)]))
    return pa.Table.from_arrays(columns, schema=EVENT_SCHEMA).combine_chunks()


def catalogue(
    *,
    title_ids: Sequence[str],
    names: Sequence[str],
    genres: Sequence[Sequence[str]],
    release_dates: Sequence[datetime.date | None],
    languages: Sequence[str | None] | None = None,
    maturity: Sequence[int | None] | np.ndarray | None = None,
    cast: Sequence[Sequence[str]] | None = None,
    keywords: Sequence[Sequence[str]] | None = None,
) -> Catalogue:
    """A `Catalogue` from columns of equal length; what is left out is unknown (null, or an empty list)."""
    count = len(title_ids)
    columns = {
        "title_id": title_ids,
        "name": names,
        "genres": genres,
        "release_date": release_dates,
        "language": [None] * count if languages is None else languages,
        "maturity": [None] * count if maturity is None else maturity,
        "cast": [[]] * count if cast is None else cast,
        "keywords": [[]] * count if keywords is None else keywords,
    }
    arrays = [pa.array(columns[field.name], field.type) for field in CATALOGUE_SCHEMA]
    return Catalogue(table=pa.Table.from_arrays(arrays, schema=CATALOGUE_SCHEMA))
