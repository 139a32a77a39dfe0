"""Plots of a version, as PNG files. Matplotlib's figures are made directly: no window, no global state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from matinee.models.space import Space
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


def parallel_coordinates(
    space: Space, trials: Sequence[tuple[Mapping[str, Any], float]], path: Path, *, metric: str
) -> None:
    """A line for each trial across an axis for each dimension, coloured by its figure, the best on top.

    Args:
        trials: (values by name, figure).
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

    figure = Figure(figsize=(max(4.0, 1.4 * len(space) + 1), 4), layout="constrained")
    axes = figure.subplots()
    values = np.array([value for _, value in trials])
    colours = ScalarMappable(Normalize(values.min(), values.max()), "viridis")
    shades = colours.to_rgba(values)
    for row in np.argsort(values, kind="stable"):
        places = [dimension.place(trials[row][0][name]) for name, dimension in space.items()]
        axes.plot(places, color=shades[row], linewidth=2 if values[row] == values.max() else 1, marker="o")
    for x, dimension in enumerate(space.values()):
        axes.axvline(x, color="#cccccc", linewidth=0.8, zorder=0)
        for place, side in ((0.0, "top"), (1.0, "bottom")):
            text = _short(dimension.at(place))
            axes.annotate(
                text, (x, place), (0, -8 if side == "top" else 8), textcoords="offset points",
                ha="center", va=side, fontsize=7,
            )  # fmt: skip
    axes.set_xticks(range(len(space)), list(space), rotation=30, ha="right", fontsize=8)
    axes.set_yticks([])
    axes.set_ylim(-0.12, 1.12)
    figure.colorbar(colours, ax=axes, label=metric)
    figure.savefig(path, dpi=120)


def learning_curves(trials: Sequence[Sequence[tuple[float, float]]], path: Path, *, metric: str) -> None:
    """A figure over the share of the fit, a line for each trial; a ring where a trial was given up.

    Args:
        trials: each one's (percent, figure) in order.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.subplots()
    best = max(reports[-1][1] for reports in trials)
    for reports in trials:
        percent, values = zip(*reports, strict=True)
        colour = "#c44e52" if values[-1] == best else "#4878a8"
        axes.plot(percent, values, color=colour, alpha=0.8, linewidth=1, marker=".")
        if percent[-1] < 100:
            axes.plot(percent[-1:], values[-1:], color=colour, marker="o", fillstyle="none")
    axes.set_xlabel("percent of the fit")
    axes.set_ylabel(metric)
    figure.savefig(path, dpi=120)


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
