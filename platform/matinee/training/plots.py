"""Plots of a version, as PNG files. Matplotlib's figures are made directly: no window, no global state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matinee.schema import Estimate


def comparison(panels: Mapping[str, Mapping[str, Estimate]], path: Path, *, metric: str) -> None:
    """One metric of every model with its interval, a panel for each protocol or segment.

    Args:
        panels: panel title to (model to estimate).
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.6 * len(panels), 3.2), layout="constrained")
    row = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (title, models) in zip(row, panels.items(), strict=True):
        values = [estimate.value for estimate in models.values()]
        below = [max(0.0, estimate.value - estimate.low) for estimate in models.values()]
        above = [max(0.0, estimate.high - estimate.value) for estimate in models.values()]
        axes.bar(list(models), values, yerr=[below, above], capsize=3, color="#4878a8")
        axes.set_title(title, fontsize=10)
        axes.set_ylabel(metric)
        axes.tick_params(axis="x", rotation=45)
    figure.savefig(path, dpi=120)


def curves(fits: Mapping[str, Sequence[Mapping[str, float]]], path: Path) -> None:
    """The loss that fits reported while they trained; a fit that reported none is left out."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.subplots()
    for name, reports in fits.items():
        points = [(report["step"], report["loss"]) for report in reports if "loss" in report]
        if points:
            axes.plot(*zip(*points, strict=True), label=name)
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    if axes.lines:
        axes.legend(fontsize=8)
    figure.savefig(path, dpi=120)
