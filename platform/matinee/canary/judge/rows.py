"""Samples of many metrics side by side, and what describes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Summary:
    """What a sample looks like; all zero where it is empty. `std` divides by n - 1, 0 for one value."""

    count: int
    min: float
    max: float
    mean: float
    std: float
    median: float


class Rows:
    """A sample a row.

    Args:
        given: float64 [rows, width], in any order; NaN counts as missing.

    Attributes:
        given: likewise, one column at least.
        count: int [rows], values that are not missing.
    """

    def __init__(self, given: Floats) -> None:
        self.given: Floats = given if given.shape[1] else np.full((len(given), 1), np.nan)
        self.count: Ints = np.count_nonzero(~np.isnan(self.given), axis=1)

    def __len__(self) -> int:
        return len(self.given)

    @cached_property
    def values(self) -> Floats:
        """The samples in order, ascending, float64 [rows, width]; NaN fills what one lacks, at its end."""
        return np.sort(self.given, axis=1)

    def take(self, rows: Ints) -> Rows:
        """The samples at positions `rows`."""
        taken = object.__new__(Rows)
        taken.count = self.count[rows]
        if "values" in vars(self):
            taken.values = taken.given = self.values[rows]
        else:
            taken.given = self.given[rows]
        return taken

    @property
    def full(self) -> Bools:
        """Which rows lack no value."""
        return np.asarray(self.count == self.given.shape[1])

    @cached_property
    def least(self) -> Floats:
        """Smallest values, float64 [rows]; NaN of an empty sample."""
        return np.asarray(self.values[:, 0])

    @cached_property
    def most(self) -> Floats:
        """Greatest values, likewise."""
        return np.asarray(self.values[np.arange(len(self)), np.maximum(self.count, 1) - 1])

    @cached_property
    def mean(self) -> Floats:
        """Arithmetic means, likewise."""
        return self._moments[0]

    @cached_property
    def std(self) -> Floats:
        """Standard deviations over n - 1, likewise; 0 of one value."""
        return np.asarray(np.sqrt(self._moments[1]))

    @cached_property
    def _moments(self) -> tuple[Floats, Floats]:
        return moments(self.values, self.count)

    def quantile(self, share: float) -> Floats:
        """R's type 7: linear between the values around (n - 1) share, likewise."""
        place = share * np.maximum(self.count - 1, 0)
        below = np.floor(place).astype(np.intp)
        above = np.minimum(below + 1, np.maximum(self.count, 1) - 1)
        rows = np.arange(len(self))
        low, high = self.values[rows, below], self.values[rows, above]
        with np.errstate(invalid="ignore"):
            return np.where(low == high, low, low + (place - below) * (high - low))

    def summaries(self) -> list[Summary]:
        """One a row."""
        columns = (self.least, self.most, self.mean, self.std, self.quantile(0.5))
        shown = (np.where(self.count, column, 0.0).tolist() for column in columns)
        return list(map(Summary, self.count.tolist(), *shown))


def moments(values: Floats, count: Ints) -> tuple[Floats, Floats]:
    """Means and variances over n - 1 of rows, NaN where there is no value; 0 is the variance of one."""
    add = np.sum if (count == values.shape[1]).all() else np.nansum
    with np.errstate(invalid="ignore"):
        mean = add(values, axis=1) / np.where(count, count, np.nan)
        return mean, add((values - mean[:, None]) ** 2, axis=1) / np.maximum(count - 1, 1)


def pad(samples: Sequence[npt.NDArray[Any]]) -> tuple[Floats, Bools]:
    """One-dimensional samples as rows of float64, filled with NaN; and where their own values are."""
    lengths = np.fromiter(map(len, samples), np.intp, len(samples))
    if len(samples) and (lengths == lengths[0]).all():
        rows = np.array(samples, np.float64)
        return rows, np.ones(rows.shape, np.bool_)
    padded = np.full((len(samples), int(lengths.max(initial=0))), np.nan)
    held = np.arange(padded.shape[1]) < lengths[:, None]
    if len(samples):
        padded[held] = np.concatenate(samples)
    return padded, held


def outliers_iqr(values: Floats, factor: float, *, reduce_sensitivity: bool = False) -> Bools:
    """Which values lie beyond the quartiles by more than `factor` times their distance.

    Args:
        values: float64 [n], without NaN.
        reduce_sensitivity: the fences lie at the 1st and 99th percentiles at least.
    """
    if not len(values):
        return np.zeros(0, np.bool_)
    first, low, high, last = np.quantile(values, [0.01, 0.25, 0.75, 0.99])
    below, above = low - factor * (high - low), high + factor * (high - low)
    if reduce_sensitivity:
        below, above = min(below, first), max(above, last)
    return np.asarray((values < below) | (values > above))


def outliers_sigma(values: Floats, factor: float) -> Bools:
    """Which values lie further from the mean than `factor` standard deviations (over n).

    Args:
        values: float64 [n], without NaN.
    """
    if not len(values):
        return np.zeros(0, np.bool_)
    return np.asarray(np.abs(values - values.mean()) > factor * values.std())


def mean_ratio(experiment: Rows, control: Rows) -> Floats:
    """Experiment's mean over control's, float64 [rows]; NaN where either is 0."""
    zero = (experiment.mean == 0) | (control.mean == 0)
    ratio = np.full(len(control), np.nan)
    return np.asarray(np.divide(experiment.mean, control.mean, out=ratio, where=~zero))


def cohen_d(experiment: Rows, control: Rows) -> Floats:
    """The distance of the means in pooled standard deviations, float64 [rows]."""
    squares = (experiment.count - 1) * experiment.std**2 + (control.count - 1) * control.std**2
    with np.errstate(divide="ignore", invalid="ignore"):
        pooled = np.sqrt(squares / (experiment.count + control.count - 2))
        return np.asarray(np.abs(experiment.mean - control.mean) / pooled)
