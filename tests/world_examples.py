"""A small simulated service, and its events as the lake holds them."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa

from matinee.events import lake
from matinee.schema import LAKE_SCHEMA
from matinee.sources.dataset import Dataset
from matinee.sources.world import World, WorldConfig

CONFIG = WorldConfig(members=60, titles=50, cold_share=0.0, click_threshold=1.0, page_size=8)


@cache
def dataset() -> Dataset:
    """Twenty days of it."""
    return World(CONFIG, seed=0).history(20)


def fill(root: Path, events: pa.Table) -> None:
    """Put events into an empty lake."""
    count = events.num_rows
    told = {"partition": np.zeros(count, np.int32), "offset": np.arange(count), "late_by": np.zeros(count)}
    for name, values in told.items():
        events = events.append_column(name, pa.array(values))
    lake.write_part(root, events.select(LAKE_SCHEMA.names), cluster="test")
