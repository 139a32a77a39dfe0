"""What the metrics of a canary add up to: Kayenta's weighted sum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from math import floor
from typing import Literal, Protocol

Label = Literal["Pass", "High", "Low", "Nodata", "NodataFailMetric", "Error"]
Verdict = Literal["pass", "marginal", "fail"]

_COUNTED: tuple[Label, ...] = ("Pass", "High", "Low", "NodataFailMetric")
_NODATA_SHARE = 0.5
"""From this share of metrics without data on, nothing can be said: the score is 0."""


class Labelled(Protocol):
    """What of a metric counts in the score."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def groups(self) -> Sequence[str]: ...  # noqa: D102
    @property
    def label(self) -> Label: ...  # noqa: D102
    @property
    def critical(self) -> bool: ...  # noqa: D102


@dataclass(frozen=True, kw_only=True)
class Score:
    """The summary score, 0 to 100; why it is 0 where a rule says so; and each group's own score."""

    value: float
    reason: str
    groups: Mapping[str, float]


def score(metrics: Sequence[Labelled], weights: Mapping[str, float]) -> Score:
    """Each group's share of metrics that pass, weighted.

    Args:
        metrics: those that count, none muted. `critical`: its failure fails the canary.
        weights: percent by group; they are not normalised. Groups without one share what is left of 100.
    """
    names = dict.fromkeys(chain.from_iterable(metric.groups for metric in metrics))
    tallies = {name: [0, 0] for name in names}
    for metric in metrics:
        for name in metric.groups:
            tally = tallies[name]
            tally[0] += metric.label == "Pass"
            tally[1] += metric.label in _COUNTED
    groups = {name: 100 * passed / counted if counted else 0.0 for name, (passed, counted) in tallies.items()}
    critical = [metric.name for metric in metrics if metric.critical and metric.label != "Pass"]
    if critical:
        return Score(value=0.0, reason=f"critical metric failed: {', '.join(critical)}", groups=groups)
    nodata = sum(metric.label == "Nodata" for metric in metrics)
    if metrics and nodata >= _NODATA_SHARE * len(metrics):
        return Score(value=0.0, reason=f"no data for {nodata} of {len(metrics)} metrics", groups=groups)
    open_groups = [name for name in groups if name not in weights]
    left = 100.0 - sum(weights.values())
    total = sum(
        (weights[name] if name in weights else left / len(open_groups)) * (groups[name] if counted else 100.0)
        for name, (_, counted) in tallies.items()
    )
    return Score(value=floor(total + 0.5) / 100, reason="", groups=groups)


def verdict(value: float, *, passing: float, marginal: float) -> Verdict:
    """At or above `passing` pass, at or above `marginal` marginal, else fail."""
    return "pass" if value >= passing else "marginal" if value >= marginal else "fail"
