"""Bootstrap intervals over members: of a model's figures, and of two models on the same cases. Pure.

Intervals are percentile bootstraps (Efron 1979). Members are drawn, with all their cases: the cases of a
replay are no independent witnesses. The draws depend on the seed and the number of members alone: models
measured on the same cases share them, which is what pairs `difference` and `ratio`.

A resample holds about 63% of the distinct members, so it lists fewer titles: the intervals of coverage
and Gini are moved by that bias to stand around the measured value.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
from scipy import sparse

from matinee.schema import Estimate
from matinee.training.evaluate.metrics import METRICS, POOLED, Outcome, Values

BLOCK = 32
"""Resamples held at a time."""


def estimate(
    judged: Outcome,
    *,
    seed: int,
    metrics: Iterable[str] = METRICS,
    resamples: int = 1000,
    confidence: float = 0.95,
) -> dict[str, Estimate]:
    """Each metric's mean over cases with its interval.

    Args:
        metrics: those the outcome has no value of are left out.

    Raises:
        ValueError: there is no case to judge.
    """
    wanted = list(metrics)
    own = [name for name in wanted if not np.isnan(judged.values.get(name, np.nan)).all()]
    pooled = [name for name in wanted if name in POOLED]
    values = np.array([judged.values[name] for name in own]).reshape(len(own), len(judged.members)).T
    known = ~np.isnan(values)
    owner = _owners(judged)
    sums, counts = _totals(np.where(known, values, 0), owner), _totals(known, owner)
    listed = _listed(judged, owner)
    means, shares = [], []
    for drawn in _draws(len(sums), seed, resamples):
        with np.errstate(invalid="ignore"):
            means.append(drawn @ sums / (drawn @ counts))
        if pooled:
            shares.append(_pooled((listed.T @ drawn.T).T, judged.titles, pooled))
    measured = sums.sum(0) / counts.sum(0)
    found = _estimates(own, measured, np.concatenate(means), confidence)
    if pooled:
        every = np.asarray(listed.sum(0)).reshape(1, -1)
        value, drawn = _pooled(every, judged.titles, pooled)[0], np.concatenate(shares)
        moved = np.clip(drawn + (value - drawn.mean(0)), 0, 1)
        found |= _estimates(pooled, value, moved, confidence)
    return {name: found[name] for name in wanted if name in found}


def difference(
    judged: Outcome,
    other: Outcome,
    metric: str,
    *,
    seed: int,
    resamples: int = 1000,
    confidence: float = 0.95,
) -> Estimate:
    """How much higher the mean of a metric is than another model's on the same cases: a paired bootstrap."""
    means = _paired(judged, other, metric, seed, resamples)
    return _interval(means[:, 0] - means[:, 1], confidence)


def ratio(
    judged: Outcome,
    other: Outcome,
    metric: str,
    *,
    seed: int,
    resamples: int = 1000,
    confidence: float = 0.95,
) -> Estimate:
    """The mean of a metric over that of another model on the same cases: a paired bootstrap.

    Returns:
        `high` is infinite where too many resamples have nothing of the other model's.

    Raises:
        ValueError: the other model's mean is not above zero.
    """
    own, others = _paired(judged, other, metric, seed, resamples).T
    if others[0] <= 0:
        raise ValueError(f"no ratio of {metric}: the other model's mean is {others[0]:g}, not above zero")
    with np.errstate(divide="ignore", invalid="ignore"):
        return _interval(own / others, confidence)


def _paired(judged: Outcome, other: Outcome, metric: str, seed: int, resamples: int) -> Values:
    """Both models' means: of all cases in the first row, then of each resample."""
    if not np.array_equal(judged.members, other.members):
        raise ValueError("two models can only be compared on the same cases")
    owner = _owners(judged)
    sums = _totals(np.stack([judged.values[metric], other.values[metric]], axis=1), owner)
    counts = _totals(np.ones((len(owner), 1)), owner)
    drawn = [draw @ sums / (draw @ counts) for draw in _draws(len(sums), seed, resamples)]
    return np.concatenate([sums.sum(0, keepdims=True) / counts.sum(), *drawn])


def _interval(figures: Values, confidence: float) -> Estimate:
    return _estimates([""], figures[:1], figures[1:, None], confidence)[""]


def _estimates(names: Sequence[str], values: Values, drawn: Values, confidence: float) -> dict[str, Estimate]:
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    # Without interpolation: a ratio may be infinite.
    bounds = [np.quantile(column[~np.isnan(column)], tails, method="inverted_cdf") for column in drawn.T]
    return {
        name: Estimate(value=float(value), low=float(low), high=float(high))
        for name, value, (low, high) in zip(names, values, bounds, strict=True)
    }


def _owners(judged: Outcome) -> npt.NDArray[np.intp]:
    """Members counted from 0, by case."""
    return np.unique(judged.members, return_inverse=True)[1]


def _totals(values: npt.NDArray[np.float64 | np.bool_], owner: npt.NDArray[np.intp]) -> Values:
    """Sums over each member's cases, float64 [members, columns]."""
    totals = np.zeros((int(owner.max(initial=-1)) + 1, values.shape[1]))
    np.add.at(totals, owner, values)
    return totals


def _draws(members: int, seed: int, resamples: int) -> Iterator[Values]:
    """How often each member stands in each resample: float64 [up to BLOCK, members] at a time."""
    if members == 0:
        raise ValueError("no member has a test interaction: there is nothing to evaluate")
    generator = np.random.default_rng(seed)
    for start in range(0, resamples, BLOCK):
        size = min(BLOCK, resamples - start)
        drawn = generator.integers(0, members, (size, members)) + np.arange(size)[:, None] * members
        counts = np.bincount(drawn.ravel(), minlength=size * members)
        yield counts.reshape(size, members).astype(np.float64)


def _listed(judged: Outcome, owner: npt.NDArray[np.intp]) -> sparse.csr_matrix:
    """How often each member's lists hold each title that any list holds: [members, listed titles]."""
    rows = np.repeat(owner, (judged.lists >= 0).sum(1))
    listed, columns = np.unique(judged.lists[judged.lists >= 0], return_inverse=True)
    shape = (int(owner.max(initial=-1)) + 1, len(listed))
    return sparse.csr_matrix((np.ones(len(rows)), (rows, columns)), shape=shape)


def _pooled(exposure: Values, titles: int, names: Sequence[str]) -> Values:
    """Metrics of `POOLED` for rows of how often titles are listed: [rows, listed titles] to [rows, names]."""
    found: dict[str, Values] = {"coverage": (exposure > 0).sum(1) / titles}
    if "gini" in names:
        ranks = np.arange(titles - exposure.shape[1] + 1, titles + 1)
        total = np.maximum(exposure.sum(1), 1)
        found["gini"] = np.sort(exposure, axis=1) @ (2 * ranks - titles - 1) / (titles * total)
    return np.stack([found[name] for name in names], axis=1)
