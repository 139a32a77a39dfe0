"""The Mann-Whitney rank-sum test of many metrics at once, and the shift between samples by inverting it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.special import ndtr, ndtri

from matinee.canary.judge.brent import zeros
from matinee.canary.judge.pooled import Counted, count
from matinee.canary.judge.rows import Bools, Floats, Ints, Rows
from matinee.canary.judge.tallied import tallies, tally

ROOT_TOLERANCE = 1e-4
"""Where the zero finder stops. The statistic is a step function, so an interval's ends depend on it: R's and
Kayenta's value is kept."""

BLOCK = 50_000
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
        self._experiment, self._control = experiment, control
        self._n, self._m = experiment.count, control.count
        self._every = np.arange(len(experiment))

    @cached_property
    def least(self) -> Floats:
        """The least difference of two values, float64 [rows]: of no shift below it is anything known."""
        return self._experiment.least - self._control.most

    @cached_property
    def most(self) -> Floats:
        """The greatest, likewise."""
        return self._experiment.most - self._control.least

    def z(self, shift: Floats, rows: Ints | None = None) -> Floats:
        """The standardised rank sum of experiment minus `shift`, corrected for ties and continuity.

        Args:
            shift: one a row.
            rows: which to compare; all by default. A row may stand several times.

        Returns:
            float64; NaN where every value is tied.
        """
        rows = self._every if rows is None else rows
        return self._standardised(*self._statistic(shift, rows), rows)

    def p_value(self) -> Floats:
        """Two-sided, of no difference: what `scipy.stats.mannwhitneyu(method="asymptotic")` answers."""
        found = self._unshifted()
        return np.asarray(2 * ndtr(-np.abs(self._standardised(found.u, found.ties, self._every))))

    def superiority(self) -> Floats:
        """How likely a value of the experiment is above one of the control, ties counted half."""
        return np.asarray(self._unshifted().u / (self._n * self._m))

    def shift(self, confidence: float, rows: Ints | None = None) -> Shift:
        """The shift's interval and estimate: where `z` crosses its normal quantiles and zero.

        Ends beyond the differences that occur are clamped to them.

        Args:
            rows: of which; all by default.
        """
        asked = self if rows is None else Ranks(self._experiment.take(rows), self._control.take(rows))
        z = float(ndtri((1 + confidence) / 2))
        places = np.tile(asked._every, 3)
        levels = np.repeat([z, -z, 0.0], len(asked._every))
        low, high, estimate = zeros(
            lambda shift, at: asked.z(shift, places[at]) - levels[at],
            asked.least[places],
            asked.most[places],
            ROOT_TOLERANCE,
        ).reshape(3, -1)
        return Shift(low, high, estimate)

    def open(self, confidence: float) -> Ints:
        """Rows whose interval may leave out zero: of the others this is certain without finding it.

        At a zero finder's tolerance off zero, the statistic is compared with its quantile as if as many
        values were tied as can be: merging groups of sizes a and b costs at most 4(a^3 + b^3) - (a + b).
        """
        off = ROOT_TOLERANCE + 1e-12 * np.maximum(np.abs(self.least), np.abs(self.most))
        found = self._unshifted(off)
        total = self._n + self._m
        most = np.minimum(4 * found.ties + 3 * total, total**3.0 - total)
        z = ndtri((1 + confidence) / 2)
        below, above = (self._standardised(u, most, self._every) for u in (found.most, found.least))
        clamped = (self.least > -off) | (self.most < off)
        return np.flatnonzero(clamped | ~((below < z) & (above > -z)))

    def _standardised(self, u: Floats, ties: Floats, rows: Ints) -> Floats:
        n, m = self._n[rows], self._m[rows]
        total = n + m
        distance = u - n * m / 2
        with np.errstate(divide="ignore", invalid="ignore"):
            variance = n * m / 12 * (total + 1 - ties / (total * (total - 1)))
            return np.asarray((distance - np.sign(distance) / 2) / np.sqrt(variance))

    def _unshifted(self, off: Floats | None = None) -> Counted:
        """The statistic without a shift, and what it is at most and at least at shifts up to `off`."""
        x, y = self._experiment.given, self._control.given
        found = Counted.none(len(x))
        full = np.flatnonzero(self._experiment.full & self._control.full)
        for rows in _blocks(full, x.shape[1] + y.shape[1]):
            here = slice(rows[0], rows[-1] + 1) if rows[-1] - rows[0] == len(rows) - 1 else rows
            found.put(rows, _counted(x[here], y[here], None if off is None else off[here]))
        rest = np.flatnonzero(~found.exact)
        if len(rest):
            held = Distinct(self._experiment.take(rest), self._control.take(rest))
            shifts = [np.zeros(len(rest))] + ([] if off is None else [off[rest], -off[rest]])
            (u, ties), *others = (held.statistic(shift, np.arange(len(rest))) for shift in shifts)
            least, most = (each for each, _ in others) if others else (u, u)
            found.put(rest, Counted(u, ties, np.ones(len(rest), np.bool_), least, most))
        return found

    def _statistic(self, shift: Floats, rows: Ints) -> tuple[Floats, Floats]:
        """U of experiment over control, ties counted half; and the sum of t^3 - t over groups of ties."""
        u, ties, exact = np.zeros(len(rows)), np.zeros(len(rows)), np.zeros(len(rows), np.bool_)
        x, y = self._experiment.values, self._control.values
        for at in _blocks(np.flatnonzero(self._untied[rows]), x.shape[1] + y.shape[1]):
            found = count(x[rows[at]] - shift[at, None], y[rows[at]])
            u[at], ties[at], exact[at] = found.u, found.ties, found.exact
        rest = np.flatnonzero(~exact)
        if len(rest):
            u[rest], ties[rest] = self._distinct.statistic(shift[rest], rows[rest])
        return u, ties

    @cached_property
    def _untied(self) -> Bools:
        """Which rows lack no value on either side and hold none of them twice on one."""
        sides = (self._experiment, self._control)
        once = [(np.diff(side.values, axis=1) > 0).all(axis=1) & side.full for side in sides]
        return np.asarray(once[0] & once[1])

    @cached_property
    def _distinct(self) -> Distinct:
        return Distinct(self._experiment, self._control)


