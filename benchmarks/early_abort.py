"""Early abort, simulated: false aborts of canaries without harm, and the time to stop those with some.

Every canary is looked at after every step of `STEP` requests a side. Beside it, the one-sided test of the
same level that looks once, at the end. One JSON line for each metric and regression, and a plot.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import norm

from benchmarks.common import ROOT, arguments, machine
from matinee.canary.early import BAND, LEAST, band, log_e_events, log_e_normal, log_e_rates

NAME = "early_abort"
STEP = 50
"""Requests a side between two looks."""
ALPHA = 0.05
REGRESSIONS = (0.0, 0.01, 0.05, 0.20)
ERRORS, PLAYS, STARTS = 0.02, 0.30, 0.5
"""A request's chance of an error, its chance of a play, and expected playback starts."""
SPREAD = 0.5
"""Of the latencies' logarithm."""
MEMBERS, AGREE = 2_000, 2.0
"""Members on each side of those who return, ten requests each on average; the two parameters of the beta
distribution of their rates add up to `AGREE`, so two requests of a member correlate by a third."""
QUANTILE = 0.95
FIRST, WIDTH, BINS = 0.5, 0.0125, 240
"""Edges of latencies' histograms, in spreads: the first and last bins also hold what lies beyond."""

Floats = npt.NDArray[np.float64]
Looks = Iterator[tuple[npt.NDArray[np.bool_], Callable[[], npt.NDArray[np.bool_]]]]
"""At each look: which canaries abort, and what a test would say that looks now for the first time."""


def main(options: argparse.Namespace) -> None:
    """Simulate each metric under each regression; print, and plot."""
    steps = 80 if options.quick else 400
    curves: dict[str, dict[float, tuple[Floats, float]]] = {}
    for place, (metric, looks) in enumerate(METRICS.items()):
        if options.only not in metric:
            continue
        curves[metric] = {}
        for regression in REGRESSIONS:
            canaries = (1_000 if options.quick else 10_000) if not regression else 1_000
            draw = np.random.default_rng([place, int(regression * 1000)])
            stopped, fixed = run(looks(draw, canaries, steps, regression), canaries)
            report(metric, regression, stopped, fixed, steps)
            share = np.array([(stopped <= look).mean() for look in range(steps)])
            curves[metric][regression] = share, float(fixed.mean())
    if not (options.quick or options.only):
        plot({name: each for name, each in curves.items() if "return" not in name}, Path(options.out))


