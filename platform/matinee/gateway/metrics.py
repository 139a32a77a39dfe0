"""Figures of the API in Prometheus' text format, with the pipeline's gauges behind them."""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import accumulate

import prometheus_client
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
BUCKETS_S = (0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)

_BOUNDS = (*map(str, BUCKETS_S), "+Inf")
_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))

PipelineText = Callable[[], str | Awaitable[str]]
"""Gives the pipeline's gauges as Prometheus text."""

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Times:
    """How long the answers of a route took: their number by bucket, the last beyond all bounds; their sum."""

    buckets: list[int] = field(default_factory=lambda: [0] * len(_BOUNDS))
    seconds: float = 0.0


class Metrics:
    """Counters of one replica, in a registry of its own.

    Args:
        exposures: gives (sent, dropped) so far.
        splits: gives version to share by surface.
        copies: gives the age in seconds of each copy of a title view.
        answers: gives the answers so far of each rung of the ladder.
        hanging: gives the threads that hang in a model.
        shadows: gives (made, dropped) so far.
    """

    def __init__(
        self,
        *,
        exposures: Callable[[], tuple[int, int]],
        splits: Callable[[], Mapping[str, Mapping[str, float]]],
        copies: Callable[[], Mapping[str, float]] = dict,
        answers: Callable[[], Mapping[str, int]] = dict,
        hanging: Callable[[], int] = int,
        shadows: Callable[[], tuple[int, int]] = lambda: (0, 0),
    ) -> None:
        self._registry = CollectorRegistry()
        self._exposures = exposures
        self._splits = splits
        self._copies = copies
        self._answers = answers
        self._hanging = hanging
        self._shadows = shadows
        self._requests: Counter[tuple[str, str, int]] = Counter()
        self._times: dict[str, _Times] = {}
        self._events = prometheus_client.Counter(
            "matinee_http_events",
            "Events posted, by what became of them.",
            ("result",),
            registry=self._registry,
        )
        ProcessCollector("matinee_api", registry=self._registry)
        self._registry.register(self)

    def request(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count an answered request; a method nobody knows counts as "other". Call it from one thread."""
        self._requests[route, method if method in _METHODS else "other", status] += 1
        times = self._times.get(route)
        if times is None:
            times = self._times[route] = _Times()
        times.buckets[bisect_left(BUCKETS_S, seconds)] += 1
        times.seconds += seconds

    def events(self, *, accepted: int, rejected: int) -> None:
        """Count posted events."""
        self._events.labels("accepted").inc(accepted)
        self._events.labels("rejected").inc(rejected)

    def collect(self) -> Iterator[Metric]:
        """Figures kept here as plain numbers, and figures kept elsewhere, as of the scrape."""
        requests = CounterMetricFamily(
            "matinee_requests", "Requests answered.", labels=("route", "method", "status")
        )
        for (route, method, status), count in self._requests.items():
            requests.add_metric((route, method, str(status)), count)
        yield requests
        seconds = HistogramMetricFamily(
            "matinee_request_seconds", "Time to answer inside the replica.", labels=("route",)
        )
        for route, times in self._times.items():
            cumulated = list(zip(_BOUNDS, accumulate(times.buckets), strict=True))
            seconds.add_metric((route,), cumulated, times.seconds)
        yield seconds
        sent, dropped = self._exposures()
        yield CounterMetricFamily("matinee_exposures_sent", "Exposures the broker took.", sent)
        yield CounterMetricFamily("matinee_exposures_dropped", "Exposures lost before the broker.", dropped)
        made, dropped = self._shadows()
        yield CounterMetricFamily("matinee_shadows_made", "Answers of shadow versions.", made)
        yield CounterMetricFamily("matinee_shadows_dropped", "Requests a shadow did not answer.", dropped)
        weights = GaugeMetricFamily(
            "matinee_split_weight",
            "Share of a version; surface *: where no split is set.",
            labels=("surface", "version"),
        )
        for surface, shares in self._splits().items():
            for version, share in shares.items():
                weights.add_metric((surface, version), share)
        yield weights
        ages = GaugeMetricFamily(
            "matinee_title_copy_age_seconds",
            "Seconds since a replica's copy of a title view was known to be what the online store holds.",
            labels=("view",),
        )
        for view, age in self._copies().items():
            ages.add_metric((view,), age)
        yield ages
        rungs = CounterMetricFamily(
            "matinee_answers", "Answers of pages and lists, by what gave them.", labels=("rung",)
        )
        for rung, count in self._answers().items():
            rungs.add_metric((rung,), count)
        yield rungs
        yield GaugeMetricFamily(
            "matinee_hanging_threads", "Threads given up in a model that has not returned.", self._hanging()
        )

    def text(self) -> str:
        """The scrape."""
        return generate_latest(self._registry).decode()


class Pipeline:
    """The pipeline's gauges, asked for at most once a second; a source that fails gives none.

    Args:
        source: gives the text; None where there is no pipeline.
        keep_s: how long a text is good.
        timeout_s: how long a scrape waits for it.
    """

    def __init__(self, source: PipelineText | None, *, keep_s: float = 1.0, timeout_s: float = 2.0) -> None:
        self._source = source
        self._keep = keep_s
        self._timeout = timeout_s
        self._text = ""
        self._at = -keep_s

    async def text(self) -> str:
        """The gauges, or "" where they are not to be had."""
        if self._source is None or time.monotonic() - self._at < self._keep:
            return self._text
        self._at = time.monotonic()
        try:
            answer = self._source()
            if inspect.isawaitable(answer):
                answer = await asyncio.wait_for(answer, self._timeout)
            self._text = answer if not answer or answer.endswith("\n") else answer + "\n"
        except Exception as failure:
            logger.warning("no pipeline gauges: %s: %s", type(failure).__name__, failure)
            self._text = ""
        return self._text
