"""Figures of benchmarks are drawn and written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from benchmarks import plots, serving_load


def test_scaling_is_drawn(tmp_path: Path) -> None:
    lines: dict[str, list[dict[str, Any]]] = {
        grows: [
            {"times": times, "events": 9, "keys": 3, "events_per_s": 5e6, "peak_mib": 80 * times}
            for times in (1, 4, 16)
        ]
        for grows in ("events", "keys")
    }
    plots.scaling(lines, tmp_path / "made" / "plot.png", where="on one core")
    assert (tmp_path / "made" / "plot.png").stat().st_size > 10_000


def test_load_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving_load, "PLOT", tmp_path / "load.png")
    half = {"p50_ms": 10.0, "p95_ms": 25.0, "p99_ms": 40.0}
    serving_load.plot(
        [
            {"titles": titles, "members": members, "half": half, "saturation_per_s": 200.0}
            for titles, members in serving_load.SIZES
        ]
    )
    assert (tmp_path / "load.png").stat().st_size > 10_000
