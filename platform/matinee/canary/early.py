"""Early abort: evidence of harm that may be looked at after every request.

Every test here is anytime-valid: the chance that it ever aborts a canary that does no harm stays under
`alpha`, however often one looks. Each is a function of cumulative statistics, so the state of a canary is a
row. The two sides' exposure must grow in a fixed proportion, as when a split draws the side of each member.

Counts: given an event, the side it fell on is a draw of known odds, so the number of events on the canary's
side is tested by a mixture of likelihood ratios (Lindon and Malek, Anytime-valid inference for multinomial
count data, 2022). Means: a one-sided Gaussian mixture over the standardised difference, an asymptotic
confidence sequence (Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas, 2024). Rates: both. Quantiles: the
events beyond the baseline's quantile, wherever in a time-uniform band that lies (Howard and Ramdas,
Sequential estimation of quantiles with applications to A/B testing and best-arm identification, 2022).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.special import betaincc, betaln, log_ndtr, logsumexp

from matinee.errors import InvalidInput
from matinee.schema import Decision

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Counts = npt.NDArray[np.int64]
Kind = Literal["rate", "count", "mean", "quantile"]
Harm = Literal["increase", "decrease"]

SCALES = (2.0, 100.0, 5_000.0)
"""The mixtures expect effects of as many standard errors as so many observations have: large effects are
found within tens of observations, small ones within tens of thousands."""
BAND = 0.2
"""Part of alpha spent on where the baseline's quantile lies."""
_CELLS = 64
"""Stretches that a quantile's band is searched in."""
LEAST = 50
"""Observations a side before a mean is tested: its test is asymptotic."""
_MOST = 1e6
"""Times what is allowed: beyond, a bound is not searched for."""


@dataclass(frozen=True, kw_only=True)
class Limit:
    """What harm aborts a canary.

    Args:
        kind: "rate" reads `Rate`, "count" `Count`, "mean" `Moments`, "quantile" `Values` or `Histogram`.
        harm: which change is harmful.
        alpha: chance that a canary without harm is ever aborted by this limit.
        tolerance: harm that is accepted, relative to the baseline: 0.1 is a tenth more (or less).
        quantile: which, 0 to 1, of kind "quantile".

    Raises:
        InvalidInput: a number is out of its range, or a quantile is missing or not asked for.
    """

    metric: str
    kind: Kind
    harm: Harm = "increase"
    alpha: float = 0.05
    tolerance: float = 0.0
    quantile: float | None = None

    @property
    def sign(self) -> int:
        """Which way harm lies."""
        return 1 if self.harm == "increase" else -1

    def __post_init__(self) -> None:
        if not 0 < self.alpha < 1:
            raise InvalidInput(
                f"limit on {self.metric}: alpha is {self.alpha:g}; between 0 and 1 is accepted"
            )
        if not (self.tolerance >= 0 and (self.tolerance < 1 or self.harm == "increase")):
            raise InvalidInput(
                f"limit on {self.metric}: tolerance is {self.tolerance:g}; 0 or more is accepted"
            )
        if (self.kind == "quantile") != (self.quantile is not None and 0 < self.quantile < 1):
            raise InvalidInput(
                f"limit on {self.metric}: quantile is {self.quantile}; kind quantile takes one between 0 "
                "and 1, other kinds none"
            )


@dataclass(frozen=True, kw_only=True)
class Rate:
    """Successes among trials."""

    successes: int
    trials: int


@dataclass(frozen=True, kw_only=True)
class Count:
    """Events over an exposure (requests, seconds, members) in one unit on both sides."""

    count: int
    exposure: float


@dataclass(frozen=True, kw_only=True)
class Moments:
    """Mean and variance (over n) of n values."""

    n: int
    mean: float
    variance: float


@dataclass(frozen=True, kw_only=True)
class Values:
    """Values themselves: float64 [n], ascending, none below zero."""

    values: Floats

    @property
    def n(self) -> int:
        """How many."""
        return len(self.values)

    @property
    def least(self) -> float:
        """No value is below it."""
        return float(self.values[0]) if self.n else 0.0

    def up_to(self, limits: Floats) -> tuple[Counts, Counts]:
        """How many values are not above each limit: at least, at most."""
        count = np.searchsorted(self.values, limits, "right")
        return count, count

    def at(self, quantile: float) -> float:
        """The value that so large a share is not above."""
        return float(self.values[int(np.ceil(self.n * quantile)) - 1])

    def between(self, low: int, high: int) -> Floats:
        """Points from one where at most `low` values are below to one that at least `high` are not above."""
        return self.values[low:high]


