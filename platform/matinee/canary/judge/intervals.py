"""A canary judged again and again while it runs: Kayenta's analysis over intervals. Pure.

The rules are those of Kayenta's standalone analysis (spinnaker/kayenta, kayenta-standalone-canary-analysis):
a judgement at the end of every interval, of everything since the start (a growing window) or of the last
`lookback_s` alone (a sliding one). A score at or under marginal ends it at once; else the last score decides.
A single verdict calls a score that equals marginal marginal; here such a score fails.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import floor
from pathlib import Path
from typing import Any, Self

from matinee.canary.judge.config import CanaryConfig
from matinee.canary.judge.decide import Judgement, Mode, Samples, judge
from matinee.canary.judge.fields import read_fields
from matinee.canary.judge.score import Verdict, verdict
from matinee.errors import InvalidInput

LEAST_POINTS = 50
"""Values of the control below which a metric is warned of."""
MINUTE_S = 60.0


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """When an analysis judges, and what; seconds.

    Args:
        lifetime_s: how long it lasts.
        interval_s: between two judgements; at most `lifetime_s`.
        lookback_s: how far a judgement looks back; 0: to the start.
        begin_after_s: what comes before is not judged.

    Raises:
        InvalidInput: a length is not above zero, or a lookback or begin is below it.
    """

    lifetime_s: float
    interval_s: float
    lookback_s: float = 0.0
    begin_after_s: float = 0.0

    def __post_init__(self) -> None:
        if not (self.lifetime_s > 0 and 0 < self.interval_s <= self.lifetime_s):
            raise InvalidInput(
                f"analysis: lifetime {self.lifetime_s:g} s, interval {self.interval_s:g} s; "
                "0 < interval <= lifetime is accepted"
            )
        if self.lookback_s < 0 or self.begin_after_s < 0:
            raise InvalidInput(
                f"analysis: lookback {self.lookback_s:g} s, begin after {self.begin_after_s:g} s; "
                "0 or more is accepted"
            )

    @property
    def count(self) -> int:
        """How many judgements it takes."""
        return _whole(self.lifetime_s / self.interval_s)

    def ended(self, elapsed_s: float) -> int:
        """How many intervals are over so long after the start, those past the lifetime as well."""
        return max(0, _whole((elapsed_s - self.begin_after_s) / self.interval_s))

    def window(self, number: int) -> tuple[float, float]:
        """From when to when a judgement looks, in seconds from the start; the first is number 1."""
        end = self.begin_after_s + number * self.interval_s
        return (end - self.lookback_s if self.lookback_s else self.begin_after_s), end


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """What came of an analysis so far.

    Args:
        judgements: one for each interval that was judged, in their order; never empty.
        stopped: the last of them scored at or under marginal: the intervals after it are not judged.
        over: nothing is left to judge: it was stopped, or every interval was judged.
        verdict: what the last score says.
        warnings: of the last judgement, see `warnings_of`.
    """

    judgements: Sequence[Judgement]
    stopped: bool
    over: bool
    verdict: Verdict
    reason: str
    warnings: Sequence[str]

    @property
    def scores(self) -> list[float]:
        """Of each judged interval."""
        return [each.score for each in self.judgements]

    @property
    def last(self) -> Judgement:
        """The judgement that decides."""
        return self.judgements[-1]


@dataclass(frozen=True, kw_only=True)
class Opinion:
    """What the judge makes of samples; of an analysis, its last judgement and what that looked at."""

    samples: Mapping[str, Samples]
    judgement: Judgement
    analysis: Analysis | None = None

    @classmethod
    def of(cls, analysis: Analysis, windows: Sequence[Mapping[str, Samples]]) -> Self:
        """Of an analysis of these windows."""
        decided = windows[len(analysis.judgements) - 1]
        return cls(samples=decided, judgement=analysis.last, analysis=analysis)

    @property
    def verdict(self) -> Verdict:
        """What it comes to."""
        return self.judgement.verdict if self.analysis is None else self.analysis.verdict

    @property
    def reason(self) -> str:
        """Why."""
        return self.judgement.reason if self.analysis is None else self.analysis.reason


def analyse(
    config: CanaryConfig,
    windows: Sequence[Mapping[str, Samples]],
    *,
    count: int,
    mode: Mode = "kayenta",
    seed: int = 0,
) -> Analysis:
    """Judge one interval after another, up to one that fails.

    Args:
        windows: of each interval that has ended, what its judgement looks at, by metric; one at least.
        count: how many judgements the analysis takes; more windows than that may be given.
        mode: how each is judged, as of `judge`; `seed` likewise.

    Raises:
        InvalidInput: samples of a metric that the configuration does not have.
    """
    assert windows, "no interval has ended"
    judgements: list[Judgement] = []
    for samples in windows:
        judgements.append(judge(config, samples, mode=mode, seed=seed))
        if judgements[-1].score <= config.marginal:
            break
    last = judgements[-1]
    stopped = last.score <= config.marginal
    place = f"interval {len(judgements)} of {max(count, len(judgements))}"
    if stopped:
        reason = f"{place} scored {last.score:g}, not above marginal, {config.marginal:g}; {last.reason}"
    else:
        scores = ", ".join(f"{each.score:g}" for each in judgements)
        reason = f"{place} scored {last.score:g}, pass from {config.passing:g}; scores {scores}"
    return Analysis(
        judgements=judgements,
        stopped=stopped,
        over=stopped or len(judgements) >= count,
        verdict="fail" if stopped else verdict(last.score, passing=config.passing, marginal=config.marginal),
        reason=reason,
        warnings=warnings_of(last),
    )


def warnings_of(judgement: Judgement) -> list[str]:
    """What makes a score less sure than it looks: metrics with few values of the control."""
    few = [
        f"{each.name} {each.control.count}" for each in judgement.metrics if each.control.count < LEAST_POINTS
    ]
    return [f"fewer than {LEAST_POINTS} values of the control: {', '.join(few)}"] if few else []


def read_request(source: Path | str | Mapping[str, Any]) -> tuple[Schedule, dict[str, float]]:
    """Kayenta's request for an analysis: lifetimeDurationMins, analysisIntervalMins (by default, and at most,
    the lifetime), lookbackMins, beginAfterMins, thresholds. Its scopes are let be.

    Args:
        source: a file, the JSON text, or what it was parsed to.

    Returns:
        When to judge, and the thresholds it names: the fields of `CanaryConfig` that they override.

    Raises:
        InvalidInput: it is not JSON, or a field has a value that is not accepted; the text names the field.
        FileNotFoundError: there is no such file.
    """
    request = read_fields(source, "canary analysis")
    lifetime = request.number("lifetimeDurationMins", None)
    if lifetime is None:
        raise InvalidInput("canary analysis.lifetimeDurationMins is missing; a number is accepted")
    interval = request.number("analysisIntervalMins", 0.0)
    schedule = Schedule(
        lifetime_s=lifetime * MINUTE_S,
        interval_s=(min(interval, lifetime) if interval else lifetime) * MINUTE_S,
        lookback_s=request.number("lookbackMins", 0.0) * MINUTE_S,
        begin_after_s=request.number("beginAfterMins", 0.0) * MINUTE_S,
    )
    thresholds = request.inner("thresholds")
    named = {"passing": thresholds.number("pass", None), "marginal": thresholds.number("marginal", None)}
    return schedule, {name: value for name, value in named.items() if value is not None}


def _whole(parts: float) -> int:
    """How many whole parts there are; what rounding alone keeps from being whole is whole."""
    return floor(parts + 1e-9)
