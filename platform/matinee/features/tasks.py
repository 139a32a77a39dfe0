"""A plain function on each of many items: here in turn, or on the connected Ray cluster by Ray Data."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa


def run(
    items: Sequence[dict[str, Any]], function: Callable[[pa.Table], pa.Table], *, on_ray: bool
) -> list[dict[str, Any]]:
    """The rows that `function` returns for each item, one item a call.

    Args:
        function: takes a table of one row, the item; on Ray it runs in another process.
    """
    if not on_ray:
        return [row for item in items for row in function(pa.Table.from_pylist([item])).to_pylist()]
    if not items:
        return []
    import ray.data

    with quiet():
        data = ray.data.from_items(list(items), override_num_blocks=len(items))
        mapped = data.map_batches(function, batch_size=1, batch_format="pyarrow")
        rows: list[dict[str, Any]] = mapped.take_all()
    return rows


@contextmanager
def quiet() -> Iterator[None]:
    """Ray Data without progress bars and chatter; Ray is connected."""
    import ray.data

    console = logging.getLogger("ray.data")
    level = console.level
    console.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            ray.data.DataContext.get_current().enable_progress_bars = False
            yield
        finally:
            console.setLevel(level)


def processes() -> int:
    """CPUs of the connected Ray cluster."""
    import ray

    return max(1, int(ray.cluster_resources().get("CPU", 1)))
