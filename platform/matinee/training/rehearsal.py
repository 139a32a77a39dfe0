"""What trials of a search learn from and are judged on: a hold-out of what the protocols train on."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any

import numpy as np

from matinee.config import Settings
from matinee.errors import InvalidInput
from matinee.models import discover
from matinee.models.base import Model, ModelSpec, TrainingSet
from matinee.models.ensemble.holdout import Holdout, inner_set, split_holdout
from matinee.models.ensemble.model import fit_ensemble
from matinee.schema import Features
from matinee.training import evaluate, pipeline
from matinee.training.loop import Moved, fit_all, scratch
from matinee.training.parts import title_features
from matinee.training.study import WHOLE
from matinee.training.tasks import FitTask

METRIC = "ndcg@20"
HALVING = 2
RUNGS = tuple(WHOLE / HALVING**k for k in (3, 2, 1))
"""Percent of a fit at which a trial is judged, and given up if it is in the lower half."""
CASES = 5000
"""Most cases of the hold-out that a trial is judged on."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rehearsal:
    """What every trial learns from and is judged on.

    Args:
        data: the inner part.
        exam: the hold-out; its rows of `inner` are not used.
        members: of an ensemble, fitted once on the inner part of `data`.
        weighed: the hold-out of `data` that an ensemble learns its weights from.
    """

    data: TrainingSet
    exam: Holdout
    members: Mapping[str, Model] = dataclasses.field(default_factory=dict)
    weighed: Holdout | None = None


def rehearse(
    settings: Settings,
    spec: ModelSpec,
    material: pipeline.Material,
    configs: Mapping[str, Any],
    *,
    progress: Moved | None = None,
) -> Rehearsal:
    """The hold-out that a model's trials share; an ensemble's members are fitted for it on the cluster."""
    data, exam = _inner(known(material), settings.seed)
    exam = _sampled(exam, settings.seed)
    if not spec.members:
        return Rehearsal(data=data, exam=exam)
    inner, weighed = _inner(data, settings.seed)
    specs = discover()
    tasks = [
        FitTask(spec=specs[name], config=configs[name], part="inner", seed=settings.seed)
        for name in spec.members
    ]
    with scratch(settings) as folder:
        fitted = fit_all(settings, tasks, {"inner": inner}, folder=folder, progress=progress)
    members = {task.spec.name: fitted.models[task.name] for task in tasks}
    return Rehearsal(data=data, exam=exam, members=members, weighed=weighed)


def known(material: pipeline.Material) -> TrainingSet:
    """What every protocol trains on: no interaction that any of them tests."""
    everything = material.everything
    splits = [divide(material.interactions) for divide in pipeline.SPLITS.values()]
    rows = reduce(np.intersect1d, [split.train_rows for split in splits])
    features = everything.member_features
    interactions = material.interactions.take(rows)
    return dataclasses.replace(
        everything,
        interactions=interactions,
        member_features=features and Features(names=features.names, values=features.values[rows]),
        title_features=title_features(interactions, material.catalogue),
        outcomes=everything.outcomes and everything.outcomes.known_from(interactions),
    )


def _inner(data: TrainingSet, seed: int) -> tuple[TrainingSet, Holdout]:
    holdout = split_holdout(data, seed=seed)
    watched = data.interactions.take(holdout.inner)
    return inner_set(data, holdout, title_features=title_features(watched, data.catalogue)), holdout


def _sampled(exam: Holdout, seed: int) -> Holdout:
    if not len(exam.query):
        raise InvalidInput("no member has enough watches to hold some out: there is nothing to tune on")
    drawn = np.random.default_rng(seed).permutation(len(exam.query))[:CASES]
    rows = np.sort(drawn)
    return dataclasses.replace(
        exam,
        query=evaluate.subset(exam.query, rows),
        answers=[exam.answers[row] for row in rows],
        members=exam.members[rows],
    )


def quality(model: Model, exam: Holdout, titles: int) -> float:
    """Mean NDCG@20 of full rankings over the cases of a hold-out."""
    lists = evaluate.rank(model.score, exam.query)
    return float(evaluate.accuracy(lists, exam.answers, titles)[METRIC].mean())


def attempt(
    config: Any,
    spec: ModelSpec,
    rehearsal: Rehearsal,
    seed: int,
    report: Callable[[float, float], None],
) -> None:
    """Fit one config and tell `report` (percent, NDCG@20) at each rung and at the end."""
    titles = len(rehearsal.data.catalogue)
    if rehearsal.weighed is not None:
        combined = fit_ensemble(rehearsal.members, rehearsal.weighed, config=config, seed=seed)
        report(WHOLE, quality(combined, rehearsal.exam, titles))
        return
    model = spec.model(config)
    passed = 0.0

    def progress(step: int, steps: int, figures: Mapping[str, float]) -> None:
        nonlocal passed
        percent = WHOLE * step / steps
        if percent < WHOLE and any(passed < rung <= percent for rung in RUNGS):
            passed = percent
            report(percent, quality(model, rehearsal.exam, titles))

    model.fit(rehearsal.data, seed=seed, progress=progress)
    report(WHOLE, quality(model, rehearsal.exam, titles))