@dataclass(frozen=True, kw_only=True)
class Histogram:
    """Values counted between edges: float64 [b + 1] ascending, none below zero, and int64 [b]."""

    edges: Floats
    counts: Counts

    @property
    def n(self) -> int:
        """How many values were counted."""
        return int(self.counts.sum())

    @property
    def least(self) -> float:
        """As `Values.least`."""
        return float(self.edges[0])

    def up_to(self, limits: Floats) -> tuple[Counts, Counts]:
        """As `Values.up_to`."""
        below = self._below()
        sure = np.searchsorted(self.edges, limits, "right") - 1
        least = np.where(sure >= 0, below[sure], 0)
        return least, below[np.minimum(np.searchsorted(self.edges, limits), len(below) - 1)]

    def at(self, quantile: float) -> float:
        """As `Values.at`."""
        return float(self.edges[np.searchsorted(self._below(), np.ceil(self.n * quantile))])

    def between(self, low: int, high: int) -> Floats:
        """As `Values.between`."""
        below = self._below()
        first, last = np.searchsorted(below, low, "right") - 1, np.searchsorted(below, high)
        return self.edges[first : last + 1]

    def _below(self) -> Counts:
        return np.concatenate([[0], np.cumsum(self.counts)])


Evidence = Rate | Count | Moments | Values | Histogram


def watch(limit: Limit, baseline: Evidence, canary: Evidence) -> Decision:
    """Whether the canary's harm is beyond doubt.

    Args:
        baseline: everything seen so far on that side; `canary` likewise.

    Returns:
        "abort" or "continue". Evidence: `value`, the `bound` on its truth that holds at all times together,
        the `limit` which that bound must not pass (each where it is finite), and `n`, the observations of
        both sides. Of all but means, these are ratios of the canary's to the baseline's.

    Raises:
        InvalidInput: evidence of another kind than the limit's, or a quantile of values below zero.
    """
    match limit.kind, baseline, canary:
        case "rate", Rate(), Rate():
            found, seen = _rate(limit, baseline, canary), baseline.trials + canary.trials
        case "count", Count(), Count():
            found, seen = _count(limit, baseline, canary), baseline.count + canary.count
        case "mean", Moments(), Moments():
            found, seen = _mean(limit, baseline, canary), baseline.n + canary.n
        case "quantile", Values() | Histogram(), Values() | Histogram():
            found, seen = _quantile(limit, baseline, canary), baseline.n + canary.n
        case _:
            given = " and ".join(type(side).__name__ for side in (baseline, canary))
            raise InvalidInput(f"limit on {limit.metric}: kind {limit.kind} with evidence {given}")
    name = limit.metric if limit.quantile is None else f"{limit.metric} p{100 * limit.quantile:g}"
    if np.isnan(found.value):
        return Decision(action="continue", reason=f"{name}: too little seen yet", evidence={"n": float(seen)})
    unit = "" if limit.kind == "mean" else " times the baseline's"
    proven, allowed = ("at least", "most") if limit.harm == "increase" else ("at most", "least")
    return Decision(
        action="abort" if found.harmful else "continue",
        reason=(
            f"{name} is {found.value:.4g}{unit}, {proven} {found.bound:.4g} with confidence "
            f"{1 - limit.alpha:g}; the {allowed} allowed is {found.limit:.4g}"
        ),
        evidence={
            name: value
            for name, value in (
                ("value", found.value),
                ("bound", found.bound),
                ("limit", found.limit),
                ("n", float(seen)),
            )
            if np.isfinite(value)
        },
    )


def watch_all(
    limits: Sequence[Limit],
    baseline: Mapping[str, Evidence],
    canary: Mapping[str, Evidence],
    *,
    alpha: float | None = None,
) -> Decision:
    """The first limit that aborts, else that all continue.

    Args:
        baseline: evidence by metric; `canary` likewise. A metric without any on a side is not watched yet.
        alpha: of all limits together, which share it in proportion to their own; by default each keeps its
            own, and their sum bounds the chance of a false abort.
    """
    total = sum(limit.alpha for limit in limits)
    watched = []
    for limit in limits:
        if limit.metric in baseline and limit.metric in canary:
            shared = limit if alpha is None else replace(limit, alpha=limit.alpha * alpha / total)
            decision = watch(shared, baseline[limit.metric], canary[limit.metric])
            if decision.action == "abort":
                return decision
            watched.append(decision)
    seen = {"n": max((each.evidence["n"] for each in watched), default=0.0), "watched": float(len(watched))}
    return Decision(
        action="continue",
        reason=f"{len(watched)} of {len(limits)} limits watched; none aborts",
        evidence=seen,
    )


