"""The figures of an evaluation as tables for a terminal, as JSON and as a plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from matinee.schema import Estimate
from matinee.training import plots
from matinee.training.evaluate.metrics import HEADLINE

if TYPE_CHECKING:
    from rich.table import Table

Figures = Mapping[str, Estimate]
"""By metric."""

Panels = Mapping[str, Mapping[str, Figures]]
"""By protocol or segment, then by model; the first panel is the one to look at."""


def tables(panels: Panels, metrics: Sequence[str] = HEADLINE) -> list[Table]:
    """One table for each panel; a figure that a model lacks shows as a dash."""
    from rich.table import Table

    made = []
    for title, models in panels.items():
        table = Table("model", *metrics, title=title)
        for name, figures in models.items():
            table.add_row(name, *(_cell(figures.get(metric)) for metric in metrics))
        made.append(table)
    return made


def _cell(figure: Estimate | None) -> str:
    return "-" if figure is None else f"{figure.value:.4f} \\[{figure.low:.4f}, {figure.high:.4f}]"


def to_json(panels: Panels) -> dict[str, dict[str, dict[str, list[float]]]]:
    """For `json.dumps`: each figure as [value, low, high]."""
    return {
        title: {
            model: {metric: [one.value, one.low, one.high] for metric, one in figures.items()}
            for model, figures in models.items()
        }
        for title, models in panels.items()
    }


def from_json(found: Mapping[str, Mapping[str, Mapping[str, Sequence[float]]]]) -> Panels:
    """What `to_json` was given."""
    return {
        title: {
            model: {
                metric: Estimate(value=value, low=low, high=high)
                for metric, (value, low, high) in figures.items()
            }
            for model, figures in models.items()
        }
        for title, models in found.items()
    }


def plot(panels: Panels, path: Path, *, metric: str = "ndcg@20") -> None:
    """One metric of every model with its interval, a panel each, as a PNG file."""
    drawn = {
        title: {model: figures[metric] for model, figures in models.items()}
        for title, models in panels.items()
    }
    plots.comparison(drawn, path, metric=metric.replace("ndcg", "NDCG"))
