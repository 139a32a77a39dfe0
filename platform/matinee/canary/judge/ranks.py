"""The Mann-Whitney rank-sum test of many metrics at once, and the shift between samples by inverting it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, ndtri

from matinee.canary.judge.brent import zeros
from matinee.canary.judge.rows import Floats, Ints, Rows

ROOT_TOLERANCE = 1e-4
"""Where the zero finder stops. The statistic is a step function, so an interval's ends depend on it: R's and
Kayenta's value is kept."""

BLOCK = 25_000
"""Values worked on at a time: they stay in the processor's cache."""


@dataclass(frozen=True)
class Shift:
    """By how much the experiment lies above the control: float64, one value a row.

    Args:
        low: lower end of the interval; `high`: upper end.
        estimate: of Hodges and Lehmann, the shift at which the ranks are balanced.
    """

    low: Floats
    high: Floats
    estimate: Floats


class Ranks:
    """Pairs of samples, none empty, to be compared at any shift."""

    def __init__(self, experiment: Rows, control: Rows) -> None:
        self._n, self._m = experiment.count, control.count
        sides = [_distinct(side) for side in (experiment, control)]
        (self._x, weights), (self._y, others) = sides
        self._weights = np.concatenate([weights, others], axis=1)
        self._alone = bool((self._weights == 1).all())
        self._ties = (self._weights**3 - self._weights).sum(axis=1)
        self.least = experiment.least - control.most
        self.most = experiment.most - control.least

    def z(self, shift: Floats, rows: Ints | None = None) -> Floats:
        """The standardised rank sum of experiment minus `shift`, corrected for ties and continuity.

        Args:
            shift: one a row.
            rows: which to compare; all by default. A row may stand several times.

        Returns:
            float64; NaN where every value is tied.
        """
        rows = np.arange(len(self._x)) if rows is None else rows
        u, ties = self._statistic(shift, rows)
        return self._standardised(u, ties, rows)

    def p_value(self) -> Floats:
        """Two-sided, of no difference: what `scipy.stats.mannwhitneyu(method="asymptotic")` answers."""
        return np.asarray(2 * ndtr(-np.abs(self.z(np.zeros(len(self._x))))))

    def superiority(self) -> Floats:
        """How likely a value of the experiment is above one of the control, ties counted half."""
        u, _ = self._statistic(np.zeros(len(self._x)), np.arange(len(self._x)))
        return np.asarray(u / (self._n * self._m))

    def shift(self, confidence: float, rows: Ints | None = None) -> Shift:
        """The shift's interval and estimate: where `z` crosses its normal quantiles and zero.

        Ends beyond the differences that occur are clamped to them.

        Args:
            rows: of which; all by default.
        """
        which = np.arange(len(self._x)) if rows is None else rows
        z = float(ndtri((1 + confidence) / 2))
        rows = np.tile(which, 3)
        levels = np.repeat([z, -z, 0.0], len(which))
        low, high, estimate = zeros(
            lambda shift, places: self.z(shift, rows[places]) - levels[places],
            self.least[rows],
            self.most[rows],
            ROOT_TOLERANCE,
        ).reshape(3, len(which))
        return Shift(low, high, estimate)

    def open(self, confidence: float) -> Ints:
        """Rows whose interval may leave out zero: of the others this is certain without finding it.

        At a zero finder's tolerance off zero, the statistic is compared with its quantile as if as many
        values were tied as can be: merging groups of sizes a and b costs at most 4(a^3 + b^3) - (a + b).
        """
        rows = np.arange(len(self._x))
        off = ROOT_TOLERANCE + 1e-12 * np.maximum(np.abs(self.least), np.abs(self.most))
        total = self._n + self._m
        most = np.minimum(4 * self._ties + 3 * total, total**3.0 - total)
        z = ndtri((1 + confidence) / 2)
        below, above = (
            self._standardised(self._statistic(shift, rows)[0], most, rows) for shift in (-off, off)
        )
        clamped = (self.least > -off) | (self.most < off)
        return np.flatnonzero(clamped | ~((below < z) & (above > -z)))

    def _standardised(self, u: Floats, ties: Floats, rows: Ints) -> Floats:
        n, m = self._n[rows], self._m[rows]
        total = n + m
        distance = u - n * m / 2
        with np.errstate(divide="ignore", invalid="ignore"):
            variance = n * m / 12 * (total + 1 - ties / (total * (total - 1)))
            return np.asarray((distance - np.sign(distance) / 2) / np.sqrt(variance))

    def _statistic(self, shift: Floats, rows: Ints) -> tuple[Floats, Floats]:
        """U of experiment over control, ties counted half; and the sum of t^3 - t over groups of ties."""
        size = max(1, BLOCK // self._weights.shape[1])
        if len(rows) <= size:
            return self._block(shift, rows)
        starts = range(0, len(rows), size)
        parts = [self._block(shift[at : at + size], rows[at : at + size]) for at in starts]
        u, ties = (np.concatenate(each) for each in zip(*parts, strict=True))
        return u, ties

    def _block(self, shift: Floats, rows: Ints) -> tuple[Floats, Floats]:
        pooled = np.concatenate([self._x[rows] - shift[:, None], self._y[rows]], axis=1)
        order = np.argsort(pooled, axis=1)
        flat = order + (np.arange(len(rows)) * pooled.shape[1])[:, None]
        ranked, of_x, ties = pooled.ravel()[flat], order < self._x.shape[1], self._ties[rows]
        if self._alone:
            n = self._n[rows]
            u = of_x @ np.arange(pooled.shape[1], dtype=np.float64) - n * (n - 1) / 2
        else:
            weights = self._weights[rows].ravel()[flat]
            others = np.where(of_x, 0.0, weights)
            u = ((weights - others) * (np.cumsum(others, axis=1) - others)).sum(axis=1)
        mixed = (ranked[:, 1:] == ranked[:, :-1]) & (of_x[:, 1:] != of_x[:, :-1])
        tied = np.flatnonzero(mixed.any(axis=1))
        if len(tied):
            held = np.take_along_axis(self._weights[rows[tied]], order[tied], axis=1)
            pairs = mixed[tied] * held[:, 1:] * held[:, :-1]
            u[tied] += (pairs * (of_x[tied, :-1] - 0.5)).sum(axis=1)
            ties[tied] += 3 * (pairs * (held[:, 1:] + held[:, :-1])).sum(axis=1)
        return u, ties


def _distinct(side: Rows) -> tuple[Floats, Floats]:
    """Each row's distinct values, ascending, and how often each occurs, 0 where NaN fills the row."""
    held = ~np.isnan(side.values)
    starts = held.copy()
    starts[:, 1:] &= side.values[:, 1:] != side.values[:, :-1]
    if (starts == held).all():
        return side.values, held.astype(np.float64)
    width = int(starts.sum(axis=1).max())
    place = np.cumsum(starts, axis=1) - 1 + (np.arange(len(side)) * width)[:, None]
    values = np.full(len(side) * width, np.nan)
    values[place[starts]] = side.values[starts]
    weights = np.bincount(place[held], minlength=len(values)).astype(np.float64)
    return values.reshape(-1, width), weights.reshape(-1, width)
