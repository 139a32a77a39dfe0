"""What the interval of a shift cannot see: a metric that sits at one value, and a change of spread alone.

Either test applies to a metric, never both, so that a metric without a change fails by them at most as often
as `SIDE` says for each direction that is watched.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy.special import ndtr, stdtr

from matinee.canary.judge.classify import Classified, Rules
from matinee.canary.judge.config import Metric
from matinee.canary.judge.ranks import Ranks
from matinee.canary.judge.rows import Bools, Floats, Rows, moments

SIDE = 0.015
"""Chance of a false alarm for each direction, at 100 values of both sides together. By Good's standardised
tail areas (Journal of Statistical Computation and Simulation 16, 1982) it goes with 1 / sqrt(values): a few
values may speak, and many don't alarm about trifles."""
STANDARD = 100
ATOM = 0.5
"""A value that more than this share of a metric is equal to. Ranks are then tied at it, and so is the end of
an interval: the rank-sum test itself, corrected for ties, decides."""
SPREAD = 1.25
"""Least ratio of spreads that counts."""
LEAST = 10
"""Values a side below which spreads are not compared."""


def beyond(metrics: Sequence[Metric], found: Classified) -> tuple[Classified, dict[int, str]]:
    """Add what the interval of the shift leaves open.

    A wider spread is High, of a metric whose decrease alone is harmful Low; a narrower one is Low where
    either direction is harmful. Where one direction alone is harmful and the interval of the shift lies on
    the other side, spread says nothing: a level that is better often varies more. Limits on the effect size
    say nothing about spread, but a metric with critical ones is not critical by it.

    Returns:
        What was found in all, and by position of a metric what was seen beyond the shift.
    """
    rows = np.flatnonzero(found.compared)
    here, there = found.experiment.take(rows), found.control.take(rows)
    level = SIDE * np.sqrt(STANDARD / (here.count + there.count))
    value, sits = _atom(here, there)
    upwards, downwards, wider, narrower = np.zeros((4, len(metrics)), np.bool_)
    why: dict[int, str] = {}

    off = np.flatnonzero(sits)
    z = Ranks(here.take(off), there.take(off)).z(np.zeros(len(off)))
    upwards[rows[off]], downwards[rows[off]] = ndtr(-z) <= level[off], ndtr(z) <= level[off]
    for place in np.flatnonzero(ndtr(-np.abs(z)) <= level[off]):
        why[int(rows[off[place]])] = f"departs from {value[off[place]]:.4g}, where the metric sits"

    free = np.flatnonzero(~sits & (np.minimum(here.count, there.count) >= LEAST))
    ratio, t, freedom = _spread(here.take(free), there.take(free))
    capped = np.minimum(level[free], SIDE)
    wider[rows[free]] = (stdtr(freedom, -t) <= capped) & (ratio >= SPREAD)
    narrower[rows[free]] = (stdtr(freedom, t) <= capped) & (ratio <= 1 / SPREAD)
    for place in np.flatnonzero((wider | narrower)[rows[free]]):
        why[int(rows[free[place]])] = f"spread is {ratio[place]:.3g} times the control's"

    rules = Rules(metrics, found.effect)
    wider &= ~((~rules.up & (found.shift.low > 0)) | (~rules.down & (found.shift.high < 0)))
    high = found.high | (rules.up & ((upwards & rules.increased) | wider))
    low = rules.down & ((downwards & rules.decreased) | (wider & ~rules.up) | (narrower & rules.up))
    low = (found.low | low) & ~high
    sizes = [metric.effect for metric in metrics]
    plain = np.array([each.critical_increase is each.critical_decrease is None for each in sizes], np.bool_)
    critical = (
        found.critical
        | (high & upwards & rules.critically_increased)
        | (low & downwards & rules.critically_decreased)
        | ((high | low) & (wider | narrower) & plain)
    )
    return replace(found, high=high, low=low, critical=critical), why


def _atom(experiment: Rows, control: Rows) -> tuple[Floats, Bools]:
    """The median of both samples together, and whether more than `ATOM` of the values equal it."""
    pooled = Rows(np.concatenate([experiment.values, control.values], axis=1))
    value = pooled.values[np.arange(len(pooled)), (pooled.count - 1) // 2]
    return value, (pooled.values == value[:, None]).sum(axis=1) > ATOM * pooled.count


def _spread(experiment: Rows, control: Rows) -> tuple[Floats, Floats, Floats]:
    """Ratio of the mean distances from the median; their t and its degrees of freedom.

    Brown and Forsythe's test (Journal of the American Statistical Association 69, 1974), by Welch's t.
    """
    (here, wide), (there, narrow) = (
        moments(np.abs(side.values - side.quantile(0.5)[:, None]), side.count)
        for side in (experiment, control)
    )
    errors = wide / experiment.count, narrow / control.count
    with np.errstate(divide="ignore", invalid="ignore"):
        t = (here - there) / np.sqrt(errors[0] + errors[1])
        parts = errors[0] ** 2 / (experiment.count - 1) + errors[1] ** 2 / (control.count - 1)
        return here / there, t, (errors[0] + errors[1]) ** 2 / parts
