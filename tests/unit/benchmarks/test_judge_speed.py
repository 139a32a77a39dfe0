"""What the benchmark of the judge compares is the same on both sides."""

from __future__ import annotations

import numpy as np
import pytest
from benchmarks.judge_speed import GAUGES, METRICS, canary, p_values, scipys, taken


@pytest.mark.parametrize("kind", GAUGES)
def test_p_values_are_scipys(kind: str) -> None:
    samples = dict(list(canary(GAUGES[kind], 12).items())[:40])
    assert p_values(samples) == pytest.approx(scipys(samples), rel=1e-12)


def test_some_metrics_are_worse() -> None:
    samples = canary(lambda size: np.ones(size), 3)
    worse = [name for name, each in samples.items() if each.experiment.mean() > each.control.mean()]
    assert 0 < len(worse) < METRICS / 10


def test_time_is_told_in_milliseconds() -> None:
    assert 0 <= taken(lambda: None) < 1_000
