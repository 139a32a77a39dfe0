"""The figures of an evaluation as tables for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from matinee.training.evaluate import METRICS

if TYPE_CHECKING:
    from rich.table import Table


def tables(
    models: Mapping[str, Mapping[str, Any]], models_global: Mapping[str, Mapping[str, Mapping[str, Any]]]
) -> list[Table]:
    """One table for the per-member protocol and one for each segment of the global one."""
    made = [_table("per member", models)]
    for segment in ("warm", "cold", "all"):
        rows = {name: parts[segment] for name, parts in models_global.items() if segment in parts}
        if rows:
            made.append(_table(f"global in time, {segment} members", rows))
    return made


def _table(title: str, models: Mapping[str, Mapping[str, Any]]) -> Table:
    from rich.table import Table

    table = Table("model", *METRICS, title=title)
    for name, figures in models.items():
        cells = []
        for metric in METRICS:
            low, high = figures[f"{metric}_interval"]
            cells.append(f"{figures[metric]:.4f} \\[{low:.4f}, {high:.4f}]")
        table.add_row(name, *cells)
    return table
