"""Stages of a long run: each is timed and shown as it goes, and the memory of all processes is watched."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import psutil
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table


@dataclass(kw_only=True)
class Stage:
    """One stage: what it did, in figures, and how long it took in seconds."""

    name: str
    what: str
    figures: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0


class Stages:
    """Runs stages one after the other; shows a bar for each at a terminal, a line otherwise."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.done: list[Stage] = []
        self._bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
        )

    def __enter__(self) -> Stages:
        self._bars.start()
        return self

    def __exit__(self, *failure: object) -> None:
        self._bars.stop()

    @contextmanager
    def stage(self, name: str, what: str) -> Iterator[Step]:
        """One stage; the step it yields takes progress and figures."""
        task = self._bars.add_task(f"{name:<10}", total=None, note=what)
        stage = Stage(name=name, what=what)
        start = time.monotonic()
        yield Step(stage, self._bars, task)
        stage.seconds = time.monotonic() - start
        self.done.append(stage)
        total = self._bars.tasks[task].total or 1
        self._bars.update(task, total=total, completed=total, note=what)
        if not self.console.is_terminal:
            self.console.print(f"{name:<10} {stage.seconds:6.1f} s  {what}", highlight=False)

    def table(self) -> Table:
        """Stage, what, seconds, figures."""
        table = Table("stage", "what", "seconds", "figures")
        for stage in self.done:
            figures = ", ".join(f"{name} {_short(value)}" for name, value in stage.figures.items())
            table.add_row(stage.name, stage.what, f"{stage.seconds:.1f}", figures)
        return table


class Step:
    """The running stage's handle."""

    def __init__(self, stage: Stage, bars: Progress, task: Any) -> None:
        self._stage = stage
        self._bars = bars
        self._task = task

    def move(self, completed: float, total: float, note: str | None = None) -> None:
        """Set the bar; thread-safe."""
        self._bars.update(self._task, completed=completed, total=total, note=note or self._stage.what)

    def advance(self, total: float) -> None:
        """One more of `total` done; thread-safe."""
        self._bars.update(self._task, advance=1, total=total)

    def figures(self, **figures: Any) -> None:
        """Record what the stage measured."""
        self._stage.figures.update(figures)


class MemoryWatch:
    """The peak of the resident memory of this process and all it started, summed, in MiB.

    Pages that processes share count once for each, so the sum overstates.
    """

    INTERVAL_S = 0.5

    def __init__(self) -> None:
        self.peak_mib = 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="memory-watch", daemon=True)

    def __enter__(self) -> MemoryWatch:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        own = psutil.Process()
        while not self._ended.wait(self.INTERVAL_S):
            total = 0
            for process in [own, *own.children(recursive=True)]:
                try:
                    total += process.memory_info().rss
                except psutil.NoSuchProcess:
                    continue
            self.peak_mib = max(self.peak_mib, total / 2**20)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
