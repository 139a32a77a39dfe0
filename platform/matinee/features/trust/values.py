"""A view's values as they stand: the rows of a sample of keys, from the online store or the offline build."""

from __future__ import annotations

from typing import Literal

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from matinee.config import Settings
from matinee.errors import NotFound, Unavailable
from matinee.events import lake
from matinee.features import offline
from matinee.features.store import FeatureStore
from matinee.features.store.declared import DeclaredView

KEYS = 2_000
"""Most keys of a sample."""
PARTS = 50
"""Most lake parts, newest first, in which members are looked for."""

Origin = Literal["online", "offline", ""]


def sample(
    settings: Settings, store: FeatureStore, view: DeclaredView, *, keys: int = KEYS
) -> tuple[pa.Table, Origin]:
    """The rows of at most `keys` keys and where they come from: online, else offline, else nowhere.

    Returns:
        The features alone, a row a key that has one.
    """
    names = [each.name for each in view.features]
    schema = pa.schema([pa.field(each.name, each.type) for each in view.features])
    if view.online:
        try:
            found = store.read_rows(view.name, some_keys(settings, view.key, keys))
        except Unavailable:
            found = []
        rows = [row for row in found if row is not None]
        if rows:
            columns = [pa.array([row.get(name) for row in rows], schema.field(name).type) for name in names]
            return pa.table(columns, schema=schema), "online"
    try:
        held = offline.read(settings.paths.feast / "offline", view.name)
    except NotFound:
        return schema.empty_table(), ""
    frame = pl.DataFrame(pl.from_arrow(held)).sort(offline.TIME).unique(view.key, keep="last").sort(view.key)
    return frame.head(keys).select(names).to_arrow().cast(schema), "offline"


def some_keys(settings: Settings, key: str, most: int) -> list[str]:
    """Titles of the catalogue, or members of the newest lake parts, in the order of their ids."""
    if key == "title_id" and settings.paths.catalogue.is_file():
        return sorted(pq.read_table(settings.paths.catalogue, columns=[key])[key].to_pylist())[:most]
    found: set[str] = set()
    for part in reversed(lake.parts(settings.paths.events)[-PARTS:]):
        try:
            column = pq.read_table(part.path, columns=[key], partitioning=None)[key]
        except FileNotFoundError:
            continue
        found.update(pc.unique(column).drop_null().to_pylist())
        if len(found) >= most:
            break
    return sorted(found)[:most]
