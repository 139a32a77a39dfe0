"""A label for each metric: Kayenta's Mann-Whitney classifier, many metrics at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import numpy.typing as npt

from matinee.canary.judge.config import Metric
from matinee.canary.judge.ranks import Ranks, Shift
from matinee.canary.judge.rows import Bools, Floats, Ints, Rows, mean_ratio, outliers_iqr, pad
from matinee.canary.judge.score import Label

TOLERANCE = 0.25
"""Share of the estimated shift that the interval must stay off zero by."""
CONFIDENCE = 0.98
"""Of the interval of the shift."""
NOISE = 1e-5
"""Standard deviation of what is added to two constants that differ, as a share of each: without it every
value is tied at some shift and there is no interval."""


@dataclass(frozen=True, kw_only=True)
class Classified:
    """What was found about each metric: arrays of one value a metric.

    Args:
        high: bool, the experiment lies above the control by more than is allowed; `low`: below.
        compared: bool, both sides have values, and not the same ones.
        critical: bool, the difference is as large as a critical metric needs to fail the canary.
        effect: float64, the size of the difference by the metric's measure; NaN where it is undefined.
        shift: NaN where nothing was compared.
    """

    control: Rows
    experiment: Rows
    high: Bools
    low: Bools
    compared: Bools
    critical: Bools
    effect: Floats
    shift: Shift


def prepare(metrics: Sequence[Metric], samples: Sequence[npt.NDArray[np.float64]]) -> Rows:
    """Samples as they are judged: missing values and outliers treated as each metric says.

    Args:
        samples: float64 [n] a metric, NaN where a value is missing.
    """
    values, held = pad(samples)
    zero = np.array([metric.nan_strategy == "replace" for metric in metrics], np.bool_)
    if zero.any():
        values[zero[:, None] & held & np.isnan(values)] = 0.0
    for place, metric in enumerate(metrics):
        if metric.outliers == "remove":
            known = np.flatnonzero(~np.isnan(values[place]))
            outlying = outliers_iqr(values[place, known], metric.outlier_factor, reduce_sensitivity=True)
            values[place, known[outlying]] = np.nan
    return Rows(values)


class Rules:
    """What the metrics allow: arrays of one value a metric.

    Args:
        effect: float64, what was found of each metric's measure. Where it is undefined, no limit holds.
    """

    def __init__(self, metrics: Sequence[Metric], effect: Floats) -> None:
        self.up = np.array([metric.direction != "decrease" for metric in metrics], np.bool_)
        self.down = np.array([metric.direction != "increase" for metric in metrics], np.bool_)
        each = chain.from_iterable(metric.effect.limits() for metric in metrics)
        limits = np.fromiter(each, np.float64, 4 * len(metrics)).reshape(-1, 4).T
        self.increased, self.critically_increased = ~(effect < limits[0]), ~(effect < limits[2])
        self.decreased, self.critically_decreased = ~(effect > limits[1]), ~(effect > limits[3])


def classify(
    metrics: Sequence[Metric],
    control: Rows,
    experiment: Rows,
    *,
    seed: int,
    intervals: bool = True,
    tolerance: float = TOLERANCE,
    confidence: float = CONFIDENCE,
) -> Classified:
    """Compare experiment with control.

    Args:
        control: a prepared sample a metric; `experiment` likewise.
        seed: of the noise, see `NOISE`.
        intervals: find them all; else only those that a label depends on.
    """
    compared = (control.count > 0) & (experiment.count > 0) & ~_same(control, experiment)
    rows = np.flatnonzero(compared)
    here, there = experiment.take(rows), control.take(rows)
    ranks = Ranks(*_noisy(here, there, seed=seed))
    open_rows = np.arange(len(rows)) if intervals else ranks.open(confidence)
    found = ranks.shift(confidence, open_rows)
    shift = Shift(*(_spread(each, rows[open_rows], len(metrics)) for each in vars(found).values()))
    effect = np.ones(len(metrics))
    effect[rows] = mean_ratio(experiment, control)[rows]
    by_cles = np.array([metric.effect.measure == "cles" for metric in metrics], np.bool_) & compared
    if by_cles.any():
        by_rank = np.flatnonzero(by_cles)
        effect[by_rank] = Ranks(experiment.take(by_rank), control.take(by_rank)).superiority()
    rules = Rules(metrics, effect)
    margin = tolerance * np.abs(shift.estimate)
    high = (shift.low > margin) & rules.up & rules.increased
    low = (shift.high < -margin) & rules.down & rules.decreased & ~high
    return Classified(
        control=control,
        experiment=experiment,
        compared=compared,
        high=high,
        low=low,
        critical=(high & rules.critically_increased) | (low & rules.critically_decreased),
        effect=effect,
        shift=shift,
    )


def label(metric: Metric, *, high: bool, low: bool, has_data: bool) -> Label:
    """What is said of a metric."""
    if not has_data and metric.nan_strategy == "remove":
        return "NodataFailMetric" if metric.must_have_data and not metric.critical else "Nodata"
    return "High" if high else "Low" if low else "Pass"


def _same(control: Rows, experiment: Rows) -> Bools:
    """Whether both samples hold the same values, or one value alone."""
    width = min(control.values.shape[1], experiment.values.shape[1])
    here, there = control.values[:, :width], experiment.values[:, :width]
    equal = ((here == there) | np.isnan(here)).all(axis=1) & (control.count == experiment.count)
    one = (control.least == control.most) & (experiment.least == experiment.most)
    return np.asarray(equal | (one & (control.least == experiment.least)))


def _noisy(experiment: Rows, control: Rows, *, seed: int) -> tuple[Rows, Rows]:
    rows = np.flatnonzero((control.least == control.most) & (experiment.least == experiment.most))
    if not len(rows):
        return experiment, control
    draw = np.random.default_rng(seed)
    sides = []
    for side in (experiment, control):
        values = side.values.copy()
        values[rows] += draw.normal(size=(len(rows), values.shape[1])) * NOISE * np.abs(values[rows])
        sides.append(Rows(values))
    return sides[0], sides[1]


def _spread(values: Floats, rows: Ints, count: int) -> Floats:
    whole = np.full(count, np.nan)
    whole[rows] = values
    return whole
