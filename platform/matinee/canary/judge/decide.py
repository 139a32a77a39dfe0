"""The judge: from samples to labels, from labels to a score, from the score to a verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isnan
from typing import Literal

import numpy as np
import numpy.typing as npt

from matinee.canary.judge.classify import Classified, classify, label, prepare
from matinee.canary.judge.config import CanaryConfig, Metric
from matinee.canary.judge.rows import Rows, Summary
from matinee.canary.judge.score import Label, Verdict, score, verdict
from matinee.canary.judge.strict import beyond
from matinee.errors import InvalidInput

Mode = Literal["strict", "kayenta"]


@dataclass(frozen=True, slots=True)
class Samples:
    """A metric's values on both sides: float64 [n] and [m], NaN where one is missing."""

    control: npt.NDArray[np.float64]
    experiment: npt.NDArray[np.float64]


_EMPTY = Samples(np.zeros(0), np.zeros(0))


@dataclass(frozen=True, slots=True)
class MetricJudgement:
    """What was found about one metric.

    Args:
        label: "Pass", "High", "Low", "Nodata", "NodataFailMetric", or "Error" where values are infinite.
        critical: this result fails the whole canary.
        effect: the size of the difference by the metric's measure; NaN where it is undefined.
        low: lower end of the interval of the shift of experiment over control, `high` the upper end, and
            `estimate` the shift; NaN where nothing was compared.
        reason: what the label rests on.
    """

    name: str
    groups: Sequence[str]
    label: Label
    critical: bool
    effect: float
    low: float
    high: float
    estimate: float
    reason: str
    control: Summary
    experiment: Summary
    muted: bool = False


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """The verdict on a canary.

    Args:
        score: 0 to 100.
        groups: each group's score.
        metrics: in the order of the configuration.
    """

    score: float
    verdict: Verdict
    reason: str
    groups: Mapping[str, float]
    metrics: Sequence[MetricJudgement]


def judge(
    config: CanaryConfig,
    samples: Mapping[str, Samples],
    *,
    mode: Mode = "strict",
    seed: int = 0,
    intervals: bool = True,
) -> Judgement:
    """Judge a canary by its metrics.

    Args:
        samples: by metric's name; a metric without any counts as one without data.
        mode: "kayenta": NetflixACAJudge-v1.0 as it is; "strict": what it misses as well.
        seed: two constants that differ are told apart by noise, see `classify.NOISE`.
        intervals: of every shift; else only of those that a label depends on, the others stay NaN.

    Raises:
        InvalidInput: samples of a metric that the configuration does not have.
    """
    unknown = samples.keys() - {metric.name for metric in config.metrics}
    if unknown:
        raise InvalidInput(f"samples of {min(unknown)}: canary {config.name} has no such metric")
    given = [samples.get(metric.name, _EMPTY) for metric in config.metrics]
    control = prepare(config.metrics, [each.control for each in given])
    experiment = prepare(config.metrics, [each.experiment for each in given])
    infinite = np.isinf(np.concatenate([control.values, experiment.values], axis=1)).any(axis=1)
    if infinite.any():
        sides = (np.where(infinite[:, None], np.nan, side.values) for side in (control, experiment))
        control, experiment = map(Rows, sides)
    found = classify(config.metrics, control, experiment, seed=seed, intervals=intervals)
    why: dict[int, str] = {}
    if mode == "strict":
        found, why = beyond(config.metrics, found)
    metrics = results(config.metrics, found, why)
    for place in np.flatnonzero(infinite).tolist():
        critical = config.metrics[place].critical
        metrics[place] = replace(
            metrics[place], label="Error", critical=critical, reason="a value is infinite"
        )
    result = score([each for each in metrics if not each.muted], config.group_weights)
    return Judgement(
        score=result.value,
        verdict=verdict(result.value, passing=config.passing, marginal=config.marginal),
        reason=result.reason
        or f"score {result.value:g}; pass from {config.passing:g}, marginal from {config.marginal:g}",
        groups=result.groups,
        metrics=metrics,
    )


def results(
    metrics: Sequence[Metric], found: Classified, why: Mapping[int, str] | None = None
) -> list[MetricJudgement]:
    """What was found, a judgement a metric; `why` adds to its reason by position."""
    columns = zip(
        metrics,
        found.compared.tolist(),
        found.high.tolist(),
        found.low.tolist(),
        found.critical.tolist(),
        found.effect.tolist(),
        *(column.tolist() for column in (found.shift.low, found.shift.high, found.shift.estimate)),
        found.control.summaries(),
        found.experiment.summaries(),
        strict=True,
    )
    judged = [_result(*column) for column in columns]
    for place, seen in (why or {}).items():
        judged[place] = replace(judged[place], reason=f"{judged[place].reason}, {seen}")
    return judged


def _result(
    metric: Metric,
    compared: bool,
    high: bool,
    low: bool,
    critical: bool,
    effect: float,
    least: float,
    most: float,
    estimate: float,
    control: Summary,
    experiment: Summary,
) -> MetricJudgement:
    has_data = control.count > 0 and experiment.count > 0
    name = label(metric, high=high, low=low, has_data=has_data)
    if compared and isnan(estimate):
        reason = "no difference beyond chance"
    elif compared:
        size = "undefined" if isnan(effect) else f"{effect:.4g}"
        reason = f"shift {estimate:.4g} [{least:.4g}, {most:.4g}], {metric.effect.measure} {size}"
    elif has_data:
        reason = "the same values on both sides"
    else:
        reason = f"no data in {'experiment' if control.count else 'control'}"
    return MetricJudgement(
        metric.name,
        metric.groups,
        name,
        metric.critical and (critical or name == "Nodata"),
        effect,
        least,
        most,
        estimate,
        reason,
        control,
        experiment,
        metric.muted,
    )