class Distinct:
    """The distinct values of pairs of samples, weighted by how often each occurs."""

    def __init__(self, experiment: Rows, control: Rows) -> None:
        (self._x, weights), (self._y, others) = (_distinct(side) for side in (experiment, control))
        self._weights = np.concatenate([weights, others], axis=1)
        self._ties = (self._weights**3 - self._weights).sum(axis=1)

    def statistic(self, shift: Floats, rows: Ints) -> tuple[Floats, Floats]:
        """U of experiment minus `shift` over control, ties counted half; and the sum of t^3 - t over ties."""
        u, ties = np.zeros(len(rows)), np.zeros(len(rows))
        for at in _blocks(np.arange(len(rows)), self._weights.shape[1]):
            u[at], ties[at] = self._block(shift[at], rows[at])
        return u, ties

    def _block(self, shift: Floats, rows: Ints) -> tuple[Floats, Floats]:
        pooled = np.concatenate([self._x[rows] - shift[:, None], self._y[rows]], axis=1)
        order = np.argsort(pooled, axis=1)
        flat = order + (np.arange(len(rows)) * pooled.shape[1])[:, None]
        ranked, of_x, ties = pooled.ravel()[flat], order < self._x.shape[1], self._ties[rows]
        weights = self._weights[rows].ravel()[flat]
        others = np.where(of_x, 0.0, weights)
        u = ((weights - others) * (np.cumsum(others, axis=1) - others)).sum(axis=1)
        mixed = (ranked[:, 1:] == ranked[:, :-1]) & (of_x[:, 1:] != of_x[:, :-1])
        tied = np.flatnonzero(mixed.any(axis=1))
        if len(tied):
            held = weights[tied]
            pairs = mixed[tied] * held[:, 1:] * held[:, :-1]
            u[tied] += (pairs * (of_x[tied, :-1] - 0.5)).sum(axis=1)
            ties[tied] += 3 * (pairs * (held[:, 1:] + held[:, :-1])).sum(axis=1)
        return u, ties


def _counted(x: Floats, y: Floats, off: Floats | None) -> Counted:
    """`tally` where it can, else `count`."""
    fit = tallies(x, y)
    if fit.all():
        return tally(x, y)
    if not fit.any():
        return count(x, y, off)
    found = Counted.none(len(x))
    found.put(np.flatnonzero(fit), tally(x[fit], y[fit]))
    found.put(np.flatnonzero(~fit), count(x[~fit], y[~fit], None if off is None else off[~fit]))
    return found


def _blocks(places: Ints, width: int) -> list[Ints]:
    """Parts of some places of which `BLOCK` values are worked on at a time."""
    size = max(1, BLOCK // width)
    return [places[at : at + size] for at in range(0, len(places), size)]


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