@dataclass(frozen=True, kw_only=True)
class _Found:
    value: float
    bound: float
    limit: float
    harmful: bool


_NOTHING = _Found(value=np.nan, bound=np.nan, limit=np.nan, harmful=False)


def log_e_events(more: npt.ArrayLike, rest: npt.ArrayLike, share: npt.ArrayLike) -> Floats:
    """Log of the evidence that events fall on a side more often than its share says.

    A mixture of likelihood ratios over chances above `share`: an e-process for all chances up to it.

    Args:
        more: events on that side; `rest`: on the other; `share`: the chance that is allowed.
    """
    more, rest, share = (np.asarray(each, np.float64) for each in (more, rest, share))
    with np.errstate(divide="ignore"):
        likelihood = more * np.log(share) + rest * np.log1p(-share)
        parts = []
        for scale in SCALES:
            a, b = scale * share, scale * (1 - share)
            seen = betaln(a + more, b + rest) + np.log(betaincc(a + more, b + rest, share))
            parts.append(seen - betaln(a, b) - np.log(betaincc(a, b, share)) - likelihood)
    return np.asarray(logsumexp(np.stack(parts), axis=0) - np.log(len(SCALES)))


def log_e_rates(
    more: npt.ArrayLike,
    trials: npt.ArrayLike,
    rest: npt.ArrayLike,
    other_trials: npt.ArrayLike,
    factor: npt.ArrayLike = 1.0,
) -> Floats:
    """Log of the evidence that one rate is above `factor` times another.

    The mean of two: of the events alone, which is exact, and, once both sides have `LEAST` successes and
    failures, of the difference of the rates, which also knows how many trials had no event.

    Args:
        more: successes among `trials` of the one; `rest` among `other_trials` of the other.
    """
    more, trials, rest, other_trials, factor = (
        np.asarray(each, np.float64) for each in (more, trials, rest, other_trials, factor)
    )
    events = log_e_events(more, rest, factor * trials / (factor * trials + other_trials))
    one, other = more / trials, rest / other_trials
    error = np.sqrt(one * (1 - one) / trials + factor**2 * other * (1 - other) / other_trials)
    fewest = np.minimum(np.minimum(more, trials - more), np.minimum(rest, other_trials - rest))
    z = np.divide(one - factor * other, error, out=np.zeros(np.shape(error)), where=error > 0)
    normal = log_e_normal(z, trials * other_trials / (trials + other_trials))
    return np.asarray(np.logaddexp(events, np.where(fewest >= LEAST, normal, -np.inf)) - np.log(2))


def log_e_normal(z: npt.ArrayLike, n: npt.ArrayLike) -> Floats:
    """Log of the evidence that a mean is above zero.

    Args:
        z: the mean over its standard error; `n`: observations it stands on.
    """
    z, n = np.asarray(z, np.float64), np.asarray(n, np.float64)
    parts = []
    for scale in SCALES:
        spread = n / scale
        shrunk = z * np.sqrt(spread / (1 + spread))
        parts.append(np.log(2) - np.log1p(spread) / 2 + shrunk**2 / 2 + log_ndtr(shrunk))
    return np.asarray(logsumexp(np.stack(parts), axis=0) - np.log(len(SCALES)))


def _rate(limit: Limit, baseline: Rate, canary: Rate) -> _Found:
    if not (baseline.trials and canary.trials and baseline.successes + canary.successes):
        return _NOTHING
    sides = (canary, baseline) if limit.sign > 0 else (baseline, canary)
    more, rest = ((side.successes, side.trials) for side in sides)
    return _ratio(
        limit,
        canary.successes / canary.trials,
        baseline.successes / baseline.trials,
        lambda factors: log_e_rates(*more, *rest, factors) >= _needed(limit.alpha),
    )


def _count(limit: Limit, baseline: Count, canary: Count) -> _Found:
    if not (baseline.exposure and canary.exposure and baseline.count + canary.count):
        return _NOTHING
    more, rest = (canary, baseline) if limit.sign > 0 else (baseline, canary)

    def proven(factors: Floats) -> Bools:
        share = factors * more.exposure / (factors * more.exposure + rest.exposure)
        return log_e_events(more.count, rest.count, share) >= _needed(limit.alpha)

    return _ratio(limit, canary.count / canary.exposure, baseline.count / baseline.exposure, proven)


