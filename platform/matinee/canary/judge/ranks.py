"""The Mann-Whitney rank-sum test of many metrics at once, and the shift between samples by inverting it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, ndtri

from matinee.canary.judge.brent import zeros
from matinee.canary.judge.rows import Bools, Floats, Ints, Rows

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
        self._x, self._y = experiment, control
        self._full = experiment.full and control.full
        self._ties = _ties(experiment.values) + _ties(control.values)
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
        return np.asarray(u / (self._x.count * self._y.count))

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
        total = self._x.count + self._y.count
        most = np.minimum(4 * self._ties + 3 * total, total**3.0 - total)
        z = ndtri((1 + confidence) / 2)
        below, above = (
            self._standardised(self._statistic(shift, rows)[0], most, rows) for shift in (-off, off)
        )
        clamped = (self.least > -off) | (self.most < off)
        return np.flatnonzero(clamped | ~((below < z) & (above > -z)))

    def _standardised(self, u: Floats, ties: Floats, rows: Ints) -> Floats:
        n, m = self._x.count[rows], self._y.count[rows]
        total = n + m
        distance = u - n * m / 2
        with np.errstate(divide="ignore", invalid="ignore"):
            variance = n * m / 12 * (total + 1 - ties / (total * (total - 1)))
            return np.asarray((distance - np.sign(distance) / 2) / np.sqrt(variance))

    def _statistic(self, shift: Floats, rows: Ints) -> tuple[Floats, Floats]:
        """U of experiment over control, ties counted half; and the sum of t^3 - t over groups of ties."""
        size = max(1, BLOCK // (self._x.values.shape[1] + self._y.values.shape[1]))
        if len(rows) <= size:
            return self._block(shift, rows)
        starts = range(0, len(rows), size)
        parts = [self._block(shift[at : at + size], rows[at : at + size]) for at in starts]
        u, ties = (np.concatenate(each) for each in zip(*parts, strict=True))
        return u, ties

    def _block(self, shift: Floats, rows: Ints) -> tuple[Floats, Floats]:
        pooled = np.concatenate([self._x.values[rows] - shift[:, None], self._y.values[rows]], axis=1)
        order = np.argsort(pooled, axis=1)
        of_x = order < self._x.values.shape[1]
        ranked = pooled.ravel()[order + (np.arange(len(rows)) * pooled.shape[1])[:, None]]
        if not self._full:
            of_x &= ~np.isnan(ranked)
        n = self._x.count[rows]
        u = of_x @ np.arange(pooled.shape[1], dtype=np.float64) - n * (n - 1) / 2
        ties = self._ties[rows]
        mixed = (ranked[:, 1:] == ranked[:, :-1]) & (of_x[:, 1:] != of_x[:, :-1])
        tied = np.flatnonzero(mixed.any(axis=1))
        if len(tied):
            u[tied], ties[tied] = _tied(ranked[tied], of_x[tied])
        return u, ties


def _tied(ranked: Floats, of_x: Bools) -> tuple[Floats, Floats]:
    """`Ranks._statistic` of rows whose samples share values."""
    group, size = _groups(ranked)
    places = np.tile(np.arange(ranked.shape[1]), len(ranked))
    middle = (np.bincount(group, weights=places) / size)[group].reshape(ranked.shape)
    n = of_x.sum(axis=1)
    return (of_x * middle).sum(axis=1) - n * (n - 1) / 2, _ties(ranked)


def _ties(ranked: Floats) -> Floats:
    """The sum of t^3 - t over the groups of equal values of each sorted row."""
    found = np.zeros(len(ranked))
    rows = np.flatnonzero((ranked[:, 1:] == ranked[:, :-1]).any(axis=1))
    group, size = _groups(ranked[rows])
    found[rows] = (size[group] ** 2 - 1.0).reshape(len(rows), ranked.shape[1]).sum(axis=1)
    return found


def _groups(ranked: Floats) -> tuple[Ints, Ints]:
    """For each value, flat, the number of its group; and each group's size. A NaN is alone."""
    starts = np.ones(ranked.shape, np.bool_)
    starts[:, 1:] = ranked[:, 1:] != ranked[:, :-1]
    group = np.cumsum(starts.ravel()) - 1
    return group, np.bincount(group)