def run(looks: Looks, canaries: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """The look at which each canary aborts, past the last where it never does; the fixed test's answers."""
    stopped = np.full(canaries, np.iinfo(np.int64).max)
    for look, (aborts, once) in enumerate(looks):
        stopped[aborts & (stopped > look)] = look
        last = once
    return stopped, last()


def report(
    metric: str, regression: float, stopped: npt.NDArray[np.int64], fixed: npt.NDArray[np.bool_], steps: int
) -> dict[str, Any]:
    """Print one JSON line; `requests` are a side's, until the median of all canaries stops."""
    aborted = float((stopped < steps).mean())
    half = np.median(stopped)
    line = {
        "name": NAME,
        "metric": metric,
        "regression": regression,
        "alpha": ALPHA,
        "aborted": round(aborted, 4),
        "standard_error": round(float(np.sqrt(aborted * (1 - aborted) / len(stopped))), 4),
        "requests": int((half + 1) * STEP) if half < steps else None,
        "fixed_aborted": round(float(fixed.mean()), 4),
        "fixed_requests": steps * STEP,
        "sizes": {"canaries": len(stopped), "looks": steps, "requests_a_step": STEP},
        "machine": machine(),
    }
    print(json.dumps(line), flush=True)
    return line


def errors(draw: np.random.Generator, canaries: int, steps: int, regression: float) -> Looks:
    """A rare rate that rises."""
    chances = np.array([[ERRORS * (1 + regression)], [ERRORS]])
    return _rates(lambda: draw.binomial(STEP, chances, (2, canaries)), steps)


def plays(draw: np.random.Generator, canaries: int, steps: int, regression: float) -> Looks:
    """A frequent rate that falls."""
    chances = np.array([[PLAYS], [PLAYS * (1 - regression)]])
    return _rates(lambda: draw.binomial(STEP, chances, (2, canaries)), steps)


def _rates(step: Callable[[], npt.NDArray[np.int64]], steps: int) -> Looks:
    for look, (more, rest) in enumerate(_cumulated(step, steps)):
        n = (look + 1) * STEP
        proven = log_e_rates(more, n, rest, n) >= -np.log(ALPHA)
        yield proven, lambda more=more, rest=rest, n=n: _proportions(more, rest, n)


def returning(
    draw: np.random.Generator, canaries: int, steps: int, regression: float, *, by_member: bool
) -> Looks:
    """Plays of members who come often and differ: each has a rate of their own.

    Args:
        by_member: count each member's first request alone; else every request.
    """
    chances = draw.beta(PLAYS * AGREE, (1 - PLAYS) * AGREE, (2, canaries, MEMBERS)).astype(np.float32)
    chances[1] *= 1 - regression
    seen = np.zeros(chances.shape, np.bool_).ravel()
    turn = np.zeros(chances.size, np.int8)
    sides = np.arange(2 * canaries).reshape(2, canaries, 1) * MEMBERS
    order = np.broadcast_to(np.arange(STEP, dtype=np.int8)[::-1], (2, canaries, STEP))
    trials, plays = np.zeros((2, 2, canaries), np.int64)
    for _ in range(steps):
        member = sides + draw.integers(0, MEMBERS, (2, canaries, STEP))
        played = draw.random((2, canaries, STEP)) < chances.ravel()[member]
        if by_member:
            turn[member] = order  # of a member who comes twice, the last that is written is the first turn
            first = (turn[member] == order) & ~seen[member]
            played &= first
            seen[member] = True
            trials = trials + first.sum(axis=2)
        else:
            trials = trials + STEP
        plays = plays + played.sum(axis=2)
        proven = log_e_rates(plays[0], trials[0], plays[1], trials[1]) >= -np.log(ALPHA)
        yield proven, lambda t=trials, p=plays: _two_proportions(p, t)


def starts(draw: np.random.Generator, canaries: int, steps: int, regression: float) -> Looks:
    """A count that falls."""
    means = STEP * np.array([[STARTS], [STARTS * (1 - regression)]])
    for more, rest in _cumulated(lambda: draw.poisson(means, (2, canaries)), steps):
        proven = log_e_events(more, rest, 0.5) >= -np.log(ALPHA)
        yield proven, lambda b=more, c=rest: (b - c) > norm.isf(ALPHA) * np.sqrt(b + c)


def latency(draw: np.random.Generator, canaries: int, steps: int, regression: float) -> Looks:
    """A skewed mean that rises."""
    sums, squares = np.zeros((2, canaries)), np.zeros((2, canaries))
    for look in range(steps):
        values = _latencies(draw, canaries, regression)
        sums += values.sum(axis=2)
        squares += (values**2).sum(axis=2)
        n = (look + 1) * STEP
        means = sums / n
        z = (means[1] - means[0]) / np.sqrt((squares / n - means**2).sum(axis=0) / n)
        aborts = (log_e_normal(z, n / 2) >= -np.log(ALPHA)) & (n >= LEAST)
        yield aborts, lambda z=z: z > norm.isf(ALPHA)


def slow_tail(draw: np.random.Generator, canaries: int, steps: int, regression: float) -> Looks:
    """The 95th percentile of latencies, from histograms, that rises."""
    counts = np.zeros((2, canaries, BINS), np.int32)
    sides = (np.arange(2 * canaries) * BINS).reshape(2, canaries, 1)
    harm = np.log1p(regression) / SPREAD * np.array([0, 1]).reshape(2, 1, 1)
    for look in range(steps):
        place = np.ceil((draw.normal(size=(2, canaries, STEP)) + (harm - FIRST)) / WIDTH)
        bins = sides + np.clip(place, 0, BINS - 1).astype(np.int64)
        counts += np.bincount(bins.ravel(), minlength=counts.size).reshape(counts.shape)
        n = (look + 1) * STEP
        over = n - np.cumsum(counts, axis=2, dtype=np.int32)
        yield _beyond(over, n), lambda o=over, n=n: _exceed(o, n)


def _beyond(over: npt.NDArray[np.int32], n: int) -> npt.NDArray[np.bool_]:
    """What `watch` says of a quantile, for many canaries: evidence all over the baseline's band.

    Args:
        over: [2, canaries, edges], values above each edge.
    """
    proven = np.zeros(over.shape[1], np.bool_)
    low, high = band(n, QUANTILE, ALPHA * BAND)
    if low < 0 or high > n:
        return proven
    first = (over[0] >= n - low).sum(axis=1) - 1
    last = (over[0] > n - high).sum(axis=1)
    middle = (over[0] > (1 - QUANTILE) * n).sum(axis=1)
    needed = -np.log(ALPHA * (1 - BAND))

    def evidence(rows: npt.NDArray[np.intp], cell: npt.NDArray[np.intp]) -> Floats:
        return log_e_events(over[1, rows, cell + 1], over[0, rows, cell], 0.5)

    rows = np.flatnonzero(evidence(np.arange(len(proven)), middle - 1) >= needed)
    proven[rows] = True
    for step in range(int((last - first)[rows].max(initial=0))):
        rows = rows[(first[rows] + step < last[rows]) & proven[rows]]
        proven[rows] = evidence(rows, first[rows] + step) >= needed
    return proven


METRICS: dict[str, Callable[[np.random.Generator, int, int, float], Looks]] = {
    "errors (rate)": errors,
    "plays (rate)": plays,
    "starts (count)": starts,
    "latency (mean)": latency,
    "latency (p95)": slow_tail,
    "plays, members return, every request": partial(returning, by_member=False),
    "plays, members return, first request": partial(returning, by_member=True),
}


def _cumulated(step: Callable[[], npt.NDArray[np.int64]], steps: int) -> Iterator[npt.NDArray[np.int64]]:
    total = step()
    yield total
    for _ in range(steps - 1):
        total = total + step()
        yield total


def _latencies(draw: np.random.Generator, canaries: int, regression: float) -> Floats:
    values = np.exp(draw.normal(0, SPREAD, (2, canaries, STEP)))
    values[1] *= 1 + regression
    return values


def _proportions(more: npt.NDArray[np.int64], less: npt.NDArray[np.int64], n: int) -> npt.NDArray[np.bool_]:
    pooled = (more + less) / (2 * n)
    error = np.sqrt(2 * pooled * (1 - pooled) / n)
    return np.asarray(more - less > norm.isf(ALPHA) * error * n)


def _two_proportions(
    successes: npt.NDArray[np.int64], trials: npt.NDArray[np.int64]
) -> npt.NDArray[np.bool_]:
    """Whether the first of two rates is above the second: [2, canaries] each."""
    rate, pooled = successes / trials, successes.sum(axis=0) / trials.sum(axis=0)
    error = np.sqrt(pooled * (1 - pooled) * (1 / trials).sum(axis=0))
    return np.asarray(rate[0] - rate[1] > norm.isf(ALPHA) * error)


def _exceed(over: npt.NDArray[np.int32], n: int) -> npt.NDArray[np.bool_]:
    """Whether more of the canary than of the baseline lies above the pooled quantile."""
    edge = (over.sum(axis=0) > (1 - QUANTILE) * 2 * n).sum(axis=1)
    above = over[:, np.arange(over.shape[1]), edge]
    return _proportions(above[1], above[0], n)


def plot(curves: dict[str, dict[float, tuple[Floats, float]]], path: Path) -> None:
    """Share of canaries aborted as requests come in; a ring: the test that looks once, at the end."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.1 * len(curves), 3.3), layout="constrained")
    for axes, (metric, found) in zip(
        figure.subplots(1, len(curves), sharey=True), curves.items(), strict=True
    ):
        for regression, (share, fixed) in found.items():
            requests = (np.arange(len(share)) + 1) * STEP
            label = f"{regression:.0%} worse" if regression else "no harm"
            (line,) = axes.plot(requests, share, label=label)
            axes.plot(requests[-1:], [fixed], "o", color=line.get_color(), fillstyle="none", clip_on=False)
        axes.axhline(ALPHA, color="#999999", linewidth=0.8, linestyle="--")
        axes.set_title(metric, fontsize=10)
        axes.set_xlabel("requests a side")
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("share aborted")
    figure.axes[0].legend(fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--only", default="", help="metrics whose name holds this")
    parser.add_argument("--out", default=str(ROOT / "docs/img/early_abort.png"), help="where the plot goes")


if __name__ == "__main__":
    main(arguments(__doc__, _options))
