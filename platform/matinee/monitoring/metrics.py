"""The pipeline's gauges as Prometheus text. Pure: figures in, text out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One metric: its name, whether it only grows, where its value comes from, what it says."""

    name: str
    figure: str
    text: str
    total: bool = False


STREAM = (
    Measure(name="matinee_events", figure="events", text="Events applied to the features.", total=True),
    Measure(name="matinee_dead_letters", figure="dead_letters", text="Events refused.", total=True),
    Measure(name="matinee_duplicates", figure="duplicates", text="Events seen before.", total=True),
    Measure(name="matinee_lake_events", figure="in_lake", text="Events in the lake."),
    Measure(name="matinee_consumer_lag", figure="lag", text="Events in the topic not yet committed."),
    Measure(name="matinee_stream_workers", figure="workers", text="Stream workers alive."),
    Measure(
        name="matinee_stream_restarts", figure="restarts", text="Stream workers started again.", total=True
    ),
    Measure(
        name="matinee_feature_freshness_p50_seconds",
        figure="freshness_p50_s",
        text="Median time from an event's arrival to its online features.",
    ),
    Measure(
        name="matinee_feature_freshness_p99_seconds",
        figure="freshness_p99_s",
        text="99th percentile of the time from an event's arrival to its online features.",
    ),
    Measure(
        name="matinee_stream_up",
        figure="stream_up",
        text="1 while the streaming features run, 0 while they start, failed, or do not answer.",
    ),
)
"""What the streaming features know."""

OWN = (
    Measure(name="matinee_exposures", figure="exposures", text="Exposures in the lake.", total=True),
    Measure(name="matinee_exposures_lag", figure="exposures_lag", text="Exposures not yet read."),
    Measure(
        name="matinee_exposures_rejected",
        figure="exposures_rejected",
        text="Messages of the exposures topic that are no exposure.",
        total=True,
    ),
    Measure(
        name="matinee_exposures_repeated",
        figure="exposures_repeated",
        text="Exposures that were delivered again.",
        total=True,
    ),
    Measure(name="matinee_window_rows", figure="window_rows", text="Answers in the champion's live window."),
    Measure(
        name="matinee_window_cold_share",
        figure="window_cold_share",
        text="Share of cold-start answers in the champion's live window.",
    ),
    Measure(
        name="matinee_monitor_up",
        figure="consuming",
        text="1 while the monitor reads the exposures topic, 0 while it cannot.",
    ),
)
"""What the monitor's status knows."""

DRIFT = (
    Measure(name="matinee_drift_share", figure="drift_share", text="Share of drifted columns."),
    Measure(name="matinee_drifted_columns", figure="drifted_columns", text="Columns that drifted."),
    Measure(
        name="matinee_drift_last_check_timestamp_seconds",
        figure="last_check_s",
        text="When drift was last looked at, seconds since the epoch.",
    ),
)
"""What the last check knows."""

MEASURES = (*STREAM, *OWN, *DRIFT)
"""Every metric without labels. A figure that is missing or None leaves its metric out."""


Labelled = Mapping[tuple[str, ...], float]
"""Values by their labels' values."""


@dataclass(frozen=True, kw_only=True)
class FeatureFigures:
    """What is known of single views and features. Keys: the values of the labels that `LABELLED` names."""

    violations: Labelled = field(default_factory=dict)
    freshness: Labelled = field(default_factory=dict)
    staleness: Labelled = field(default_factory=dict)
    objective: Labelled = field(default_factory=dict)
    consistency: Labelled = field(default_factory=dict)
    behind: Labelled = field(default_factory=dict)
    bound: Labelled = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class LabelledMeasure(Measure):
    """A metric with a value for each of its labels' values; `figure` names a field of `FeatureFigures`."""

    labels: tuple[str, ...]


LABELLED = (
    LabelledMeasure(
        name="matinee_feature_violations",
        figure="violations",
        text="Values, or batches of them, that an expectation was not met by.",
        labels=("view", "feature", "rule"),
        total=True,
    ),
    LabelledMeasure(
        name="matinee_feature_freshness_seconds",
        figure="freshness",
        text="Time from an event's arrival to its values being readable, by quantile.",
        labels=("view", "quantile"),
    ),
    LabelledMeasure(
        name="matinee_feature_staleness_seconds",
        figure="staleness",
        text="Time since the view's last write.",
        labels=("view",),
    ),
    LabelledMeasure(
        name="matinee_feature_freshness_objective_seconds",
        figure="objective",
        text="Freshness that the view declares as its objective.",
        labels=("view",),
    ),
    LabelledMeasure(
        name="matinee_feature_consistency",
        figure="consistency",
        text="Share of served values that equal those recomputed from the lake.",
        labels=("view", "feature"),
    ),
    LabelledMeasure(
        name="matinee_feature_behind_share",
        figure="behind",
        text="Share of served rows that lacked an event which had arrived long before.",
        labels=("view",),
    ),
    LabelledMeasure(
        name="matinee_feature_consistency_bound",
        figure="bound",
        text="Share of served values that must equal the recomputed ones.",
        labels=(),
    ),
)
"""What is known of single views and features."""


def render(
    figures: Mapping[str, float | None],
    *,
    drift: Mapping[str, float] | None = None,
    version: str = "",
    features: FeatureFigures | None = None,
) -> str:
    """The exposition text (version 0.0.4).

    Args:
        figures: values by `Measure.figure`.
        drift: PSI by column of the last comparison.
        version: model version of that comparison.
        features: what is known of single views and features.
    """
    registry = CollectorRegistry(auto_describe=False)
    families = [*_families(figures, drift or {}, version), *_labelled(features or FeatureFigures())]
    registry.register(_Families(families))
    return generate_latest(registry).decode()


def _families(
    figures: Mapping[str, float | None], drift: Mapping[str, float], version: str
) -> Iterable[Metric]:
    for measure in MEASURES:
        value = figures.get(measure.figure)
        if value is not None:
            family = CounterMetricFamily if measure.total else GaugeMetricFamily
            yield family(measure.name, measure.text, value=float(value))
    if drift:
        columns = GaugeMetricFamily(
            "matinee_drift_psi",
            "Population stability index of a column against the training reference.",
            labels=["column", "model_version"],
        )
        for column, index in drift.items():
            columns.add_metric([column, version], index)
        yield columns


def _labelled(features: FeatureFigures) -> Iterable[Metric]:
    for measure in LABELLED:
        values: Labelled = getattr(features, measure.figure)
        if values:
            kind = CounterMetricFamily if measure.total else GaugeMetricFamily
            family = kind(measure.name, measure.text, labels=measure.labels)
            for labels, value in values.items():
                family.add_metric(labels, value)
            yield family


class _Families(Collector):
    """The collector protocol over given families."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = tuple(families)

    def collect(self) -> Iterable[Metric]:
        return self._families
