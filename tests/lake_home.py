"""A small data home that models can be trained on: a lake of watches and its catalogue."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from matinee.config import Settings
from matinee.events import lake
from matinee.features.store import FeatureStore
from matinee.schema import CATALOGUE_SCHEMA, LAKE_SCHEMA, Catalogue

MEMBERS, TITLES, WATCHES, HOUR = 40, 60, 24, 3_600_000_000


def catalogue() -> Catalogue:
    """Titles t0 to t59, of four genres in turn."""
    rows = [
        {"title_id": f"t{i}", "name": f"Title {i}", "genres": [f"g{i % 4}"], "cast": [], "keywords": []}
        for i in range(TITLES)
    ]
    return Catalogue(table=pa.Table.from_pylist(rows, schema=CATALOGUE_SCHEMA))


def events() -> pa.Table:
    """Members who mostly watch one genre within two months; the last fifth of them joins late."""
    generator = np.random.default_rng(0)
    rows = []
    for member in range(MEMBERS):
        taste = np.where(np.arange(TITLES) % 4 == member % 4, 6.0, 1.0) / (1 + np.arange(TITLES) // 8)
        start = (300 if member >= MEMBERS * 0.8 else 0) * 24 * HOUR
        times = start + np.sort(generator.integers(1, 60 * 24, WATCHES)) * HOUR
        chosen = generator.choice(TITLES, WATCHES, False, taste / taste.sum())
        for title, at in zip(chosen, times, strict=True):
            rows.append(
                {
                    "schema_version": 1,
                    "event_id": f"{member}-{title}",
                    "type": "rate",
                    "member_id": f"m{member:02}",
                    "title_id": f"t{title}",
                    "event_time": int(at),
                    "ingest_time": int(at),
                    "value": float(generator.integers(1, 6)),
                    "partition": 0,
                }
            )
    rows.sort(key=lambda row: row["event_time"])
    return pa.Table.from_pylist([{**row, "offset": i} for i, row in enumerate(rows)], schema=LAKE_SCHEMA)


def make(settings: Settings) -> None:
    """Write both; no feature is built yet."""
    catalogue().write(settings.paths.catalogue)
    lake.write_part(settings.paths.events, events(), cluster="test")
    FeatureStore(settings).apply()
