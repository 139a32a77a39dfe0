"""Fits to be done, and the board in a shared folder where several processes divide them and report.

A fit is done when its folder stands under its name: it is written elsewhere and moved there whole. A
process that takes up an unfinished fit goes on from its checkpoint. The board knows nothing of Ray.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from matinee.models.base import Checkpoints, Model, ModelSpec, Start, TrainingSet
from matinee.models.bundle import load_bundle
from matinee.schema import Catalogue

REPORT_EVERY_S = 0.2


@dataclass(frozen=True, kw_only=True)
class FitTask:
    """One model to fit on one part of the data.

    Args:
        spec: of the model.
        config: what the model is built from.
        part: names the `TrainingSet`.
        seed: handed to `fit`.
        start: folder of a bundle to go on from, seen by all nodes: its member of this name, where it has one.
    """

    spec: ModelSpec
    config: Any
    part: str
    seed: int
    start: Path | None = None

    @property
    def name(self) -> str:
        """Unique among the tasks of a run."""
        return f"{self.part}.{self.spec.name}"


def identity(tasks: Sequence[FitTask], parts: Mapping[str, TrainingSet], *also: str) -> str:
    """Hexadecimal digest of fits, what they learn from and `also`: the same for the same training alone."""
    found = hashlib.sha256(repr(also).encode())
    for task in tasks:
        found.update(repr((task.name, task.config, task.seed, task.start)).encode())
    for name, part in sorted(parts.items()):
        held = part.interactions
        found.update(repr((name, held.member_ids, part.catalogue.table.to_pylist())).encode())
        arrays = [held.member, held.title, held.time, held.value]
        for features in (part.member_features, part.title_features):
            if features is not None:
                found.update(repr(tuple(features.names)).encode())
                arrays.append(features.values)
        if part.outcomes is not None:
            arrays += vars(part.outcomes).values()
        for array in arrays:
            found.update(np.ascontiguousarray(array).data)
    return found.hexdigest()[:32]


class Board:
    """Claims, progress and results of a run's fits, as files below `folder`."""

    def __init__(self, folder: Path) -> None:
        self._claims = folder / "claims"
        self._figures = folder / "figures"
        self.models = folder / "models"
        self._drafts = folder / "drafts"
        self._usage = folder / "usage"
        for each in (self._claims, self._figures, self.models, self._drafts, self._usage):
            each.mkdir(parents=True, exist_ok=True)

    def claim(self, tasks: Sequence[FitTask], worker: str) -> FitTask | None:
        """The next task of `worker`: one it holds unfinished (it was restarted), a free one, or None."""
        for task in tasks:
            path = self._claims / task.name
            try:
                descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
            except FileExistsError:
                if not self.done(task) and path.read_text() == worker:
                    return task
                continue
            with os.fdopen(descriptor, "w") as file:
                file.write(worker)
            return task
        return None

    def release(self, tasks: Sequence[FitTask]) -> None:
        """Give back what a run that has ended held unfinished."""
        for task in tasks:
            if not self.done(task):
                (self._claims / task.name).unlink(missing_ok=True)

    def done(self, task: FitTask) -> bool:
        """Whether the fitted model stands in `models`."""
        return (self.models / task.name).is_dir()

    def keep(self, task: FitTask, model: Model) -> None:
        """Save a fitted model under its task's name, whole or not at all."""
        draft = self._drafts / f"{task.name}-{uuid.uuid4().hex}"
        draft.mkdir()
        try:
            model.save(draft)
            draft.replace(self.models / task.name)
        finally:
            shutil.rmtree(draft, ignore_errors=True)

    def report(self, task: FitTask, step: int, steps: int, figures: Mapping[str, float]) -> None:
        """Note how far a fit has come."""
        line = json.dumps({"step": step, "steps": steps, **{k: float(v) for k, v in figures.items()}})
        with (self._figures / f"{task.name}.jsonl").open("a") as file:
            file.write(line + "\n")

    def curve(self, task: FitTask) -> list[dict[str, float]]:
        """What was reported of a fit so far, in order of steps; of a step done again the later report."""
        path = self._figures / f"{task.name}.jsonl"
        if not path.exists():
            return []
        kept: list[dict[str, float]] = []
        for line in path.read_text().split("\n")[:-1]:
            told = json.loads(line)
            while kept and kept[-1]["step"] >= told["step"]:
                kept.pop()
            kept.append(told)
        return kept

    def spent(self, task: FitTask, worker: int, usage: Mapping[str, float]) -> None:
        """Note what a fit took of one of its workers, as `training.usage.measured` says."""
        (self._usage / f"{task.name}.{worker}.json").write_text(json.dumps(dict(usage)))

    def usage(self, task: FitTask) -> list[dict[str, float]]:
        """By worker, what a finished fit took."""
        return [json.loads(path.read_text()) for path in sorted(self._usage.glob(f"{task.name}.*.json"))]

    def completed(self, tasks: Sequence[FitTask]) -> float:
        """How many fits are done, those under way counted by the share of their steps."""
        total = 0.0
        for task in tasks:
            if self.done(task):
                total += 1
            elif curve := self.curve(task):
                total += min(0.99, curve[-1]["step"] / max(curve[-1]["steps"], 1))
        return total


def fit(
    task: FitTask,
    data: TrainingSet,
    board: Board | None,
    checkpoints: Checkpoints | None = None,
    prepare: Callable[[Model, TrainingSet], None] = lambda model, data: None,
) -> Model:
    """Fit a task's model, reporting to the board at most every REPORT_EVERY_S seconds.

    Args:
        prepare: given the model before it is fitted.
    """
    model = task.spec.model(task.config)
    prepare(model, data)
    last = 0.0

    def progress(step: int, steps: int, figures: Mapping[str, float]) -> None:
        nonlocal last
        if board is not None and (step == steps or time.monotonic() - last >= REPORT_EVERY_S):
            last = time.monotonic()
            board.report(task, step, steps, figures)

    model.fit(
        data, seed=task.seed, progress=progress, checkpoints=checkpoints, start=_start(task, data.catalogue)
    )
    return model


def carried(before: Sequence[str], now: Sequence[str]) -> npt.NDArray[np.int64]:
    """Where each title of `now` stands in `before`, int64 [len(now)]; -1 for those it lacks."""
    place = {title: position for position, title in enumerate(before)}
    return np.array([place.get(title, -1) for title in now], dtype=np.int64)


def _start(task: FitTask, catalogue: Catalogue) -> Start | None:
    if task.start is None:
        return None
    bundle = load_bundle(task.start)
    models = {bundle.name: bundle.model, **getattr(bundle.model, "members", {})}
    if task.spec.name not in models:
        return None
    titles = carried(bundle.catalogue.title_ids, catalogue.title_ids)
    return Start(model=models[task.spec.name], titles=titles)
