"""Looks at the features while the platform runs: freshness, violations, what was served."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from matinee.config import Settings
from matinee.errors import MatineeError, NotFound
from matinee.features.trust.freshness import measured
from matinee.monitoring.features import (
    FRESHNESS,
    ConsistencyReport,
    check_consistency,
    consistency_event,
    keep,
    violation_event,
)
from matinee.monitoring.metrics import FeatureFigures

Send = Callable[[Sequence[tuple[str, bytes]]], bool]
"""Puts (key, message) pairs on the signals topic; False where the broker does not take them."""

logger = logging.getLogger(__name__)


class FeatureWatch:
    """What is known of the features, brought up to date by `look`.

    Args:
        settings: intervals, bounds and the home.
        send: puts messages on the signals topic.
        stream_status: asks the streaming features for their status; None where there are none.

    Attributes:
        report: the last comparison of what was served; None before the first.
    """

    def __init__(
        self,
        settings: Settings,
        send: Send,
        stream_status: Callable[[], Mapping[str, Any]] | None = None,
    ) -> None:
        self.report: ConsistencyReport | None = None
        self._settings = settings
        self._send = send
        self._stream_status = stream_status
        self._compared_at = time.monotonic()
        self._told: dict[tuple[str, str, str], int] = {}
        self._disagreed = False

    def run(self, stopping: threading.Event) -> None:
        """Look every `monitoring.interval_s` until told to stop."""
        while not stopping.wait(self._settings.monitoring.interval_s):
            try:
                self.look()
            except Exception as failure:
                logger.warning("feature check failed", exc_info=not isinstance(failure, MatineeError))

    def look(self) -> None:
        """One look: keep what the stream measured, tell new violations, compare what was served when due.

        Raises:
            StorageError: a report cannot be written.
        """
        now = time.time_ns() // 1000
        status = self._status()
        violations = [dict(each) for each in status.get("violations") or ()]
        if status.get("views"):
            views = {name: dict(figures) for name, figures in status["views"].items()}
            keep(self._settings, FRESHNESS, {"time": now, "views": views, "violations": violations})
        self._tell_violations(violations, now)
        if time.monotonic() - self._compared_at >= self._settings.monitoring.consistency_interval_s:
            self._compared_at = time.monotonic()
            self.compare()

    def compare(self) -> ConsistencyReport | None:
        """Compare what was served now, and tell where features began to disagree; None without a catalogue.

        Raises:
            StorageError: the report cannot be written.
        """
        try:
            self.report = check_consistency(self._settings)
        except NotFound as failure:
            logger.info("served features are not compared: %s", failure)
            return None
        logger.info("served features: %s (%s)", self.report.decision, self.report.reason)
        if self.report.decision != "disagree":
            self._disagreed = False
        elif not self._disagreed:
            self._disagreed = self._send([("features", consistency_event(self.report))])
        return self.report

    def figures(self, status: Mapping[str, Any]) -> FeatureFigures:
        """What the gauges show.

        Args:
            status: of the streaming features, as they answered last; empty where they did not.
        """
        now = time.time_ns() // 1000
        found = measured(status)
        quantiles: dict[tuple[str, ...], float] = {
            (view, quantile): value
            for view, each in found.items()
            for quantile, value in (("0.5", each.p50_s), ("0.99", each.p99_s))
            if value is not None
        }
        stale = {view: each.staleness_s(now) for view, each in found.items()}
        violations: dict[tuple[str, ...], float] = {
            (str(each["view"]), str(each["feature"]), str(each["rule"])): float(each["count"])
            for each in status.get("violations") or ()
        }
        report = self.report
        views = report.views if report else []
        return FeatureFigures(
            violations=violations,
            freshness=quantiles,
            staleness={(view,): value for view, value in stale.items() if value is not None},
            objective={(view,): each.objective_s for view, each in found.items() if each.objective_s},
            consistency={
                (view.view, each.feature): each.share
                for view in views
                for each in view.features
                if each.share is not None
            },
            behind={(view.view,): view.behind / view.rows for view in views if view.rows},
            bound={(): report.bound} if report else {},
        )

    def _status(self) -> Mapping[str, Any]:
        if self._stream_status is None:
            return {}
        try:
            return self._stream_status()
        except Exception:
            logger.warning("the streaming features do not answer", exc_info=True)
            return {}

    def _tell_violations(self, violations: Sequence[Mapping[str, Any]], now: int) -> None:
        counts = {(str(v["view"]), str(v["feature"]), str(v["rule"])): int(v["count"]) for v in violations}
        news = [
            each
            for place, each in zip(counts, violations, strict=True)
            if counts[place] != self._told.get(place, 0)
        ]
        if news and not self._send([("features", violation_event(news, source="stream", time_us=now))]):
            return
        self._told = counts
