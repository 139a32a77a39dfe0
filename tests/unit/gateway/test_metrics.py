"""What a scrape shows, and that it never fails."""

from __future__ import annotations

import asyncio

import pytest
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from matinee.gateway.metrics import BUCKETS_S, Metrics, Pipeline


@pytest.fixture
def metrics() -> Metrics:
    splits = {"home": {"3": 0.25, "4": 0.75}}
    return Metrics(exposures=lambda: (7, 2), splits=lambda: splits, shadows=lambda: (5, 1))


def test_figures_kept_elsewhere_are_read_at_the_scrape(metrics: Metrics) -> None:
    text = metrics.text()
    assert "matinee_exposures_sent_total 7.0" in text
    assert "matinee_exposures_dropped_total 2.0" in text
    assert "matinee_shadows_made_total 5.0" in text
    assert "matinee_shadows_dropped_total 1.0" in text
    assert 'matinee_split_weight{surface="home",version="4"} 0.75' in text


def test_requests_are_told_as_prometheus_client_tells_them(metrics: Metrics) -> None:
    registry = CollectorRegistry()
    names = ("route", "method", "status")
    requests = Counter("matinee_requests", "Requests answered.", names, registry=registry)
    seconds = Histogram(
        "matinee_request_seconds",
        "Time to answer inside the replica.",
        ("route",),
        buckets=BUCKETS_S,
        registry=registry,
    )
    for place, each in enumerate((0.0, 0.001, *BUCKETS_S, 0.0021, 4.9, 5.1, 100.0)):
        route, status = ("/a", "/b")[place % 2], (200, 503)[place % 3 > 1]
        metrics.request(route, "GET", status, each)
        requests.labels(route, "GET", str(status)).inc()
        seconds.labels(route).observe(each)

    def told(text: str) -> set[str]:
        lines = text.splitlines()
        return {line for line in lines if "matinee_request" in line and "_created" not in line}

    assert told(metrics.text()) == told(generate_latest(registry).decode())


def test_the_pipeline_is_asked_once_a_second() -> None:
    asked = []

    def source() -> str:
        asked.append(1)
        return "lag 1"

    async def scrape() -> list[str]:
        pipeline = Pipeline(source)
        return [await pipeline.text(), await pipeline.text()]

    assert asyncio.run(scrape()) == ["lag 1\n", "lag 1\n"]
    assert len(asked) == 1


async def _slow() -> str:
    await asyncio.sleep(10)
    return "late"


def _broken() -> str:
    raise OSError("gone")


@pytest.mark.parametrize("source", [_slow, _broken, None])
def test_a_pipeline_that_fails_gives_nothing(source: object) -> None:
    pipeline = Pipeline(source, timeout_s=0.05)  # type: ignore[arg-type]
    assert asyncio.run(pipeline.text()) == ""
