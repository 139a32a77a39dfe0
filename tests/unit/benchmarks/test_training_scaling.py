from __future__ import annotations

from pathlib import Path

import numpy as np
from benchmarks.training_scaling import WATCHES, drawn, plot


def test_interactions_are_drawn_to_size_and_in_order() -> None:
    data = drawn(3_000, 600)
    held = data.interactions
    assert len(held) == 3_000
    assert len(held.member_ids) == 3_000 // WATCHES
    assert len(np.unique(held.member.astype(np.int64) * 600 + held.title)) == 3_000
    assert (np.diff(held.time) > 0).all()
    assert len(data.catalogue) == 600
    assert data.member_features.values.shape == (3_000, 8)
    assert np.array_equal(drawn(3_000, 600).interactions.title, held.title)


def test_the_plot_is_drawn(tmp_path: Path) -> None:
    line = {
        "model": "dnn",
        "device": "cpu",
        "workers": 1,
        "interactions": 10,
        "seconds": 1.0,
        "peak_mib": 5.0,
    }
    gpu = {**line, "device": "H100", "workers": 2}
    plot([line, {**line, "interactions": 40, "seconds": 3.0}, gpu], tmp_path / "made" / "plot.png")
    assert (tmp_path / "made" / "plot.png").stat().st_size > 10_000
