"""How benchmarks draw their figures: two plots side by side, as a PNG."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.common import SCALE


@contextmanager
def side_by_side(path: Path, left: str, right: str, *, across: str = "") -> Iterator[tuple[Any, Any]]:
    """Two axes with their titles; what the block drew is written to `path` when it ends.

    Args:
        across: what both count from left to right.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.4), layout="constrained")
    both = figure.subplots(1, 2)
    for axes, title in zip(both, (left, right), strict=True):
        axes.set_title(title, fontsize=10)
        axes.set_xlabel(across)
        axes.grid(alpha=0.3)
    yield both[0], both[1]
    both[0].legend(fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def scaling(lines: Mapping[str, Sequence[Mapping[str, Any]]], path: Path, *, where: str) -> None:
    """Speed and peak memory at SCALE times the base.

    Args:
        lines: by what grows ("events", "keys"), figures with times, events, keys, events_per_s, peak_mib.
        where: on what, for the title: "on one core".
    """
    with side_by_side(path, f"million events/s {where}", "peak MiB, input included") as (speed, memory):
        for grows, found in lines.items():
            times = [line["times"] for line in found]
            fixed = "keys" if grows == "events" else "events"
            label = f"{grows} from {found[0][grows]:,}, with {found[0][fixed]:,} {fixed}"
            speed.plot(times, [line["events_per_s"] / 1e6 for line in found], marker="o", label=label)
            memory.plot(times, [line["peak_mib"] for line in found], marker="o")
        for axes in (speed, memory):
            axes.set_xscale("log", base=2)
            axes.set_xticks(SCALE, [f"{each}x" for each in SCALE])
            axes.set_ylim(bottom=0)
