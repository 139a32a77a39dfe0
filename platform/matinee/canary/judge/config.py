"""What a canary is judged by, in Python or read from Kayenta's JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from matinee.canary.judge.fields import Fields, read_fields
from matinee.errors import InvalidInput

Direction = Literal["increase", "decrease", "either"]
NanStrategy = Literal["remove", "replace"]
Outliers = Literal["keep", "remove"]
Measure = Literal["meanRatio", "cles"]

_NO_EFFECT: Mapping[str, float] = {"meanRatio": 1.0, "cles": 0.5}


@dataclass(frozen=True, kw_only=True)
class EffectSize:
    """How large a difference must be to count. A limit of None: see `limits`.

    Args:
        measure: "meanRatio", the experiment's mean over the control's; or "cles", how likely a value of the
            experiment is above one of the control.
        allowed_increase: High needs this much or more; `critical_increase` likewise to be critical.
        allowed_decrease: Low needs this much or less; `critical_decrease` likewise.
    """

    measure: Measure = "meanRatio"
    allowed_increase: float | None = None
    allowed_decrease: float | None = None
    critical_increase: float | None = None
    critical_decrease: float | None = None

    def limits(self) -> tuple[float, float, float, float]:
        """Allowed increase and decrease, critical increase and decrease; by default the measure of no effect:
        1 for the mean ratio, 0.5 for cles."""
        none = _NO_EFFECT[self.measure]
        return (
            none if self.allowed_increase is None else self.allowed_increase,
            none if self.allowed_decrease is None else self.allowed_decrease,
            none if self.critical_increase is None else self.critical_increase,
            none if self.critical_decrease is None else self.critical_decrease,
        )


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One metric and how it is judged.

    Args:
        groups: the groups whose score it counts in.
        direction: which change is harmful.
        nan_strategy: missing values are removed, or replaced by 0.
        critical: High or Low fails the whole canary; so does the lack of data.
        must_have_data: no data counts as a failure of the metric.
        muted: judged, but not counted.
        outliers: kept or removed, beyond `outlier_factor` interquartile ranges.
    """

    name: str
    groups: Sequence[str] = ("all",)
    direction: Direction = "either"
    nan_strategy: NanStrategy = "remove"
    critical: bool = False
    must_have_data: bool = False
    muted: bool = False
    effect: EffectSize = field(default_factory=EffectSize)
    outliers: Outliers = "keep"
    outlier_factor: float = 3.0


@dataclass(frozen=True, kw_only=True)
class CanaryConfig:
    """The metrics of a canary and what their results add up to.

    Args:
        group_weights: percent of the score by group; groups without one share what is left of 100.
        passing: the least score that passes; `marginal`: the least that is not a failure.

    Raises:
        InvalidInput: a metric stands twice, or the thresholds contradict each other.
    """

    name: str = "canary"
    metrics: Sequence[Metric]
    group_weights: Mapping[str, float] = field(default_factory=dict)
    passing: float = 75.0
    marginal: float = 50.0

    def __post_init__(self) -> None:
        repeated = Counter(metric.name for metric in self.metrics).most_common(1)
        if repeated and repeated[0][1] > 1:
            raise InvalidInput(f"canary {self.name}: metric {repeated[0][0]} stands twice; names are unique")
        if not 0 <= self.marginal <= self.passing <= 100:
            raise InvalidInput(
                f"canary {self.name}: thresholds pass {self.passing:g}, marginal {self.marginal:g}; "
                "0 <= marginal <= pass <= 100 is accepted"
            )


def read_config(source: Path | str | Mapping[str, Any], **more: Any) -> CanaryConfig:
    """A canary configuration in Kayenta's JSON. Fields that no judge reads (queries, templates) are let be.

    Args:
        source: a file, the JSON text, or what it was parsed to.
        more: fields of `CanaryConfig` that override what the JSON says: `passing`, `marginal`.

    Raises:
        InvalidInput: it is not JSON, or a field has a value that is not accepted; the text names the field.
        FileNotFoundError: there is no such file.
    """
    config = read_fields(source, "canary config")
    classifier = config.inner("classifier")
    thresholds = (classifier if "scoreThresholds" in classifier else config).inner("scoreThresholds")
    weights = classifier.inner("groupWeights")
    fields = {
        "name": config.text("name", "canary"),
        "metrics": [_metric(each) for each in config.items("metrics")],
        "group_weights": {name: weights.number(name, 0.0) for name in weights},
        "passing": thresholds.number("pass", 75.0),
        "marginal": thresholds.number("marginal", 50.0),
    }
    return CanaryConfig(**{**fields, **more})


def _metric(metric: Fields) -> Metric:
    how = metric.inner("analysisConfigurations").inner("canary")
    effect, outliers = how.inner("effectSize"), how.inner("outliers")
    return Metric(
        name=metric.text("name"),
        groups=metric.texts("groups", ["all"]),
        direction=how.choice("direction", Direction, "either"),
        nan_strategy=how.choice("nanStrategy", NanStrategy, "remove"),
        critical=how.flag("critical"),
        must_have_data=how.flag("mustHaveData"),
        muted=how.flag("muted"),
        effect=EffectSize(
            measure=effect.choice("measure", Measure, "meanRatio"),
            allowed_increase=effect.number("allowedIncrease", None),
            allowed_decrease=effect.number("allowedDecrease", None),
            critical_increase=effect.number("criticalIncrease", None),
            critical_decrease=effect.number("criticalDecrease", None),
        ),
        outliers=outliers.choice("strategy", Outliers, "keep"),
        outlier_factor=outliers.number("outlierFactor", 3.0),
    )