def _ratio(limit: Limit, ours: float, theirs: float, proven: Callable[[Floats], Bools]) -> _Found:
    """What is found of a ratio of the canary's to the baseline's.

    Args:
        proven: whether harm is beyond each of some factors (of a decrease: beyond one part in so many).
    """
    allowed = 1 + limit.sign * limit.tolerance
    factor = allowed**limit.sign
    harmful = bool(proven(np.array([factor]))[0])
    with np.errstate(divide="ignore", invalid="ignore"):
        value = np.float64(ours) / theirs
        seen = min(float(value**limit.sign), _MOST * factor)
        found = np.float64(_last(proven, *((factor, max(factor, seen)) if harmful else (0.0, factor))))
        return _Found(value=float(value), bound=float(found**limit.sign), limit=allowed, harmful=harmful)


def _mean(limit: Limit, baseline: Moments, canary: Moments) -> _Found:
    weight = limit.sign * limit.tolerance * np.sign(baseline.mean)
    allowed = float(baseline.mean * (1 + weight))
    if min(baseline.n, canary.n) < LEAST:
        return _NOTHING
    error = np.sqrt(canary.variance / canary.n + (1 + weight) ** 2 * baseline.variance / baseline.n)
    n = canary.n * baseline.n / (canary.n + baseline.n)
    most = np.sqrt(2 * (_needed(limit.alpha) + n))
    margin = _last(lambda z: log_e_normal(z, n) < _needed(limit.alpha), 0.0, most) * error
    bound = float(canary.mean - limit.sign * margin)
    return _Found(value=canary.mean, bound=bound, limit=allowed, harmful=limit.sign * (bound - allowed) > 0)


def _quantile(limit: Limit, baseline: Values | Histogram, canary: Values | Histogram) -> _Found:
    """The ratio of the canary's quantile to the baseline's.

    Were harm absent, the canary would have no more values beyond the baseline's quantile, scaled by what is
    allowed, than the baseline itself: evidence against it is that of events. The quantile is not known; the
    evidence is the least over a band that holds it but for a part of alpha.
    """
    assert limit.quantile is not None
    least = min(side.least for side in (baseline, canary))
    if least < 0:
        raise InvalidInput(
            f"limit on {limit.metric}: a value is {least:g}; quantiles of 0 or more are compared"
        )
    low, high = band(baseline.n, limit.quantile, limit.alpha * BAND)
    if low < 0 or high > baseline.n or not canary.n:
        return _NOTHING
    points = baseline.between(low, high)
    points = points[np.linspace(0, len(points) - 1, min(len(points), _CELLS + 1)).astype(np.intp)]
    starts, ends = (points[:-1], points[1:]) if len(points) > 1 else (points, points)
    share = canary.n / (canary.n + baseline.n)

    def proven(factors: Floats) -> Bools:
        if limit.sign > 0:
            more = canary.n - canary.up_to(ends * factors[:, None])[1]
            rest = baseline.n - baseline.up_to(starts)[0]
        else:
            with np.errstate(divide="ignore"):
                more = canary.up_to(starts / factors[:, None])[0]
            rest = baseline.up_to(ends)[1]
        least = log_e_events(more, rest, share).min(axis=1)
        return np.asarray(least >= _needed(limit.alpha * (1 - BAND)))

    return _ratio(limit, canary.at(limit.quantile), baseline.at(limit.quantile), proven)


def band(n: int, quantile: float, alpha: float) -> tuple[int, int]:
    """Between which of n sorted values a quantile lies at all times together but for a chance of alpha.

    Returns:
        (low, high): the quantile is no less than the value that `low` values precede, and no more than the
        `high`-th value. low < 0 or high > n: not bounded.
    """
    return _fewest(n, 1 - quantile, alpha / 2), n - _fewest(n, quantile, alpha / 2)


def _fewest(n: int, share: float, alpha: float) -> int:
    """The most of n values that prove the others to be more than their share; -1 where none do."""
    low, high = -1, int(n * (1 - share)) + 1
    while high - low > 1:
        middle = (low + high) // 2
        proven = log_e_events(n - middle, middle, share) >= _needed(alpha)
        low, high = (middle, high) if proven else (low, middle)
    return low


def _last(holds: Callable[[Floats], Bools], low: float, high: float) -> float:
    """The end of the stretch from `low` in which something holds, to a millionth of the way to `high`."""
    for _ in range(4):
        grid = np.linspace(low, high, 33)
        held = holds(grid[1:-1])
        place = int(np.argmin(held)) if not held.all() else len(held)
        low, high = float(grid[place]), float(grid[place + 1])
    return low


def _needed(alpha: float) -> float:
    """Log of the evidence that doubts at level alpha (Ville's inequality)."""
    return -float(np.log(alpha))
