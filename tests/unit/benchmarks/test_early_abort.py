"""The law of early abort, simulated small: false aborts stay under alpha, and harm stops."""

from __future__ import annotations

import numpy as np
import pytest
from benchmarks.early_abort import ALPHA, METRICS, run


@pytest.mark.parametrize("metric", METRICS)
def test_false_aborts_stay_under_alpha_and_harm_is_found(metric: str) -> None:
    looks, canaries = 40, 250
    stopped, _ = run(METRICS[metric](np.random.default_rng(1), canaries, looks, 0.0), canaries)
    assert (stopped < looks).mean() <= ALPHA
    stopped, fixed = run(METRICS[metric](np.random.default_rng(2), 60, looks, 0.9), 60)
    assert (stopped < looks).mean() > 0.5
    assert fixed.mean() > 0.9
